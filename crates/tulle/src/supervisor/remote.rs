//! A control plane on another host: TLS pinned by a join token at first, by the workload's own
//! certificate from then on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use identity::svid::Svid;
use identity::tls::{self, Credentials};
use identity::token::JoinToken;
use identity::verify::Expected;
use model::TrustDomain;
use model::mesh::TrustBundle;
use model::resource::{Kind, Resource};
use net::socket::ConnectOptions;
use xds::client::{BoxedIo, Dial};

use crate::failure::usage;

/// gRPC runs over HTTP/2.
const ALPN: &[u8] = b"h2";
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How the supervisor proves who it is. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proof {
    token: Option<Arc<str>>,
    /// The state directory, once the workload has a name.
    state: Arc<OnceLock<PathBuf>>,
}

impl Proof {
    /// A token from a file, or what an earlier life left in the state directory.
    pub(crate) fn new(token_file: Option<&Path>, state: Option<PathBuf>) -> anyhow::Result<Self> {
        let token = token_file.map(read_token).transpose()?;
        let proof = Self {
            token,
            state: Arc::default(),
        };
        if let Some(dir) = state {
            proof.keep_in(dir);
        }
        if proof.token.is_none() && proof.certificate().is_none() {
            return Err(usage!(
                "a control plane on another host needs --token-file, with a token from `tulle token create`"
            ));
        }
        Ok(proof)
    }

    /// From now on the certificate that the proxy keeps there counts.
    pub(crate) fn keep_in(&self, dir: PathBuf) {
        // Set before only to the same directory.
        let _ = self.state.set(dir);
    }

    /// What goes into `authorization`; nothing where there is a certificate.
    pub(crate) fn bearer(&self) -> Option<String> {
        match self.certificate() {
            Some(_) => None,
            None => self.token.as_ref().map(|token| format!("Bearer {token}")),
        }
    }

    /// Whether connections made from now on show a certificate.
    pub(crate) fn is_certified(&self) -> bool {
        self.certificate().is_some()
    }

    fn certificate(&self) -> Option<(Svid, TrustBundle)> {
        let dir = self.state.get()?;
        let svid = Svid::load(&dir.join("svid.pem")).ok()?;
        if svid.not_after() <= SystemTime::now() {
            return None;
        }
        let bytes = std::fs::read(dir.join("trust.bin")).ok()?;
        match xds::codec::decode(Kind::TrustBundle, &bytes) {
            Ok(Resource::TrustBundle(bundle)) => Some((svid, bundle)),
            _ => None,
        }
    }

    /// Makes connections to `host:port`.
    pub(crate) fn dial(&self, address: &str) -> Dial {
        let (proof, address) = (self.clone(), address.to_owned());
        Arc::new(move || {
            let (proof, address) = (proof.clone(), address.clone());
            Box::pin(async move { proof.connect(&address).await })
        })
    }

    async fn connect(&self, address: &str) -> io::Result<BoxedIo> {
        let config = match (self.certificate(), &self.token) {
            (Some((svid, bundle)), _) => {
                let domain = TrustDomain::new(svid.id().trust_domain()).unwrap_or_default();
                let control = Expected::Id(identity::control_id(&domain));
                tls::client_config(&Credentials::new(svid, bundle), control, &[ALPN])
            }
            (None, Some(token)) => {
                let token: JoinToken = token.parse().map_err(io::Error::other)?;
                tls::pinned_client_config(token.pin(), None, &[ALPN]).map_err(io::Error::other)?
            }
            (None, None) => return Err(io::Error::other("neither a token nor a certificate")),
        };
        let target = tokio::net::lookup_host(address)
            .await?
            .next()
            .ok_or_else(|| io::Error::other(format!("DNS has no address for {address}")))?;
        let stream = net::socket::connect(target, &ConnectOptions::default())
            .await
            .map_err(io::Error::other)?;
        let name = "control.tulle"
            .try_into()
            .map_err(|_| io::Error::other("not a server name"))?;
        let (stream, _) = net::tls::connect(stream, config, name, HANDSHAKE)
            .await
            .map_err(io::Error::other)?;
        Ok(Box::new(stream))
    }
}

fn read_token(path: &Path) -> anyhow::Result<Arc<str>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| usage!("--token-file {}: cannot be read: {e}", path.display()))?;
    let text = text.trim();
    text.parse::<JoinToken>()
        .map_err(|e| usage!("--token-file {}: {e}", path.display()))?;
    Ok(text.into())
}
