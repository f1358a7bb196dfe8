//! The lease: heartbeats as long as the workload lives, through restarts of the control plane.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tonic::Code;
use xds::proto::v1::{HeartbeatRequest, RegisterRequest, RegisterResponse};

use crate::supervisor::registry::Registry;
use crate::supervisor::state;

/// A third of the lease that the registry grants.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often to try again while the control plane is away.
const RETRY: Duration = Duration::from_secs(1);

/// What a lease is renewed with.
pub(crate) struct Lease {
    pub(crate) registry: Registry,
    /// To register again with when the lease was lost; names the instance.
    pub(crate) request: RegisterRequest,
    pub(crate) response: RegisterResponse,
    pub(crate) proxy_ports: BTreeMap<String, u32>,
    /// Where a new join token goes, for a proxy that starts without a valid certificate.
    pub(crate) token_file: PathBuf,
}

/// Renews the lease until the task is dropped; a change of readiness is told at once.
/// `told` follows: the readiness that the control plane has acknowledged.
pub(crate) async fn keep(
    mut lease: Lease,
    mut ready: watch::Receiver<bool>,
    told: watch::Sender<bool>,
) {
    loop {
        let now_ready = *ready.borrow_and_update();
        let wait = match lease.beat(now_ready).await {
            Ok(()) => {
                told.send_replace(now_ready);
                INTERVAL
            }
            Err(status) => {
                tracing::debug!(%status, "heartbeat failed; the proxy goes on with what it knows");
                RETRY
            }
        };
        tokio::select! {
            changed = ready.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Lease {
    async fn beat(&mut self, ready: bool) -> Result<(), tonic::Status> {
        let request = HeartbeatRequest {
            workload: self.response.workload_name.clone(),
            ready,
            proxy_ports: self.proxy_ports.clone(),
        };
        match self.registry.heartbeat(request.clone()).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => {
                self.register_again().await?;
                self.registry.heartbeat(request).await.map(|_| ())
            }
            Err(status) => Err(status),
        }
    }

    async fn register_again(&mut self) -> Result<(), tonic::Status> {
        let response = self
            .registry
            .register(self.request.clone())
            .await
            .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        tracing::info!(workload = %response.workload_name, "registered again after the lease was lost");
        if response.addresses != self.response.addresses && !self.response.addresses.is_empty() {
            tracing::warn!(
                had = ?self.response.addresses, has = ?response.addresses,
                "the registry gave another address than this workload has; restart it"
            );
        }
        if let Err(error) = state::write_token(&self.token_file, &response.join_token) {
            tracing::warn!(%error, "the new join token was not kept");
        }
        self.response = response;
        Ok(())
    }
}
