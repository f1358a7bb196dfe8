//! TLS between members of the mesh: configurations for rustls that prove our SVID and check the
//! peer's.
//!
//! TLS 1.3 only, key exchange X25519MLKEM768 before all others (draft-ietf-tls-ecdhe-mlkem). The
//! certificate, its key and the trusted roots are read from [`Credentials`] at each handshake, so
//! that replacing them neither rebuilds a configuration nor touches a connection.
//!
//! A resumed session skips the certificates, therefore it must not outlive the trust it rests on:
//! tickets belong to one configuration (hence to one expected identity and one client policy), every
//! replacement of SVID or roots closes the configurations' sessions for good, tickets end with
//! our own SVID, and [`peer_id`] refuses a peer whose certificate has meanwhile expired.

mod pinned;
mod session;
mod verifier;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use model::SpiffeId;
use model::mesh::TrustBundle;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::{CertificateError, ClientConfig, ServerConfig};

pub use self::pinned::{InvalidPin, InvalidRoots, anchored_client_config, pinned_client_config};
use self::session::{Lease, Sessions, Tickets};
use self::verifier::{Resolver, Verifier};
use crate::svid::Svid;
use crate::trust::Anchors;
use crate::verify;
pub use crate::verify::{Expected, VerifyError};

/// aws-lc with the groups and suites that the mesh speaks, most wanted first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        use aws_lc_rs::{cipher_suite, kx_group};
        Arc::new(CryptoProvider {
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
            ],
            cipher_suites: vec![
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            ..aws_lc_rs::default_provider()
        })
    });
    Arc::clone(&PROVIDER)
}

/// Whether a server insists on the client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    /// No certificate, no connection.
    Required,
    /// A client may come without; a certificate that it does show must be good.
    Optional,
}

/// Who we are and whom we trust, shared by all connections and replaceable at any time.
pub struct Credentials {
    shared: Arc<Shared>,
    configs: ArcSwap<Configs>,
}

/// What verifiers and resolvers read at each handshake.
pub(crate) struct Shared {
    svid: Proof,
    bundle: ArcSwap<TrustBundle>,
    anchors: ArcSwap<Anchors>,
}

/// The SVID that is shown.
struct Proof {
    current: ArcSwapOption<Svid>,
    /// Whose it is, where nobody vouches for it: made when it is first needed, since a process'
    /// first random numbers take tens of milliseconds and most that are alone need none.
    alone: Option<SpiffeId>,
}

impl Proof {
    fn load(&self) -> Arc<Svid> {
        if let Some(svid) = self.current.load_full() {
            return svid;
        }
        let id = self
            .alone
            .as_ref()
            .expect("there is an SVID or an identity to make one for");
        let made =
            Svid::self_signed(id).expect("an identity is a valid name, and aws-lc makes keys");
        let made = Arc::new(made);
        self.current.store(Some(Arc::clone(&made)));
        made
    }
}

/// The configurations made since the last replacement of SVID or roots.
struct Configs {
    lease: Lease,
    made: RwLock<HashMap<Key, Config>>,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Server(ClientAuth, Vec<Vec<u8>>),
    Client(Expected, Vec<Vec<u8>>),
}

#[derive(Clone)]
enum Config {
    Server(Arc<ServerConfig>),
    Client(Arc<ClientConfig>),
}

/// More configurations than this are not kept: a proxy talks to fewer identities.
const MAX_CONFIGS: usize = 4096;

impl Credentials {
    /// Begins with these.
    pub fn new(svid: Svid, bundle: TrustBundle) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared {
                svid: Proof {
                    current: ArcSwapOption::from_pointee(svid),
                    alone: None,
                },
                anchors: ArcSwap::from_pointee(Anchors::new(&bundle)),
                bundle: ArcSwap::from_pointee(bundle),
            }),
            configs: ArcSwap::from_pointee(Configs::new()),
        })
    }

    /// For a process that belongs to no mesh: it trusts nobody, and nobody trusts what it shows.
    pub fn alone(id: SpiffeId) -> Arc<Self> {
        let bundle = TrustBundle::default();
        Arc::new(Self {
            shared: Arc::new(Shared {
                svid: Proof {
                    current: ArcSwapOption::empty(),
                    alone: Some(id),
                },
                anchors: ArcSwap::from_pointee(Anchors::new(&bundle)),
                bundle: ArcSwap::from_pointee(bundle),
            }),
            configs: ArcSwap::from_pointee(Configs::new()),
        })
    }

    /// From the next handshake on, we are this. Connections go on.
    pub fn set_svid(&self, svid: Svid) {
        self.shared.svid.current.store(Some(Arc::new(svid)));
        self.close_sessions();
    }

    /// From the next handshake on, we trust these. Connections go on.
    pub fn set_bundle(&self, bundle: TrustBundle) {
        if *self.shared.bundle.load_full() == bundle {
            return;
        }
        self.shared.anchors.store(Arc::new(Anchors::new(&bundle)));
        self.shared.bundle.store(Arc::new(bundle));
        self.close_sessions();
    }

    /// Who we are.
    pub fn svid(&self) -> Arc<Svid> {
        self.shared.svid.load()
    }

    /// Whom we trust.
    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.shared.bundle.load_full()
    }

    /// Comes after the new values are in place, so that configurations made from here on have
    /// verified every session of theirs by the new ones.
    fn close_sessions(&self) {
        self.configs.swap(Arc::new(Configs::new())).lease.close();
    }

    fn config(&self, key: Key, make: impl FnOnce(&Arc<Shared>, &Lease) -> Config) -> Config {
        let configs = self.configs.load();
        if let Some(config) = configs
            .made
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return config.clone();
        }
        let mut made = configs.made.write().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= MAX_CONFIGS {
            made.clear();
        }
        made.entry(key)
            .or_insert_with(|| make(&self.shared, &configs.lease))
            .clone()
    }
}

