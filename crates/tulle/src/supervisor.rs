//! The supervisor behind `tulle run`: one program, its proxy, and their life together.
//!
//! Register; open the proxy's sockets; start the proxy; wait until it is ready; only then start
//! the program, and say that it is ready when it listens. At the end in reverse: no longer ready,
//! the program ends, deregister, the proxy drains. The sockets stay here, so a proxy that dies is
//! replaced without one refused connection. Children die with this process, even by SIGKILL.

pub(crate) mod lease;
pub(crate) mod listeners;
pub(crate) mod network;
pub(crate) mod program;
pub(crate) mod registry;
pub(crate) mod remote;
pub(crate) mod sidecar;
pub(crate) mod signals;
pub(crate) mod state;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use xds::proto::v1::{self as wire, RegisterRequest, RegisterResponse};

use crate::client::Address;
use crate::command::proxy::Mode;
use crate::command::run::Run;
use crate::failure::usage;
use crate::paths;
use crate::ui::Ui;
use lease::Lease;
use listeners::Listeners;
use network::Network;
use remote::Proof;
use sidecar::{Recipe, Sidecar};
use signals::Signals;

/// How long clients get to learn that this workload is going before its program is told.
const FAREWELL: Duration = Duration::from_millis(300);
/// How long the proxy may finish what is in flight after its program has ended: no answers can
/// come any more, only bytes already on their way.
const DRAIN: Duration = Duration::from_secs(5);
const LISTEN_POLL: Duration = Duration::from_millis(20);

/// Runs the program from registration to its exit code.
pub(crate) async fn run(run: Run, talk: Vec<String>, ui: &Ui) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::take()?;
    let prepared = tokio::select! {
        // The program has not been started: a signal simply ends everything.
        arrived = until_stop(&mut signals) => {
            return Ok(ExitCode::from(128 + arrived? as u8));
        }
        prepared = prepare(&run, talk, ui) => prepared?,
    };
    prepared.live(&run, &mut signals, ui).await
}

async fn until_stop(signals: &mut Signals) -> anyhow::Result<Signal> {
    loop {
        let arrived = signals.next().await?;
        if arrived.is_stop() {
            return Ok(arrived.signal);
        }
    }
}

/// Everything that must be there before the program starts.
struct Prepared {
    sidecar: Sidecar,
    lease: Lease,
    network: Network,
    state_dir: PathBuf,
    environment: Vec<(String, String)>,
}

async fn prepare(run: &Run, talk: Vec<String>, ui: &Ui) -> anyhow::Result<Prepared> {
    let data_dir = run
        .connection
        .data_dir
        .clone()
        .unwrap_or_else(paths::data_dir);
    let mode = network::choose(run.mode, ui)?;
    let address = Address::of(&run.connection)?;
    let mut registry = registry::find(&address, || {
        let earlier = run
            .instance
            .as_ref()
            .map(|name| state::dir(&data_dir, &run.namespace.namespace, name));
        Proof::new(run.token_file.as_deref(), earlier)
    })
    .await?;

    let explicit = match mode {
        Mode::Explicit => Some(Listeners::explicit(reach(&address), &run.upstreams)?),
        Mode::Transparent => None,
    };
    let tunnel = explicit
        .as_ref()
        .map_or(network::TUNNEL, |l| l.port("tunnel"));
    let mut request = registration(run, mode, tunnel)?;
    let response = registry.register(request.clone()).await?;
    let (namespace, name) = response
        .workload_name
        .split_once('/')
        .context("the registry answered with a workload name that is none")?;
    request.instance = Some(name.to_owned());
    ui.detail(&format!(
        "tulle run: registered as {} with the identity {}",
        response.workload_name, response.identity
    ));

    let state_dir = state::dir(&data_dir, namespace, name);
    state::create(&state_dir).with_context(|| format!("{}", state_dir.display()))?;
    registry.keep_in(&state_dir);
    let token_file = state_dir.join("token");
    state::write_token(&token_file, &response.join_token)
        .with_context(|| format!("{}", token_file.display()))?;

    let (network, listeners) = match explicit {
        Some(listeners) => (Network::Loopback, listeners),
        None => Network::capture(&response, &run.upstreams).await?,
    };
    let proxy_ports = listeners.ports();
    let recipe = recipe(run, mode, &response, &state_dir, &network, &listeners, talk)?;
    let environment = environment(run, mode, &listeners);
    let mut sidecar = Sidecar::start(recipe, listeners)?;
    sidecar.ready(ui).await?;
    Ok(Prepared {
        sidecar,
        lease: Lease {
            registry,
            request,
            response,
            proxy_ports,
            token_file,
        },
        network,
        state_dir,
        environment,
    })
}

/// Where peers reach the proxy of a workload in explicit mode: on loopback while all is on one
/// host, else on all addresses.
fn reach(control: &Address) -> IpAddr {
    let local = match control {
        Address::Unix(_) => true,
        Address::Tcp(address) => address
            .parse::<SocketAddr>()
            .map_or(address.starts_with("localhost:"), |a| a.ip().is_loopback()),
    };
    if local {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }
}

fn recipe(
    run: &Run,
    mode: Mode,
    response: &RegisterResponse,
    state_dir: &std::path::Path,
    network: &Network,
    listeners: &Listeners,
    talk: Vec<String>,
) -> anyhow::Result<Recipe> {
    Ok(Recipe {
        workload: response.workload_name.clone(),
        mode,
        xds: response.control_address.clone(),
        state_dir: state_dir.to_owned(),
        token_file: state_dir.join("token"),
        upstreams: run.upstreams.clone(),
        netns: network.path(),
        health: network.health(listeners)?,
        talk,
        drain: DRAIN,
    })
}

