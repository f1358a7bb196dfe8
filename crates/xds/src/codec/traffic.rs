//! Traffic policies.

use model::traffic::{
    Connections, FailurePercentage, Fallback, FallbackOn, Hedging, OutlierDetection, ProxyVersion,
    StaticResponse, SuccessRate, Timeouts, TrafficPolicy,
};

use super::field::{
    Invalid, Result, Within, duration, duration_to_message, known, optional_duration,
    optional_port, parse, port, required,
};
use super::{balancing, health_check, overload, retry};
use crate::proto::v1;

pub(super) fn to_message(policy: &TrafficPolicy) -> v1::TrafficPolicy {
    let load_balancer = policy.load_balancer.as_ref();
    v1::TrafficPolicy {
        name: policy.name.to_string(),
        target: policy.target.to_string(),
        port: policy.port.map(u32::from),
        created: policy.created,
        load_balancer: load_balancer.map(|lb| balancing::algorithm(lb.algorithm).into()),
        balancing: load_balancer.map(balancing::to_message),
        connections: Some(v1::Connections {
            connect_timeout: policy.connections.connect_timeout.map(duration_to_message),
            idle_timeout: policy.connections.idle_timeout.map(duration_to_message),
            max_connections: policy.connections.max_connections,
            max_requests: policy.connections.max_requests,
            proxy_header: proxy_header(policy.connections.proxy_protocol).into(),
            max_pending_requests: policy.connections.max_pending_requests,
            max_requests_per_connection: policy.connections.max_requests_per_connection,
            max_retries: policy.connections.max_retries,
        }),
        outlier_detection: policy.outlier_detection.map(|o| v1::OutlierDetection {
            consecutive_5xx: o.consecutive_5xx,
            consecutive_gateway_errors: o.consecutive_gateway_errors,
            base_ejection_time: Some(duration_to_message(o.base_ejection_time)),
            max_ejection_percent: o.max_ejection_percent,
            consecutive_local_origin_failures: o.consecutive_local_origin_failures,
            interval: Some(duration_to_message(o.interval)),
            success_rate: o.success_rate.map(|by| v1::SuccessRate {
                minimum_hosts: by.minimum_hosts,
                minimum_requests: by.minimum_requests,
                stdev_factor: by.stdev_factor,
            }),
            failure_percentage: o.failure_percentage.map(|by| v1::FailurePercentage {
                threshold: by.threshold,
                minimum_hosts: by.minimum_hosts,
                minimum_requests: by.minimum_requests,
            }),
        }),
        timeouts: Some(v1::PolicyTimeouts {
            request: policy.timeouts.request.map(duration_to_message),
            per_try: policy.timeouts.per_try.map(duration_to_message),
            idle: policy.timeouts.idle.map(duration_to_message),
        }),
        retries: policy.retries.as_ref().map(retry::to_message),
        hedging: policy.hedging.map(|hedging| v1::Hedging {
            delay: Some(duration_to_message(hedging.delay)),
            max: hedging.max,
        }),
        fallback: policy.fallback.as_ref().map(fallback_to_message),
        health_check: policy.health_check.as_ref().map(health_check::to_message),
        adaptive_concurrency: policy
            .adaptive_concurrency
            .as_ref()
            .map(overload::adaptive_to_message),
        load_shedding: policy
            .load_shedding
            .as_ref()
            .map(overload::shedding_to_message),
    }
}

