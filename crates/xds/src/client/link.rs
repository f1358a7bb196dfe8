//! One connection and the stream on it.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};

use super::{BoxedIo, Dial};
use crate::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// For dialling, TLS and HTTP/2 settings together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A control plane that answers no ping for the sum of these is taken for dead.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest response that is read. A server ends a response when it has 2 MiB, and a resource
/// has 1 MiB at most.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot connect to the control plane within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error("cannot connect to the control plane: {0}")]
    Connect(String),
    #[error("the control plane ended the stream: {}", describe(.0))]
    Status(Status),
    #[error("the control plane ended the stream")]
    Ended,
}

fn describe(status: &Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

/// Opens a connection and, on it, a stream that takes its requests from a queue.
pub(super) async fn open(
    dial: Dial,
    requests: mpsc::Receiver<DeltaDiscoveryRequest>,
) -> Result<Box<Streaming<DeltaDiscoveryResponse>>, LinkError> {
    let endpoint = endpoint();
    let connecting = endpoint.connect_with_connector(tower::service_fn(connector(dial)));
    let channel = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| LinkError::Timeout)?
        .map_err(|error| LinkError::Connect(root_cause(&error)))?;
    let mut client = AggregatedDiscoveryServiceClient::new(channel)
        .max_decoding_message_size(MAX_RESPONSE_BYTES);
    let response = client
        .delta_aggregated_resources(ReceiverStream::new(requests))
        .await
        .map_err(LinkError::Status)?;
    Ok(Box::new(response.into_inner()))
}

/// A gRPC channel that connects when it is first used, and again after it was cut off.
pub fn channel(dial: Dial) -> Channel {
    endpoint().connect_with_connector_lazy(tower::service_fn(connector(dial)))
}

/// The host is of no importance: who answers is settled by what `dial` connects to.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://control.tulle")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
}

fn connector(
    dial: Dial,
) -> impl FnMut(Uri) -> futures_util::future::BoxFuture<'static, io::Result<TokioIo<BoxedIo>>>
+ Clone
+ Send
+ 'static {
    move |_| {
        let connecting = dial();
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    }
}

fn root_cause(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
