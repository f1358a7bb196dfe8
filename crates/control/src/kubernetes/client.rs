//! The way to the API server: `KUBECONFIG` (or `~/.kube/config`), otherwise the service account
//! that Kubernetes gives a pod.

use std::time::Duration;

use kube::config::InferConfigError;
use kube::{Client, Config};

/// Where the control plane lives unless it is told.
const NAMESPACE: &str = "tulle-system";

/// A connection is waited for as long.
const CONNECT: Duration = Duration::from_secs(5);

/// An API server.
#[derive(Clone)]
pub struct Cluster {
    /// How it is asked.
    pub client: Client,
    /// Where it is, for messages.
    pub url: String,
    /// The namespace of the control plane's own objects, its Lease among them.
    pub namespace: String,
}

/// No API server to be found.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody says where it is.
    #[error(
        "--store kubernetes: no API server to be found: {0}; set KUBECONFIG to a kubeconfig file, or run in a pod with a service account"
    )]
    NotFound(Box<InferConfigError>),
    /// What says where it is makes no sense.
    #[error(
        "--store kubernetes: the API server {url} cannot be used: {source}; check the kubeconfig (`kubectl cluster-info` reads the same)"
    )]
    Unusable {
        /// Where it would be.
        url: String,
        /// What is wrong.
        source: Box<kube::Error>,
    },
}

/// Finds the API server; does not talk to it yet, so that it may be away.
///
/// The namespace is `TULLE_NAMESPACE`, then that of the pod, then `tulle-system`.
pub async fn connect() -> Result<Cluster, ConnectError> {
    let mut config = Config::infer()
        .await
        .map_err(|error| ConnectError::NotFound(Box::new(error)))?;
    config.connect_timeout = Some(CONNECT);
    // Whoever asks tries again at a pace of its own: kube's would keep a watch from saying that it
    // fails, and be silent for minutes at the end.
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let namespace = std::env::var("TULLE_NAMESPACE")
        .ok()
        .filter(|namespace| !namespace.is_empty())
        .or_else(|| in_pod.then(|| config.default_namespace.clone()))
        .unwrap_or_else(|| NAMESPACE.to_owned());
    let client = Client::try_from(config).map_err(|source| ConnectError::Unusable {
        url: url.clone(),
        source: Box::new(source),
    })?;
    Ok(Cluster {
        client,
        url,
        namespace,
    })
}
