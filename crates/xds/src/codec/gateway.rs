//! Listeners of Gateways, and routes for connections and datagrams.

use std::sync::Arc;

use model::gateway::{
    Attachment, BackendIdentity, Certificate, ClientValidation, Http3, Listener, PrivateKey,
    Protocol, ProxyProtocol, StreamBackend, StreamKind, StreamRoute, Termination, Tls,
};
use model::name::is_subdomain;
use model::route::Target;

use super::field::{
    Invalid, Result, Within, addresses, addresses_to_message, duration, duration_to_message, each,
    known, parse, port, required,
};
use super::limits;
use super::tls as options;
use crate::proto::v1;
use v1::listener::BackendIdentity as WireIdentity;
use v1::listener::{Protocol as WireProtocol, ProxyProtocol as WireProxy, Tls as WireTls};

pub(super) fn listener_to_message(listener: &Listener) -> v1::Listener {
    let protocol = match listener.protocol {
        Protocol::Http => WireProtocol::Http,
        Protocol::Https => WireProtocol::Https,
        Protocol::Tls => WireProtocol::Tls,
        Protocol::Tcp => WireProtocol::Tcp,
        Protocol::Udp => WireProtocol::Udp,
    };
    let proxy_protocol = match listener.proxy_protocol {
        ProxyProtocol::Off => WireProxy::Off,
        ProxyProtocol::Accept => WireProxy::Accept,
        ProxyProtocol::Require => WireProxy::Require,
    };
    v1::Listener {
        gateway: listener.gateway.to_string(),
        name: listener.name.clone(),
        addresses: addresses_to_message(&listener.addresses),
        port: listener.port.into(),
        protocol: protocol.into(),
        hostname: listener.hostname.as_ref().map(ToString::to_string),
        tls: listener.tls.as_ref().map(tls_to_message),
        proxy_protocol: proxy_protocol.into(),
        trusted_hops: listener.trusted_hops,
        backend_identity: match &listener.backend_identity {
            BackendIdentity::Nobody => None,
            BackendIdentity::Certificate(certificate) => Some(WireIdentity::BackendCertificate(
                certificate_to_message(certificate),
            )),
            BackendIdentity::Invalid(why) => {
                Some(WireIdentity::BackendCertificateInvalid(why.to_string()))
            }
        },
        http3: listener.http3.map(http3_to_message),
        limits: Some(limits::to_message(&listener.limits)),
        merged_class: listener.merged_class.as_deref().map(ToOwned::to_owned),
    }
}

fn tls_to_message(tls: &Tls) -> WireTls {
    let termination = match tls {
        Tls::Passthrough => return WireTls::Passthrough(v1::Passthrough {}),
        Tls::Terminate(termination) => termination,
    };
    WireTls::Terminate(v1::Termination {
        certificates: termination
            .certificates
            .iter()
            .map(|certificate| certificate_to_message(certificate))
            .collect(),
        clients: termination
            .clients
            .as_ref()
            .map(|clients| v1::ClientValidation {
                roots: clients.roots.clone(),
                optional: clients.optional,
            }),
        options: options::to_message(&termination.options),
    })
}

fn certificate_to_message(certificate: &Certificate) -> v1::Certificate {
    v1::Certificate {
        chain: certificate.chain.clone(),
        key: certificate.key.der().to_vec(),
    }
}

fn certificate(message: v1::Certificate) -> Result<Arc<Certificate>> {
    if message.chain.is_empty() {
        return Err(Invalid::new("chain", "is empty"));
    }
    Ok(Arc::new(Certificate {
        chain: message.chain,
        key: PrivateKey::from_der(message.key),
    }))
}

pub(super) fn listener_from_message(message: v1::Listener) -> Result<Listener> {
    let protocol = match known("protocol", message.protocol)? {
        WireProtocol::Unspecified => return Err(Invalid::new("protocol", "is not specified")),
        WireProtocol::Http => Protocol::Http,
        WireProtocol::Https => Protocol::Https,
        WireProtocol::Tls => Protocol::Tls,
        WireProtocol::Tcp => Protocol::Tcp,
        WireProtocol::Udp => Protocol::Udp,
    };
    let tls = message.tls.map(tls).transpose()?;
    if tls.is_none() && matches!(protocol, Protocol::Https | Protocol::Tls) {
        let message = format!("is missing on a listener for {}", protocol.as_str());
        return Err(Invalid::new("tls", message));
    }
    Ok(Listener {
        gateway: parse("gateway", &message.gateway)?,
        name: section("name", message.name)?,
        addresses: addresses("addresses", message.addresses)?,
        port: port("port", message.port)?,
        protocol,
        hostname: message
            .hostname
            .map(|text| parse("hostname", &text))
            .transpose()?,
        tls,
        proxy_protocol: match known("proxy_protocol", message.proxy_protocol)? {
            WireProxy::Off => ProxyProtocol::Off,
            WireProxy::Accept => ProxyProtocol::Accept,
            WireProxy::Require => ProxyProtocol::Require,
        },
        trusted_hops: message.trusted_hops,
        backend_identity: match message.backend_identity {
            None => BackendIdentity::Nobody,
            Some(WireIdentity::BackendCertificate(message)) => {
                BackendIdentity::Certificate(certificate(message).within("backend_certificate")?)
            }
            Some(WireIdentity::BackendCertificateInvalid(why)) => {
                BackendIdentity::Invalid(why.into())
            }
        },
        http3: message.http3.map(http3).transpose()?,
        limits: limits::from_message(message.limits)?,
        merged_class: message
            .merged_class
            .map(|class| section("merged_class", class).map(Into::into))
            .transpose()?,
    })
}

