//! The specification's order by table, and equality with an interpreter that reads it naively.

use super::*;
use http::HeaderName;
use model::name::ObjectName;
use model::pattern::Pattern;
use model::route::{HeaderMatch, Parent, QueryMatch, Timeouts, ValueMatch};
use proptest::prelude::*;

fn route(kind: RouteKind, name: &str, created: u64, rules: Vec<Vec<Match>>) -> Arc<Route> {
    let rule = |matches| Rule {
        name: None,
        matches,
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    };
    Arc::new(Route {
        kind,
        name: ObjectName::new("shop", name).expect("valid"),
        parent: Parent::Service(ObjectName::new("shop", "reviews").expect("valid")),
        port: None,
        created,
        rules: rules.into_iter().map(rule).collect(),
    })
}

fn path(path: PathMatch) -> Match {
    Match {
        path,
        ..Match::default()
    }
}

fn exact(p: &str) -> Match {
    path(PathMatch::Exact(p.to_owned()))
}

fn prefix(p: &str) -> Match {
    path(PathMatch::Prefix(p.to_owned()))
}

fn regex(p: &str) -> Match {
    path(PathMatch::Regex(Pattern::new(p).expect("valid")))
}

fn method(p: &str) -> Match {
    path(PathMatch::GrpcMethod(p.to_owned()))
}

fn header(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch {
        name: name.parse().expect("valid"),
        value: ValueMatch::Exact(value.to_owned()),
    }
}

fn query(name: &str, value: &str) -> QueryMatch {
    QueryMatch {
        name: name.to_owned(),
        value: ValueMatch::Exact(value.to_owned()),
    }
}

/// A request on one line: `GET /path?query name=value ...`.
struct Request {
    method: Method,
    path: String,
    query: Option<String>,
    headers: Fields,
}

impl Request {
    fn new(line: &str) -> Self {
        let mut words = line.split(' ');
        let method = words.next().unwrap_or_default().parse().expect("a method");
        let target = words.next().unwrap_or("/");
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let mut headers = Fields::new();
        for (name, value) in words.filter_map(|w| w.split_once('=')) {
            headers.append(name, value.as_bytes());
        }
        Self {
            method,
            path: path.to_owned(),
            query,
            headers,
        }
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            authority: "asked.example",
            headers: &self.headers,
        }
    }
}

fn decide(routes: &[Arc<Route>], line: &str) -> Option<String> {
    let table = RouteTable::compile(routes, 80);
    let decision = table.decide(&Request::new(line).view())?;
    Some(decision.name.to_string())
}

/// Which of `matches`, each a rule of one route, takes the request.
fn first(matches: &[Match], line: &str) -> Option<usize> {
    let rules = matches.iter().map(|m| vec![m.clone()]).collect();
    let routes = [route(RouteKind::Http, "r", 1, rules)];
    let table = RouteTable::compile(&routes, 80);
    table
        .decide(&Request::new(line).view())
        .map(|d| d.rule_index)
}

#[test]
fn paths_are_taken_by_the_most_specific() {
    let matches = [
        prefix("/"),
        prefix("/a"),
        prefix("/a/b"),
        regex("/a/[0-9]+"),
        exact("/a/b"),
        exact("/a/7"),
    ];
    for (line, want) in [
        ("GET /", 0),
        ("GET /ab", 0),
        ("GET /a", 1),
        ("GET /a/", 1),
        ("GET /a/x", 1),
        ("GET /a/b", 4),
        ("GET /a/b/", 2),
        ("GET /a/b/c", 2),
        ("GET /a/bc", 1),
        ("GET /a/5", 3),
        ("GET /a/7", 5),
    ] {
        assert_eq!(first(&matches, line), Some(want), "{line}");
    }
}

