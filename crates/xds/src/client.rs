//! The proxy's side: holds a stream to the control plane, and what it last said.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use model::resource::{Key, Kind, Resource};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::transport::Channel;

pub use crate::proto::v1::certificate_authority_client::CertificateAuthorityClient;
pub use crate::proto::v1::registry_client::RegistryClient;

/// A connection, whatever it is made of.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection, boxed.
pub type BoxedIo = Box<dyn Io>;

/// Makes a new connection to the control plane, TLS included where there is any.
pub type Dial = Arc<dyn Fn() -> BoxFuture<'static, io::Result<BoxedIo>> + Send + Sync>;

/// How to reach the control plane, and as whom.
#[derive(Clone)]
pub struct Options {
    /// Makes connections.
    pub dial: Dial,
    /// `workload/<namespace>/<name>`.
    pub node_id: String,
    /// Where the last good resources are kept.
    pub cache: Option<PathBuf>,
}

/// Steers a running client.
#[derive(Debug, Clone)]
pub struct Handle {
    connected: watch::Receiver<bool>,
}

/// Changes to apply together. Must be answered: dropped unanswered, it counts as rejected.
#[derive(Debug)]
pub struct Batch {
    /// New and changed resources, in the order of [`Kind`].
    pub upserts: Vec<(Key, Arc<Resource>)>,
    /// What is gone or does not exist. A name is that of a resource, or, where what was subscribed
    /// to does not exist, as it was subscribed to: an alias (`ip/10.0.0.1`) that nothing has, a
    /// collection (`bookshop/reviews/*`) that is empty.
    pub removed: Vec<Key>,
    /// Takes the answer.
    pub reply: Reply,
}

/// Takes the answer to a [`Batch`].
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Result<(), String>>);

impl Reply {
    /// The changes are in force.
    pub fn accept(self) {
        let _ = self.0.send(Ok(()));
    }

    /// The changes could not be applied, and the control plane is told why.
    pub fn reject(self, why: impl Into<String>) {
        let _ = self.0.send(Err(why.into()));
    }
}

impl Batch {
    /// The changes are in force.
    pub fn accept(self) {
        self.reply.accept();
    }

    /// The changes could not be applied, and the control plane is told why.
    pub fn reject(self, why: impl Into<String>) {
        self.reply.reject(why);
    }
}

impl Handle {
    /// Asks for a resource by name or alias, or for a collection (`namespace/name/*`).
    pub fn subscribe(&self, kind: Kind, name: &str) {
        let _ = (kind, name);
    }

    /// Ends interest. What only this subscription held comes as removed in a later batch.
    pub fn unsubscribe(&self, kind: Kind, name: &str) {
        let _ = (kind, name);
    }

    /// All that is subscribed to, those restored from the cache included.
    pub fn subscriptions(&self) -> Vec<Key> {
        Vec::new()
    }

    /// Whether there is a stream to the control plane.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

/// Starts a client on the current tokio runtime; it ends when the receiver is dropped.
pub fn start(options: Options) -> (Handle, mpsc::Receiver<Batch>) {
    let _ = options;
    let (_, connected) = watch::channel(false);
    let (_, batches) = mpsc::channel(4);
    (Handle { connected }, batches)
}

/// A gRPC channel that connects when it is first used, and again when it was cut off.
pub fn channel(dial: Dial) -> Channel {
    let _ = dial;
    tonic::transport::Endpoint::from_static("http://control.tulle").connect_lazy()
}
