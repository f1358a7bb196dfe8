//! Versions of resources: what changes when, and only when, the bytes do.

use std::fmt;

/// A fingerprint of a resource's bytes: 128-bit FNV-1a, written as 32 hexadecimal digits.
///
/// It is stable between builds and machines, so that equal replicas of the control plane give equal
/// versions. It is no cryptographic hash: who may write a resource can, with effort, find another
/// with the same version, and gains no more than that proxies keep the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u128);

const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

impl Version {
    /// The version of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(OFFSET, |hash, byte| {
            (hash ^ u128::from(*byte)).wrapping_mul(PRIME)
        }))
    }

    /// Reads what `Display` writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits =
            text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !digits {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the reference list of draft-eastlake-fnv.
        assert_eq!(
            Version::of(b"a").to_string(),
            "d228cb696f1a8caf78912b704e4a8964"
        );
        assert_eq!(
            Version::parse(&Version::of(b"x").to_string()),
            Some(Version::of(b"x"))
        );
        assert_eq!(Version::parse("1"), None);
        assert_eq!(Version::parse(&"+".repeat(32)), None);
    }
}
