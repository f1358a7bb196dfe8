//! Workloads that register themselves: leases with heartbeats.
//!
//! A registration is a `Workload` object that belongs to the registry, with a lease. A heartbeat
//! prolongs the lease in memory and writes nothing, except when the program begins or ceases to
//! take requests; the end of the lease removes the object. That leases exist survives a restart,
//! and each then has its full time once more, so that a control plane that was away does not
//! forget those who could not reach it.
//!
//! Who may register: a process of the same user on this host, anything; the holder of a join
//! token, what the token was issued for; a workload with a certificate, its own identity.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use config::{Object, ObjectKey, ObjectKind, Spec};
use model::SpiffeId;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::address::{Allotment, Pool};
use crate::authority::{Authority, TokenError};
use crate::caller::{Caller, Peer};
use crate::change::{Also, ApplyError, Change, ChangeSet, OnConflict, Origin};
use crate::metrics::Metrics;
use crate::state::State;
use crate::store::lease::Lease;
use crate::store::{self, StoreError};

mod request;
mod service;

#[cfg(test)]
mod tests;

pub use service::RegistryService;

/// Time after the last heartbeat until a workload is forgotten.
pub const LEASE: Duration = Duration::from_secs(15);
/// How often ended leases are looked for.
const SWEEP: Duration = Duration::from_millis(500);
/// Life of the join token that a registration comes with.
const FIRST_TOKEN_TTL: Duration = Duration::from_mins(10);
/// Workloads that may be registered at once.
const MAX_LEASES: usize = 50_000;

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    state: State,
    authority: Arc<Authority>,
    metrics: Metrics,
    /// Where the gRPC listener is bound.
    control: SocketAddr,
    live: Mutex<Live>,
    /// Held while objects of the registry change, so that the end of a lease and a new
    /// registration of the same name come one after the other.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Live {
    leases: HashMap<String, LiveLease>,
    addresses: Allotment,
}

/// A lease as it is now.
#[derive(Debug, Clone)]
pub struct LiveLease {
    /// What the store keeps of it.
    pub lease: Lease,
    /// When it ends without a heartbeat.
    pub until: Instant,
    /// The last heartbeat or the registration; unknown after a restart.
    pub seen: Option<SystemTime>,
    /// The proxy's ports by purpose.
    pub proxy_ports: BTreeMap<String, u32>,
}

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No right to it.
    #[error("{0}")]
    Denied(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The name is another's.
    #[error("{0}")]
    Taken(String),
    /// No such lease.
    #[error("workload {0} has no lease here: it ended, or was never registered; register again")]
    Unknown(String),
    /// Too many.
    #[error("{MAX_LEASES} workloads are registered, which is the limit of one control plane")]
    Full,
    /// The token was refused.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The change was refused.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// No address is left.
    #[error(transparent)]
    Exhausted(#[from] crate::address::Exhausted),
}

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        let code = match &error {
            RegistryError::Denied(_) => Code::PermissionDenied,
            RegistryError::Invalid(_) => Code::InvalidArgument,
            RegistryError::Taken(_) | RegistryError::Apply(ApplyError::Conflict(_)) => {
                Code::AlreadyExists
            }
            RegistryError::Unknown(_) => Code::NotFound,
            RegistryError::Full | RegistryError::Exhausted(_) => Code::ResourceExhausted,
            RegistryError::Apply(ApplyError::TokenSpent) => Code::Unauthenticated,
            RegistryError::Apply(_) => Code::Unavailable,
            RegistryError::Token(_) => match error {
                RegistryError::Token(token) => return token.into(),
                _ => Code::Internal,
            },
        };
        Self::new(code, error.to_string())
    }
}

/// By what right somebody registers.
#[derive(Debug, Clone)]
enum Right {
    /// The same user on this host.
    Local(u32),
    /// A certificate.
    Svid(SpiffeId),
    /// A join token: its record.
    Token(Box<store::token::Token>),
}

/// A registration that was accepted.
#[derive(Debug, Clone)]
pub struct Registered {
    /// `namespace/name`.
    pub workload: String,
    /// Who it is.
    pub identity: SpiffeId,
    /// The place of its address, in transparent mode.
    pub place: Option<u32>,
    /// Token for its first certificate.
    pub join_token: String,
}

