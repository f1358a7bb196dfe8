//! Faults that all requests meet, or that are over; limits that can never be reached; conditions that
//! no request fulfils.

use std::time::SystemTime;

use config::kind::ObjectKind;
use config::{Object, Spec};
use model::request::{Algorithm, Condition, Effect, Fault, Limit, RequestPolicy, Section};
use model::route::{Match, PathMatch, Route, RouteKind};
use policy::route::impossible;

use super::{Notes, Said, Severity};
use crate::words;
use crate::world::World;

pub(super) fn look(notes: &mut Notes<'_>, now: SystemTime) {
    let world = notes.world;
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    for (key, object) in world.objects() {
        let mut found = Vec::new();
        match (&object.spec, effect_of(world, object)) {
            (Spec::FaultPolicy(_), Some(Effect::Faults(faults))) => {
                if let Some(until) = faults.until.filter(|until| *until <= now) {
                    found.push(over(until));
                }
                for (at, fault) in faults.faults.iter().enumerate() {
                    found.extend(of_fault(at, fault, &faults.faults[..at]));
                }
                let conditions = faults.faults.iter().map(|f| &f.condition);
                found.extend(unmet(world, object, "faults", conditions));
            }
            (Spec::RateLimitPolicy(_), Some(Effect::Limits(limits))) => {
                found.extend(limits.limits.iter().enumerate().filter_map(|(at, limit)| {
                    let stricter = limits.limits.iter().find(|other| is_within(other, limit))?;
                    Some(never_reached(at, limit, stricter))
                }));
                let conditions = limits.limits.iter().map(|l| &l.condition);
                found.extend(unmet(world, object, "limits", conditions));
            }
            _ => {}
        }
        for said in found {
            notes.add(key.clone(), said);
        }
    }
}

/// What a policy does, as it was translated.
fn effect_of(world: &World, object: &Object) -> Option<Effect> {
    let own = |policy: &&RequestPolicy| {
        policy.effect.kind() == object.key.kind.as_str()
            && policy.name.namespace() == object.namespace()
            && *policy.name.name() == *object.key.name
    };
    if let Some(policy) = world.requests.iter().find(own) {
        return Some(policy.effect.clone());
    }
    let workloads = world.workloads.values();
    let mut limits = workloads.flat_map(|workload| &workload.limits);
    let limits = limits.find(|limits| {
        object.key.kind == ObjectKind::RateLimitPolicy
            && limits.policy.namespace() == object.namespace()
            && *limits.policy.name() == *object.key.name
    })?;
    Some(Effect::Limits(limits.limits.clone()))
}

fn over(until: u64) -> Said {
    let until = config::kind::fault_policy::written_time(until).unwrap_or_default();
    Said {
        severity: Severity::Info,
        check: "over",
        field: "spec".to_owned(),
        message: format!("has no effect any more: its time ended at {until}"),
        why: String::new(),
        remedy: "take it out, or give it a later `until`".to_owned(),
    }
}

fn of_fault(at: usize, fault: &Fault, before: &[Fault]) -> Option<Said> {
    let field = format!("spec.faults[{at}]");
    let always = |fault: &Fault| fault.share.numerator() == fault.share.denominator();
    let answers = |other: &&Fault| {
        other.abort.is_some()
            && always(other)
            && (other.condition.is_all() || other.condition == fault.condition)
    };
    if fault.share.numerator() == 0 {
        return Some(Said {
            severity: Severity::Warning,
            check: "impossible",
            field: format!("{field}.percent"),
            message: "no request meets it: it is 0".to_owned(),
            why: String::new(),
            remedy: "raise it, or take the fault out".to_owned(),
        });
    }
    if before.iter().any(|other| answers(&other)) {
        return Some(Said {
            severity: Severity::Warning,
            check: "shadowed",
            field,
            message: "no request meets it".to_owned(),
            why: "a fault before it answers all that it is for".to_owned(),
            remedy: "put it first, or give the other a percent or a match".to_owned(),
        });
    }
    (always(fault) && fault.abort.is_some() && fault.condition.is_all()).then(|| Said {
        severity: Severity::Warning,
        check: "everything",
        field,
        message: "every request fails: it is for all of them, and for 100 %".to_owned(),
        why: String::new(),
        remedy: "say with `percent` how many, or with `match` which".to_owned(),
    })
}

