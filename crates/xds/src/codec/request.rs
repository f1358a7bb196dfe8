//! Policies about requests.

use http::StatusCode;
use model::request::{
    Abort, Algorithm, Condition, Effect, FailureMode, Fault, Faults, Key, Limit, Limits, Parent,
    RateLimitService, RequestPolicy, Scope, Section,
};
use model::resource::gateway_of;
use model::route::{Fraction, RouteKind};

use super::field::{
    Invalid, Result, Within, duration, duration_to_message, each, known, optional_duration, parse,
    port, required,
};
use super::route::{self, matches};
use crate::proto::v1;

pub(super) fn to_message(policy: &RequestPolicy) -> v1::RequestPolicy {
    use v1::request_policy::{Effect as WireEffect, Section as WireSection};
    let section = match &policy.section {
        Section::Whole => None,
        Section::Port(port) => Some(WireSection::Port(u32::from(*port))),
        Section::Listener(name) => Some(WireSection::Listener(name.clone())),
        Section::Route { kind, name, rule } => Some(WireSection::Route(v1::RouteSection {
            kind: route::kind_to_message(*kind).into(),
            name: name.to_string(),
            rule: rule.clone(),
        })),
    };
    v1::RequestPolicy {
        name: policy.name.to_string(),
        created: policy.created,
        parent: match &policy.parent {
            Parent::Service(service) => service.to_string(),
            Parent::Gateway(name) => format!("{}/gateway:{}", name.namespace(), name.name()),
        },
        section,
        effect: Some(match &policy.effect {
            Effect::Faults(faults) => WireEffect::Faults(v1::Faults {
                faults: faults.faults.iter().map(fault_to_message).collect(),
                until: faults.until,
            }),
            Effect::Limits(limits) => WireEffect::Limits(limits_to_message(limits)),
        }),
    }
}

fn condition_to_message(condition: &Condition) -> v1::RequestCondition {
    let identities = condition.identities.iter().map(ToString::to_string);
    v1::RequestCondition {
        matched: Some(matches::to_message(&condition.matched)),
        identities: identities.collect(),
    }
}

fn fault_to_message(fault: &Fault) -> v1::Fault {
    use v1::fault::Abort as Wire;
    v1::Fault {
        condition: Some(condition_to_message(&fault.condition)),
        numerator: fault.share.numerator(),
        denominator: fault.share.denominator(),
        delay: fault.delay.map(duration_to_message),
        abort: fault.abort.map(|abort| match abort {
            Abort::Http(status) => Wire::HttpStatus(status.as_u16().into()),
            Abort::Grpc(status) => Wire::GrpcStatus(status.into()),
            Abort::Reset => Wire::Reset(v1::Reset {}),
        }),
        bandwidth: fault.bandwidth,
    }
}

pub(super) fn limits_to_message(limits: &Limits) -> v1::RateLimits {
    let service = limits.service.as_ref().map(|service| v1::RateLimitService {
        service: service.name.to_string(),
        port: service.port.into(),
        timeout: Some(duration_to_message(service.timeout)),
    });
    v1::RateLimits {
        limits: limits.limits.iter().map(limit_to_message).collect(),
        headers: limits.headers,
        service,
    }
}

fn limit_to_message(limit: &Limit) -> v1::RateLimit {
    use v1::rate_limit_key::{Key as Wire, Part};
    let key = limit.key.iter().map(|key| v1::RateLimitKey {
        key: Some(match key {
            Key::Header(name) => Wire::Header(name.to_string()),
            Key::Cookie(name) => Wire::Cookie(name.clone()),
            Key::Identity => Wire::Part(Part::Identity.into()),
            Key::SourceIp => Wire::Part(Part::SourceIp.into()),
            Key::Path => Wire::Part(Part::Path.into()),
            Key::Method => Wire::Part(Part::Method.into()),
        }),
    });
    let algorithm = match limit.algorithm {
        Algorithm::TokenBucket => v1::RateLimitAlgorithm::TokenBucket,
        Algorithm::SlidingWindow => v1::RateLimitAlgorithm::SlidingWindow,
        Algorithm::FixedWindow => v1::RateLimitAlgorithm::FixedWindow,
    };
    let global = match limit.scope {
        Scope::Local => None,
        Scope::Global(FailureMode::Open) => Some(v1::FailureMode::Open),
        Scope::Global(FailureMode::Closed) => Some(v1::FailureMode::Closed),
    };
    v1::RateLimit {
        name: limit.name.clone(),
        condition: Some(condition_to_message(&limit.condition)),
        key: key.collect(),
        requests: limit.requests,
        per: Some(duration_to_message(limit.per)),
        burst: limit.burst,
        algorithm: algorithm.into(),
        global: global.map(Into::into),
    }
}

