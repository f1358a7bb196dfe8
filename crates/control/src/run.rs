//! Start and end of a control plane, in order.
//!
//! Start: the data directory and its lock, the store, the authority, the ports (so that a port
//! in use is told before anything is changed), the objects from the store, the files' first look
//! and the cluster's first lists, and only then is anybody answered but who asks for its health: a
//! proxy that reconnects never sees half a mesh. End: no new
//! connections, those that are there may finish for a moment, the store is closed last.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use config::kind::authentication_policy::SYSTEM_NAMESPACE;
use config::translate::Defaults;
use config::{ObjectKey, ObjectKind, Spec};
use http::{StatusCode, header};
use identity::ca::{Authority as Signer, DEFAULT_TTL};
use identity::control_id;
use identity::tls::Credentials;
use runtime::{Drain, Readiness};
use telemetry::metrics::Format;
use telemetry::proto::collector::trace::v1::trace_service_server::TraceServiceServer;
use telemetry::store::TraceStore;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, JoinSet};
use tonic::server::NamedService;
use xds::envoy::Envoys;
use xds::proto::v1::certificate_authority_server::CertificateAuthorityServer;
use xds::proto::v1::registry_server::RegistryServer;
use xds::server::{Authorize, Distributor, Peer};

use crate::address::Pool;
use crate::api::{self, Api, Parts};
use crate::aside::aside;
use crate::authority::{Authority, AuthorityService, keep_own_certificate};
use crate::change::{Change, ChangeSet, OnConflict, Origin};
use crate::envoy;
use crate::error::ControlError;
use crate::gateways::local::Supervisor;
use crate::gateways::{Children, Gateways, generated_name};
use crate::home::Home;
use crate::kubernetes;
use crate::kubernetes::gateways::Provisioner;
use crate::listen::{self, Server};
use crate::metrics::Metrics;
use crate::options::{Addresses, Options, StoreUrl};
use crate::otlp::SpanReceiver;
use crate::registry::{Registry, RegistryService};
use crate::source::files::Files;
use crate::source::{Source as _, follow};
use crate::state::{Glance, State};
use crate::store::Store;

/// What is waited for before anybody is answered, where objects are those of Kubernetes.
const FIRST_LISTS: &str = "first lists of the API server";
/// For connections to finish at the end.
const FAREWELL: Duration = Duration::from_millis(750);

/// What is bound before anything is served.
struct Sockets {
    unix: UnixListener,
    xds: TcpListener,
    api: TcpListener,
    metrics: TcpListener,
    otlp: TcpListener,
    insecure_xds: Option<TcpListener>,
}

