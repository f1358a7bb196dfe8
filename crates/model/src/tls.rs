//! What of TLS is spoken with the outside: versions, key exchange, cipher suites.
//!
//! Groups and suites have IANA's names and numbers. All of those here are good, so that nobody has to
//! choose; who must prove more, for instance that every key exchange is quantum-safe, can narrow them.

/// What is spoken; by default all that is good.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsOptions {
    /// The lowest version.
    pub min_version: TlsVersion,
    /// Groups for the key exchange, most wanted first; all if empty.
    pub groups: Vec<&'static Code>,
    /// Cipher suites; all if empty.
    pub suites: Vec<&'static Code>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TlsVersion {
    /// 1.2 (RFC 5246), with ephemeral keys and authenticated encryption alone.
    #[default]
    V1_2,
    /// 1.3 (RFC 8446).
    V1_3,
}

/// A group or a cipher suite.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// IANA's name.
    pub name: &'static str,
    /// IANA's number.
    pub number: u16,
}

const fn code(name: &'static str, number: u16) -> Code {
    Code { name, number }
}

/// Groups for the key exchange ("TLS Supported Groups"), the quantum-safe hybrid first.
pub static GROUPS: [Code; 4] = [
    code("X25519MLKEM768", 0x11ec),
    code("x25519", 0x001d),
    code("secp256r1", 0x0017),
    code("secp384r1", 0x0018),
];

/// Cipher suites; those of TLS 1.3 first.
pub static SUITES: [Code; 9] = [
    code("TLS_AES_256_GCM_SHA384", 0x1302),
    code("TLS_AES_128_GCM_SHA256", 0x1301),
    code("TLS_CHACHA20_POLY1305_SHA256", 0x1303),
    code("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xc02c),
    code("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xc02b),
    code("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca9),
    code("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xc030),
    code("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xc02f),
    code("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca8),
];

impl Code {
    /// The one of a number.
    pub fn numbered(all: &'static [Self], number: u16) -> Option<&'static Self> {
        all.iter().find(|code| code.number == number)
    }

    /// The one of a name, in whatever case.
    pub fn named(all: &'static [Self], name: &str) -> Option<&'static Self> {
        all.iter().find(|code| code.name.eq_ignore_ascii_case(name))
    }

    /// Whether a cipher suite is one of TLS 1.3, which uses no others.
    pub fn is_of_tls_13(&self) -> bool {
        self.number >> 8 == 0x13
    }
}
