//! The supervisor's line to the control plane: registration, heartbeats, the farewell.
//!
//! On one host over the unix socket, where the file's permission is the authorisation. The
//! connection is made anew whenever it is needed, so a control plane that was away is found again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use xds::client::{BoxedIo, Dial, RegistryClient};
use xds::proto::v1::{
    DeregisterRequest, HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse,
};

use crate::client::Address;

/// No call may take longer; the control plane answers from memory and one local write.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the farewell may hold up the end.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Speaks to the registry of one control plane.
#[derive(Clone)]
pub(crate) struct Registry {
    client: RegistryClient<Channel>,
    address: String,
}

impl Registry {
    /// The registry behind a unix socket.
    pub(crate) fn at(path: &Path) -> Self {
        let owned = path.to_owned();
        let dial: Dial = Arc::new(move || {
            let path = owned.clone();
            Box::pin(async move {
                let stream = UnixStream::connect(path).await?;
                Ok(Box::new(stream) as BoxedIo)
            })
        });
        Self::over(dial, path.display().to_string())
    }

    /// The registry that connections made by `dial` lead to.
    pub(crate) fn over(dial: Dial, address: String) -> Self {
        Self {
            client: RegistryClient::new(xds::client::channel(dial)),
            address,
        }
    }

    /// Makes the workload known.
    pub(crate) async fn register(
        &mut self,
        request: RegisterRequest,
    ) -> anyhow::Result<RegisterResponse> {
        let call = self.client.register(request);
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.explain(&status)),
            Err(_) => Err(anyhow!(
                "the control plane at {} did not answer the registration within {} s; see its log",
                self.address,
                CALL_TIMEOUT.as_secs()
            )),
        }
    }

    /// Renews the lease; an error with [`Code::NotFound`] means that it has ended.
    pub(crate) async fn heartbeat(
        &mut self,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, Status> {
        let call = self.client.heartbeat(request);
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    /// Makes the workload forgotten, if the control plane listens just now; otherwise its lease
    /// ends by itself.
    pub(crate) async fn deregister(&mut self, workload: &str) {
        let request = DeregisterRequest {
            workload: workload.to_owned(),
        };
        let call = self.client.deregister(request);
        if let Ok(Err(status)) = tokio::time::timeout(FAREWELL_TIMEOUT, call).await {
            tracing::debug!(workload, %status, "not deregistered; the lease will end by itself");
        }
    }

    fn explain(&self, status: &Status) -> anyhow::Error {
        match status.code() {
            Code::Unavailable | Code::Unknown => anyhow!(
                "no control plane answers at {}: start one with `tulle control`, or name one with --control",
                self.address
            ),
            Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition => {
                crate::failure::usage!("registration refused: {}", status.message())
            }
            Code::PermissionDenied | Code::Unauthenticated => anyhow!(
                "registration refused: {}; on another host than the control plane's, a token is needed (--token-file, from `tulle token create`)",
                status.message()
            ),
            _ => anyhow!("registration failed: {}", status.message()),
        }
    }
}

/// Finds the control plane: fails early, and in words, when nobody is there.
pub(crate) async fn find(address: &Address) -> anyhow::Result<Registry> {
    match address {
        Address::Unix(path) => {
            if let Err(error) = UnixStream::connect(path).await {
                return Err(match error.kind() {
                    io::ErrorKind::PermissionDenied => anyhow!(
                        "the control plane's socket {} belongs to another user: run this as that user, or use --control HOST:15012 with --token-file",
                        path.display()
                    ),
                    _ => anyhow!(
                        "no control plane answers at {}: start one with `tulle control`, or name one with --control",
                        path.display()
                    ),
                });
            }
            Ok(Registry::at(path))
        }
        Address::Tcp(_) => Err(anyhow!("not a unix socket")).context("finding the control plane"),
    }
}