impl Configs {
    fn new() -> Self {
        Self {
            lease: Lease::open(),
            made: RwLock::default(),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("svid", &self.svid.current.load_full())
            .field("anchors", &*self.anchors.load())
            .finish_non_exhaustive()
    }
}

/// How to accept connections. Ask for it at each connection: it is made once and looked up
/// afterwards; one that is kept stays right, but resumes no sessions after a rotation.
pub fn server_config(
    credentials: &Arc<Credentials>,
    alpn: &[&[u8]],
    clients: ClientAuth,
) -> Arc<ServerConfig> {
    let alpn = protocols(alpn);
    let make = |shared: &Arc<Shared>, lease: &Lease| {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has suites and groups of TLS 1.3")
            .with_client_cert_verifier(Arc::new(Verifier::of_clients(shared, clients)))
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(shared))));
        config.alpn_protocols.clone_from(&alpn);
        // Stateless tickets alone: nothing is kept per client.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        if let Some(tickets) = Tickets::new(shared, lease) {
            config.ticketer = Arc::new(tickets);
        }
        Config::Server(Arc::new(config))
    };
    match credentials.config(Key::Server(clients, alpn.clone()), make) {
        Config::Server(config) => config,
        Config::Client(_) => unreachable!("a server's key is mapped to a server's configuration"),
    }
}

/// How to connect to a peer of whom `expected` holds. Ask for it at each connection: it is made once
/// and looked up afterwards; one that is kept stays right, but resumes no sessions after a rotation.
pub fn client_config(
    credentials: &Arc<Credentials>,
    expected: Expected,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let alpn = protocols(alpn);
    let key = Key::Client(expected.clone(), alpn.clone());
    let make = |shared: &Arc<Shared>, lease: &Lease| {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has suites and groups of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::of_servers(shared, expected)))
            .with_client_cert_resolver(Arc::new(Resolver(Arc::clone(shared))));
        config.alpn_protocols = alpn;
        config.resumption = Resumption::store(Arc::new(Sessions::new(lease)));
        Config::Client(Arc::new(config))
    };
    match credentials.config(key, make) {
        Config::Client(config) => config,
        Config::Server(_) => unreachable!("a client's key is mapped to a client's configuration"),
    }
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|p| p.to_vec()).collect()
}

/// The identity of an accepted or established connection's peer, from the certificates that rustls
/// keeps with it.
///
/// The handshake has verified them; this reads the identity again and refuses a certificate that has
/// expired since, which a resumed session can bring along.
pub fn peer_id(certificates: &[CertificateDer<'_>]) -> Result<SpiffeId, VerifyError> {
    let leaf = verify::leaf(certificates.first().ok_or(VerifyError::NoCertificate)?)?;
    let now = SystemTime::now();
    if now > leaf.not_after {
        return Err(VerifyError::Expired {
            not_after: leaf.not_after,
            now,
        });
    }
    Ok(leaf.id)
}

/// Why *we* did not believe the peer, when that is what the handshake failed of. When the peer did
/// not believe us, the error is [`rustls::Error::AlertReceived`].
pub fn verify_error(error: &rustls::Error) -> Option<VerifyError> {
    let at = |time: rustls::pki_types::UnixTime| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
    };
    match error {
        rustls::Error::NoCertificatesPresented => Some(VerifyError::NoCertificate),
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::ExpiredContext { time, not_after } => Some(VerifyError::Expired {
                not_after: at(*not_after),
                now: at(*time),
            }),
            CertificateError::NotValidYetContext { time, not_before } => {
                Some(VerifyError::NotYetValid {
                    not_before: at(*not_before),
                    now: at(*time),
                })
            }
            CertificateError::Other(other) => other.0.downcast_ref().cloned(),
            _ => None,
        },
        _ => None,
    }
}

/// The TLS error inside an error of a TLS stream, which has the type of I/O errors.
pub fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
