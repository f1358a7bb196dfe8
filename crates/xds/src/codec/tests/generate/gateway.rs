//! Generated listeners, bounds and routes for streams.

use std::sync::Arc;

use model::backend_tls::{BackendTls, Roots, SubjectName};
use model::gateway::{
    Attachment, BackendIdentity, Certificate, ClientValidation, Http3, Listener, PrivateKey,
    Protocol, ProxyProtocol, StreamBackend, StreamKind, StreamRoute, Termination, Tls,
};
use model::hostname::Hostname;
use model::limits::Limits;
use model::tls::{GROUPS, SUITES, TlsOptions, TlsVersion};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::{addresses, duration, name, port, target};

/// One of a Gateway, or one of a `ListenerSet`.
fn listener_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        "[a-z]{1,4}:[a-z]{1,4}(\\.[a-z]{1,4})?:[a-z]{1,8}"
    ]
}

fn hostname() -> impl Strategy<Value = Hostname> {
    "(\\*\\.)?[a-z]{1,6}(\\.[a-z]{1,4})?".prop_map(|text| text.parse().expect("valid"))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

prop_compose! {
    pub(super) fn limits()(
        sizes in (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()),
        times in (duration(), duration(), duration(), duration()),
        max_request_body_bytes in of(any::<u64>()),
        counts in (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()),
    ) -> Limits {
        Limits {
            request_header_bytes: sizes.0,
            request_header_count: sizes.1,
            request_target_bytes: sizes.2,
            trailers_bytes: sizes.3,
            request_head_timeout: times.0,
            idle_timeout: times.1,
            body_idle_timeout: times.2,
            tls_handshake_timeout: times.3,
            max_request_body_bytes,
            max_connections: counts.0,
            max_concurrent_streams: counts.1,
            max_reset_streams: counts.2,
            max_pings_per_minute: counts.3,
        }
    }
}

fn certificate() -> impl Strategy<Value = Arc<Certificate>> {
    (vec(bytes(), 1..3), bytes()).prop_map(|(chain, key)| {
        Arc::new(Certificate {
            chain,
            key: PrivateKey::from_der(key),
        })
    })
}

fn tls_options() -> impl Strategy<Value = TlsOptions> {
    let version = select(vec![TlsVersion::V1_2, TlsVersion::V1_3]);
    let groups = vec(select(GROUPS.iter().collect::<Vec<_>>()), 0..3);
    let suites = vec(select(SUITES.iter().collect::<Vec<_>>()), 0..3);
    (version, groups, suites).prop_map(|(min_version, groups, suites)| TlsOptions {
        min_version,
        groups,
        suites,
    })
}

fn tls() -> impl Strategy<Value = Tls> {
    let clients = (vec(bytes(), 0..3), any::<bool>())
        .prop_map(|(roots, optional)| ClientValidation { roots, optional });
    prop_oneof![
        Just(Tls::Passthrough),
        (vec(certificate(), 1..3), of(clients), tls_options()).prop_map(
            |(certificates, clients, options)| {
                Tls::Terminate(Termination {
                    certificates,
                    clients,
                    options,
                })
            }
        ),
    ]
}

fn backend_identity() -> impl Strategy<Value = BackendIdentity> {
    prop_oneof![
        Just(BackendIdentity::Nobody),
        certificate().prop_map(BackendIdentity::Certificate),
        "[a-z]{0,8}".prop_map(|why| BackendIdentity::Invalid(why.into())),
    ]
}

prop_compose! {
    fn http3()(port in port(), max_age in duration()) -> Http3 {
        Http3 { port, max_age }
    }
}

prop_compose! {
    pub(super) fn listener()(
        (gateway, merged_class) in (name(), of(listener_name().prop_map(String::into_boxed_str))),
        name in listener_name(),
        addresses in addresses(),
        port in port(),
        spoken in prop_oneof![
            (select(vec![Protocol::Http, Protocol::Tcp, Protocol::Udp]), Just(None)),
            (select(vec![Protocol::Https, Protocol::Tls]), tls().prop_map(Some)),
        ],
        hostname in of(hostname()),
        proxy_protocol in select(vec![ProxyProtocol::Off, ProxyProtocol::Accept, ProxyProtocol::Require]),
        trusted_hops in any::<u32>(),
        backend_identity in backend_identity(),
        http3 in of(http3()),
        limits in limits(),
    ) -> Listener {
        let (protocol, tls) = spoken;
        Listener {
            gateway, merged_class, name, addresses, port, protocol, hostname, tls, proxy_protocol, trusted_hops,
            backend_identity, http3, limits,
        }
    }
}

pub(super) fn attachments() -> impl Strategy<Value = Vec<Attachment>> {
    let one =
        (listener_name(), vec(hostname(), 0..3)).prop_map(|(listener, hostnames)| Attachment {
            listener,
            hostnames,
        });
    vec(one, 1..3)
}

prop_compose! {
    pub(super) fn stream_route()(
        kind in select(vec![StreamKind::Tls, StreamKind::Tcp, StreamKind::Udp]),
        name in name(),
        gateway in name(),
        attachments in attachments(),
        created in any::<u64>(),
        backends in vec((target(), any::<u32>()), 0..3),
    ) -> StreamRoute {
        let backends = backends
            .into_iter()
            .map(|(target, weight)| StreamBackend { target, weight })
            .collect();
        StreamRoute { kind, name, gateway, attachments, created, backends }
    }
}

fn subject_name() -> impl Strategy<Value = SubjectName> {
    prop_oneof![
        hostname().prop_map(SubjectName::Dns),
        "[a-z]{1,4}://[a-z]{1,8}".prop_map(SubjectName::Uri),
    ]
}

prop_compose! {
    pub(super) fn backend_tls()(
        names in (name(), name()),
        port in of(port()),
        created in any::<u64>(),
        hostname in "[a-z]{1,8}(\\.[a-z]{1,4})?",
        subjects in vec(subject_name(), 0..3),
        roots in prop_oneof![
            Just(Roots::System),
            vec(bytes(), 0..3).prop_map(Roots::Certificates),
        ],
        options in tls_options(),
    ) -> BackendTls {
        BackendTls {
            name: names.0, target: names.1, port, created, hostname, names: subjects, roots,
            options,
        }
    }
}
