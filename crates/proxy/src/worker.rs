//! What one worker thread has to itself, and what all of them read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use identity::tls::{ClientAuth, Credentials};
use identity::verify::Expected;
use lb::Balancer;
use model::{SpiffeId, WorkloadName};
use policy::Effective;
use runtime::Drain;
use telemetry::access_log::Log;
use telemetry::metrics::{
    Counter, Registry, RequestLabels, RequestSeries, Shard, TcpLabels, TcpSeries,
};
use telemetry::trace::{Exporter, Sampler};
use wire::RequestHead;

use crate::http::Bounds;
use crate::options::Mode;
use crate::peers::Peers;
use crate::pool::Pool;
use crate::state::State;
use crate::tunnel::Form;

/// Series and names kept by a worker before it starts over: a bound on memory
/// that a proxy with ordinary peers never meets.
const CACHE_LIMIT: usize = 8192;
/// Heads kept by a worker, and the largest of them.
const HEADS: usize = 64;
const HEAD_SIZE: usize = 4096;

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
}

impl Shared {
    pub(crate) fn sampler(&self) -> Sampler {
        Sampler::new(self.state.snapshot().mesh.trace_sampling)
    }
}

/// What one worker thread has to itself.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Rc<Pool>,
    shard: Shard,
    requests: RefCell<HashMap<SeriesKey, Rc<RequestSeries>>>,
    tcp: RefCell<HashMap<SeriesKey, Rc<TcpSeries>>>,
    principals: RefCell<HashMap<SpiffeId, Arc<str>>>,
    balancers: RefCell<HashMap<(u64, u16), Balancer>>,
    /// Heads that served their request, for the next ones.
    heads: RefCell<Vec<RequestHead>>,
    /// Bounds of what endpoints answer.
    pub(crate) limits: wire::Limits,
    /// What governs requests to the own application.
    pub(crate) inward: Effective,
    /// Bounds of what clients ask.
    pub(crate) bounds: Rc<Bounds>,
}

/// What tells one series from another. The texts are compared by address: each is held by its
/// owner for as long as it is the same text, and by the key for as long as the series is kept.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SeriesKey {
    pub(crate) direction: telemetry::Direction,
    pub(crate) principal: ByAddress,
    pub(crate) destination: ByAddress,
    pub(crate) workload: ByAddress,
    pub(crate) version: ByAddress,
    pub(crate) route: ByAddress,
    pub(crate) grpc: bool,
    pub(crate) mtls: bool,
}

/// A shared text, compared by where it is.
#[derive(Clone)]
pub(crate) struct ByAddress(pub(crate) Arc<str>);

impl PartialEq for ByAddress {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ByAddress {}

impl Hash for ByAddress {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shard: shared.registry.shard(),
            shared,
            pool: Rc::default(),
            requests: RefCell::default(),
            tcp: RefCell::default(),
            principals: RefCell::default(),
            balancers: RefCell::default(),
            heads: RefCell::default(),
            limits: wire::Limits::default(),
            inward: Effective::default(),
            bounds: Rc::default(),
        }
    }

    /// A head to read a request into.
    pub(crate) fn blank_head(&self) -> RequestHead {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back a head whose request is done. Large ones are let go.
    pub(crate) fn keep_head(&self, mut head: RequestHead) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < HEADS && head.fields.size() <= HEAD_SIZE {
            head.clear();
            heads.push(head);
        }
    }

    /// The series of requests for a key, resolved once.
    pub(crate) fn requests(&self, key: SeriesKey) -> Rc<RequestSeries> {
        let mut known = self.requests.borrow_mut();
        if let Some(series) = known.get(&key) {
            return Rc::clone(series);
        }
        bound(&mut known);
        let series = self.shard.requests(&RequestLabels {
            direction: key.direction,
            source: self.source(&key),
            source_principal: Arc::clone(&key.principal.0),
            destination: Arc::clone(&key.destination.0),
            destination_workload: Arc::clone(&key.workload.0),
            destination_version: Arc::clone(&key.version.0),
            protocol: if key.grpc { "grpc" } else { "http" },
            route: Arc::clone(&key.route.0),
            mtls: key.mtls,
        });
        known.insert(key, Rc::clone(&series));
        series
    }

    /// The series of connections for a key, resolved once.
    pub(crate) fn connections(&self, key: SeriesKey) -> Rc<TcpSeries> {
        let mut known = self.tcp.borrow_mut();
        if let Some(series) = known.get(&key) {
            return Rc::clone(series);
        }
        bound(&mut known);
        let series = self.shard.tcp(&TcpLabels {
            direction: key.direction,
            source: self.source(&key),
            source_principal: Arc::clone(&key.principal.0),
            destination: Arc::clone(&key.destination.0),
            destination_workload: Arc::clone(&key.workload.0),
            destination_version: Arc::clone(&key.version.0),
            mtls: key.mtls,
        });
        known.insert(key, Rc::clone(&series));
        series
    }

    /// The calling application's name: its own outbound, the caller's service account inbound.
    fn source(&self, key: &SeriesKey) -> Arc<str> {
        match key.direction {
            telemetry::Direction::Outbound => Arc::clone(&self.shared.source),
            telemetry::Direction::Inbound => key
                .principal
                .0
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

fn bound<K, V>(known: &mut HashMap<K, V>) {
    if known.len() >= CACHE_LIMIT {
        known.clear();
    }
}