/// Runs the control plane until `shutdown` completes, then closes everything in order.
///
/// Returns early when it cannot start: a port in use, a data directory of another control plane,
/// a store that cannot be read. Objects in files that are wrong do not keep it from starting.
pub async fn run<F>(options: Options, shutdown: F) -> Result<(), ControlError>
where
    F: Future,
{
    runtime::limits::raise_open_files();
    let cluster = match options.store {
        StoreUrl::Kubernetes => Some(kubernetes::connect().await?),
        _ => None,
    };
    let home = Home::open(&options.data_dir)?;
    let store = open_store(options.store.path(home.path())).await?;
    let signer = open_authority(home.path(), &options, cluster.as_ref()).await?;
    crate::address::set_apart(&signer.root_pin());
    let sockets = Sockets::bind(home.path(), &options).await?;
    let addresses = sockets.addresses(home.path(), &signer)?;
    let credentials = own_credentials(&signer)?;

    let drain = Drain::new();
    let ready = Readiness::new();
    ready.wait_for("first look at files");
    if cluster.is_some() {
        ready.wait_for(FIRST_LISTS);
    }
    let metrics = Metrics::default();
    let objects = Arc::new(OnceLock::new());
    let distributor = Distributor::new(authorize(&signer, Arc::clone(&objects)));
    let defaults = Defaults {
        trust_domain: options.trust_domain.clone(),
        networks: Pool::ALL.iter().flat_map(|pool| pool.networks()).collect(),
        session_key: Some(signer.session_key()?),
        addresses_outside: cluster.is_some(),
    };
    let (state, writer) = State::load(
        store,
        Arc::clone(&distributor),
        defaults,
        signer.trust_bundle(),
    )
    .await?;
    let _ = objects.set(state.glance());
    let authority = Authority::new(Arc::clone(&signer), state.store().clone(), metrics.clone());
    let registry = Registry::load(
        state.clone(),
        Arc::clone(&authority),
        metrics.clone(),
        addresses.xds,
    )
    .await?;

    let mut tasks = JoinSet::new();
    let server = |router| Server::new(router, drain.clone(), metrics.clone());
    // First of all, so that whoever looks after the process sees what it waits for.
    let health = health(&metrics, &ready, &drain).fallback(api::not_found);
    tasks.spawn(server(health).plain(sockets.metrics));
    let mut shutdown = std::pin::pin!(shutdown);
    let files = start_files(&options, &state, &mut tasks).await?;
    ready.met("first look at files");
    let mut cluster = if let Some(cluster) = cluster {
        Some(kubernetes::start(cluster, &state, &mut tasks))
    } else {
        forget_kubernetes(&state).await;
        None
    };
    if let Some(cluster) = &mut cluster {
        tokio::select! {
            () = cluster.first_lists() => ready.met(FIRST_LISTS),
            _ = &mut shutdown => {
                cluster.stop().await;
                distributor.close();
                finish(drain, tasks, writer, || drop((state, registry, metrics))).await;
                return Ok(());
            }
        }
    }
    let report = cluster.as_ref().map(kubernetes::Running::report);
    if let Some(running) = &cluster {
        serve_cluster(
            running,
            &options,
            home.path(),
            &state,
            &authority,
            &mut tasks,
        );
    }
    tasks.spawn(registry.clone().sweep());
    tasks.spawn(keep_own_certificate(
        Arc::clone(&signer),
        Arc::clone(&credentials),
    ));

    let children = Children::default();
    let supervisor = match &options.gateways {
        Gateways::External | Gateways::Deploy(_) => None,
        Gateways::Spawn(program) => Some(Supervisor {
            program: program.clone(),
            data_dir: home.path().to_owned(),
            xds: addresses.xds,
            state: state.clone(),
            authority: Arc::clone(&authority),
            children: children.clone(),
        }),
    };

    metrics.watch_state(&state, Some(files.clone()), report.as_ref());
    watch_certificates(&metrics, &signer, &credentials);
    let traces = Arc::new(TraceStore::default());
    let own = Arc::clone(&credentials);
    let api = Api(Arc::new(Parts {
        state: state.clone(),
        registry: registry.clone(),
        authority: Arc::clone(&authority),
        children,
        traces: Arc::clone(&traces),
        files: Some(files),
        kubernetes: report,
        addresses: addresses.clone(),
        started: SystemTime::now(),
        own_not_after: Box::new(move || own.svid().not_after()),
    }));
    let spans = TraceServiceServer::new(SpanReceiver::new(traces, &metrics));
    let grpc = Router::new();
    let grpc = add(grpc, distributor.service());
    let grpc = add(
        grpc,
        CertificateAuthorityServer::new(AuthorityService(authority)),
    );
    let grpc = add(grpc, RegistryServer::new(RegistryService(registry)));
    let grpc = add(grpc, spans.clone());
    let http = api::router(api);
    let whole = grpc.merge(http.clone()).fallback(api::not_found);

    tasks.spawn(server(whole.clone()).unix(sockets.unix));
    tasks.spawn(server(whole).tls(sockets.xds, credentials));
    tasks.spawn(server(http.fallback(api::not_found)).plain(sockets.api));
    let otlp = add(Router::new(), spans).fallback(api::not_found);
    tasks.spawn(server(otlp).plain(sockets.otlp));
    let envoys = Envoys::new(envoy::Gateways::new(Arc::clone(&distributor)));
    if let Some(listener) = sockets.insecure_xds {
        metrics.watch_envoys(&envoys);
        let envoys = add(Router::new(), envoys.service()).fallback(api::not_found);
        tasks.spawn(server(envoys).plain(listener));
        warn_of_insecure(addresses.insecure_xds);
    }

    home.announce(&addresses)?;
    tracing::info!(
        api = %format_args!("http://{}/", addresses.api), xds = %addresses.xds,
        metrics = %addresses.metrics, otlp = %addresses.otlp, data_dir = %home.path().display(),
        "control plane is ready"
    );

    // Proxies are started when there is somebody to answer them.
    let gateways = supervisor.map(Supervisor::start).transpose();
    let gateways = gateways.map_err(ControlError::Supervisor)?;
    let mut writer = writer;
    let ended = tokio::select! {
        _ = &mut shutdown => Ok(()),
        // All of them run until they are stopped.
        Some(ended) = tasks.join_next() => Err(ControlError::part(ended)),
        ended = &mut writer => Err(ControlError::part(ended)),
    };
    if let Some(gateways) = gateways {
        gateways.end().await;
    }
    ended?;
    if let Some(cluster) = &cluster {
        cluster.stop().await;
    }
    distributor.close();
    envoys.close();
    finish(drain, tasks, writer, || drop((state, metrics))).await;
    tracing::info!("control plane has stopped");
    drop(home);
    Ok(())
}

