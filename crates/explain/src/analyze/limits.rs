//! Settings of traffic policies that can never have an effect, or have more of one than is meant.

use std::time::Duration;

use config::kind::traffic_policy::TrafficPolicySpec;
use config::{ObjectKey, Spec};
use policy::Effective;

use super::{Notes, Said, Severity};
use crate::world::Destination;

/// Of one request so many may be made by a chain of three services before it is said.
const MULTIPLIED: u64 = 100;

pub(super) fn look(notes: &mut Notes<'_>) {
    let world = notes.world;
    for (key, object) in world.objects() {
        let Spec::TrafficPolicy(spec) = &object.spec else {
            continue;
        };
        for target in &spec.target_refs {
            let service = ObjectKey::new(config::ObjectKind::Service, &key.namespace, &target.name);
            let name = service.service_name().ok();
            let Some(destination) = name.and_then(|name| world.services.get(&name)) else {
                continue;
            };
            for port in destination.ports.values() {
                for said in [
                    hedging(spec, &port.policy),
                    tries(spec, &port.policy),
                    multiplied(spec),
                    endless(spec, &port.policy),
                    itself(spec, destination),
                    share(spec, destination),
                    hosts(spec, destination),
                    checks(spec),
                    adaptive(spec, &port.policy),
                    pending(spec, &port.policy),
                ]
                .into_iter()
                .flatten()
                {
                    notes.add(key.clone(), said);
                }
            }
        }
    }
}

fn warning(field: &str, message: String, why: String, remedy: &str) -> Said {
    Said {
        severity: Severity::Warning,
        check: "limits",
        field: format!("spec.{field}"),
        message,
        why,
        remedy: remedy.to_owned(),
    }
}

fn shortest(policy: &Effective) -> Option<(&'static str, Duration)> {
    let request = policy.request_timeout.map(|limit| ("a request", limit));
    let per_try = policy.per_try_timeout.map(|limit| ("a try", limit));
    let limits = request.into_iter().chain(per_try);
    limits.min_by_key(|(_, limit)| *limit)
}

fn hedging(spec: &TrafficPolicySpec, policy: &Effective) -> Option<Said> {
    let delay = spec.hedging.as_ref()?.delay.get();
    let (what, limit) = shortest(policy).filter(|(_, limit)| *limit <= delay)?;
    let message = format!("is {delay:?}, and so no second try is ever made");
    let why = format!("{what} ends after {limit:?}");
    let remedy = "make it shorter than the timeouts: about the 95th percentile of an answer";
    Some(warning("hedging.delay", message, why, remedy))
}

fn tries(spec: &TrafficPolicySpec, policy: &Effective) -> Option<Said> {
    spec.timeouts.as_ref()?.per_try.as_ref()?;
    let (all, one) = (policy.request_timeout?, policy.per_try_timeout?);
    let wanted = policy.retry.attempts.saturating_add(1);
    let fit = all.div_duration_f64(one).ceil() as u32;
    if policy.retry.attempts == 0 || fit >= wanted {
        return None;
    }
    let message = format!("is {one:?}: of {wanted} tries that time out only {fit} fit");
    let why = format!("a request ends after {all:?}, all tries included");
    let remedy = "shorten it, or allow fewer retries";
    Some(warning("timeouts.perTry", message, why, remedy))
}

fn multiplied(spec: &TrafficPolicySpec) -> Option<Said> {
    let retries = spec.retries.as_ref()?;
    let tries = u64::from(retries.attempts).saturating_add(1);
    let all = tries.saturating_pow(3);
    if all <= MULTIPLIED || retries.budget.percent <= 50 {
        return None;
    }
    let message = format!("{} retries may become many more", retries.attempts);
    let why = format!(
        "where each of three services in a row makes {tries} tries, the last one gets {all} requests for one, and a budget of {} % does not stop that",
        retries.budget.percent
    );
    let remedy = "leave the budget at 20 %, or retry in the outermost service alone";
    Some(warning("retries", message, why, remedy))
}

