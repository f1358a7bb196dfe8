//! Finding what is meant for a host: exactly, by the longest wildcard, or by what takes all.
//!
//! Gateway API's order for listeners and routes alike (`Listener.hostname`, `HTTPRoute.spec.hostnames`).
//! Cost: a few lookups, one for each label of the host at most, whatever the number of names.

use std::borrow::Cow;
use std::collections::HashMap;

use model::hostname::Hostname;

/// Values by host name.
#[derive(Debug, Clone)]
pub struct HostMap<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows `*.`.
    below: HashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            any: None,
        }
    }
}

impl<T> HostMap<T> {
    /// Puts a value under a name (`None`: all hosts), unless there is one; whether it did.
    pub fn insert(&mut self, host: Option<&Hostname>, value: T) -> bool {
        if self.get(host).is_some() {
            return false;
        }
        match host {
            None => self.any = Some(value),
            Some(Hostname::Exact(host)) => {
                self.exact.insert((**host).into(), value);
            }
            Some(Hostname::Below(suffix)) => {
                self.below.insert((**suffix).into(), value);
            }
        }
        true
    }

    /// What stands under a name.
    pub fn get(&self, host: Option<&Hostname>) -> Option<&T> {
        match host {
            None => self.any.as_ref(),
            Some(Hostname::Exact(host)) => self.exact.get(&**host),
            Some(Hostname::Below(suffix)) => self.below.get(&**suffix),
        }
    }

    /// What is meant for a host in normal form, the most specific.
    pub fn find(&self, host: &str) -> Option<&T> {
        if !self.exact.is_empty()
            && let Some(found) = self.exact.get(host)
        {
            return Some(found);
        }
        if !self.below.is_empty() {
            let mut rest = host;
            while let Some((label, suffix)) = rest.split_once('.') {
                // `*.example.com` needs something before the dot.
                let within = rest.len() < host.len() || !label.is_empty();
                if within && let Some(found) = self.below.get(suffix) {
                    return Some(found);
                }
                rest = suffix;
            }
        }
        self.any.as_ref()
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.exact
            .values()
            .chain(self.below.values())
            .chain(&self.any)
    }
}

/// A host as names are compared: lower case, without a final dot.
#[inline]
pub fn normal(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        host.to_ascii_lowercase().into()
    } else {
        host.into()
    }
}

/// Whether a host that names no service of the mesh may be one outside: `example.com` may, `reviews`
/// and `reviews.bookshop.svc` can be nothing else than services.
pub fn may_be_outside(host: &str) -> bool {
    model::name::service_of_host(host, model::name::DEFAULT_NAMESPACE).is_none()
        || host.split('.').count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(names: &[&str]) -> HostMap<String> {
        let mut map = HostMap::default();
        for name in names {
            let host = (*name != "*").then(|| name.parse().expect("valid"));
            map.insert(host.as_ref(), (*name).to_owned());
        }
        map
    }

    #[test]
    fn the_most_specific_name_is_found() {
        let map = map(&[
            "*",
            "*.com",
            "*.example.com",
            "a.example.com",
            "example.com",
        ]);
        for (host, want) in [
            ("a.example.com", "a.example.com"),
            ("b.example.com", "*.example.com"),
            ("x.a.example.com", "*.example.com"),
            ("example.com", "example.com"),
            ("other.com", "*.com"),
            ("com", "*"),
            (".com", "*"),
            ("", "*"),
            ("10.0.0.1", "*"),
        ] {
            assert_eq!(map.find(host).map(String::as_str), Some(want), "{host}");
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_fits() {
        assert_eq!(map(&["a.com", "*.b.com"]).find("b.com"), None);
        assert_eq!(normal("A.Com."), "a.com");
    }

    #[test]
    fn what_can_only_be_a_service_is_not_outside() {
        for (host, outside) in [
            ("example.com", true),
            ("api.example.com", true),
            ("10.0.0.1", true),
            ("reviews", false),
            ("reviews.bookshop.svc", false),
        ] {
            assert_eq!(may_be_outside(host), outside, "{host}");
        }
    }

    #[test]
    fn the_first_value_under_a_name_stays() {
        let mut map = HostMap::default();
        map.insert(None, 1);
        map.insert(None, 2);
        assert_eq!(map.find("x"), Some(&1));
        assert_eq!(map.values().count(), 1);
    }
}
