//! Objects as users know them: kind, name, metadata and the specification with its defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use model::name::DEFAULT_NAMESPACE;
use serde::de::IgnoredAny;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::check::{Check, Problem};
use crate::decode::{decode, join};
use crate::diagnostic::{Diagnostic, Severity};
use crate::kind::ObjectKind;
use crate::kind::authentication_policy::AuthenticationPolicySpec;
use crate::kind::grpc_route::GrpcRouteSpec;
use crate::kind::http_route::HttpRouteSpec;
use crate::kind::mesh_config::MeshConfigSpec;
use crate::kind::namespace::NamespaceSpec;
use crate::kind::reference_grant::ReferenceGrantSpec;
use crate::kind::service::ServiceSpec;
use crate::kind::traffic_policy::TrafficPolicySpec;
use crate::kind::workload::WorkloadSpec;
use crate::not_served;
use crate::reference::{check_name, check_namespace, shorten};
use crate::suggest;
use crate::yaml::{Node, Place, Value};

/// Kind, namespace and name: what there is one object of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Kind.
    pub kind: ObjectKind,
    /// Namespace; empty for kinds that live in none.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key. The namespace is dropped for kinds that live in none.
    pub fn new(kind: ObjectKind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.namespaced() { namespace } else { "" };
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// What is known of an object beside its specification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// `creationTimestamp`, in seconds since 1970; the store sets it.
    pub created: Option<u64>,
    /// `generation`: counts changes of the specification; the store sets it.
    pub generation: Option<u64>,
    /// `resourceVersion`; the store sets it.
    pub resource_version: Option<String>,
}

/// Where an object was read from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// The file, or what else the text came from; empty if unknown.
    pub file: Arc<str>,
    /// The line on which the object begins, from 1; 0 if unknown.
    pub line: u32,
    /// Where its references stand, for what is found out when they are followed.
    pub(crate) places: Places,
}

/// Places of some fields of an object, by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Places(Arc<[(Box<str>, u32, u32)]>);

impl Places {
    /// The place of a field, or of the nearest known one around it.
    pub(crate) fn find(&self, path: &str) -> Place {
        let around = |known: &str| {
            path.strip_prefix(known)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.0
            .iter()
            .filter(|(known, ..)| around(known))
            .max_by_key(|(known, ..)| known.len())
            .map(|&(_, line, column)| Place { line, column })
            .unwrap_or_default()
    }
}

/// An object that was read, defaulted and found valid.
///
/// Serialises to what the user wrote plus defaults; deserialising checks as [`crate::parse`] does.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Kind and name.
    pub key: ObjectKey,
    /// Labels and such.
    pub metadata: Metadata,
    /// The specification.
    pub spec: Spec,
    /// Where it was read.
    pub source: Source,
}

/// A specification, by kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(
    missing_docs,
    reason = "each holds the specification of the kind of that name"
)]
pub enum Spec {
    Namespace(NamespaceSpec),
    MeshConfig(MeshConfigSpec),
    Service(Box<ServiceSpec>),
    Workload(Box<WorkloadSpec>),
    ReferenceGrant(ReferenceGrantSpec),
    HttpRoute(HttpRouteSpec),
    GrpcRoute(GrpcRouteSpec),
    TrafficPolicy(Box<TrafficPolicySpec>),
    AuthenticationPolicy(AuthenticationPolicySpec),
}

impl Object {
    /// Reads an object from JSON, as the store keeps it.
    pub fn from_json(source_name: &str, json: serde_json::Value) -> Result<Self, Vec<Diagnostic>> {
        let mut diagnostics = Vec::new();
        let read = read(&Node::from(json), &source_name.into(), &mut diagnostics);
        read.ok_or(diagnostics)
    }

    /// Whether two objects say the same: versions and places may differ.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.key == other.key
            && self.spec == other.spec
            && self.metadata.labels == other.metadata.labels
            && self.metadata.annotations == other.metadata.annotations
    }

    /// The namespace whose objects it can name without saying so.
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// A finding about the whole object.
    pub(crate) fn finding(&self, severity: Severity, message: String, hint: String) -> Diagnostic {
        Diagnostic {
            severity,
            object: Some(self.key.clone()),
            file: Arc::clone(&self.source.file),
            line: self.source.line,
            column: 0,
            field: String::new(),
            message,
            hint,
        }
    }

    /// That an object is there twice; about `self`, which is the later one.
    pub fn duplicate_of(&self, first: &Self) -> Diagnostic {
        let Source { file, line, .. } = &first.source;
        let place = match (file.is_empty(), *line) {
            (true, 0) => "elsewhere".to_owned(),
            (true, line) => format!("on line {line}"),
            (false, 0) => format!("in {file}"),
            (false, line) => format!("in {file}:{line}"),
        };
        let message = format!("is there twice: first {place}, and again here");
        self.finding(
            Severity::Error,
            message,
            "take one out, or rename it".to_owned(),
        )
    }
}

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
    // Kubernetes' own bookkeeping, which its users paste along with the rest.
    #[serde(rename = "uid", default)]
    _uid: IgnoredAny,
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

