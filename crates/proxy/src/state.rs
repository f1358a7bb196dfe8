//! What this proxy knows of the mesh, and how it comes to know more.
//!
//! [`State`] is what requests read: one snapshot, replaced whole when a destination comes or goes;
//! a destination's own configuration is replaced within it. [`Updater`] is the one writer, on the
//! control thread: it turns batches from the control plane into snapshots, and wants of the workers
//! into subscriptions. A destination is subscribed to when it is first asked for and forgotten when
//! nobody has asked for long.

mod updater;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::ServiceName;
use model::endpoint::{self, Health};
use model::mesh::{Mesh, OutboundPolicy};
use model::service::{Port, Service};
use model::workload::{Tunnel, Workload};
use tokio::sync::{mpsc, watch};

use crate::destination::{Destination, Endpoint, EndpointLive, seconds};
use crate::gateway::Listeners;
use crate::options::Mode;
use crate::request::Limiters;
use crate::worker::Map;

pub(crate) use updater::Updater;

/// Longest wait for the control plane to tell about a destination that is new to this proxy.
const LOOKUP: Duration = Duration::from_secs(5);
/// Lookups that may wait for the control thread.
const WANTS: usize = 1024;

/// What requests read.
pub(crate) struct State {
    snapshot: ArcSwap<Snapshot>,
    /// Counts snapshots; raised once one is in force.
    version: AtomicU64,
    changed: watch::Sender<u64>,
    wants: mpsc::Sender<Want>,
    connected: AtomicBool,
}

/// Everything known at one moment.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) own: Option<Arc<Own>>,
    pub(crate) listeners: Arc<Listeners>,
    /// Enough is known to serve.
    ready: bool,
    services: Map<ServiceName, Entry<Arc<Destination>>>,
    addresses: Map<IpAddr, Entry<Arc<Destination>>>,
}

/// The proxy's own workload, and its application as an endpoint.
pub(crate) struct Own {
    pub(crate) workload: Arc<Workload>,
    /// The application's host, for metrics: its service account's, since one workload can serve
    /// several services and a caller may write what it likes into `Host`.
    pub(crate) host: Arc<str>,
    pub(crate) application: Arc<Endpoint>,
    /// How many requests its ports take.
    limits: Vec<(Vec<u16>, Arc<Limiters>)>,
}

#[derive(Clone)]
enum Entry<T> {
    Present(T),
    Absent,
}

/// The answer to a lookup.
pub(crate) enum Lookup<T> {
    Found(T),
    /// The control plane says that there is no such thing.
    Absent,
    /// The control plane does not answer.
    Unknown,
}

/// Something a worker asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Want {
    Service(ServiceName),
    Address(IpAddr),
}

impl State {
    /// An empty state, and where its updater reads what workers want.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Want>) {
        let (wants, wanted) = mpsc::channel(WANTS);
        let state = Self {
            snapshot: ArcSwap::default(),
            version: AtomicU64::new(0),
            changed: watch::channel(0).0,
            wants,
            connected: AtomicBool::new(false),
        };
        (Arc::new(state), wanted)
    }

    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The snapshot, to be kept.
    pub(crate) fn whole(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// As long as this is the same, so is the snapshot.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Is told of each new snapshot.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Completes when the proxy knows enough to serve: its own workload, or its Gateways with their
    /// routes and all that those lead to.
    pub(crate) async fn configured(&self) {
        let mut changed = self.changed.subscribe();
        while !self.snapshot().ready {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// A service by name. Waits, once per service, until the control plane has told about it.
    pub(crate) async fn service(&self, name: &ServiceName) -> Lookup<Arc<Destination>> {
        if let Some(Entry::Present(destination)) = self.snapshot().services.get(name) {
            destination.touch(seconds());
            return Lookup::Found(Arc::clone(destination));
        }
        self.look_up(Want::Service(name.clone()), |s| {
            s.services.get(name).cloned()
        })
        .await
    }

    /// The service or workload that has an address of the mesh's networks. A workload asked for by
    /// its own address is a destination of its own, with one endpoint and without routes.
    pub(crate) async fn address(&self, address: IpAddr) -> Lookup<Arc<Destination>> {
        if let Some(Entry::Present(found)) = self.snapshot().addresses.get(&address) {
            found.touch(seconds());
            return Lookup::Found(Arc::clone(found));
        }
        self.look_up(Want::Address(address), |s| {
            s.addresses.get(&address).cloned()
        })
        .await
    }

    async fn look_up<T>(
        &self,
        want: Want,
        find: impl Fn(&Snapshot) -> Option<Entry<T>>,
    ) -> Lookup<T> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            let mut asked = false;
            loop {
                match find(&self.snapshot()) {
                    Some(Entry::Present(found)) => return Lookup::Found(found),
                    Some(Entry::Absent) => return Lookup::Absent,
                    None => {}
                }
                if !asked {
                    asked = true;
                    if self.wants.send(want.clone()).await.is_err() {
                        return Lookup::Unknown;
                    }
                } else if changed.changed().await.is_err() {
                    return Lookup::Unknown;
                }
            }
        };
        // Without a control plane there is nobody to wait for, but for the moment of a reconnect.
        let limit = if self.connected() { LOOKUP } else { LOOKUP / 5 };
        tokio::time::timeout(limit, wait)
            .await
            .unwrap_or(Lookup::Unknown)
    }
}

