//! Envoy's own resources for Envoys: listeners, routes, clusters and endpoints over ADS, as changes
//! (`DELTA_GRPC`) or as the state of the world (`GRPC`).
//!
//! Each stream has a [`Store`] with what its node is given, made anew when something changed; what is
//! as it was has its version and is not sent. What is in the resources is the [`Source`]'s affair. What
//! a client refuses is not sent again until it changes: it would be refused again.
//!
//! A change must not drop requests, so its parts go out in order (xds_protocol, "Eventual consistency
//! considerations"): clusters, their endpoints, and when the client has these, listeners and routes.
//! Clusters that are gone are taken away when the client has routes that do without them.

mod stream;
pub mod world;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, watch};

use crate::delta;
use crate::delta::store::{Entry, Store};
use crate::proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use crate::proto::envoy::config::core::v3 as core;

pub use stream::Discovery;

/// Streams at once. Each holds all that its node is given.
const STREAMS: usize = 256;

/// The largest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// The kinds, in the order in which Envoy needs them: what is referred to before what refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
}

impl Kind {
    /// Whether a client that names none of them means all.
    fn has_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

impl delta::Kind for Kind {
    const ALL: &'static [Self] = &[Self::Cluster, Self::Endpoints, Self::Listener, Self::Routes];

    fn place(self) -> usize {
        self as usize
    }

    fn url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }
}

/// Encoded resources: kind, name, message.
pub type Given = Vec<(Kind, Arc<str>, Vec<u8>)>;

/// Who says what a node is given.
pub trait Source: Send + Sync + 'static {
    /// All that the node is given now, or why it is given nothing at all.
    fn give(&self, node: &core::Node) -> Result<Given, String>;

    /// Grows when what nodes are given may have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// What all streams share.
pub struct Envoys {
    source: Box<dyn Source>,
    slots: Arc<Semaphore>,
    closed: watch::Sender<bool>,
    pushes: AtomicU64,
    rejections: AtomicU64,
}

impl Envoys {
    /// Serves what the source gives.
    pub fn new(source: impl Source) -> Arc<Self> {
        Arc::new(Self {
            source: Box::new(source),
            slots: Arc::new(Semaphore::new(STREAMS)),
            closed: watch::Sender::new(false),
            pushes: AtomicU64::new(0),
            rejections: AtomicU64::new(0),
        })
    }

    /// The gRPC service.
    pub fn service(self: &Arc<Self>) -> AggregatedDiscoveryServiceServer<Discovery> {
        AggregatedDiscoveryServiceServer::new(Discovery::new(Arc::clone(self)))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Streams, responses sent and refusals received since the start, for metrics.
    pub fn counts(&self) -> (usize, u64, u64) {
        (
            STREAMS - self.slots.available_permits(),
            self.pushes.load(Ordering::Relaxed),
            self.rejections.load(Ordering::Relaxed),
        )
    }

    /// Ends all streams, and refuses new ones: the control plane is going down.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }
}

impl fmt::Debug for Envoys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envoys")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// What a change leaves to be done.
#[derive(Debug, Default)]
struct Change {
    /// What is other than before.
    now: Vec<(Kind, Arc<str>)>,
    /// Clusters and endpoints to be taken out, which routes may refer to that the client still has.
    later: Vec<(Kind, Arc<str>)>,
}

/// Makes the store hold what is given, and nothing else but what is to go later.
fn replace(store: &mut Store<Kind>, given: Given) -> Change {
    let mut change = Change::default();
    let mut gone: BTreeSet<_> = <Kind as delta::Kind>::ALL
        .iter()
        .flat_map(|kind| store.names(*kind).map(|name| (*kind, Arc::clone(name))))
        .collect();
    for (kind, name, bytes) in given {
        let entry = Some(Entry::encoded(bytes));
        if store.put(kind, &name, entry).is_some() {
            change.now.push((kind, Arc::clone(&name)));
        }
        gone.remove(&(kind, name));
    }
    for (kind, name) in gone {
        if matches!(kind, Kind::Cluster | Kind::Endpoints) {
            change.later.push((kind, name));
        } else {
            store.put(kind, &name, None);
            change.now.push((kind, name));
        }
    }
    change
}
