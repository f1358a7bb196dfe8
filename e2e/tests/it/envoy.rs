//! Envoy under Tulle's control plane, beside Tulle's own proxy.
//!
//! One set of objects, one control plane, two Gateways to which every route is attached: `web` is
//! served by `tulle gateway`, `peer` by a real Envoy. The same request goes to both, and what came of it
//! is compared field by field. What differs on purpose stands in docs/envoy.md and in [`outcome`].

mod kit;
mod outcome;

use std::fmt::Write as _;

use testkit::upstream::{Step, Upstream};

use crate::mesh::SOON;
use kit::{Mode, World, service};
use outcome::Outcome;

const ROUTES: &str = "
hostnames: [paths.test]
rules:
- {matches: [{path: {type: Exact, value: /exact}}], backendRefs: [{name: a, port: 80}]}
- {matches: [{path: {value: /pre}}], backendRefs: [{name: b, port: 80}]}
- {matches: [{path: {value: /pre/longer}}], backendRefs: [{name: c, port: 80}]}
- {matches: [{path: {type: RegularExpression, value: '/re/[0-9]+'}}], backendRefs: [{name: c, port: 80}]}
---
hostnames: [others.test]
rules:
- {matches: [{headers: [{name: x-version, value: '2'}]}], backendRefs: [{name: b, port: 80}]}
- {matches: [{headers: [{name: x-version, type: RegularExpression, value: '[3-9]'}]}], backendRefs: [{name: c, port: 80}]}
- {matches: [{queryParams: [{name: q, value: '1'}]}], backendRefs: [{name: b, port: 80}]}
- {matches: [{method: DELETE}], backendRefs: [{name: c, port: 80}]}
- {matches: [{path: {value: /a}, method: PUT, headers: [{name: x-a, value: a}]}], backendRefs: [{name: a, port: 80}]}
---
hostnames: ['*.wild.test']
rules: [{backendRefs: [{name: a, port: 80}]}]
---
hostnames: [one.wild.test]
rules: [{matches: [{path: {value: /only}}], backendRefs: [{name: b, port: 80}]}]
---
hostnames: [headers.test]
rules:
- matches: [{path: {value: /request}}]
  filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: new}], add: [{name: x-add, value: '50%'}], remove: [x-gone]}}]
  backendRefs: [{name: a, port: 80}]
- matches: [{path: {value: /response}}]
  filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-set, value: new}], add: [{name: x-add, value: '%REQ(host)%'}], remove: [x-from-a]}}]
  backendRefs: [{name: a, port: 80}]
- matches: [{path: {value: /backend}}]
  backendRefs: [{name: a, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: here}]}}]}]
---
hostnames: [redirects.test]
rules:
- {matches: [{path: {value: /host}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: new.test, statusCode: 301}}]}
- {matches: [{path: {value: /scheme}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}
- {matches: [{path: {value: /port}}], filters: [{type: RequestRedirect, requestRedirect: {port: 8443}}]}
- {matches: [{path: {value: /full}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /else}}}]}
- {matches: [{path: {value: /prefix}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]}
- {matches: [{path: {value: /slash}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}
---
hostnames: [rewrites.test]
rules:
- {matches: [{path: {value: /host}}], filters: [{type: URLRewrite, urlRewrite: {hostname: inner.test}}], backendRefs: [{name: a, port: 80}]}
- {matches: [{path: {value: /full}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /else}}}], backendRefs: [{name: a, port: 80}]}
- {matches: [{path: {value: /prefix}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new/}}}], backendRefs: [{name: a, port: 80}]}
- {matches: [{path: {value: /slash}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], backendRefs: [{name: a, port: 80}]}
---
hostnames: [below.test]
rules: [{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /under}}}], backendRefs: [{name: a, port: 80}]}]
---
hostnames: [backends.test]
rules:
- {matches: [{path: {value: /weights}}], backendRefs: [{name: a, port: 80, weight: 0}, {name: b, port: 80, weight: 3}]}
- {matches: [{path: {value: /none}}], backendRefs: [{name: a, port: 80, weight: 0}]}
- {matches: [{path: {value: /missing}}], backendRefs: [{name: nobody, port: 80}]}
- {matches: [{path: {value: /empty}}], backendRefs: [{name: empty, port: 80}]}
- {matches: [{path: {value: /refused}}], backendRefs: [{name: refused, port: 80}]}
---
hostnames: [times.test]
rules:
- {matches: [{path: {value: /request}}], timeouts: {request: 200ms}, backendRefs: [{name: silent, port: 80}]}
- {matches: [{path: {value: /try}}], timeouts: {request: 5s, backendRequest: 100ms}, backendRefs: [{name: silent, port: 80}]}
- {matches: [{path: {value: /fast}}], timeouts: {request: 5s}, backendRefs: [{name: a, port: 80}]}
---
hostnames: [tries.test]
rules:
- {matches: [{path: {value: /busy}}], backendRefs: [{name: busy, port: 80}]}
- {matches: [{path: {value: /breaks}}], backendRefs: [{name: breaks, port: 80}]}
- {matches: [{path: {value: /teapot}}], backendRefs: [{name: teapot, port: 80}]}
";

