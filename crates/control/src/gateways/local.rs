//! Gateways as child processes of the control plane: one `tulle gateway` for each, or for all of a
//! class that share one.
//!
//! A Gateway of our class that is accepted gets a process, and loses it when it goes. A process
//! that dies is started again. One that somebody else serves is left alone: a proxy of its name is
//! connected, or its port is taken. All children end with the control plane, however that ends:
//! the supervisor has a thread of its own, since the kernel ties a child's life to the thread that
//! started it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::ObjectKey;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::child::{self, Backoff};
use super::{Program, Unit};
use crate::authority::Authority;
use crate::distribute::Door;
use crate::published::{Address, Problem, Reach};
use crate::state::State;

/// Children at once; each takes threads, memory and ports of this host.
const MAX_CHILDREN: usize = 256;
/// How often it is looked whether somebody else has begun or ceased to serve a Gateway.
const LOOK: Duration = Duration::from_secs(1);
/// How long a proxy may take to finish what it has.
const DRAIN: Duration = Duration::from_secs(5);
/// And how much longer it may take to end.
const GRACE: Duration = Duration::from_secs(3);
/// Life of the join token that a child is started with.
const TOKEN_TTL: Duration = Duration::from_mins(10);

/// The children by Gateway. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Children(Arc<Mutex<BTreeMap<ObjectKey, ChildStatus>>>);

/// A Gateway's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildStatus {
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
}

