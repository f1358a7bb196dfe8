//! How an endpoint is chosen, in a mesh: each algorithm, what it is bound to, and how far away it is.

use std::collections::BTreeMap;
use std::time::Duration;

use testkit::upstream::Step;

use crate::mesh::{Mesh, SOON, Server, Workload};

/// The shop, and how its endpoints are chosen.
fn shop(more: &str, balancer: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: shop}}
spec: {{selector: {{app: shop}}, ports: [{{port: 80, targetPort: default, appProtocol: http}}]{more}}}
---
apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {{name: shop}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: shop}}]
  loadBalancer: {balancer}
"
    )
}

/// An endpoint of the shop that answers with its name.
fn endpoint(mesh: &Mesh, name: &'static str, arguments: &[&str]) -> Server {
    mesh.instance("shop", name, "/http", arguments, move |_| {
        Step::answer(name)
    })
}

/// Who answers a request with these header fields and this path.
fn ask(client: &Workload, path: &str, headers: &str) -> String {
    let response = client.request("GET", "shop", path, headers, "");
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

/// How often each answers so many requests on one connection, and so of one worker.
fn counts(client: &Workload, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut raw = client.connect("shop");
    let text = client.text("GET", "shop", "/", "", "");
    for _ in 0..requests {
        let response = raw.request(&text);
        assert_eq!(response.status, 200, "{}", response.text());
        *counts.entry(response.text()).or_default() += 1;
    }
    counts
}

/// Waits until what `client` is answered is as wanted.
fn settle(what: &str, wanted: impl Fn() -> bool) {
    testkit::wait_for(what, SOON, || wanted().then_some(()));
}

const USERS: usize = 24;

/// Where each of several users is sent.
fn homes(client: &Workload) -> Vec<String> {
    let user = |n| ask(client, "/", &format!("x-user: user-{n}\r\n"));
    (0..USERS).map(user).collect()
}

fn requests_of_one_user_go_to_one_endpoint(algorithm: &str) {
    let mesh = Mesh::start();
    mesh.apply(&shop(
        "",
        &format!("{{algorithm: {algorithm}, hash: [{{header: x-user}}, {{query: user}}]}}"),
    ));
    let (a, b) = (endpoint(&mesh, "a", &[]), endpoint(&mesh, "b", &[]));
    let c = endpoint(&mesh, "c", &[]);
    let client = mesh.client();
    let other = mesh.idle("other", "other", &[]);
    settle("both proxies to know all of it", || {
        let (first, second) = (homes(&client), homes(&other));
        let all = ["a", "b", "c"];
        // The same each time, whichever worker is asked, and by both proxies; all take part.
        first == homes(&client)
            && first == second
            && all.iter().all(|name| first.iter().any(|home| home == name))
    });
    let before = homes(&client);
    // A request without the header is known by its query.
    let by_query = |user: &str| ask(&client, &format!("/?x=1&user={user}"), "");
    for user in ["user-0", "user-1", "user-2"] {
        assert_eq!(by_query(user), by_query(user));
        let header = format!("x-user: {user}\r\n");
        assert_eq!(by_query(user), ask(&client, "/?user=somebody", &header));
    }
    // Who has neither goes anywhere.
    settle("requests that nothing is known of to be spread", || {
        counts(&client, 30).len() == 3
    });
    drop(c);
    settle("the one that leaves to be gone", || {
        !homes(&client).iter().any(|home| home == "c")
    });
    let after = homes(&client);
    let stayed = |name| move |(was, is): (&String, &String)| was == is || was == name;
    let pairs = || before.iter().zip(&after);
    let moved = pairs().filter(|pair| !stayed("c")(*pair)).count();
    // Of two endpoints a ring has half as many entries again of each, and so some go over.
    assert!(moved <= USERS / 6, "{before:?} {after:?}");
    assert_eq!(after, homes(&other));
    drop((a, b));
}

#[test]
fn maglev_sends_requests_of_one_user_to_one_endpoint() {
    requests_of_one_user_go_to_one_endpoint("Maglev");
}

#[test]
fn a_ring_sends_requests_of_one_user_to_one_endpoint() {
    requests_of_one_user_go_to_one_endpoint("RingHash");
}

#[test]
fn a_client_without_the_cookie_is_given_one_that_leads_back() {
    let mesh = Mesh::start();
    mesh.apply(&shop(
        "",
        "{algorithm: Maglev, hash: {cookie: basket, ttl: 1h, path: /shop}}",
    ));
    let _servers = ["a", "b", "c"].map(|name| endpoint(&mesh, name, &[]));
    let client = mesh.client();
    let first = || client.get("shop", "/shop");
    settle("a cookie to be given", || {
        first().header("set-cookie").is_some()
    });
    let mut seen = Vec::new();
    for _ in 0..12 {
        let response = first();
        let set = response.header("set-cookie").expect("a cookie");
        let (pair, attributes) = set.split_once(';').expect("attributes");
        assert_eq!(
            attributes,
            " Path=/shop; Max-Age=3600; HttpOnly; SameSite=Lax"
        );
        let cookie = format!("Cookie: other=1; {pair}\r\n");
        for _ in 0..3 {
            let again = client.request("GET", "shop", "/shop", &cookie, "");
            assert_eq!(again.text(), response.text());
            assert_eq!(again.header("set-cookie"), None);
        }
        seen.push(response.text());
    }
    seen.sort();
    seen.dedup();
    assert!(seen.len() > 1, "newcomers are spread: {seen:?}");
}

#[test]
fn a_client_is_known_by_its_address() {
    let mesh = Mesh::start();
    mesh.apply(&shop("", "{algorithm: RingHash, hash: {sourceIP: true}}"));
    let _servers = ["a", "b", "c"].map(|name| endpoint(&mesh, name, &[]));
    let client = mesh.client();
    settle("all requests to go to one", || {
        counts(&client, 30).len() == 1
    });
}

#[test]
fn turns_are_taken_and_the_slow_are_avoided() {
    let mesh = Mesh::start();
    mesh.apply(&shop("", "{algorithm: RoundRobin}"));
    let _quick = ["a", "b"].map(|name| endpoint(&mesh, name, &[]));
    let _slow = mesh.instance("shop", "slow", "/http", &[], |_| {
        let mut steps = Step::answer("slow");
        // It takes its time before it answers.
        steps.insert(1, Step::Pause(Duration::from_millis(60)));
        steps
    });
    let client = mesh.client();
    let slow = |requests| counts(&client, requests).get("slow").copied().unwrap_or(0);
    settle("all three to take turns", || {
        counts(&client, 30).values().eq(&[10, 10, 10])
    });
    mesh.apply(&shop("", "{algorithm: Random}"));
    settle("turns to be at an end", || {
        let counts = counts(&client, 30);
        counts.len() == 3 && !counts.values().eq(&[10, 10, 10])
    });
    mesh.apply(&shop("", "{algorithm: PeakEwma}"));
    settle("the slow one to be avoided", || slow(40) <= 2);
    // Nothing is in flight between two requests: who only counts those sees no difference.
    mesh.apply(&shop("", "{algorithm: LeastRequest}"));
    settle("the slow one to be used again", || slow(40) >= 5);
}

#[test]
fn a_new_endpoint_gets_little_at_first() {
    let mesh = Mesh::start();
    let slow_start = "{algorithm: RoundRobin, slowStart: {window: 1h}}";
    mesh.apply(&shop("", slow_start));
    let _old = endpoint(&mesh, "old", &[]);
    let client = mesh.client();
    settle("the first to answer", || counts(&client, 2).len() == 1);
    let _new = endpoint(&mesh, "new", &[]);
    settle("the second to be known", || counts(&client, 40).len() == 2);
    // A tenth of the weight: one in eleven.
    let counts_now = counts(&client, 220);
    let new = counts_now["new"];
    assert!((16..=24).contains(&new), "{counts_now:?}");
    mesh.apply(&shop("", "{algorithm: RoundRobin}"));
    settle("both to take turns", || {
        counts(&client, 20).values().eq(&[10, 10])
    });
}

#[test]
fn the_nearest_serve_as_long_as_there_are_any() {
    let mesh = Mesh::start();
    let near = endpoint(&mesh, "near", &["--locality", "eu/eu-1"]);
    let middle = endpoint(&mesh, "middle", &["--locality", "eu/eu-2"]);
    let _far = endpoint(&mesh, "far", &["--locality", "us/us-1"]);
    let client = mesh.client_with(&["--locality", "eu/eu-1"]);
    mesh.apply(&shop("", "{}"));
    settle("all to serve", || counts(&client, 60).len() == 3);
    let only = |name: &str| {
        settle(&format!("{name} alone to serve"), || {
            let counts = counts(&client, 30);
            counts.len() == 1 && counts.contains_key(name)
        });
    };
    let by_weight = "{locality: {mode: Weighted, weights: [{region: us, weight: 1}]}}";
    mesh.apply(&shop("", by_weight));
    only("far");
    // What Kubernetes says of it, where no policy does.
    mesh.apply(&shop(", trafficDistribution: PreferClose", "{}"));
    only("near");
    mesh.apply(&shop(
        ", trafficDistribution: PreferSameZone",
        "{locality: {mode: None}}",
    ));
    settle("all to serve", || counts(&client, 60).len() == 3);
    mesh.apply(&shop("", "{locality: {mode: Failover}}"));
    only("near");
    drop(near);
    only("middle");
    drop(middle);
    only("far");
}
