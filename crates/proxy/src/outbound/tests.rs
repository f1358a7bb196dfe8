//! Requests through the outbound path, from raw bytes of a client to scripted upstreams on loopback.

use std::sync::Arc;
use std::time::Duration;

use model::ServiceName;
use model::balancing::{Algorithm, LoadBalancer};
use model::endpoint::{Endpoint as EndpointConfig, Health};
use model::retry;
use model::route::{Backend, Match, Route, RouteKind, Rule, Timeouts};
use model::service::{Port, Protocol, Service};
use model::traffic::{Connections, TrafficPolicy};
use model::workload::{Locality, Tunnel};
use telemetry::metrics::Format;
use testkit::upstream::{Step, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::*;
use crate::intake::Outward;
use crate::pool::Wire;
pub(crate) use crate::worker::alone::worker;

const PATIENCE: Duration = Duration::from_secs(10);

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// A service without proxies, on these ports of loopback.
pub(crate) fn destination(
    ports: &[u16],
    policy: Option<TrafficPolicy>,
    rules: Vec<Rule>,
) -> Arc<Destination> {
    let service = Service {
        name: name("shop/a"),
        addresses: Vec::new(),
        ports: vec![Port {
            name: "http".into(),
            number: 80,
            protocol: Protocol::Http,
        }],
        headless: false,
        near: false,
    };
    let endpoints: Vec<_> = ports
        .iter()
        .map(|port| {
            Arc::new(EndpointConfig {
                service: name("shop/a"),
                workload: name(&format!("shop/a-{port}")),
                addresses: vec!["127.0.0.1".parse().unwrap()],
                ports: [(80, *port)].into(),
                tunnel: Tunnel::None,
                identity: "spiffe://mesh.local/ns/shop/sa/a".parse().unwrap(),
                health: Health::Healthy,
                weight: 1,
                locality: Locality::default(),
                version: String::new(),
            })
        })
        .collect();
    let route = Route {
        kind: RouteKind::Http,
        name: name("shop/a"),
        parent: model::route::Parent::Service(name("shop/a")),
        port: None,
        created: 0,
        rules,
    };
    let routes = if route.rules.is_empty() {
        Vec::new()
    } else {
        vec![Arc::new(route)]
    };
    let policies: Vec<_> = policy.into_iter().map(Arc::new).collect();
    let destination = Arc::new(Destination::new(service.clone()));
    destination.update(
        &Locality::default(),
        &service,
        &endpoints,
        (&policies, &[]),
        &routes,
        &[],
    );
    destination
}

fn policy() -> TrafficPolicy {
    TrafficPolicy {
        name: name("shop/policy"),
        target: name("shop/a"),
        port: None,
        created: 0,
        load_balancer: None,
        connections: Connections::default(),
        outlier_detection: None,
        health_check: None,
        timeouts: model::traffic::Timeouts::default(),
        retries: None,
        hedging: None,
        adaptive_concurrency: None,
        load_shedding: None,
        fallback: None,
    }
}

fn rule() -> Rule {
    Rule {
        name: None,
        matches: vec![Match::default()],
        filters: Vec::new(),
        backends: vec![Backend {
            target: Target::Service {
                name: name("shop/a"),
                port: 80,
            },
            weight: 1,
            filters: Vec::new(),
        }],
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    }
}

/// Sends raw bytes on one connection and reads until `responses` of them have come.
async fn send(
    worker: &Rc<Worker>,
    destination: &Arc<Destination>,
    requests: &[&str],
) -> Vec<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    let service = Outward {
        worker: Rc::clone(worker),
        caller: Rc::new(local_caller(worker, peer)),
        inlet: Inlet::Service(Arc::clone(destination), 80),
    };
    let serving = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        crate::http::serve(
            &serving,
            server.into(),
            Wire::Http1,
            &serving.bounds(),
            service,
        )
        .await;
    });
    let mut responses = Vec::new();
    for request in requests {
        client.write_all(request.as_bytes()).await.unwrap();
        responses.push(
            tokio::time::timeout(PATIENCE, response(&mut client))
                .await
                .expect("a response in time"),
        );
    }
    responses
}

