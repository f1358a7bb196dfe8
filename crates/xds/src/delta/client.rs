//! The client: what is wanted and held, over one stream after the other.
//!
//! What is held outlives the stream, and, through [`Session::held`] and [`Session::restore`], the
//! process. A resource is held once its receiver has accepted it; of a response with bad resources
//! the good ones are, and the NACK names the bad ones. What nobody wants any more is dropped at
//! once, without waiting for the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::resource::{Key, Kind, Resource};
use prost::Message;

use super::server::RESOURCE_ERROR_URL;
use super::{MAX_NAME_BYTES, PerKind, covered, covering};
use crate::codec;
use crate::proto::discovery as wire;
use crate::proto::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use crate::proto::google::rpc;

/// `INVALID_ARGUMENT` of google.rpc.Code.
const INVALID_ARGUMENT: i32 = 3;

/// The longest text of a NACK, in characters.
const MESSAGE_CHARS: usize = 4096;

/// Fewer than a server takes on a stream, so that asking for too much cannot cost what is there.
const MAX_SUBSCRIPTIONS: usize = 40_000;

/// What came of wanting something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// It will be asked for.
    New,
    /// It was wanted already.
    Already,
    /// It is not wanted: the name is empty or too long, or too much is wanted as it is.
    Refused,
}

/// A response that belongs to no conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a response of type \"{0}\", which was not asked for")]
pub struct UnknownType(pub String);

/// A client's memory.
#[derive(Debug, Default)]
pub struct Session {
    node_id: String,
    /// What is wanted has no bound: nobody else has to keep it.
    unbounded: bool,
    streaming: bool,
    /// Counts streams: an acknowledgement is for its own stream only.
    epoch: u64,
    kinds: PerKind<Conversation>,
}

#[derive(Debug, Default)]
struct Conversation {
    wanted: BTreeSet<Arc<str>>,
    /// Of the wanted, those of which the server has said what there is.
    answered: BTreeSet<Arc<str>>,
    held: BTreeMap<Arc<str>, Held>,
    /// No longer held because no longer wanted, and not yet told to the receiver.
    dropped: BTreeSet<Arc<str>>,
    stream: Stream,
}

/// What lasts no longer than a stream.
#[derive(Debug, Default)]
struct Stream {
    started: bool,
    announced: BTreeSet<Arc<str>>,
    subscribe: BTreeSet<Arc<str>>,
    unsubscribe: BTreeSet<Arc<str>>,
    settled: Vec<(String, Option<rpc::Status>)>,
}

/// A resource in force.
#[derive(Debug, Clone)]
pub struct Held {
    /// The server's version.
    pub version: String,
    /// The resource.
    pub resource: Arc<Resource>,
    /// Its aliases as the server last gave them, be it with a version that was refused: which
    /// subscriptions cover it, both sides must see alike.
    pub aliases: Vec<String>,
}

impl Held {
    /// A resource as it was when it was accepted.
    pub fn new(version: String, resource: Arc<Resource>) -> Self {
        Self {
            version,
            aliases: resource.aliases(),
            resource,
        }
    }

    fn aliases(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().map(String::as_str)
    }
}

/// A response, read and checked; to be given back to [`Session::settle`].
#[derive(Debug)]
pub struct Update {
    /// Its kind.
    pub kind: Kind,
    /// Resources that are wanted and good.
    pub upserts: BTreeMap<Arc<str>, Held>,
    /// What is gone, and subscriptions to which there is nothing.
    pub removed: BTreeSet<Arc<str>>,
    /// Resources that cannot be used, and why.
    pub refused: BTreeMap<String, String>,
    /// Of all its resources.
    aliases: BTreeMap<Arc<str>, Vec<String>>,
    nonce: String,
    epoch: u64,
}

impl Session {
    /// A client that wants and holds nothing.
    pub fn new(node_id: impl Into<String>) -> Self {
        Self {
            node_id: node_id.into(),
            ..Self::default()
        }
    }

    /// A client that may want as much as it likes, since there is no server to keep track of it.
    pub(crate) fn unbounded() -> Self {
        Self {
            unbounded: true,
            ..Self::default()
        }
    }

