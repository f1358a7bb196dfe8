//! From a tree to an object: kind and version, metadata, then the specification, which is decoded
//! and checked by its kind's module.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::name::{DEFAULT_NAMESPACE, is_subdomain};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Metadata, Object, ObjectKey, Places, Source, Spec, timestamp};
use crate::check::{Check, Problem};
use crate::decode::{NOT_SERVED, decode, join};
use crate::diagnostic::{Diagnostic, Severity};
use crate::kind::{GATEWAY_GROUP, ObjectKind};
use crate::not_served;
use crate::reference::{check_name, check_namespace, shorten};
use crate::schema::{Found, Schemas};
use crate::suggest;
use crate::yaml::{Key, Node, Value};

/// The fields of an object beside its specification.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMeta {
    name: String,
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    creation_timestamp: Option<String>,
    generation: Option<u64>,
    resource_version: Option<String>,
    uid: Option<String>,
    // Kubernetes' own bookkeeping, which its users paste along with the rest.
    #[serde(rename = "selfLink", default)]
    _self_link: IgnoredAny,
    #[serde(rename = "generateName", default)]
    _generate_name: IgnoredAny,
    #[serde(rename = "ownerReferences", default)]
    _owner_references: IgnoredAny,
    #[serde(rename = "managedFields", default)]
    _managed_fields: IgnoredAny,
    #[serde(rename = "finalizers", default)]
    _finalizers: IgnoredAny,
    #[serde(rename = "deletionTimestamp", default)]
    _deletion_timestamp: IgnoredAny,
    #[serde(rename = "deletionGracePeriodSeconds", default)]
    _deletion_grace_period_seconds: IgnoredAny,
}

/// Who vouches for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nobody: it is judged by its CRD.
    Users,
    /// It was judged, and got its defaults, when it was written.
    Kept,
}

