//! gRPC's two ends: a channel that honours proxies, a server that says who answered.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::instance;
use crate::proxy::{Proxies, connect, tunnel};

/// A channel to `host:port`, connected when first used.
pub(crate) fn channel(address: &str, proxies: &Proxies) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .with_context(|| format!("{address}: not an address"))?
        .timeout(Duration::from_secs(10));
    let host = endpoint.uri().host().unwrap_or_default();
    let proxy = proxies.for_grpc(host).map(str::to_owned);
    let target = address.to_owned();
    let connector = tower::service_fn(move |_| {
        let (proxy, target) = (proxy.clone(), target.clone());
        async move {
            let stream = match &proxy {
                Some(proxy) => tunnel(proxy, &target).await,
                None => connect(&target).await,
            };
            stream
                .map(TokioIo::new)
                .map_err(|e| std::io::Error::other(format!("{e:#}")))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// Makes a call that may be made twice; once more if the server could not be reached.
pub(crate) async fn again<T, F>(mut call: impl FnMut() -> F) -> Result<Response<T>, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    match call().await {
        Err(status) if status.code() == Code::Unavailable => call().await,
        result => result,
    }
}

/// Adds who answered.
pub(crate) fn signed<T>(workload: &str, message: T) -> Response<T> {
    let mut response = Response::new(message);
    if let Ok(name) = MetadataValue::try_from(instance::name(workload)) {
        response.metadata_mut().insert(instance::HEADER, name);
    }
    response
}