/// Reads one object; `None` if anything about it is an error.
pub(crate) fn read(
    node: &Node,
    file: &Arc<str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Object> {
    let mut problems = Vec::new();
    let key_and_object = read_parts(node, &mut problems);
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

fn read_parts(node: &Node, problems: &mut Vec<Problem>) -> Option<(ObjectKey, Option<Parts>)> {
    let kind = read_kind(node, problems)?;
    check_top_level(node, problems);
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
    let spec_node = match node.get("spec") {
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
    Some((key, spec.map(|spec| (metadata, spec, check.marks))))
}

fn decode_spec(kind: ObjectKind, node: &Node, problems: &mut Vec<Problem>) -> Option<Spec> {
    let at = "spec";
    Some(match kind {
        ObjectKind::Namespace => Spec::Namespace(decode(node, at, problems)?),
        ObjectKind::MeshConfig => Spec::MeshConfig(decode(node, at, problems)?),
        ObjectKind::Service => Spec::Service(decode(node, at, problems)?),
        ObjectKind::Workload => Spec::Workload(decode(node, at, problems)?),
        ObjectKind::ReferenceGrant => Spec::ReferenceGrant(decode(node, at, problems)?),
        ObjectKind::HttpRoute => Spec::HttpRoute(decode(node, at, problems)?),
        ObjectKind::GrpcRoute => Spec::GrpcRoute(decode(node, at, problems)?),
        ObjectKind::TrafficPolicy => Spec::TrafficPolicy(decode(node, at, problems)?),
        ObjectKind::AuthenticationPolicy => Spec::AuthenticationPolicy(decode(node, at, problems)?),
    })
}

fn check_spec(spec: &mut Spec, key: &ObjectKey, c: &mut Check<'_>) {
    match spec {
        Spec::Namespace(_) => {}
        Spec::MeshConfig(spec) => spec.check(&key.name, c),
        Spec::Service(spec) => spec.check(&key.name, c),
        Spec::Workload(spec) => spec.check(c),
        Spec::ReferenceGrant(spec) => spec.check(c),
        Spec::HttpRoute(spec) => spec.check(&key.namespace, c),
        Spec::GrpcRoute(spec) => spec.check(&key.namespace, c),
        Spec::TrafficPolicy(spec) => spec.check(c),
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

fn check_top_level(node: &Node, problems: &mut Vec<Problem>) {
    const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
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
        if key.kind != ObjectKind::Service && key.kind != ObjectKind::Namespace {
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
                Some((prefix, name)) => model::name::is_subdomain(prefix) && word(name),
                None => word(key),
            };
            if !key_ok {
                let message = format!("\"{}\" is not a label's key", shorten(key));
                c.at_key(key, |c| {
                    c.error(message, "use up to 63 letters, digits, '-', '_' and '.'")
                });
            }
            if !value.is_empty() && !word(value) {
                let message = format!("\"{}\" is not a label's value", shorten(value));
                c.at_key(key, |c| {
                    c.error(message, "use up to 63 letters, digits, '-', '_' and '.'")
                });
            }
        }
    });
}

mod timestamp {
    //! `creationTimestamp`: RFC 3339, as seconds since 1970.

    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    pub(super) fn parse(text: &str) -> Option<u64> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(time.unix_timestamp()).ok()
    }

    pub(super) fn format(seconds: u64) -> Option<String> {
        let seconds = i64::try_from(seconds).ok()?;
        OffsetDateTime::from_unix_timestamp(seconds)
            .ok()?
            .format(&Rfc3339)
            .ok()
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize_with(None, serializer)
    }
}

impl Metadata {
    fn serialize_with<S: Serializer>(
        &self,
        key: Option<&ObjectKey>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(key) = key {
            map.serialize_entry("name", &key.name)?;
            if !key.namespace.is_empty() {
                map.serialize_entry("namespace", &key.namespace)?;
            }
        }
        if !self.labels.is_empty() {
            map.serialize_entry("labels", &self.labels)?;
        }
        if !self.annotations.is_empty() {
            map.serialize_entry("annotations", &self.annotations)?;
        }
        if let Some(created) = self.created.and_then(timestamp::format) {
            map.serialize_entry("creationTimestamp", &created)?;
        }
        if let Some(generation) = self.generation {
            map.serialize_entry("generation", &generation)?;
        }
        if let Some(version) = &self.resource_version {
            map.serialize_entry("resourceVersion", version)?;
        }
        map.end()
    }
}

struct NamedMetadata<'a>(&'a Object);

impl Serialize for NamedMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0
            .metadata
            .serialize_with(Some(&self.0.key), serializer)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("apiVersion", &self.key.kind.api_version())?;
        map.serialize_entry("kind", self.key.kind.as_str())?;
        map.serialize_entry("metadata", &NamedMetadata(self))?;
        let empty = Spec::Namespace(NamespaceSpec::default());
        if self.spec != empty {
            map.serialize_entry("spec", &self.spec)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        Self::from_json("", json).map_err(|diagnostics| {
            let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
            serde::de::Error::custom(lines.join("\n"))
        })
    }
}