/// Whether a request that is within this limit is within the other.
fn is_within(this: &Limit, other: &Limit) -> bool {
    let pace = |limit: &Limit| f64::from(limit.requests) / limit.per.as_secs_f64();
    let stricter = (pace(this), this.burst) < (pace(other), other.burst)
        || (pace(this), this.burst) == (pace(other), other.burst) && this.name < other.name;
    let counts_all = this.condition.is_all() || this.condition == other.condition;
    let together = this.key.iter().all(|key| other.key.contains(key));
    this.name != other.name
        && this.algorithm == other.algorithm
        && this.scope == other.scope
        && fit(this, other)
        && counts_all
        && together
        && stricter
        && pace(this) <= pace(other)
        && this.burst <= other.burst
        && this.per <= other.per.max(this.per)
}

/// Whether no window of one begins within a window of the other, where requests are counted in fixed
/// ones.
fn fit(this: &Limit, other: &Limit) -> bool {
    let rest = other.per.as_nanos().checked_rem(this.per.as_nanos());
    this.algorithm != Algorithm::FixedWindow || rest == Some(0)
}

fn never_reached(at: usize, limit: &Limit, by: &Limit) -> Said {
    Said {
        severity: Severity::Warning,
        check: "unreachable",
        field: format!("spec.limits[{at}]"),
        message: format!("limit \"{}\" can never be reached", limit.name),
        why: format!(
            "limit \"{}\" counts all that it does and lets fewer through",
            by.name
        ),
        remedy: "take it out, or make it stricter than the other".to_owned(),
    }
}

/// Conditions that nothing fulfils: none that there can be, or none that the target takes.
fn unmet<'a>(
    world: &World,
    object: &Object,
    field: &'static str,
    conditions: impl Iterator<Item = &'a Condition>,
) -> Vec<Said> {
    let routes = routes_of(world, object);
    let mut found = Vec::new();
    for (at, condition) in conditions.enumerate() {
        let why = match impossible(&condition.matched, RouteKind::Http) {
            Some(why) => why,
            None if routes.is_empty() => continue,
            None if routes
                .iter()
                .any(|taken| may_meet(taken, &condition.matched)) =>
            {
                continue;
            }
            None => format!(
                "it is for {}, which the rules of its target never take",
                words::request_condition(condition)
            ),
        };
        found.push(Said {
            severity: Severity::Warning,
            check: "impossible",
            field: format!("spec.{field}[{at}].match"),
            message: "no request can ever match".to_owned(),
            why,
            remedy: "correct the match, or the target".to_owned(),
        });
    }
    found
}

/// The matches of the rules that a policy is for, where all its targets are routes.
fn routes_of(world: &World, object: &Object) -> Vec<Match> {
    let own = world.requests.iter().filter(|policy| {
        policy.effect.kind() == object.key.kind.as_str()
            && policy.name.namespace() == object.namespace()
            && *policy.name.name() == *object.key.name
    });
    let mut found = Vec::new();
    for policy in own {
        let Section::Route { kind, name, rule } = &policy.section else {
            return Vec::new();
        };
        let of_gateways = world.gateways.values().flat_map(|gateway| &gateway.routes);
        let of_services = world.services.values().flat_map(|service| {
            let ports = service.ports.values();
            ports.flat_map(|port| port.all_ways().flat_map(|(_, ways)| ways.routes.routes()))
        });
        let same = |route: &&std::sync::Arc<Route>| route.kind == *kind && route.name == *name;
        if let Some(route) = of_gateways.chain(of_services).find(same) {
            let rules = route.rules.iter();
            let meant = rules.filter(|r| rule.is_none() || r.name == *rule);
            found.extend(meant.flat_map(|r| r.matches.iter().cloned()));
        }
    }
    found
}

/// Whether a request may fulfil both.
fn may_meet(a: &Match, b: &Match) -> bool {
    let methods = match (&a.method, &b.method) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    methods && paths_may_meet(&a.path, &b.path)
}

fn paths_may_meet(a: &PathMatch, b: &PathMatch) -> bool {
    use PathMatch::{Exact, Prefix};
    let below = |prefix: &str, path: &str| {
        let rest = path.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (a, b) {
        (Exact(a), Exact(b)) => a == b,
        (Prefix(prefix), Exact(path)) | (Exact(path), Prefix(prefix)) => below(prefix, path),
        (Prefix(a), Prefix(b)) => below(a, b) || below(b, a),
        _ => true,
    }
}
