//! The kinds of objects: their names in files, in the HTTP API and on the command line.

pub mod authentication_policy;
pub mod backend;
pub mod backend_tls_policy;
pub mod balancing;
pub mod endpoint_slice;
pub mod fault_policy;
pub mod filter;
pub mod gateway;
pub mod gateway_class;
pub mod grpc_route;
pub mod http_route;
pub mod limits;
pub mod listener_policy;
pub mod listener_set;
pub mod mesh_config;
pub mod namespace;
pub mod pod;
pub mod rate_limit_policy;
pub mod rate_limit_service;
pub mod reference_grant;
pub mod request_match;
pub mod secret;
pub mod service;
pub mod service_import;
pub mod session;
pub mod stream_route;
pub(crate) mod tls_options;
pub mod traffic_policy;
pub mod workload;

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of object that this version serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is the kind of the same name in Kubernetes, Gateway API or the contract"
)]
pub enum ObjectKind {
    Namespace,
    MeshConfig,
    Service,
    ServiceImport,
    Workload,
    Node,
    Pod,
    EndpointSlice,
    Secret,
    ConfigMap,
    ReferenceGrant,
    GatewayClass,
    Gateway,
    ListenerSet,
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    #[serde(rename = "TLSRoute")]
    TlsRoute,
    #[serde(rename = "TCPRoute")]
    TcpRoute,
    #[serde(rename = "UDPRoute")]
    UdpRoute,
    TrafficPolicy,
    FaultPolicy,
    RateLimitPolicy,
    AuthenticationPolicy,
    #[serde(rename = "BackendTLSPolicy")]
    BackendTlsPolicy,
    ListenerPolicy,
}

struct Names {
    kind: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
}

/// The group of Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// The group of Tulle's own kinds.
pub const TULLE_GROUP: &str = "tulle.dev";
/// The group of the Multi-Cluster Services API.
pub const MCS_GROUP: &str = "multicluster.x-k8s.io";

impl ObjectKind {
    /// All kinds, what is referred to before what refers to it.
    pub const ALL: [Self; 25] = [
        Self::Namespace,
        Self::MeshConfig,
        Self::Service,
        Self::ServiceImport,
        Self::Workload,
        Self::Node,
        Self::Pod,
        Self::EndpointSlice,
        Self::Secret,
        Self::ConfigMap,
        Self::ReferenceGrant,
        Self::GatewayClass,
        Self::Gateway,
        Self::ListenerSet,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::TrafficPolicy,
        Self::FaultPolicy,
        Self::RateLimitPolicy,
        Self::AuthenticationPolicy,
        Self::BackendTlsPolicy,
        Self::ListenerPolicy,
    ];

    fn names(self) -> Names {
        let (kind, group, version, plural, short, namespaced): (_, _, _, _, &[&str], _) = match self
        {
            Self::Namespace => ("Namespace", "", "v1", "namespaces", &["ns"], false),
            Self::Service => ("Service", "", "v1", "services", &["svc"], true),
            Self::ServiceImport => (
                "ServiceImport",
                MCS_GROUP,
                "v1alpha1",
                "serviceimports",
                &["svcim", "svcimport"],
                true,
            ),
            Self::Node => ("Node", "", "v1", "nodes", &["no"], false),
            Self::Pod => ("Pod", "", "v1", "pods", &["po"], true),
            Self::Secret => ("Secret", "", "v1", "secrets", &[], true),
            Self::ConfigMap => ("ConfigMap", "", "v1", "configmaps", &["cm"], true),
            Self::MeshConfig => (
                "MeshConfig",
                TULLE_GROUP,
                "v1alpha1",
                "meshconfigs",
                &["mesh"],
                false,
            ),
            Self::Workload => (
                "Workload",
                TULLE_GROUP,
                "v1alpha1",
                "workloads",
                &["wl"],
                true,
            ),
            Self::TrafficPolicy => (
                "TrafficPolicy",
                TULLE_GROUP,
                "v1alpha1",
                "trafficpolicies",
                &["tp"],
                true,
            ),
            Self::FaultPolicy => (
                "FaultPolicy",
                TULLE_GROUP,
                "v1alpha1",
                "faultpolicies",
                &["fp"],
                true,
            ),
            Self::RateLimitPolicy => (
                "RateLimitPolicy",
                TULLE_GROUP,
                "v1alpha1",
                "ratelimitpolicies",
                &["rlp"],
                true,
            ),
            Self::BackendTlsPolicy => (
                "BackendTLSPolicy",
                GATEWAY_GROUP,
                "v1",
                "backendtlspolicies",
                &["btlspolicy"],
                true,
            ),
            Self::ListenerPolicy => (
                "ListenerPolicy",
                TULLE_GROUP,
                "v1alpha1",
                "listenerpolicies",
                &["lp"],
                true,
            ),
            Self::AuthenticationPolicy => (
                "AuthenticationPolicy",
                TULLE_GROUP,
                "v1alpha1",
                "authenticationpolicies",
                &["authn"],
                true,
            ),
            Self::ReferenceGrant => (
                "ReferenceGrant",
                GATEWAY_GROUP,
                "v1beta1",
                "referencegrants",
                &["refgrant"],
                true,
            ),
            Self::EndpointSlice => (
                "EndpointSlice",
                "discovery.k8s.io",
                "v1",
                "endpointslices",
                &[],
                true,
            ),
            Self::GatewayClass => (
                "GatewayClass",
                GATEWAY_GROUP,
                "v1",
                "gatewayclasses",
                &["gc"],
                false,
            ),
            Self::Gateway => ("Gateway", GATEWAY_GROUP, "v1", "gateways", &["gtw"], true),
            Self::ListenerSet => (
                "ListenerSet",
                GATEWAY_GROUP,
                "v1",
                "listenersets",
                &["lset"],
                true,
            ),
            Self::HttpRoute => ("HTTPRoute", GATEWAY_GROUP, "v1", "httproutes", &[], true),
            Self::GrpcRoute => ("GRPCRoute", GATEWAY_GROUP, "v1", "grpcroutes", &[], true),
            Self::TlsRoute => ("TLSRoute", GATEWAY_GROUP, "v1", "tlsroutes", &[], true),
            Self::TcpRoute => ("TCPRoute", GATEWAY_GROUP, "v1", "tcproutes", &[], true),
            Self::UdpRoute => ("UDPRoute", GATEWAY_GROUP, "v1", "udproutes", &[], true),
        };
        Names {
            kind,
            group,
            version,
            plural,
            short,
            namespaced,
        }
    }