pub(super) fn from_message(message: v1::TrafficPolicy) -> Result<TrafficPolicy> {
    let connections = message.connections.unwrap_or_default();
    let timeouts = message.timeouts.unwrap_or_default();
    Ok(TrafficPolicy {
        name: parse("name", &message.name)?,
        target: parse("target", &message.target)?,
        port: optional_port("port", message.port)?,
        created: message.created,
        load_balancer: message
            .load_balancer
            .map(|value| {
                let algorithm = known("load_balancer", value)?;
                let rest = message.balancing.unwrap_or_default();
                balancing::from_message(algorithm, rest).within("balancing")
            })
            .transpose()?,
        connections: Connections {
            connect_timeout: optional_duration(
                "connections.connect_timeout",
                connections.connect_timeout,
            )?,
            idle_timeout: optional_duration("connections.idle_timeout", connections.idle_timeout)?,
            max_connections: connections.max_connections,
            max_requests: connections.max_requests,
            max_pending_requests: connections.max_pending_requests,
            max_requests_per_connection: connections.max_requests_per_connection,
            max_retries: connections.max_retries,
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
        health_check: message
            .health_check
            .map(health_check::from_message)
            .transpose()
            .within("health_check")?,
        hedging: message.hedging.map(hedging).transpose().within("hedging")?,
        adaptive_concurrency: message
            .adaptive_concurrency
            .map(overload::adaptive)
            .transpose()
            .within("adaptive_concurrency")?,
        load_shedding: message
            .load_shedding
            .map(overload::shedding)
            .transpose()
            .within("load_shedding")?,
        fallback: message
            .fallback
            .map(fallback)
            .transpose()
            .within("fallback")?,
    })
}

fn fallback_to_message(fallback: &Fallback) -> v1::Fallback {
    let on = fallback.on.iter().map(|on| match on {
        FallbackOn::NoHealthyEndpoint => v1::FallbackOn::NoHealthyEndpoint,
        FallbackOn::CircuitOpen => v1::FallbackOn::CircuitOpen,
        FallbackOn::Timeout => v1::FallbackOn::Timeout,
        FallbackOn::Unreachable => v1::FallbackOn::Unreachable,
        FallbackOn::ServerError => v1::FallbackOn::ServerError,
    });
    let header = |(name, value): &(String, String)| v1::static_response::Header {
        name: name.clone(),
        value: value.clone(),
    };
    let backend = fallback.backend.as_ref();
    v1::Fallback {
        on: on.map(Into::into).collect(),
        backend: backend
            .map(|(name, _)| name.to_string())
            .unwrap_or_default(),
        port: backend.map_or(0, |(_, port)| u32::from(*port)),
        cache_max_age: fallback.cache.map(duration_to_message),
        response: fallback
            .response
            .as_ref()
            .map(|response| v1::StaticResponse {
                status: u32::from(response.status),
                headers: response.headers.iter().map(header).collect(),
                body: response.body.clone(),
            }),
    }
}

fn fallback(message: v1::Fallback) -> Result<Fallback> {
    let on = |value: i32| {
        Ok(match known("on", value)? {
            v1::FallbackOn::NoHealthyEndpoint => FallbackOn::NoHealthyEndpoint,
            v1::FallbackOn::CircuitOpen => FallbackOn::CircuitOpen,
            v1::FallbackOn::Timeout => FallbackOn::Timeout,
            v1::FallbackOn::Unreachable => FallbackOn::Unreachable,
            v1::FallbackOn::ServerError => FallbackOn::ServerError,
        })
    };
    let backend = if message.backend.is_empty() {
        None
    } else {
        let number = port("port", message.port)?;
        Some((parse("backend", &message.backend)?, number))
    };
    Ok(Fallback {
        on: message.on.into_iter().map(on).collect::<Result<_>>()?,
        backend,
        cache: optional_duration("cache_max_age", message.cache_max_age)?,
        response: message
            .response
            .map(static_response)
            .transpose()
            .within("response")?,
    })
}

fn static_response(message: v1::StaticResponse) -> Result<StaticResponse> {
    let status = u16::try_from(message.status).ok();
    let status = status.filter(|status| (200..600).contains(status));
    let status = status
        .ok_or_else(|| Invalid::new("status", format!("is {}, no status", message.status)))?;
    let headers = message.headers.into_iter();
    Ok(StaticResponse {
        status,
        headers: headers.map(|header| (header.name, header.value)).collect(),
        body: message.body,
    })
}

fn hedging(message: v1::Hedging) -> Result<Hedging> {
    Ok(Hedging {
        delay: duration("delay", required("delay", message.delay)?)?,
        max: message.max,
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
        consecutive_local_origin_failures: message.consecutive_local_origin_failures,
        interval: duration("interval", required("interval", message.interval)?)?,
        success_rate: message.success_rate.map(|by| SuccessRate {
            minimum_hosts: by.minimum_hosts,
            minimum_requests: by.minimum_requests,
            stdev_factor: by.stdev_factor,
        }),
        failure_percentage: message.failure_percentage.map(|by| FailurePercentage {
            threshold: by.threshold,
            minimum_hosts: by.minimum_hosts,
            minimum_requests: by.minimum_requests,
        }),
    })
}
