//! The server's side of one stream: what its client wants, has, and is still to get.
//!
//! Changes are not queued but marked (`dirty`): what is sent is always the current version, however
//! many there were meanwhile, and a client that does not keep up costs a set of names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use model::resource::{Key, Kind as Own};

use super::store::Store;
use super::{Kind, MAX_NAME_BYTES, PerKind, WILDCARD, covered, covering};
use crate::codec::Version;
use crate::proto::discovery as wire;
use crate::proto::google::rpc;

/// The type URL of the details by which a client says which resource of a response it refuses.
pub const RESOURCE_ERROR_URL: &str = "type.googleapis.com/envoy.service.discovery.v3.ResourceError";

/// A response is full when its resources have this many bytes.
const RESPONSE_BYTES: usize = 2 * 1024 * 1024;

/// The longest reason for a refusal that is kept, in characters.
const MESSAGE_CHARS: usize = 1024;

/// Bounds on what one stream may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Subscriptions, all kinds together.
    pub subscriptions: usize,
    /// Bytes of a name.
    pub name_bytes: usize,
    /// Resources that a client may say it holds, for each kind.
    pub initial_resources: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions: 50_000,
            name_bytes: MAX_NAME_BYTES,
            initial_resources: 200_000,
        }
    }
}

/// A request that ends its stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The type URL is none of those that are served.
    #[error("type URL \"{0}\" is not served here; known are {1}")]
    UnknownType(String, String),
    /// A name is empty or too long.
    #[error("a resource name of {0} bytes is not valid; use 1 to {1}")]
    Name(usize, usize),
    /// Too many subscriptions, or resources held.
    #[error("more than {0} {1} on one stream")]
    TooMany(usize, &'static str),
    /// Resources that are not for this client.
    #[error("{0} are for the proxies of their Gateway alone, which ask for them by its name")]
    Forbidden(Own),
}

impl RequestError {
    /// Of a type URL that is none of these kinds'.
    pub(crate) fn unknown<K: Kind>(url: &str) -> Self {
        let known: Vec<_> = K::ALL.iter().map(|kind| kind.url()).collect();
        Self::UnknownType(url.chars().take(200).collect(), known.join(", "))
    }
}

/// How a request changed the set of subscriptions, for an index of them.
#[derive(Debug)]
pub struct Requested<K = Own> {
    /// New ones.
    pub subscribed: Vec<(K, Arc<str>)>,
    /// Ended ones.
    pub unsubscribed: Vec<(K, Arc<str>)>,
    /// Whether a response was acknowledged or refused.
    pub settled: bool,
}

/// One stream.
#[derive(Debug)]
pub struct Session<K = Own> {
    kinds: PerKind<Conversation, K>,
    limits: Limits,
    subscriptions: usize,
    last_nonce: u64,
}

#[derive(Debug, Default)]
struct Conversation {
    started: bool,
    wanted: BTreeSet<Arc<str>>,
    /// Resources to look at when the next response is made.
    dirty: BTreeSet<Arc<str>>,
    /// Of the dirty ones, those to be sent although the client may have them.
    forced: BTreeSet<Arc<str>>,
    /// Subscriptions to be answered: if there is nothing to one, by its own name.
    unanswered: BTreeMap<Arc<str>, Answer>,
    /// What the client has, as far as is known.
    known: BTreeMap<Arc<str>, Known>,
    in_flight: Option<InFlight>,
}

/// What is sent, besides what is dirty, for a subscription to which there is something.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// All of it: asked for again, the client may have dropped what it had.
    All,
    /// What the client has not just said that it holds.
    NotHeld,
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
struct Known {
    /// `None`: some version that was not ours.
    version: Option<Version>,
    state: State,
}

#[derive(Debug)]
enum State {
    Sent { nonce: u64 },
    Acked,
    Rejected(Rejected),
}

#[derive(Debug)]
struct Rejected {
    message: Arc<str>,
    when: SystemTime,
    aliases: Vec<Arc<str>>,
}

#[derive(Debug)]
struct InFlight {
    nonce: u64,
    /// With their aliases.
    sent: Vec<(Arc<str>, Vec<Arc<str>>)>,
    removed: BTreeSet<Arc<str>>,
}

/// What became of a resource's current version on this stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// On its way, or still to be sent.
    Pending,
    /// In force, or, where it is gone, forgotten.
    Acked,
    /// Refused.
    Rejected(Arc<str>),
}

