//! Objects that are there for others to refer to, and to which none does: grants, certificates.
//!
//! References are found by the names of their fields, whatever the kind that has them.

use std::collections::{BTreeMap, BTreeSet};

use config::kind::secret::TLS_TYPE;
use config::{Object, ObjectKey, ObjectKind, Spec};
use serde_json::Value;

use super::{Notes, Said, Severity};

/// Fields that refer to an object by group, kind, namespace and name.
const REFERENCES: [&str; 6] = [
    "backendRefs",
    "backendRef",
    "certificateRefs",
    "caCertificateRefs",
    "clientCertificateRef",
    "defaultBackendRef",
];

/// A reference into another namespace or the object's own.
struct Reference {
    from: ObjectKey,
    group: String,
    kind: String,
    namespace: String,
    name: String,
}

pub(super) fn look(notes: &mut Notes<'_>) {
    let world = notes.world;
    let interesting = [
        ObjectKind::ReferenceGrant,
        ObjectKind::Secret,
        ObjectKind::ConfigMap,
    ];
    if !world
        .objects()
        .keys()
        .any(|k| interesting.contains(&k.kind))
    {
        return;
    }
    let mut used: BTreeSet<(String, String, String)> = BTreeSet::new();
    let mut foreign: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
    for object in world.objects().values() {
        for reference in references(object) {
            let Reference {
                kind,
                namespace,
                name,
                ..
            } = &reference;
            used.insert((kind.clone(), namespace.clone(), name.clone()));
            if **namespace != *object.key.namespace {
                foreign
                    .entry(namespace.clone())
                    .or_default()
                    .push(reference);
            }
        }
    }
    for (key, object) in world.objects() {
        let said = match &object.spec {
            Spec::ReferenceGrant(grant) => {
                let here = foreign.get(&*key.namespace);
                let wanted = here.into_iter().flatten().any(|r| {
                    let group = group(r.from.kind);
                    let who = (group.as_str(), r.from.kind.as_str(), &*r.from.namespace);
                    grant.allows(who, (&r.group, &r.kind, &r.name))
                });
                (!wanted).then(unused_grant)
            }
            Spec::Secret(secret) if secret.secret_type.as_deref() == Some(TLS_TYPE) => {
                let name = (
                    "Secret".to_owned(),
                    key.namespace.to_string(),
                    key.name.to_string(),
                );
                (!used.contains(&name))
                    .then(|| unused("no listener and no policy names this certificate"))
            }
            Spec::ConfigMap(map) if map.data.contains_key("ca.crt") => {
                let name = (
                    "ConfigMap".to_owned(),
                    key.namespace.to_string(),
                    key.name.to_string(),
                );
                (!used.contains(&name))
                    .then(|| unused("no Gateway and no policy names these root certificates"))
            }
            _ => None,
        };
        if let Some(said) = said {
            notes.add(key.clone(), said);
        }
    }
}

fn unused_grant() -> Said {
    Said {
        severity: Severity::Warning,
        check: "unused",
        field: "spec".to_owned(),
        message: "the grant allows nothing that is asked for".to_owned(),
        why: "no object of the kinds and namespaces in `from` refers to what is in `to`".to_owned(),
        remedy: "correct group, kind and namespace in it, or take it out".to_owned(),
    }
}

fn unused(message: &str) -> Said {
    Said {
        severity: Severity::Info,
        check: "unused",
        field: String::new(),
        message: message.to_owned(),
        why: String::new(),
        remedy: "take it out if it is not for something else".to_owned(),
    }
}

/// The API group of a kind.
fn group(kind: ObjectKind) -> String {
    let version = kind.api_version();
    let group = version.split_once('/').map(|(group, _)| group);
    group.unwrap_or_default().to_owned()
}

fn references(object: &Object) -> Vec<Reference> {
    let mut found = Vec::new();
    // What was read can be written.
    if let Ok(spec) = serde_json::to_value(&object.spec) {
        walk(&spec, object, &mut found);
    }
    found
}

fn walk(value: &Value, object: &Object, found: &mut Vec<Reference>) {
    match value {
        Value::Array(items) => {
            for item in items {
                walk(item, object, found);
            }
        }
        Value::Object(fields) => {
            for (field, value) in fields {
                if REFERENCES.contains(&field.as_str()) {
                    match value {
                        Value::Array(items) => {
                            found.extend(items.iter().filter_map(|item| reference(item, object)));
                        }
                        single => found.extend(reference(single, object)),
                    }
                }
                walk(value, object, found);
            }
        }
        _ => {}
    }
}

fn reference(value: &Value, object: &Object) -> Option<Reference> {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    Some(Reference {
        from: object.key.clone(),
        group: text("group").unwrap_or_default().to_owned(),
        kind: text("kind").unwrap_or("Service").to_owned(),
        namespace: text("namespace")
            .unwrap_or(&object.key.namespace)
            .to_owned(),
        name: text("name")?.to_owned(),
    })
}
