//! skeleton
#![allow(missing_docs)]
use model::{TrustDomain, mesh::TrustBundle};
pub fn to_pem(_bundle: &TrustBundle) -> String { todo!() }
pub fn from_pem(_domain: &TrustDomain, _pem: &str) -> Result<TrustBundle, crate::inspect::InspectError> { todo!() }
