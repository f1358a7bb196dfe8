//! The process: start, serve, drain.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use identity::tls::Credentials;
use model::mesh::TrustBundle;
use net::socket::{self, ListenOptions};
use runtime::workers::Workers;
use runtime::{Drain, Readiness};
use telemetry::access_log::Log;
use telemetry::metrics::Registry;
use telemetry::trace::Exporter;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use xds::certificate::SignError;

use crate::admin::{self, Admin};
use crate::error::chain;
use crate::options::{Gateways, MARK, Mode, Options, Role, Source};
use crate::peers::Peers;
use crate::state::{State, Updater};
use crate::worker::{Shared, Worker};
use crate::{bootstrap, dns, gateway, inbound, intake, udp};

/// What readiness waits for at the start.
const CERTIFICATE: &str = "its certificate";
const CONFIGURATION: &str = "its configuration";
/// How often pools are swept.
const SWEEP: Duration = Duration::from_secs(5);
/// Connections that a proxy serves at once, whatever the number of files allows: what they hold in
/// memory is bounded with them.
const CONNECTIONS: u64 = 32_768;
/// Port of the DNS server in transparent mode.
const DNS_PORT: u16 = 15053;

/// Why a proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Something of the operating system.
    #[error("{what}")]
    System {
        /// What was tried.
        what: String,
        /// What came of it.
        #[source]
        source: std::io::Error,
    },
    /// Neither a certificate nor a token to get one.
    #[error(
        "no valid certificate in the state directory and no --token-file: give a token made with `tulle token create`"
    )]
    NoCredentials,
    /// The token file cannot be read.
    #[error("cannot read the token file {path}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The trust file cannot be used.
    #[error("cannot take the mesh's roots from the trust file {path}")]
    TrustFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The token file holds no token.
    #[error("{path} holds no join token")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: identity::token::InvalidToken,
    },
    /// The token's pin is none.
    #[error("the token in {path} names no root certificate")]
    Pin {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: identity::tls::InvalidPin,
    },
    /// The control plane refuses the token.
    #[error("the control plane refuses to issue a certificate")]
    Join(#[source] SignError),
    /// An identity could not be made.
    #[error("cannot make an identity: {0}")]
    NoIdentity(String),
    /// An upstream names no host.
    #[error("upstream host \"{0}\" is not a host name")]
    Upstream(String),
}

impl ProxyError {
    fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// Runs a proxy until it is told to stop and has drained. Blocks the calling thread.
pub fn run(options: Options) -> Result<(), ProxyError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ProxyError::system("starting the runtime"))?;
    runtime.block_on(serve(options))
}