impl Children {
    /// The process of a Gateway, if this control plane runs one.
    pub fn find(&self, gateway: &ObjectKey) -> Option<ChildStatus> {
        self.lock().get(gateway).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, ChildStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the supervisor works with.
#[derive(Clone)]
pub(crate) struct Supervisor {
    pub(crate) program: Program,
    /// Where the children's state goes.
    pub(crate) data_dir: PathBuf,
    /// Where the gRPC listener is bound.
    pub(crate) xds: SocketAddr,
    pub(crate) state: State,
    pub(crate) authority: Arc<Authority>,
    pub(crate) children: Children,
}

/// A process that is kept running, and the Gateways that it serves.
struct Kept {
    stop: watch::Sender<bool>,
    gateways: Vec<ObjectKey>,
}

/// A supervisor at work.
pub(crate) struct Running {
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    /// Ends all children, each in its own time.
    pub(crate) async fn end(self) {
        self.stop.send_replace(true);
        let thread = self.thread;
        if let Ok(Err(_)) = tokio::task::spawn_blocking(move || thread.join()).await {
            tracing::error!("the supervisor of Gateways' processes ended by a mistake of its own");
        }
    }
}

impl Supervisor {
    /// Begins on a thread of its own.
    pub(crate) fn start(self) -> io::Result<Running> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("gateways".to_owned())
            .spawn(move || runtime.block_on(self.run(stopped)))?;
        Ok(Running { stop, thread })
    }

    async fn run(self, mut stopped: watch::Receiver<bool>) {
        self.state.published().require();
        let mut revision = self.state.revision();
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tasks = JoinSet::new();
        let mut running: BTreeMap<Unit, Kept> = BTreeMap::new();
        loop {
            self.step(&mut running, &mut tasks);
            tokio::select! {
                () = told(&mut stopped) => break,
                _ = revision.changed() => {}
                _ = tick.tick() => {}
                Some(Ok(ended)) = tasks.join_next() => self.forget(&ended, &mut running),
            }
        }
        drop(running);
        while tasks.join_next().await.is_some() {}
    }

    /// Starts what is missing and ends what is too much.
    fn step(&self, running: &mut BTreeMap<Unit, Kept>, tasks: &mut JoinSet<Unit>) {
        let wanted = Unit::all(&self.state);
        for (unit, kept) in running.iter_mut() {
            match wanted.get(unit) {
                Some(gateways) => self.regroup(kept, gateways),
                None => {
                    kept.stop.send_replace(true);
                }
            }
        }
        for (unit, gateways) in wanted {
            if running.contains_key(&unit) {
                continue;
            }
            let problem = if running.len() >= MAX_CHILDREN {
                Some(format!(
                    "this control plane runs {MAX_CHILDREN} proxies of Gateways, which is its limit; start `tulle gateway {}` yourself",
                    unit.arguments().join(" ")
                ))
            } else if self.is_served(&unit) {
                // By somebody else, as far as is known on this host.
                self.reached(&gateways);
                continue;
            } else {
                let mut doors = gateways.iter().flat_map(|key| self.doors(key));
                doors.find_map(|door| taken(&door, &unit))
            };
            if let Some(message) = problem {
                self.refuse(&gateways, &message);
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            tasks.spawn(self.clone().keep(unit.clone(), stopped));
            running.insert(unit, Kept { stop, gateways });
        }
    }

    /// Takes note of which Gateways a running process serves now.
    fn regroup(&self, kept: &mut Kept, gateways: &[ObjectKey]) {
        if kept.gateways == gateways {
            return;
        }
        let mut children = self.children.lock();
        let status = kept
            .gateways
            .iter()
            .find_map(|key| children.get(key))
            .cloned();
        for gone in kept.gateways.iter().filter(|key| !gateways.contains(key)) {
            children.remove(gone);
            self.state.published().set(gone.clone(), None);
        }
        if let Some(status) = status {
            for new in gateways {
                children.insert(new.clone(), status.clone());
            }
        }
        drop(children);
        self.reached(gateways);
        kept.gateways = gateways.to_vec();
    }

    fn doors(&self, gateway: &ObjectKey) -> Vec<Door> {
        self.state.distribution().doors(gateway)
    }

    /// Whether a proxy of this name is connected. None of ours is when this is asked.
    fn is_served(&self, unit: &Unit) -> bool {
        let node = unit.node_id();
        let clients = self.state.distribution().distributor().clients();
        clients.iter().any(|client| client.node_id == node)
    }

    fn refuse(&self, gateways: &[ObjectKey], message: &str) {
        let reach = Reach {
            addresses: Vec::new(),
            problem: Some(Problem {
                reason: "NoResources",
                message: message.to_owned(),
            }),
        };
        for key in gateways {
            if self.state.published().find(key).as_ref() != Some(&reach) {
                tracing::warn!(gateway = %key, "not started: {message}");
            }
            self.state.published().set(key.clone(), Some(reach.clone()));
        }
    }

    /// Keeps a process running until it is told to stop, or nobody is left to tell it.
    async fn keep(self, unit: Unit, mut stopped: watch::Receiver<bool>) -> Unit {
        let mut backoff = Backoff::new();
        let mut restarts = 0;
        loop {
            let begun = Instant::now();
            let how = match self.spawn(&unit).await {
                Ok(mut child) => {
                    self.running(&unit, child.id(), restarts);
                    tokio::select! {
                        ended = child.wait() => match ended {
                            Ok(status) => format!("it ended ({status})"),
                            Err(error) => format!("it is lost: {error}"),
                        },
                        () = told(&mut stopped) => {
                            child::end(&mut child, DRAIN + GRACE).await;
                            tracing::info!(gateway = %unit, "the proxy has ended");
                            break;
                        }
                    }
                }
                Err(error) => format!("it cannot be started: {error}"),
            };
            let pause = backoff.after(begun.elapsed());
            restarts += 1;
            let gateways = self.note(&unit, None, restarts);
            self.refuse(
                &gateways,
                &format!(
                    "the Gateway's proxy does not run: {how}; its last words are in the control plane's log. It is started again"
                ),
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told(&mut stopped) => break,
            }
        }
        unit
    }

    /// Nothing serves what a process served that has ended, unless another does by now.
    fn forget(&self, ended: &Unit, running: &mut BTreeMap<Unit, Kept>) {
        let Some(kept) = running.remove(ended) else {
            return;
        };
        for key in kept.gateways {
            if !running.values().any(|other| other.gateways.contains(&key)) {
                self.children.lock().remove(&key);
                self.state.published().set(key, None);
            }
        }
    }

    /// The Gateways that a process serves now.
    fn gateways(&self, unit: &Unit) -> Vec<ObjectKey> {
        Unit::all(&self.state).remove(unit).unwrap_or_default()
    }

    /// Says how a process is. Returns the Gateways that it serves.
    fn note(&self, unit: &Unit, pid: Option<u32>, restarts: u32) -> Vec<ObjectKey> {
        let gateways = self.gateways(unit);
        let mut children = self.children.lock();
        for key in &gateways {
            children.insert(key.clone(), ChildStatus { pid, restarts });
        }
        gateways
    }

    fn running(&self, unit: &Unit, pid: Option<u32>, restarts: u32) {
        tracing::info!(gateway = %unit, pid, restarts, "the proxy runs");
        let gateways = self.note(unit, pid, restarts);
        self.reached(&gateways);
    }

    /// Says where Gateways can be reached that are served.
    fn reached(&self, gateways: &[ObjectKey]) {
        for key in gateways {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in self.doors(key).iter().flat_map(|door| &door.addresses) {
                if !addresses.contains(address) {
                    addresses.push(*address);
                }
            }
            if addresses.is_empty() {
                addresses.push(own_address());
            }
            let reach = Reach {
                addresses: addresses
                    .iter()
                    .map(|address| Address {
                        kind: "IPAddress",
                        value: address.to_string(),
                    })
                    .collect(),
                problem: None,
            };
            self.state.published().set(key.clone(), Some(reach));
        }
    }

    /// Starts a process, with a token in case that it has no valid certificate.
    async fn spawn(&self, unit: &Unit) -> io::Result<tokio::process::Child> {
        let dir = match unit {
            Unit::Gateway(key) => Path::new(&*key.namespace).join(&*key.name),
            // No namespace is called so.
            Unit::Class(class) => Path::new(".class").join(class),
        };
        let dir = self.data_dir.join("gateways").join(dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)?;
        let token = dir.join("token");
        let (namespace, account) = unit.account();
        let (text, _) = self
            .authority
            .issue_token(namespace, account, TOKEN_TTL, "gateways")
            .await
            .map_err(io::Error::other)?;
        write_private(&token, &text.to_string())?;
        let own = std::process::id().to_string();
        let mut command = Command::new(&self.program.path);
        for argument in &self.program.arguments {
            command.arg(argument.replace("{pid}", &own));
        }
        command
            .arg("gateway")
            .args(unit.arguments())
            .args(["--xds", &reachable(self.xds).to_string()])
            .arg("--state-dir")
            .arg(&dir)
            .arg("--token-file")
            .arg(&token)
            .args(["--admin", "off", "--drain"])
            .arg(format!("{}s", DRAIN.as_secs()));
        child::spawn(command)
    }
}

/// Completes when it is said to stop, or nobody is left to say it.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Why a port cannot be served from here, if another process has it.
fn taken(door: &Door, unit: &Unit) -> Option<String> {
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let addresses = match door.addresses.as_slice() {
        [] => &everywhere[..],
        some => some,
    };
    addresses.iter().find_map(|ip| {
        let address = SocketAddr::new(*ip, door.port);
        // Neither shares its port: what listens already is in the way.
        let tried = if door.udp {
            UdpSocket::bind(address).map(drop)
        } else {
            TcpListener::bind(address).map(drop)
        };
        let error = tried.err()?;
        (error.kind() == io::ErrorKind::AddrInUse).then(|| {
            format!(
                "port {} is taken by another process (`ss -lntup` shows which), which may be a proxy that serves {unit} already; it is left alone",
                door.port,
            )
        })
    })
}

/// Where a child reaches a listener of this process.
fn reachable(bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bound.port())
    } else {
        bound
    }
}

/// The address by which others know this host: that of its default route, or loopback.
fn own_address() -> IpAddr {
    // Nothing is sent: the kernel only says which way it would go (RFC 5737 address).
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
            socket.local_addr()
        })
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// Writes a secret so that nobody else can read it, even for a moment.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, path)
}
