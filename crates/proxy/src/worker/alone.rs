//! A worker without a control plane, for tests and fuzzing.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::ca::Authority;
use identity::tls::Credentials;
use model::TrustDomain;
use runtime::Drain;
use telemetry::access_log::Log;
use telemetry::metrics::Registry;
use telemetry::trace::Exporter;

use super::{Shared, Worker};
use crate::options::Mode;
use crate::peers::Peers;
use crate::state::State;

/// Must be called within a runtime.
pub(crate) fn worker() -> Rc<Worker> {
    let dir = tempfile::tempdir().expect("a directory");
    let domain = TrustDomain::default();
    let now = SystemTime::now();
    let authority = Authority::load_or_create(dir.path(), &domain, now).expect("an authority");
    let id = "spiffe://mesh.local/ns/shop/sa/client".parse();
    let id = id.expect("an identity");
    let svid = authority.issue(&id, Duration::from_mins(10), now);
    let registry = Registry::new();
    let channel = xds::client::channel(Arc::new(|| {
        Box::pin(async { Err(std::io::Error::other("none")) })
    }));
    let (state, wants) = State::new();
    // Nobody answers lookups; nobody here asks for any.
    drop(wants);
    Rc::new(Worker::new(Arc::new(Shared {
        workload: "shop/client-0".parse().expect("a name"),
        source: "client".into(),
        mode: Mode::Explicit,
        mark: None,
        state,
        credentials: Credentials::new(svid.expect("a certificate"), authority.trust_bundle()),
        peers: Peers::default(),
        drain: Drain::new(),
        connection_limit: 1024,
        connections_refused: registry.counter("refused_total", "None."),
        handshake_failures: registry.counter("failures_total", "None."),
        copies_dropped: registry.counter("copies_total", "None."),
        uncounted_passed: registry.counter("passed_total", "None."),
        uncounted_refused: registry.counter("refused_total", "None."),
        log: Log::to_writer(std::io::sink(), 64).expect("a thread"),
        exporter: Exporter::start(channel, Vec::new()),
        registry,
    })))
}