/// How often a server is tried is the policy's affair.
const POLICY: &str = "
apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: tries, namespace: default}
spec:
  targetRefs: [{group: '', kind: Service, name: busy}, {group: '', kind: Service, name: breaks}, {group: '', kind: Service, name: teapot}, {group: '', kind: Service, name: silent}]
  retries: {attempts: 2, on: [gateway-error, reset, '418'], backoff: {base: 1ms, max: 2ms}, budget: {percent: 100, minPerSecond: 100}}
  outlierDetection: {consecutive5xx: 0, consecutiveGatewayErrors: 0}
";

/// One request for each case: its first line without the version, its host, and further fields.
const CASES: &[(&str, &str, &[&str])] = &[
    ("GET /exact", "paths.test", &[]),
    ("GET /exact/", "paths.test", &[]),
    ("GET /exact?x=1", "paths.test", &[]),
    ("GET /pre", "paths.test", &[]),
    ("GET /pre/", "paths.test", &[]),
    ("GET /prefix", "paths.test", &[]),
    ("GET /pre/longer", "paths.test", &[]),
    ("GET /pre/longerer", "paths.test", &[]),
    ("GET /pre//longer/x", "paths.test", &[]),
    ("GET /pre/../exact", "paths.test", &[]),
    ("GET /%65xact", "paths.test", &[]),
    ("GET /re/12", "paths.test", &[]),
    ("GET /re/12x", "paths.test", &[]),
    ("GET /", "paths.test", &[]),
    ("GET /", "nobody.test", &[]),
    ("GET /", "others.test", &["x-version: 2"]),
    ("GET /", "others.test", &["x-version: 7"]),
    ("GET /", "others.test", &["x-version: 77"]),
    ("GET /?q=1", "others.test", &[]),
    ("GET /?q=2&q=1", "others.test", &[]),
    ("GET /?a=b&q=1", "others.test", &[]),
    ("DELETE /", "others.test", &[]),
    ("PUT /a/b", "others.test", &["x-a: a", "content-length: 0"]),
    ("PUT /b", "others.test", &["x-a: a", "content-length: 0"]),
    ("GET /", "x.wild.test", &[]),
    ("GET /", "x.y.wild.test", &[]),
    ("GET /", "wild.test", &[]),
    ("GET /only", "one.wild.test", &[]),
    ("GET /else", "one.wild.test", &[]),
    ("GET /", "X.Wild.TEST", &[]),
    ("GET /", "x.wild.test:1234", &[]),
    (
        "GET /request",
        "headers.test",
        &["x-set: old", "x-add: old", "x-gone: 1"],
    ),
    ("GET /request", "headers.test", &[]),
    ("GET /response", "headers.test", &[]),
    ("GET /backend", "headers.test", &["x-set: old"]),
    ("GET /host/x?y", "redirects.test", &[]),
    ("GET /scheme/x", "redirects.test", &[]),
    ("GET /port/x", "redirects.test", &[]),
    ("GET /full/x?y=z", "redirects.test", &[]),
    ("GET /prefix/x?y=z", "redirects.test", &[]),
    ("GET /prefix", "redirects.test", &[]),
    ("GET /slash/x", "redirects.test", &[]),
    ("GET /slash", "redirects.test", &[]),
    ("GET /host", "rewrites.test", &[]),
    ("GET /full/x?y=z", "rewrites.test", &[]),
    ("GET /prefix", "rewrites.test", &[]),
    ("GET /prefix/", "rewrites.test", &[]),
    ("GET /prefix/x?y=z", "rewrites.test", &[]),
    ("GET /slash", "rewrites.test", &[]),
    ("GET /slash/", "rewrites.test", &[]),
    ("GET /slash/x", "rewrites.test", &[]),
    ("GET /x", "below.test", &[]),
    ("GET /weights", "backends.test", &[]),
    ("GET /none", "backends.test", &[]),
    ("GET /missing", "backends.test", &[]),
    ("GET /empty", "backends.test", &[]),
    ("GET /refused", "backends.test", &[]),
    ("GET /request", "times.test", &[]),
    ("GET /try", "times.test", &[]),
    ("GET /fast", "times.test", &[]),
    ("GET /busy", "tries.test", &[]),
    ("POST /busy", "tries.test", &["content-length: 0"]),
    ("GET /breaks", "tries.test", &[]),
    ("POST /breaks", "tries.test", &["content-length: 0"]),
    ("GET /teapot", "tries.test", &[]),
    ("POST /teapot", "tries.test", &["content-length: 0"]),
];

