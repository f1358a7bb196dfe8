//! Parts of the model in words.

use std::time::Duration;

use model::balancing::{HashKey, LoadBalancer, LocalityMode};
use model::request::{
    Abort, Algorithm, Condition, FailureMode, Fault, Key, Limit, RateLimitService, Scope,
};
use model::retry;
use model::route::{
    Filter, HeaderChange, Listed, Match, PathChange, PathMatch, Redirect, Rewrite, Target,
    ValueMatch,
};
use model::session::{Carrier, Persistence};
use model::traffic::FallbackOn;
use policy::effective::{Effective, Limits};
use wire::Fields;

/// What a match asks for.
pub(crate) fn condition(condition: &Match) -> String {
    let mut parts = vec![path(&condition.path)];
    if let Some(method) = &condition.method {
        parts.push(format!("method {method}"));
    }
    for header in &condition.headers {
        parts.push(format!("header {} {}", header.name, value(&header.value)));
    }
    for query in &condition.query {
        parts.push(format!("query {} {}", query.name, value(&query.value)));
    }
    parts.join(", ")
}

pub(crate) fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(exact) => format!("path {exact}"),
        PathMatch::Prefix(prefix) if prefix == "/" => "any path".to_owned(),
        PathMatch::Prefix(prefix) => format!("path {prefix} or below"),
        PathMatch::Regex(pattern) => format!("path like {}", pattern.source()),
        PathMatch::GrpcMethod(method) => format!("gRPC method {method} of any service"),
    }
}

fn value(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(exact) => format!("= \"{exact}\""),
        ValueMatch::Regex(pattern) => format!("like \"{}\"", pattern.source()),
    }
}

/// What a fault does, to how many, and until when.
pub(crate) fn fault(fault: &Fault, until: Option<u64>) -> String {
    let share = fault.share;
    let part = f64::from(share.numerator()) * 100.0 / f64::from(share.denominator().max(1));
    let mut does = Vec::new();
    does.extend(fault.delay.map(|delay| format!("waits {delay:?}")));
    does.extend(fault.abort.map(|abort| match abort {
        Abort::Http(status) => format!("is answered {}", status.as_u16()),
        Abort::Grpc(status) => {
            let name = config::kind::fault_policy::grpc_name(status);
            format!("is answered with gRPC status {name}")
        }
        Abort::Reset => "is broken off".to_owned(),
    }));
    does.extend(
        fault
            .bandwidth
            .map(|bytes| format!("gets {bytes} bytes a second")),
    );
    let until = until.and_then(config::kind::fault_policy::written_time);
    let until = until.map(|until| format!(", until {until}"));
    format!(
        "{} {}{}",
        percent(part),
        does.join(" and "),
        until.unwrap_or_default()
    )
}

/// How many requests a limit lets through; `service` counts those that are the whole mesh's.
pub(crate) fn limit(limit: &Limit, service: Option<&RateLimitService>) -> String {
    let keys: Vec<String> = limit.key.iter().map(key).collect();
    let by = match keys.as_slice() {
        [] => String::new(),
        keys => format!(" for each {}", keys.join(" and ")),
    };
    let how = match limit.algorithm {
        Algorithm::TokenBucket if limit.burst == limit.requests => String::new(),
        Algorithm::TokenBucket => format!(", {} at once", limit.burst),
        Algorithm::SlidingWindow => ", counted in a sliding window".to_owned(),
        Algorithm::FixedWindow => ", counted in fixed windows".to_owned(),
    };
    let whose = match (limit.scope, service) {
        (Scope::Local, _) => String::new(),
        (Scope::Global(mode), Some(service)) => {
            format!(
                ", global, counted by {service} (without an answer they {})",
                fate(mode)
            )
        }
        (Scope::Global(mode), None) => {
            format!(
                ", global, but no service is named that counts: they {}",
                fate(mode)
            )
        }
    };
    format!(
        "limit \"{}\": {} requests in {:?}{by}{how}{whose}",
        limit.name, limit.requests, limit.per
    )
}

fn fate(mode: FailureMode) -> &'static str {
    match mode {
        FailureMode::Open => "pass",
        FailureMode::Closed => "are refused",
    }
}

fn key(key: &Key) -> String {
    match key {
        Key::Header(name) => format!("value of header {name}"),
        Key::Cookie(name) => format!("value of cookie {name}"),
        Key::Identity => "identity".to_owned(),
        Key::SourceIp => "address".to_owned(),
        Key::Path => "path".to_owned(),
        Key::Method => "method".to_owned(),
    }
}

/// Which requests a condition of a policy is for.
pub(crate) fn request_condition(written: &Condition) -> String {
    let mut text = condition(&written.matched);
    for identity in &written.identities {
        text.push_str(", from ");
        text.push_str(&identity.to_string());
    }
    text
}