#[test]
fn of_equal_paths_method_headers_and_query_decide() {
    let plain = prefix("/a");
    let one_header = Match {
        headers: vec![header("x", "1")],
        ..plain.clone()
    };
    let two_headers = Match {
        headers: vec![header("x", "1"), header("y", "1")],
        ..plain.clone()
    };
    let with_query = Match {
        query: vec![query("q", "1")],
        ..plain.clone()
    };
    let with_method = Match {
        method: Some(Method::PUT),
        ..plain.clone()
    };
    let matches = [plain, with_query, one_header, two_headers, with_method];
    for (line, want) in [
        ("GET /a", 0),
        ("GET /a?q=1", 1),
        ("GET /a?q=1 x=1", 2),
        ("GET /a?q=1 x=1 y=1", 3),
        ("PUT /a?q=1 x=1 y=1", 4),
    ] {
        assert_eq!(first(&matches, line), Some(want), "{line}");
    }
    // A longer path wins over all of them.
    let longer = [matches[4].clone(), prefix("/a/b")];
    assert_eq!(first(&longer, "PUT /a/b"), Some(1));
}

#[test]
fn a_match_that_fails_gives_way_to_a_less_specific_path() {
    let strict = Match {
        headers: vec![header("x", "1")],
        ..exact("/a/b")
    };
    let matches = [strict, prefix("/a"), prefix("/a/b/c")];
    assert_eq!(first(&matches, "GET /a/b"), Some(1));
    assert_eq!(first(&matches[..1], "GET /a/b"), None);
}

#[test]
fn of_equal_matches_the_older_route_then_its_name_then_the_order_decides() {
    let route = |name, created| route(RouteKind::Http, name, created, vec![vec![prefix("/")]; 2]);
    let (old, young, young_b) = (route("z", 1), route("a", 2), route("b", 2));
    let name = |routes: &[Arc<Route>]| decide(routes, "GET /");
    assert_eq!(name(&[young.clone(), old]).as_deref(), Some("shop/z/0"));
    assert_eq!(name(&[young_b, young]).as_deref(), Some("shop/a/0"));
}

#[test]
fn grpc_methods_are_ranked_as_grpcroute_says() {
    let rules = [
        method("Get"),
        prefix("/"),
        exact("/shop.Books/Get"),
        prefix("/shop.Books"),
    ];
    let grpc = [route(
        RouteKind::Grpc,
        "g",
        1,
        rules.iter().map(|m| vec![m.clone()]).collect(),
    )];
    for (path, want) in [
        ("/shop.Books/Get", "shop/g/2"),
        ("/shop.Books/List", "shop/g/3"),
        ("/shop.Other/Get", "shop/g/0"),
        ("/shop.Other/List", "shop/g/1"),
    ] {
        let line = format!("POST {path} content-type=application/grpc+proto");
        assert_eq!(decide(&grpc, &line).as_deref(), Some(want), "{path}");
    }
}

#[test]
fn grpc_requests_see_grpc_routes_first_and_others_do_not() {
    let routes = [
        route(RouteKind::Http, "h", 1, vec![vec![exact("/s.S/M")]]),
        route(
            RouteKind::Grpc,
            "g",
            9,
            vec![vec![Match {
                headers: vec![header("x", "1")],
                ..prefix("/")
            }]],
        ),
    ];
    let name = |line: &str| decide(&routes, line);
    let grpc = "content-type=application/grpc";
    assert_eq!(
        name(&format!("POST /s.S/M x=1 {grpc}")).as_deref(),
        Some("shop/g/0")
    );
    assert_eq!(
        name(&format!("POST /s.S/M {grpc}")).as_deref(),
        Some("shop/h/0")
    );
    assert_eq!(
        name(&format!("POST /s.S/M x=1 {grpc}-web")).as_deref(),
        Some("shop/h/0")
    );
    assert_eq!(name("POST /s.S/M x=1").as_deref(), Some("shop/h/0"));
    assert_eq!(name("POST /other x=1"), None);
}

#[test]
fn routes_for_other_ports_are_left_out() {
    let mut other = (*route(RouteKind::Http, "r", 1, vec![vec![prefix("/")]])).clone();
    other.port = Some(81);
    let routes = [Arc::new(other)];
    assert!(RouteTable::compile(&routes, 80).is_empty());
    assert!(!RouteTable::compile(&routes, 81).is_empty());
}

