//! Policies about requests: one of the model for each target, or for each parent of a target that is
//! a route. Of two for the same target the older holds and the other is told so (GEP-713).
//!
//! Limits of a Service are no resource of their own: they travel in the workloads behind it.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::ObjectName;
use model::request::{Effect, Parent, RequestPolicy, Section};
use model::resource::Resource;
use model::route::RouteKind;

use super::gateway::listener::listener_name;
use super::policy::{joined, rank, traffic_target};
use super::route::{self, parent};
use super::store::{Topic, View};
use super::{Condition, Defaults, Output, rate_limit};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::fault_policy::FaultPolicySpec;
use crate::kind::rate_limit_policy::RateLimitPolicySpec;
use crate::object::{Object, ObjectKey, Spec, timestamp};
use crate::reference::TargetRef;
use crate::suggest;

/// Why a target cannot be had, and what to do.
type Missing = (String, String);

pub(super) fn faults(
    object: &Object,
    name: &ObjectName,
    spec: &FaultPolicySpec,
    view: &mut View<'_>,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    c.at("spec", |c| {
        let created = object.metadata.created;
        if spec.lasting.is_some() && created.is_none() {
            let message = "is counted from the object's creation, of which nothing is known: \
                           the policy is not in force";
            c.at("for", |c| {
                c.found(Severity::Warning, message, "write `until` in its place");
            });
        }
        let faults = spec.to_model(created, c);
        let accepted = match faults.until.and_then(timestamp::format) {
            Some(_) if spec.lasting.is_some() && created.is_none() => {
                let message = "`for` needs a time of creation; write `until` in its place";
                Condition::failed("Accepted", "Invalid", message)
            }
            Some(until) => {
                let message = format!("valid, and in force until {until}");
                Condition::holds("Accepted", "Accepted", &message)
            }
            None => Condition::accepted(),
        };
        let attach = Attach {
            object,
            name,
            effect: Effect::Faults(faults),
            accepted,
        };
        attach.all(&spec.target_refs, view, c, output);
    });
}

pub(super) fn limits(
    object: &Object,
    name: &ObjectName,
    spec: &RateLimitPolicySpec,
    view: &mut View<'_>,
    defaults: &Defaults,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    c.at("spec", |c| {
        let limits = rate_limit::of_policy(object, spec, view, defaults, c);
        rate_limit::look(object, spec, &limits, view, c);
        let attach = Attach {
            object,
            name,
            effect: Effect::Limits(limits),
            accepted: Condition::accepted(),
        };
        attach.all(&spec.target_refs, view, c, output);
    });
}

/// A policy on its way to its targets.
struct Attach<'o> {
    object: &'o Object,
    name: &'o ObjectName,
    effect: Effect,
    accepted: Condition,
}

impl Attach<'_> {
    fn all(
        &self,
        targets: &[TargetRef],
        view: &mut View<'_>,
        c: &mut Check<'_>,
        output: &mut Output,
    ) {
        let mut places = BTreeSet::new();
        c.each("targetRefs", targets, |c, target| {
            let condition = match places_of(self.object, target, view) {
                Ok(found) => {
                    if let Some(other) = older(self.object, target, view) {
                        let message = format!("older {other} on the same target decides");
                        c.found(Severity::Warning, message.clone(), "take one of them out");
                        Condition::failed("Accepted", "Conflicted", message)
                    } else {
                        places.extend(found);
                        self.accepted.clone()
                    }
                }
                Err((message, hint)) => {
                    c.found(Severity::Warning, message.clone(), hint.clone());
                    Condition::failed("Accepted", "TargetNotFound", joined(&message, &hint))
                }
            };
            let condition = condition.about(target.as_ancestor());
            output.conditions.push(condition);
        });
        for (parent, section) in places {
            let in_workloads = matches!(section, Section::Whole | Section::Port(_))
                && matches!(parent, Parent::Service(_))
                && matches!(self.effect, Effect::Limits(_));
            if in_workloads {
                continue;
            }
            let policy = RequestPolicy {
                name: self.name.clone(),
                created: self.object.metadata.created.unwrap_or(0),
                parent,
                section,
                effect: self.effect.clone(),
            };
            output.resources.push(Resource::RequestPolicy(policy));
        }
    }
}

/// A policy of the same kind that is for the same target and comes first.
fn older(object: &Object, target: &TargetRef, view: &mut View<'_>) -> Option<ObjectKey> {
    let key = target_key(object, target)?;
    view.list(Topic::Attached(object.key.kind, key))
        .into_iter()
        .filter(|other| targets(&other.spec).contains(target))
        .find(|other| rank(other) < rank(object))
        .map(|other| other.key.clone())
}

pub(super) fn targets(spec: &Spec) -> &[TargetRef] {
    match spec {
        Spec::FaultPolicy(spec) => &spec.target_refs,
        Spec::RateLimitPolicy(spec) => &spec.target_refs,
        _ => &[],
    }
}

