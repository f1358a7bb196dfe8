//! The control plane's side: who wants what, what was sent, and what became of it.
//!
//! A [`Distributor`] holds the resources and an index from subscriptions to streams, so that a
//! change costs in proportion to those whom it concerns. Each stream has a task of its own, which
//! asks its state machine ([`crate::delta::server`]) for the next response only when the last one
//! was taken: nothing queues but names. One lock guards it all; it is never held over an await, and
//! no user's request waits for it.
//!
//! Who may have a stream is decided by the [`Authorize`] callback. The connection's identity comes
//! as a request extension ([`PeerIdentity`]) from whoever terminated TLS.

mod stream;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use model::SpiffeId;
use model::resource::{Key, Kind, Resource, class_alias, collection_of_gateway};
use tokio::sync::{Notify, watch};

use crate::codec;
use crate::delta::PerKind;
use crate::delta::server::{Limits, RequestError, Session, Standing};
use crate::delta::store::{Entry, Store};
use crate::proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

pub use crate::proto::v1::certificate_authority_server::{
    CertificateAuthority, CertificateAuthorityServer,
};
pub use crate::proto::v1::registry_server::{Registry, RegistryServer};
pub use stream::Discovery;

/// The largest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;

/// Request extension: whom the connection's certificate named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity(pub SpiffeId);

/// Request extension: where the connection comes from, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress(pub String);

/// Who opens a stream.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Whom the connection's certificate named, if it had one.
    pub identity: Option<&'a SpiffeId>,
    /// `node.id` of the first request.
    pub node_id: &'a str,
}

/// Decides whether a peer may have a stream; the text says why not.
pub type Authorize = Arc<dyn Fn(&Peer<'_>) -> Result<(), String> + Send + Sync>;

/// Hands resources to those who asked for them.
pub struct Distributor {
    authorize: Authorize,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    applied: watch::Sender<u64>,
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    store: Store,
    /// From a subscription to the streams that have it.
    interest: PerKind<HashMap<Arc<str>, BTreeSet<StreamId>>>,
    streams: BTreeMap<StreamId, Client>,
    last_id: StreamId,
    pushes: u64,
    rejections: u64,
}

/// Streams are numbered as they come: the larger number is the newer stream.
type StreamId = u64;

struct Client {
    session: Session,
    wake: Arc<Notify>,
    node_id: String,
    identity: Option<SpiffeId>,
    address: Option<String>,
    connected_since: SystemTime,
}

/// A connected client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientStatus {
    /// `node.id`.
    pub node_id: String,
    /// Whom its certificate named.
    pub identity: Option<SpiffeId>,
    /// Where it comes from.
    pub address: Option<String>,
    /// When its stream began.
    pub connected_since: SystemTime,
    /// For each kind it asked for.
    pub kinds: Vec<KindStatus>,
    /// What it refused and got no newer version of.
    pub rejected: Vec<Rejection>,
}

/// What a client has of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindStatus {
    /// The kind.
    pub kind: Kind,
    /// Names, aliases and collections subscribed to.
    pub subscribed: usize,
    /// Resources sent, or held from an earlier stream.
    pub sent: usize,
    /// Of these, acknowledged.
    pub acked: usize,
}

/// A resource that a client refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Which.
    pub key: Key,
    /// In which version.
    pub version: String,
    /// Why, in the client's words.
    pub message: String,
    /// When.
    pub when: SystemTime,
}

/// What became of a resource's current version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acks {
    /// Connected clients that want it.
    pub interested: usize,
    /// Of these, have it in force (or, if it is gone, have forgotten it).
    pub acked: usize,
    /// Of these, refused it.
    pub rejected: usize,
    /// `node.id` and reason of one that refused.
    pub rejection: Option<(String, String)>,
}

impl Distributor {
    /// A distributor that has nothing yet.
    pub fn new(authorize: Authorize) -> Arc<Self> {
        Arc::new(Self {
            authorize,
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            applied: watch::Sender::new(0),
            closed: watch::Sender::new(false),
        })
    }

