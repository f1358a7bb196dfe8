//! `sessionPersistence` of a rule (GEP-1619), as in the CRDs of the experimental channel.

use model::session::{Carrier, Persistence};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::duration::Span;
use crate::reference::shorten;

/// How a rule keeps the requests of a client at one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPersistence {
    /// Name of the cookie or header; one is made for each rule if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// How long a session lasts at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Span>,
    /// What the client carries.
    #[serde(rename = "type", default)]
    pub session_type: SessionType,
    /// With [`SessionType::Cookie`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

/// What the client carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum SessionType {
    #[default]
    Cookie,
    Header,
}

/// About the cookie.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CookieConfig {
    /// How long the client keeps it.
    #[serde(default)]
    pub lifetime_type: CookieLifetime,
}

/// How long the client keeps a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum CookieLifetime {
    Permanent,
    #[default]
    Session,
}

impl SessionPersistence {
    /// The persistence of the model; without a name of its own it has an empty one.
    pub(crate) fn to_model(&self, c: &mut Check<'_>) -> Persistence {
        let timeout = self.absolute_timeout.as_ref().map(Span::get);
        if timeout.is_some_and(|t| t.is_zero()) {
            c.error_at("absoluteTimeout", "must be more than nothing", "");
        }
        let name = self.session_name.clone().unwrap_or_default();
        self.check_name(&name, c);
        let lifetime = self.cookie_config.as_ref().map(|c| c.lifetime_type);
        let carrier = match (self.session_type, lifetime) {
            (SessionType::Header, _) => Carrier::Header,
            (SessionType::Cookie, Some(CookieLifetime::Permanent)) => Carrier::PermanentCookie,
            (SessionType::Cookie, _) => Carrier::Cookie,
        };
        let name = match carrier {
            // As HTTP/2 writes it.
            Carrier::Header => name.to_ascii_lowercase(),
            Carrier::Cookie | Carrier::PermanentCookie => name,
        };
        Persistence {
            name,
            carrier,
            timeout,
        }
    }

    fn check_name(&self, name: &str, c: &mut Check<'_>) {
        // RFC 9110 5.6.2: a token, as cookies' and headers' names both are.
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.len() > 128 || !name.bytes().all(token) {
            let message = format!("\"{}\" is no name of a cookie or header", shorten(name));
            c.error_at("sessionName", message, "use letters, digits, '-' and '_'");
        }
        if self.session_name.as_deref() == Some("") {
            c.error_at("sessionName", "is empty", "leave it out to have one made");
        }
    }
}

/// The name for a rule's sessions that has none: the same wherever and whenever it is made, and
/// another for every rule.
pub(crate) fn made_name(kind: &str, namespace: &str, route: &str, index: usize) -> String {
    let text = format!("{kind}/{namespace}/{route}/{index}");
    // FNV-1a: nothing depends on its being hard to find another with the same hash.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("tulle-session-{:08x}", hash >> 32)
}
