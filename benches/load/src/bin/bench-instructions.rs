//! The hot pure functions of a request, to be counted: `bench-instructions SCENARIO TIMES`.
//!
//! `benches/instructions/count.py` runs each scenario twice under callgrind, with different TIMES;
//! the difference is what one iteration costs, without the start of the process. `--list` names
//! the scenarios.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use lb::choose::{Balancer, Candidates, Choice, Standing};
use model::name::ObjectName;
use model::route::{Match, Parent, PathMatch, Route, RouteKind, Rule, Timeouts};
use policy::route::{RequestView, RouteTable};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use telemetry::Direction;
use telemetry::access_log::Entry;
use telemetry::metrics::{Registry, RequestLabels};
use wire::h1::{Decoder, Event, Length, Limits, Target, encode_request, encode_response};
use wire::h1::{parse_request, parse_response};
use wire::{Fields, Method, RequestHead, ResponseHead, Version};

/// What a browser sends, more or less.
const REQUEST: &[u8] = b"GET /api/reviews/0?page=2 HTTP/1.1\r\nHost: reviews.bookshop\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: application/json\r\n\
    Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\nX-Request-Id: 4f1c2c1e-58c8-4a53\r\n\
    Connection: keep-alive\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\
    Date: Sun, 22 Nov 2026 19:00:00 GMT\r\nCache-Control: no-store\r\nServer: reviews\r\n\r\n";
/// The smallest that wrk sends.
const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: app.local\r\n\r\n";

