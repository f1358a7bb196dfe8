//! TLS to endpoints that are no members of the mesh (`BackendTLSPolicy`).

use std::sync::Arc;
use std::time::Duration;

use model::Reason;
use model::backend_tls::BackendTls;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::error::{Failure, Replay, chain};
use crate::io::Io;
use crate::tunnel::Form;

/// TLS to an endpoint, made once per change.
pub(crate) struct Outside {
    policy: BackendTls,
    ready: Result<Ready, String>,
}

struct Ready {
    name: ServerName<'static>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
}

impl Outside {
    /// Where it cannot be made, every connection fails and says why: nothing goes out in the clear.
    pub(crate) fn new(policy: &BackendTls) -> Self {
        let made = Ready::new(policy);
        if let Err(error) = &made {
            tracing::error!(policy = %policy.name, service = %policy.target, error, "TLS to a backend cannot be made");
        }
        Self {
            policy: policy.clone(),
            ready: made,
        }
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
        limit: Duration,
    ) -> Result<(Io, &'static str), Failure> {
        let fail = |details: String| Failure::new(Reason::TlsFailed, details).replay(Replay::Safe);
        let ready = self
            .ready
            .as_ref()
            .map_err(|why| fail(format!("BackendTLSPolicy {}: {why}", self.policy.name)))?;
        let config = match form {
            Form::Http1 => &ready.http1,
            Form::Http2 | Form::Hbone => &ready.http2,
            Form::Tcp => &ready.bytes,
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
    fn new(policy: &BackendTls) -> Result<Self, String> {
        let config = |alpn: &[&[u8]]| {
            identity::edge::client_config(policy, alpn).map_err(|error| chain(&error))
        };
        Ok(Self {
            name: ServerName::try_from(policy.hostname.clone()).map_err(|e| e.to_string())?,
            http1: config(&[b"http/1.1"])?,
            http2: config(&[b"h2"])?,
            bytes: config(&[])?,
        })
    }
}
