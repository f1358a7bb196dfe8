//! Generated resources of all kinds.

mod gateway;
mod request;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use model::balancing::{
    Algorithm, Cookie, HashKey, LoadBalancer, LocalityMode, LocalityWeight, SlowStart,
};
use model::endpoint::{Endpoint, Health};
use model::mesh::{AccessLog, Mesh, OutboundPolicy, TrustBundle};
use model::name::ObjectName;
use model::pattern::Pattern;
use model::resource::Resource;
use model::retry::{Backoff, Budget, Condition, Policy};
use model::route::{
    Backend, Cors, Filter, Fraction, HeaderChange, HeaderMatch, Listed, Match, Mirror, Parent,
    PathChange, PathMatch, QueryMatch, Redirect, Rewrite, Route, RouteKind, Rule, Target, Timeouts,
    ValueMatch,
};
use model::service::{Port, Protocol, Service};
use model::session::{Carrier, Persistence};
use model::traffic::{
    self, Connections, FailurePercentage, Fallback, FallbackOn, Hedging, OutlierDetection,
    ProxyVersion, StaticResponse, SuccessRate, TrafficPolicy,
};
use model::workload::{Locality, Mtls, MtlsMode, PortLimits, Tunnel, Workload, WorkloadPort};
use model::{SpiffeId, TrustDomain};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

pub(super) fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        mesh().prop_map(Resource::Mesh),
        bundle().prop_map(Resource::TrustBundle),
        workload().prop_map(Resource::Workload),
        service().prop_map(Resource::Service),
        endpoint().prop_map(Resource::Endpoint),
        policy().prop_map(Resource::TrafficPolicy),
        request::policy().prop_map(Resource::RequestPolicy),
        route().prop_map(Resource::Route),
        gateway::backend_tls().prop_map(Resource::BackendTls),
        gateway::listener().prop_map(Resource::Listener),
        gateway::stream_route().prop_map(Resource::StreamRoute),
    ]
}

fn name() -> impl Strategy<Value = ObjectName> {
    (
        "[a-z]{1,8}",
        "[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z]{1,4})?",
    )
        .prop_map(|(namespace, name)| ObjectName::new(&namespace, &name).expect("valid"))
}

fn domain() -> impl Strategy<Value = TrustDomain> {
    "[a-z0-9._-]{1,12}".prop_map(|name| TrustDomain::new(&name).expect("valid"))
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    (domain(), "[a-z]{1,8}", "[a-z]{1,8}").prop_map(|(domain, namespace, account)| {
        SpiffeId::of_service_account(&domain, &namespace, &account).expect("valid")
    })
}

fn port() -> impl Strategy<Value = u16> {
    1..=u16::MAX
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    vec(any::<IpAddr>(), 0..3)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    use Protocol::{Detect, Grpc, Http, Http2, Tcp, Tls};
    select(vec![Detect, Http, Http2, Grpc, Tls, Tcp])
}

fn mode() -> impl Strategy<Value = MtlsMode> {
    select(vec![
        MtlsMode::Strict,
        MtlsMode::Permissive,
        MtlsMode::Disable,
    ])
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    prop_oneof![
        Just(Tunnel::None),
        port().prop_map(|port| Tunnel::Tulle { port }),
        port().prop_map(|port| Tunnel::Hbone { port }),
    ]
}

fn locality() -> impl Strategy<Value = Locality> {
    ("[a-z]{0,4}", "[a-z]{0,4}").prop_map(|(region, zone)| Locality { region, zone })
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..=i64::MAX as u64, 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n))
}

fn access_log() -> impl Strategy<Value = AccessLog> {
    prop_oneof![
        Just(AccessLog::Off),
        Just(AccessLog::Notable),
        Just(AccessLog::All)
    ]
}

prop_compose! {
    fn mesh()(
        trust_domain in domain(),
        registry_only in any::<bool>(),
        mtls in mode(),
        trace_sampling in 0..=10_000_u32,
        trace_reservoir in any::<u32>(),
        access_log in access_log(),
        networks in vec((any::<IpAddr>(), 0..=32_u8), 0..3),
        limits in gateway::limits(),
        session_key in of(any::<[u8; 32]>()),
    ) -> Mesh {
        let outbound = if registry_only {
            OutboundPolicy::RegistryOnly
        } else {
            OutboundPolicy::AllowAny
        };
        let networks = networks
            .into_iter()
            .map(|(address, prefix)| ipnet::IpNet::new(address, prefix).expect("valid"))
            .collect();
        Mesh { trust_domain, outbound, mtls, trace_sampling, trace_reservoir, access_log, networks, limits, session_key: session_key.map(model::session::Key::new) }
    }
}

