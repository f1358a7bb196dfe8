//! Kinds under their names, and objects that live in the repository.

use config::{ObjectKey, ObjectKind, parse};

#[test]
fn a_kind_is_found_under_all_its_names() {
    for kind in ObjectKind::ALL {
        for word in [kind.as_str(), kind.plural()]
            .iter()
            .chain(kind.short_names())
        {
            assert_eq!(ObjectKind::from_word(word), Some(kind), "{word}");
        }
    }
    assert_eq!(
        ObjectKind::from_word("httproute"),
        Some(ObjectKind::HttpRoute)
    );
    assert_eq!(ObjectKind::from_word("SVC"), Some(ObjectKind::Service));
    assert_eq!(ObjectKind::from_word("jobs"), None);
}

#[test]
fn what_lives_in_no_namespace_has_none_in_its_key() {
    let key = ObjectKey::new(ObjectKind::MeshConfig, "bookshop", "default");
    assert_eq!(key.to_string(), "MeshConfig default");
    let key = ObjectKey::new(ObjectKind::HttpRoute, "bookshop", "reviews");
    assert_eq!(key.to_string(), "HTTPRoute bookshop/reviews");
}

#[test]
fn there_is_nothing_to_say_about_the_bookshop() {
    let text = include_str!("../../../examples/bookshop/src/manifest.yaml");
    let parsed = parse("manifest.yaml", text);
    assert!(parsed.diagnostics.is_empty(), "{:#?}", parsed.diagnostics);
    assert!(!parsed.objects.is_empty());
}
