//! What requests are told apart by, for algorithms that hash: headers, cookies, parameters of the query,
//! the client's address (Envoy's `hash_policy`, of which the first that a request has counts).
//!
//! A cookie that the client lacks is made up, where it is told for how long, and given to it with the
//! response: its next request comes with it.

use std::net::IpAddr;

use lb::hash::{hash, hash_with};
use model::balancing::{Cookie, HashKey, LoadBalancer};
use policy::route::query_value;
use wire::{Fields, RequestHead, Scheme};

use crate::session::cookies;

/// What a request is told apart by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told<'p> {
    /// `None`: by nothing.
    pub(crate) hash: Option<u64>,
    /// A cookie that is to be given to the client, and its value.
    given: Option<(&'p Cookie, u64)>,
}

impl<'p> Told<'p> {
    /// Of a request of this client. `fresh` makes the value of a cookie.
    pub(crate) fn by(
        balancer: &'p LoadBalancer,
        head: &RequestHead,
        client: IpAddr,
        fresh: impl Fn() -> u64,
    ) -> Self {
        if !balancer.algorithm.hashes() {
            return Self::default();
        }
        for key in &balancer.hash {
            let found = match key {
                HashKey::Header(name) => of_header(&head.fields, name.as_str()),
                HashKey::Query(name) => {
                    let query = head.path.split_once('?').map(|(_, query)| query);
                    query_value(query, name).map(|value| hash(&value))
                }
                HashKey::SourceIp => Some(of_address(client)),
                HashKey::Cookie(cookie) => {
                    let mut values = cookies(&head.fields, &cookie.name);
                    let value = values.find(|value| !value.is_empty());
                    if value.is_none() && cookie.ttl.is_some() {
                        let value = fresh();
                        return Self {
                            hash: Some(hash(text(value).as_bytes())),
                            given: Some((cookie, value)),
                        };
                    }
                    value.map(hash)
                }
            };
            if found.is_some() {
                return Self {
                    hash: found,
                    given: None,
                };
            }
        }
        Self::default()
    }

    /// Gives the client its cookie.
    pub(crate) fn give(&self, scheme: Option<Scheme>, fields: &mut Fields) {
        let Some((cookie, value)) = self.given else {
            return;
        };
        let path = if cookie.path.is_empty() {
            "/"
        } else {
            &cookie.path
        };
        let age = cookie.ttl.map_or(0, |ttl| ttl.as_secs());
        let age = match age {
            0 => String::new(),
            age => format!("; Max-Age={age}"),
        };
        let secure = if scheme == Some(Scheme::Https) {
            "; Secure"
        } else {
            ""
        };
        let (name, value) = (&cookie.name, text(value));
        let line = format!("{name}={value}; Path={path}{age}{secure}; HttpOnly; SameSite=Lax");
        fields.append("set-cookie", line.as_bytes());
    }
}

/// Of a connection, which has nothing but its client.
pub(crate) fn of_client(balancer: &LoadBalancer, client: IpAddr) -> Option<u64> {
    let by_address = balancer.hash.contains(&HashKey::SourceIp);
    (balancer.algorithm.hashes() && by_address).then(|| of_address(client))
}

/// All values of a header count.
fn of_header(fields: &Fields, name: &str) -> Option<u64> {
    fields.get_all(name).fold(None, |seed, value| {
        Some(hash_with(value, seed.unwrap_or(0)))
    })
}

fn of_address(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&address.octets()),
    }
}

fn text(value: u64) -> String {
    format!("{value:016x}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::balancing::Algorithm;

    use super::*;

    fn cookie(ttl: Option<u64>) -> HashKey {
        HashKey::Cookie(Cookie {
            name: "shop".to_owned(),
            ttl: ttl.map(Duration::from_secs),
            path: String::new(),
        })
    }

    fn balancer(hash: Vec<HashKey>) -> LoadBalancer {
        LoadBalancer {
            algorithm: Algorithm::Maglev { table: 7 },
            hash,
            ..LoadBalancer::default()
        }
    }

    fn request(path: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        head.path = path.into();
        for (name, value) in fields {
            head.fields.append(name, value.as_bytes());
        }
        head
    }

    fn client() -> IpAddr {
        "10.1.2.3".parse().expect("an address")
    }

    #[test]
    fn the_first_that_a_request_has_counts() {
        let keys = vec![
            HashKey::Header(http::HeaderName::from_static("x-user")),
            HashKey::Query("user".to_owned()),
            cookie(None),
            HashKey::SourceIp,
        ];
        let balancer = balancer(keys);
        let told =
            |path, fields: &[_]| Told::by(&balancer, &request(path, fields), client(), || 1).hash;
        for (path, fields, expected) in [
            ("/?user=b", &[("x-user", "a")][..], hash(b"a")),
            ("/?x=1&user=b%21", &[("cookie", "shop=c")], hash(b"b!")),
            ("/?users=b", &[("cookie", "a=1; shop=c")], hash(b"c")),
            ("/", &[("cookie", "shop=")], of_address(client())),
            ("/", &[], of_address(client())),
        ] {
            assert_eq!(told(path, fields), Some(expected), "{path} {fields:?}");
        }
        let mapped = "::ffff:10.1.2.3".parse().expect("an address");
        assert_eq!(of_address(mapped), of_address(client()));
    }

    #[test]
    fn a_cookie_that_is_made_up_leads_where_it_will_lead_again() {
        let balancer = balancer(vec![cookie(Some(60))]);
        let told = Told::by(&balancer, &request("/", &[]), client(), || 0xAB);
        let mut fields = Fields::new();
        told.give(Some(Scheme::Https), &mut fields);
        let given = fields.get_str("set-cookie").expect("a cookie").to_owned();
        assert_eq!(
            given,
            "shop=00000000000000ab; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax"
        );
        let (pair, _) = given.split_once(';').expect("attributes");
        let head = request("/", &[("cookie", pair)]);
        let again = Told::by(&balancer, &head, client(), || 0xCD);
        assert_eq!((again.hash, again.given), (told.hash, None));
    }

    #[test]
    fn nothing_is_told_where_it_does_not_count() {
        let mut other = balancer(vec![cookie(Some(60)), HashKey::SourceIp]);
        assert!(of_client(&other, client()).is_some());
        other.algorithm = Algorithm::LeastRequest;
        let told = Told::by(&other, &request("/", &[]), client(), || 1);
        assert_eq!(told, Told::default());
        assert_eq!(of_client(&other, client()), None);
        let header = balancer(vec![HashKey::Header(http::HeaderName::from_static("x"))]);
        let told = Told::by(&header, &request("/", &[]), client(), || 1);
        assert_eq!(told.hash, None);
    }
}