/// One response with a content-length.
async fn response(client: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        if client.read(&mut byte).await.unwrap() == 0 {
            return String::from_utf8(bytes).unwrap();
        }
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|l| l.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";

pub(crate) fn run<T>(test: impl AsyncFnOnce(Rc<Worker>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async { test(worker()).await })
}

#[test]
fn an_endpoint_that_refuses_costs_no_request_whatever_its_method() {
    let upstream = Upstream::start(|_| Step::answer("fine"));
    run(async |worker| {
        let destination = destination(&[closed_port(), upstream.port()], None, Vec::new());
        for request in [GET, POST, GET, POST, GET, POST] {
            let [response] = &send(&worker, &destination, &[request]).await[..] else {
                panic!("one response")
            };
            assert!(
                response.starts_with("HTTP/1.1 200") && response.ends_with("fine"),
                "{response}"
            );
        }
    });
}

#[test]
fn a_request_that_may_have_been_served_is_sent_again_only_if_idempotent() {
    run(async |worker| {
        for (request, status, sent) in [(GET, "HTTP/1.1 200", 2), (POST, "HTTP/1.1 502", 1)] {
            let upstream = Upstream::start(|connection| match connection {
                0 => vec![Step::ReadRequest, Step::Reset],
                _ => Step::answer("fine"),
            });
            let destination = destination(&[upstream.port()], None, Vec::new());
            let response = &send(&worker, &destination, &[request]).await[0];
            assert!(response.starts_with(status), "{response}");
            assert_eq!(upstream.connections(), sent, "{request}");
            if status.ends_with("502") {
                assert!(
                    response.contains("details=\"upstream_reset: "),
                    "{response}"
                );
            }
        }
    });
}

#[test]
fn a_post_that_the_peers_proxy_did_not_deliver_is_sent_elsewhere_with_its_whole_body() {
    run(async |worker| {
        let upstream = Upstream::start(|connection| match connection {
            0 => Step::answer_with(
                503,
                &[
                    ("x-tulle-failure", "connect_refused safe"),
                    ("connection", "close"),
                ],
                "no",
            ),
            _ => Step::answer("fine"),
        });
        let destination = destination(&[upstream.port()], None, Vec::new());
        let response = &send(&worker, &destination, &[POST]).await[0];
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(
            upstream.received_text(1).ends_with("hello"),
            "{}",
            upstream.received_text(1)
        );
    });
}

#[test]
fn what_proxies_tell_each_other_does_not_reach_the_client() {
    run(async |worker| {
        let upstream = Upstream::start(|_| {
            Step::answer_with(503, &[("x-tulle-failure", "upstream_reset no")], "no")
        });
        let destination = destination(&[upstream.port()], None, Vec::new());
        let response = &send(&worker, &destination, &[POST]).await[0];
        assert!(
            response.starts_with("HTTP/1.1 503") && !response.contains("x-tulle"),
            "{response}"
        );
    });
}

#[test]
fn a_request_that_takes_too_long_is_answered_with_the_reason() {
    run(async |worker| {
        let upstream = Upstream::start(|_| vec![Step::ReadRequest, Step::Stall]);
        let mut slow = rule();
        slow.timeouts.request = Some(Duration::from_millis(50));
        let destination = destination(&[upstream.port()], None, vec![slow]);
        let response = &send(&worker, &destination, &[GET]).await[0];
        assert!(response.starts_with("HTTP/1.1 504"), "{response}");
        assert!(
            response.contains("tulle; error=http_response_timeout; details=\"request_timeout: "),
            "{response}"
        );
    });
}

#[test]
fn a_status_that_the_user_names_is_retried_as_often_as_allowed() {
    run(async |worker| {
        let upstream = Upstream::start(|_| {
            let mut steps = vec![Step::ReadRequest];
            steps.push(Step::send(
                "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n",
            ));
            steps.push(Step::Again);
            steps
        });
        let mut again = rule();
        again.retry = Some(retry::Policy {
            attempts: 3,
            on: vec![retry::Condition::Status(503)],
            ..retry::Policy::default()
        });
        let destination = destination(&[upstream.port()], None, vec![again]);
        let response = &send(&worker, &destination, &[GET]).await[0];
        assert!(response.starts_with("HTTP/1.1 503"), "{response}");
        assert_eq!(upstream.requests(), 4);
    });
}

#[test]
fn connections_beyond_the_limit_are_refused_with_the_reason() {
    run(async |worker| {
        let upstream = Upstream::start(|_| vec![Step::ReadRequest, Step::Stall]);
        let mut limited = policy();
        limited.connections.max_connections = Some(1);
        limited.connections.max_pending_requests = Some(0);
        let destination = destination(&[upstream.port()], Some(limited), Vec::new());
        let first = {
            let (worker, destination) = (Rc::clone(&worker), Arc::clone(&destination));
            tokio::task::spawn_local(async move { send(&worker, &destination, &[GET]).await })
        };
        while upstream.requests() == 0 {
            tokio::task::yield_now().await;
        }
        let response = &send(&worker, &destination, &[GET]).await[0];
        assert!(
            response.starts_with("HTTP/1.1 503") && response.contains("circuit_open"),
            "{response}"
        );
        first.abort();
    });
}

#[test]
fn kept_connections_do_not_shut_other_endpoints_out() {
    run(async |worker| {
        let answer = || Step::send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine");
        let upstreams = [0, 1, 2]
            .map(|_| Upstream::start(move |_| vec![Step::ReadRequest, answer(), Step::Again]));
        let ports = [0, 1, 2].map(|at| upstreams[at].port());
        let mut limited = policy();
        limited.connections.max_connections = Some(1);
        limited.load_balancer = Some(LoadBalancer {
            algorithm: Algorithm::RoundRobin,
            ..LoadBalancer::default()
        });
        let destination = destination(&ports, Some(limited), Vec::new());
        let responses = send(&worker, &destination, &[GET; 6]).await;
        assert!(
            responses.iter().all(|r| r.starts_with("HTTP/1.1 200")),
            "{responses:?}"
        );
        // Each has one now, which nobody uses: they make room, and what is in use does not.
        let view = destination.view();
        let mut policy = view.port(80).unwrap().policy.clone();
        policy.max_connections = 3;
        let place = || crate::connect::reserve(&worker, &view.endpoints()[0], &policy);
        let places = [place(), place(), place(), place()];
        assert_eq!(places.map(|place| place.is_ok()), [true, true, true, false]);
    });
}

#[test]
fn a_connection_serves_one_request_after_another() {
    run(async |worker| {
        let upstream = Upstream::start(|_| {
            let answer = Step::send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine");
            vec![Step::ReadRequest, answer, Step::Again]
        });
        let destination = destination(&[upstream.port()], None, Vec::new());
        let responses = send(&worker, &destination, &[GET, POST, GET, POST]).await;
        assert!(
            responses.iter().all(|r| r.starts_with("HTTP/1.1 200")),
            "{responses:?}"
        );
        assert_eq!((upstream.connections(), upstream.requests()), (1, 4));
        let metrics = worker.shared.registry.render(Format::Text);
        let total = metrics.lines().find(|l| {
            l.starts_with("tulle_requests_total{") && l.contains("response_code=\"200\"")
        });
        assert!(total.is_some_and(|line| line.ends_with(" 4")), "{metrics}");
    });
}

#[test]
fn a_path_is_sent_on_in_normal_form_with_routes_and_without() {
    for rules in [vec![rule()], Vec::new()] {
        normal_path_is_sent(rules);
    }
}

fn normal_path_is_sent(rules: Vec<Rule>) {
    run(async |worker| {
        let upstream = Upstream::start(|_| Step::answer("fine"));
        let destination = destination(&[upstream.port()], None, rules);
        let request = "GET /a/../b//c?x=/../y HTTP/1.1\r\nhost: a\r\n\r\n";
        let response = &send(&worker, &destination, &[request]).await[0];
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(
            upstream
                .received_text(0)
                .starts_with("GET /b/c?x=/../y HTTP/1.1\r\n"),
            "{}",
            upstream.received_text(0)
        );
    });
}

#[test]
fn a_request_for_two_hosts_is_refused() {
    run(async |worker| {
        let destination = destination(&[closed_port()], None, Vec::new());
        let response = &send(
            &worker,
            &destination,
            &["GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"],
        )
        .await[0];
        assert!(
            response.starts_with("HTTP/1.1 400") && response.contains("bad_request"),
            "{response}"
        );
    });
}

#[test]
fn a_service_without_endpoints_says_so() {
    run(async |worker| {
        let destination = destination(&[], None, Vec::new());
        let response = &send(&worker, &destination, &[GET]).await[0];
        assert!(
            response.starts_with("HTTP/1.1 503") && response.contains("no_endpoints"),
            "{response}"
        );
    });
}

#[test]
fn a_rule_whose_backend_does_not_exist_is_answered_with_500_and_says_which() {
    run(async |worker| {
        let mut dangling = rule();
        dangling.backends[0].target = Target::Invalid {
            reason: "backend \"b\" does not exist in namespace shop".into(),
        };
        let destination = destination(&[closed_port()], None, vec![dangling]);
        let response = &send(&worker, &destination, &[GET]).await[0];
        assert!(response.starts_with("HTTP/1.1 500"), "{response}");
        assert!(
            response.contains(
                "error=destination_not_found; details=\"no_route: rule shop/a/0: backend 'b'"
            ),
            "{response}"
        );
    });
}

#[test]
fn a_connection_at_rest_and_a_request_under_way_take_little_room() {
    run(async |worker| {
        let service = Outward {
            worker: Rc::clone(&worker),
            caller: Rc::new(local_caller(&worker, "127.0.0.1:1".parse().unwrap())),
            inlet: Inlet::Service(destination(&[1], None, Vec::new()), 80),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (at_rest, under_way) = crate::http1::server::sizes(&worker, stream.into(), service);
        assert!(at_rest <= 768, "{at_rest} bytes");
        assert!(under_way <= 6272, "{under_way} bytes");
    });
}
