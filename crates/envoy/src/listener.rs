//! Listeners: one of Envoy's for each port, in which those of the Gateway are told apart.
//!
//! In the clear they share a table of virtual hosts; with TLS each has a filter chain, found by the
//! server name. What conflicts on a port is served as the proxy serves it: the first has the port.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::gateway::{Listener, Protocol, ProxyProtocol, StreamRoute, Termination, Tls};
use model::hostname::Hostname;
use model::limits::Limits;
use model::route::Target;
use policy::gateway::{Transport, streams};
use prost::Message;

use crate::proto::{core, http_manager, listener, router, tcp_proxy, tls};
use crate::words::{address, any, duration, empty, over_ads};
use crate::{Resources, View, certificate, cluster, route};

/// Adds the listeners of a Gateway, and the route configurations that they name.
pub(crate) fn add(made: &mut Resources, view: &View) {
    let mut ports: BTreeMap<u16, Vec<&Listener>> = BTreeMap::new();
    for of in &view.listeners {
        let place = format!("listener {}", of.name);
        if of.protocol == Protocol::Udp {
            made.warnings
                .insert(format!("{place}: UDP is not served to Envoy and left out"));
            continue;
        }
        for (there, what) in [
            (of.http3.is_some(), "HTTP/3"),
            (
                of.merged_class.is_some(),
                "the Gateways that share its proxy",
            ),
        ] {
            if there {
                made.warnings.insert(format!(
                    "{place}: {what} is not served to Envoy and left out"
                ));
            }
        }
        if of.proxy_protocol != ProxyProtocol::Off {
            // Without it, everybody could say where they come from, or nobody be understood.
            made.warnings.insert(format!(
                "{place}: a PROXY header is not served to Envoy; the listener is left out"
            ));
            continue;
        }
        let others = ports.entry(of.port).or_default();
        let first = others.first();
        if first.is_none_or(|f| Transport::of(f.protocol) == Transport::of(of.protocol)) {
            others.push(of);
        }
    }
    for (port, listeners) in ports {
        let first = listeners[0];
        let secure = Transport::of(first.protocol) == Transport::Tls;
        let filter_chains = match Transport::of(first.protocol) {
            Transport::Http => vec![plain(made, view, port, &listeners)],
            Transport::Tls => listeners
                .iter()
                .flat_map(|of| chains(made, view, of))
                .collect(),
            Transport::Tcp => tcp(view, first).into_iter().collect(),
            Transport::Udp => Vec::new(),
        };
        if filter_chains.is_empty() {
            // Envoy refuses such a listener.
            continue;
        }
        let name = port.to_string();
        let at = first.addresses.first().map(ToString::to_string);
        let inspector = listener::ListenerFilter {
            name: "envoy.filters.listener.tls_inspector".to_owned(),
            config_type: Some(listener::listener_filter::ConfigType::TypedConfig(empty(
                "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
            ))),
        };
        let message = listener::Listener {
            name: name.clone(),
            address: Some(address(at.as_deref().unwrap_or("0.0.0.0"), port)),
            filter_chains,
            listener_filters: if secure { vec![inspector] } else { Vec::new() },
            ..listener::Listener::default()
        };
        made.listeners.insert(name, message.encode_to_vec());
    }
}

/// One chain for all of a port's requests in the clear.
fn plain(
    made: &mut Resources,
    view: &View,
    port: u16,
    listeners: &[&Listener],
) -> listener::FilterChain {
    let name = format!("http/{port}");
    route::add(made, view, &name, listeners);
    listener::FilterChain {
        filters: vec![http(&name, listeners[0])],
        ..listener::FilterChain::default()
    }
}

/// The chains of a listener with TLS.
fn chains(made: &mut Resources, view: &View, of: &Listener) -> Vec<listener::FilterChain> {
    match (&of.tls, of.protocol) {
        (Some(Tls::Terminate(how)), Protocol::Https) => {
            let name = format!("https/{}/{}", of.port, of.name);
            route::add(made, view, &name, &[of]);
            vec![listener::FilterChain {
                name: of.name.clone(),
                filter_chain_match: Some(server_names(of.hostname.as_ref())),
                filters: vec![http(&name, of)],
                transport_socket: Some(ended(how, &["h2", "http/1.1"])),
                transport_socket_connect_timeout: Some(duration(of.limits.tls_handshake_timeout)),
            }]
        }
        (Some(mode), _) => by_server_name(view, of)
            .into_iter()
            .map(|(host, filter)| listener::FilterChain {
                name: format!(
                    "{}/{}",
                    of.name,
                    host.as_ref().map(ToString::to_string).unwrap_or_default()
                ),
                filter_chain_match: Some(server_names(host.as_ref())),
                filters: vec![filter],
                transport_socket: match mode {
                    Tls::Terminate(how) => Some(ended(how, &[])),
                    Tls::Passthrough => None,
                },
                transport_socket_connect_timeout: Some(duration(of.limits.tls_handshake_timeout)),
            })
            .collect(),
        (None, _) => Vec::new(),
    }
}