    /// Puts back what an earlier process held. Only for a session that has no stream yet.
    pub fn restore(
        &mut self,
        kind: Kind,
        wanted: impl IntoIterator<Item = Arc<str>>,
        answered: impl IntoIterator<Item = Arc<str>>,
        held: impl IntoIterator<Item = Held>,
    ) {
        let conversation = &mut self.kinds[kind];
        conversation.wanted.extend(wanted);
        for held in held {
            let name: Arc<str> = held.resource.name().into();
            if covered(&conversation.wanted, &name, held.aliases()) {
                conversation.held.insert(name, held);
            }
        }
        let wanted = &conversation.wanted;
        let answered = answered.into_iter().filter(|name| wanted.contains(name));
        conversation.answered.extend(answered);
    }

    /// Wants a resource, alias or collection.
    pub fn subscribe(&mut self, kind: Kind, name: &str) -> Subscribed {
        let wanted = &self.kinds[kind].wanted;
        if wanted.contains(name) {
            return Subscribed::Already;
        }
        let all: usize = Kind::ALL
            .iter()
            .map(|kind| self.kinds[*kind].wanted.len())
            .sum();
        let full = all >= MAX_SUBSCRIPTIONS && !self.unbounded;
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || full {
            return Subscribed::Refused;
        }
        let conversation = &mut self.kinds[kind];
        let name: Arc<str> = name.into();
        conversation.wanted.insert(Arc::clone(&name));
        conversation.stream.unsubscribe.remove(&name);
        conversation.stream.subscribe.insert(name);
        Subscribed::New
    }

    /// Wants it no longer; whether it was wanted.
    pub fn unsubscribe(&mut self, kind: Kind, name: &str) -> bool {
        let conversation = &mut self.kinds[kind];
        let Some(name) = conversation.wanted.take(name) else {
            return false;
        };
        conversation.answered.remove(&name);
        let wanted = &conversation.wanted;
        let unwanted = conversation
            .held
            .extract_if(.., |name, held| !covered(wanted, name, held.aliases()));
        conversation.dropped.extend(unwanted.map(|(name, _)| name));
        conversation.stream.subscribe.remove(&name);
        if conversation.stream.announced.contains(&name) {
            conversation.stream.unsubscribe.insert(name);
        }
        true
    }

    /// What was dropped since this was last asked, for the receiver to forget too.
    pub fn take_dropped(&mut self) -> Vec<Key> {
        let mut keys = Vec::new();
        for kind in Kind::ALL {
            let conversation = &mut self.kinds[kind];
            let dropped = std::mem::take(&mut conversation.dropped);
            let gone = dropped
                .into_iter()
                .filter(|name| !conversation.held.contains_key(name));
            keys.extend(gone.map(|name| Key::new(kind, name)));
        }
        keys
    }

    /// All that is wanted.
    pub fn wanted(&self) -> impl Iterator<Item = (Kind, &Arc<str>)> {
        Kind::ALL
            .into_iter()
            .flat_map(|kind| self.kinds[kind].wanted.iter().map(move |name| (kind, name)))
    }

    /// All that is held, by name.
    pub fn held(&self, kind: Kind) -> &BTreeMap<Arc<str>, Held> {
        &self.kinds[kind].held
    }

    /// Of what is wanted, that of which it is known what there is.
    pub fn answered(&self, kind: Kind) -> &BTreeSet<Arc<str>> {
        &self.kinds[kind].answered
    }

    /// Answered subscriptions to which there is nothing.
    pub fn absent(&self, kind: Kind) -> BTreeSet<Arc<str>> {
        let conversation = &self.kinds[kind];
        let mut absent = conversation.answered.clone();
        for (name, held) in &conversation.held {
            covering(name, held.aliases(), |subscription| {
                absent.remove(subscription);
                true
            });
        }
        absent
    }

    /// Holds nothing any more, and has no answers; what is wanted stays.
    pub fn forget(&mut self) {
        for kind in Kind::ALL {
            self.kinds[kind].held.clear();
            self.kinds[kind].answered.clear();
        }
    }

