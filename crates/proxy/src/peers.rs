//! Who is at the other end of the mutual TLS connections: what the admin endpoint shows, and what
//! proves that an edge of the mesh is what it claims to be. Touched once per handshake.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::SpiffeId;
use serde_json::{Value, json};

/// More kinds of connections than this are counted as one: a bound on memory.
const LIMIT: usize = 4096;

/// Which side opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What connections are counted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    direction: Direction,
    peer: String,
    alpn: String,
    key_exchange: String,
}

/// Completed handshakes by direction, peer, form and key exchange.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<BTreeMap<Edge, u64>>);

impl Peers {
    /// Counts a completed handshake.
    pub(crate) fn record(
        &self,
        direction: Direction,
        peer: Option<&SpiffeId>,
        alpn: &[u8],
        key_exchange: &str,
    ) {
        let edge = Edge {
            direction,
            peer: peer.map_or_else(|| "unknown".to_owned(), ToString::to_string),
            alpn: String::from_utf8_lossy(alpn).into_owned(),
            key_exchange: key_exchange.to_owned(),
        };
        let mut edges = self.lock();
        if edges.len() < LIMIT || edges.contains_key(&edge) {
            *edges.entry(edge).or_default() += 1;
        }
    }

    /// The table as the admin endpoint shows it.
    pub(crate) fn to_json(&self) -> Value {
        self.lock()
            .iter()
            .map(|(edge, handshakes)| {
                json!({
                    "direction": edge.direction.as_str(),
                    "peer": edge.peer,
                    "alpn": edge.alpn,
                    "keyExchange": edge.key_exchange,
                    "tls": "1.3",
                    "handshakes": handshakes,
                })
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Edge, u64>> {
        // A counter map is whole after every operation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
