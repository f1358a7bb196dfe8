//! Which listener and which tables a host is put to.

use super::*;
use http::Method;
use model::gateway::{BackendIdentity, ProxyProtocol};
use model::limits::Limits;
use model::name::ObjectName;
use model::route::{Match, PathMatch, RouteKind, Rule, Timeouts};
use wire::Fields;

fn listener(name: &str, protocol: Protocol, hostname: Option<&str>) -> Listener {
    Listener {
        gateway: ObjectName::new("shop", "web").expect("valid"),
        merged_class: None,
        name: name.to_owned(),
        addresses: Vec::new(),
        port: 80,
        protocol,
        hostname: hostname.map(|h| h.parse().expect("valid")),
        tls: None,
        proxy_protocol: ProxyProtocol::Off,
        trusted_hops: 0,
        backend_identity: BackendIdentity::Nobody,
        http3: None,
        limits: Limits::default(),
    }
}

fn route(name: &str, hosts: &[&str], path: &str) -> Arc<Route> {
    Arc::new(Route {
        kind: RouteKind::Http,
        name: ObjectName::new("shop", name).expect("valid"),
        parent: Parent::Gateway {
            gateway: ObjectName::new("shop", "web").expect("valid"),
            attachments: vec![Attachment {
                listener: "http".to_owned(),
                hostnames: hosts.iter().map(|h| h.parse().expect("valid")).collect(),
            }],
        },
        port: None,
        created: 0,
        rules: vec![Rule {
            name: None,
            matches: vec![Match {
                path: PathMatch::Prefix(path.to_owned()),
                ..Match::default()
            }],
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
        }],
    })
}

#[test]
fn the_first_of_conflicting_listeners_stays() {
    let mut port = Port::new(Transport::Http);
    let add = |port: &mut Port<&str>, l: &Listener, v| port.add(l, v);
    assert_eq!(
        add(&mut port, &listener("a", Protocol::Http, None), "a"),
        Ok(())
    );
    assert_eq!(
        add(&mut port, &listener("b", Protocol::Http, None), "b"),
        Err(Conflict::Hostname)
    );
    assert_eq!(
        add(
            &mut port,
            &listener("c", Protocol::Https, Some("x.com")),
            "c"
        ),
        Err(Conflict::Transport)
    );
    let narrow = listener("d", Protocol::Http, Some("*.x.com"));
    assert_eq!(add(&mut port, &narrow, "d"), Ok(()));
    assert_eq!(port.listener(Some("a.x.com")), Some(&"d"));
    assert_eq!(port.listener(Some("x.com")), Some(&"a"));
    assert_eq!(port.listener(None), Some(&"a"));
}

#[test]
fn what_the_own_host_does_not_take_is_put_to_the_wider_ones() {
    let routes = [
        route("any", &[], "/"),
        route("below", &["*.x.com"], "/below"),
        route("own", &["a.x.com"], "/own"),
    ];
    let http = listener("http", Protocol::Http, None);
    let mut by_host = HostMap::default();
    for (host, tables) in tables(&http, &routes, |_| None) {
        by_host.insert(host.as_ref(), tables);
    }
    let headers = Fields::new();
    let taken = |host: &str, path: &str| {
        let request = RequestView {
            method: &Method::GET,
            path,
            query: None,
            authority: host,
            headers: &headers,
        };
        let tables: &Tables = by_host.find(host)?;
        let decision = decide(tables.iter().map(Arc::as_ref), &request)?;
        Some(decision.route.name.name().to_owned())
    };
    for (host, path, want) in [
        ("a.x.com", "/own", "own"),
        ("a.x.com", "/below", "below"),
        ("a.x.com", "/", "any"),
        ("b.x.com", "/own", "any"),
        ("b.x.com", "/below", "below"),
        ("x.com", "/below", "any"),
    ] {
        assert_eq!(taken(host, path).as_deref(), Some(want), "{host}{path}");
    }
    let other = listener("other", Protocol::Http, None);
    assert!(tables(&other, &routes, |_| None).is_empty());
}