impl<K> Default for Requested<K> {
    fn default() -> Self {
        Self {
            subscribed: Vec::new(),
            unsubscribed: Vec::new(),
            settled: false,
        }
    }
}

impl<K: Kind> Session<K> {
    /// A new stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            kinds: PerKind::default(),
            limits,
            subscriptions: 0,
            last_nonce: 0,
        }
    }

    /// Takes a request: initial versions, subscriptions, acknowledgement, in this order.
    pub fn request(
        &mut self,
        request: &wire::DeltaDiscoveryRequest,
        store: &Store<K>,
        now: SystemTime,
    ) -> Result<Requested<K>, RequestError> {
        let kind = K::of_url(&request.type_url)
            .ok_or_else(|| RequestError::unknown::<K>(&request.type_url))?;
        self.check(request)?;
        let mut requested = Requested::default();
        let conversation = &mut self.kinds[kind];
        let first = !std::mem::replace(&mut conversation.started, true);
        if first {
            conversation.resume(&request.initial_resource_versions);
        }
        // xds_protocol, "How the client specifies what resources to return": a first request that
        // subscribes to nothing means all.
        let legacy_wildcard = first
            && request.resource_names_subscribe.is_empty()
            && request.resource_names_unsubscribe.is_empty();
        let implied = legacy_wildcard.then_some(WILDCARD);
        let names = request.resource_names_subscribe.iter().map(String::as_str);
        for name in names.chain(implied) {
            if let Some(name) = conversation.subscribe(name, first) {
                requested.subscribed.push((kind, name));
            }
        }
        for name in &request.resource_names_unsubscribe {
            if let Some(name) = conversation.unsubscribe(kind, name, store) {
                requested.unsubscribed.push((kind, name));
            }
        }
        // Last, because the client took the response with these subscriptions in mind.
        if !request.response_nonce.is_empty() {
            requested.settled =
                conversation.settle(&request.response_nonce, request.error_detail.as_ref(), now);
        }
        self.subscriptions += requested.subscribed.len();
        self.subscriptions -= requested.unsubscribed.len();
        Ok(requested)
    }

    fn check(&self, request: &wire::DeltaDiscoveryRequest) -> Result<(), RequestError> {
        let limits = &self.limits;
        let names = request
            .resource_names_subscribe
            .iter()
            .chain(&request.resource_names_unsubscribe)
            .chain(request.initial_resource_versions.keys());
        for name in names {
            if !(1..=limits.name_bytes).contains(&name.len()) {
                return Err(RequestError::Name(name.len(), limits.name_bytes));
            }
        }
        if self.subscriptions + request.resource_names_subscribe.len() > limits.subscriptions {
            return Err(RequestError::TooMany(limits.subscriptions, "subscriptions"));
        }
        if request.initial_resource_versions.len() > limits.initial_resources {
            let bound = limits.initial_resources;
            return Err(RequestError::TooMany(bound, "initial resource versions"));
        }
        Ok(())
    }

    /// Marks a resource that changed, appeared or vanished.
    pub fn changed(&mut self, kind: K, name: &Arc<str>) {
        self.kinds[kind].dirty.insert(Arc::clone(name));
    }

    /// The next response, if there is one to be sent now; kinds in the order of [`Kind`].
    pub fn poll(&mut self, store: &Store<K>) -> Option<wire::DeltaDiscoveryResponse> {
        self.poll_of(K::ALL, store)
    }

    /// The same, of these kinds alone.
    pub fn poll_of(
        &mut self,
        kinds: &[K],
        store: &Store<K>,
    ) -> Option<wire::DeltaDiscoveryResponse> {
        for kind in kinds.iter().copied() {
            let nonce = self.last_nonce + 1;
            if let Some(response) = self.kinds[kind].respond(kind, nonce, store) {
                self.last_nonce = nonce;
                return Some(response);
            }
        }
        None
    }

    /// Whether a response of this kind is still to be answered.
    pub fn is_waiting(&self, kind: K) -> bool {
        self.kinds[kind].in_flight.is_some()
    }

    /// Whether a resource was sent, or is held from an earlier stream.
    pub fn has(&self, kind: K, name: &str) -> bool {
        self.kinds[kind].known.contains_key(name)
    }

    /// All subscriptions.
    pub fn subscriptions(&self) -> impl Iterator<Item = (K, &Arc<str>)> {
        K::ALL
            .iter()
            .copied()
            .flat_map(|kind| self.kinds[kind].wanted.iter().map(move |name| (kind, name)))
    }

    /// For a kind: subscriptions, resources sent, resources acknowledged; `None` if it was never
    /// asked for.
    pub fn counts(&self, kind: K) -> Option<(usize, usize, usize)> {
        let conversation = &self.kinds[kind];
        let acked = conversation
            .known
            .values()
            .filter(|known| matches!(known.state, State::Acked));
        conversation.started.then(|| {
            (
                conversation.wanted.len(),
                conversation.known.len(),
                acked.count(),
            )
        })
    }

    /// What the client refused, and got no newer version of: kind, name, version, reason, time.
    pub fn rejections(&self) -> Vec<(K, Arc<str>, String, Arc<str>, SystemTime)> {
        let mut list = Vec::new();
        for kind in K::ALL.iter().copied() {
            for (name, known) in &self.kinds[kind].known {
                if let State::Rejected(rejected) = &known.state {
                    let version = known.version.map(|v| v.to_string()).unwrap_or_default();
                    let message = Arc::clone(&rejected.message);
                    list.push((kind, Arc::clone(name), version, message, rejected.when));
                }
            }
        }
        list
    }
}

