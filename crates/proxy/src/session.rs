//! Session persistence (GEP-1619): requests that carry a token of ours go to the endpoint that it
//! names, and who carries none is given one.
//!
//! A token names an endpoint by its address, and when the session ends. It is sealed with the
//! mesh's key (AES-256-GCM-SIV, which stands a nonce that was drawn twice), so that it shows nothing
//! of the mesh and cannot be made by anybody else; the rule it was given out by is authenticated
//! with it, so that rules share no sessions. Nothing is kept here: every proxy with the key reads
//! every token, and what cannot be read counts as none. When the endpoint is gone, or is not usable,
//! the request is balanced as any other and the client gets a new token.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::mesh::Mesh;
use model::route::{Backend, Match, PathMatch, Target};
use model::session::{Carrier, Key, Persistence};
use policy::route::Decision;
use wire::Fields;

/// No token is longer; what is longer is not looked at.
const MAX_TOKEN: usize = 1024;
/// Cookies of one name that are looked at: a browser sends several when their paths overlap.
const MAX_COOKIES: usize = 4;
/// Version, end of the session, address, port, port of the service.
const FIXED: usize = 1 + 8 + 16 + 2 + 2;
const VERSION: u8 = 1;

/// For a proxy that was given no key: its tokens end with its process.
static OWN: LazyLock<Key> = LazyLock::new(|| Key::new(rand::random()));

/// The endpoint that a session is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// `namespace/name`.
    service: Box<str>,
    /// The service's port.
    port: u16,
    /// The endpoint's own address and port.
    pub(crate) endpoint: SocketAddr,
}

impl Place {
    pub(crate) fn new(service: &model::ServiceName, port: u16, endpoint: SocketAddr) -> Self {
        Self {
            service: service.to_string().into(),
            port,
            endpoint,
        }
    }

    fn is_of(&self, target: &Target) -> bool {
        let Target::Service { name, port } = target else {
            return false;
        };
        let named = self.service.split_once('/');
        *port == self.port && named == Some((name.namespace(), name.name()))
    }
}

/// The session of one request.
pub(crate) struct Session<'v> {
    persistence: &'v Persistence,
    matched: &'v Match,
    /// What tokens are good for: one rule.
    scope: String,
    /// Where the token that came says to go.
    place: Option<Place>,
}

impl<'v> Session<'v> {
    /// Looks for the token of the rule that takes a request; `None` if the rule keeps no sessions.
    pub(crate) fn find(decision: &Decision<'v>, mesh: &Mesh, fields: &Fields) -> Option<Self> {
        let persistence = decision.rule.session.as_ref()?;
        let route = decision.route;
        let rule = match &decision.rule.name {
            Some(name) => name.clone(),
            None => decision.rule_index.to_string(),
        };
        let scope = format!("{}/{}/{rule}/{}", route.kind, route.name, persistence.name);
        let now = seconds(SystemTime::now());
        let read = |token: &[u8]| open(key(mesh), &scope, token, now);
        let name = &persistence.name;
        let place = match persistence.carrier {
            Carrier::Header => fields.get(name).and_then(read),
            Carrier::Cookie | Carrier::PermanentCookie => cookies(fields, name).find_map(read),
        };
        Some(Self {
            persistence,
            matched: decision.matched,
            scope,
            place,
        })
    }

    /// The backend that the session is bound to, whatever its weight.
    pub(crate) fn backend<'b>(&self, backends: &'b [Backend]) -> Option<&'b Backend> {
        let place = self.place.as_ref()?;
        backends.iter().find(|backend| place.is_of(&backend.target))
    }

    /// The endpoint that the session is bound to, if it is one of this port of a service.
    pub(crate) fn endpoint(&self, service: &model::ServiceName, port: u16) -> Option<SocketAddr> {
        let place = self.place.as_ref()?;
        let target = Target::Service {
            name: service.clone(),
            port,
        };
        place.is_of(&target).then_some(place.endpoint)
    }

    /// Gives the client a token for the endpoint that has answered, unless it has that one.
    pub(crate) fn write(&self, mesh: &Mesh, place: &Place, secure: bool, fields: &mut Fields) {
        if self.place.as_ref() == Some(place) {
            return;
        }
        let timeout = self.persistence.timeout;
        let end = timeout.map_or(0, |t| seconds(SystemTime::now() + t));
        let Some(token) = seal(key(mesh), &self.scope, place, end) else {
            return;
        };
        let name = &self.persistence.name;
        match self.persistence.carrier {
            Carrier::Header => fields.set(name, token.as_bytes()),
            Carrier::Cookie | Carrier::PermanentCookie => {
                let path = cookie_path(&self.matched.path);
                let secure = if secure { "; Secure" } else { "" };
                let age = timeout.filter(|_| self.persistence.carrier == Carrier::PermanentCookie);
                let age = age.map(|t| format!("; Max-Age={}", t.as_secs().max(1)));
                let age = age.unwrap_or_default();
                let cookie =
                    format!("{name}={token}; Path={path}{age}{secure}; HttpOnly; SameSite=Lax");
                fields.append("set-cookie", cookie.as_bytes());
            }
        }
    }
}

fn key(mesh: &Mesh) -> &Key {
    mesh.session_key.as_ref().unwrap_or(&OWN)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since: Duration| since.as_secs())
}

/// The values of the cookies of this name (RFC 6265 5.4).
pub(crate) fn cookies<'f>(fields: &'f Fields, name: &'f str) -> impl Iterator<Item = &'f [u8]> {
    fields
        .get_all("cookie")
        .flat_map(|line| line.split(|b| *b == b';'))
        .filter_map(move |pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=")
        })
        .take(MAX_COOKIES)
}

