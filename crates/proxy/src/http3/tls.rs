//! TLS 1.3 inside QUIC (RFC 9001).
//!
//! Which listener is meant, and with it the certificate, is known only when the ClientHello has
//! come, perhaps in several packets. So a session begins without a configuration: it collects the
//! ClientHello, has the server name looked up, and only then has rustls begin with what was found.

use std::any::Any;
use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use net::detect::{self, ClientHello};
use quinn::Side;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{
    self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig as _,
    UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, TransportError, TransportErrorCode};
use rustls::quic::{KeyChange, Secrets, ServerConnection, Version};
use rustls::server::ResolvesServerCertUsingSni;
use rustls::{AlertDescription, ServerConfig};

/// QUIC version 1 (RFC 9000), the only one that is served.
pub(super) const VERSION: u32 = 1;
/// The largest ClientHello that is read: one record's worth of TLS over TCP.
const CLIENT_HELLO: usize = 16 * 1024;

/// Finds what a server name means: the configuration, and what the caller wants back as
/// [`Session::handshake_data`].
pub(super) type Choose<T> =
    dyn Fn(Option<&str>) -> Option<(Arc<ServerConfig>, Arc<T>)> + Send + Sync;

/// What a handshake has agreed on.
pub(super) struct Agreed<T> {
    pub(super) chosen: Arc<T>,
    pub(super) group: &'static str,
}

/// A server whose configuration depends on the server name.
pub(super) struct ByName<T>(pub(super) Arc<Choose<T>>);

/// Keys of first packets depend on the version and nothing else (RFC 9001 5.2).
fn base() -> Arc<QuicServerConfig> {
    static BASE: LazyLock<Arc<QuicServerConfig>> = LazyLock::new(|| {
        let config = ServerConfig::builder_with_provider(identity::edge::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        let config = QuicServerConfig::try_from(config);
        Arc::new(config.expect("the provider has TLS13_AES_128_GCM_SHA256"))
    });
    Arc::clone(&BASE)
}

impl<T: Send + Sync + 'static> crypto::ServerConfig for ByName<T> {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        base().initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        base().retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        _version: u32,
        params: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        let mut parameters = Vec::new();
        params.write(&mut parameters);
        Box::new(Session {
            choose: Arc::clone(&self.0),
            state: State::Hello {
                seen: Vec::new(),
                parameters,
            },
            next: None,
        })
    }
}

struct Session<T> {
    choose: Arc<Choose<T>>,
    state: State<T>,
    next: Option<Secrets>,
}

enum State<T> {
    /// The ClientHello has not come, or not the whole of it.
    Hello {
        seen: Vec<u8>,
        /// Ours, encoded.
        parameters: Vec<u8>,
    },
    Chosen {
        tls: Box<ServerConnection>,
        chosen: Arc<T>,
        /// Whether the caller knows of the server name.
        told: bool,
    },
}

impl<T> Session<T> {
    fn tls(&self) -> Option<&ServerConnection> {
        match &self.state {
            State::Chosen { tls, .. } => Some(tls),
            State::Hello { .. } => None,
        }
    }

    /// Once the ClientHello is complete, what its server name means.
    fn choose(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let State::Hello { seen, parameters } = &mut self.state else {
            return Ok(());
        };
        seen.extend_from_slice(bytes);
        let length = match seen.as_slice() {
            [1, a, b, c, ..] => 4 + u32::from_be_bytes([0, *a, *b, *c]) as usize,
            [1] | [1, _] | [1, _, _] | [] => return Ok(()),
            _ => return Err(alert(AlertDescription::UnexpectedMessage, "no ClientHello")),
        };
        if length > CLIENT_HELLO {
            let text = "the ClientHello is too large";
            return Err(alert(AlertDescription::DecodeError, text));
        }
        if seen.len() < length {
            return Ok(());
        }
        let name = match detect::client_hello(&as_record(&seen[..length])) {
            ClientHello::Found { sni, .. } => sni,
            ClientHello::NeedMore | ClientHello::Invalid => {
                let text = "the ClientHello cannot be read";
                return Err(alert(AlertDescription::DecodeError, text));
            }
        };
        let Some((config, chosen)) = (self.choose)(name.as_deref()) else {
            let shown = name.as_deref().unwrap_or("none");
            let text = format!("no listener is for the server name \"{shown}\"");
            return Err(alert(AlertDescription::UnrecognisedName, &text));
        };
        let parameters = std::mem::take(parameters);
        let tls = ServerConnection::new(config, Version::V1, parameters)
            .map_err(|e| alert(AlertDescription::InternalError, &e.to_string()))?;
        let mut tls = Box::new(tls);
        read(&mut tls, seen)?;
        self.state = State::Chosen {
            tls,
            chosen,
            told: false,
        };
        Ok(())
    }
}

/// A handshake message as TLS over TCP would carry it.
fn as_record(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    [&[22, 3, 1, high, low], message].concat()
}

fn alert(alert: AlertDescription, reason: &str) -> TransportError {
    TransportError {
        code: TransportErrorCode::crypto(alert.into()),
        frame: None,
        reason: reason.to_owned(),
    }
}

fn read(tls: &mut ServerConnection, bytes: &[u8]) -> Result<(), TransportError> {
    tls.read_hs(bytes).map_err(|error| {
        let description = tls.alert().unwrap_or(AlertDescription::InternalError);
        alert(description, &error.to_string())
    })
}

impl<T: Send + Sync + 'static> crypto::Session for Session<T> {
    fn initial_keys(&self, dst_cid: &ConnectionId, _: Side) -> Keys {
        let keys = base().initial_keys(VERSION, dst_cid);
        keys.expect("rustls has keys for version 1")
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let State::Chosen { tls, chosen, .. } = &self.state else {
            return None;
        };
        Some(Box::new(Agreed {
            chosen: Arc::clone(chosen),
            group: net::tls::group(tls),
        }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        // 0-RTT can be replayed by whoever has seen it, and is not taken.
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.tls().is_none_or(|tls| tls.is_handshaking())
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        if let State::Chosen { tls, .. } = &mut self.state {
            read(tls, bytes)?;
        } else {
            self.choose(bytes)?;
        }
        match &mut self.state {
            State::Chosen { told, .. } if !*told => {
                *told = true;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(encoded) = self.tls().and_then(|tls| tls.quic_transport_parameters()) else {
            return Ok(None);
        };
        let read = TransportParameters::read(Side::Server, &mut Cursor::new(encoded));
        Ok(Some(read?))
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        let State::Chosen { tls, .. } = &mut self.state else {
            return None;
        };
        let keys = match tls.write_hs(out)? {
            KeyChange::Handshake { keys } => keys,
            KeyChange::OneRtt { keys, next } => {
                self.next = Some(next);
                keys
            }
        };
        Some(Keys {
            header: KeyPair {
                local: Box::new(keys.local.header),
                remote: Box::new(keys.remote.header),
            },
            packet: KeyPair {
                local: Box::new(keys.local.packet),
                remote: Box::new(keys.remote.packet),
            },
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.next.as_mut()?.next_packet_keys();
        Some(KeyPair {
            local: Box::new(keys.local),
            remote: Box::new(keys.remote),
        })
    }

    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        // Only clients are told to try again.
        false
    }

    fn export_keying_material(
        &self,
        _: &mut [u8],
        _: &[u8],
        _: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        // Nothing here is bound to a session's keys.
        Err(ExportKeyingMaterialError)
    }
}
