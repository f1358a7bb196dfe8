//! `Programmed` says what proxies have acknowledged or refused, and nothing else.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::certs::Forged;
use testkit::upstream::{Step, Upstream};
use xds::proto::discovery::DeltaDiscoveryRequest;

use super::ads::{Peer, subscribe};
use super::*;

fn route(header: &str) -> String {
    let route = SHOP.split("---").nth(1).expect("a route");
    let filter = format!(
        "filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-version, value: {header}}}]}}}}], backendRefs"
    );
    route.replace("backendRefs", &filter)
}

/// Waits until the route is programmed so; gives the message.
#[track_caller]
fn wait_programmed(plane: &Plane, status: &str, reason: &str) -> String {
    let mut last = Value::Null;
    let found = testkit::deadline::try_wait_for(SOON, || {
        last = plane.condition("httproutes", "shop/reviews", "Programmed")?;
        (last["status"] == status && last["reason"] == reason).then_some(())
    });
    assert!(found.is_some(), "not {status} {reason}: {last}");
    last["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn programmed_follows_the_proxys_acknowledgement() {
    let plane = Plane::start("programmed");
    let program = Upstream::start(|_| Step::answer("reviews"));
    let _reviews = plane.serve("reviews", "reviews-0", program.port());
    plane.apply("route.yaml", &route("one")).success();
    wait_programmed(&plane, "Unknown", "NotRequested");

    let (mut caller, proxy) = plane.client("caller", &[]);
    wait_through(proxy, "reviews.shop", "reviews");
    wait_programmed(&plane, "True", "Programmed");
    assert_eq!(
        through(proxy, "reviews.shop").header("x-version"),
        Some("one")
    );

    // A proxy that is stuck has acknowledged nothing.
    let stuck = proxy_of(caller.pid());
    kill(stuck, Signal::SIGSTOP).expect("stopped");
    plane.apply("route.yaml", &route("two")).success();
    let message = wait_programmed(&plane, "False", "Pending");
    has(&message, &["0 of 1"]);
    let table = plane.cli(&["get", "httproute", "-n", "shop"]).success();
    has(&table, &["False"]);
    kill(stuck, Signal::SIGCONT).expect("continued");
    wait_programmed(&plane, "True", "Programmed");
    assert_eq!(
        through(proxy, "reviews.shop").header("x-version"),
        Some("two")
    );

    // Nobody is left who asked.
    assert!(!caller.terminate(SOON).success());
    wait_programmed(&plane, "Unknown", "NotRequested");
}

#[test]
fn a_refusal_is_told_with_the_proxys_own_words() {
    let plane = Plane::start("refusal");
    let (_caller, _) = plane.client("caller", &[]);
    plane.apply("shop.yaml", SHOP).success();
    let own = Forged::from_pem(&plane.svid("caller"));
    rpc::runtime().block_on(async {
        let first = subscribe("Route", &["shop/reviews/*"]);
        let mut peer = Peer::open(&plane, Some(&own), "test/refuser", first)
            .await
            .expect("a stream");
        let response = peer.next().await.expect("the route");
        assert_eq!(response.resources.len(), 1);
        wait_programmed(&plane, "False", "Pending");
        peer.send(DeltaDiscoveryRequest {
            response_nonce: response.nonce,
            error_detail: Some(xds::proto::google::rpc::Status {
                code: 3,
                message: "no room for it".to_owned(),
                ..Default::default()
            }),
            ..subscribe("Route", &[])
        })
        .await;
        let message = wait_programmed(&plane, "False", "Rejected");
        has(&message, &["test/refuser: no room for it"]);
        let page = plane
            .cli(&["describe", "httproute", "reviews", "-n", "shop"])
            .success();
        has(&page, &["Rejected", "no room for it"]);
        has(
            &plane.cli(&["status"]).success(),
            &["test/refuser refuses", "no room for it"],
        );

        assert_eq!(plane.metric("tulle_xds_rejections_total"), 1);

        // The next version is another matter.
        plane.apply("route.yaml", &route("next")).success();
        let response = peer.next().await.expect("the next version");
        peer.send(DeltaDiscoveryRequest {
            response_nonce: response.nonce,
            ..subscribe("Route", &[])
        })
        .await;
        wait_programmed(&plane, "True", "Programmed");
    });
}

/// The proxy that a `tulle run` has started.
pub(super) fn proxy_of(supervisor: u32) -> Pid {
    child_of(supervisor, "proxy")
}

/// The child of a `tulle run` whose command line has this word.
pub(super) fn child_of(supervisor: u32, word: &str) -> Pid {
    wait_for("the child", SOON, || find_child(supervisor, word))
}

/// The same, if it is there already.
pub(super) fn find_child(supervisor: u32, word: &str) -> Option<Pid> {
    let children =
        fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
    children.split_ascii_whitespace().find_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        // Before its own exec it is still `tulle __exec`, and before that `tulle run`.
        let is_itself = !words.contains(&"__exec") && !words.contains(&"run");
        (is_itself && words.contains(&word)).then(|| pid.parse().ok().map(Pid::from_raw))?
    })
}

#[test]
fn a_gateways_status_says_what_is_attached_to_which_listener() {
    let plane = Plane::start("listeners");
    let objects = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec:
  gatewayClassName: tulle
  allowedListeners: {namespaces: {from: Same}}
  listeners:
    - {name: http, port: 8080, protocol: HTTP, hostname: a.com}
    - {name: odd, port: 8081, protocol: SCTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: shop}
spec:
  parentRef: {name: web}
  listeners:
    - {name: http, port: 8080, protocol: HTTP, hostname: b.com}
    - {name: same, port: 8080, protocol: HTTP, hostname: a.com}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{name: web}, {group: gateway.networking.k8s.io, kind: ListenerSet, name: more}]}
";
    plane.apply("listeners.yaml", objects).success();
    let status =
        |kind: &str, name: &str| plane.json(&["get", kind, name, "-n", "shop"])["status"].clone();
    let gateway = status("gateway", "web");
    assert_eq!(gateway["attachedListenerSets"], 1, "{gateway:#}");
    let [http, odd] = [0, 1].map(|i| &gateway["listeners"][i]);
    assert_eq!(http["attachedRoutes"], 1, "{gateway:#}");
    assert_eq!(http["supportedKinds"][0]["kind"], "HTTPRoute");
    let reason = |listener: &Value, which: &str| {
        let list = listener["conditions"].as_array().cloned();
        let mut list = list.unwrap_or_default().into_iter();
        let found = list.find(|condition| condition["type"] == which);
        found.map(|condition| condition["reason"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(reason(http, "Programmed").as_deref(), Some("Pending"));
    assert_eq!(
        reason(odd, "Accepted").as_deref(),
        Some("UnsupportedProtocol")
    );
    let set = status("listenerset", "more");
    let same = &set["listeners"][1];
    assert_eq!(
        reason(same, "Conflicted").as_deref(),
        Some("HostnameConflict"),
        "{set:#}"
    );
    let page = plane.cli(&["describe", "listenerset", "more", "-n", "shop"]);
    has(
        &page.success(),
        &["Listeners:", "1 routes attached", "HostnameConflict"],
    );
}