/// What a filter does.
pub(crate) fn filter(filter: &Filter) -> String {
    match filter {
        Filter::RequestHeaders(change) => format!("request headers: {}", headers(change)),
        Filter::ResponseHeaders(change) => format!("response headers: {}", headers(change)),
        Filter::Redirect(change) => redirect(change),
        Filter::Rewrite(change) => format!("rewrite: {}", rewrite(change)),
        Filter::Cors(cors) => match &cors.origins {
            Listed::All => "CORS: pages of all origins".to_owned(),
            Listed::Only(origins) => {
                let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
                format!("CORS: pages of {}", origins.join(", "))
            }
        },
        Filter::Mirror(mirror) => {
            let (part, of) = (mirror.share.numerator(), mirror.share.denominator());
            let percent = f64::from(part) * 100.0 / f64::from(of.max(1));
            format!(
                "copies to {}: {}",
                target(&mirror.target),
                self::percent(percent)
            )
        }
    }
}

fn headers(change: &HeaderChange) -> String {
    let mut parts = Vec::new();
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    parts.extend(
        change
            .set
            .iter()
            .map(|(n, v)| format!("set {n}: {}", text(v))),
    );
    parts.extend(
        change
            .add
            .iter()
            .map(|(n, v)| format!("add {n}: {}", text(v))),
    );
    parts.extend(change.remove.iter().map(|n| format!("remove {n}")));
    parts.join(", ")
}

fn redirect(redirect: &Redirect) -> String {
    let mut parts = vec![format!("redirect with status {}", redirect.status.as_u16())];
    parts.extend(redirect.scheme.iter().map(|s| format!("scheme {s}")));
    parts.extend(redirect.hostname.iter().map(|h| format!("host {h}")));
    parts.extend(redirect.port.map(|p| format!("port {p}")));
    parts.extend(redirect.path.as_ref().map(path_change));
    parts.join(", ")
}

fn path_change(change: &PathChange) -> String {
    match change {
        PathChange::Full(path) => format!("path {path}"),
        PathChange::Prefix(prefix) => format!("prefix {prefix}"),
    }
}

fn rewrite(rewrite: &Rewrite) -> String {
    let mut parts = Vec::new();
    if let Some(host) = &rewrite.hostname {
        parts.push(format!("host {host}"));
    }
    parts.extend(rewrite.path.as_ref().map(path_change));
    parts.join(", ")
}

/// How sessions are kept.
pub(crate) fn session(session: &Persistence) -> String {
    let carrier = match session.carrier {
        Carrier::Cookie | Carrier::PermanentCookie => "cookie",
        Carrier::Header => "header",
    };
    let lasts = session.timeout.map(|t| format!(" for {t:?}"));
    format!(
        "sessions kept by {carrier} {}{}",
        session.name,
        lasts.unwrap_or_default()
    )
}

/// `namespace/name:port`.
pub(crate) fn target(target: &Target) -> String {
    match target {
        Target::Service { name, port } => format!("{name}:{port}"),
        Target::Invalid { .. } => "nowhere".to_owned(),
    }
}

/// Names and values.
pub(crate) fn fields(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(n, v)| (text(n), text(v))).collect()
}