async fn serve(mut options: Options) -> Result<(), ProxyError> {
    let stop = runtime::signals::stop().map_err(ProxyError::system("listening for signals"))?;
    let mut listeners = open(&mut options)?;
    let drain = Drain::new();
    let readiness = Readiness::new();
    readiness.wait_for(CERTIFICATE);
    readiness.wait_for(CONFIGURATION);
    let registry = Registry::new();
    let admin = Admin {
        readiness: readiness.clone(),
        drain: drain.clone(),
        registry: registry.clone(),
        shared: Arc::new(OnceLock::new()),
    };
    if let Some(listener) = listeners.remove("admin") {
        tokio::spawn(admin::serve(admin.clone(), listener));
    }
    if let Some(listener) = listeners.remove("metrics") {
        tokio::spawn(admin::serve_metrics(admin.clone(), listener));
    }

    let (trust, trusted) = watch::channel(None);
    let source = std::mem::replace(&mut options.source, Source::Local(Box::new(|_| {})));
    let supply = tokio::select! {
        supply = supply(&options, source, &readiness, trusted) => supply?,
        () = stop.cancelled() => return Ok(()),
    };
    readiness.met(CERTIFICATE);

    let (state, wants) = State::new();
    let mut updater = Updater::new(
        Arc::clone(&state),
        supply.handle,
        options.workload.clone(),
        &options.role,
        options.locality.clone(),
        trust,
    );
    for upstream in &options.upstreams {
        if let Some(name) =
            model::name::service_of_host(&upstream.host, options.workload.namespace())
        {
            updater.pin(name);
        }
    }
    tokio::spawn(updater.run(supply.batches, wants));

    let shared = Arc::new(share(
        &options,
        state,
        supply.credentials,
        &drain,
        registry,
        supply.channel,
    )?);
    drop(admin.shared.set(Arc::clone(&shared)));
    tokio::select! {
        () = shared.state.configured() => {}
        () = stop.cancelled() => return Ok(()),
    }
    if options.mode() == Mode::Transparent {
        start_dns(&shared)?;
    }
    let doors = doors(&options, listeners)?;
    let workers = start_workers(&options, &shared, doors)?;
    readiness.met(CONFIGURATION);
    if let Err(error) = net::memory::release_code() {
        tracing::debug!(%error, "the code that only the start needed stays mapped");
    }
    tracing::info!(workload = %options.workload, "ready");

    tokio::select! {
        () = stop.cancelled() => {}
        () = drain.begun() => {}
    }
    tracing::info!(connections = drain.active(), "draining");
    let cut = drain.finish(options.drain).await;
    if cut > 0 {
        tracing::warn!(connections = cut, "cut: they did not finish in time");
    }
    shared.exporter.flush(Duration::from_secs(2)).await;
    shared.log.flush(Duration::from_secs(1));
    workers.join();
    Ok(())
}

/// What comes of a source of configuration.
struct Supply {
    credentials: Arc<Credentials>,
    handle: xds::client::Handle,
    batches: mpsc::Receiver<xds::client::Batch>,
    /// To the control plane, if there is one.
    channel: Option<tonic::transport::Channel>,
}

async fn supply(
    options: &Options,
    source: Source,
    readiness: &Readiness,
    trusted: watch::Receiver<Option<Arc<TrustBundle>>>,
) -> Result<Supply, ProxyError> {
    let control = match source {
        Source::Local(begin) => {
            let (feed, handle, batches) = xds::local::start();
            begin(feed);
            return Ok(Supply {
                credentials: bootstrap::no_credentials(&options.workload)?,
                handle,
                batches,
                channel: None,
            });
        }
        Source::Control(control) => control,
    };
    let mark = mark(options);
    let credentials = bootstrap::credentials(&control, mark).await?;
    let dial = bootstrap::dial_control(&control, mark, &credentials);
    let channel = xds::client::channel(Arc::clone(&dial));
    // A join token is spent by now; a service account's is good again.
    let newcomer = match &control.trust_file {
        Some(_) => bootstrap::Newcomer::new(&control, mark)
            .inspect_err(|error| {
                tracing::warn!(
                    error = chain(error),
                    "an expired certificate could not be replaced by token"
                );
            })
            .ok(),
        None => None,
    };
    let node_id = match &options.role {
        Role::Sidecar(_) => format!("workload/{}", options.workload),
        Role::Gateway(Gateways::Class(class)) => format!("gateway-class/{class}"),
        Role::Gateway(_) => format!("gateway/{}", options.workload),
    };
    let (handle, batches) = xds::client::start(xds::client::Options {
        dial,
        node_id,
        cache: Some(control.state_dir.join("resources.bin")),
    });
    let renewal = bootstrap::renew(
        Arc::clone(&credentials),
        channel.clone(),
        control,
        newcomer,
        readiness.clone(),
        trusted,
    );
    tokio::spawn(renewal);
    Ok(Supply {
        credentials,
        handle,
        batches,
        channel: Some(channel),
    })
}

/// The mark of the proxy's own connections, where something must tell them apart.
fn mark(options: &Options) -> Option<u32> {
    (options.mode() == Mode::Transparent).then_some(MARK)
}