/// Reads one object; `None` if anything about it is an error. What a user wrote gets the defaults of
/// its CRD.
pub(crate) fn read(
    node: &mut Node,
    trust: Trust,
    file: &Arc<str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Object> {
    let mut problems = Vec::new();
    let key_and_object = read_parts(node, trust, &mut problems);
    let (key, parts) = match key_and_object {
        Some((key, parts)) => (Some(key), parts),
        None => (None, None),
    };
    let refused = problems.iter().any(|p| p.severity == Severity::Error);
    diagnostics.extend(
        problems
            .into_iter()
            .map(|p| p.into_diagnostic(file, key.as_ref())),
    );
    let (metadata, spec, marks) = parts.filter(|_| !refused)?;
    Some(Object {
        key: key?,
        metadata,
        spec,
        source: Source {
            file: Arc::clone(file),
            line: node.place.line,
            places: Places(marks.into()),
        },
    })
}

type Marks = Vec<(Box<str>, u32, u32)>;
type Parts = (Metadata, Spec, Marks);

fn read_parts(
    node: &mut Node,
    trust: Trust,
    problems: &mut Vec<Problem>,
) -> Option<(ObjectKey, Option<Parts>)> {
    let kind = read_kind(node, problems)?;
    let by_schema = judge(kind, node, trust);
    check_top_level(kind, node, problems);
    let Some(metadata_node) = node.get("metadata") else {
        let hint = "add `metadata: {name: ..., namespace: ...}`";
        problems.push(Problem::error("metadata", node.place, "is required", hint));
        return None;
    };
    let meta: ObjectMeta = decode(metadata_node, "metadata", problems)?;
    let namespace = meta
        .namespace
        .clone()
        .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let key = ObjectKey::new(kind, &namespace, &meta.name);

    let nothing = Node {
        place: metadata_node.place,
        value: Value::Map(Vec::new()),
    };
    let flat;
    let spec_node = match node.get("spec") {
        _ if kind.is_flat() => {
            flat = without_header(node);
            &flat
        }
        Some(spec) if spec.value != Value::Null => spec,
        _ => &nothing,
    };
    let spec = decode_spec(kind, spec_node, problems);

    let mut check = Check::reading(node);
    let metadata = check_metadata(meta, &key, &mut check);
    let spec = spec.map(|mut spec| {
        check_spec(&mut spec, &key, &mut check);
        spec
    });
    problems.append(&mut check.problems);
    add(by_schema, problems);
    Some((key, spec.map(|spec| (metadata, spec, check.marks))))
}

/// Fills in the defaults of the CRD, and says what it refuses.
fn judge(kind: ObjectKind, node: &mut Node, trust: Trust) -> Vec<Found> {
    if kind.group() != GATEWAY_GROUP || trust == Trust::Kept {
        return Vec::new();
    }
    let api_version = node.get("apiVersion").and_then(Node::as_text);
    let version = api_version.and_then(|v| v.rsplit('/').next());
    let version = version.unwrap_or_default().to_owned();
    let place = node.place;
    let spec = node.get_mut("spec").filter(|s| s.value != Value::Null);
    let Some(spec) = spec else {
        let problem = Problem::error("spec", place, "is required", "add `spec`");
        return vec![Found::from(problem)];
    };
    Schemas::shared().fill_and_judge(kind.as_str(), &version, spec)
}

/// Adds the findings of the schema, but for those of which something better is said already.
fn add(by_schema: Vec<Found>, problems: &mut Vec<Problem>) {
    let is_said = |found: &Found| {
        let field = found.problem.field.as_str();
        problems
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .any(|said| {
                said.field == field
                    || found.yields && said.field.starts_with(field)
                    || said.message == NOT_SERVED && field.starts_with(&said.field)
            })
    };
    let new: Vec<Problem> = by_schema
        .into_iter()
        .filter(|found| !is_said(found))
        .map(|found| found.problem)
        .collect();
    if !new.is_empty() {
        problems.extend(new);
        problems.sort_by_key(|p| (p.place.line, p.place.column));
    }
}

fn decode_spec(kind: ObjectKind, node: &Node, problems: &mut Vec<Problem>) -> Option<Spec> {
    let at = if kind.is_flat() { "" } else { "spec" };
    Some(match kind {
        ObjectKind::Namespace => Spec::Namespace(decode(node, at, problems)?),
        ObjectKind::MeshConfig => Spec::MeshConfig(decode(node, at, problems)?),
        ObjectKind::Service => Spec::Service(decode(node, at, problems)?),
        ObjectKind::ServiceImport => Spec::ServiceImport(decode(node, at, problems)?),
        ObjectKind::Workload => Spec::Workload(decode(node, at, problems)?),
        ObjectKind::Node => Spec::Node(decode(node, at, problems)?),
        ObjectKind::Pod => Spec::Pod(decode(node, at, problems)?),
        ObjectKind::EndpointSlice => Spec::EndpointSlice(decode(node, at, problems)?),
        ObjectKind::Secret => Spec::Secret(decode(node, at, problems)?),
        ObjectKind::ConfigMap => Spec::ConfigMap(decode(node, at, problems)?),
        ObjectKind::TlsRoute => Spec::TlsRoute(decode(node, at, problems)?),
        ObjectKind::TcpRoute => Spec::TcpRoute(decode(node, at, problems)?),
        ObjectKind::UdpRoute => Spec::UdpRoute(decode(node, at, problems)?),
        ObjectKind::ListenerPolicy => Spec::ListenerPolicy(decode(node, at, problems)?),
        ObjectKind::BackendTlsPolicy => Spec::BackendTlsPolicy(decode(node, at, problems)?),
        ObjectKind::GatewayClass => Spec::GatewayClass(decode(node, at, problems)?),
        ObjectKind::Gateway => Spec::Gateway(decode(node, at, problems)?),
        ObjectKind::ListenerSet => Spec::ListenerSet(decode(node, at, problems)?),
        ObjectKind::ReferenceGrant => Spec::ReferenceGrant(decode(node, at, problems)?),
        ObjectKind::HttpRoute => Spec::HttpRoute(decode(node, at, problems)?),
        ObjectKind::GrpcRoute => Spec::GrpcRoute(decode(node, at, problems)?),
        ObjectKind::FaultPolicy => Spec::FaultPolicy(decode(node, at, problems)?),
        ObjectKind::RateLimitPolicy => Spec::RateLimitPolicy(decode(node, at, problems)?),
        ObjectKind::TrafficPolicy => Spec::TrafficPolicy(decode(node, at, problems)?),
        ObjectKind::AuthenticationPolicy => Spec::AuthenticationPolicy(decode(node, at, problems)?),
    })
}

fn check_spec(spec: &mut Spec, key: &ObjectKey, c: &mut Check<'_>) {
    match spec {
        // All that there is to say of a GatewayClass, its CRD says.
        Spec::Namespace(_) | Spec::GatewayClass(_) | Spec::Node(_) => {}
        Spec::MeshConfig(spec) => spec.check(&key.name, c),
        Spec::Service(spec) => spec.check(&key.name, c),
        Spec::ServiceImport(spec) => spec.check(&key.name, c),
        Spec::Workload(spec) => spec.check(c),
        Spec::Pod(spec) => spec.check(c),
        Spec::EndpointSlice(spec) => spec.check(c),
        Spec::Secret(spec) => spec.check(c),
        Spec::ConfigMap(spec) => spec.check(c),
        Spec::TlsRoute(spec) => spec.check(c),
        Spec::TcpRoute(spec) | Spec::UdpRoute(spec) => spec.check(c),
        Spec::ListenerPolicy(spec) => spec.check(c),
        Spec::BackendTlsPolicy(spec) => spec.check(c),
        Spec::Gateway(spec) => spec.check(c),
        Spec::ListenerSet(spec) => spec.check(c),
        Spec::ReferenceGrant(spec) => spec.check(c),
        Spec::HttpRoute(spec) => spec.check(c),
        Spec::GrpcRoute(spec) => spec.check(c),
        Spec::TrafficPolicy(spec) => spec.check(c),
        Spec::FaultPolicy(spec) => spec.check(c),
        Spec::RateLimitPolicy(spec) => spec.check(&key.namespace, c),
        Spec::AuthenticationPolicy(spec) => spec.check(&key.namespace, c),
    }
}

fn read_kind(node: &Node, problems: &mut Vec<Problem>) -> Option<ObjectKind> {
    let mut wrong = |field: &str, place, message: String, hint: String| {
        problems.push(Problem::error(field, place, message, hint));
    };
    if !matches!(node.value, Value::Map(_)) {
        wrong(
            "",
            node.place,
            "is not an object".to_owned(),
            "begin with `apiVersion`, `kind` and `metadata`".to_owned(),
        );
        return None;
    }
    let Some(kind_node) = node.get("kind") else {
        let known = ObjectKind::ALL.map(ObjectKind::as_str).join(", ");
        wrong(
            "kind",
            node.place,
            "is required".to_owned(),
            format!("use {known}"),
        );
        return None;
    };
    let word = kind_node.as_text().unwrap_or_default();
    let Some(kind) = ObjectKind::ALL.into_iter().find(|k| k.as_str() == word) else {
        if not_served::KINDS.contains(&word) {
            wrong(
                "kind",
                kind_node.place,
                format!("{word} is not served by this version of Tulle"),
                "take the object out".to_owned(),
            );
            return None;
        }
        let known = ObjectKind::ALL.map(ObjectKind::as_str);
        let all = known.iter().chain(not_served::KINDS).copied();
        let hint = match suggest::hint(word, all) {
            hint if hint.is_empty() => format!("use {}", known.join(", ")),
            hint => hint,
        };
        let message = format!("\"{}\" is not a kind that Tulle knows", shorten(word));
        wrong("kind", kind_node.place, message, hint);
        return None;
    };
    let wanted = kind.api_version();
    let place = node.get("apiVersion").map_or(node.place, |n| n.place);
    match node.get("apiVersion").and_then(Node::as_text) {
        None => {
            wrong(
                "apiVersion",
                place,
                "is required".to_owned(),
                format!("write `apiVersion: {wanted}`"),
            );
            None
        }
        Some(version) if kind.serves_version(version) => Some(kind),
        Some(version) => {
            let message = format!("there is no {kind} in \"{}\"", shorten(version));
            wrong(
                "apiVersion",
                place,
                message,
                format!("write `apiVersion: {wanted}`"),
            );
            None
        }
    }
}

/// The fields that every object has.
const HEADER: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// What is left of an object without those.
fn without_header(node: &Node) -> Node {
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        _ => &[],
    };
    let own = |(key, _): &&(Key, Node)| !HEADER.contains(&key.text.as_str());
    Node {
        place: node.place,
        value: Value::Map(entries.iter().filter(own).cloned().collect()),
    }
}