/// Keys go out in the clear there.
fn warn_of_insecure(at: Option<SocketAddr>) {
    if let Some(at) = at.filter(|at| !at.ip().is_loopback()) {
        tracing::warn!(
            "--insecure-xds {at}: whoever reaches this address is given the private keys of Gateways' certificates; keep it to hosts that you trust"
        );
    }
}

/// Ends in the reverse order of the start; the store last, so that what was begun is written.
/// `let_go` drops the last handles on the state, whose writer ends when nobody can ask it.
async fn finish(
    drain: Drain,
    mut tasks: JoinSet<()>,
    writer: JoinHandle<()>,
    let_go: impl FnOnce(),
) {
    let cut = drain.finish(FAREWELL).await;
    tracing::debug!(cut, "connections are closed");
    tasks.shutdown().await;
    let_go();
    // Handlers that were cut give up their handles on the next turn of the runtime; a writer that
    // is busy with the disk is waited for, and what it has acknowledged is on disk anyway.
    let _ = tokio::time::timeout(Duration::from_secs(5), writer).await;
}

async fn open_store(path: std::path::PathBuf) -> Result<Store, ControlError> {
    let opened = tokio::task::spawn_blocking(move || Store::open(&path)).await;
    match opened {
        Ok(store) => Ok(store?),
        Err(_) => Err(crate::store::StoreError::Closed.into()),
    }
}

/// What a control plane does for a cluster beside following it.
fn serve_cluster(
    running: &kubernetes::Running,
    options: &Options,
    data_dir: &Path,
    state: &State,
    authority: &Arc<Authority>,
    tasks: &mut JoinSet<()>,
) {
    let cluster = running.cluster();
    authority.take_accounts(kubernetes::account::reviewer(cluster.client.clone()));
    tasks.spawn(kubernetes::authority::keep(
        cluster.clone(),
        data_dir.join("ca"),
        running.leader(),
    ));
    if let Gateways::Deploy(settings) = &options.gateways {
        let signer = Arc::clone(authority.signer());
        let provisioner = Provisioner {
            client: cluster.client.clone(),
            settings: settings.clone(),
            state: state.clone(),
            leader: running.leader(),
            roots: Box::new(move || identity::trust::to_pem(&signer.trust_bundle())),
        };
        state.published().require();
        tasks.spawn(provisioner.run());
    }
}

/// On Kubernetes the authority is the one that the cluster has, or becomes it.
async fn open_authority(
    data_dir: &Path,
    options: &Options,
    cluster: Option<&kubernetes::Cluster>,
) -> Result<Arc<Signer>, ControlError> {
    let dir = data_dir.join("ca");
    let Some(cluster) = cluster else {
        return load_authority(data_dir, options).await;
    };
    if kubernetes::authority::restore(cluster, &dir).await? {
        return load_authority(data_dir, options).await;
    }
    let founded = load_authority(data_dir, options).await?;
    if kubernetes::authority::found(cluster, &dir).await? {
        return Ok(founded);
    }
    kubernetes::authority::restore(cluster, &dir).await?;
    load_authority(data_dir, options).await
}

/// Deriving a key from a passphrase takes a while.
async fn load_authority(data_dir: &Path, options: &Options) -> Result<Arc<Signer>, ControlError> {
    let dir = data_dir.join("ca");
    let domain = options.trust_domain.clone();
    let opened = tokio::task::spawn_blocking(move || {
        Signer::load_or_create(&dir, &domain, SystemTime::now())
    })
    .await;
    match opened {
        Ok(signer) => Ok(Arc::new(signer?)),
        Err(_) => Err(crate::store::StoreError::Closed.into()),
    }
}

