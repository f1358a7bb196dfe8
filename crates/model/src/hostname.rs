//! Host names of listeners and routes, with or without a wildcard, and what two of them share.
//!
//! Gateway API's rules: `*.example.com` takes any number of labels before `example.com`, at least
//! one; host names have no port, no case and no trailing dot.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::is_subdomain;

/// A host name, or all below one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hostname {
    /// This host, lower case.
    Exact(Arc<str>),
    /// Every host that ends in a dot and this, such as `example.com` for `*.example.com`.
    Below(Arc<str>),
}

/// A text that is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a host name: use lower-case letters, digits, '-' and '.', perhaps with \"*.\" before it"
)]
pub struct InvalidHostname(pub String);

impl Hostname {
    /// Whether it takes `host`, which is lower case and has no port.
    pub fn takes(&self, host: &str) -> bool {
        match self {
            Self::Exact(own) => **own == *host,
            Self::Below(suffix) => is_below(host, suffix),
        }
    }

    /// The hosts that both take: the narrower of the two, if it lies in the other.
    pub fn shared(&self, other: &Self) -> Option<Self> {
        let within = match (self, other) {
            (Self::Exact(own), other) => other.takes(own).then_some(self),
            (_, Self::Exact(host)) => self.takes(host).then_some(other),
            (Self::Below(a), Self::Below(b)) if a == b || is_below(a, b) => Some(self),
            (Self::Below(a), Self::Below(b)) => is_below(b, a).then_some(other),
        };
        within.cloned()
    }
}

fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix)
        .and_then(|rest| rest.strip_suffix('.'))
        .is_some_and(|rest| !rest.is_empty())
}

/// The hosts that a listener and a route have in common; an empty list means that the listener's
/// own hosts are. `None`: there are none, and the route must not be attached.
pub fn intersect(listener: Option<&Hostname>, route: &[Hostname]) -> Option<Vec<Hostname>> {
    let Some(listener) = listener else {
        return Some(route.to_vec());
    };
    if route.is_empty() {
        return Some(Vec::new());
    }
    let mut shared: Vec<Hostname> = route.iter().filter_map(|r| listener.shared(r)).collect();
    shared.sort();
    shared.dedup();
    (!shared.is_empty()).then_some(shared)
}

impl FromStr for Hostname {
    type Err = InvalidHostname;

    fn from_str(text: &str) -> Result<Self, InvalidHostname> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        if !is_subdomain(name) {
            return Err(InvalidHostname(text.chars().take(300).collect()));
        }
        Ok(if below {
            Self::Below(name.into())
        } else {
            Self::Exact(name.into())
        })
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        text.parse().expect("valid")
    }

    #[test]
    fn a_wildcard_takes_any_number_of_labels_but_not_none() {
        let below = host("*.example.com");
        assert!(below.takes("a.example.com"));
        assert!(below.takes("a.b.example.com"));
        assert!(!below.takes("example.com"));
        assert!(!below.takes(".example.com"));
        assert!(!below.takes("aexample.com"));
        assert!(host("example.com").takes("example.com"));
    }

    #[test]
    fn what_two_names_share_is_the_narrower() {
        for (a, b, shared) in [
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "*.a.example.com", Some("*.a.example.com")),
            ("*.example.com", "*.example.com", Some("*.example.com")),
            ("*.example.com", "example.com", None),
            ("a.example.com", "b.example.com", None),
            ("*.a.com", "*.b.com", None),
        ] {
            let want = shared.map(host);
            assert_eq!(host(a).shared(&host(b)), want, "{a} {b}");
            assert_eq!(host(b).shared(&host(a)), want, "{b} {a}");
        }
    }

    #[test]
    fn a_route_without_hosts_has_the_listeners() {
        assert_eq!(intersect(Some(&host("a.com")), &[]), Some(vec![]));
        assert_eq!(intersect(None, &[host("a.com")]), Some(vec![host("a.com")]));
        assert_eq!(intersect(Some(&host("a.com")), &[host("b.com")]), None);
    }

    #[test]
    fn names_with_ports_addresses_or_inner_wildcards_are_refused() {
        for text in ["", "*", "*.", "a.*.com", "a:80", "A.com", "a..b", "[::1]"] {
            assert!(text.parse::<Hostname>().is_err(), "{text}");
        }
    }
}