fn check_top_level(kind: ObjectKind, node: &Node, problems: &mut Vec<Problem>) {
    const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
    if kind.is_flat() {
        return;
    }
    let Value::Map(entries) = &node.value else {
        return;
    };
    for (key, _) in entries {
        if !FIELDS.contains(&key.text.as_str()) {
            let hint = match suggest::hint(&key.text, FIELDS) {
                hint if hint.is_empty() => "settings belong below `spec`".to_owned(),
                hint => hint,
            };
            let field = join("", &key.text);
            problems.push(Problem::error(
                &field,
                key.place,
                "is not a known field",
                hint,
            ));
        }
    }
}

fn check_metadata(meta: ObjectMeta, key: &ObjectKey, c: &mut Check<'_>) -> Metadata {
    c.at("metadata", |c| {
        let by_kind = [
            ObjectKind::Service,
            ObjectKind::ServiceImport,
            ObjectKind::Namespace,
        ];
        if !by_kind.contains(&key.kind) {
            check_name("name", &meta.name, c);
        }
        if key.kind == ObjectKind::Namespace {
            check_namespace("name", &meta.name, c);
        }
        if let Some(namespace) = &meta.namespace {
            if key.kind.namespaced() {
                check_namespace("namespace", namespace, c);
            } else if !namespace.is_empty() {
                let message = format!("a {} lives in no namespace", key.kind);
                c.error_at("namespace", message, "take it out");
            }
        }
        check_labels(&meta.labels, c);
        let created = meta.creation_timestamp.as_deref().and_then(|text| {
            let seconds = timestamp::parse(text);
            if seconds.is_none() {
                let message = format!("\"{}\" is not a time", shorten(text));
                c.error_at(
                    "creationTimestamp",
                    message,
                    "write it like 2026-01-31T12:00:00Z",
                );
            }
            seconds
        });
        Metadata {
            labels: meta.labels,
            annotations: meta.annotations,
            created,
            generation: meta.generation,
            resource_version: meta.resource_version,
            uid: meta.uid,
        }
    })
}

/// Keys and values of labels, as Kubernetes has them.
fn check_labels(labels: &BTreeMap<String, String>, c: &mut Check<'_>) {
    let word = |s: &str| {
        s.len() <= 63
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && s.starts_with(|x: char| x.is_ascii_alphanumeric())
            && s.ends_with(|x: char| x.is_ascii_alphanumeric())
    };
    c.at("labels", |c| {
        for (key, value) in labels {
            let key_ok = match key.split_once('/') {
                Some((prefix, name)) => is_subdomain(prefix) && word(name),
                None => word(key),
            };
            if !key_ok {
                let message = format!("\"{}\" is not a label's key", shorten(key));
                c.at_key(key, |c| {
                    c.error(message, "use up to 63 letters, digits, '-', '_' and '.'");
                });
            }
            if !value.is_empty() && !word(value) {
                let message = format!("\"{}\" is not a label's value", shorten(value));
                c.at_key(key, |c| {
                    c.error(message, "use up to 63 letters, digits, '-', '_' and '.'");
                });
            }
        }
    });
}
