//! `GatewayClass` (Gateway API v1): who serves the Gateways that name it.
//!
//! The class `tulle` is there without being written.

use serde::{Deserialize, Serialize};

use super::gateway::ParametersRef;
use crate::check::Check;
use crate::reference::shorten;

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

impl GatewayClassSpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            let path = self.controller_name.split_once('/');
            if path.is_none_or(|(domain, path)| domain.is_empty() || path.is_empty()) {
                let message = format!(
                    "\"{}\" is not a domain and a path",
                    shorten(&self.controller_name)
                );
                c.error_at("controllerName", message, format!("write {CONTROLLER}"));
            }
            if self.description.as_ref().is_some_and(|d| d.len() > 64) {
                c.error_at("description", "is longer than 64 characters", "");
            }
        });
    }

    /// Whether Tulle serves its Gateways.
    pub fn is_ours(&self) -> bool {
        self.controller_name == CONTROLLER
    }
}