type Scenario = (&'static str, fn(u64));

const SCENARIOS: &[Scenario] = &[
    ("request-parse", |n| request_parse(REQUEST, n)),
    ("request-parse-small", |n| request_parse(SMALL, n)),
    ("request-write", request_write),
    ("response-parse", response_parse),
    ("response-write", response_write),
    ("chunked-decode", chunked_decode),
    ("path-plain", |n| path("/api/reviews/0", n)),
    ("path-odd", |n| path("/api/../api/%72eviews//0", n)),
    ("route-1", |n| route(1, n)),
    ("route-10000", |n| route(10_000, n)),
    // What ten more routes cost in a table of some thousand.
    ("table-10-routes", |n| {
        black_box(RouteTable::compile(&routes(10 * n), 80));
    }),
    ("pick-least-request-1000", |n| {
        pick(Choice::LeastRequest, 1000, n);
    }),
    ("pick-round-robin-10", |n| {
        pick(Choice::RoundRobin, 10, n);
    }),
    ("access-log-line", access_log_line),
    ("metrics-record", metrics_record),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    if name == "--list" {
        for (name, _) in SCENARIOS {
            let _ = writeln!(std::io::stdout(), "{name}");
        }
        return;
    }
    let times = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let Some((_, run)) = SCENARIOS.iter().find(|(known, _)| *known == name) else {
        eprintln!("bench-instructions: no scenario {name:?}; --list names them");
        std::process::exit(2);
    };
    run(times);
}

fn request_parse(bytes: &[u8], times: u64) {
    let (limits, mut head) = (Limits::default(), RequestHead::new());
    for _ in 0..times {
        let parsed = parse_request(black_box(bytes), &mut 0, &limits, &mut head);
        assert!(black_box(parsed).is_ok_and(|p| p.is_some()));
    }
}

fn request_write(times: u64) {
    let mut head = RequestHead::new();
    let parsed = parse_request(REQUEST, &mut 0, &Limits::default(), &mut head);
    assert!(parsed.is_ok());
    let mut out = Vec::with_capacity(4096);
    for _ in 0..times {
        out.clear();
        let target = Target {
            authority: &head.authority,
            path: &head.path,
        };
        encode_request(
            black_box(&head),
            &target,
            Length::None,
            false,
            false,
            &mut out,
        );
        black_box(&out);
    }
}

fn response_parse(times: u64) {
    let (limits, mut head) = (Limits::default(), ResponseHead::new());
    for _ in 0..times {
        let bytes = black_box(RESPONSE);
        let parsed = parse_response(bytes, &mut 0, &limits, &Method::GET, &mut head);
        assert!(black_box(parsed).is_ok_and(|p| p.is_some()));
    }
}

fn response_write(times: u64) {
    let mut head = ResponseHead::new();
    let parsed = parse_response(
        RESPONSE,
        &mut 0,
        &Limits::default(),
        &Method::GET,
        &mut head,
    );
    assert!(parsed.is_ok());
    let mut out = Vec::with_capacity(4096);
    for _ in 0..times {
        out.clear();
        encode_response(
            black_box(&head),
            Version::HTTP_11,
            Length::Known(13),
            true,
            &mut out,
        );
        black_box(&out);
    }
}

fn chunked_decode(times: u64) {
    let body = b"400\r\n"
        .iter()
        .chain(&[b'x'; 1024])
        .chain(b"\r\n0\r\n\r\n");
    let body: Vec<u8> = body.copied().collect();
    for _ in 0..times {
        let mut buffer = BytesMut::from(&black_box(&body)[..]);
        let mut decoder = Decoder::new(Length::Chunked, &Limits::default());
        loop {
            match decoder.decode(&mut buffer, false) {
                Ok(Event::Data(data)) => drop(black_box(data)),
                Ok(Event::End | Event::Trailers(_)) => break,
                other => panic!("the body is whole: {other:?}"),
            }
        }
    }
}

fn path(given: &str, times: u64) {
    for _ in 0..times {
        let _ = black_box(policy::path::normalize(black_box(given)));
    }
}

fn routes(count: u64) -> Vec<Arc<Route>> {
    let rule = |n: u64| Rule {
        name: None,
        matches: vec![Match {
            path: PathMatch::Prefix(format!("/api/service-{n}")),
            ..Match::default()
        }],
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    };
    let name = |name: &str| ObjectName::new("bench", name).expect("a valid name");
    (0..count.div_ceil(16))
        .map(|n| {
            Arc::new(Route {
                kind: RouteKind::Http,
                name: name(&format!("route-{n}")),
                parent: Parent::Service(name("app")),
                port: None,
                created: 0,
                rules: (16 * n..(16 * n + 16).min(count)).map(rule).collect(),
            })
        })
        .collect()
}

fn route(count: u64, times: u64) {
    let table = RouteTable::compile(&routes(count), 80);
    let (wanted, headers) = (format!("/api/service-{}/x", count - 1), Fields::default());
    for _ in 0..times {
        let view = RequestView {
            method: &Method::GET,
            path: black_box(&wanted),
            query: None,
            authority: "",
            headers: &headers,
        };
        assert!(black_box(table.decide(&view)).is_some());
    }
}

/// Endpoints that are all alike but for their load.
struct Endpoints(Vec<u32>);

impl Candidates for Endpoints {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn weight(&self, _: usize) -> u32 {
        1
    }

    fn load(&self, index: usize) -> u32 {
        self.0[index]
    }

    fn standing(&self, _: usize) -> Standing {
        Standing::Usable
    }

    fn heaviest(&self) -> u32 {
        1
    }
}

fn pick(choice: Choice<'_>, count: u32, times: u64) {
    let endpoints = Endpoints((0..count).map(|n| n % 7).collect());
    let mut balancer = Balancer::new();
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..times {
        let picked = balancer.choose(choice, black_box(&endpoints), &[], &mut random);
        assert!(black_box(picked).is_some());
    }
}

fn access_log_line(times: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let entry = Entry {
        trace_id: Some([7; 16]),
        span_id: Some([7; 8]),
        request_id: "4f1c2c1e-58c8-4a53-9d2a-3b7e1f0c5a66",
        method: "GET",
        authority: "reviews.bookshop",
        path: "/api/reviews/0",
        protocol: "http/1.1",
        status: 200,
        duration: Duration::from_micros(1234),
        upstream_duration: Some(Duration::from_micros(1100)),
        response_bytes: 1234,
        source: "productpage",
        destination: "reviews.bookshop",
        destination_workload: "reviews-v1-0",
        route: "bookshop/reviews/0",
        attempts: 1,
        user_agent: "curl/8.5.0",
        ..Entry::at(time, Direction::Outbound)
    };
    for _ in 0..times {
        black_box(black_box(&entry).to_line());
    }
}

fn metrics_record(times: u64) {
    let text = |text: &str| -> Arc<str> { text.into() };
    let shard = Registry::new().shard();
    let series = shard.requests(&RequestLabels {
        direction: Direction::Outbound,
        source: text("productpage"),
        source_principal: text(""),
        destination: text("reviews.bookshop"),
        destination_workload: text("reviews-v1-0"),
        destination_version: text("v1"),
        protocol: "http",
        route: text("bookshop/reviews/0"),
        mtls: true,
    });
    for n in 0..times {
        let duration = Duration::from_micros(100 + n % 1000);
        series.record(black_box(200), None, None, duration, 0, 1234);
    }
}
