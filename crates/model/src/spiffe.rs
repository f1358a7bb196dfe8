//! SPIFFE identities: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//!
//! The general form follows the SPIFFE-ID specification; Tulle itself issues only the form above,
//! which is the one that Istio uses.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A trust domain: 1 to 255 of `[a-z0-9._-]` (SPIFFE-ID, section 2.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// A SPIFFE ID with a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    domain_end: usize,
}

/// A text that is no SPIFFE ID, or no trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a SPIFFE ID: expected spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
)]
pub struct InvalidSpiffeId(pub String);

const SCHEME: &str = "spiffe://";

impl TrustDomain {
    /// Checks and keeps the name of a trust domain.
    pub fn new(name: &str) -> Result<Self, InvalidSpiffeId> {
        let valid = (1..=255).contains(&name.len())
            && name
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
        if valid {
            Ok(Self(name.into()))
        } else {
            Err(InvalidSpiffeId(name.to_owned()))
        }
    }

    /// The name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self("mesh.local".into())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SpiffeId {
    /// The identity of a service account. Both names must be valid object names.
    pub fn of_service_account(
        domain: &TrustDomain,
        namespace: &str,
        account: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        format!("{SCHEME}{domain}/ns/{namespace}/sa/{account}").parse()
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..self.domain_end]
    }

    /// The path, with its leading slash.
    pub fn path(&self) -> &str {
        &self.uri[self.domain_end..]
    }

    /// Namespace and service account, where the path has the form that Tulle and Istio issue.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let mut parts = self.path().strip_prefix("/ns/")?.split('/');
        let namespace = parts.next()?;
        if parts.next()? != "sa" {
            return None;
        }
        let account = parts.next()?;
        parts.next().is_none().then_some((namespace, account))
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(s: &str) -> Result<Self, InvalidSpiffeId> {
        let invalid = || InvalidSpiffeId(s.to_owned());
        // SPIFFE-ID 2.3: at most 2048 bytes; 2.2: path segments are not empty and not dots.
        if s.len() > 2048 {
            return Err(InvalidSpiffeId(s.chars().take(64).collect()));
        }
        let rest = s.strip_prefix(SCHEME).ok_or_else(invalid)?;
        let (domain, path) = rest.split_once('/').ok_or_else(invalid)?;
        TrustDomain::new(domain).map_err(|_| invalid())?;
        let segment_ok = |p: &str| {
            !matches!(p, "" | "." | "..")
                && p.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if !path.split('/').all(segment_ok) {
            return Err(invalid());
        }
        Ok(Self {
            uri: s.into(),
            domain_end: SCHEME.len() + domain.len(),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_gives_back_its_parts() {
        let id: SpiffeId = "spiffe://mesh.local/ns/bookshop/sa/reviews"
            .parse()
            .expect("valid");
        assert_eq!(id.trust_domain(), "mesh.local");
        assert_eq!(id.service_account(), Some(("bookshop", "reviews")));
    }

    #[test]
    fn texts_that_are_no_ids_are_refused() {
        for s in [
            "",
            "mesh.local",
            "http://a/b",
            "spiffe://",
            "spiffe://a",
            "spiffe://A/ns/b/sa/c",
            "spiffe://a//b",
            "spiffe://a/../b",
            "spiffe://a/b/",
            "spiffe://a/b?x",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
        ] {
            assert!(s.parse::<SpiffeId>().is_err(), "{s}");
        }
    }
}
