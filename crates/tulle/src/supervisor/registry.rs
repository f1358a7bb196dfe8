//! The supervisor's line to the control plane: registration, heartbeats, the farewell.
//!
//! On one host over the unix socket, where the file's permission is the authorisation; elsewhere
//! over TLS with a token or a certificate. The connection is made anew whenever it is needed, so a
//! control plane that was away is found again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use xds::client::{BoxedIo, Dial, RegistryClient};
use xds::proto::v1::{
    DeregisterRequest, HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse,
};

use crate::client::Address;
use crate::supervisor::remote::Proof;

/// No call may take longer; the control plane answers from memory and one local write.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the farewell may hold up the end.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Speaks to the registry of one control plane.
#[derive(Clone)]
pub(crate) struct Registry {
    client: RegistryClient<Channel>,
    address: String,
    /// How to prove who this is; nothing on a unix socket.
    proof: Option<Proof>,
    /// Whether connections show a certificate.
    certified: bool,
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
        Self {
            client: RegistryClient::new(xds::client::channel(dial)),
            address: path.display().to_string(),
            proof: None,
            certified: false,
        }
    }

    /// The registry of a control plane on another host.
    fn over_tls(address: &str, proof: Proof) -> Self {
        Self {
            client: RegistryClient::new(xds::client::channel(proof.dial(address))),
            address: address.to_owned(),
            certified: proof.is_certified(),
            proof: Some(proof),
        }
    }

    /// Tells where the workload's certificate is kept from now on.
    pub(crate) fn keep_in(&self, state_dir: &Path) {
        if let Some(proof) = &self.proof {
            proof.keep_in(state_dir.to_owned());
        }
    }

    fn request<T>(&mut self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(proof) = &self.proof
            && !self.certified
            && proof.is_certified()
        {
            // The connection was made by a newcomer, whom nobody knows any more.
            self.client = RegistryClient::new(xds::client::channel(proof.dial(&self.address)));
            self.certified = true;
        }
        let bearer = self.proof.as_ref().and_then(Proof::bearer);
        if let Some(value) = bearer.and_then(|b| b.parse().ok()) {
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    /// Makes the workload known.
    pub(crate) async fn register(
        &mut self,
        request: RegisterRequest,
    ) -> anyhow::Result<RegisterResponse> {
        let request = self.request(request);
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
        let request = self.request(request);
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
        let request = self.request(request);
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
pub(crate) async fn find(
    address: &Address,
    proof: impl FnOnce() -> anyhow::Result<Proof>,
) -> anyhow::Result<Registry> {
    let path = match address {
        Address::Tcp(address) => return Ok(Registry::over_tls(address, proof()?)),
        Address::Unix(path) => path,
    };
    match UnixStream::connect(path).await {
        Ok(_) => Ok(Registry::at(path)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(anyhow!(
            "the control plane's socket {} belongs to another user: run this as that user, or use --control HOST:15012 with --token-file",
            path.display()
        )),
        Err(_) => Err(anyhow!(
            "no control plane answers at {}: start one with `tulle control`, or name one with --control",
            path.display()
        )),
    }
}
