//! skeleton
#![allow(missing_docs)]
pub struct JoinToken;
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: {0}")]
pub struct InvalidToken(pub &'static str);
impl JoinToken {
    pub fn generate(_pin: &str) -> Result<Self, InvalidToken> { todo!() }
    pub fn id(&self) -> &str { todo!() }
    pub fn pin(&self) -> &str { todo!() }
    pub fn hash(&self) -> String { todo!() }
    /// Constant-time comparison with a stored hash.
    pub fn matches(&self, _stored_hash: &str) -> bool { todo!() }
}
impl std::fmt::Display for JoinToken { fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { todo!() } }
impl std::str::FromStr for JoinToken { type Err = InvalidToken; fn from_str(_s: &str) -> Result<Self, InvalidToken> { todo!() } }
