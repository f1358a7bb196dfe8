//! One stream: its requests read, its responses sent, its end tidied up.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::Either;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Client, Distributor, Peer, PeerAddress, PeerIdentity, StreamId};
use crate::delta::server::RequestError;
use crate::proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use crate::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};

/// The longest `node.id`, in bytes.
const NODE_ID_BYTES: usize = 512;

/// The gRPC service of a [`Distributor`].
#[derive(Clone, Debug)]
pub struct Discovery(Arc<Distributor>);

impl Discovery {
    pub(super) fn new(distributor: Arc<Distributor>) -> Self {
        Self(distributor)
    }
}

type Outbound = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = tokio_stream::Empty<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "state-of-the-world xDS is not served; use DeltaAggregatedResources (incremental xDS; in Envoy's bootstrap `api_type: DELTA_GRPC`)",
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let extensions = request.extensions();
        let identity = extensions.get::<PeerIdentity>().map(|peer| peer.0.clone());
        let address = extensions.get::<PeerAddress>().map(|peer| peer.0.clone());
        let address = address.or_else(|| request.remote_addr().map(|addr| addr.to_string()));
        let (outbound, responses) = mpsc::channel(1);
        let distributor = Arc::clone(&self.0);
        let inbound = request.into_inner();
        tokio::spawn(async move {
            let end = serve(&distributor, inbound, &outbound, |node_id| {
                Client::new(node_id, identity, address)
            });
            if let Err(status) = end.await {
                // The client may be gone, which ends the stream as well.
                let _ = outbound.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// A registered stream; forgotten when dropped.
struct Registered<'a> {
    distributor: &'a Distributor,
    id: StreamId,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.distributor.unregister(self.id);
    }
}

async fn serve(
    distributor: &Distributor,
    mut inbound: Streaming<DeltaDiscoveryRequest>,
    outbound: &Outbound,
    client: impl FnOnce(String) -> Client,
) -> Result<(), Status> {
    let mut closed = distributor.closed.subscribe();
    let mut closed = pin!(closed.wait_for(|closed| *closed));
    let first = match futures_util::future::select(pin!(inbound.message()), closed.as_mut()).await {
        Either::Left((message, _)) => message?,
        Either::Right(_) => return Err(going_down()),
    };
    let Some(first) = first else {
        return Ok(());
    };
    let client = admit(distributor, &first, client)?;
    let node_id = client.node_id.clone();
    let wake = Arc::clone(&client.wake);
    let stream = Registered {
        distributor,
        id: distributor.register(client),
    };
    tracing::debug!(node = node_id, "xDS stream opened");
    distributor.request(stream.id, &first)?;
    let mut pending = true;
    loop {
        tokio::select! {
            message = inbound.message() => match message {
                Ok(Some(request)) => {
                    distributor.request(stream.id, &request).inspect_err(|error| {
                        tracing::warn!(node = node_id, %error, "xDS stream ended for a bad request");
                    })?;
                    pending = true;
                }
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(node = node_id, %status, "xDS stream broke");
                    break;
                }
            },
            () = wake.notified() => pending = true,
            permit = outbound.reserve(), if pending => {
                let Ok(permit) = permit else { break };
                match distributor.response(stream.id) {
                    Some(response) => permit.send(Ok(response)),
                    None => pending = false,
                }
            }
            () = outbound.closed() => break,
            _ = &mut closed => return Err(going_down()),
        }
    }
    Ok(())
}

/// Checks who opens the stream.
fn admit(
    distributor: &Distributor,
    first: &DeltaDiscoveryRequest,
    client: impl FnOnce(String) -> Client,
) -> Result<Client, Status> {
    let node_id = first.node.as_ref().map_or("", |node| node.id.as_str());
    if node_id.is_empty() || node_id.len() > NODE_ID_BYTES {
        return Err(Status::invalid_argument(format!(
            "the first request of a stream must have a node.id of 1 to {NODE_ID_BYTES} bytes, such as workload/bookshop/reviews-v1-0"
        )));
    }
    let client = client(node_id.to_owned());
    let peer = Peer {
        identity: client.identity.as_ref(),
        node_id,
    };
    match (distributor.authorize)(&peer) {
        Ok(()) => Ok(client),
        Err(why) => {
            tracing::warn!(
                node = node_id,
                identity = client.identity.as_ref().map(tracing::field::display),
                why,
                "xDS stream refused"
            );
            Err(Status::permission_denied(why))
        }
    }
}

fn going_down() -> Status {
    Status::unavailable("the control plane is going down; try another, or again")
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::UnknownType(..) | RequestError::Name(..) => {
                Self::invalid_argument(error.to_string())
            }
            RequestError::TooMany(..) => Self::resource_exhausted(error.to_string()),
            RequestError::Forbidden(_) => Self::permission_denied(error.to_string()),
        }
    }
}