/// A server for each name, which shows who answers and what it was asked.
fn servers() -> Vec<(&'static str, Upstream)> {
    let mut all: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let fields = [("x-backend", name), ("x-from-a", "1")];
            (name, Upstream::start(move |_| Step::reflect(&fields)))
        })
        .collect();
    all.push((
        "silent",
        Upstream::start(|_| vec![Step::ReadRequest, Step::Stall]),
    ));
    for (name, status) in [("busy", 503), ("teapot", 418)] {
        let fields: &'static [_] = match name {
            "busy" => &[("x-backend", "busy")],
            _ => &[("x-backend", "teapot")],
        };
        let answer = move |_| Step::answer_with(status, fields, "");
        all.push((name, Upstream::start(answer)));
    }
    let breaks = |_| vec![Step::ReadRequest, Step::Reset];
    all.push(("breaks", Upstream::start(breaks)));
    all
}

#[test]
fn envoy_and_tulle_do_the_same_with_the_same_objects() {
    let servers = servers();
    let mut objects = String::new();
    for (name, server) in &servers {
        objects += &service(name, &[server.port()]);
    }
    objects += &service("empty", &[]);
    objects += &service("refused", &[testkit::place::free_port()]);
    objects += POLICY;
    let world = World::start(Mode::Delta, &objects, ROUTES);
    let mut wrong = String::new();
    for (line, host, fields) in CASES {
        let ask = |port| {
            let before: Vec<_> = servers.iter().map(|(_, s)| s.requests()).collect();
            let mut outcome = Outcome::of(port, line, host, fields);
            let after = servers.iter().map(|(_, s)| s.requests());
            let tries = after.zip(before).map(|(after, before)| after - before);
            outcome.tries = tries.sum();
            outcome
        };
        let (tulle, envoy) = (ask(world.tulle), ask(world.envoy));
        if tulle != envoy {
            let _ = writeln!(
                wrong,
                "{line} {host} {fields:?}\n  tulle {tulle:?}\n  envoy {envoy:?}"
            );
        }
    }
    let [tulle, envoy] = world.secure;
    for line in ["GET /exact", "GET /pre/x", "GET /else"] {
        let ask = |port| Outcome::of_secure(port, line, "paths.test");
        let (tulle, envoy) = (ask(tulle), ask(envoy));
        if tulle != envoy {
            let _ = writeln!(
                wrong,
                "{line} inside TLS\n  tulle {tulle:?}\n  envoy {envoy:?}"
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn both_eject_an_endpoint_after_as_many_failures() {
    let good = Upstream::start(|_| Step::answer_with(200, &[("x-backend", "good")], ""));
    let bad = Upstream::start(|_| Step::answer_with(500, &[("x-backend", "bad")], ""));
    let objects = service("s", &[good.port(), bad.port()])
        + "
apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: s, namespace: default}
spec:
  targetRefs: [{group: '', kind: Service, name: s}]
  loadBalancer: {algorithm: RoundRobin}
  retries: {attempts: 0}
  outlierDetection: {consecutive5xx: 4, consecutiveGatewayErrors: 0, baseEjectionTime: 600s, maxEjectionPercent: 50}
";
    let routes = "\nhostnames: [s.test]\nrules: [{backendRefs: [{name: s, port: 80}]}]\n";
    let world = World::start(Mode::Delta, &objects, routes);
    for port in [world.tulle, world.envoy] {
        let failed = (0..60).filter(|_| Outcome::of(port, "GET /", "s.test", &[]).status == 500);
        // Each worker of Tulle's may have picked the endpoint before it was ejected by another.
        assert_eq!(failed.count(), 4, "port {port}");
    }
    let clusters = world.admin("/clusters");
    let ejected = clusters
        .lines()
        .filter(|l| l.contains("failed_outlier_check"));
    assert_eq!(ejected.count(), 1, "{clusters}");
}

#[test]
fn changes_reach_envoy_in_both_modes() {
    for mode in [Mode::StateOfTheWorld, Mode::Delta] {
        let [a, b] = ["a", "b"].map(|name| {
            Upstream::start(move |_| Step::answer_with(200, &[("x-backend", name)], ""))
        });
        let route = |to: &str| {
            format!("\nhostnames: [s.test]\nrules: [{{backendRefs: [{{name: {to}, port: 80}}]}}]\n")
        };
        let world = World::start(mode, &service("a", &[a.port()]), &route("a"));
        let backend = || Outcome::of(world.envoy, "GET /", "s.test", &[]).backend;
        let settle = |what: &str, wanted: &str| {
            testkit::wait_for(what, SOON, || {
                (backend().as_deref() == Some(wanted)).then_some(())
            });
        };
        settle("the first route", "a");
        // Endpoints alone, and back.
        world.mesh.apply(&service("a", &[b.port()]));
        settle("other endpoints", "b");
        world.mesh.apply(&service("a", &[a.port()]));
        settle("the first endpoints", "a");
        // A new cluster and a route to it.
        world.mesh.apply(&service("b", &[b.port()]));
        world.route(&route("b"));
        settle("the new route", "b");
        let stats = world.admin("/stats?filter=update_rejected");
        assert!(stats.lines().all(|line| line.ends_with(": 0")), "{stats}");
    }
}

#[test]
fn a_change_of_clusters_drops_no_request() {
    for mode in [Mode::StateOfTheWorld, Mode::Delta] {
        let [a, b] = ["a", "b"].map(|name| {
            Upstream::start(move |_| Step::answer_with(200, &[("x-backend", name)], ""))
        });
        let route = |to: &str| {
            format!("\nhostnames: [s.test]\nrules: [{{backendRefs: [{{name: {to}, port: 80}}]}}]\n")
        };
        let objects = service("a", &[a.port()]) + &service("b", &[b.port()]);
        let world = World::start(mode, &objects, &route("a"));
        for wanted in ["b", "a", "b", "a"] {
            // One cluster comes and the other goes.
            world.route(&route(wanted));
            testkit::wait_for("the other backend", SOON, || {
                let outcome = Outcome::of(world.envoy, "GET /", "s.test", &[]);
                assert_eq!(outcome.status, 200, "{mode:?}: {outcome:?}");
                (outcome.backend.as_deref() == Some(wanted)).then_some(())
            });
            testkit::wait_for("the old cluster to go", SOON, || {
                let outcome = Outcome::of(world.envoy, "GET /", "s.test", &[]);
                assert_eq!(outcome.status, 200, "{mode:?}: {outcome:?}");
                let old = if wanted == "a" {
                    "default/b/80::"
                } else {
                    "default/a/80::"
                };
                (!world.admin("/clusters").contains(old)).then_some(())
            });
        }
    }
}

#[test]
fn what_envoy_refuses_is_sent_once() {
    for mode in [Mode::StateOfTheWorld, Mode::Delta] {
        let a = Upstream::start(|_| Step::answer_with(200, &[("x-backend", "a")], ""));
        let good = "\nhostnames: [s.test]\nrules: [{backendRefs: [{name: a, port: 80}]}]\n";
        let world = World::start(mode, &service("a", &[a.port()]), good);
        // RE2 takes no more than 1000 repetitions.
        world.route("\nhostnames: [s.test]\nrules: [{matches: [{path: {type: RegularExpression, value: '/x{1001}'}}], backendRefs: [{name: a, port: 80}]}]\n");
        let refused = || {
            let metrics = world.control_metrics();
            let value = |name: &str| -> u64 {
                let line = metrics.lines().find(|line| line.starts_with(name));
                let value = line.and_then(|line| line.rsplit(' ').next());
                value
                    .and_then(|value| value.parse().ok())
                    .unwrap_or_default()
            };
            (
                value("tulle_xds_envoy_rejections_total"),
                value("tulle_xds_envoy_pushes_total"),
            )
        };
        let first = testkit::wait_for("the refusal", SOON, || {
            let now = refused();
            (now.0 > 0).then_some(now)
        });
        assert_eq!(first.0, 1, "{mode:?}");
        // What is done for another object ends after what would have been sent again.
        world.mesh.apply(&service("other", &[a.port()]));
        world.mesh.apply(&service("another", &[a.port()]));
        assert_eq!(refused(), first, "{mode:?}");
        // The last good routes are in force, and good ones are taken again.
        assert_eq!(
            Outcome::of(world.envoy, "GET /", "s.test", &[])
                .backend
                .as_deref(),
            Some("a")
        );
        world.route("\nhostnames: [s.test]\nrules: [{matches: [{path: {value: /x}}], backendRefs: [{name: a, port: 80}]}]\n");
        testkit::wait_for("a good route", SOON, || {
            (Outcome::of(world.envoy, "GET /", "s.test", &[]).status == 404).then_some(())
        });
        assert_eq!(refused().0, 1, "{mode:?}");
    }
}

#[test]
fn a_node_that_names_no_gateway_is_told_so() {
    let mut world = World::start_envoy_as("stranger");
    // Envoy shows a status as it travels.
    world
        .envoy_process
        .wait_stderr("names%20no%20Gateway", SOON);
}