impl Session {
    /// What became of a resource's current version (or of its removal).
    pub fn standing(&self, key: &Key, store: &Store) -> Standing {
        let conversation = &self.kinds[key.kind];
        let known = conversation.known.get(&key.name);
        let Some(entry) = store.entry(key.kind, &key.name) else {
            let in_flight = conversation
                .in_flight
                .as_ref()
                .is_some_and(|response| response.removed.contains(&key.name));
            return if known.is_some() || in_flight {
                Standing::Pending
            } else {
                Standing::Acked
            };
        };
        match known {
            Some(known) if known.version == Some(entry.version) => match &known.state {
                State::Acked => Standing::Acked,
                State::Rejected(rejected) => Standing::Rejected(Arc::clone(&rejected.message)),
                State::Sent { .. } => Standing::Pending,
            },
            _ => Standing::Pending,
        }
    }
}

impl Conversation {
    /// Notes what the client holds from an earlier stream; each is compared with the store when the
    /// next response is made.
    fn resume(&mut self, versions: &BTreeMap<String, String>) {
        for (name, version) in versions {
            let name: Arc<str> = name.as_str().into();
            let known = Known {
                version: Version::parse(version),
                state: State::Acked,
            };
            self.dirty.insert(Arc::clone(&name));
            self.known.insert(name, known);
        }
    }

    fn subscribe(&mut self, name: &str, first: bool) -> Option<Arc<str>> {
        let name: Arc<str> = name.into();
        let answer = if first { Answer::NotHeld } else { Answer::All };
        self.unanswered.insert(Arc::clone(&name), answer);
        self.wanted.insert(Arc::clone(&name)).then_some(name)
    }

    fn unsubscribe<K: Kind>(&mut self, kind: K, name: &str, store: &Store<K>) -> Option<Arc<str>> {
        let name = self.wanted.take(name)?;
        self.unanswered.remove(&name);
        for resource in store.expand(kind, &name) {
            let aliases = store.entry(kind, &resource).map(|entry| &entry.aliases);
            let aliases = aliases.into_iter().flatten().map(|alias| &**alias);
            // A dirty one stays so: the client may keep it for an alias that it has no longer, and
            // is then to be told.
            if !covered(&self.wanted, &resource, aliases) {
                self.forced.remove(&resource);
                if !self.dirty.contains(&resource) {
                    self.known.remove(&resource);
                }
            }
        }
        Some(name)
    }

    /// Answers whether the nonce was that of the response in flight. A stale one is ignored: what
    /// it speaks of is known already.
    fn settle(&mut self, nonce: &str, error: Option<&rpc::Status>, now: SystemTime) -> bool {
        let Some(response) = self
            .in_flight
            .take_if(|response| nonce == response.nonce.to_string())
        else {
            return false;
        };
        let single = error.map(refused_resources).unwrap_or_default();
        let concerns_some = response
            .sent
            .iter()
            .any(|(name, _)| single.contains_key(&**name));
        let shorten = |text: &str| -> Arc<str> {
            text.chars().take(MESSAGE_CHARS).collect::<String>().into()
        };
        for (name, aliases) in &response.sent {
            let Some(known) = self.known.get_mut(name) else {
                // It was unsubscribed from while it was on its way. If it was also subscribed to
                // again, the client may have taken it after all.
                if covered(&self.wanted, name, aliases.iter().map(|alias| &**alias)) {
                    let (version, state) = (None, State::Acked);
                    self.known
                        .insert(Arc::clone(name), Known { version, state });
                    self.dirty.insert(Arc::clone(name));
                }
                continue;
            };
            if !matches!(known.state, State::Sent { nonce } if nonce == response.nonce) {
                continue;
            }
            let refusal = if concerns_some {
                single.get(&**name).map(String::as_str)
            } else {
                error.map(|error| error.message.as_str())
            };
            known.state = refusal.map_or(State::Acked, |message| {
                State::Rejected(Rejected {
                    message: shorten(message),
                    when: now,
                    aliases: aliases.clone(),
                })
            });
        }
        true
    }

