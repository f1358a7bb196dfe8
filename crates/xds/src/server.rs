//! The control plane's side: who wants what, what was sent, what became of it.

use std::sync::Arc;
use std::time::SystemTime;

use model::SpiffeId;
use model::resource::{Key, Kind, Resource};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use crate::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};

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
    changes: watch::Sender<u64>,
    authorize: Authorize,
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
    /// What it refused and holds no newer version of.
    pub rejected: Vec<Rejection>,
}

/// What a client has of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindStatus {
    /// The kind.
    pub kind: Kind,
    /// Names, aliases and collections subscribed to.
    pub subscribed: usize,
    /// Resources sent.
    pub sent: usize,
    /// Of these, acknowledged in their current version.
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
        let (changes, _) = watch::channel(0);
        Arc::new(Self { changes, authorize })
    }

    /// Changes resources (`None`: removes them); what did not change costs nothing further.
    pub fn apply(&self, changes: Vec<(Key, Option<Resource>)>) {
        let _ = changes;
    }

    /// The gRPC service.
    pub fn service(self: &Arc<Self>) -> AggregatedDiscoveryServiceServer<Discovery> {
        AggregatedDiscoveryServiceServer::new(Discovery(Arc::clone(self)))
    }

    /// All connected clients.
    pub fn clients(&self) -> Vec<ClientStatus> {
        Vec::new()
    }

    /// What became of a resource.
    pub fn acknowledged(&self, key: &Key) -> Acks {
        let _ = key;
        Acks::default()
    }

    /// Grows with each acknowledgement, refusal, connection and disconnection.
    pub fn changes(&self) -> watch::Receiver<u64> {
        let _ = &self.authorize;
        self.changes.subscribe()
    }
}

/// The gRPC service of a [`Distributor`].
#[derive(Clone)]
pub struct Discovery(Arc<Distributor>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream =
        tokio_stream::Empty<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream =
        tokio_stream::wrappers::ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "state-of-the-world xDS is not served; use DeltaAggregatedResources (incremental xDS, in Envoy `api_type: DELTA_GRPC`)",
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let _ = &self.0;
        Err(Status::unavailable("not yet"))
    }
}
