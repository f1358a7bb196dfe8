//! Objects as users know them: kind, name, metadata and the specification with its defaults.

mod read;
pub(crate) mod timestamp;

pub(crate) use read::{Trust, read};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use model::ServiceName;
use model::name::InvalidName;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::diagnostic::{Diagnostic, Severity};
use crate::kind::authentication_policy::AuthenticationPolicySpec;
use crate::kind::backend_tls_policy::BackendTlsPolicySpec;
use crate::kind::endpoint_slice::EndpointSliceSpec;
use crate::kind::fault_policy::FaultPolicySpec;
use crate::kind::gateway::{DefaultScope, GatewaySpec};
use crate::kind::gateway_class::GatewayClassSpec;
use crate::kind::grpc_route::GrpcRouteSpec;
use crate::kind::http_route::HttpRouteSpec;
use crate::kind::listener_policy::ListenerPolicySpec;
use crate::kind::listener_set::ListenerSetSpec;
use crate::kind::mesh_config::MeshConfigSpec;
use crate::kind::namespace::NamespaceSpec;
use crate::kind::pod::{NodeSpec, PodSpec};
use crate::kind::rate_limit_policy::RateLimitPolicySpec;
use crate::kind::reference_grant::ReferenceGrantSpec;
use crate::kind::secret::{ConfigMapSpec, SecretSpec};
use crate::kind::service::ServiceSpec;
use crate::kind::service_import::ServiceImportSpec;
use crate::kind::stream_route::{StreamRouteSpec, TlsRouteSpec};
use crate::kind::traffic_policy::TrafficPolicySpec;
use crate::kind::workload::WorkloadSpec;
use crate::kind::{GATEWAY_GROUP, ObjectKind};
use crate::reference::{ParentRef, TargetRef};
use crate::schema::Schemas;
use crate::yaml::{Node, Place};

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

    /// The name under which the mesh knows the service that a `Service` or `ServiceImport` is; an
    /// error where it cannot have that name.
    pub fn service_name(&self) -> Result<ServiceName, InvalidName> {
        match self.kind {
            ObjectKind::ServiceImport => ServiceName::imported(&self.namespace, &self.name),
            _ => ServiceName::new(&self.namespace, &self.name),
        }
    }

    /// The object that a service of the model was written as.
    pub fn of_service(service: &ServiceName) -> Self {
        let (kind, name) = match service.import() {
            Some(name) => (ObjectKind::ServiceImport, name),
            None => (ObjectKind::Service, service.name()),
        };
        Self::new(kind, service.namespace(), name)
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
    /// `uid`, where Kubernetes gave one.
    pub uid: Option<String>,
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
/// Serialises to what the user wrote plus defaults; deserialising is
/// [`Object::from_json`].
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
    ServiceImport(ServiceImportSpec),
    Workload(Box<WorkloadSpec>),
    Node(NodeSpec),
    Pod(PodSpec),
    EndpointSlice(EndpointSliceSpec),
    Secret(SecretSpec),
    ConfigMap(ConfigMapSpec),
    ReferenceGrant(ReferenceGrantSpec),
    GatewayClass(GatewayClassSpec),
    Gateway(Box<GatewaySpec>),
    ListenerSet(ListenerSetSpec),
    HttpRoute(HttpRouteSpec),
    GrpcRoute(GrpcRouteSpec),
    TlsRoute(TlsRouteSpec),
    TcpRoute(StreamRouteSpec),
    UdpRoute(StreamRouteSpec),
    TrafficPolicy(Box<TrafficPolicySpec>),
    FaultPolicy(Box<FaultPolicySpec>),
    RateLimitPolicy(Box<RateLimitPolicySpec>),
    AuthenticationPolicy(AuthenticationPolicySpec),
    BackendTlsPolicy(BackendTlsPolicySpec),
    ListenerPolicy(ListenerPolicySpec),
}

impl Spec {
    /// The parents of a route; other kinds have none.
    pub(crate) fn parent_refs(&self) -> &[ParentRef] {
        match self {
            Self::HttpRoute(route) => &route.parent_refs,
            Self::GrpcRoute(route) => &route.parent_refs,
            Self::TlsRoute(route) => &route.parent_refs,
            Self::TcpRoute(route) | Self::UdpRoute(route) => &route.parent_refs,
            _ => &[],
        }
    }

    /// The targets of a policy that takes effect in the workloads behind them.
    pub(crate) fn targets_of_workloads(&self) -> Option<&[TargetRef]> {
        match self {
            Self::AuthenticationPolicy(policy) => Some(&policy.target_refs),
            Self::RateLimitPolicy(policy) => Some(&policy.target_refs),
            _ => None,
        }
    }

    /// Whether a route is attached to default Gateways too.
    pub(crate) fn default_scope(&self) -> DefaultScope {
        match self {
            Self::HttpRoute(route) => route.use_default_gateways,
            Self::GrpcRoute(route) => route.use_default_gateways,
            Self::TlsRoute(route) => route.use_default_gateways,
            Self::TcpRoute(route) | Self::UdpRoute(route) => route.use_default_gateways,
            _ => DefaultScope::None,
        }
    }
}

impl Object {
    /// Reads an object from JSON, as the store or an API server keeps it. It was judged by its CRD
    /// and got its defaults when it got there, and so it is not and does not again.
    pub fn from_json(source_name: &str, json: serde_json::Value) -> Result<Self, Vec<Diagnostic>> {
        let mut diagnostics = Vec::new();
        let node = &mut Node::from(json);
        let read = read(node, Trust::Kept, &source_name.into(), &mut diagnostics);
        read.ok_or(diagnostics)
    }

    /// What the rules of its CRD have against putting it in the place of `old`, an object of the
    /// same name: some fields cannot be changed.
    pub fn refused_changes(&self, old: &Self) -> Vec<Diagnostic> {
        let kind = self.key.kind;
        let schemas = Schemas::shared();
        if kind.group() != GATEWAY_GROUP || !schemas.knows_changes(kind.as_str()) {
            return Vec::new();
        }
        let (Ok(was), Ok(is)) = (
            serde_json::to_value(&old.spec),
            serde_json::to_value(&self.spec),
        ) else {
            return Vec::new();
        };
        let specs = [&Node::from(was), &Node::from(is)];
        let found = schemas.judge_change(kind.as_str(), kind.version(), specs);
        found
            .into_iter()
            .map(|found| Diagnostic {
                field: found.problem.field,
                ..self.finding(Severity::Error, found.problem.message, found.problem.hint)
            })
            .collect()
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

    /// Line and column of a field, or of the nearest one around it whose place is known; 0 where
    /// none is.
    pub fn place(&self, field: &str) -> (u32, u32) {
        let place = self.source.places.find(field);
        match place.line {
            0 => (self.source.line, 0),
            line => (line, place.column),
        }
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
        if let Some(uid) = &self.uid {
            map.serialize_entry("uid", uid)?;
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
        if self.key.kind.is_flat() {
            let spec = serde_json::to_value(&self.spec).map_err(serde::ser::Error::custom)?;
            for (field, value) in spec.as_object().into_iter().flatten() {
                map.serialize_entry(field, value)?;
            }
        } else if self.spec != empty {
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
