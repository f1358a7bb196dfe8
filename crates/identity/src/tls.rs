//! skeleton
#![allow(missing_docs)]
use crate::svid::Svid;
pub use crate::verify::VerifyError;
use model::{SpiffeId, mesh::TrustBundle};
use rustls::{ClientConfig, ServerConfig, crypto::CryptoProvider, pki_types::CertificateDer};
use std::sync::Arc;
pub fn provider() -> Arc<CryptoProvider> { todo!() }
pub struct Credentials;
impl Credentials {
    pub fn new(_svid: Svid, _bundle: TrustBundle) -> Arc<Self> { todo!() }
    pub fn set_svid(&self, _svid: Svid) { todo!() }
    pub fn set_bundle(&self, _bundle: TrustBundle) { todo!() }
    pub fn svid(&self) -> Arc<Svid> { todo!() }
    pub fn bundle(&self) -> Arc<TrustBundle> { todo!() }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientAuth { Required, Optional }
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expected { Id(SpiffeId), TrustDomain }
/// Cached: ask for it per connection, it is cheap.
pub fn server_config(_c: &Arc<Credentials>, _alpn: &[&[u8]], _clients: ClientAuth) -> Arc<ServerConfig> { todo!() }
/// Cached: ask for it per connection, it is cheap.
pub fn client_config(_c: &Arc<Credentials>, _expected: Expected, _alpn: &[&[u8]]) -> Arc<ClientConfig> { todo!() }
/// `expected`: None = whoever has CONTROL_PATH in its own trust domain.
pub fn pinned_client_config(_root_pin: &str, _expected: Option<SpiffeId>, _alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, crate::token::InvalidToken> { todo!() }
pub fn peer_id(_certs: &[CertificateDer<'_>]) -> Result<SpiffeId, VerifyError> { todo!() }
pub fn verify_error(_error: &rustls::Error) -> Option<VerifyError> { todo!() }