/// The connections of a listener by server name.
fn by_server_name(view: &View, of: &Listener) -> Vec<(Option<Hostname>, listener::Filter)> {
    let map = streams(of, &view.streams);
    let mut hosts: Vec<Option<Hostname>> = view
        .streams
        .iter()
        .filter(|route| route.gateway == of.gateway)
        .flat_map(|route| policy::gateway::attached(&route.attachments, of))
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
        .into_iter()
        .filter_map(|host| {
            let filter = bytes(&format!("{}/{}", of.port, of.name), map.get(host.as_ref())?)?;
            Some((host, filter))
        })
        .collect()
}

fn tcp(view: &View, of: &Listener) -> Option<listener::FilterChain> {
    let map = streams(of, &view.streams);
    Some(listener::FilterChain {
        filters: vec![bytes(&format!("tcp/{}", of.port), map.get(None)?)?],
        ..listener::FilterChain::default()
    })
}

/// Bytes to the backends of a route, by weight. A backend that is none gets its share, and a cluster that
/// is none: the connection is closed. `None`: nothing has a weight, and Envoy would refuse the filter.
fn bytes(stat: &str, of: &Arc<StreamRoute>) -> Option<listener::Filter> {
    let clusters: Vec<_> = of
        .backends
        .iter()
        .filter(|backend| backend.weight > 0)
        .map(
            |backend| tcp_proxy::tcp_proxy::weighted_cluster::ClusterWeight {
                name: match &backend.target {
                    Target::Service { name, port } => cluster::name(name, *port),
                    Target::Invalid { .. } => route::NOWHERE.to_owned(),
                },
                weight: backend.weight,
            },
        )
        .collect();
    if clusters.is_empty() {
        return None;
    }
    let message = tcp_proxy::TcpProxy {
        stat_prefix: stat.to_owned(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::WeightedClusters(
            tcp_proxy::tcp_proxy::WeightedCluster { clusters },
        )),
    };
    Some(filter(
        "envoy.filters.network.tcp_proxy",
        any(
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            &message,
        ),
    ))
}

fn server_names(host: Option<&Hostname>) -> listener::FilterChainMatch {
    listener::FilterChainMatch {
        server_names: host.map(ToString::to_string).into_iter().collect(),
        transport_protocol: "tls".to_owned(),
    }
}

fn ended(how: &Termination, alpn: &[&str]) -> core::TransportSocket {
    let source = |bytes| core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineBytes(bytes)),
    };
    let certificates = how.certificates.iter().map(|of| tls::TlsCertificate {
        certificate_chain: Some(source(certificate::chain(&of.chain))),
        private_key: Some(source(certificate::key(of.key.der()))),
    });
    let clients = how.clients.as_ref();
    let validation = clients.map(|clients| tls::CertificateValidationContext {
        trusted_ca: Some(source(certificate::chain(&clients.roots))),
    });
    let message = tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificates: certificates.collect(),
            validation_context_type: validation
                .map(tls::common_tls_context::ValidationContextType::ValidationContext),
            alpn_protocols: alpn.iter().map(|p| (*p).to_owned()).collect(),
        }),
        require_client_certificate: clients.map(|clients| !clients.optional),
    };
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            &message,
        ))),
    }
}

/// The filter for requests, which asks for its routes by name.
fn http(routes: &str, of: &Listener) -> listener::Filter {
    use http_manager::http_connection_manager as manager;
    let limits: &Limits = &of.limits;
    let last = router::Router {
        suppress_envoy_headers: true,
    };
    let message = http_manager::HttpConnectionManager {
        stat_prefix: routes.to_owned(),
        route_specifier: Some(manager::RouteSpecifier::Rds(http_manager::Rds {
            config_source: Some(over_ads()),
            route_config_name: routes.to_owned(),
        })),
        http_filters: vec![http_manager::HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(http_manager::http_filter::ConfigType::TypedConfig(any(
                "envoy.extensions.filters.http.router.v3.Router",
                &last,
            ))),
        }],
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: Some(duration(limits.idle_timeout)),
        }),
        http2_protocol_options: Some(core::Http2ProtocolOptions {
            max_concurrent_streams: Some(limits.max_concurrent_streams),
        }),
        server_header_transformation: manager::ServerHeaderTransformation::PassThrough as i32,
        use_remote_address: Some(true),
        xff_num_trusted_hops: of.trusted_hops,
        normalize_path: Some(true),
        merge_slashes: true,
        path_with_escaped_slashes_action: manager::PathWithEscapedSlashesAction::KeepUnchanged
            as i32,
        stream_idle_timeout: Some(duration(limits.body_idle_timeout)),
        upgrade_configs: vec![manager::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
        }],
        ..http_manager::HttpConnectionManager::default()
    };
    filter(
        "envoy.filters.network.http_connection_manager",
        any(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            &message,
        ),
    )
}

fn filter(name: &str, config: prost_types::Any) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(config)),
    }
}