/// For which paths a cookie is sent back: those below what was matched (GEP-1619).
fn cookie_path(path: &PathMatch) -> &str {
    let path = match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path,
        PathMatch::Regex(pattern) => {
            let text = pattern.source();
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_~".contains(&b);
            let literal = text.bytes().take_while(|b| plain(*b)).count();
            // A last element that is not whole is none that paths must have.
            match text[..literal].rfind('/') {
                Some(0) | None => "/",
                Some(end) => &text[..end],
            }
        }
        PathMatch::GrpcMethod(_) => "/",
    };
    // What would end the attribute.
    if path.contains(';') { "/" } else { path }
}

fn seal(key: &Key, scope: &str, place: &Place, end: u64) -> Option<String> {
    let mut text = Vec::with_capacity(FIXED + place.service.len() + NONCE_LEN + 16);
    text.push(VERSION);
    text.extend(end.to_be_bytes());
    let address = match place.endpoint.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    text.extend(address.octets());
    text.extend(place.endpoint.port().to_be_bytes());
    text.extend(place.port.to_be_bytes());
    text.extend(place.service.as_bytes());
    let sealing = RandomizedNonceKey::new(&AES_256_GCM_SIV, key.bytes()).ok()?;
    let aad = Aad::from(scope.as_bytes());
    let nonce = sealing.seal_in_place_append_tag(aad, &mut text).ok()?;
    text.extend(nonce.as_ref());
    Some(URL_SAFE_NO_PAD.encode(text))
}

fn open(key: &Key, scope: &str, token: &[u8], now: u64) -> Option<Place> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let mut sealed = URL_SAFE_NO_PAD.decode(token).ok()?;
    let nonce = sealed.split_off(sealed.len().checked_sub(NONCE_LEN)?);
    let nonce = Nonce::try_assume_unique_for_key(&nonce).ok()?;
    let opening = RandomizedNonceKey::new(&AES_256_GCM_SIV, key.bytes()).ok()?;
    let aad = Aad::from(scope.as_bytes());
    let text: &[u8] = opening.open_in_place(nonce, aad, &mut sealed).ok()?;
    let (fixed, service) = text.split_at_checked(FIXED)?;
    let number = |from: usize| Some(u16::from_be_bytes(*fixed.get(from..)?.first_chunk()?));
    let end = u64::from_be_bytes(*fixed.get(1..)?.first_chunk()?);
    if fixed.first() != Some(&VERSION) || (end != 0 && end <= now) {
        return None;
    }
    let address: &[u8; 16] = fixed.get(9..)?.first_chunk()?;
    let address = Ipv6Addr::from(*address).to_canonical();
    Some(Place {
        service: std::str::from_utf8(service).ok()?.into(),
        port: number(27)?,
        endpoint: SocketAddr::new(address, number(25)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let service = model::ServiceName::new("shop", "carts").expect("valid");
        Place::new(&service, 80, "10.1.2.3:8080".parse().expect("valid"))
    }

    fn mesh_key() -> Key {
        Key::new([7; 32])
    }

    #[test]
    fn a_token_is_read_under_its_rule_and_key_until_it_ends() {
        let token = seal(&mesh_key(), "rule", &place(), 1000).expect("sealed");
        let read = |key: &Key, scope, now| open(key, scope, token.as_bytes(), now);
        assert_eq!(read(&mesh_key(), "rule", 999), Some(place()));
        assert_eq!(read(&mesh_key(), "rule", 1000), None);
        assert_eq!(read(&mesh_key(), "other rule", 999), None);
        assert_eq!(read(&Key::new([8; 32]), "rule", 999), None);
        let endless = seal(&mesh_key(), "rule", &place(), 0).expect("sealed");
        let read = open(&mesh_key(), "rule", endless.as_bytes(), u64::MAX);
        assert_eq!(read, Some(place()));
    }

    #[test]
    fn a_token_shows_nothing_and_cannot_be_changed() {
        let token = seal(&mesh_key(), "rule", &place(), 0).expect("sealed");
        let bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64");
        let shows = |what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
        assert!(!shows(&[10, 1, 2, 3]) && !shows(b"carts"));
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(open(&mesh_key(), "rule", changed.as_bytes(), 0), None);
        }
        for length in 0..bytes.len() {
            let cut = URL_SAFE_NO_PAD.encode(&bytes[..length]);
            assert_eq!(open(&mesh_key(), "rule", cut.as_bytes(), 0), None);
        }
    }

    #[test]
    fn of_several_cookies_those_of_the_name_are_read() {
        let mut fields = Fields::new();
        fields.append("cookie", b"a=1; session=x;sessions=no; session=y");
        fields.append("cookie", b"session=z=");
        let found: Vec<&[u8]> = cookies(&fields, "session").collect();
        assert_eq!(found, [&b"x"[..], b"y", b"z="]);
    }

    #[test]
    fn a_cookie_is_for_the_path_that_was_matched() {
        let regex = |text| PathMatch::Regex(model::pattern::Pattern::new(text).expect("valid"));
        for (path, expected) in [
            (PathMatch::Prefix("/shop".to_owned()), "/shop"),
            (PathMatch::Exact("/shop/cart".to_owned()), "/shop/cart"),
            (PathMatch::Exact("/a;b".to_owned()), "/"),
            (regex("/p1/p2/.*/p3"), "/p1/p2"),
            (regex("/pa+"), "/"),
            (regex(".*"), "/"),
            (PathMatch::GrpcMethod("Get".to_owned()), "/"),
        ] {
            assert_eq!(cookie_path(&path), expected, "{path:?}");
        }
    }
}
