//! Session persistence (GEP-1619): requests of one client keep going to one endpoint.
//!
//! The client carries a token, in a cookie or in a header, that says which endpoint is its own. The
//! token is sealed with a key of the mesh, so that it says nothing to anybody else, is good for the
//! rule alone that gave it out, and is read by every proxy of the mesh.

use std::fmt;
use std::time::Duration;

/// How a rule keeps sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persistence {
    /// Name of the cookie or header.
    pub name: String,
    /// How the client carries the token.
    pub carrier: Carrier,
    /// How long a session lasts, from its first request; `None`: as long as its endpoint.
    pub timeout: Option<Duration>,
}

/// How the client carries the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// In a cookie, which the browser forgets with its session.
    Cookie,
    /// In a cookie that the browser keeps until the session's timeout, which there must be.
    PermanentCookie,
    /// In a header, which the client sends back by itself.
    Header,
}

/// The key that tokens are sealed with. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; Self::LENGTH]);

impl Key {
    /// Its length in bytes.
    pub const LENGTH: usize = 32;

    /// A key from its bytes.
    pub fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}