fn target_key(object: &Object, target: &TargetRef) -> Option<ObjectKey> {
    let mut kinds = ObjectKind::ALL.into_iter();
    let kind = kinds.find(|kind| kind.as_str() == target.kind)?;
    Some(ObjectKey::new(kind, object.namespace(), &target.name))
}

/// Where in the model a target is.
fn places_of(
    object: &Object,
    target: &TargetRef,
    view: &mut View<'_>,
) -> Result<Vec<(Parent, Section)>, Missing> {
    match target.kind.as_str() {
        "Service" => {
            let (service, port) = traffic_target(object, target, view)?;
            let section = port.map_or(Section::Whole, Section::Port);
            Ok(vec![(Parent::Service(service), section)])
        }
        "Gateway" => gateway(object, target, view).map(|place| vec![place]),
        _ => of_route(object, target, view),
    }
}

fn found<'a>(
    object: &Object,
    target: &TargetRef,
    view: &mut View<'a>,
) -> Result<&'a Arc<Object>, Missing> {
    let missing = |hint: String| {
        let (kind, name) = (&target.kind, &target.name);
        let namespace = object.namespace();
        let message = format!("target {kind} \"{name}\" does not exist in namespace {namespace}");
        (message, hint)
    };
    let key = target_key(object, target).ok_or_else(|| missing(String::new()))?;
    if let Some(found) = view.get(&key) {
        return Ok(found);
    }
    let names = view.names(key.kind, object.namespace());
    Err(missing(suggest::hint(&target.name, names)))
}

fn gateway(
    object: &Object,
    target: &TargetRef,
    view: &mut View<'_>,
) -> Result<(Parent, Section), Missing> {
    let gateway = found(object, target, view)?;
    let name = ObjectName::new(object.namespace(), &target.name)
        .map_err(|error| (error.to_string(), String::new()))?;
    let Spec::Gateway(spec) = &gateway.spec else {
        return Err(("is no Gateway".to_owned(), String::new()));
    };
    let section = match &target.section_name {
        None => Section::Whole,
        Some(wanted) if spec.listeners.iter().any(|l| l.name == *wanted) => {
            Section::Listener(listener_name(gateway, wanted))
        }
        Some(wanted) => {
            let names: Vec<&str> = spec.listeners.iter().map(|l| l.name.as_str()).collect();
            let message = format!(
                "Gateway \"{}\" has no listener named \"{wanted}\"",
                target.name
            );
            return Err((message, format!("its listeners are {}", names.join(", "))));
        }
    };
    Ok((Parent::Gateway(name), section))
}

/// A route is where its parents are.
fn of_route(
    object: &Object,
    target: &TargetRef,
    view: &mut View<'_>,
) -> Result<Vec<(Parent, Section)>, Missing> {
    let route = found(object, target, view)?;
    let name = ObjectName::new(object.namespace(), &target.name)
        .map_err(|error| (error.to_string(), String::new()))?;
    let (kind, rules): (_, Vec<Option<&str>>) = match &route.spec {
        Spec::HttpRoute(spec) => {
            let rules = spec.rules.iter().map(|r| r.name.as_deref());
            (RouteKind::Http, rules.collect())
        }
        Spec::GrpcRoute(spec) => {
            let rules = spec.rules.iter().map(|r| r.name.as_deref());
            (RouteKind::Grpc, rules.collect())
        }
        _ => return Err(("is no route of requests".to_owned(), String::new())),
    };
    if let Some(wanted) = target.section_name.as_deref()
        && !rules.contains(&Some(wanted))
    {
        let named: Vec<&str> = rules.into_iter().flatten().collect();
        let hint = match named.as_slice() {
            [] => "give the rule a `name`".to_owned(),
            named => format!("its rules are named {}", named.join(", ")),
        };
        let message = format!(
            "{} \"{}\" has no rule named \"{wanted}\"",
            target.kind, target.name
        );
        return Err((message, hint));
    }
    let section = Section::Route {
        kind,
        name,
        rule: target.section_name.clone(),
    };
    let mut places = Vec::new();
    for reference in parent::of(route, view).iter() {
        let parent = if reference.is_service() {
            let service = route::service(route, reference, view).ok();
            service.map(|(name, _)| Parent::Service(name))
        } else {
            let gateway = parent::gateway_of(route, reference, view);
            gateway
                .and_then(|key| ObjectName::new(&key.namespace, &key.name).ok())
                .map(Parent::Gateway)
        };
        places.extend(parent.map(|parent| (parent, section.clone())));
    }
    if places.is_empty() {
        let message = format!(
            "{} \"{}\" is attached to nothing that is there",
            target.kind, target.name
        );
        return Err((message, "see the route's own status".to_owned()));
    }
    Ok(places)
}
