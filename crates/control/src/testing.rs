//! What tests of several modules need: a control plane in memory, over a real store.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use config::translate::Defaults;
use identity::ca::Authority as Signer;
use model::TrustDomain;
use tempfile::TempDir;
use xds::server::Distributor;

use crate::authority::Authority;
use crate::change::{Change, ChangeSet, Origin};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::state::State;
use crate::store::Store;

/// Everything but sockets.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) state: State,
    pub(crate) authority: Arc<Authority>,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::over(tempfile::tempdir().expect("tempdir")).await
    }

    /// Over a directory that an earlier world used.
    pub(crate) async fn over(dir: TempDir) -> Self {
        let state = state(dir.path()).await;
        let metrics = Metrics::default();
        let signer = Signer::load_or_create(
            &dir.path().join("ca"),
            &TrustDomain::default(),
            SystemTime::now(),
        );
        let signer = Arc::new(signer.expect("authority"));
        let authority = Authority::new(signer, state.store().clone(), metrics.clone());
        let control = "127.0.0.1:15012".parse().expect("an address");
        let registry = Registry::load(
            state.clone(),
            Arc::clone(&authority),
            metrics.clone(),
            control,
        );
        let registry = registry.await.expect("registry");
        Self {
            dir,
            state,
            authority,
            registry,
            metrics,
        }
    }

    /// Ends this control plane as a crash would, and starts another over the same directory.
    pub(crate) async fn restart(self) -> Self {
        let Self {
            dir,
            state,
            authority,
            registry,
            ..
        } = self;
        let store = state.store().clone();
        drop((state, authority, registry));
        // The writer's task lets go of its handle when it sees that nobody can ask any more.
        while store.handles() > 1 {
            tokio::task::yield_now().await;
        }
        drop(store);
        Self::over(dir).await
    }
}

/// A state over the store of a directory.
pub(crate) async fn state(dir: &Path) -> State {
    let store = Store::open(&dir.join("control.db")).expect("store opens");
    let distributor = Distributor::new(Arc::new(|_| Ok(())));
    let loaded = State::load(
        store,
        distributor,
        Defaults::default(),
        model::mesh::TrustBundle::default(),
    );
    loaded.await.expect("state loads").0
}

/// A change set that puts all objects of a text.
pub(crate) fn puts(text: &str, origin: &Origin) -> ChangeSet {
    let parsed = config::parse("test", text);
    assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
    ChangeSet {
        changes: parsed
            .objects
            .into_iter()
            .map(|object| Change::Put {
                object: Arc::new(object),
                origin: origin.clone(),
            })
            .collect(),
        who: "test".to_owned(),
        ..ChangeSet::default()
    }
}