fn share(
    options: &Options,
    state: Arc<State>,
    credentials: Arc<Credentials>,
    drain: &Drain,
    registry: Registry,
    channel: Option<tonic::transport::Channel>,
) -> Result<Shared, ProxyError> {
    let log = match &options.access_log {
        Some(target) => Log::to(target.clone()),
        None => Log::to_writer(std::io::sink(), 1),
    };
    let log = log.map_err(ProxyError::system("opening the access log"))?;
    // Without a mesh there is no certificate to be asked for anything.
    let source: Arc<str> = if channel.is_some() {
        describe_certificate(&registry, &credentials);
        let svid = credentials.svid();
        let account = svid.id().service_account();
        account.map_or("unknown", |(_, account)| account).into()
    } else {
        options.workload.name().into()
    };
    let exporter = channel.map_or_else(Exporter::none, |channel| {
        Exporter::start(channel, resource(options, &source))
    });
    describe(&registry, &log, &exporter, drain, &state);
    let uncounted = |outcome| {
        registry.counter_with(
            "tulle_rate_limit_uncounted_total",
            "Requests with a global limit of which no service answered in time, and what became of them.",
            &[("outcome", outcome)],
        )
    };
    Ok(Shared {
        workload: options.workload.clone(),
        source,
        mode: options.mode(),
        mark: mark(options),
        state,
        credentials,
        peers: Peers::default(),
        drain: drain.clone(),
        // A connection has two sockets, and others need files too.
        connection_limit: (runtime::limits::raise_open_files() / 3).clamp(64, CONNECTIONS) as usize,
        connections_refused: registry.counter(
            "tulle_proxy_connections_refused_total",
            "Connections closed at once because the proxy serves as many as it may.",
        ),
        handshake_failures: registry.counter(
            "tulle_proxy_handshake_failures_total",
            "TLS handshakes of callers that failed.",
        ),
        copies_dropped: registry.counter(
            "tulle_mirror_dropped_total",
            "Copies of requests that were not sent, since too many were under way.",
        ),
        uncounted_passed: uncounted("passed"),
        uncounted_refused: uncounted("refused"),
        registry,
        log,
        exporter,
    })
}

/// Who sends spans, in OpenTelemetry's words.
fn resource(options: &Options, source: &str) -> Vec<(String, String)> {
    let namespace = options.workload.namespace();
    vec![
        ("service.name".to_owned(), format!("{source}.{namespace}")),
        (
            "service.instance.id".to_owned(),
            options.workload.to_string(),
        ),
        ("service.namespace".to_owned(), namespace.to_owned()),
    ]
}

/// Metrics of the process.
fn describe(
    registry: &Registry,
    log: &Log,
    exporter: &Exporter,
    drain: &Drain,
    state: &Arc<State>,
) {
    let (lines, spans) = (log.clone(), exporter.clone());
    registry.counter_fn(
        "tulle_access_log_dropped_total",
        "Access log lines that were dropped.",
        &[],
        move || lines.dropped(),
    );
    registry.counter_fn(
        "tulle_spans_dropped_total",
        "Spans that were dropped.",
        &[],
        move || spans.dropped(),
    );
    let (drain, state) = (drain.clone(), Arc::clone(state));
    registry.gauge_fn(
        "tulle_proxy_connections",
        "Connections that the proxy serves.",
        &[],
        move || drain.active() as f64,
    );
    registry.gauge_fn(
        "tulle_proxy_connected",
        "Whether the proxy is connected to the control plane.",
        &[],
        move || f64::from(u8::from(state.connected())),
    );
    registry
        .gauge_with(
            "tulle_build_info",
            "The version that runs.",
            &[("version", env!("CARGO_PKG_VERSION"))],
        )
        .set(1);
}