    /// A new stream is open: everything is to be said again. Updates of the stream before must have
    /// been settled.
    pub fn opened(&mut self) {
        self.closed();
        self.streaming = true;
        self.epoch += 1;
        for kind in Kind::ALL {
            for held in self.kinds[kind].held.values_mut() {
                // The new stream's server goes by the version that it is told, not by what was
                // refused on the last.
                held.aliases = held.resource.aliases();
            }
        }
    }

    /// The stream is gone.
    pub fn closed(&mut self) {
        self.streaming = false;
        for kind in Kind::ALL {
            self.kinds[kind].stream = Stream::default();
        }
    }

    /// The next request to be sent, if there is one.
    pub fn poll(&mut self) -> Option<wire::DeltaDiscoveryRequest> {
        if !self.streaming {
            return None;
        }
        for kind in Kind::ALL {
            let conversation = &mut self.kinds[kind];
            let first = !conversation.stream.started;
            if let Some(mut request) = conversation.request() {
                codec::type_url(kind).clone_into(&mut request.type_url);
                request.node = first.then(|| node(&self.node_id));
                return Some(request);
            }
        }
        None
    }

    /// Reads a response. Its receiver's verdict goes to [`Session::settle`].
    pub fn receive(&self, response: wire::DeltaDiscoveryResponse) -> Result<Update, UnknownType> {
        let kind = codec::kind_of(&response.type_url)
            .ok_or_else(|| UnknownType(response.type_url.chars().take(200).collect()))?;
        let conversation = &self.kinds[kind];
        let mut update = Update {
            kind,
            upserts: BTreeMap::new(),
            removed: BTreeSet::new(),
            refused: BTreeMap::new(),
            aliases: BTreeMap::new(),
            nonce: response.nonce,
            epoch: self.epoch,
        };
        for resource in response.resources {
            let good = read(kind, &resource);
            let name: Arc<str> = resource.name.into();
            let aliases = resource.aliases;
            match good {
                Ok(good) => {
                    let held = Held {
                        version: resource.version,
                        resource: Arc::new(good),
                        aliases: aliases.clone(),
                    };
                    if covered(&conversation.wanted, &name, held.aliases()) {
                        update.upserts.insert(Arc::clone(&name), held);
                    } else if conversation.held.contains_key(&name) {
                        // It was wanted by an alias that it has no longer.
                        update.removed.insert(Arc::clone(&name));
                    }
                }
                Err(why) => {
                    update.refused.insert(name.to_string(), why);
                }
            }
            update.aliases.insert(name, aliases);
        }
        for name in response.removed_resources {
            // That there is nothing to a subscription is said on each new stream, and heard once.
            let news = conversation.held.contains_key(&*name)
                || conversation.wanted.contains(&*name) && !conversation.answered.contains(&*name);
            if news && !update.upserts.contains_key(&*name) {
                update.removed.insert(name.into());
            }
        }
        Ok(update)
    }

    /// Puts an update in force, or not, and acknowledges or refuses it.
    pub fn settle(&mut self, update: Update, verdict: Result<(), &str>) {
        let conversation = &mut self.kinds[update.kind];
        let error = match verdict {
            Err(why) => Some(nack(&format!("refused by the proxy: {why}"), Vec::new())),
            Ok(()) if update.refused.is_empty() => None,
            Ok(()) => Some(refusal(update.refused)),
        };
        if verdict.is_ok() {
            for (name, held) in update.upserts {
                conversation.answer(&name, &held);
                if covered(&conversation.wanted, &name, held.aliases()) {
                    conversation.held.insert(name, held);
                } else {
                    conversation.held.remove(&name);
                    conversation.dropped.insert(name);
                }
            }
            for name in update.removed {
                conversation.held.remove(&name);
                if conversation.wanted.contains(&name) {
                    conversation.answered.insert(name);
                }
            }
        }
        for (name, aliases) in update.aliases {
            conversation.rename(name, aliases);
        }
        if self.streaming && update.epoch == self.epoch {
            conversation.stream.settled.push((update.nonce, error));
        }
    }
}

