//! `rateLimit` of a `MeshConfig` and `service` of a `RateLimitPolicy`: who counts what is counted for the whole mesh.

use std::time::Duration;

use model::ServiceName;
use model::request::RateLimitService;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::duration::Span;
use crate::reference::shorten;

/// For an answer, as in Envoy.
const TIMEOUT: Duration = Duration::from_millis(20);
/// A request waits for it.
const LONGEST: Duration = Duration::from_secs(10);

/// A service that speaks Envoy's protocol for rate limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitServiceSpec {
    /// The Service.
    pub backend_ref: CounterRef,
    /// For an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRef {
    /// Its name.
    pub name: String,
    /// Its namespace: a policy's own, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its port.
    pub port: u16,
}

impl RateLimitServiceSpec {
    /// `namespace` is that of the policy that says it; a mesh has none.
    pub(crate) fn check(&self, namespace: Option<&str>, c: &mut Check<'_>) {
        self.to_model(namespace, c);
        c.at("backendRef", Check::mark);
    }

    pub(crate) fn to_model(
        &self,
        namespace: Option<&str>,
        c: &mut Check<'_>,
    ) -> Option<RateLimitService> {
        let timeout = self.timeout.as_ref().map_or(TIMEOUT, Span::get);
        if timeout.is_zero() || timeout > LONGEST {
            let message = format!("must be longer than nothing and at most {LONGEST:?}");
            c.error_at("timeout", message, "leave it out for 20ms");
        }
        let backend = &self.backend_ref;
        let written = backend.namespace.as_deref();
        let of = c.at("backendRef", |c| {
            if backend.port == 0 {
                c.error_at("port", "must be from 1 to 65535", "8081 is usual");
            }
            if let (Some(own), Some(other)) = (namespace, written)
                && own != other
            {
                let message = format!("\"{}\" is not the policy's own", shorten(other));
                let hint = "take it out, or name the Service in the MeshConfig's rateLimit";
                c.error_at("namespace", message, hint);
                return None;
            }
            let of = namespace.or(written);
            if of.is_none() {
                let hint = "write the one that the Service is in";
                c.error_at("namespace", "is missing: a mesh has none of its own", hint);
            }
            let name = ServiceName::new(of?, &backend.name);
            name.map_err(|error| c.error_at("name", error.to_string(), ""))
                .ok()
        });
        Some(RateLimitService {
            name: of?,
            port: backend.port,
            timeout,
        })
    }
}