fn bundle() -> impl Strategy<Value = TrustBundle> {
    btree_map(domain(), vec(vec(any::<u8>(), 0..20), 0..3), 0..3)
        .prop_map(|roots| TrustBundle { roots })
}

prop_compose! {
    fn workload()(
        name in name(),
        addresses in addresses(),
        ports in vec(("[a-z]{0,4}", port(), protocol()), 0..3),
        identity in identity(),
        labels in btree_map(".{0,6}", ".{0,6}", 0..3),
        locality in locality(),
        tunnel in tunnel(),
        mode in mode(),
        port_modes in btree_map(port(), mode(), 0..3),
        limits in vec((name(), name(), vec(port(), 0..3), request::limits()), 0..2),
    ) -> Workload {
        let ports = ports
            .into_iter()
            .map(|(name, number, protocol)| WorkloadPort { name, number, protocol })
            .collect();
        let mtls = Mtls { mode, ports: port_modes };
        let limits = limits
            .into_iter()
            .map(|(policy, service, ports, limits)| PortLimits { policy, service, ports, limits })
            .collect();
        Workload { name, addresses, ports, identity, labels, locality, tunnel, mtls, limits }
    }
}

prop_compose! {
    fn service()(
        name in name(),
        addresses in addresses(),
        ports in btree_map(port(), ("[a-z]{0,4}", protocol()), 0..3),
        (headless, near) in any::<(bool, bool)>(),
    ) -> Service {
        let ports = ports
            .into_iter()
            .map(|(number, (name, protocol))| Port { name, number, protocol })
            .collect();
        Service { name, addresses, ports, headless, near }
    }
}

prop_compose! {
    fn endpoint()(
        service in name(),
        workload in name(),
        addresses in addresses(),
        ports in btree_map(port(), port(), 0..3),
        tunnel in tunnel(),
        identity in identity(),
        health in select(vec![Health::Healthy, Health::Unhealthy, Health::Draining]),
        weight in 1..=u32::MAX,
        locality in locality(),
        version in ".{0,6}",
    ) -> Endpoint {
        Endpoint {
            service, workload, addresses, ports, tunnel, identity, health, weight, locality,
            version,
        }
    }
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        select(vec![
            Condition::ConnectFailure,
            Condition::Reset,
            Condition::RefusedStream,
            Condition::GatewayError,
            Condition::ServerError,
        ]),
        any::<u16>().prop_map(Condition::Status),
        any::<u8>().prop_map(Condition::GrpcStatus),
    ]
}

prop_compose! {
    fn retry()(
        attempts in any::<u32>(),
        on in vec(condition(), 0..4),
        base in duration(),
        max in duration(),
        percent in any::<u32>(),
        min_per_second in any::<u32>(),
    ) -> Policy {
        let budget = Budget { percent, min_per_second };
        Policy { attempts, on, backoff: Backoff { base, max }, budget }
    }
}

prop_compose! {
    fn outlier_detection()(
        consecutive_5xx in any::<u32>(),
        consecutive_gateway_errors in any::<u32>(),
        consecutive_local_origin_failures in of(any::<u32>()),
        interval in duration(),
        success_rate in of(any::<[u32; 3]>()),
        failure_percentage in of(any::<[u32; 3]>()),
        base_ejection_time in duration(),
        max_ejection_percent in 0..=100_u32,
    ) -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx, consecutive_gateway_errors, consecutive_local_origin_failures, interval,
            success_rate: success_rate.map(|[minimum_hosts, minimum_requests, stdev_factor]| {
                SuccessRate { minimum_hosts, minimum_requests, stdev_factor }
            }),
            failure_percentage: failure_percentage.map(|[threshold, minimum_hosts, minimum_requests]| {
                FailurePercentage { threshold, minimum_hosts, minimum_requests }
            }),
            base_ejection_time, max_ejection_percent,
        }
    }
}

fn hash_key() -> impl Strategy<Value = HashKey> {
    prop_oneof![
        header_name().prop_map(HashKey::Header),
        (".{0,6}", of(duration()), ".{0,6}")
            .prop_map(|(name, ttl, path)| HashKey::Cookie(Cookie { name, ttl, path })),
        ".{0,6}".prop_map(HashKey::Query),
        Just(HashKey::SourceIp),
    ]
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        select(vec![
            Algorithm::LeastRequest,
            Algorithm::RoundRobin,
            Algorithm::Random,
            Algorithm::PeakEwma,
        ]),
        (1..=1024_u32, 1024..=Algorithm::LARGEST_RING)
            .prop_map(|(minimum, maximum)| Algorithm::RingHash { minimum, maximum }),
        select(vec![2, 65_537, Algorithm::LARGEST_TABLE])
            .prop_map(|table| Algorithm::Maglev { table }),
    ]
}

