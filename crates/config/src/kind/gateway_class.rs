//! `GatewayClass` (Gateway API v1): who serves the Gateways that name it.
//!
//! The class `tulle` is there without being written.

use serde::{Deserialize, Serialize};

use super::gateway::ParametersRef;
use crate::object::Object;

/// The class that needs no object.
pub const BUILT_IN: &str = "tulle";
/// What Tulle calls itself in `controllerName`.
pub const CONTROLLER: &str = "tulle.dev/gateway";

/// What of Gateway API v1.6.3 is served at Gateways, by the names of its features, sorted
/// (`status.supportedFeatures`).
pub const SUPPORTED_FEATURES: &[&str] = &[
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

/// `spec` of a `GatewayClass`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// Who serves it: a domain and a path.
    pub controller_name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Not served: a class with any is not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<ParametersRef>,
}

/// The annotation of a class whose Gateways share a proxy, with the value `true`.
pub const MERGE_GATEWAYS: &str = "tulle.dev/merge-gateways";

/// Whether the Gateways of a class share a proxy.
pub fn merges_gateways(class: &Object) -> bool {
    let annotation = class.metadata.annotations.get(MERGE_GATEWAYS);
    annotation.is_some_and(|value| value == "true")
}

impl GatewayClassSpec {
    /// Whether Tulle serves its Gateways.
    pub fn is_ours(&self) -> bool {
        self.controller_name == CONTROLLER
    }
}