impl Registry {
    /// Takes the leases from the store; each has its full time once more.
    pub async fn load(
        state: State,
        authority: Arc<Authority>,
        metrics: Metrics,
        control: SocketAddr,
    ) -> Result<Self, StoreError> {
        let (leases, addresses) = state
            .store()
            .write(|t| Ok((store::lease::all(t)?, store::object::addresses(t)?)))
            .await?;
        let mut live = Live::default();
        for (pool, owner, place) in addresses {
            if pool == Pool::Workloads.as_str() {
                live.addresses.restore(owner, place);
            }
        }
        let until = Instant::now() + LEASE;
        for lease in leases {
            let entry = LiveLease {
                until,
                seen: None,
                proxy_ports: BTreeMap::new(),
                lease: lease.clone(),
            };
            live.leases.insert(lease.workload, entry);
        }
        let registry = Self(Arc::new(Inner {
            state,
            authority,
            metrics,
            control,
            live: Mutex::new(live),
            changing: tokio::sync::Mutex::new(()),
        }));
        registry.forget_orphans().await;
        Ok(registry)
    }

    /// Ends leases whose time is over, for as long as it is polled.
    pub async fn sweep(self) {
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.expire().await;
        }
    }

    /// The lease of a workload, given as `namespace/name`.
    pub fn lease(&self, workload: &str) -> Option<LiveLease> {
        self.lock().leases.get(workload).cloned()
    }

    /// All leases by workload.
    pub fn leases(&self) -> BTreeMap<String, LiveLease> {
        self.lock()
            .leases
            .iter()
            .map(|(name, lease)| (name.clone(), lease.clone()))
            .collect()
    }

    /// Where a workload finds the gRPC listener, depending on how it is connected itself.
    fn control_address(&self, peer: Peer, transparent: bool) -> SocketAddr {
        let bound = self.0.control;
        let ip = match peer.local {
            Some(local) => local.ip(),
            None if !bound.ip().is_unspecified() => bound.ip(),
            None if transparent => IpAddr::V4(Pool::Workloads.at(1).0),
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        if transparent && ip.is_loopback() {
            tracing::warn!(
                %bound,
                "a workload in transparent mode cannot reach this control plane, which listens on loopback only; start it with --xds 0.0.0.0:{}", bound.port()
            );
        }
        SocketAddr::new(ip, bound.port())
    }

    /// Renews a lease. Takes effect even when the change of readiness cannot be written.
    async fn heartbeat(
        &self,
        who: Proof<'_>,
        workload: &str,
        ready: bool,
        proxy_ports: BTreeMap<String, u32>,
    ) -> Result<(), RegistryError> {
        {
            let mut live = self.lock();
            let entry = live
                .leases
                .get_mut(workload)
                .ok_or_else(|| RegistryError::Unknown(workload.to_owned()))?;
            who.may_touch(&entry.lease)?;
            entry.until = Instant::now() + LEASE;
            entry.seen = Some(SystemTime::now());
            entry.proxy_ports = proxy_ports;
            if entry.lease.ready == ready {
                return Ok(());
            }
        }
        let this = self.clone();
        let workload = workload.to_owned();
        finish(async move { this.set_ready(&workload, ready).await }).await
    }

    async fn set_ready(&self, workload: &str, ready: bool) -> Result<(), RegistryError> {
        let _changing = self.0.changing.lock().await;
        let Some(mut entry) = self.lease(workload) else {
            return Err(RegistryError::Unknown(workload.to_owned()));
        };
        if entry.lease.ready == ready {
            return Ok(());
        }
        entry.lease.ready = ready;
        let mut set = ChangeSet {
            who: entry.lease.identity.clone(),
            also: vec![Also::Lease {
                lease: entry.lease.clone(),
                place: None,
            }],
            ..ChangeSet::default()
        };
        if let Some(current) = workload_key(workload).and_then(|key| self.0.state.find(&key)) {
            let mut object = Object::clone(&current.object);
            object.metadata.resource_version = None;
            if let Spec::Workload(spec) = &mut object.spec {
                spec.ready = ready;
            }
            set.changes.push(Change::Put {
                object: Arc::new(object),
                origin: Origin::Registry,
            });
        }
        self.0.state.apply(set).await?;
        if let Some(live) = self.lock().leases.get_mut(workload) {
            live.lease.ready = ready;
        }
        tracing::info!(workload, ready, "workload readiness changed");
        Ok(())
    }

    /// Forgets a workload at its own wish.
    async fn deregister(&self, who: Proof<'_>, workload: &str) -> Result<(), RegistryError> {
        let entry = self
            .lease(workload)
            .ok_or_else(|| RegistryError::Unknown(workload.to_owned()))?;
        who.may_touch(&entry.lease)?;
        let this = self.clone();
        let workload = workload.to_owned();
        finish(async move {
            let _changing = this.0.changing.lock().await;
            this.remove(&workload, &entry.lease.identity).await?;
            tracing::info!(workload, "workload deregistered");
            Ok(())
        })
        .await
    }

    /// Removes object, lease and address; the lease stays when the store fails.
    async fn remove(&self, workload: &str, who: &str) -> Result<(), RegistryError> {
        let mut set = ChangeSet {
            who: who.to_owned(),
            also: vec![Also::EndLease(workload.to_owned())],
            // Somebody may have removed the object already.
            on_conflict: OnConflict::Skip,
            ..ChangeSet::default()
        };
        if let Some(key) = workload_key(workload) {
            set.changes.push(Change::Delete {
                key,
                origin: Origin::Registry,
            });
        }
        self.0.state.apply(set).await?;
        let mut live = self.lock();
        live.leases.remove(workload);
        live.addresses.release(workload);
        Ok(())
    }

    async fn expire(&self) {
        let now = Instant::now();
        let ended: Vec<String> = {
            let live = self.lock();
            let over = live.leases.iter().filter(|(_, l)| l.until <= now);
            over.map(|(name, _)| name.clone()).collect()
        };
        for workload in ended {
            let _changing = self.0.changing.lock().await;
            // It may have come back while others were being removed.
            if self.lease(&workload).is_none_or(|l| l.until > now) {
                continue;
            }
            match self.remove(&workload, "lease").await {
                Ok(()) => {
                    self.0.metrics.leases_expired.inc();
                    tracing::warn!(
                        workload,
                        "workload sent no heartbeat for {} s and is forgotten",
                        LEASE.as_secs()
                    );
                }
                Err(error) => {
                    tracing::error!(
                        workload,
                        "ended lease cannot be removed, trying again: {error}"
                    );
                    return;
                }
            }
        }
    }

    /// Objects of the registry whose lease is gone: only left by a store that was tampered with.
    async fn forget_orphans(&self) {
        for entry in self.0.state.list(ObjectKind::Workload, None) {
            let key = &entry.object.key;
            let workload = format!("{}/{}", key.namespace, key.name);
            if entry.origin == Origin::Registry
                && self.lease(&workload).is_none()
                && let Err(error) = self.remove(&workload, "start").await
            {
                tracing::error!(
                    workload,
                    "workload without a lease cannot be removed: {error}"
                );
            }
        }
    }

    /// Every operation leaves the maps whole.
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a caller proves that a lease is its own.
#[derive(Debug, Clone, Copy)]
struct Proof<'a> {
    caller: &'a Caller,
    token: Option<&'a str>,
}

impl Proof<'_> {
    fn may_touch(self, lease: &Lease) -> Result<(), RegistryError> {
        let holds = match self.caller {
            Caller::Local { .. } => true,
            Caller::Workload(id) => id.as_str() == lease.identity,
            Caller::Anonymous => false,
        };
        // The token that registered it is spent, and still proves who registered it.
        let by_token = || {
            let token: Option<identity::token::JoinToken> = self.token?.parse().ok();
            Some(token?.matches(lease.token_hash.as_deref()?))
        };
        if holds || by_token().unwrap_or(false) {
            return Ok(());
        }
        Err(RegistryError::Denied(format!(
            "workload {} belongs to {}, and the caller is {}",
            lease.workload,
            lease.identity,
            self.caller.name()
        )))
    }
}

/// Runs to the end even when whoever asked goes away in the middle.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
) -> Result<T, RegistryError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(_) => Err(RegistryError::Apply(ApplyError::Stopping)),
    }
}

/// The key of `namespace/name`.
fn workload_key(workload: &str) -> Option<ObjectKey> {
    let (namespace, name) = workload.split_once('/')?;
    Some(ObjectKey::new(ObjectKind::Workload, namespace, name))
}
