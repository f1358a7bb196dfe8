//! Kubernetes: its API server as the source of objects, and the place where status is written.
//!
//! [`client`] finds the API server, [`source`] follows what it says, [`lease`] decides which
//! replica writes, [`peers`] tells that one what proxies of others acknowledged, and [`status`] writes. Everything else of the control plane is as it is without Kubernetes: the
//! objects go through the same door, are kept in the same store, from which the control plane
//! starts while the API server is away, and reach proxies in the same way.

use std::time::Duration;

use tokio::sync::watch as signal;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

pub mod account;
pub mod authority;
pub mod client;
pub mod gateways;
mod kinds;
pub mod lease;
mod objects;
mod peers;
mod report;
mod said;
mod secrets;
mod seen;
mod source;
mod status;
mod watch;

pub use client::{Cluster, ConnectError, connect};
pub use report::Report;
pub use source::Kubernetes;

use crate::source::follow;
use crate::state::State;

/// With objects from an earlier run at hand the API server is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// All that runs for a cluster.
pub struct Running {
    cluster: Cluster,
    identity: String,
    holder: AbortHandle,
    report: Report,
    leader: signal::Receiver<bool>,
    synced: signal::Receiver<bool>,
    /// There are objects from an earlier run.
    cached: bool,
}

/// Starts the source and what writes to the cluster; all of it ends with `tasks`.
pub fn start(cluster: Cluster, state: &State, tasks: &mut JoinSet<()>) -> Running {
    let identity = identity();
    let (lead, leader) = signal::channel(false);
    let holder = tasks.spawn(lease::hold(cluster.clone(), identity.clone(), lead));
    let kept = state.of_kubernetes();
    let cached = !kept.is_empty();
    let asked = state.clone();
    let wanted = Box::new(move || asked.distribution().wanted_secrets());
    let source = Kubernetes::watch(&cluster, kept, leader.clone(), wanted);
    let (report, synced) = (source.report(), source.synced());
    let writer = status::Writer {
        client: cluster.client.clone(),
        state: state.clone(),
        seen: source.seen(),
        report: report.clone(),
    };
    tasks.spawn(status::write(writer, leader.clone()));
    let (said, heard) = (cluster.clone(), cluster.clone());
    tasks.spawn(peers::speak(
        said,
        identity.clone(),
        state.clone(),
        leader.clone(),
    ));
    tasks.spawn(peers::listen(heard, identity.clone(), state.clone()));
    tasks.spawn(follow(source, state.clone()));
    tracing::info!(
        url = cluster.url,
        namespace = cluster.namespace,
        "objects are those of Kubernetes"
    );
    Running {
        cluster,
        identity,
        holder,
        report,
        leader,
        synced,
        cached,
    }
}

impl Running {
    /// Waits until every kind was listed. With objects from an earlier run at hand only for a
    /// while: proxies are better served with these than not at all.
    pub async fn first_lists(&mut self) {
        let listed = self.synced.wait_for(|synced| *synced);
        if !self.cached {
            // The source lives as long as the control plane.
            let _ = listed.await;
        } else if timeout(PATIENCE, listed).await.is_err() {
            tracing::warn!(
                "begins with the objects of the last run, for not all could be listed: {}",
                self.report.missing()
            );
        }
    }

    /// What there is to say of the source.
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// The API server.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whether this replica is the one that writes to the cluster.
    pub fn leader(&self) -> signal::Receiver<bool> {
        self.leader.clone()
    }

    /// Gives up what others may be waiting for.
    pub async fn stop(&self) {
        self.holder.abort();
        if *self.leader.borrow() {
            lease::release(&self.cluster, &self.identity).await;
        }
    }
}

/// Tells replicas apart; the host's name is for people.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:08x}", host.trim(), rand::random::<u32>())
}