impl Conversation {
    /// Takes over the aliases that the server gave a resource. If none that was wanted remains, the
    /// server takes it for forgotten.
    fn rename(&mut self, name: Arc<str>, aliases: Vec<String>) {
        if let Some(held) = self.held.get_mut(&name) {
            held.aliases = aliases;
            if !covered(&self.wanted, &name, held.aliases()) {
                self.held.remove(&name);
                self.dropped.insert(name);
            }
        }
    }

    /// Notes that the subscriptions which cover a resource have their answer.
    fn answer(&mut self, name: &str, held: &Held) {
        covering(name, held.aliases(), |subscription| {
            if let Some(wanted) = self.wanted.get(subscription) {
                self.answered.insert(Arc::clone(wanted));
            }
            true
        });
    }

    fn request(&mut self) -> Option<wire::DeltaDiscoveryRequest> {
        let mut request = wire::DeltaDiscoveryRequest::default();
        if !self.stream.started {
            // A first request without subscriptions would mean all.
            if self.wanted.is_empty() {
                return None;
            }
            self.stream.started = true;
            self.stream.subscribe = self.wanted.clone();
            self.stream.unsubscribe.clear();
            request.initial_resource_versions = self.initial_versions();
        }
        let stream = &mut self.stream;
        if stream.settled.is_empty() && stream.subscribe.is_empty() && stream.unsubscribe.is_empty()
        {
            return None;
        }
        if !stream.settled.is_empty() {
            (request.response_nonce, request.error_detail) = stream.settled.remove(0);
        }
        for name in std::mem::take(&mut stream.subscribe) {
            request.resource_names_subscribe.push(name.to_string());
            stream.announced.insert(name);
        }
        for name in std::mem::take(&mut stream.unsubscribe) {
            request.resource_names_unsubscribe.push(name.to_string());
            stream.announced.remove(&name);
        }
        Some(request)
    }

    /// What the server need not send again. What a subscription without an answer covers is said
    /// to be held in no known version, so that it comes again, or is said to be gone: either is the
    /// answer.
    fn initial_versions(&self) -> BTreeMap<String, String> {
        let unanswered: BTreeSet<_> = self.wanted.difference(&self.answered).cloned().collect();
        let version = |(name, held): (&Arc<str>, &Held)| {
            let again = covered(&unanswered, name, held.aliases());
            let version = if again { "" } else { &held.version };
            (name.to_string(), version.to_owned())
        };
        self.held.iter().map(version).collect()
    }
}

fn node(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        user_agent_name: "tulle".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        )),
        ..Default::default()
    }
}

fn read(kind: Kind, resource: &wire::Resource) -> Result<Resource, String> {
    let Some(body) = &resource.resource else {
        return Err("has no body".to_owned());
    };
    if body.type_url != codec::type_url(kind) {
        let url: String = body.type_url.chars().take(200).collect();
        return Err(format!("has a body of type \"{url}\""));
    }
    let good = codec::decode(kind, &body.value).map_err(|error| error.to_string())?;
    let name = good.name();
    if name == resource.name {
        Ok(good)
    } else {
        Err(format!("is by its contents named \"{name}\""))
    }
}

fn refusal(refused: BTreeMap<String, String>) -> rpc::Status {
    let list: Vec<_> = refused
        .iter()
        .map(|(name, why)| format!("{name}: {why}"))
        .collect();
    let details = refused
        .into_iter()
        .map(|(name, why)| {
            let error = wire::ResourceError {
                resource_name: Some(wire::ResourceName {
                    name,
                    ..Default::default()
                }),
                error_detail: Some(nack(&why, Vec::new())),
            };
            prost_types::Any {
                type_url: RESOURCE_ERROR_URL.to_owned(),
                value: error.encode_to_vec(),
            }
        })
        .collect();
    nack(&list.join("; "), details)
}

fn nack(message: &str, details: Vec<prost_types::Any>) -> rpc::Status {
    rpc::Status {
        code: INVALID_ARGUMENT,
        message: message.chars().take(MESSAGE_CHARS).collect(),
        details,
    }
}
