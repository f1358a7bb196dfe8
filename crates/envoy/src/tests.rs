use model::gateway::{Attachment, BackendIdentity, GatewayName, Protocol, ProxyProtocol};
use model::hostname::Hostname;
use model::name::ObjectName;
use model::route::{Backend, Match, Parent, PathMatch, RouteKind, Rule, Timeouts};
use model::service::{Port, Protocol as Spoken};
use model::workload::Tunnel;
use prost::Message as _;

use super::*;
use crate::proto::{cluster, endpoint, listener, route};

fn gateway() -> GatewayName {
    ObjectName::new("shop", "web").expect("valid")
}

fn listens(name: &str, host: Option<&str>, protocol: Protocol) -> Listener {
    Listener {
        gateway: gateway(),
        merged_class: None,
        name: name.to_owned(),
        addresses: Vec::new(),
        port: 80,
        protocol,
        hostname: host.map(|h| h.parse().expect("valid")),
        tls: None,
        proxy_protocol: ProxyProtocol::Off,
        trusted_hops: 0,
        backend_identity: BackendIdentity::Nobody,
        http3: None,
        limits: model::limits::Limits::default(),
    }
}

fn to(port: u16, weight: u32) -> Backend {
    Backend {
        target: Target::Service {
            name: ObjectName::new("shop", "s").expect("valid"),
            port,
        },
        weight,
        filters: Vec::new(),
    }
}

fn routes(name: &str, listener: &str, hosts: &[&str], paths: &[PathMatch]) -> Arc<Route> {
    let rules = paths.iter().map(|path| Rule {
        name: None,
        matches: vec![Match {
            path: path.clone(),
            ..Match::default()
        }],
        filters: Vec::new(),
        backends: vec![to(80, 1)],
        timeouts: Timeouts::default(),
        retry: Some(model::retry::Policy::none()),
        session: None,
    });
    let hostnames: Vec<Hostname> = hosts.iter().map(|h| h.parse().expect("valid")).collect();
    Arc::new(Route {
        kind: RouteKind::Http,
        name: ObjectName::new("shop", name).expect("valid"),
        parent: Parent::Gateway {
            gateway: gateway(),
            attachments: vec![Attachment {
                listener: listener.to_owned(),
                hostnames,
            }],
        },
        port: None,
        created: 0,
        rules: rules.collect(),
    })
}

fn served(tunnel: Tunnel, tls: bool) -> Destination {
    let name = ObjectName::new("shop", "s").expect("valid");
    Destination {
        service: Service {
            name: name.clone(),
            addresses: Vec::new(),
            ports: vec![Port {
                name: "main".to_owned(),
                number: 80,
                protocol: Spoken::Http,
            }],
            headless: false,
            near: false,
        },
        endpoints: vec![Endpoint {
            service: name.clone(),
            workload: name,
            addresses: vec!["192.0.2.1".parse().expect("valid")],
            ports: BTreeMap::from([(80, 8080)]),
            tunnel,
            identity: "spiffe://mesh.local/ns/shop/sa/s".parse().expect("valid"),
            health: model::endpoint::Health::Healthy,
            weight: 1,
            locality: Locality::default(),
            version: String::new(),
        }],
        policies: Vec::new(),
        tls,
    }
}

fn view(listeners: Vec<Listener>, routes: Vec<Arc<Route>>, of: Destination) -> View {
    View {
        listeners,
        routes,
        destinations: BTreeMap::from([(of.service.name.clone(), of)]),
        ..View::default()
    }
}

fn configuration(made: &Resources, name: &str) -> route::RouteConfiguration {
    route::RouteConfiguration::decode(made.routes[name].as_slice()).expect("what was encoded")
}

/// The paths of each virtual host's routes.
fn paths(made: &Resources) -> Vec<(String, Vec<String>)> {
    let path = |route: &route::Route| {
        use route::route_match::PathSpecifier;
        match route
            .r#match
            .as_ref()
            .and_then(|m| m.path_specifier.as_ref())
        {
            Some(PathSpecifier::Prefix(path) | PathSpecifier::Path(path)) => path.clone(),
            Some(PathSpecifier::PathSeparatedPrefix(path)) => format!("{path}/*"),
            other => format!("{other:?}"),
        }
    };
    let hosts = configuration(made, "http/80").virtual_hosts.into_iter();
    hosts
        .map(|host| {
            (
                host.domains.concat(),
                host.routes.iter().map(path).collect(),
            )
        })
        .collect()
}