fn locality_mode() -> impl Strategy<Value = LocalityMode> {
    let weight = (locality(), 1..=u32::MAX).prop_map(|(l, weight)| LocalityWeight {
        region: l.region,
        zone: l.zone,
        weight,
    });
    prop_oneof![
        Just(LocalityMode::None),
        Just(LocalityMode::Failover),
        vec(weight, 0..3).prop_map(LocalityMode::Weighted),
    ]
}

prop_compose! {
    fn load_balancer()(
        algorithm in algorithm(),
        hash in vec(hash_key(), 1..3),
        slow_start in of((duration(), 1..=u32::MAX, 0..=100_u32)),
        panic_threshold in of(0..=100_u32),
        locality in of(locality_mode()),
    ) -> LoadBalancer {
        let slow_start = slow_start.map(|(window, aggression_milli, min_weight_percent)| {
            SlowStart { window, aggression_milli, min_weight_percent }
        });
        LoadBalancer { algorithm, hash, slow_start, panic_threshold, locality }
    }
}

prop_compose! {
    fn fallback()(
        on in vec(select(vec![
            FallbackOn::NoHealthyEndpoint, FallbackOn::CircuitOpen, FallbackOn::Timeout,
            FallbackOn::Unreachable, FallbackOn::ServerError,
        ]), 0..4),
        backend in of((name(), port())),
        response in of((200..600_u16, vec(("[a-z]{1,6}", ".{0,6}"), 0..3), ".{0,9}")),
    ) -> Fallback {
        let response = response.map(|(status, headers, body)| StaticResponse { status, headers, body });
        Fallback { on, backend, response }
    }
}

prop_compose! {
    fn policy()(
        names in (name(), name()),
        port in of(port()),
        created in any::<u64>(),
        load_balancer in of(load_balancer()),
        times in [of(duration()), of(duration()), of(duration()), of(duration()), of(duration())],
        bounds in [of(any::<u32>()), of(any::<u32>())],
        proxy_protocol in of(select(vec![ProxyVersion::V1, ProxyVersion::V2])),
        outlier_detection in of(outlier_detection()),
        retries in of(retry()),
        hedging in of((duration(), any::<u32>())),
        fallback in of(fallback()),
    ) -> TrafficPolicy {
        let [connect_timeout, idle_timeout, request, per_try, idle] = times;
        let [max_connections, max_requests] = bounds;
        TrafficPolicy {
            name: names.0,
            target: names.1,
            port,
            created,
            load_balancer,
            connections: Connections {
                connect_timeout, idle_timeout, max_connections, max_requests, proxy_protocol,
            },
            outlier_detection,
            timeouts: traffic::Timeouts { request, per_try, idle },
            retries,
            hedging: hedging.map(|(delay, max)| Hedging { delay, max }),
            fallback,
        }
    }
}

fn pattern() -> impl Strategy<Value = Pattern> {
    select(vec!["a+", "/v[0-9]/.*", "x|y"]).prop_map(|text| Pattern::new(text).expect("valid"))
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        "/.{0,8}".prop_map(PathMatch::Exact),
        "(/[a-z]{1,4}){1,3}".prop_map(PathMatch::Prefix),
        Just(PathMatch::default()),
        pattern().prop_map(PathMatch::Regex),
        "[A-Z][a-z]{0,6}".prop_map(PathMatch::GrpcMethod),
    ]
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        ".{0,8}".prop_map(ValueMatch::Exact),
        pattern().prop_map(ValueMatch::Regex),
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "x-[a-z]{1,6}".prop_map(|name| name.parse().expect("valid"))
}

prop_compose! {
    fn a_match()(
        path in path_match(),
        headers in btree_map("x-[a-z]{1,6}", value_match(), 0..3),
        query in btree_map(".{0,6}", value_match(), 0..3),
        method in of(select(vec![Method::GET, Method::POST, Method::from_bytes(b"BREW").expect("valid")])),
    ) -> Match {
        let headers = headers
            .into_iter()
            .map(|(name, value)| HeaderMatch { name: name.parse().expect("valid"), value })
            .collect();
        let query = query
            .into_iter()
            .map(|(name, value)| QueryMatch { name, value })
            .collect();
        Match { path, headers, query, method }
    }
}