#[test]
fn a_match_on_host_reads_the_authority_where_there_is_no_such_header() {
    let asks = |host| Match {
        headers: vec![header("host", host)],
        ..prefix("/")
    };
    let matches = [asks("asked.example"), asks("b.example")];
    for (line, wanted) in [
        ("GET /", Some(0)),
        ("GET / host=b.example", Some(1)),
        ("GET / host=c.example", None),
    ] {
        assert_eq!(first(&matches, line), wanted, "{line}");
    }
}

#[test]
fn repeated_headers_count_as_one_and_only_the_first_parameter_counts() {
    let both = Match {
        headers: vec![header("x", "1,2")],
        ..prefix("/")
    };
    assert_eq!(first(std::slice::from_ref(&both), "GET / x=1 x=2"), Some(0));
    assert_eq!(first(&[both], "GET / x=1"), None);
    let parameter = Match {
        query: vec![query("a b", "1")],
        ..prefix("/")
    };
    assert_eq!(
        first(std::slice::from_ref(&parameter), "GET /?a+b=1&a%20b=2"),
        Some(0)
    );
    assert_eq!(first(&[parameter], "GET /?a+b=2&a+b=1"), None);
}

#[test]
fn paths_that_are_written_with_escapes_match_normal_requests() {
    let matches = [exact("/%7Ebob"), prefix("/caf%c3%a9")];
    assert_eq!(first(&matches, "GET /~bob"), Some(0));
    assert_eq!(first(&matches, "GET /caf%C3%A9/menu"), Some(1));
}

#[test]
fn the_rules_own_name_stands_in_the_label() {
    let mut named = (*route(RouteKind::Http, "r", 1, vec![vec![prefix("/")]])).clone();
    named.rules[0].name = Some("all".to_owned());
    assert_eq!(
        decide(&[Arc::new(named)], "GET /").as_deref(),
        Some("shop/r/all")
    );
}

#[test]
fn explain_says_what_fails_what_takes_and_what_is_shadowed() {
    let matches = [
        Match {
            method: Some(Method::PUT),
            ..exact("/a")
        },
        Match {
            headers: vec![header("x", "1")],
            ..exact("/a")
        },
        Match {
            query: vec![query("q", "1")],
            ..exact("/a")
        },
        prefix("/b"),
        prefix("/a"),
        prefix("/"),
    ];
    let rules = matches.iter().map(|m| vec![m.clone()]).collect();
    let routes = [
        route(RouteKind::Http, "r", 1, rules),
        route(RouteKind::Grpc, "g", 1, vec![vec![prefix("/")]]),
    ];
    let request = Request::new("GET /a?q=2");
    let said: Vec<String> = RouteTable::compile(&routes, 80)
        .explain(&request.view())
        .into_iter()
        .map(|e| match e.outcome {
            Outcome::Takes => format!("{} takes", e.name),
            Outcome::Shadowed => format!("{} shadowed", e.name),
            Outcome::Fails(why) => format!("{}: {why}", e.name),
        })
        .collect();
    assert_eq!(
        said,
        [
            "shop/g/0: the request is not gRPC: its content-type is not application/grpc",
            "shop/r/0: method GET is not PUT",
            "shop/r/1: header x is absent, not \"1\"",
            "shop/r/2: query parameter q is \"2\", not \"1\"",
            "shop/r/3: path \"/a\" is not \"/b\" or below it",
            "shop/r/4 takes",
            "shop/r/5 shadowed",
        ]
    );
}

#[test]
fn a_path_of_a_million_slashes_costs_little() {
    let routes = [route(
        RouteKind::Http,
        "r",
        1,
        vec![vec![prefix("/a/b/c")], vec![prefix("/")]],
    )];
    let path = "/".repeat(1_000_000);
    assert_eq!(
        decide(&routes, &format!("GET {path}")).as_deref(),
        Some("shop/r/1")
    );
}

/// A match that holds: its route, rule and place in the rule.
type Holding<'a> = (&'a Route, usize, usize, &'a Match);

