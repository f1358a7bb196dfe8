//! How the proxy comes to be somebody: its certificate, the way to the control plane, renewal.
//!
//! With a valid certificate on disk nothing else is needed to start: the control plane may be away.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::svid::{PendingKey, Svid};
use identity::tls::Credentials;
use identity::token::JoinToken;
use identity::verify::Expected;
use model::mesh::TrustBundle;
use model::resource::{Kind, Resource};
use model::{SpiffeId, TrustDomain, WorkloadName};
use net::socket::ConnectOptions;
use runtime::Readiness;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tonic::transport::Channel;
use xds::certificate;
use xds::client::{BoxedIo, Dial};

use crate::error::chain;
use crate::options::Control;
use crate::server::ProxyError;

const SVID_FILE: &str = "svid.pem";
const TRUST_FILE: &str = "trust.bin";
/// More than any token has; a service account's has about a kilobyte.
const MAX_TOKEN: u64 = 16 * 1024;
/// gRPC runs over HTTP/2.
const ALPN: &[u8] = b"h2";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts to get a certificate, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// What readiness waits for when the certificate is about to expire.
const RENEWAL: &str = "the renewal of its certificate";

/// The proxy's certificate and whom it trusts, from disk or from the control plane. Tries until it
/// succeeds; fails at once only where trying again is of no use.
pub(crate) async fn credentials(
    control: &Control,
    mark: Option<u32>,
) -> Result<Arc<Credentials>, ProxyError> {
    if let Some((svid, bundle)) = restore(&control.state_dir) {
        tracing::info!(id = %svid.id(), "certificate restored from disk");
        return Ok(Credentials::new(svid, bundle));
    }
    let newcomer = Newcomer::new(control, mark)?;
    let mut pause = PAUSE.0;
    loop {
        match newcomer.sign().await? {
            Ok((svid, bundle)) => {
                keep(&control.state_dir, &svid, &bundle);
                tracing::info!(id = %svid.id(), "certificate issued");
                return Ok(Credentials::new(svid, bundle));
            }
            Err(error) if error.is_final() => return Err(ProxyError::Join(error)),
            Err(error) => tracing::warn!(
                control = control.address,
                error = chain(&error),
                "no certificate yet; trying again"
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Who has no certificate yet, but a token that earns one.
pub(crate) struct Newcomer {
    channel: Channel,
    token: PathBuf,
    ttl: Duration,
}

impl Newcomer {
    /// Fails where trying again is of no use: nothing to show, or nobody to believe.
    pub(crate) fn new(control: &Control, mark: Option<u32>) -> Result<Self, ProxyError> {
        let token = control
            .token_file
            .clone()
            .ok_or(ProxyError::NoCredentials)?;
        let config = if let Some(path) = &control.trust_file {
            let failed = |source| ProxyError::TrustFile {
                path: path.clone(),
                source,
            };
            let roots = std::fs::read_to_string(path).map_err(failed)?;
            identity::tls::anchored_client_config(&roots, None, &[ALPN])
                .map_err(io::Error::other)
                .map_err(failed)?
        } else {
            let text = read_token(&token)?;
            let parsed: JoinToken = text.parse().map_err(|source| ProxyError::Token {
                path: token.clone(),
                source,
            })?;
            identity::tls::pinned_client_config(parsed.pin(), None, &[ALPN]).map_err(|source| {
                ProxyError::Pin {
                    path: token.clone(),
                    source,
                }
            })?
        };
        Ok(Self {
            channel: xds::client::channel(dial(control, mark, move || Arc::clone(&config))),
            token,
            ttl: control.certificate_ttl,
        })
    }

    /// One attempt, with the token that the file holds now.
    async fn sign(
        &self,
    ) -> Result<Result<(Svid, TrustBundle), certificate::SignError>, ProxyError> {
        let token = read_token(&self.token)?;
        Ok(sign(&self.channel, Some(&token), self.ttl).await)
    }
}

fn read_token(path: &Path) -> Result<String, ProxyError> {
    let failed = |source| ProxyError::TokenFile {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text))
        .map_err(failed)?;
    Ok(text.trim().to_owned())
}

/// Connections to the control plane as the workload that the certificate proves.
pub(crate) fn dial_control(
    control: &Control,
    mark: Option<u32>,
    credentials: &Arc<Credentials>,
) -> Dial {
    let credentials = Arc::clone(credentials);
    dial(control, mark, move || {
        let control = control_of(credentials.svid().id());
        identity::tls::client_config(&credentials, Expected::Id(control), &[ALPN])
    })
}

/// Renews the certificate at about two thirds of its life, for as long as the proxy runs, and takes
/// over new trust bundles. With one that has run out nobody is believed any more: then a token that
/// is good more than once (`newcomer`) earns another.
pub(crate) async fn renew(
    credentials: Arc<Credentials>,
    channel: Channel,
    control: Control,
    newcomer: Option<Newcomer>,
    readiness: Readiness,
    mut trust: watch::Receiver<Option<Arc<TrustBundle>>>,
) {
    let Control {
        state_dir,
        certificate_ttl: ttl,
        ..
    } = control;
    let mut pause = PAUSE.0;
    loop {
        let svid = credentials.svid();
        let due = svid.renew_at(rand::random());
        let wait = due.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(()) = trust.changed() => {
                let bundle = trust.borrow_and_update().clone();
                if let Some(bundle) = bundle {
                    keep(&state_dir, &svid, &bundle);
                    credentials.set_bundle((*bundle).clone());
                }
                continue;
            }
        }
        let expired = svid.not_after() <= SystemTime::now();
        let signed = match &newcomer {
            Some(newcomer) if expired => match newcomer.sign().await {
                Ok(signed) => signed,
                Err(error) => Err(certificate::SignError::Local(chain(&error))),
            },
            _ => sign(&channel, None, ttl).await,
        };
        match signed {
            Ok((svid, bundle)) => {
                tracing::info!(id = %svid.id(), "certificate renewed");
                keep(&state_dir, &svid, &bundle);
                credentials.set_svid(svid);
                credentials.set_bundle(bundle);
                readiness.met(RENEWAL);
                pause = PAUSE.0;
            }
            Err(error) => {
                let left = svid
                    .not_after()
                    .duration_since(SystemTime::now())
                    .unwrap_or_default();
                let life = svid
                    .not_after()
                    .duration_since(svid.not_before())
                    .unwrap_or_default();
                tracing::warn!(
                    error = chain(&error),
                    ?left,
                    "certificate not renewed; trying again"
                );
                if left < life / 20 {
                    readiness.wait_for(RENEWAL);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

/// An identity that proves nothing, for a proxy without a mesh.
pub(crate) fn no_credentials(workload: &WorkloadName) -> Result<Arc<Credentials>, ProxyError> {
    let domain = TrustDomain::default();
    let id = SpiffeId::of_service_account(&domain, workload.namespace(), workload.name())
        .map_err(|error| ProxyError::NoIdentity(error.to_string()))?;
    Ok(Credentials::alone(id))
}

async fn sign(
    channel: &Channel,
    token: Option<&str>,
    ttl: Duration,
) -> Result<(Svid, TrustBundle), certificate::SignError> {
    let key = PendingKey::generate().map_err(|e| certificate::SignError::Local(chain(&e)))?;
    let csr = key
        .csr_der()
        .map_err(|e| certificate::SignError::Local(chain(&e)))?;
    let signed = certificate::sign(channel.clone(), csr, token, ttl).await?;
    let svid = key
        .into_svid(signed.chain)
        .map_err(|e| certificate::SignError::Local(chain(&e)))?;
    Ok((svid, signed.bundle))
}

fn dial(
    control: &Control,
    mark: Option<u32>,
    config: impl Fn() -> Arc<rustls::ClientConfig> + Send + Sync + 'static,
) -> Dial {
    let control = control.address.clone();
    Arc::new(move || {
        let (control, config) = (control.clone(), config());
        Box::pin(async move {
            let address = resolve(&control).await?;
            let options = ConnectOptions {
                mark,
                timeout: CONNECT_TIMEOUT,
                ..ConnectOptions::default()
            };
            let stream = net::socket::connect(address, &options)
                .await
                .map_err(io::Error::other)?;
            let name = ServerName::try_from("control.tulle").map_err(io::Error::other)?;
            let (stream, _) = net::tls::connect(stream, config, name, CONNECT_TIMEOUT)
                .await
                .map_err(io::Error::other)?;
            Ok(Box::new(stream) as BoxedIo)
        })
    })
}

async fn resolve(control: &str) -> io::Result<SocketAddr> {
    let mut addresses = tokio::net::lookup_host(control).await?;
    addresses
        .next()
        .ok_or_else(|| io::Error::other(format!("DNS has no address for {control}")))
}

fn control_of(id: &SpiffeId) -> SpiffeId {
    // The trust domain of a valid identity is valid.
    let domain = TrustDomain::new(id.trust_domain()).unwrap_or_default();
    identity::control_id(&domain)
}

fn restore(dir: &Path) -> Option<(Svid, TrustBundle)> {
    let svid = Svid::load(&dir.join(SVID_FILE)).ok()?;
    if svid.not_after() <= SystemTime::now() {
        tracing::warn!(id = %svid.id(), "the certificate on disk has expired");
        return None;
    }
    let bytes = std::fs::read(dir.join(TRUST_FILE)).ok()?;
    match xds::codec::decode(Kind::TrustBundle, &bytes) {
        Ok(Resource::TrustBundle(bundle)) => Some((svid, bundle)),
        _ => None,
    }
}

/// Keeps certificate and trust bundle for the next start. A failure costs only that.
fn keep(dir: &Path, svid: &Svid, bundle: &TrustBundle) {
    if let Err(error) = svid.save(&dir.join(SVID_FILE)) {
        tracing::warn!(error = chain(&error), "the certificate could not be kept");
    }
    let bytes = xds::codec::encode(&Resource::TrustBundle(bundle.clone()));
    let path = dir.join(TRUST_FILE);
    let new = path.with_extension("new");
    if let Err(error) = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, &path)) {
        tracing::warn!(%error, "the trust bundle could not be kept");
    }
}
