//! Traffic policies.

use model::traffic::{
    Algorithm, Connections, OutlierDetection, ProxyVersion, Timeouts, TrafficPolicy,
};

use super::field::{
    Invalid, Result, Within, duration, duration_to_message, known, optional_duration,
    optional_port, parse, required,
};
use super::retry;
use crate::proto::v1;

pub(super) fn to_message(policy: &TrafficPolicy) -> v1::TrafficPolicy {
    let load_balancer = policy.load_balancer.map(|algorithm| match algorithm {
        Algorithm::LeastRequest => v1::LoadBalancer::LeastRequest,
        Algorithm::RoundRobin => v1::LoadBalancer::RoundRobin,
        Algorithm::Random => v1::LoadBalancer::Random,
    });
    v1::TrafficPolicy {
        name: policy.name.to_string(),
        target: policy.target.to_string(),
        port: policy.port.map(u32::from),
        created: policy.created,
        load_balancer: load_balancer.map(Into::into),
        connections: Some(v1::Connections {
            connect_timeout: policy.connections.connect_timeout.map(duration_to_message),
            idle_timeout: policy.connections.idle_timeout.map(duration_to_message),
            max_connections: policy.connections.max_connections,
            max_requests: policy.connections.max_requests,
            proxy_header: proxy_header(policy.connections.proxy_protocol).into(),
        }),
        outlier_detection: policy.outlier_detection.map(|o| v1::OutlierDetection {
            consecutive_5xx: o.consecutive_5xx,
            consecutive_gateway_errors: o.consecutive_gateway_errors,
            base_ejection_time: Some(duration_to_message(o.base_ejection_time)),
            max_ejection_percent: o.max_ejection_percent,
        }),
        timeouts: Some(v1::PolicyTimeouts {
            request: policy.timeouts.request.map(duration_to_message),
            per_try: policy.timeouts.per_try.map(duration_to_message),
            idle: policy.timeouts.idle.map(duration_to_message),
        }),
        retries: policy.retries.as_ref().map(retry::to_message),
    }
}

pub(super) fn from_message(message: v1::TrafficPolicy) -> Result<TrafficPolicy> {
    let algorithm = |value: i32| {
        Ok(match known("load_balancer", value)? {
            v1::LoadBalancer::LeastRequest => Algorithm::LeastRequest,
            v1::LoadBalancer::RoundRobin => Algorithm::RoundRobin,
            v1::LoadBalancer::Random => Algorithm::Random,
        })
    };
    let connections = message.connections.unwrap_or_default();
    let timeouts = message.timeouts.unwrap_or_default();
    Ok(TrafficPolicy {
        name: parse("name", &message.name)?,
        target: parse("target", &message.target)?,
        port: optional_port("port", message.port)?,
        created: message.created,
        load_balancer: message.load_balancer.map(algorithm).transpose()?,
        connections: Connections {
            connect_timeout: optional_duration(
                "connections.connect_timeout",
                connections.connect_timeout,
            )?,
            idle_timeout: optional_duration("connections.idle_timeout", connections.idle_timeout)?,
            max_connections: connections.max_connections,
            max_requests: connections.max_requests,
            proxy_protocol: match known("connections.proxy_header", connections.proxy_header)? {
                v1::ProxyHeader::None => None,
                v1::ProxyHeader::V1 => Some(ProxyVersion::V1),
                v1::ProxyHeader::V2 => Some(ProxyVersion::V2),
            },
        },
        outlier_detection: message
            .outlier_detection
            .map(outlier_detection)
            .transpose()
            .within("outlier_detection")?,
        timeouts: Timeouts {
            request: optional_duration("timeouts.request", timeouts.request)?,
            per_try: optional_duration("timeouts.per_try", timeouts.per_try)?,
            idle: optional_duration("timeouts.idle", timeouts.idle)?,
        },
        retries: message
            .retries
            .map(retry::from_message)
            .transpose()
            .within("retries")?,
    })
}

fn proxy_header(version: Option<ProxyVersion>) -> v1::ProxyHeader {
    match version {
        None => v1::ProxyHeader::None,
        Some(ProxyVersion::V1) => v1::ProxyHeader::V1,
        Some(ProxyVersion::V2) => v1::ProxyHeader::V2,
    }
}

fn outlier_detection(message: v1::OutlierDetection) -> Result<OutlierDetection> {
    if message.max_ejection_percent > 100 {
        return Err(Invalid::new(
            "max_ejection_percent",
            format!("is {}; it is a percentage", message.max_ejection_percent),
        ));
    }
    Ok(OutlierDetection {
        consecutive_5xx: message.consecutive_5xx,
        consecutive_gateway_errors: message.consecutive_gateway_errors,
        base_ejection_time: duration(
            "base_ejection_time",
            required("base_ejection_time", message.base_ejection_time)?,
        )?,
        max_ejection_percent: message.max_ejection_percent,
    })
}