/// Gateway API's text, read naively: every match that holds, then the criteria one after the
/// other over those that are left.
fn interpret(routes: &[Arc<Route>], request: &RequestView<'_>) -> Option<(String, usize, usize)> {
    let grpc = request
        .headers
        .get("content-type")
        .is_some_and(|v| v.starts_with(b"application/grpc"));
    let mut holding: Vec<Holding<'_>> = Vec::new();
    for route in routes.iter().filter(|r| r.port.is_none_or(|p| p == 80)) {
        for (r, rule) in route.rules.iter().enumerate() {
            for (m, condition) in rule.matches.iter().enumerate() {
                if holds(condition, request) && (grpc || route.kind == RouteKind::Http) {
                    holding.push((route, r, m, condition));
                }
            }
        }
    }
    if holding.iter().any(|(r, ..)| r.kind == RouteKind::Grpc) {
        holding.retain(|(r, ..)| r.kind == RouteKind::Grpc);
    }
    let mut keep = |criterion: &dyn Fn(&Holding<'_>) -> i64| {
        let best = holding.iter().map(criterion).max().unwrap_or_default();
        holding.retain(|h| criterion(h) == best);
    };
    let yes = i64::from;
    keep(&|h| yes(matches!(h.3.path, PathMatch::Exact(_))));
    keep(&|h| match &h.3.path {
        PathMatch::Regex(p) => p.source().len() as i64,
        _ => 0,
    });
    keep(&|h| match &h.3.path {
        PathMatch::Prefix(p) if p != "/" => p.len() as i64,
        _ => 0,
    });
    keep(&|h| match &h.3.path {
        PathMatch::GrpcMethod(m) => m.len() as i64,
        _ => 0,
    });
    keep(&|h| yes(h.3.method.is_some()));
    keep(&|h| h.3.headers.len() as i64);
    keep(&|h| h.3.query.len() as i64);
    keep(&|h| -(h.0.created as i64));
    holding.sort_by_key(|h| (h.0.name.clone(), h.1, h.2));
    holding.first().map(|h| (h.0.name.to_string(), h.1, h.2))
}

fn holds(condition: &Match, request: &RequestView<'_>) -> bool {
    let path = match &condition.path {
        PathMatch::Exact(p) => request.path == p,
        PathMatch::Prefix(p) if p == "/" => true,
        PathMatch::Prefix(p) => {
            let (wanted, given): (Vec<_>, Vec<_>) =
                (p.split('/').collect(), request.path.split('/').collect());
            given.starts_with(&wanted)
        }
        PathMatch::Regex(p) => p.matches(request.path),
        PathMatch::GrpcMethod(m) => {
            let elements: Vec<_> = request.path.split('/').collect();
            elements.len() >= 3
                && elements[1..elements.len() - 1] != [""]
                && elements.last() == Some(&m.as_str())
        }
    };
    let value = |v: &ValueMatch, given: &str| match v {
        ValueMatch::Exact(e) => e == given,
        ValueMatch::Regex(p) => p.matches(given),
    };
    let header = |h: &HeaderMatch| {
        let all: Vec<&str> = request
            .headers
            .get_all(h.name.as_str())
            .filter_map(|v| std::str::from_utf8(v).ok())
            .collect();
        !all.is_empty() && value(&h.value, &all.join(","))
    };
    let parameter = |q: &QueryMatch| {
        let pairs = request.query.unwrap_or_default().split('&');
        let found = pairs
            .filter_map(|p| p.split_once('='))
            .find(|(k, _)| *k == q.name);
        found.is_some_and(|(_, v)| value(&q.value, v))
    };
    path && condition
        .method
        .as_ref()
        .is_none_or(|m| m == request.method)
        && condition.headers.iter().all(header)
        && condition.query.iter().all(parameter)
}

fn any_path() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        "(/[ab]{1,2}){1,3}/?".prop_map(PathMatch::Exact),
        "(/[ab]{1,2}){1,3}".prop_map(PathMatch::Prefix),
        Just(PathMatch::Prefix("/".to_owned())),
        prop_oneof![Just("/a.*"), Just("/[ab]/b"), Just(".*b"), Just("/a/(a|b)")]
            .prop_map(|p| PathMatch::Regex(Pattern::new(p).expect("valid"))),
        "[ab]{1,2}".prop_map(PathMatch::GrpcMethod),
    ]
}