fn endless(spec: &TrafficPolicySpec, policy: &Effective) -> Option<Said> {
    let fallback = spec.fallback.as_ref()?;
    if !fallback.on.iter().any(|on| on == "timeout") || shortest(policy).is_some() {
        return None;
    }
    let message = "\"timeout\" is hardly ever a reason".to_owned();
    let why = "without timeouts only a deadline of the client's own ends a request".to_owned();
    let remedy = "add timeouts.request or timeouts.perTry";
    Some(warning("fallback.on", message, why, remedy))
}

fn itself(spec: &TrafficPolicySpec, destination: &Destination) -> Option<Said> {
    let backend = spec.fallback.as_ref()?.backend_ref.as_ref()?;
    if backend.name != destination.service.name.name() {
        return None;
    }
    let message = format!("Service {} falls back to itself", backend.name);
    let why = "it would be asked once more when it has just failed".to_owned();
    Some(warning(
        "fallback.backendRef",
        message,
        why,
        "name another Service",
    ))
}

fn checks(spec: &TrafficPolicySpec) -> Option<Said> {
    let check = spec.health_check.as_ref()?;
    let (timeout, interval) = (check.timeout.get(), check.interval.get());
    if timeout <= interval {
        return None;
    }
    let message = format!("is {timeout:?}, longer than the interval of {interval:?}");
    let why = "an endpoint that does not answer is checked less often than is said".to_owned();
    let remedy = "make it shorter, or the interval longer";
    Some(warning("healthCheck.timeout", message, why, remedy))
}

fn adaptive(spec: &TrafficPolicySpec, policy: &Effective) -> Option<Said> {
    spec.adaptive_concurrency.as_ref()?;
    let limit = policy.adaptive.as_ref()?;
    if limit.min_concurrency < policy.max_requests {
        return None;
    }
    let message = "never refuses a request".to_owned();
    let why = format!(
        "connections.maxRequests allows {}, and this limit is never less than {}",
        policy.max_requests, limit.min_concurrency
    );
    let remedy = "lower minConcurrency, or raise maxRequests";
    Some(warning("adaptiveConcurrency", message, why, remedy))
}

fn pending(spec: &TrafficPolicySpec, policy: &Effective) -> Option<Said> {
    spec.connections.as_ref()?.max_pending_requests?;
    let (all, open) = (policy.max_requests, policy.max_connections);
    if policy.max_pending == 0 || all > open {
        return None;
    }
    let message = format!("is {}, and no request ever waits", policy.max_pending);
    let why = format!("of {all} requests (maxRequests) each has one of {open} connections");
    let remedy = "make maxConnections smaller than maxRequests, or take it out";
    Some(warning(
        "connections.maxPendingRequests",
        message,
        why,
        remedy,
    ))
}

fn share(spec: &TrafficPolicySpec, destination: &Destination) -> Option<Said> {
    let percent = u64::from(spec.outlier_detection.as_ref()?.max_ejection_percent);
    let count = destination.endpoints.len() as u64;
    if percent == 0 || count == 0 || percent * count >= 100 {
        return None;
    }
    let message = format!("is {percent}, and so no endpoint is ever ejected");
    let why = format!("of {count} the share is less than one");
    let remedy = "raise it to 100 divided by the number of endpoints, or more";
    Some(warning(
        "outlierDetection.maxEjectionPercent",
        message,
        why,
        remedy,
    ))
}

fn hosts(spec: &TrafficPolicySpec, destination: &Destination) -> Option<Said> {
    let outlier = spec.outlier_detection.as_ref()?;
    let success = outlier.success_rate.as_ref();
    let success = success.map(|by| ("successRate", by.minimum_hosts));
    let failure = outlier.failure_percentage.as_ref();
    let failure = failure.map(|by| ("failurePercentage", by.minimum_hosts));
    let count = destination.endpoints.len();
    let (field, wanted) = success
        .into_iter()
        .chain(failure)
        .find(|(_, wanted)| count > 0 && *wanted as usize > count)?;
    let message = format!("is {wanted}, and so rates are never compared");
    let why = format!("the Service has {count} of them");
    let field = format!("outlierDetection.{field}.minimumHosts");
    Some(warning(&field, message, why, "lower it"))
}