pub(super) fn from_message(message: v1::RequestPolicy) -> Result<RequestPolicy> {
    use v1::request_policy::Effect as Wire;
    Ok(RequestPolicy {
        name: parse("name", &message.name)?,
        created: message.created,
        parent: match gateway_of(&format!("{}/", message.parent)) {
            Some(gateway) => Parent::Gateway(gateway),
            None => Parent::Service(parse("parent", &message.parent)?),
        },
        section: section(message.section)?,
        effect: match required("effect", message.effect)? {
            Wire::Faults(faults) => Effect::Faults(Faults {
                faults: each("faults.faults", faults.faults, fault)?,
                until: faults.until,
            }),
            Wire::Limits(message) => Effect::Limits(limits(message).within("limits")?),
        },
    })
}

fn section(message: Option<v1::request_policy::Section>) -> Result<Section> {
    use v1::request_policy::Section as Wire;
    Ok(match message {
        None => Section::Whole,
        Some(Wire::Port(number)) => Section::Port(port("port", number)?),
        Some(Wire::Listener(name)) => Section::Listener(name),
        Some(Wire::Route(message)) => {
            let kind: RouteKind = route::kind(message.kind).within("route")?;
            Section::Route {
                kind,
                name: parse("route.name", &message.name)?,
                rule: message.rule,
            }
        }
    })
}

fn condition(message: Option<v1::RequestCondition>) -> Result<Condition> {
    let message = required("condition", message)?;
    let matched = required("condition.matched", message.matched)?;
    Ok(Condition {
        matched: matches::from_message(matched).within("condition.matched")?,
        identities: each("condition.identities", message.identities, |text| {
            parse("", &text)
        })?,
    })
}

fn fault(message: v1::Fault) -> Result<Fault> {
    use v1::fault::Abort as Wire;
    let abort = message.abort.map(|abort| match abort {
        Wire::HttpStatus(status) => u16::try_from(status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .filter(|status| status.as_u16() >= 200)
            .map(Abort::Http)
            .ok_or_else(|| Invalid::new("http_status", format!("{status} is no final status"))),
        Wire::GrpcStatus(status) => u8::try_from(status)
            .ok()
            .filter(|status| (1..=16).contains(status))
            .map(Abort::Grpc)
            .ok_or_else(|| Invalid::new("grpc_status", format!("{status} is not 1 to 16"))),
        Wire::Reset(_) => Ok(Abort::Reset),
    });
    if message.bandwidth == Some(0) {
        return Err(Invalid::new("bandwidth", "is 0: nothing would ever come"));
    }
    let share = Fraction::new(message.numerator, message.denominator);
    Ok(Fault {
        condition: condition(message.condition)?,
        share: share.map_err(|error| Invalid::new("numerator", error))?,
        delay: optional_duration("delay", message.delay)?,
        abort: abort.transpose()?,
        bandwidth: message.bandwidth,
    })
}

pub(super) fn limits(message: v1::RateLimits) -> Result<Limits> {
    Ok(Limits {
        limits: each("limits", message.limits, limit)?,
        headers: message.headers,
        service: message
            .service
            .as_ref()
            .map(service)
            .transpose()
            .within("service")?,
    })
}

fn service(message: &v1::RateLimitService) -> Result<RateLimitService> {
    Ok(RateLimitService {
        name: parse("service", &message.service)?,
        port: port("port", message.port)?,
        timeout: duration("timeout", required("timeout", message.timeout)?)?,
    })
}

fn limit(message: v1::RateLimit) -> Result<Limit> {
    let per = duration("per", required("per", message.per)?)?;
    if per.is_zero() {
        return Err(Invalid::new("per", "is 0"));
    }
    if message.burst == 0 {
        return Err(Invalid::new("burst", "is 0"));
    }
    Ok(Limit {
        name: message.name,
        condition: condition(message.condition)?,
        key: each("key", message.key, key)?,
        requests: message.requests,
        per,
        burst: message.burst,
        algorithm: match known("algorithm", message.algorithm)? {
            v1::RateLimitAlgorithm::TokenBucket => Algorithm::TokenBucket,
            v1::RateLimitAlgorithm::SlidingWindow => Algorithm::SlidingWindow,
            v1::RateLimitAlgorithm::FixedWindow => Algorithm::FixedWindow,
        },
        scope: match message
            .global
            .map(|mode| known("global", mode))
            .transpose()?
        {
            None => Scope::Local,
            Some(v1::FailureMode::Open) => Scope::Global(FailureMode::Open),
            Some(v1::FailureMode::Closed) => Scope::Global(FailureMode::Closed),
        },
    })
}

fn key(message: v1::RateLimitKey) -> Result<Key> {
    use v1::rate_limit_key::{Key as Wire, Part};
    Ok(match required("key", message.key)? {
        Wire::Header(name) => Key::Header(parse("header", &name)?),
        Wire::Cookie(name) => Key::Cookie(name),
        Wire::Part(part) => match known("part", part)? {
            Part::Unspecified => return Err(Invalid::new("part", "is not specified")),
            Part::Identity => Key::Identity,
            Part::SourceIp => Key::SourceIp,
            Part::Path => Key::Path,
            Part::Method => Key::Method,
        },
    })
}
