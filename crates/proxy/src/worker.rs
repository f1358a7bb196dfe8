//! What one worker thread has to itself, and what all of them read.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod alone;

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use identity::tls::{ClientAuth, Credentials};
use identity::verify::Expected;
use lb::Balancer;
use model::limits::Limits;
use model::mesh::AccessLog;
use model::{ServiceName, SpiffeId, WorkloadName};
use policy::Effective;
use runtime::Drain;
use telemetry::access_log::Log;
use telemetry::metrics::{
    Counter, Registry, RequestLabels, RequestSeries, Shard, TcpLabels, TcpSeries,
};
use telemetry::trace::{self, Exporter, Reservoir, Sampler};

use crate::destination::{Destination, seconds};
use crate::http::Bounds;
use crate::options::Mode;
use crate::peers::Peers;
use crate::pool::Pool;
use crate::state::{Lookup, Snapshot, State};
use crate::tunnel::Form;

/// Series and names kept by a worker before it starts over: a bound on memory
/// that a proxy with ordinary peers never meets.
const CACHE_LIMIT: usize = 8192;

/// Keys that no client chooses need no defence against chosen ones.
pub(crate) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What all workers read.
pub(crate) struct Shared {
    pub(crate) workload: WorkloadName,
    /// The application's name in metrics.
    pub(crate) source: Arc<str>,
    pub(crate) mode: Mode,
    /// Mark of the proxy's own connections.
    pub(crate) mark: Option<u32>,
    pub(crate) state: Arc<State>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) peers: Peers,
    pub(crate) drain: Drain,
    pub(crate) registry: Registry,
    pub(crate) log: Log,
    pub(crate) exporter: Exporter,
    /// Connections served at once, by all workers together.
    pub(crate) connection_limit: usize,
    pub(crate) connections_refused: Counter,
    pub(crate) handshake_failures: Counter,
    pub(crate) copies_dropped: Counter,
    /// Requests that passed, or were refused, because nobody counted for the whole mesh.
    pub(crate) uncounted_passed: Counter,
    pub(crate) uncounted_refused: Counter,
}

/// What one worker thread has to itself.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Rc<Pool>,
    /// The snapshot in force when it was last looked at, and its version.
    snapshot: RefCell<Arc<Snapshot>>,
    version: Cell<u64>,
    shard: Shard,
    requests: RefCell<Map<Place, Known<RequestSeries>>>,
    tcp: RefCell<Map<Place, Known<TcpSeries>>>,
    principals: RefCell<Map<SpiffeId, Arc<str>>>,
    balancers: RefCell<Map<(u64, u16), Balancer>>,
    reservoir: RefCell<Reservoir>,
    /// Held by each copy of a request that is under way.
    pub(crate) copies: Rc<()>,
    /// Held by each question to a service that counts which is under way.
    pub(crate) questions: Rc<()>,
    /// Whether the proxy drains: connections are not kept.
    pub(crate) draining: Cell<bool>,
    /// Bounds of what endpoints answer.
    pub(crate) limits: wire::Limits,
    /// What governs requests to the own application.
    pub(crate) inward: Effective,
    /// Bounds of what clients ask, and what they were made of.
    bounds: RefCell<(Limits, Rc<Bounds>)>,
}

/// What tells one series from another.
#[derive(Clone, Copy)]
pub(crate) struct SeriesKey<'a> {
    pub(crate) direction: telemetry::Direction,
    pub(crate) principal: &'a Arc<str>,
    pub(crate) destination: &'a Arc<str>,
    pub(crate) workload: &'a Arc<str>,
    pub(crate) version: &'a Arc<str>,
    pub(crate) route: &'a Arc<str>,
    pub(crate) grpc: bool,
    pub(crate) mtls: bool,
}

/// The same, its texts compared by where they are: each is held by its owner for as long as it is
/// the same text, and by [`Known`] for as long as the series is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place([usize; 5], telemetry::Direction, bool, bool);

/// A series, with the texts whose places are its key; those in a box, since nobody looks at them.
struct Known<T> {
    series: Rc<T>,
    _texts: Box<[Arc<str>; 5]>,
}