impl Snapshot {
    /// A service that is known.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&Arc<Destination>> {
        match self.services.get(name)? {
            Entry::Present(destination) => Some(destination),
            Entry::Absent => None,
        }
    }

    pub(crate) fn allows_outside(&self) -> bool {
        self.mesh.outbound == OutboundPolicy::AllowAny
    }

    pub(crate) fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.services.values().filter_map(|e| match e {
            Entry::Present(destination) => Some(destination),
            Entry::Absent => None,
        })
    }
}

impl Own {
    fn new(workload: &Workload, mode: Mode, before: Option<&Self>) -> Self {
        let address = match mode {
            Mode::Explicit => Some(IpAddr::from([127, 0, 0, 1])),
            Mode::Transparent => workload.addresses.first().copied(),
        };
        let mut config = endpoint_config(workload, address);
        config.tunnel = Tunnel::None;
        let account = workload
            .identity
            .service_account()
            .map_or(workload.name.name(), |(_, account)| account);
        Self {
            host: format!(
                "{account}.{}.svc.{}",
                workload.name.namespace(),
                model::name::CLUSTER_DOMAIN
            )
            .into(),
            workload: Arc::new(workload.clone()),
            application: Arc::new(Endpoint::new(&config, EndpointLive::alone())),
            limits: limits(workload, before),
        }
    }

    /// The limits on requests to one of its ports.
    pub(crate) fn limits(&self, port: u16) -> impl Iterator<Item = &Limiters> {
        let own = self
            .limits
            .iter()
            .filter(move |(ports, _)| ports.contains(&port));
        own.map(|(_, limiters)| limiters.as_ref())
    }
}

/// What was counted stays.
fn limits(workload: &Workload, before: Option<&Own>) -> Vec<(Vec<u16>, Arc<Limiters>)> {
    let before = before.map_or(&[][..], |own| own.limits.as_slice());
    let known: Vec<Arc<Limiters>> = before.iter().map(|(_, l)| Arc::clone(l)).collect();
    let limits = workload.limits.iter();
    limits
        .map(|limits| (limits.ports.clone(), Limiters::of_workload(limits, &known)))
        .collect()
}

fn service_of_workload(workload: &Workload, address: IpAddr) -> Service {
    let ports = workload.ports.iter().map(|p| Port {
        name: p.name.clone(),
        number: p.number,
        protocol: p.protocol,
    });
    Service {
        name: workload.name.clone(),
        addresses: vec![address],
        ports: ports.collect(),
        headless: false,
        near: false,
    }
}

fn endpoint_config(workload: &Workload, address: Option<IpAddr>) -> endpoint::Endpoint {
    endpoint::Endpoint {
        service: workload.name.clone(),
        workload: workload.name.clone(),
        addresses: address.into_iter().collect(),
        ports: workload
            .ports
            .iter()
            .map(|p| (p.number, p.number))
            .collect(),
        tunnel: workload.tunnel,
        identity: workload.identity.clone(),
        health: Health::Healthy,
        weight: 1,
        locality: workload.locality.clone(),
        version: workload.labels.get("version").cloned().unwrap_or_default(),
    }
}
