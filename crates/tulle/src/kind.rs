//! The kinds of resources as people type them, and their paths in the API.

use config::ObjectKind;

use crate::client::encode;
use crate::failure::usage;

/// The kind that a word means: plural, singular or short, whatever the case.
pub(crate) fn find(word: &str) -> anyhow::Result<ObjectKind> {
    ObjectKind::from_word(word).ok_or_else(|| {
        let word_lower = word.to_ascii_lowercase();
        let nearest = ObjectKind::ALL
            .iter()
            .min_by_key(|k| distance(&word_lower, k.plural()))
            .map_or("services", |k| k.plural());
        let all: Vec<_> = ObjectKind::ALL.iter().map(|k| k.plural()).collect();
        usage!(
            "there is no kind \"{word}\"; did you mean \"{nearest}\"? The kinds are: {}",
            all.join(", ")
        )
    })
}

/// The API's path of all objects of a kind, of a namespace's, or of one.
pub(crate) fn path(kind: ObjectKind, namespace: Option<&str>, name: Option<&str>) -> String {
    let base = format!("/api/v1/resources/{}", kind.plural());
    match (namespace, name) {
        (Some(namespace), Some(name)) if kind.namespaced() => {
            format!("{base}/{}/{}", encode(namespace), encode(name))
        }
        // The path has the same shape for all kinds; what lives in no namespace says `-`.
        (_, Some(name)) => format!("{base}/-/{}", encode(name)),
        (Some(namespace), None) if kind.namespaced() => {
            format!("{base}?namespace={}", encode(namespace))
        }
        (_, None) => base,
    }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let best = (diagonal + usize::from(x != *y))
                .min(left + 1)
                .min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_forgiving_and_the_nearest_is_suggested() {
        assert_eq!(find("svc").expect("short"), ObjectKind::Service);
        assert_eq!(
            find("HTTPRoute").expect("as in YAML"),
            ObjectKind::HttpRoute
        );
        let message = find("servces").expect_err("a slip").to_string();
        assert!(message.contains("did you mean \"services\""), "{message}");
    }

    #[test]
    fn distance_is_levenshteins() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