fn describe_certificate(registry: &Registry, credentials: &Arc<Credentials>) {
    let credentials = Arc::clone(credentials);
    registry.gauge_fn(
        "tulle_certificate_expiry_seconds",
        "Unix time at which the workload's certificate expires.",
        &[],
        move || {
            credentials
                .svid()
                .not_after()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0.0, |d| d.as_secs_f64())
        },
    );
}

fn start_dns(shared: &Arc<Shared>) -> Result<(), ProxyError> {
    let what = || format!("listening on port {DNS_PORT} for DNS");
    // Redirected queries arrive on loopback; an answer must leave from there to be translated back.
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let address = SocketAddr::new(ip, DNS_PORT);
        let udp = match socket::bind_udp(address, None) {
            Ok(udp) => udp,
            // A host without IPv6.
            Err(_) if address.is_ipv6() => continue,
            Err(error) => return Err(ProxyError::system(what())(error)),
        };
        let udp = tokio::net::UdpSocket::from_std(udp).map_err(ProxyError::system(what()))?;
        let tcp = socket::listen(address, &ListenOptions::default())
            .map_err(ProxyError::system(what()))?;
        let tcp = tokio::net::TcpListener::from_std(tcp).map_err(ProxyError::system(what()))?;
        tokio::spawn(dns::serve(Arc::clone(shared), udp, Some(tcp)));
    }
    Ok(())
}

/// The inherited sockets, and new ones on the usual ports for those that are missing.
fn open(options: &mut Options) -> Result<BTreeMap<String, TcpListener>, ProxyError> {
    let mut listeners = std::mem::take(&mut options.listeners);
    let Role::Sidecar(mode) = options.role else {
        return Ok(listeners);
    };
    let loopback = mode == Mode::Explicit;
    for (name, port, local) in [
        ("outbound", 15001, loopback),
        ("tunnel", 15008, false),
        ("inbound", 15006, false),
        ("admin", 15000, true),
        ("metrics", 15020, loopback),
    ] {
        if listeners.contains_key(name) || (name == "inbound" && loopback) {
            continue;
        }
        let address = if local {
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
        };
        let dual = ListenOptions {
            dual_stack: !local,
            reuse_port: false,
            ..ListenOptions::default()
        };
        let listener = socket::listen(address, &dual).map_err(ProxyError::system(format!(
            "listening on port {port} ({name})"
        )))?;
        listeners.insert(name.to_owned(), listener);
    }
    Ok(listeners)
}

/// What becomes of the connections of a listening socket.
#[derive(Clone)]
pub(crate) enum Door {
    Explicit,
    Intercepted,
    Upstream(String, u16),
    Tunnel,
    Captured,
    /// A port of Gateways.
    Listener(u16),
}

fn doors(
    options: &Options,
    mut listeners: BTreeMap<String, TcpListener>,
) -> Result<Vec<(Door, Arc<TcpListener>)>, ProxyError> {
    let mut doors = Vec::new();
    let mut add = |door, listener: Option<TcpListener>| {
        if let Some(listener) = listener {
            doors.push((door, Arc::new(listener)));
        }
    };
    let outbound = match options.mode() {
        Mode::Explicit => Door::Explicit,
        Mode::Transparent => Door::Intercepted,
    };
    add(outbound, listeners.remove("outbound"));
    add(Door::Tunnel, listeners.remove("tunnel"));
    add(Door::Captured, listeners.remove("inbound"));
    for upstream in &options.upstreams {
        if !wire::host::is_authority(upstream.host.as_bytes()) {
            return Err(ProxyError::Upstream(upstream.host.clone()));
        }
        add(
            Door::Upstream(upstream.host.clone(), upstream.port),
            listeners.remove(&upstream.listener),
        );
    }
    for name in listeners.keys() {
        tracing::warn!(name, "inherited socket is not used");
    }
    Ok(doors)
}