fn any_value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        "[12]".prop_map(ValueMatch::Exact),
        Just(ValueMatch::Exact("1,2".to_owned())),
        Just(ValueMatch::Regex(Pattern::new("1.*").expect("valid"))),
    ]
}

fn any_match() -> impl Strategy<Value = Match> {
    let headers = prop::collection::btree_map(prop_oneof![Just("x"), Just("y")], any_value(), 0..3);
    let query = prop::collection::btree_map(prop_oneof![Just("p"), Just("q")], any_value(), 0..3);
    let method = prop::option::of(prop_oneof![Just(Method::GET), Just(Method::PUT)]);
    (any_path(), headers, query, method).prop_map(|(path, headers, query, method)| Match {
        path,
        headers: headers
            .into_iter()
            .map(|(n, value)| HeaderMatch {
                name: HeaderName::from_static(n),
                value,
            })
            .collect(),
        query: query
            .into_iter()
            .map(|(n, value)| QueryMatch {
                name: n.to_owned(),
                value,
            })
            .collect(),
        method,
    })
}

fn any_routes() -> impl Strategy<Value = Vec<Arc<Route>>> {
    let kind = prop_oneof![3 => Just(RouteKind::Http), 1 => Just(RouteKind::Grpc)];
    let port = prop_oneof![3 => Just(None), 1 => Just(Some(80)), 1 => Just(Some(81))];
    let rules = prop::collection::vec(prop::collection::vec(any_match(), 1..4), 1..4);
    let one = (kind, port, 0u64..3, rules);
    prop::collection::vec(one, 0..6).prop_map(|all| {
        let build = |(i, (kind, port, created, rules)): (usize, _)| {
            let mut built = (*route(kind, &format!("r{i}"), created, rules)).clone();
            built.port = port;
            Arc::new(built)
        };
        all.into_iter().enumerate().map(build).rev().collect()
    })
}