fn http3_to_message(http3: Http3) -> v1::Http3 {
    v1::Http3 {
        port: http3.port.into(),
        max_age: Some(duration_to_message(http3.max_age)),
    }
}

fn http3(message: v1::Http3) -> Result<Http3> {
    let max_age = required("http3.max_age", message.max_age)?;
    Ok(Http3 {
        port: port("http3.port", message.port)?,
        max_age: duration("http3.max_age", max_age)?,
    })
}

/// What may stand as the last part of a resource's name.
/// A listener's name; one of a `ListenerSet` is called `namespace:set:listener`.
fn section(field: &str, name: String) -> Result<String> {
    let parts = name.split(':').count();
    if matches!(parts, 1 | 3) && name.split(':').all(is_subdomain) {
        Ok(name)
    } else {
        Err(Invalid::new(field, "is not a listener's name"))
    }
}

fn tls(message: WireTls) -> Result<Tls> {
    let termination = match message {
        WireTls::Passthrough(v1::Passthrough {}) => return Ok(Tls::Passthrough),
        WireTls::Terminate(termination) => termination,
    };
    let certificates =
        each("certificates", termination.certificates, certificate).within("terminate")?;
    if certificates.is_empty() {
        let message = "is empty; without a certificate TLS cannot be ended";
        return Err(Invalid::new("terminate.certificates", message));
    }
    let clients = termination.clients.map(|clients| ClientValidation {
        roots: clients.roots,
        optional: clients.optional,
    });
    Ok(Tls::Terminate(Termination {
        certificates,
        clients,
        options: options::from_message(termination.options)?,
    }))
}

pub(super) fn attachments_to_message(attachments: &[Attachment]) -> Vec<v1::Attachment> {
    attachments
        .iter()
        .map(|attachment| v1::Attachment {
            listener: attachment.listener.clone(),
            hostnames: attachment
                .hostnames
                .iter()
                .map(ToString::to_string)
                .collect(),
        })
        .collect()
}

pub(super) fn attachments(messages: Vec<v1::Attachment>) -> Result<Vec<Attachment>> {
    if messages.is_empty() {
        let message = "is empty; a route of a Gateway is attached to a listener";
        return Err(Invalid::new("attachments", message));
    }
    each("attachments", messages, |message| {
        Ok(Attachment {
            listener: section("listener", message.listener)?,
            hostnames: each("hostnames", message.hostnames, |text| parse("", &text))?,
        })
    })
}

pub(super) fn stream_to_message(route: &StreamRoute) -> v1::StreamRoute {
    use v1::stream_backend::Target as Wire;
    let kind = match route.kind {
        StreamKind::Tls => v1::stream_route::Kind::Tls,
        StreamKind::Tcp => v1::stream_route::Kind::Tcp,
        StreamKind::Udp => v1::stream_route::Kind::Udp,
    };
    v1::StreamRoute {
        kind: kind.into(),
        name: route.name.to_string(),
        gateway: route.gateway.to_string(),
        attachments: attachments_to_message(&route.attachments),
        created: route.created,
        backends: route
            .backends
            .iter()
            .map(|backend| v1::StreamBackend {
                target: Some(match &backend.target {
                    Target::Service { name, port } => Wire::Service(v1::ServicePort {
                        name: name.to_string(),
                        port: u32::from(*port),
                    }),
                    Target::Invalid { reason } => Wire::Invalid(reason.to_string()),
                }),
                weight: backend.weight,
            })
            .collect(),
    }
}

pub(super) fn stream_from_message(message: v1::StreamRoute) -> Result<StreamRoute> {
    use v1::stream_backend::Target as Wire;
    Ok(StreamRoute {
        kind: match known("kind", message.kind)? {
            v1::stream_route::Kind::Unspecified => {
                return Err(Invalid::new("kind", "is not specified"));
            }
            v1::stream_route::Kind::Tls => StreamKind::Tls,
            v1::stream_route::Kind::Tcp => StreamKind::Tcp,
            v1::stream_route::Kind::Udp => StreamKind::Udp,
        },
        name: parse("name", &message.name)?,
        gateway: parse("gateway", &message.gateway)?,
        attachments: attachments(message.attachments)?,
        created: message.created,
        backends: each("backends", message.backends, |backend| {
            Ok(StreamBackend {
                target: match required("target", backend.target)? {
                    Wire::Service(service) => Target::Service {
                        name: parse("service.name", &service.name)?,
                        port: port("service.port", service.port)?,
                    },
                    Wire::Invalid(reason) => Target::Invalid {
                        reason: reason.into(),
                    },
                },
                weight: backend.weight,
            })
        })?,
    })
}
