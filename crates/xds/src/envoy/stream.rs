//! One stream of an Envoy, in either mode.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::world::{self, Verdict};
use super::{Envoys, Kind, replace};
use crate::delta::server::{self as delta, RequestError};
use crate::delta::store::Store;
use crate::proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use crate::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::proto::envoy::config::core::v3 as core;

/// The longest `node.id`, in bytes.
const NODE_ID_BYTES: usize = 512;

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

    /// Takes a request. Answers with the kind's URL and the reason, if it refuses something.
    fn take(
        &mut self,
        request: &Self::Request,
        store: &Store<Kind>,
    ) -> Result<Option<(String, String)>, RequestError>;

    fn changed(&mut self, kind: Kind, name: &Arc<str>);

    fn poll(&mut self, store: &Store<Kind>) -> Option<Self::Response>;
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
    ) -> Result<Option<(String, String)>, RequestError> {
        Ok(match self.request(request)? {
            Verdict::Refused(why) => Some((request.type_url.clone(), why)),
            Verdict::None | Verdict::Acked => None,
        })
    }

    /// The next response is compared with the last as a whole.
    fn changed(&mut self, _: Kind, _: &Arc<str>) {}

    fn poll(&mut self, store: &Store<Kind>) -> Option<DiscoveryResponse> {
        Self::poll(self, store)
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
    ) -> Result<Option<(String, String)>, RequestError> {
        let settled = self.request(request, store, SystemTime::now())?.settled;
        let error = request.error_detail.as_ref().filter(|_| settled);
        Ok(error.map(|error| (request.type_url.clone(), error.message.clone())))
    }

    fn changed(&mut self, kind: Kind, name: &Arc<str>) {
        Self::changed(self, kind, name);
    }

    fn poll(&mut self, store: &Store<Kind>) -> Option<DeltaDiscoveryResponse> {
        Self::poll(self, store)
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
    take(envoys, &node, &mut machine, &first, &store)?;
    let mut pending = true;
    loop {
        tokio::select! {
            message = inbound.message() => match message {
                Ok(Some(request)) => {
                    take(envoys, &node, &mut machine, &request, &store)?;
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
                for (kind, name) in replace(&mut store, given) {
                    machine.changed(kind, &name);
                    pending = true;
                }
            }
            permit = outbound.reserve(), if pending => {
                let Ok(permit) = permit else { break };
                match machine.poll(&store) {
                    Some(response) => {
                        envoys.pushes.fetch_add(1, Ordering::Relaxed);
                        permit.send(Ok(response));
                    }
                    None => pending = false,
                }
            }
            () = outbound.closed() => break,
            _ = &mut closed => return Err(going_down()),
        }
    }
    Ok(())
}

fn take<M: Machine>(
    envoys: &Envoys,
    node: &core::Node,
    machine: &mut M,
    request: &M::Request,
    store: &Store<Kind>,
) -> Result<(), Status> {
    let refused = machine.take(request, store).inspect_err(|error| {
        tracing::warn!(node = node.id, %error, "an Envoy's xDS stream ended for a bad request");
    })?;
    if let Some((kind, why)) = refused {
        envoys.rejections.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            node = node.id,
            kind,
            why,
            "an Envoy refused its configuration and keeps what it had; it is sent again when it has changed"
        );
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
