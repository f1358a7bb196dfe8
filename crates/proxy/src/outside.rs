//! TLS to endpoints that are no members of the mesh (`BackendTLSPolicy`).

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use model::Reason;
use model::backend_tls::BackendTls;
use model::gateway::Certificate;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::behalf::Shown;
use crate::error::{Failure, Replay, Side, chain};
use crate::io::Io;
use crate::tunnel::Form;

/// TLS to an endpoint, made once per change.
pub(crate) struct Outside {
    policy: BackendTls,
    ready: Made,
    /// With the certificate of a Gateway; as many as there are Gateways.
    shown: Mutex<Vec<(Weak<Shown>, Made)>>,
}

type Made = Arc<Result<Ready, String>>;

struct Ready {
    name: ServerName<'static>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
}

impl Outside {
    /// Where it cannot be made, every connection fails and says why: nothing goes out in the clear.
    pub(crate) fn new(policy: &BackendTls) -> Self {
        let made = Ready::new(policy, None);
        if let Err(error) = &made {
            tracing::error!(policy = %policy.name, service = %policy.target, error, "TLS to a backend cannot be made");
        }
        Self {
            policy: policy.clone(),
            ready: Arc::new(made),
            shown: Mutex::default(),
        }
    }

    /// What is needed to connect and show this. Made once for each Gateway's certificate: sessions of
    /// one are not to be resumed by another. Locked once for each connection, never for long.
    fn ready(&self, shown: Option<&Arc<Shown>>) -> Made {
        let Some(shown) = shown else {
            return Arc::clone(&self.ready);
        };
        // The list is whole after every operation.
        let mut known = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(of, _)| of.strong_count() > 0);
        let same = |(of, _): &&(Weak<Shown>, Made)| of.as_ptr() == Arc::as_ptr(shown);
        if let Some((_, ready)) = known.iter().find(same) {
            return Arc::clone(ready);
        }
        let certificate = shown.certificate();
        let made = certificate.and_then(|c| Ready::new(&self.policy, Some(c)));
        let made = Arc::new(made);
        known.push((Arc::downgrade(shown), Arc::clone(&made)));
        made
    }

    /// Whether it is for this policy as it is now.
    pub(crate) fn is_for(&self, policy: &BackendTls) -> bool {
        self.policy == *policy
    }

    /// The handshake; the key exchange that was agreed on.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        form: Form,
        shown: Option<&Arc<Shown>>,
        limit: Duration,
    ) -> Result<(Io, &'static str), Failure> {
        let fail = |details: String| Failure::new(Reason::TlsFailed, details).replay(Replay::Safe);
        let ready = self.ready(shown);
        let ready = (*ready)
            .as_ref()
            // Our own fault, not the endpoint's.
            .map_err(|why| Failure {
                side: Side::Internal,
                ..fail(format!("BackendTLSPolicy {}: {why}", self.policy.name))
            })?;
        let config = match form {
            Form::Http1 => &ready.http1,
            Form::Http2 | Form::Mux | Form::Hbone => &ready.http2,
            Form::Tcp | Form::Udp => &ready.bytes,
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let handshake = connector.connect(ready.name.clone(), stream);
        let stream = tokio::time::timeout(limit, handshake)
            .await
            .map_err(|_| {
                fail(format!(
                    "TLS with {} took longer than {limit:?}",
                    self.policy.hostname
                ))
            })?
            .map_err(|e| fail(format!("TLS with {}: {}", self.policy.hostname, chain(&e))))?;
        let session = stream.get_ref().1;
        if form == Form::Http2 && session.alpn_protocol() != Some(b"h2") {
            return Err(fail(format!(
                "{} does not speak HTTP/2",
                self.policy.hostname
            )));
        }
        let group = net::tls::group(session);
        Ok((Io::tls(stream), group))
    }
}

impl Ready {
    fn new(policy: &BackendTls, shown: Option<&Certificate>) -> Result<Self, String> {
        let config = |alpn: &[&[u8]]| {
            identity::edge::client_config(policy, shown, alpn).map_err(|error| chain(&error))
        };
        Ok(Self {
            name: ServerName::try_from(policy.hostname.clone()).map_err(|e| e.to_string())?,
            http1: config(&[b"http/1.1"])?,
            http2: config(&[b"h2"])?,
            bytes: config(&[])?,
        })
    }
}