fn start_workers(
    options: &Options,
    shared: &Arc<Shared>,
    doors: Vec<(Door, Arc<TcpListener>)>,
) -> Result<Workers, ProxyError> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let count = if options.workers == 0 {
        cores()
    } else {
        options.workers
    };
    let shared = Arc::clone(shared);
    Workers::start(count, "worker", move |_| {
        let (shared, doors) = (Arc::clone(&shared), doors.clone());
        async move {
            let worker = Rc::new(Worker::new(shared));
            let mut accepting = Vec::new();
            for (door, listener) in doors {
                if let Door::Upstream(host, port) = &door {
                    let (host, listener) = (host.clone(), Arc::clone(&listener));
                    // Its sessions may go on while the proxy drains.
                    tokio::task::spawn_local(datagrams(Rc::clone(&worker), host, *port, listener));
                }
                let serving = accept(Rc::clone(&worker), door, listener);
                accepting.push(tokio::task::spawn_local(serving));
            }
            let gateways = tokio::task::spawn_local(gateway::listen(Rc::clone(&worker)));
            let sweeper = Rc::clone(&worker);
            let sweeping = tokio::task::spawn_local(async move {
                let mut tick = tokio::time::interval(SWEEP);
                loop {
                    tick.tick().await;
                    // Nothing that is gone is held by a worker that has nothing to do.
                    drop(sweeper.snapshot());
                    sweeper.pool.sweep();
                }
            });
            worker.shared.drain.begun().await;
            worker.draining.set(true);
            gateways.abort();
            for task in accepting {
                task.abort();
            }
            worker.shared.drain.cut().await;
            sweeping.abort();
        }
    })
    .map_err(ProxyError::system("starting worker threads"))
}

/// Datagrams to a loopback port that leads to a service: those to the same port as its connections.
async fn datagrams(worker: Rc<Worker>, host: String, port: u16, listener: Arc<TcpListener>) {
    let socket = listener.local_addr().and_then(socket::share_udp);
    let picker = Rc::clone(&worker);
    let pick = move |client: SocketAddr| udp::pick_of(&picker, &host, port, client.ip());
    let served = match socket {
        Ok(socket) => udp::serve(worker, socket, pick).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::warn!(%error, "no datagrams are taken: another program has the port");
    }
}

pub(crate) async fn accept(worker: Rc<Worker>, door: Door, listener: Arc<TcpListener>) {
    // A descriptor of its own: each worker waits on it in its own runtime.
    let listener = listener.try_clone().and_then(|l| {
        l.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(l)
    });
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listening socket cannot be used");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = socket::tune(&stream, &socket::Tuning::default()) {
                    tracing::debug!(%error, "a connection cannot be tuned");
                }
                let shared = &worker.shared;
                if shared.drain.active() >= shared.connection_limit {
                    shared.connections_refused.inc();
                    continue;
                }
                let connection = enter(
                    Rc::clone(&worker),
                    door.clone(),
                    stream,
                    socket::canonical(peer),
                );
                tokio::task::spawn_local(worker.shared.drain.track(connection));
            }
            Err(error) => {
                // Usually no file descriptors: connections that end will free some.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Each way in a box of its own: a connection should not have room for all the others.
fn enter(
    worker: Rc<Worker>,
    door: Door,
    stream: TcpStream,
    peer: SocketAddr,
) -> Pin<Box<dyn Future<Output = ()>>> {
    match door {
        Door::Explicit => Box::pin(intake::explicit(worker, stream, peer)),
        Door::Intercepted => Box::pin(intake::intercepted(worker, stream, peer)),
        Door::Upstream(host, port) => Box::pin(intake::upstream(worker, stream, peer, host, port)),
        Door::Tunnel => Box::pin(inbound::tunnel(worker, stream, peer)),
        Door::Captured => Box::pin(inbound::captured(worker, stream, peer)),
        Door::Listener(port) => Box::pin(gateway::connection(worker, stream, peer, port)),
    }
}