fn any_request() -> impl Strategy<Value = String> {
    let method = prop_oneof![Just("GET"), Just("PUT")];
    let headers = prop_oneof![
        Just(""),
        Just(" x=1"),
        Just(" x=1 x=2"),
        Just(" x=2 y=1"),
        Just(" x=1 y=1 content-type=application/grpc"),
        Just(" content-type=application/grpc+proto"),
    ];
    let query = prop_oneof![
        Just(""),
        Just("?p=1"),
        Just("?q=1&p=2&q=2"),
        Just("?p=1&q=1")
    ];
    (method, "(/[ab]{1,2}){0,4}/?", query, headers).prop_map(|(m, p, q, h)| {
        let p = if p.is_empty() { "/" } else { &p };
        format!("{m} {p}{q}{h}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn decisions_equal_the_specification(routes in any_routes(), lines in prop::collection::vec(any_request(), 1..8)) {
        let table = RouteTable::compile(&routes, 80);
        for line in lines {
            let request = Request::new(&line);
            let decision = table.decide(&request.view());
            let got = decision.map(|d| {
                let at = d.rule.matches.iter().position(|m| std::ptr::eq(m, d.matched));
                (d.route.name.to_string(), d.rule_index, at.expect("of this rule"))
            });
            prop_assert_eq!(&got, &interpret(&routes, &request.view()), "{}", line);

            let explained = table.explain(&request.view());
            let takes = explained.iter().find(|e| e.outcome == Outcome::Takes);
            prop_assert_eq!(
                takes.map(|e| (e.rule_index, e.match_index)),
                got.map(|(_, rule, at)| (rule, at))
            );
        }
    }
}

/// Which of `matches`, each a rule of one route, can never take a request, and because of which.
fn shadowed(matches: &[Match]) -> Vec<(usize, usize)> {
    let rules = matches.iter().map(|m| vec![m.clone()]).collect();
    let table = RouteTable::compile(&[route(RouteKind::Http, "r", 1, rules)], 80);
    let shadows = table.shadows();
    let of = shadows.iter().map(|s| (s.of.rule_index, s.by.rule_index));
    of.collect()
}

#[test]
fn a_match_that_another_leaves_nothing_to_is_found() {
    let asks = |path: Match, value: ValueMatch| Match {
        headers: vec![HeaderMatch {
            name: HeaderName::from_static("x"),
            value,
        }],
        ..path
    };
    let one_of = |source: &str| ValueMatch::Regex(Pattern::new(source).expect("valid"));
    let one = || ValueMatch::Exact("1".to_owned());
    for (matches, want) in [
        (vec![prefix("/a"), prefix("/a")], vec![(1, 0)]),
        (vec![prefix("/a"), exact("/a")], vec![]),
        (vec![prefix("/"), prefix("/a")], vec![]),
        (vec![asks(exact("/a"), one()), exact("/a")], vec![]),
        (
            vec![asks(exact("/a"), one_of("[12]")), asks(exact("/a"), one())],
            vec![(1, 0)],
        ),
        (
            vec![asks(exact("/a"), one()), asks(exact("/a"), one_of("[12]"))],
            vec![],
        ),
        (
            vec![regex("/a.*"), prefix("/a/b"), prefix("/b")],
            vec![(1, 0)],
        ),
        (
            vec![regex(".*"), prefix("/"), method("Get")],
            vec![(2, 0), (1, 0)],
        ),
        (vec![regex("/abc?d"), regex("/abc.*")], vec![]),
        (vec![asks(prefix("/a"), one()), prefix("/a")], vec![]),
    ] {
        assert_eq!(shadowed(&matches), want, "{matches:?}");
    }
}

#[test]
fn a_match_that_no_request_can_meet_is_found() {
    let asks = |name, value| Match {
        headers: vec![header(name, value)],
        ..prefix("/")
    };
    let why = |m: &Match, kind| impossible(m, kind).is_some();
    for (condition, want) in [
        (exact("/a?b=1"), true),
        (exact("/caf\u{e9}"), true),
        (exact("/a/%2E%2E%2Fb"), true),
        (prefix("/%7Ebob"), false),
        (asks("connection", "close"), true),
        (asks("x", "1 "), true),
        (asks("host", "a.example"), false),
        (asks("content-type", "application/json"), false),
    ] {
        assert_eq!(why(&condition, RouteKind::Http), want, "{condition:?}");
    }
    assert!(why(&asks("content-type", "text/html"), RouteKind::Grpc));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_shadowed_match_takes_no_request(routes in any_routes(), lines in prop::collection::vec(any_request(), 1..16)) {
        let table = RouteTable::compile(&routes, 80);
        let shadowed: Vec<_> = table
            .shadows()
            .iter()
            .map(|s| (s.of.route.name.to_string(), s.of.rule_index, s.of.match_index))
            .collect();
        for line in lines {
            let request = Request::new(&line);
            if let Some(d) = table.decide(&request.view()) {
                let at = d.rule.matches.iter().position(|m| std::ptr::eq(m, d.matched));
                let taken = (d.route.name.to_string(), d.rule_index, at.expect("of this rule"));
                prop_assert!(!shadowed.contains(&taken), "{} {:?}", line, taken);
            }
        }
    }
}

#[test]
fn consumers_routes_stand_alone_on_the_ports_that_they_are_for() {
    let of = |namespace: &str, port, path| {
        let mut own = (*route(RouteKind::Http, "r", 0, vec![vec![exact(path)]])).clone();
        own.name = ObjectName::new(namespace, "r").expect("valid");
        own.port = port;
        Arc::new(own)
    };
    let producer = of("shop", None, "/producer");
    let consumer = of("clients", Some(80), "/consumer");
    assert_eq!(producer.consumers(), None);
    assert_eq!(consumer.consumers(), Some("clients"));
    let routes = [producer, consumer];
    let takes = |port, path| {
        let request = RequestView {
            method: &Method::GET,
            path,
            query: None,
            authority: "reviews",
            headers: &Fields::new(),
        };
        let table = RouteTable::compile(&routes, port);
        table.decide(&request).is_some()
    };
    assert!(takes(80, "/consumer") && !takes(80, "/producer"));
    assert!(takes(8080, "/producer") && !takes(8080, "/consumer"));
}
