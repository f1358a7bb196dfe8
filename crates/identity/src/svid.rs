//! skeleton
#![allow(missing_docs)]
use model::SpiffeId;
use std::{path::Path, time::SystemTime};
pub struct Svid;
pub struct PendingKey;
#[derive(Debug, thiserror::Error)]
pub enum SvidError {}
impl PendingKey {
    pub fn generate() -> Result<Self, SvidError> { todo!() }
    pub fn csr_der(&self) -> Result<Vec<u8>, SvidError> { todo!() }
    pub fn into_svid(self, _chain: Vec<Vec<u8>>) -> Result<Svid, SvidError> { todo!() }
}
impl Svid {
    pub fn id(&self) -> &SpiffeId { todo!() }
    pub fn not_before(&self) -> SystemTime { todo!() }
    pub fn not_after(&self) -> SystemTime { todo!() }
    pub fn chain_der(&self) -> Vec<Vec<u8>> { todo!() }
    pub fn renew_at(&self, _random: f64) -> SystemTime { todo!() }
    pub fn save(&self, _path: &Path) -> Result<(), SvidError> { todo!() }
    pub fn load(_path: &Path) -> Result<Self, SvidError> { todo!() }
}
