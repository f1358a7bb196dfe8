//! Gateways as child processes of the control plane, one `tulle gateway` for each.
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

use config::{ObjectKey, ObjectKind};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Program;
use super::child::{self, Backoff};
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
        let mut running: BTreeMap<ObjectKey, watch::Sender<bool>> = BTreeMap::new();
        loop {
            self.step(&mut running, &mut tasks);
            tokio::select! {
                () = told(&mut stopped) => break,
                _ = revision.changed() => {}
                _ = tick.tick() => {}
                Some(Ok(ended)) = tasks.join_next() => {
                    running.remove(&ended);
                }
            }
        }
        drop(running);
        while tasks.join_next().await.is_some() {}
    }

    /// Starts what is missing and ends what is too much.
    fn step(
        &self,
        running: &mut BTreeMap<ObjectKey, watch::Sender<bool>>,
        tasks: &mut JoinSet<ObjectKey>,
    ) {
        let wanted = self.wanted();
        for (key, stop) in running.iter() {
            if !wanted.contains_key(key) {
                stop.send_replace(true);
            }
        }
        for (key, doors) in wanted {
            if running.contains_key(&key) {
                continue;
            }
            let problem = if running.len() >= MAX_CHILDREN {
                Some(format!(
                    "this control plane runs {MAX_CHILDREN} proxies of Gateways, which is its limit; start `tulle gateway --name {}` yourself",
                    name(&key)
                ))
            } else if self.is_served(&key) {
                // By somebody else, as far as is known on this host.
                self.reached(&key);
                continue;
            } else {
                doors.iter().find_map(|door| taken(door, &key))
            };
            if let Some(message) = problem {
                self.refuse(key, &message);
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            tasks.spawn(self.clone().keep(key.clone(), stopped));
            running.insert(key, stop);
        }
    }

    /// The Gateways that are to be served, with their ports.
    fn wanted(&self) -> BTreeMap<ObjectKey, Vec<Door>> {
        let distribution = self.state.distribution();
        self.state
            .list(ObjectKind::Gateway, None)
            .into_iter()
            .map(|entry| entry.object.key.clone())
            .filter(|key| distribution.is_accepted(key))
            .map(|key| {
                let doors = distribution.doors(&key);
                (key, doors)
            })
            .collect()
    }

    /// Whether a proxy of this name is connected. None of ours is when this is asked.
    fn is_served(&self, key: &ObjectKey) -> bool {
        let node = format!("gateway/{}", name(key));
        let clients = self.state.distribution().distributor().clients();
        clients.iter().any(|client| client.node_id == node)
    }

    fn refuse(&self, key: ObjectKey, message: &str) {
        let reach = Reach {
            addresses: Vec::new(),
            problem: Some(Problem {
                reason: "NoResources",
                message: message.to_owned(),
            }),
        };
        if self.state.published().find(&key).as_ref() != Some(&reach) {
            tracing::warn!(gateway = name(&key), "not started: {message}");
        }
        self.state.published().set(key, Some(reach));
    }

    /// Keeps a Gateway's process running until it is told to stop, or nobody is left to tell it.
    async fn keep(self, key: ObjectKey, mut stopped: watch::Receiver<bool>) -> ObjectKey {
        let mut backoff = Backoff::new();
        let mut restarts = 0;
        loop {
            let begun = Instant::now();
            let how = match self.spawn(&key).await {
                Ok(mut child) => {
                    self.running(&key, child.id(), restarts);
                    tokio::select! {
                        ended = child.wait() => match ended {
                            Ok(status) => format!("it ended ({status})"),
                            Err(error) => format!("it is lost: {error}"),
                        },
                        () = told(&mut stopped) => {
                            child::end(&mut child, DRAIN + GRACE).await;
                            tracing::info!(gateway = name(&key), "the Gateway's proxy has ended");
                            break;
                        }
                    }
                }
                Err(error) => format!("it cannot be started: {error}"),
            };
            let pause = backoff.after(begun.elapsed());
            restarts += 1;
            self.children.lock().insert(
                key.clone(),
                ChildStatus {
                    pid: None,
                    restarts,
                },
            );
            self.refuse(
                key.clone(),
                &format!(
                    "the Gateway's proxy does not run: {how}; its last words are in the control plane's log. It is started again"
                ),
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told(&mut stopped) => break,
            }
        }
        self.children.lock().remove(&key);
        self.state.published().set(key.clone(), None);
        key
    }

    fn running(&self, key: &ObjectKey, pid: Option<u32>, restarts: u32) {
        tracing::info!(
            gateway = name(key),
            pid,
            restarts,
            "the Gateway's proxy runs"
        );
        let status = ChildStatus { pid, restarts };
        self.children.lock().insert(key.clone(), status);
        self.reached(key);
    }

    /// Says where a Gateway can be reached that is served.
    fn reached(&self, key: &ObjectKey) {
        let doors = self.state.distribution().doors(key);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in doors.iter().flat_map(|door| &door.addresses) {
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

    /// Starts a Gateway's process, with a token in case that it has no valid certificate.
    async fn spawn(&self, key: &ObjectKey) -> io::Result<tokio::process::Child> {
        let dir = self.data_dir.join("gateways");
        let dir = dir.join(&*key.namespace).join(&*key.name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)?;
        let token = dir.join("token");
        let (text, _) = self
            .authority
            .issue_token(&key.namespace, &key.name, TOKEN_TTL, "gateways")
            .await
            .map_err(io::Error::other)?;
        write_private(&token, &text.to_string())?;
        let own = std::process::id().to_string();
        let mut command = Command::new(&self.program.path);
        for argument in &self.program.arguments {
            command.arg(argument.replace("{pid}", &own));
        }
        command
            .args(["gateway", "--name", &name(key)])
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

/// `namespace/name`.
fn name(key: &ObjectKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}

/// Why a port cannot be served from here, if another process has it.
fn taken(door: &Door, key: &ObjectKey) -> Option<String> {
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
                "port {} is taken by another process (`ss -lntup` shows which), which may be a proxy that serves {} already; it is left alone",
                door.port,
                name(key)
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