    /// A subscription whose only resource was refused had no answer from it: now that it is gone,
    /// "nothing" may be one.
    fn ask_again(&mut self, name: &str, known: &Known) {
        if let State::Rejected(rejected) = &known.state {
            let aliases = rejected.aliases.iter().map(|alias| &**alias);
            covering(name, aliases, |subscription| {
                let wanted = self.wanted.get(subscription).cloned();
                self.unanswered
                    .extend(wanted.map(|name| (name, Answer::Nothing)));
                true
            });
        }
    }

    fn respond<K: Kind>(
        &mut self,
        kind: K,
        nonce: u64,
        store: &Store<K>,
    ) -> Option<wire::DeltaDiscoveryResponse> {
        if self.in_flight.is_some() || (self.dirty.is_empty() && self.unanswered.is_empty()) {
            return None;
        }
        let mut resources = Vec::new();
        let mut sent = Vec::new();
        let mut removed = BTreeSet::new();
        let mut bytes = 0;
        while bytes < RESPONSE_BYTES
            && let Some((name, answer)) = self.unanswered.pop_first()
        {
            let covered = store.expand(kind, &name);
            if covered.is_empty() {
                bytes += name.len();
                removed.insert(name);
            }
            for resource in covered {
                let force = match answer {
                    Answer::All => true,
                    Answer::NotHeld => !self.known.contains_key(&resource),
                    Answer::Nothing => continue,
                };
                if force {
                    self.forced.insert(Arc::clone(&resource));
                }
                self.dirty.insert(resource);
            }
        }
        while bytes < RESPONSE_BYTES
            && let Some(name) = self.dirty.pop_first()
        {
            let forced = self.forced.remove(&name);
            let entry = store
                .entry(kind, &name)
                .filter(|entry| covered(&self.wanted, &name, entry.aliases()));
            let Some(entry) = entry else {
                if let Some(known) = self.known.remove(&name) {
                    self.ask_again(&name, &known);
                    bytes += name.len();
                    removed.insert(name);
                }
                continue;
            };
            let version = Some(entry.version);
            let same = self
                .known
                .get(&name)
                .is_some_and(|known| known.version == version);
            if same && !forced {
                continue;
            }
            bytes += entry.bytes.len() + name.len();
            resources.push(resource_to_message(kind, &name, entry));
            let state = State::Sent { nonce };
            self.known
                .insert(Arc::clone(&name), Known { version, state });
            sent.push((name, entry.aliases.clone()));
        }
        if resources.is_empty() && removed.is_empty() {
            return None;
        }
        let response = wire::DeltaDiscoveryResponse {
            resources,
            type_url: kind.url().to_owned(),
            removed_resources: removed.iter().map(ToString::to_string).collect(),
            nonce: nonce.to_string(),
            ..Default::default()
        };
        self.in_flight = Some(InFlight {
            nonce,
            sent,
            removed,
        });
        Some(response)
    }
}

fn resource_to_message(kind: impl Kind, name: &str, entry: &super::store::Entry) -> wire::Resource {
    wire::Resource {
        name: name.to_owned(),
        aliases: entry.aliases().map(ToOwned::to_owned).collect(),
        version: entry.version.to_string(),
        resource: Some(prost_types::Any {
            type_url: kind.url().to_owned(),
            value: entry.bytes.to_vec(),
        }),
        ..Default::default()
    }
}

/// Which resources a NACK names, and why; empty if it says no more than that the response is bad.
fn refused_resources(error: &rpc::Status) -> BTreeMap<String, String> {
    error
        .details
        .iter()
        .filter(|detail| detail.type_url == RESOURCE_ERROR_URL)
        .filter_map(|detail| {
            let error: wire::ResourceError = prost::Message::decode(&*detail.value).ok()?;
            Some((error.resource_name?.name, error.error_detail?.message))
        })
        .collect()
}
