//! One stream of an Envoy, in either mode.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::world::{self, Verdict};
use super::{Envoys, Kind, replace};
use crate::delta::Kind as _;
use crate::delta::server::{self as delta, RequestError};
use crate::delta::store::Store;
use crate::proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use crate::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::proto::envoy::config::core::v3 as core;

/// The longest `node.id`, in bytes.
const NODE_ID_BYTES: usize = 512;

/// What must be there before anything refers to it.
const FIRST: [Kind; 2] = [Kind::Cluster, Kind::Endpoints];

/// The gRPC service of [`Envoys`].
#[derive(Clone, Debug)]
pub struct Discovery(Arc<Envoys>);

impl Discovery {
    pub(super) fn new(envoys: Arc<Envoys>) -> Self {
        Self(envoys)
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open(request.into_inner(), world::Session::default())
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let session = delta::Session::<Kind>::new(delta::Limits::default());
        self.open(request.into_inner(), session)
    }
}

/// A mode's state machine.
trait Machine: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// Who asks, where a request says it; the first must.
    fn node(request: &Self::Request) -> Option<&core::Node>;

    /// Takes a request.
    fn take(
        &mut self,
        request: &Self::Request,
        store: &Store<Kind>,
    ) -> Result<Verdict, RequestError>;

    /// What kind a request is about.
    fn url(request: &Self::Request) -> &str;

    fn changed(&mut self, kind: Kind, name: &Arc<str>);

    fn is_waiting(&self, kind: Kind) -> bool;

    fn has(&self, kind: Kind, name: &str) -> bool;

    fn poll(&mut self, kinds: &[Kind], store: &Store<Kind>) -> Option<Self::Response>;
}

impl Machine for world::Session {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn node(request: &DiscoveryRequest) -> Option<&core::Node> {
        request.node.as_ref()
    }

    fn take(
        &mut self,
        request: &DiscoveryRequest,
        _: &Store<Kind>,
    ) -> Result<Verdict, RequestError> {
        self.request(request)
    }

    fn url(request: &DiscoveryRequest) -> &str {
        &request.type_url
    }

    /// The next response is compared with the last as a whole.
    fn changed(&mut self, _: Kind, _: &Arc<str>) {}

    fn is_waiting(&self, kind: Kind) -> bool {
        Self::is_waiting(self, kind)
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        Self::has(self, kind, name)
    }

    fn poll(&mut self, kinds: &[Kind], store: &Store<Kind>) -> Option<DiscoveryResponse> {
        Self::poll(self, kinds, store)
    }
}

impl Machine for delta::Session<Kind> {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn node(request: &DeltaDiscoveryRequest) -> Option<&core::Node> {
        request.node.as_ref()
    }

    fn take(
        &mut self,
        request: &DeltaDiscoveryRequest,
        store: &Store<Kind>,
    ) -> Result<Verdict, RequestError> {
        let settled = self.request(request, store, SystemTime::now())?.settled;
        Ok(match &request.error_detail {
            _ if !settled => Verdict::None,
            None => Verdict::Acked,
            Some(error) => Verdict::Refused(error.message.clone()),
        })
    }

    fn url(request: &DeltaDiscoveryRequest) -> &str {
        &request.type_url
    }

    fn changed(&mut self, kind: Kind, name: &Arc<str>) {
        Self::changed(self, kind, name);
    }

    fn is_waiting(&self, kind: Kind) -> bool {
        Self::is_waiting(self, kind)
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        Self::has(self, kind, name)
    }

    fn poll(&mut self, kinds: &[Kind], store: &Store<Kind>) -> Option<DeltaDiscoveryResponse> {
        self.poll_of(kinds, store)
    }
}