impl SeriesKey<'_> {
    fn texts(&self) -> [&Arc<str>; 5] {
        [
            self.principal,
            self.destination,
            self.workload,
            self.version,
            self.route,
        ]
    }

    fn place(&self) -> Place {
        let places = self.texts().map(|text| text.as_ptr().addr());
        Place(places, self.direction, self.grpc, self.mtls)
    }
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            version: Cell::new(shared.state.version()),
            snapshot: RefCell::new(shared.state.whole()),
            shard: shared.registry.shard(),
            shared,
            pool: Rc::default(),
            requests: RefCell::default(),
            tcp: RefCell::default(),
            principals: RefCell::default(),
            balancers: RefCell::default(),
            reservoir: RefCell::default(),
            copies: Rc::default(),
            questions: Rc::default(),
            draining: Cell::new(false),
            limits: wire::Limits::default(),
            inward: Effective::default(),
            bounds: RefCell::default(),
        }
    }

    /// What is known of the mesh now. As [`State::snapshot`], but that most requests find nothing new
    /// and then write to no memory that other threads read; it is not to be held across an `await`.
    pub(crate) fn snapshot(&self) -> Ref<'_, Arc<Snapshot>> {
        let version = self.shared.state.version();
        // Whoever still looks at the one before goes on doing so.
        if self.version.get() != version
            && let Ok(mut held) = self.snapshot.try_borrow_mut()
        {
            *held = self.shared.state.whole();
            self.version.set(version);
        }
        self.snapshot.borrow()
    }

    /// A service by name. Waits, once per service, until the control plane has told about it.
    pub(crate) async fn service(&self, name: &ServiceName) -> Lookup<Arc<Destination>> {
        if let Some(destination) = self.snapshot().service(name) {
            destination.touch(seconds());
            return Lookup::Found(Arc::clone(destination));
        }
        // In a box: done once for each service, and large.
        Box::pin(self.shared.state.service(name)).await
    }

    /// Bounds of what clients ask, as the mesh has them now.
    pub(crate) fn bounds(&self) -> Rc<Bounds> {
        let snapshot = self.snapshot();
        let mut known = self.bounds.borrow_mut();
        if known.0 != snapshot.mesh.limits {
            known.0 = snapshot.mesh.limits.clone();
            known.1 = Rc::new(Bounds::from(&known.0));
        }
        Rc::clone(&known.1)
    }

    /// The place in a trace of what arrives now: below its caller's, or at the root of a new one.
    pub(crate) fn trace(&self, caller: Option<&trace::Context>, now: Instant) -> trace::Context {
        let snapshot = self.snapshot();
        let mesh = &snapshot.mesh;
        let sampler = Sampler::new(mesh.trace_sampling, mesh.trace_reservoir);
        sampler.start(caller, &mut self.reservoir.borrow_mut(), now)
    }

    /// Whether what ends now stands in the access log; asks whether it is `sampled` only where that
    /// decides.
    pub(crate) fn logs(&self, failed: bool, sampled: impl FnOnce() -> bool) -> bool {
        match self.snapshot().mesh.access_log {
            AccessLog::Off => false,
            AccessLog::Notable => failed || sampled(),
            AccessLog::All => true,
        }
    }

    /// The series of requests for a key, resolved once.
    pub(crate) fn requests(&self, key: &SeriesKey<'_>) -> Rc<RequestSeries> {
        let mut known = self.requests.borrow_mut();
        let place = key.place();
        if let Some(known) = known.get(&place) {
            return Rc::clone(&known.series);
        }
        bound(&mut known);
        let series = self.shard.requests(&RequestLabels {
            direction: key.direction,
            source: self.source(key),
            source_principal: Arc::clone(key.principal),
            destination: Arc::clone(key.destination),
            destination_workload: Arc::clone(key.workload),
            destination_version: Arc::clone(key.version),
            protocol: if key.grpc { "grpc" } else { "http" },
            route: Arc::clone(key.route),
            mtls: key.mtls,
        });
        let entry = Known {
            series: Rc::clone(&series),
            _texts: Box::new(key.texts().map(Arc::clone)),
        };
        known.insert(place, entry);
        series
    }

    /// The series of connections for a key, resolved once.
    pub(crate) fn connections(&self, key: &SeriesKey<'_>) -> Rc<TcpSeries> {
        let mut known = self.tcp.borrow_mut();
        let place = key.place();
        if let Some(known) = known.get(&place) {
            return Rc::clone(&known.series);
        }
        bound(&mut known);
        let series = self.shard.tcp(&TcpLabels {
            direction: key.direction,
            source: self.source(key),
            source_principal: Arc::clone(key.principal),
            destination: Arc::clone(key.destination),
            destination_workload: Arc::clone(key.workload),
            destination_version: Arc::clone(key.version),
            mtls: key.mtls,
        });
        let entry = Known {
            series: Rc::clone(&series),
            _texts: Box::new(key.texts().map(Arc::clone)),
        };
        known.insert(place, entry);
        series
    }

    /// The calling application's name: its own outbound, the caller's service account inbound.
    fn source(&self, key: &SeriesKey<'_>) -> Arc<str> {
        match key.direction {
            telemetry::Direction::Outbound => Arc::clone(&self.shared.source),
            telemetry::Direction::Inbound => key
                .principal
                .parse::<SpiffeId>()
                .ok()
                .and_then(|id| id.service_account().map(|(_, account)| account.into()))
                .unwrap_or_else(|| "unknown".into()),
        }
    }

    /// The TLS configuration for a connection to an identity.
    pub(crate) fn client_config(&self, id: &SpiffeId, form: Form) -> Arc<rustls::ClientConfig> {
        identity::tls::client_config(
            &self.shared.credentials,
            Expected::Id(id.clone()),
            &[form.alpn()],
        )
    }

    /// The TLS configuration for connections of peers.
    pub(crate) fn server_config(&self) -> Arc<rustls::ServerConfig> {
        identity::tls::server_config(
            &self.shared.credentials,
            &Form::ALL.map(Form::alpn),
            ClientAuth::Required,
        )
    }

    /// A peer's identity as the text that series are keyed by.
    pub(crate) fn principal(&self, id: &SpiffeId) -> Arc<str> {
        let mut known = self.principals.borrow_mut();
        if let Some(text) = known.get(id) {
            return Arc::clone(text);
        }
        bound(&mut known);
        let text: Arc<str> = id.as_str().into();
        known.insert(id.clone(), Arc::clone(&text));
        text
    }

    /// Runs `f` with the balancer of a port of a destination.
    pub(crate) fn with_balancer<T>(
        &self,
        destination: u64,
        port: u16,
        f: impl FnOnce(&mut Balancer) -> T,
    ) -> T {
        let mut known = self.balancers.borrow_mut();
        bound(&mut known);
        f(known.entry((destination, port)).or_default())
    }
}

fn bound<K, V>(known: &mut Map<K, V>) {
    if known.len() >= CACHE_LIMIT {
        known.clear();
    }
}
