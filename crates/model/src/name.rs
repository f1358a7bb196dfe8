//! Names of objects, and the host names that mean a service.
//!
//! Names follow RFC 1123 as Kubernetes reads it. A host names a service in four forms that mean
//! the same everywhere: `reviews`, `reviews.bookshop`, `reviews.bookshop.svc` and
//! `reviews.bookshop.svc.cluster.local`. A service imported from other clusters has one of its own
//! (KEP-1645), `reviews.bookshop.svc.clusterset.local`, and is another service.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The suffix that Kubernetes gives to every service host.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// The suffix of services that are imported from other clusters.
pub const CLUSTER_SET_DOMAIN: &str = "clusterset.local";

/// What follows the name of an imported service, so that it is not taken for the cluster's own of
/// that name, which is a label and has no dot.
const IMPORTED: &str = ".clusterset";

/// The namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A name that RFC 1123 does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a valid name: use up to 253 lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
)]
pub struct InvalidName(pub String);

/// Namespace and name of an object; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    namespace: Arc<str>,
    name: Arc<str>,
}

/// The name of a service.
pub type ServiceName = ObjectName;
/// The name of a workload.
pub type WorkloadName = ObjectName;

impl ObjectName {
    /// A name in a namespace; the namespace is an RFC 1123 label, the name a subdomain.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        if !is_label(namespace) {
            return Err(InvalidName(namespace.to_owned()));
        }
        if !is_subdomain(name) {
            return Err(InvalidName(name.to_owned()));
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name under which the mesh knows the service of a `ServiceImport`.
    pub fn imported(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Self::new(namespace, &format!("{name}{IMPORTED}"))
    }

    /// The name of the `ServiceImport`, where it is an imported service's.
    pub fn import(&self) -> Option<&str> {
        self.name.strip_suffix(IMPORTED)
    }

    /// The host under which a service of this name is known in full.
    pub fn host(&self) -> String {
        let (name, domain) = match self.import() {
            Some(name) => (name, CLUSTER_SET_DOMAIN),
            None => (&*self.name, CLUSTER_DOMAIN),
        };
        format!("{name}.{}.svc.{domain}", self.namespace)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectName {
    type Err = InvalidName;

    /// Reads `namespace/name`.
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        let (namespace, name) = s.split_once('/').ok_or_else(|| InvalidName(s.to_owned()))?;
        Self::new(namespace, name)
    }
}

/// Whether `s` is an RFC 1123 label: 1 to 63 of `[a-z0-9-]`, no hyphen at either end.
pub fn is_label(s: &str) -> bool {
    (1..=63).contains(&s.len())
        && s.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !s.starts_with('-')
        && !s.ends_with('-')
}

/// Whether `s` is an RFC 1123 subdomain: labels joined by dots, at most 253 bytes.
pub fn is_subdomain(s: &str) -> bool {
    (1..=253).contains(&s.len()) && s.split('.').all(is_label)
}

/// What service a host names, seen from `namespace`: `None` when the host cannot be a service of
/// the mesh (an address, or a name of some other domain such as `api.example.com`).
///
/// A two-label host is always read as `service.namespace`: whether such a service exists is for
/// the caller to find out. A trailing dot is accepted, letter case ignored, a port not accepted.
pub fn service_of_host(host: &str, namespace: &str) -> Option<ServiceName> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.len() > 253 || host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    let lower;
    let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
        lower = host.to_ascii_lowercase();
        &lower
    } else {
        host
    };
    let mut labels = host.split('.');
    let service = labels.next()?;
    let namespace = match labels.next() {
        None if service == "localhost" => return None,
        None => namespace,
        Some(ns) => ns,
    };
    let name = match (labels.next(), labels.next(), labels.next(), labels.next()) {
        (None, ..)
        | (Some("svc"), None, ..)
        | (Some("svc"), Some("cluster"), Some("local"), None) => ServiceName::new,
        (Some("svc"), Some("clusterset"), Some("local"), None) => ServiceName::imported,
        _ => return None,
    };
    name(namespace, service).ok().filter(|_| is_label(service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_forms_of_a_host_mean_one_service() {
        let want = ServiceName::new("bookshop", "reviews").expect("valid");
        for host in [
            "reviews",
            "reviews.bookshop",
            "reviews.bookshop.svc",
            "reviews.bookshop.svc.cluster.local",
            "Reviews.Bookshop.SVC.cluster.local.",
        ] {
            assert_eq!(
                service_of_host(host, "bookshop"),
                Some(want.clone()),
                "{host}"
            );
        }
    }

    #[test]
    fn an_imported_service_has_a_host_and_a_name_of_its_own() {
        let imported = ServiceName::imported("bookshop", "reviews").expect("valid");
        let host = "reviews.bookshop.svc.clusterset.local";
        assert_eq!(imported.host(), host);
        assert_eq!(service_of_host(host, "other"), Some(imported.clone()));
        assert_eq!(imported.import(), Some("reviews"));
        let own = ServiceName::new("bookshop", "reviews").expect("valid");
        assert_ne!(own, imported);
        assert_eq!(own.import(), None);
    }

    #[test]
    fn foreign_hosts_are_not_services() {
        for host in [
            "api.example.com",
            "10.0.0.1",
            "::1",
            "localhost",
            "",
            "a..b",
            "-x",
            "a.b.svc.cluster.local.x",
        ] {
            assert_eq!(service_of_host(host, "bookshop"), None, "{host}");
        }
    }

    #[test]
    fn names_read_back_what_they_print() {
        let name = ObjectName::new("a", "b.c").expect("valid");
        assert_eq!(name.to_string().parse::<ObjectName>(), Ok(name));
        assert!("no-slash".parse::<ObjectName>().is_err());
        assert!(ObjectName::new("A", "b").is_err());
    }
}