fn header() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let value = vec(prop_oneof![0x20..=0x7e_u8, 0x80..=0xff_u8], 0..8);
    let value = value.prop_map(|bytes| HeaderValue::from_bytes(&bytes).expect("valid"));
    (header_name(), value)
}

prop_compose! {
    fn header_change()(
        set in vec(header(), 0..3),
        add in vec(header(), 0..3),
        remove in vec(header_name(), 0..3),
    ) -> HeaderChange {
        HeaderChange { set, add, remove }
    }
}

fn path_change() -> impl Strategy<Value = PathChange> {
    prop_oneof![
        ".{0,8}".prop_map(PathChange::Full),
        ".{0,8}".prop_map(PathChange::Prefix),
    ]
}

prop_compose! {
    fn redirect()(
        scheme in of(select(vec!["http".to_owned(), "https".to_owned()])),
        hostname in of("[a-z]{1,6}"),
        path in of(path_change()),
        port in of(port()),
        status in select(vec![301_u16, 302, 303, 307, 308]),
    ) -> Redirect {
        let status = StatusCode::from_u16(status).expect("valid");
        Redirect { scheme, hostname, path, port, status }
    }
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        header_change().prop_map(Filter::RequestHeaders),
        header_change().prop_map(Filter::ResponseHeaders),
        redirect().prop_map(Filter::Redirect),
        (of("[a-z]{1,6}"), of(path_change()))
            .prop_map(|(hostname, path)| Filter::Rewrite(Rewrite { hostname, path })),
        cors().prop_map(Filter::Cors),
        mirror().prop_map(Filter::Mirror),
    ]
}

fn listed<T>(texts: &'static [&'static str]) -> impl Strategy<Value = Listed<T>>
where
    T: std::str::FromStr<Err: std::fmt::Debug> + Clone + std::fmt::Debug + 'static,
{
    let read = |text: &str| text.parse().expect("valid");
    prop_oneof![
        Just(Listed::All),
        vec(select(texts).prop_map(read), 0..3).prop_map(Listed::Only),
    ]
}

prop_compose! {
    fn cors()(
        origins in listed(&["https://a.test", "http://*.b.test:81", "https://*"]),
        credentials in any::<bool>(),
        methods in listed(&["GET", "PATCH"]),
        headers in listed(&["x-a", "x-b"]),
        exposed in listed(&["x-c"]),
        max_age in any::<u32>(),
    ) -> Cors {
        Cors { origins, credentials, methods, headers, exposed, max_age }
    }
}

fn mirror() -> impl Strategy<Value = Mirror> {
    (target(), 0..=1000u32, 1..=1000u32).prop_map(|(target, one, other)| Mirror {
        target,
        share: Fraction::new(one.min(other), one.max(other)).expect("a share"),
    })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (name(), port()).prop_map(|(name, port)| Target::Service { name, port }),
        ".{0,8}".prop_map(|text| Target::Invalid {
            reason: Arc::from(text)
        }),
    ]
}

prop_compose! {
    fn backend()(
        target in target(),
        weight in any::<u32>(),
        filters in vec(filter(), 0..2),
    ) -> Backend {
        Backend { target, weight, filters }
    }
}

prop_compose! {
    fn rule()(
        name in of("[a-z]{0,6}"),
        matches in vec(a_match(), 1..3),
        filters in vec(filter(), 0..3),
        backends in vec(backend(), 0..3),
        request in of(duration()),
        per_try in of(duration()),
        retry in of(retry()),
        session in of(session()),
    ) -> Rule {
        Rule { name, matches, filters, backends, timeouts: Timeouts { request, per_try }, retry, session }
    }
}

prop_compose! {
    fn session()(
        name in "[a-z]{1,6}",
        carrier in prop_oneof![Just(Carrier::Cookie), Just(Carrier::PermanentCookie), Just(Carrier::Header)],
        timeout in of(duration()),
    ) -> Persistence {
        Persistence { name, carrier, timeout }
    }
}

fn parent() -> impl Strategy<Value = Parent> {
    prop_oneof![
        name().prop_map(Parent::Service),
        (name(), gateway::attachments()).prop_map(|(gateway, attachments)| Parent::Gateway {
            gateway,
            attachments
        }),
    ]
}

prop_compose! {
    fn route()(
        kind in select(vec![RouteKind::Http, RouteKind::Grpc, RouteKind::Tls, RouteKind::Tcp, RouteKind::Udp]),
        name in name(),
        parent in parent(),
        port in of(port()),
        created in any::<u64>(),
        rules in vec(rule(), 0..3),
    ) -> Route {
        Route { kind, name, parent, port, created, rules }
    }
}