    /// Changes resources (`None`: removes them), all at once. What is as it was costs nothing
    /// further, the rest what it takes to tell those who are interested.
    pub fn apply(&self, changes: Vec<(Key, Option<Resource>)>) {
        let changes: Vec<_> = changes
            .into_iter()
            .map(|(key, resource)| {
                debug_assert!(resource.as_ref().is_none_or(|r| r.key() == key), "{key}");
                let entry = resource.as_ref().map(Entry::of);
                (key, entry)
            })
            .collect();
        let mut state = self.lock();
        let State {
            store,
            interest,
            streams,
            ..
        } = &mut *state;
        for (key, entry) in changes {
            let touched = store.set(&key, entry).unwrap_or_default();
            let ids: BTreeSet<_> = touched
                .iter()
                .filter_map(|subscription| interest[key.kind].get(subscription))
                .flatten()
                .collect();
            for id in ids {
                if let Some(client) = streams.get_mut(id) {
                    client.session.changed(key.kind, &key.name);
                    client.wake.notify_one();
                }
            }
        }
        drop(state);
        self.applied.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The resources that a subscription covers, as they are now.
    pub fn read(&self, kind: Kind, subscription: &str) -> Vec<Resource> {
        let state = self.lock();
        let names = state.store.expand(kind, subscription);
        let entries = names.iter().filter_map(|n| state.store.entry(kind, n));
        let bytes: Vec<_> = entries.map(|entry| Arc::clone(&entry.bytes)).collect();
        drop(state);
        let read = |bytes: &Arc<[u8]>| match codec::decode(kind, bytes) {
            Ok(resource) => Some(resource),
            Err(error) => {
                tracing::error!(%error, "a resource that was encoded here cannot be read again");
                None
            }
        };
        bytes.iter().filter_map(read).collect()
    }

    /// Grows with each call of [`apply`](Self::apply).
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The gRPC service.
    pub fn service(self: &Arc<Self>) -> AggregatedDiscoveryServiceServer<Discovery> {
        AggregatedDiscoveryServiceServer::new(Discovery::new(Arc::clone(self)))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// All connected clients; of several streams with one `node.id`, the newest.
    pub fn clients(&self) -> Vec<ClientStatus> {
        let state = self.lock();
        let newest: HashMap<_, _> = state
            .streams
            .values()
            .map(|client| (client.node_id.as_str(), client))
            .collect();
        let mut list: Vec<_> = newest.into_values().map(Client::status).collect();
        list.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        list
    }

    /// The version of a resource as it is now, which is that of its bytes.
    pub fn version(&self, key: &Key) -> Option<codec::Version> {
        let state = self.lock();
        state.store.entry(key.kind, &key.name).map(|e| e.version)
    }

    /// What became of a resource's current version, or of its removal. Costs in proportion to those
    /// interested.
    pub fn acknowledged(&self, key: &Key) -> Acks {
        let state = self.lock();
        let aliases = state.store.entry(key.kind, &key.name);
        let aliases = aliases.into_iter().flat_map(Entry::aliases);
        let mut interested = BTreeMap::new();
        crate::delta::covering(&key.name, aliases, |subscription| {
            let ids = state.interest[key.kind].get(subscription);
            for id in ids.into_iter().flatten() {
                if let Some(client) = state.streams.get(id) {
                    let newest = interested.entry(&client.node_id).or_insert((id, client));
                    if *newest.0 < *id {
                        *newest = (id, client);
                    }
                }
            }
            true
        });
        let mut acks = Acks {
            interested: interested.len(),
            ..Acks::default()
        };
        for (_, client) in interested.into_values() {
            match client.session.standing(key, &state.store) {
                Standing::Pending => {}
                Standing::Acked => acks.acked += 1,
                Standing::Rejected(message) => {
                    acks.rejected += 1;
                    acks.rejection = Some((client.node_id.clone(), message.to_string()));
                }
            }
        }
        acks
    }

    /// Grows with each acknowledgement, refusal, subscription, connection and disconnection.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Responses sent and refusals received since the start, for metrics.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.pushes, state.rejections)
    }

    /// Ends all streams, and refuses new ones: the control plane is going down.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// What a stream's task does; all under the lock, none waits.
impl Distributor {
    fn register(&self, client: Client) -> StreamId {
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.streams.insert(id, client);
        drop(state);
        self.bump();
        id
    }

    fn unregister(&self, id: StreamId) {
        let mut state = self.lock();
        if let Some(client) = state.streams.remove(&id) {
            for (kind, name) in client.session.subscriptions() {
                state.forget_interest(kind, name, id);
            }
        }
        drop(state);
        self.bump();
    }

    fn request(&self, id: StreamId, request: &DeltaDiscoveryRequest) -> Result<(), RequestError> {
        let mut state = self.lock();
        let State { store, streams, .. } = &mut *state;
        let Some(client) = streams.get_mut(&id) else {
            return Ok(());
        };
        client.check_listeners(request)?;
        let requested = client.session.request(request, store, SystemTime::now())?;
        state.rejections += u64::from(request.error_detail.is_some());
        for (kind, name) in requested.subscribed {
            state.interest[kind].entry(name).or_default().insert(id);
        }
        for (kind, name) in requested.unsubscribed {
            state.forget_interest(kind, &name, id);
        }
        drop(state);
        self.bump();
        Ok(())
    }

    fn response(&self, id: StreamId) -> Option<DeltaDiscoveryResponse> {
        let mut state = self.lock();
        let State { store, streams, .. } = &mut *state;
        let response = streams.get_mut(&id)?.session.poll(store);
        state.pushes += u64::from(response.is_some());
        response
    }
}

impl State {
    fn forget_interest(&mut self, kind: Kind, name: &str, id: StreamId) {
        let interest = &mut self.interest[kind];
        if let Some(ids) = interest.get_mut(name) {
            ids.remove(&id);
            if ids.is_empty() {
                interest.remove(name);
            }
        }
    }
}

impl Client {
    fn new(node_id: String, identity: Option<SpiffeId>, address: Option<String>) -> Self {
        Self {
            session: Session::new(Limits::default()),
            wake: Arc::default(),
            node_id,
            identity,
            address,
            connected_since: SystemTime::now(),
        }
    }

    /// Listeners come with private keys: a client gets those of the Gateway that it is, or of the
    /// class, as [`Authorize`] has found, and no others.
    fn check_listeners(&self, request: &DeltaDiscoveryRequest) -> Result<(), RequestError> {
        if codec::kind_of(&request.type_url) != Some(Kind::Listener) {
            return Ok(());
        }
        let forbidden = Err(RequestError::Forbidden(Kind::Listener));
        if let Some(class) = self.node_id.strip_prefix("gateway-class/") {
            // Of what it holds from before, it is sent what that covers.
            let alias = class_alias(class);
            let own = [alias].as_slice() == request.resource_names_subscribe.as_slice();
            let later = self.session.counts(Kind::Listener).is_some()
                && request.resource_names_subscribe.is_empty();
            return if own || later { Ok(()) } else { forbidden };
        }
        let gateway = self.node_id.strip_prefix("gateway/");
        let Some(gateway) = gateway.and_then(|name| name.parse().ok()) else {
            return forbidden;
        };
        let collection = collection_of_gateway(&gateway);
        let own = |name: &String| name.starts_with(collection.trim_end_matches('*'));
        let mut names = request
            .resource_names_subscribe
            .iter()
            .chain(request.initial_resource_versions.keys());
        // A first request without names would mean all there are.
        let implied_all = self.session.counts(Kind::Listener).is_none()
            && request.resource_names_subscribe.is_empty();
        if implied_all || !names.all(own) {
            return forbidden;
        }
        Ok(())
    }

    fn status(&self) -> ClientStatus {
        let kinds = Kind::ALL.into_iter().filter_map(|kind| {
            let (subscribed, sent, acked) = self.session.counts(kind)?;
            Some(KindStatus {
                kind,
                subscribed,
                sent,
                acked,
            })
        });
        let rejected = self.session.rejections().into_iter();
        ClientStatus {
            node_id: self.node_id.clone(),
            identity: self.identity.clone(),
            address: self.address.clone(),
            connected_since: self.connected_since,
            kinds: kinds.collect(),
            rejected: rejected
                .map(|(kind, name, version, message, when)| Rejection {
                    key: Key::new(kind, name),
                    version,
                    message: message.to_string(),
                    when,
                })
                .collect(),
        }
    }
}

impl fmt::Debug for Distributor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distributor")
            .field("streams", &self.lock().streams.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(node: &str, names: &[&str], held: &[&str]) -> Result<(), RequestError> {
        let client = Client::new(node.to_owned(), None, None);
        client.check_listeners(&DeltaDiscoveryRequest {
            type_url: codec::type_url(Kind::Listener).to_owned(),
            resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            initial_resource_versions: held
                .iter()
                .map(|n| ((*n).to_owned(), String::new()))
                .collect(),
            ..DeltaDiscoveryRequest::default()
        })
    }

    #[test]
    fn listeners_are_for_the_gateway_that_they_belong_to() {
        let own = "shop/gateway:web/*";
        assert!(asks("gateway/shop/web", &[own], &["shop/gateway:web/https"]).is_ok());
        // Of what a class's proxy holds from before, it is sent what its subscription covers.
        let class = "gatewayclass:shared";
        assert!(
            asks(
                "gateway-class/shared",
                &[class],
                &["shop/gateway:web/https"]
            )
            .is_ok()
        );
        for (node, names, held) in [
            ("gateway-class/shared", &["*"][..], &[][..]),
            ("gateway-class/shared", &[], &[]),
            ("gateway-class/shared", &[own], &[]),
            ("gateway-class/shared", &[class, own], &[]),
            ("gateway-class/other", &[class], &[]),
            ("gateway/shop/web", &[class], &[]),
            ("gateway/shop/web", &["*"][..], &[][..]),
            ("gateway/shop/web", &[], &[]),
            ("gateway/shop/web", &[own, "shop/gateway:web2/*"], &[]),
            ("gateway/shop/web", &[own], &["shop/gateway:other/https"]),
            ("gateway/shop/we", &[own], &[]),
            ("workload/shop/web", &[own], &[]),
            ("gateway/", &[own], &[]),
        ] {
            assert!(
                asks(node, names, held).is_err(),
                "{node} {names:?} {held:?}"
            );
        }
    }
}