/// What the program's environment gets; nothing else is changed.
fn environment(run: &Run, mode: Mode, listeners: &Listeners) -> Vec<(String, String)> {
    let mut environment = match mode {
        Mode::Explicit => program::proxy_environment(listeners.port("outbound")),
        Mode::Transparent => Vec::new(),
    };
    if let Some(port) = run.ports.first() {
        environment.push(("PORT".into(), port.number.to_string()));
    }
    environment
}

fn registration(run: &Run, mode: Mode, tunnel: u16) -> anyhow::Result<RegisterRequest> {
    let ports = run
        .ports
        .iter()
        .map(|port| {
            Ok(wire::Port {
                name: port.name.clone(),
                number: u32::from(port.number),
                protocol: protocol(&port.protocol)? as i32,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let locality = run.locality.as_deref().map(|text| {
        let (region, zone) = text.split_once('/').unwrap_or((text, ""));
        wire::Locality {
            region: region.to_owned(),
            zone: zone.to_owned(),
        }
    });
    Ok(RegisterRequest {
        service: run.service.clone(),
        namespace: run.namespace.namespace.clone(),
        service_account: run.service_account.clone().unwrap_or_default(),
        labels: run.label_map(),
        ports,
        mode: match mode {
            Mode::Explicit => wire::Mode::Explicit as i32,
            Mode::Transparent => wire::Mode::Transparent as i32,
        },
        tunnel_port: u32::from(tunnel),
        locality,
        instance: run.instance.clone(),
    })
}

fn protocol(word: &str) -> anyhow::Result<wire::Protocol> {
    use model::service::Protocol;
    let read = Protocol::from_declared(word);
    if read == Protocol::Detect && !matches!(word, "" | "detect") {
        return Err(usage!(
            "--port .../{word}: there is no such protocol; the protocols are http, http2, grpc, tls, tcp, udp"
        ));
    }
    Ok(match read {
        Protocol::Detect => wire::Protocol::Detect,
        Protocol::Http => wire::Protocol::Http,
        Protocol::Http2 => wire::Protocol::Http2,
        Protocol::Grpc => wire::Protocol::Grpc,
        Protocol::Tls => wire::Protocol::Tls,
        Protocol::Tcp => wire::Protocol::Tcp,
    })
}

impl Prepared {
    /// From the program's start to its end.
    async fn live(self, run: &Run, signals: &mut Signals, ui: &Ui) -> anyhow::Result<ExitCode> {
        let Self {
            mut sidecar,
            lease,
            network,
            state_dir,
            environment,
        } = self;
        let workload = lease.response.workload_name.clone();
        let mut registry = lease.registry.clone();
        let (ready, ready_seen) = watch::channel(run.ports.is_empty());
        let (told, told_seen) = watch::channel(false);
        let heartbeats = tokio::spawn(lease::keep(lease, ready_seen, told));

        let mut child = program::start(&run.command, &environment, network.path().as_deref())?;
        let program = Program {
            pid: child.id().context("the program ended before it began")?,
            ports: run
                .ports
                .iter()
                .map(|p| (p.number, p.protocol.eq_ignore_ascii_case("udp")))
                .collect(),
        };
        let status = tokio::select! {
            status = child.wait() => status.context("waiting for the program")?,
            failed = sidecar.keep(ui) => match failed { Err(error) => return Err(error) },
            failed = program.obey(signals, &ready, told_seen) => {
                match failed { Err(error) => return Err(error) }
            }
            never = program.announce(&ready, ui) => match never {},
        };
        ready.send_replace(false);
        heartbeats.abort();
        registry.deregister(&workload).await;
        sidecar.stop().await;
        network.close().await;
        if run.instance.is_none() {
            // Nobody will ask for this name again.
            let _ = std::fs::remove_dir_all(&state_dir);
        }
        Ok(ExitCode::from(program::exit_code(status)))
    }
}

/// The running program, by what the supervisor knows of it.
struct Program {
    pid: u32,
    /// And whether they are for datagrams.
    ports: Vec<(u16, bool)>,
}

impl Program {
    /// Says that the workload is ready once the program listens on all its ports; never ends.
    async fn announce(&self, ready: &watch::Sender<bool>, ui: &Ui) -> Infallible {
        let begun = tokio::time::Instant::now();
        let mut warned = false;
        loop {
            let missing = self
                .ports
                .iter()
                .find(|(port, udp)| !program::listening_ports(self.pid, *udp).contains(port));
            let Some((port, _)) = missing else {
                ready.send_replace(true);
                return std::future::pending().await;
            };
            if !warned && begun.elapsed() > Duration::from_secs(10) {
                ui.say(&format!(
                    "tulle run: the program does not listen on port {port} yet; nobody is sent to it before"
                ));
                warned = true;
            }
            tokio::time::sleep(LISTEN_POLL).await;
        }
    }

    /// Passes signals on; before the first that ends the program, clients are told to go
    /// elsewhere.
    async fn obey(
        &self,
        signals: &mut Signals,
        ready: &watch::Sender<bool>,
        mut told: watch::Receiver<bool>,
    ) -> anyhow::Result<Infallible> {
        loop {
            let arrived = signals.next().await?;
            if arrived.from_terminal {
                continue;
            }
            if arrived.is_stop() && ready.send_replace(false) && !self.ports.is_empty() {
                let learnt = async {
                    // An error means that the heartbeats ended: nobody is left to tell.
                    let _ = told.wait_for(|ready| !ready).await;
                    tokio::time::sleep(FAREWELL / 3).await;
                };
                let _ = tokio::time::timeout(FAREWELL, learnt).await;
            }
            let pid = i32::try_from(self.pid).context("a process id beyond the kernel's range")?;
            let _ = kill(Pid::from_raw(pid), arrived.signal);
        }
    }
}
