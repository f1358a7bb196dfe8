//! The server's side of a stream that carries the state of the world, without sockets or clocks
//! (xds_protocol, "The xDS transport protocol").
//!
//! Each kind is a conversation of its own. A response holds all that the client has asked for; the
//! client acknowledges it with its nonce (ACK) or refuses it (NACK, with `error_detail`). There is one
//! unacknowledged response for each kind at most, and another is made only when it would hold something
//! else than the last: an ACK, and a NACK no less, is answered with nothing. Requests with an old nonce
//! are passed over, since the client has a newer response to answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Kind;
use crate::codec::Version;
use crate::delta::server::{Limits, RequestError};
use crate::delta::store::Store;
use crate::delta::{Kind as _, PerKind, WILDCARD};
use crate::proto::discovery as wire;

/// One stream.
#[derive(Debug, Default)]
pub struct Session {
    kinds: PerKind<Conversation, Kind>,
    limits: Limits,
    last_nonce: u64,
}

#[derive(Debug, Default)]
struct Conversation {
    /// What is asked for; `None`: nothing was yet.
    wanted: Option<Wanted>,
    /// What the last response held.
    sent: Option<Sent>,
    /// Whether it is still to be answered.
    in_flight: bool,
    /// Whether the next one is made although it holds what the last one did.
    again: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    All,
    Only(BTreeSet<Arc<str>>),
}

#[derive(Debug)]
struct Sent {
    nonce: u64,
    versions: BTreeMap<Arc<str>, Version>,
}

/// What became of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was said of one that is waited for.
    None,
    /// It is in force.
    Acked,
    /// It is refused, for this reason.
    Refused(String),
}

/// The longest reason for a refusal that is kept, in characters.
const MESSAGE_CHARS: usize = 1024;

impl Session {
    /// Takes a request.
    pub fn request(&mut self, request: &wire::DiscoveryRequest) -> Result<Verdict, RequestError> {
        let kind = Kind::of_url(&request.type_url)
            .ok_or_else(|| RequestError::unknown::<Kind>(&request.type_url))?;
        self.check(request)?;
        let conversation = &mut self.kinds[kind];
        let mut verdict = Verdict::None;
        if !request.response_nonce.is_empty() {
            let last = conversation.sent.as_ref();
            // A nonce of an earlier stream says nothing here: what comes with it is a first request.
            if let Some(last) = last {
                if request.response_nonce != last.nonce.to_string() {
                    return Ok(Verdict::None);
                }
                if std::mem::take(&mut conversation.in_flight) {
                    verdict = verdict_of(request);
                }
            }
        }
        let wanted = conversation.wanted(kind, &request.resource_names);
        if conversation.wanted.as_ref() != Some(&wanted) {
            // Who asks for a name anew may have dropped what it had.
            if let (Some(Wanted::Only(old)), Wanted::Only(new)) = (&conversation.wanted, &wanted) {
                conversation.again |= !new.is_subset(old);
            }
            conversation.wanted = Some(wanted);
        }
        Ok(verdict)
    }

    fn check(&self, request: &wire::DiscoveryRequest) -> Result<(), RequestError> {
        let limits = &self.limits;
        if request.resource_names.len() > limits.subscriptions {
            return Err(RequestError::TooMany(limits.subscriptions, "subscriptions"));
        }
        for name in &request.resource_names {
            if !(1..=limits.name_bytes).contains(&name.len()) {
                return Err(RequestError::Name(name.len(), limits.name_bytes));
            }
        }
        Ok(())
    }

    /// Whether a response of this kind is still to be answered.
    pub fn is_waiting(&self, kind: Kind) -> bool {
        self.kinds[kind].in_flight
    }

    /// Whether the last response held a resource.
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        let sent = self.kinds[kind].sent.as_ref();
        sent.is_some_and(|sent| sent.versions.contains_key(name))
    }

    /// The next response of these kinds, if there is one to be sent now; kinds in the order given.
    pub fn poll(&mut self, kinds: &[Kind], store: &Store<Kind>) -> Option<wire::DiscoveryResponse> {
        for kind in kinds.iter().copied() {
            let nonce = self.last_nonce + 1;
            let Some(response) = self.kinds[kind].respond(kind, nonce, store) else {
                continue;
            };
            self.last_nonce = nonce;
            // A cluster or listener that changed is warmed up again, with endpoints or routes that come
            // anew (xds_protocol, "Resource warming").
            match kind {
                Kind::Cluster => self.kinds[Kind::Endpoints].again = true,
                Kind::Listener => self.kinds[Kind::Routes].again = true,
                Kind::Endpoints | Kind::Routes => {}
            }
            return Some(response);
        }
        None
    }
}

impl Conversation {
    fn wanted(&self, kind: Kind, names: &[String]) -> Wanted {
        // Without a name it is all, of those kinds of which there may be, and for those who never named
        // one.
        let named_before = matches!(self.wanted, Some(Wanted::Only(_)));
        let all = names.iter().any(|name| name == WILDCARD) || (names.is_empty() && !named_before);
        if kind.has_wildcard() && all {
            return Wanted::All;
        }
        Wanted::Only(names.iter().map(|name| name.as_str().into()).collect())
    }

    fn respond(
        &mut self,
        kind: Kind,
        nonce: u64,
        store: &Store<Kind>,
    ) -> Option<wire::DiscoveryResponse> {
        if self.in_flight {
            return None;
        }
        let names: Vec<&Arc<str>> = match self.wanted.as_ref()? {
            Wanted::All => store.names(kind).collect(),
            Wanted::Only(names) => names.iter().collect(),
        };
        let entries: Vec<_> = names
            .into_iter()
            .filter_map(|name| Some((name, store.entry(kind, name)?)))
            .collect();
        let versions: BTreeMap<_, _> = entries
            .iter()
            .map(|(name, entry)| (Arc::clone(name), entry.version))
            .collect();
        let again = std::mem::take(&mut self.again);
        let news = match &self.sent {
            Some(sent) => sent.versions != versions || (again && !versions.is_empty()),
            // Of the kinds that a client has all of, "nothing" is an answer.
            None => kind.has_wildcard() || !versions.is_empty(),
        };
        if !news {
            return None;
        }
        let resources = entries.iter().map(|(_, entry)| prost_types::Any {
            type_url: kind.url().to_owned(),
            value: entry.bytes.to_vec(),
        });
        let response = wire::DiscoveryResponse {
            version_info: version_of(&versions).to_string(),
            resources: resources.collect(),
            type_url: kind.url().to_owned(),
            nonce: nonce.to_string(),
            ..wire::DiscoveryResponse::default()
        };
        self.sent = Some(Sent { nonce, versions });
        self.in_flight = true;
        Some(response)
    }
}

fn verdict_of(request: &wire::DiscoveryRequest) -> Verdict {
    match &request.error_detail {
        None => Verdict::Acked,
        Some(error) => Verdict::Refused(error.message.chars().take(MESSAGE_CHARS).collect()),
    }
}

/// The version of a whole: it changes when, and only when, one of its parts does.
fn version_of(versions: &BTreeMap<Arc<str>, Version>) -> Version {
    let parts = versions
        .iter()
        .map(|(name, version)| format!("{name} {version}\n"));
    Version::of(parts.collect::<String>().as_bytes())
}

#[cfg(test)]
mod tests;
