//! Join tokens: how a workload that has no certificate yet earns its first one.
//!
//! `tulle1.<id>.<secret>.<pin>`: the id finds the record, the 256-bit secret proves the right, the
//! pin names the root that the control plane must prove before the secret is shown to it. The
//! control plane keeps [`JoinToken::hash`] only; that a token is used once and expires is kept
//! beside it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::key::sha256;

/// A text that is no join token. What the text was is not repeated: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Not four parts beginning with `tulle1`.
    #[error(
        "not a join token: expected tulle1.<id>.<secret>.<pin>, as `tulle token create` prints it"
    )]
    Shape,
    /// A part has the wrong length or characters.
    #[error("the join token's {0} is damaged; was it copied whole?")]
    Part(&'static str),
    /// No randomness.
    #[error("cannot make a join token: the system gave no randomness")]
    Random,
}

/// A secret that can be turned into an identity once.
pub struct JoinToken {
    id: String,
    secret: Zeroizing<String>,
    pin: String,
}

const PREFIX: &str = "tulle1";
const ID_BYTES: usize = 12;
const SECRET_BYTES: usize = 32;

impl JoinToken {
    /// Makes a token for the mesh whose root has this pin ([`crate::ca::Authority::root_pin`]).
    pub fn generate(pin: &str) -> Result<Self, InvalidToken> {
        check("pin", pin, 32)?;
        let mut id = [0; ID_BYTES];
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        aws_lc_rs::rand::fill(&mut id).map_err(|_| InvalidToken::Random)?;
        aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|_| InvalidToken::Random)?;
        Ok(Self {
            id: URL_SAFE_NO_PAD.encode(id),
            secret: Zeroizing::new(URL_SAFE_NO_PAD.encode(*secret)),
            pin: pin.to_owned(),
        })
    }

    /// Names the token; not secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Pin of the mesh's root; not secret.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// What the control plane keeps: it finds nothing out about the secret from it.
    ///
    /// A plain SHA-256 is enough, because the secret has 256 random bits.
    pub fn hash(&self) -> String {
        let text = Zeroizing::new(format!("{PREFIX}.{}.{}", self.id, *self.secret));
        URL_SAFE_NO_PAD.encode(sha256(text.as_bytes()))
    }

    /// Whether this is the token with that [`hash`](Self::hash), in constant time.
    pub fn matches(&self, stored_hash: &str) -> bool {
        self.hash().as_bytes().ct_eq(stored_hash.as_bytes()).into()
    }
}

fn check(part: &'static str, text: &str, bytes: usize) -> Result<(), InvalidToken> {
    // The length is compared first, so that a huge text is not decoded.
    let decoded = (text.len() == (bytes * 4).div_ceil(3))
        .then(|| URL_SAFE_NO_PAD.decode(text).ok().map(Zeroizing::new))
        .flatten();
    match decoded {
        Some(decoded) if decoded.len() == bytes => Ok(()),
        _ => Err(InvalidToken::Part(part)),
    }
}

/// Checks a pin: base64url of 32 bytes.
pub(crate) fn check_pin(pin: &str) -> Result<(), InvalidToken> {
    check("pin", pin, 32)
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut parts = text.trim().split('.');
        let (Some(PREFIX), Some(id), Some(secret), Some(pin), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(InvalidToken::Shape);
        };
        check("id", id, ID_BYTES)?;
        check("secret", secret, SECRET_BYTES)?;
        check("pin", pin, 32)?;
        Ok(Self {
            id: id.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
            pin: pin.to_owned(),
        })
    }
}

/// The whole token, secret included: for the one who asked for it.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, secret, pin) = (&self.id, &*self.secret, &self.pin);
        write!(f, "{PREFIX}.{id}.{secret}.{pin}")
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken::generate(&crate::key::pin(b"root")).unwrap()
    }

    #[test]
    fn a_token_survives_its_text_and_matches_only_its_own_hash() {
        let token = token();
        let read: JoinToken = format!(" {token}\n").parse().unwrap();
        assert_eq!(read.to_string(), token.to_string());
        assert!(read.matches(&token.hash()));
        assert!(!self::token().matches(&token.hash()));
        assert!(!read.matches(""));
        assert!(!token.hash().contains(&*token.secret));
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = token();
        assert!(!format!("{token:?}").contains(&*token.secret));
    }

    proptest! {
        #[test]
        fn a_changed_token_is_refused_or_does_not_match(at in 0usize..200, with in "[A-Za-z0-9._-]") {
            let token = token();
            let text = token.to_string();
            let at = at % text.len();
            let mut forged = text.clone();
            forged.replace_range(at..=at, &with);
            prop_assume!(forged != text);
            if let Ok(forged) = forged.parse::<JoinToken>() {
                prop_assert!(!forged.matches(&token.hash()) || forged.pin() != token.pin());
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,300}") {
            prop_assert!(text.parse::<JoinToken>().is_err());
        }
    }
}