/// `12.5 %`.
pub(crate) fn percent(percent: f64) -> String {
    let text = format!("{percent:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

/// `1.5s`, as `Duration` is written in configuration; `none` for no bound.
pub(crate) fn time(limit: Option<Duration>) -> String {
    match limit {
        None => "none".to_owned(),
        Some(limit) => format!("{limit:?}"),
    }
}

/// What bounds a request, by name. Those that are as they are by default come only where `all`.
pub(crate) fn limits(
    policy: &Effective,
    limits: &Limits<'_>,
    all: bool,
) -> Vec<(&'static str, String)> {
    let usual = Effective::default();
    let list = [
        (
            "request timeout",
            time(limits.request_timeout),
            time(usual.request_timeout),
        ),
        (
            "timeout of a try",
            time(limits.per_try_timeout),
            time(usual.per_try_timeout),
        ),
        (
            "idle timeout of a stream",
            time(limits.stream_idle),
            time(usual.stream_idle),
        ),
        ("retries", retries(limits.retry), retries(&usual.retry)),
        (
            "connect timeout",
            time(Some(policy.connect_timeout)),
            time(Some(usual.connect_timeout)),
        ),
        (
            "idle timeout of a connection",
            time(policy.idle_timeout),
            time(usual.idle_timeout),
        ),
        (
            "connections",
            count(policy.max_connections),
            count(usual.max_connections),
        ),
        (
            "requests at a time",
            count(policy.max_requests),
            count(usual.max_requests),
        ),
        (
            "load balancing",
            balancer(&policy.balancer),
            balancer(&usual.balancer),
        ),
        ("outlier detection", outlier(policy), outlier(&usual)),
        ("hedging", hedging(policy), hedging(&usual)),
        ("fallback", fallback(policy), fallback(&usual)),
        (
            "PROXY header",
            proxy_protocol(policy),
            proxy_protocol(&usual),
        ),
    ];
    let told = list
        .into_iter()
        .filter(|(_, now, usual)| all || now != usual);
    told.map(|(name, now, _)| (name, now)).collect()
}

fn hedging(policy: &Effective) -> String {
    policy.hedging.map_or_else(
        || "none".to_owned(),
        |hedging| format!("after {:?}, {} more", hedging.delay, hedging.max),
    )
}

fn fallback(policy: &Effective) -> String {
    let Some(fallback) = &policy.fallback else {
        return "none".to_owned();
    };
    let on: Vec<&str> = fallback.on.iter().map(|on| failure(*on)).collect();
    let backend = fallback.backend.as_ref();
    let backend = backend.map(|(name, port)| format!("{name}:{port}"));
    let response = fallback.response.as_ref();
    let response = response.map(|response| format!("status {}", response.status));
    let to: Vec<String> = backend.into_iter().chain(response).collect();
    format!("on {} to {}", on.join(", "), to.join(", then "))
}

fn failure(on: FallbackOn) -> &'static str {
    match on {
        FallbackOn::NoHealthyEndpoint => "no-healthy-endpoint",
        FallbackOn::CircuitOpen => "circuit-open",
        FallbackOn::Timeout => "timeout",
        FallbackOn::Unreachable => "unreachable",
        FallbackOn::ServerError => "5xx",
    }
}

/// The algorithm and all that is said with it.
fn balancer(balancer: &LoadBalancer) -> String {
    let mut text = balancer.algorithm.as_str().to_owned();
    let mut add = |more: &str| {
        text.push_str(", ");
        text.push_str(more);
    };
    if balancer.algorithm.hashes() {
        let keys: Vec<String> = balancer.hash.iter().map(hash_key).collect();
        add(&format!("by {}", keys.join(", else ")));
    }
    if let Some(slow) = &balancer.slow_start {
        let part = slow.min_weight_percent;
        add(&format!("slow start from {part} % in {:?}", slow.window));
    }
    match balancer.panic_threshold {
        None => {}
        Some(0) => add("never in panic"),
        Some(percent) => add(&format!("panic below {percent} % usable")),
    }
    match &balancer.locality {
        None => {}
        Some(LocalityMode::None) => add("wherever they are"),
        Some(LocalityMode::Failover) => add("the nearest first"),
        Some(LocalityMode::Weighted(_)) => add("localities by weight"),
    }
    text
}

fn hash_key(key: &HashKey) -> String {
    match key {
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(cookie) => match cookie.ttl {
            None => format!("cookie {}", cookie.name),
            Some(ttl) => format!("cookie {} (given for {ttl:?})", cookie.name),
        },
        HashKey::Query(name) => format!("query parameter {name}"),
        HashKey::SourceIp => "client address".to_owned(),
    }
}

fn count(limit: u32) -> String {
    match limit {
        u32::MAX => "no limit".to_owned(),
        limit => limit.to_string(),
    }
}

fn retries(policy: &retry::Policy) -> String {
    if policy.attempts == 0 {
        return "none".to_owned();
    }
    let on: Vec<String> = policy.on.iter().map(|c| retry_condition(*c)).collect();
    let retry::Policy {
        attempts,
        backoff,
        budget,
        ..
    } = policy;
    format!(
        "{attempts} on {} (wait {:?} to {:?}, budget {} % and {} a second)",
        on.join(", "),
        backoff.base,
        backoff.max,
        budget.percent,
        budget.min_per_second
    )
}

fn retry_condition(condition: retry::Condition) -> String {
    match condition {
        retry::Condition::ConnectFailure => "connect-failure".to_owned(),
        retry::Condition::Reset => "reset".to_owned(),
        retry::Condition::RefusedStream => "refused-stream".to_owned(),
        retry::Condition::GatewayError => "gateway-error".to_owned(),
        retry::Condition::ServerError => "5xx".to_owned(),
        retry::Condition::Status(status) => status.to_string(),
        retry::Condition::GrpcStatus(code) => format!("gRPC status {code}"),
    }
}

fn outlier(policy: &Effective) -> String {
    let Some(o) = &policy.outlier else {
        return "off".to_owned();
    };
    let unanswered = o.consecutive_local_origin_failures;
    let unanswered = unanswered.map(|limit| format!(" or {limit} failures without an answer"));
    let success = o.success_rate.map(|by| {
        let factor = f64::from(by.stdev_factor) / 1000.0;
        format!(", or {factor} deviations less successful than others")
    });
    let failure = o.failure_percentage;
    let failure = failure.map(|by| format!(", or failing {} %", by.threshold));
    let when = format!(
        "after {} server errors or {} gateway errors{} in a row{}{}",
        o.consecutive_5xx,
        o.consecutive_gateway_errors,
        unanswered.unwrap_or_default(),
        success.unwrap_or_default(),
        failure.unwrap_or_default()
    );
    format!(
        "{when}, for {:?}, at most {} %",
        o.base_ejection_time, o.max_ejection_percent
    )
}

fn proxy_protocol(policy: &Effective) -> String {
    match policy.proxy_protocol {
        None => "none".to_owned(),
        Some(version) => format!("{version:?}"),
    }
}
