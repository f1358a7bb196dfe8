//! The proxy's side: what it wants, what it has, and a stream to the control plane.
//!
//! [`start`] runs a task that holds one stream, dials again when it breaks (waiting longer each
//! time, with jitter), and says on each new stream what it still holds. Changes come as
//! [`Batch`]es through a bounded queue, one at a time: the next is read when the last is answered,
//! so a slow proxy slows its control plane down and nothing piles up.
//!
//! The last good resources are kept in a file. At the next start they are the first batch, before
//! any connection, so that a proxy starts and serves while the control plane is away.

mod cache;
mod driver;
mod link;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use model::resource::{Key, Kind, Resource};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::delta::client::{Session, Subscribed};

pub use crate::proto::v1::certificate_authority_client::CertificateAuthorityClient;
pub use crate::proto::v1::registry_client::RegistryClient;
pub use link::channel;

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
    /// File in which the last good resources are kept; its directory must exist.
    pub cache: Option<PathBuf>,
}

/// Steers a running client; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) session: Mutex<Session>,
    pub(crate) wake: Notify,
    pub(crate) connected: watch::Sender<bool>,
}

/// Changes to apply together, one kind at a time except for those from the cache. It must be
/// answered, and nothing further comes before it is; dropped, it counts as refused.
#[derive(Debug)]
pub struct Batch {
    /// New and changed resources, in the order of [`Kind`].
    pub upserts: Vec<(Key, Arc<Resource>)>,
    /// What is gone, is no longer subscribed to, or does not exist. A name is a resource's, or,
    /// where there is nothing to a subscription, the subscription's: an alias (`ip/10.0.0.1`) that
    /// nothing has, a collection (`bookshop/reviews/*`) that is empty. So each subscription gets an
    /// answer, by an upsert that it covers or by its own name here.
    pub removed: Vec<Key>,
    /// Takes the answer.
    pub reply: Reply,
}

/// Takes the answer to a [`Batch`].
#[derive(Debug)]
pub struct Reply(pub(crate) oneshot::Sender<Result<(), String>>);

impl Reply {
    /// The changes are in force.
    pub fn accept(self) {
        // The client's task may have ended meanwhile.
        let _ = self.0.send(Ok(()));
    }

    /// The changes could not be applied, none of them; the control plane is told why.
    pub fn reject(self, why: impl Into<String>) {
        let _ = self.0.send(Err(why.into()));
    }
}

impl Batch {
    /// The changes are in force.
    pub fn accept(self) {
        self.reply.accept();
    }

    /// The changes could not be applied, none of them; the control plane is told why.
    pub fn reject(self, why: impl Into<String>) {
        self.reply.reject(why);
    }
}

impl Handle {
    /// Asks for a resource by name or alias, or for a collection (`namespace/name/*`). What is
    /// subscribed to already is not asked for again. `false`: there will be no answer, because
    /// too much is subscribed to already (40,000) or the name cannot be one.
    pub fn subscribe(&self, kind: Kind, name: &str) -> bool {
        let subscribed = self.shared.session().subscribe(kind, name);
        if subscribed == Subscribed::New {
            self.shared.wake.notify_one();
        }
        subscribed != Subscribed::Refused
    }

    /// Ends interest. What only this subscription covered comes as removed in a later batch.
    pub fn unsubscribe(&self, kind: Kind, name: &str) {
        if self.shared.session().unsubscribe(kind, name) {
            self.shared.wake.notify_one();
        }
    }

    /// All that is subscribed to, including what was restored from the cache.
    pub fn subscriptions(&self) -> Vec<Key> {
        let session = self.shared.session();
        let wanted = session.wanted();
        wanted
            .map(|(kind, name)| Key::new(kind, Arc::clone(name)))
            .collect()
    }

    /// Whether there is a stream to the control plane.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("connected", &*self.shared.connected.borrow())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a client on the current tokio runtime, after reading its cache; it ends when the receiver
/// is dropped.
pub fn start(options: Options) -> (Handle, mpsc::Receiver<Batch>) {
    let mut session = Session::new(options.node_id.as_str());
    if let Some(path) = &options.cache {
        cache::load(path, &options.node_id, &mut session);
    }
    let shared = Arc::new(Shared {
        session: Mutex::new(session),
        wake: Notify::new(),
        connected: watch::Sender::new(false),
    });
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(driver::Driver::new(Arc::clone(&shared), options, sender).run());
    (Handle { shared }, receiver)
}