fn own_credentials(signer: &Signer) -> Result<Arc<Credentials>, ControlError> {
    let id = control_id(signer.trust_domain());
    let svid = signer.issue(&id, DEFAULT_TTL, SystemTime::now())?;
    Ok(Credentials::new(svid, signer.trust_bundle()))
}

/// What an earlier run had from Kubernetes is nobody's when this one does not follow it.
async fn forget_kubernetes(state: &State) {
    let left = state.of_kubernetes();
    if left.is_empty() {
        return;
    }
    tracing::info!(
        objects = left.len(),
        "objects that an earlier run had from Kubernetes are forgotten: this one runs without --store kubernetes"
    );
    let set = ChangeSet {
        changes: left
            .into_iter()
            .map(|key| Change::Delete {
                key,
                origin: Origin::Kubernetes,
            })
            .collect(),
        who: "kubernetes".to_owned(),
        on_conflict: OnConflict::Skip,
        ..ChangeSet::default()
    };
    if let Err(error) = state.apply(set).await {
        tracing::error!("they could not be forgotten: {error}");
    }
}

/// Files are looked at before anybody is answered, then followed.
async fn start_files(
    options: &Options,
    state: &State,
    tasks: &mut JoinSet<()>,
) -> Result<crate::source::files::FileReport, ControlError> {
    let kept = state.of_files().into_iter().map(|e| e.object).collect();
    let mut files = Files::watch(options.sources.clone(), kept)?;
    let report = files.report();
    if let Some(set) = aside(|| files.look(true)) {
        let result = state.apply(set).await;
        files.applied(&result);
    }
    // Without paths there is nothing to look at again; what files of an earlier start gave is gone.
    if !options.sources.is_empty() {
        tasks.spawn(follow(files, state.clone()));
    }
    Ok(report)
}

impl Sockets {
    async fn bind(data_dir: &Path, options: &Options) -> Result<Self, ControlError> {
        let at = &options.listen;
        Ok(Self {
            xds: listen::bind("gRPC for proxies", "--xds", at.xds).await?,
            api: listen::bind("the HTTP API", "--api", at.api).await?,
            metrics: listen::bind("the metrics", "--metrics", at.metrics).await?,
            otlp: listen::bind("the OTLP receiver", "--otlp", at.otlp).await?,
            insecure_xds: match at.insecure_xds {
                Some(at) => Some(listen::bind("xDS for Envoys", "--insecure-xds", at).await?),
                None => None,
            },
            unix: listen::bind_socket(&Addresses::socket(data_dir))?,
        })
    }

    fn addresses(&self, data_dir: &Path, signer: &Signer) -> Result<Addresses, ControlError> {
        let bound = |listener: &TcpListener| {
            listener
                .local_addr()
                .map_err(|source| ControlError::DataDir {
                    path: data_dir.to_owned(),
                    source,
                })
        };
        Ok(Addresses {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            socket: Addresses::socket(data_dir),
            xds: bound(&self.xds)?,
            api: bound(&self.api)?,
            metrics: bound(&self.metrics)?,
            otlp: bound(&self.otlp)?,
            insecure_xds: self.insecure_xds.as_ref().map(bound).transpose()?,
            trust_domain: signer.trust_domain().to_string(),
            root_pin: signer.root_pin(),
        })
    }
}

/// Adds a gRPC service under its name.
fn add<S>(router: Router, service: S) -> Router
where
    S: tower::Service<
            http::Request<axum::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

