//! How a Gateway's proxy chooses endpoints: by zone, in a panic, by hash, beside kept sessions.

use std::collections::BTreeMap;

use super::*;

/// A Service whose endpoints are in these zones, ready or not, and how they are chosen.
fn balanced(endpoints: &[(u16, &str, bool)], balancer: &str) -> String {
    let mut text = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{name: main, port: 80, appProtocol: http}]}\n---\n".to_owned();
    for (port, zone, ready) in endpoints {
        let _ = write!(
            text,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s-{port}, namespace: shop, labels: {{kubernetes.io/service-name: s}}}}\naddressType: IPv4\nports: [{{name: main, port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1], zone: {zone}, conditions: {{ready: {ready}}}}}]\n---\n"
        );
    }
    let _ = write!(
        text,
        "apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: s, namespace: shop}}\nspec: {{targetRefs: [{{group: \"\", kind: Service, name: s}}], loadBalancer: {balancer}}}\n---\n"
    );
    text
}

/// How often each server answers so many requests on one connection.
fn counts(port: u16, requests: usize) -> BTreeMap<String, usize> {
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let response = raw.get("a", "/");
        *counts.entry(response.text()).or_default() += 1;
    }
    counts
}

fn settle(what: &str, wanted: impl Fn() -> bool) {
    testkit::wait_for(what, SOON, || wanted().then_some(()));
}

/// Servers that answer with their number, and their ports.
fn servers<const N: usize>() -> ([Upstream; N], [u16; N]) {
    let servers = std::array::from_fn(|i| Upstream::start(move |_| Step::answer(&i.to_string())));
    let ports = std::array::from_fn(|i: usize| {
        let server: &Upstream = &servers[i];
        server.port()
    });
    (servers, ports)
}

#[test]
fn the_own_zone_serves_and_what_it_cannot_take_goes_on() {
    let (_servers, [a, b, c, d]) = servers::<4>();
    let port = free_port();
    let rest = http_listener(port) + &http_route("r", "", "s");
    let failover = "{locality: {mode: Failover}, algorithm: RoundRobin}";
    let zones = |ready| {
        balanced(
            &[
                (a, "eu-1", true),
                (b, "eu-1", ready),
                (c, "eu-2", true),
                (d, "eu-2", true),
            ],
            failover,
        )
    };
    let files = [("rest.yaml", rest), ("s.yaml", zones(true))];
    let arguments = ["--locality", "eu/eu-1"];
    let proxy = Static::start_with("locality", &files, port, &arguments);
    settle("the own zone alone to serve", || {
        counts(port, 40).keys().eq(["0", "1"])
    });
    // One of two: 70 % stay. No endpoint failed: it is the control plane that knows.
    proxy.write("s.yaml", &zones(false));
    settle("the other zone to take a part", || {
        counts(port, 60).len() == 3
    });
    let counts = counts(port, 1000);
    assert!((620..=780).contains(&counts["0"]), "{counts:?}");
}

#[test]
fn below_the_threshold_health_counts_for_nothing() {
    let (_servers, [a, b, c]) = servers::<3>();
    let port = free_port();
    let rest = http_listener(port) + &http_route("r", "", "s");
    let endpoints = [(a, "z", true), (b, "z", false), (c, "z", false)];
    let with = |balancer| balanced(&endpoints, balancer);
    let files = [("rest.yaml", rest), ("s.yaml", with("{}"))];
    let proxy = Static::start("panic", &files, port);
    settle("the one to serve", || counts(port, 30).keys().eq(["0"]));
    proxy.write("s.yaml", &with("{panicThreshold: 34}"));
    settle("all to serve", || counts(port, 60).len() == 3);
    proxy.write("s.yaml", &with("{panicThreshold: 33}"));
    settle("the one to serve", || counts(port, 30).keys().eq(["0"]));
}

#[test]
fn a_kept_session_goes_before_the_hash_and_survives_scaling() {
    let (_servers, ports) = servers::<4>();
    let port = free_port();
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{name: web}], rules: [{sessionPersistence: {sessionName: mine}, backendRefs: [{name: s, port: 80}]}]}\n---\n";
    let rest = http_listener(port) + route;
    let all = ports.map(|port| (port, "z", true));
    for balancer in [
        "{algorithm: Maglev, hash: {header: x-user}}",
        "{algorithm: RingHash, hash: {header: x-user}}",
        "{algorithm: PeakEwma, slowStart: {window: 1m}}",
        "{panicThreshold: 50, locality: {mode: Weighted}}",
    ] {
        let files = [
            ("rest.yaml", rest.clone()),
            ("s.yaml", balanced(&all[..2], balancer)),
        ];
        let proxy = Static::start("hash-session", &files, port);
        let ask = |user: &str, cookie: &str| {
            let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
            let fields = format!("x-user: {user}\r\n{cookie}");
            raw.request(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
        };
        let first = ask("one", "");
        let set = first.header("set-cookie").expect("a session");
        let cookie = format!("Cookie: {}\r\n", set.split(';').next().unwrap());
        proxy.write("s.yaml", &balanced(&all, balancer));
        settle("all four to serve newcomers", || {
            let users = (0..40).map(|n| ask(&format!("user-{n}"), "").text());
            users.collect::<std::collections::BTreeSet<_>>().len() == 4
        });
        for n in 0..10 {
            assert_eq!(
                ask(&format!("user-{n}"), &cookie).text(),
                first.text(),
                "{balancer}"
            );
        }
    }
}