    /// The name as in `kind:`.
    pub fn as_str(self) -> &'static str {
        self.names().kind
    }

    /// The API group; empty for Kubernetes' core.
    pub fn group(self) -> &'static str {
        self.names().group
    }

    /// The version as this version of Tulle writes it.
    pub(crate) fn version(self) -> &'static str {
        self.names().version
    }

    /// `apiVersion` as this version writes it.
    pub fn api_version(self) -> String {
        let names = self.names();
        if names.group.is_empty() {
            names.version.to_owned()
        } else {
            format!("{}/{}", names.group, names.version)
        }
    }

    /// Every `apiVersion` that an object of the kind may have, the one of [`Self::api_version`] first.
    pub fn api_versions(self) -> impl Iterator<Item = String> {
        let also: &[&str] = match self {
            Self::ReferenceGrant => &["gateway.networking.k8s.io/v1"],
            Self::TlsRoute => &[
                "gateway.networking.k8s.io/v1alpha3",
                "gateway.networking.k8s.io/v1alpha2",
            ],
            Self::BackendTlsPolicy => &["gateway.networking.k8s.io/v1alpha3"],
            Self::ServiceImport => &["multicluster.x-k8s.io/v1beta1"],
            Self::TcpRoute | Self::UdpRoute => &["gateway.networking.k8s.io/v1alpha2"],
            Self::HttpRoute | Self::Gateway | Self::GatewayClass => {
                &["gateway.networking.k8s.io/v1beta1"]
            }
            _ => &[],
        };
        let others = also.iter().map(|version| (*version).to_owned());
        std::iter::once(self.api_version()).chain(others)
    }

    /// Whether an object of the kind may have this `apiVersion`.
    pub(crate) fn serves_version(self, api_version: &str) -> bool {
        self.api_versions().any(|version| version == api_version)
    }

    /// The plural in paths of the HTTP API: `httproutes`.
    pub fn plural(self) -> &'static str {
        self.names().plural
    }

    /// Further words that mean the kind on the command line: `svc`.
    pub fn short_names(self) -> &'static [&'static str] {
        self.names().short
    }

    /// Whether objects of the kind live in a namespace; those that do not have an empty one.
    pub fn namespaced(self) -> bool {
        self.names().namespaced
    }

    /// Whether its fields stand beside `metadata`, not below `spec`.
    pub(crate) fn is_flat(self) -> bool {
        matches!(self, Self::EndpointSlice | Self::Secret | Self::ConfigMap)
    }

    /// The kind that a user means by `word`: kind, plural or short name, whatever the case.
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| {
            let names = kind.names();
            names.plural == word
                || names.kind.eq_ignore_ascii_case(&word)
                || names.short.contains(&word.as_str())
        })
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