/// Who may hold an xDS stream: a workload of the mesh, under its own name.
fn authorize(signer: &Signer, objects: Arc<OnceLock<Glance>>) -> Authorize {
    let domain = signer.trust_domain().clone();
    Arc::new(move |peer: &Peer<'_>| {
        let Some(id) = peer.identity else {
            return Err(
                "an xDS stream needs a certificate of this mesh; the connection showed none"
                    .to_owned(),
            );
        };
        if id.trust_domain() != domain.as_str() {
            return Err(format!("{id} is not of trust domain {domain}"));
        }
        if let Some(gateway) = peer.node_id.strip_prefix("gateway/") {
            return is_gateway(gateway, id, objects.get());
        }
        if let Some(class) = peer.node_id.strip_prefix("gateway-class/") {
            return is_class(class, id);
        }
        let Some(rest) = peer.node_id.strip_prefix("workload/") else {
            return Ok(());
        };
        let shown = || peer.node_id.chars().take(200).collect::<String>();
        let (namespace, name) = rest.split_once('/').unwrap_or((rest, ""));
        let Some((_, account)) = id.service_account().filter(|(own, _)| *own == namespace) else {
            return Err(format!(
                "node \"{}\" is not of the namespace of {id}",
                shown()
            ));
        };
        // A workload that is not known (any more) has nothing that could be taken from it.
        let key = ObjectKey::new(ObjectKind::Workload, namespace, name);
        let known = objects.get().and_then(|objects| objects.find(&key));
        match known.as_ref().map(|entry| &entry.object.spec) {
            Some(Spec::Workload(spec)) if spec.service_account != account => Err(format!(
                "node \"{}\" runs as service account {}, and the certificate is of {id}",
                shown(),
                spec.service_account
            )),
            _ => Ok(()),
        }
    })
}

/// The proxies of all Gateways of a class run as the account of its name among the system's.
fn is_class(class: &str, id: &model::SpiffeId) -> Result<(), String> {
    if id.service_account() == Some((SYSTEM_NAMESPACE, class)) {
        return Ok(());
    }
    let shown: String = class.chars().take(200).collect();
    Err(format!(
        "the proxies of GatewayClass \"{shown}\" run as the service account {SYSTEM_NAMESPACE}/{shown}, and the certificate is of {id}"
    ))
}

/// A Gateway's proxies run as the service account of its name, or of the name that is made for them
/// on Kubernetes: listeners come with private keys.
fn is_gateway(node: &str, id: &model::SpiffeId, objects: Option<&Glance>) -> Result<(), String> {
    let named = node.split_once('/').zip(id.service_account());
    if let Some(((namespace, gateway), (own, account))) = named
        && namespace == own
    {
        if gateway == account {
            return Ok(());
        }
        let key = ObjectKey::new(ObjectKind::Gateway, namespace, gateway);
        let known = objects.and_then(|objects| objects.find(&key));
        if let Some(Spec::Gateway(spec)) = known.as_ref().map(|entry| &entry.object.spec)
            && generated_name(gateway, &spec.gateway_class_name) == account
        {
            return Ok(());
        }
    }
    let shown: String = node.chars().take(200).collect();
    Err(format!(
        "the proxies of Gateway \"{shown}\" run as the service account of its namespace and name (on Kubernetes NAME-CLASS), and the certificate is of {id}"
    ))
}

fn watch_certificates(metrics: &Metrics, signer: &Arc<Signer>, credentials: &Arc<Credentials>) {
    let now = SystemTime::now();
    let roots = identity::inspect::describe_bundle(&signer.trust_bundle(), now);
    if let Some(left) = roots.iter().map(|r| r.seconds_left).min() {
        let end = now + Duration::from_secs(left.max(0) as u64);
        metrics.watch_expiry("root", move || end);
    }
    let intermediate = Arc::clone(signer);
    metrics.watch_expiry("intermediate", move || {
        intermediate.intermediate_not_after()
    });
    let own = Arc::clone(credentials);
    metrics.watch_expiry("control", move || own.svid().not_after());
}

fn health(metrics: &Metrics, ready: &Readiness, drain: &Drain) -> Router {
    let registry = metrics.registry.clone();
    let exposition = move |headers: http::HeaderMap| {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
        let format = Format::negotiate(accept);
        let body = registry.render(format);
        async move { ([(header::CONTENT_TYPE, format.content_type())], body) }
    };
    let (ready, drain) = (ready.clone(), drain.clone());
    let readiness = move || {
        let missing = ready.missing();
        let draining = drain.has_begun();
        async move {
            if draining {
                (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()).into_response()
            } else if missing.is_empty() {
                "ready\n".into_response()
            } else {
                let text = format!("waiting for: {}\n", missing.join(", "));
                (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
            }
        }
    };
    Router::new()
        .route("/metrics", get(exposition))
        .route("/healthz/ready", get(readiness))
        .route("/healthz/live", get(|| async { "alive\n" }))
}
#[cfg(test)]
mod tests;
