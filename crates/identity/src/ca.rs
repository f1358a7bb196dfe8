//! skeleton
#![allow(missing_docs)]
use crate::svid::Svid;
use model::{SpiffeId, TrustDomain, mesh::TrustBundle};
use std::{path::Path, time::{Duration, SystemTime}};
pub const DEFAULT_TTL: Duration = Duration::from_secs(3600);
pub const MAX_TTL: Duration = Duration::from_secs(86_400);
pub struct Authority;
#[derive(Debug, thiserror::Error)]
pub enum CaError {}
#[derive(Debug, thiserror::Error)]
pub enum SignError {}
impl Authority {
    pub fn load_or_create(_dir: &Path, _td: &TrustDomain, _now: SystemTime) -> Result<Self, CaError> { todo!() }
    pub fn trust_bundle(&self) -> TrustBundle { todo!() }
    pub fn root_pin(&self) -> String { todo!() }
    pub fn root_der(&self) -> &[u8] { todo!() }
    pub fn trust_domain(&self) -> &TrustDomain { todo!() }
    /// Renews the intermediate when less than a third of its life is left; true when it did.
    pub fn renew_if_due(&self, _now: SystemTime) -> Result<bool, CaError> { todo!() }
    pub fn sign(&self, _csr_der: &[u8], _id: &SpiffeId, _ttl: Duration, _now: SystemTime) -> Result<Vec<Vec<u8>>, SignError> { todo!() }
    /// chain includes the root, for pinned first contact
    pub fn issue(&self, _id: &SpiffeId, _ttl: Duration, _now: SystemTime) -> Result<Svid, SignError> { todo!() }
}