impl Discovery {
    fn open<M: Machine>(
        &self,
        inbound: Streaming<M::Request>,
        machine: M,
    ) -> Result<Response<ReceiverStream<Result<M::Response, Status>>>, Status> {
        let slot = Arc::clone(&self.0.slots).try_acquire_owned();
        let slot = slot.map_err(|_| {
            Status::resource_exhausted(format!(
                "{} Envoys are connected, as many as one control plane serves",
                super::STREAMS
            ))
        })?;
        let (outbound, responses) = mpsc::channel(1);
        let envoys = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Err(status) = serve(&envoys, inbound, &outbound, machine, slot).await {
                // The client may be gone, which ends the stream as well.
                let _ = outbound.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

async fn serve<M: Machine>(
    envoys: &Envoys,
    mut inbound: Streaming<M::Request>,
    outbound: &mpsc::Sender<Result<M::Response, Status>>,
    mut machine: M,
    _slot: OwnedSemaphorePermit,
) -> Result<(), Status> {
    let mut closed = envoys.closed.subscribe();
    let mut closed = pin!(closed.wait_for(|closed| *closed));
    let first = tokio::select! {
        message = inbound.message() => message?,
        _ = &mut closed => return Err(going_down()),
    };
    let Some(first) = first else {
        return Ok(());
    };
    let node = admit(M::node(&first))?;
    let mut changes: watch::Receiver<u64> = envoys.source.changes();
    changes.borrow_and_update();
    let mut store = Store::default();
    let given = envoys.source.give(&node);
    replace(&mut store, given.map_err(Status::invalid_argument)?);
    tracing::info!(node = node.id, "an Envoy has connected");
    let mut refused = BTreeSet::new();
    take(envoys, &node, &mut machine, &first, &store, &mut refused)?;
    let mut later = Vec::new();
    let mut pending = true;
    loop {
        tokio::select! {
            message = inbound.message() => match message {
                Ok(Some(request)) => {
                    take(envoys, &node, &mut machine, &request, &store, &mut refused)?;
                    pending = true;
                }
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(node = node.id, %status, "xDS stream broke");
                    break;
                }
            },
            Ok(()) = changes.changed() => {
                let given = envoys.source.give(&node).map_err(Status::invalid_argument)?;
                let change = replace(&mut store, given);
                for (kind, name) in change.now {
                    machine.changed(kind, &name);
                }
                later = change.later;
                pending = true;
            }
            permit = outbound.reserve(), if pending => {
                let Ok(permit) = permit else { break };
                let rest = refused.contains(&Kind::Cluster) || has_clusters(&machine, &store);
                let kinds: &[Kind] = if rest { Kind::ALL } else { &FIRST };
                if let Some(response) = machine.poll(kinds, &store) {
                    envoys.pushes.fetch_add(1, Ordering::Relaxed);
                    permit.send(Ok(response));
                    continue;
                }
                // What the client still routes by may need them, be it on the way or what it kept
                // in place of what it refused.
                let users = [Kind::Listener, Kind::Routes];
                let done = |kind: Kind| !machine.is_waiting(kind) && !refused.contains(&kind);
                pending = rest && !later.is_empty() && users.into_iter().all(done);
                if pending {
                    for (kind, name) in std::mem::take(&mut later) {
                        store.put(kind, &name, None);
                        machine.changed(kind, &name);
                    }
                }
            }
            () = outbound.closed() => break,
            _ = &mut closed => return Err(going_down()),
        }
    }
    Ok(())
}

/// Whether the client has all that its clusters consist of, so that it may be told to use them.
fn has_clusters(machine: &impl Machine, store: &Store<Kind>) -> bool {
    let mut of_clusters = store
        .names(Kind::Endpoints)
        .filter(|name| machine.has(Kind::Cluster, name));
    !FIRST.into_iter().any(|kind| machine.is_waiting(kind))
        && of_clusters.all(|name| machine.has(Kind::Endpoints, name))
}

fn take<M: Machine>(
    envoys: &Envoys,
    node: &core::Node,
    machine: &mut M,
    request: &M::Request,
    store: &Store<Kind>,
    refused: &mut BTreeSet<Kind>,
) -> Result<(), Status> {
    let verdict = machine.take(request, store).inspect_err(|error| {
        tracing::warn!(node = node.id, %error, "an Envoy's xDS stream ended for a bad request");
    })?;
    let url = M::url(request);
    let kind = Kind::of_url(url);
    match verdict {
        Verdict::None => {}
        Verdict::Acked => refused.retain(|one| Some(*one) != kind),
        Verdict::Refused(why) => {
            refused.extend(kind);
            envoys.rejections.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                node = node.id,
                kind = url,
                why,
                "an Envoy refused its configuration and keeps what it had; it is sent again when it has changed"
            );
        }
    }
    Ok(())
}

/// Who opens the stream. What else a node says of itself is not kept.
fn admit(node: Option<&core::Node>) -> Result<core::Node, Status> {
    let known = node.filter(|node| (1..=NODE_ID_BYTES).contains(&node.id.len()));
    let Some(node) = known else {
        return Err(Status::invalid_argument(format!(
            "the first request of a stream must have a node.id of 1 to {NODE_ID_BYTES} bytes: gateway/<namespace>/<Gateway name>"
        )));
    };
    Ok(core::Node {
        id: node.id.clone(),
        locality: node.locality.clone(),
        ..core::Node::default()
    })
}

fn going_down() -> Status {
    Status::unavailable("the control plane is going down; try another, or again")
}
