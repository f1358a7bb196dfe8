//! The registry as a gRPC service.

use std::net::IpAddr;

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use xds::proto::v1::registry_server::Registry as RegistryRpc;
use xds::proto::v1::{
    DeregisterRequest, DeregisterResponse, HeartbeatRequest, HeartbeatResponse, RegisterRequest,
    RegisterResponse,
};

use super::request::{Wanted, allowed};
use super::{LEASE, Proof, Registered, Registry, RegistryError, Right, finish};
use crate::address::Pool;
use crate::caller::{Caller, Peer};

/// Ports of a proxy that are remembered.
const MAX_PROXY_PORTS: usize = 32;

/// The gRPC service.
#[derive(Clone)]
pub struct RegistryService(pub Registry);

impl RegistryService {
    /// By what right a caller registers: its certificate, a token in `authorization: Bearer`, or
    /// being the same user on this host.
    async fn right(
        &self,
        caller: &Caller,
        peer: Option<&Peer>,
        token: Option<&str>,
    ) -> Result<Right, Status> {
        let authority = &self.0.0.authority;
        match (caller, token) {
            (_, Some(token)) => {
                authority.limit(peer)?;
                match authority.check_token(token).await {
                    Ok(record) => Ok(Right::Token(Box::new(record))),
                    Err(error) => Err(authority.refuse(error)),
                }
            }
            (Caller::Local { uid }, None) => Ok(Right::Local(*uid)),
            (Caller::Workload(id), None) => Ok(Right::Svid(id.clone())),
            (Caller::Anonymous, None) => Err(Status::unauthenticated(
                "registering needs a certificate of this mesh or a join token (`authorization: Bearer TOKEN`)",
            )),
        }
    }
}

/// The token of `authorization: Bearer TOKEN`.
fn bearer(metadata: &MetadataMap) -> Option<String> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

#[tonic::async_trait]
impl RegistryRpc for RegistryService {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let peer = request.extensions().get::<Peer>().copied();
        let token = bearer(request.metadata());
        let right = self.right(&caller, peer.as_ref(), token.as_deref()).await?;
        let wanted = Wanted::read(request.into_inner())?;
        if let Err(error) = allowed(&right, &wanted) {
            return Err(match error {
                RegistryError::Token(error) => self.0.0.authority.refuse(error),
                other => other.into(),
            });
        }
        let transparent = wanted.transparent;
        let registry = self.0.clone();
        let from: Option<IpAddr> = peer.and_then(|p| p.remote).map(|a| a.ip());
        let registered =
            finish(async move { registry.register(right, wanted, from).await }).await?;
        Ok(Response::new(self.answer(
            registered,
            peer.unwrap_or_default(),
            transparent,
        )))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let token = bearer(request.metadata());
        let beat = request.into_inner();
        let proof = Proof {
            caller: &caller,
            token: token.as_deref(),
        };
        let ports = beat
            .proxy_ports
            .into_iter()
            .filter(|(name, port)| name.len() <= 64 && (1..=65_535).contains(port))
            .take(MAX_PROXY_PORTS)
            .collect();
        self.0
            .heartbeat(proof, &beat.workload, beat.ready, ports)
            .await?;
        Ok(Response::new(HeartbeatResponse {
            lease_seconds: LEASE.as_secs() as u32,
        }))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let token = bearer(request.metadata());
        let proof = Proof {
            caller: &caller,
            token: token.as_deref(),
        };
        let workload = request.into_inner().workload;
        self.0.deregister(proof, &workload).await?;
        Ok(Response::new(DeregisterResponse {}))
    }
}

impl RegistryService {
    fn answer(&self, registered: Registered, peer: Peer, transparent: bool) -> RegisterResponse {
        let (v4, v6) = (Pool::Workloads.v4(), Pool::Workloads.v6());
        let (gateway4, gateway6) = Pool::Workloads.at(1);
        let addresses = match registered.place.map(|place| Pool::Workloads.at(place)) {
            Some((a, b)) => vec![
                format!("{a}/{}", v4.prefix_len()),
                format!("{b}/{}", v6.prefix_len()),
            ],
            None => Vec::new(),
        };
        let gateways = if transparent {
            vec![gateway4.to_string(), gateway6.to_string()]
        } else {
            Vec::new()
        };
        RegisterResponse {
            workload_name: registered.workload,
            identity: registered.identity.to_string(),
            addresses,
            dns: gateways.clone(),
            gateways,
            lease_seconds: LEASE.as_secs() as u32,
            join_token: registered.join_token,
            control_address: self.0.control_address(peer, transparent).to_string(),
            root_pin: self.0.0.authority.signer().root_pin(),
            networks: Pool::ALL
                .iter()
                .flat_map(|pool| pool.networks())
                .map(|network| network.to_string())
                .collect(),
        }
    }
}