#[test]
fn a_hosts_routes_come_before_those_of_wider_hosts_and_in_tulles_order() {
    let prefix = |path: &str| PathMatch::Prefix(path.to_owned());
    let made = resources(&view(
        vec![listens("http", None, Protocol::Http)],
        vec![
            routes("a", "http", &["*.a.test"], &[prefix("/"), prefix("/long")]),
            routes(
                "b",
                "http",
                &["x.a.test"],
                &[PathMatch::Exact("/only".to_owned())],
            ),
        ],
        served(Tunnel::None, false),
    ));
    let want = [
        ("*", &[][..]),
        ("x.a.test", &["/only", "/long/*", "/"][..]),
        ("*.a.test", &["/long/*", "/"][..]),
    ];
    let want = want.map(|(host, paths)| {
        (
            host.to_owned(),
            paths.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
    });
    assert_eq!(paths(&made), want);
}

#[test]
fn what_a_listener_does_not_take_is_not_put_to_another() {
    let all = [PathMatch::default()];
    let made = resources(&view(
        vec![
            listens("wide", None, Protocol::Http),
            listens("narrow", Some("a.test"), Protocol::Http),
        ],
        vec![routes("r", "wide", &[], &all)],
        served(Tunnel::None, false),
    ));
    let found = paths(&made);
    assert!(
        found.contains(&("a.test".to_owned(), Vec::new())),
        "{found:?}"
    );
    assert!(
        found.contains(&("*".to_owned(), vec!["/".to_owned()])),
        "{found:?}"
    );
}

#[test]
fn an_endpoint_that_asks_for_mutual_tls_is_left_out_and_said_so() {
    let of = |tunnel| {
        let made = resources(&view(
            vec![listens("http", None, Protocol::Http)],
            vec![routes("r", "http", &[], &[PathMatch::default()])],
            served(tunnel, false),
        ));
        let bytes = made.endpoints["shop/s/80"].as_slice();
        let message = endpoint::ClusterLoadAssignment::decode(bytes).expect("what was encoded");
        let count: usize = message.endpoints.iter().map(|e| e.lb_endpoints.len()).sum();
        (count, made.warnings.len())
    };
    assert_eq!(of(Tunnel::None), (1, 0));
    assert_eq!(of(Tunnel::Tulle { port: 15008 }), (0, 1));
}

#[test]
fn a_backend_that_asks_for_tls_is_never_reached_in_the_clear() {
    let made = resources(&view(
        vec![listens("http", None, Protocol::Http)],
        vec![routes("r", "http", &[], &[PathMatch::default()])],
        served(Tunnel::None, true),
    ));
    assert!(made.clusters.is_empty() && made.endpoints.is_empty());
    assert_eq!(made.warnings.len(), 1, "{:?}", made.warnings);
}

#[test]
fn nothing_is_left_to_envoys_own_defaults_of_time_and_ejection() {
    let made = resources(&view(
        vec![listens("http", None, Protocol::Http)],
        vec![routes("r", "http", &[], &[PathMatch::default()])],
        served(Tunnel::None, false),
    ));
    let of = configuration(&made, "http/80");
    let Some(route::route::Action::Route(action)) = &of.virtual_hosts[0].routes[0].action else {
        panic!("{of:?}");
    };
    // Envoy would end a request after 15 s.
    assert_eq!(action.timeout.as_ref().map(|d| d.seconds), Some(0));
    let bytes = made.clusters["shop/s/80"].as_slice();
    let of = cluster::Cluster::decode(bytes).expect("what was encoded");
    let outliers = of.outlier_detection.expect("on by default");
    assert_eq!(outliers.enforcing_success_rate, Some(0));
    assert_eq!(outliers.enforcing_consecutive_gateway_failure, Some(100));
}

#[test]
fn a_datagram_listener_is_left_out_and_the_others_stay() {
    let mut udp = listens("dns", None, Protocol::Udp);
    udp.port = 53;
    let made = resources(&view(
        vec![udp, listens("http", None, Protocol::Http)],
        Vec::new(),
        served(Tunnel::None, false),
    ));
    assert_eq!(made.listeners.keys().collect::<Vec<_>>(), ["80"]);
    let of = listener::Listener::decode(made.listeners["80"].as_slice()).expect("encoded");
    assert_eq!(of.filter_chains.len(), 1);
    assert_eq!(made.warnings.len(), 1);
}
