//! Which faults and limits a request meets: those of where it comes to, of the services that it goes
//! to, and of the workloads behind them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;

use model::request::{Abort, Effect, Faults, Limits, Parent, RequestPolicy};
use model::route::RouteKind;
use model::{ObjectName, Reason, ServiceName};
use policy::path;
use policy::request::{Asker, Here, Table, holds, holds_for_connection, normalize};
use policy::route::RequestView;

use crate::report::{Failure, PolicyMet, Simulation};
use crate::request::{Caller, Request};
use crate::words;
use crate::world::World;

/// The policies that hold somewhere.
type Own<'p> = Option<Box<Table<&'p RequestPolicy>>>;

/// A request as conditions look at it.
struct Asked<'a> {
    view: RequestView<'a>,
    asker: Asker<'a>,
    http: bool,
    /// That all requests meet.
    failure: RefCell<Option<Failure>>,
}

pub(super) fn note(world: &World, request: &Request, caller: &Caller, said: &mut Simulation) {
    let Ok(normal) = path::normalize(request.path()) else {
        return;
    };
    let identity = match caller {
        Caller::Identity(id) => id.as_str(),
        Caller::Somebody { .. } | Caller::Plain { .. } => "",
    };
    let asked = Asked {
        view: RequestView {
            method: &request.method,
            path: &normal,
            query: request.query(),
            authority: &request.authority,
            headers: &request.headers,
        },
        asker: Asker {
            identity,
            address: std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        },
        http: request.is_http() && (said.route.is_some() || !said.backends.is_empty()),
        failure: RefCell::new(None),
    };
    let mut met = Vec::new();
    let route = said.route.clone();
    let decided = route.as_ref().and_then(|taken| {
        let kind = [RouteKind::Http, RouteKind::Grpc]
            .into_iter()
            .find(|kind| kind.as_str() == taken.kind)?;
        let name: ObjectName = taken.name.parse().ok()?;
        Some((kind, name, taken.rule_name.clone()))
    });
    let decided = decided
        .as_ref()
        .map(|(kind, name, rule)| (*kind, name, rule.as_deref()));
    let plain = matches!(caller, Caller::Plain { .. });
    let service = said.service.as_deref().and_then(service_and_port);
    if let Some(listener) = &said.listener
        && let Ok(gateway) = listener.gateway.parse()
    {
        let parent = Parent::Gateway(gateway);
        asked.at(
            world,
            &parent,
            Here::Listener(&listener.name),
            decided,
            &mut met,
        );
    }
    if let Some((name, port)) = service.clone().filter(|_| !plain) {
        asked.at(
            world,
            &Parent::Service(name),
            Here::Port(port),
            decided,
            &mut met,
        );
    }
    let mut seen: BTreeSet<(ServiceName, u16)> = service.into_iter().collect();
    let mut limited: BTreeSet<(ServiceName, u16)> = BTreeSet::new();
    for backend in &said.backends {
        let Some((name, port)) = backend.service.as_deref().and_then(service_and_port) else {
            continue;
        };
        if seen.insert((name.clone(), port)) && !plain {
            let parent = Parent::Service(name.clone());
            asked.at(world, &parent, Here::Port(port), None, &mut met);
        }
        if limited.insert((name.clone(), port)) {
            asked.behind(world, &name, port, &mut met);
        }
    }
    said.policies = met;
    if let Some(failure) = asked.failure.into_inner() {
        said.fail(failure);
    }
}

fn service_and_port(text: &str) -> Option<(ServiceName, u16)> {
    let (name, port) = text.rsplit_once(':')?;
    Some((name.parse().ok()?, port.parse().ok()?))
}

impl Asked<'_> {
    /// What holds at a parent.
    fn at(
        &self,
        world: &World,
        parent: &Parent,
        here: Here<'_>,
        decided: Option<(RouteKind, &ObjectName, Option<&str>)>,
        met: &mut Vec<PolicyMet>,
    ) {
        let place = match parent {
            Parent::Service(name) => format!("where Service {name} is asked for"),
            Parent::Gateway(name) => format!("at Gateway {name}"),
        };
        let own = || {
            world
                .requests
                .iter()
                .filter(|policy| policy.parent == *parent)
        };
        let limits: Own<'_> = Table::compile(
            own()
                .filter(|policy| matches!(policy.effect, Effect::Limits(_)))
                .map(|policy| (policy, policy)),
            here,
        );
        let faults: Own<'_> = Table::compile(
            own()
                .filter(|policy| matches!(policy.effect, Effect::Faults(_)))
                .map(|policy| (policy, policy)),
            here,
        );
        for table in [limits, faults].into_iter().flatten() {
            if let Some(policy) = table.find_named(decided) {
                let effects = match &policy.effect {
                    Effect::Faults(faults) => self.faults(policy, faults),
                    Effect::Limits(limits) => self.limits(limits),
                };
                met.extend(effects.into_iter().map(|effect| PolicyMet {
                    kind: policy.effect.kind().to_owned(),
                    name: policy.name.to_string(),
                    place: place.clone(),
                    effect,
                }));
            }
        }
    }

    /// What the workloads behind a port of a service hold.
    fn behind(&self, world: &World, service: &ServiceName, port: u16, met: &mut Vec<PolicyMet>) {
        let Some(destination) = world.services.get(service) else {
            return;
        };
        let mut said: BTreeSet<String> = BTreeSet::new();
        for (endpoint, target, _) in destination.endpoints(port) {
            let Some(workload) = world.workloads.get(&endpoint.workload) else {
                continue;
            };
            for limits in workload.limits.iter().filter(|l| l.ports.contains(&target)) {
                if !said.insert(format!("{} {}", limits.policy, limits.service)) {
                    continue;
                }
                let effects = self.limits(&limits.limits);
                met.extend(effects.into_iter().map(|effect| PolicyMet {
                    kind: "RateLimitPolicy".to_owned(),
                    name: limits.policy.to_string(),
                    place: format!("at each workload of Service {service}"),
                    effect,
                }));
            }
        }
    }

    fn faults(&self, policy: &RequestPolicy, faults: &Faults) -> Vec<String> {
        let mut found = Vec::new();
        for fault in &faults.faults {
            let mut condition = Cow::Borrowed(&fault.condition);
            normalize(condition.to_mut());
            let fits = if self.http {
                holds(&condition, &self.view, self.asker)
            } else {
                holds_for_connection(&condition, self.asker)
            };
            if !fits || fault.share.numerator() == 0 {
                continue;
            }
            found.push(words::fault(fault, faults.until));
            if let Some(abort) = fault.abort
                && fault.share.numerator() == fault.share.denominator()
            {
                let details = format!("FaultPolicy {} asks for it", policy.name);
                let failure = Failure::new(Reason::FaultInjected, details);
                let status = match abort {
                    Abort::Http(status) => Some(status.as_u16()),
                    Abort::Grpc(_) => Some(200),
                    Abort::Reset => None,
                };
                let failure = Failure { status, ..failure };
                self.failure.borrow_mut().get_or_insert(failure);
                break;
            }
        }
        found
    }

    fn limits(&self, limits: &Limits) -> Vec<String> {
        if !self.http {
            return Vec::new();
        }
        let fits = |limit: &&model::request::Limit| {
            let mut condition = limit.condition.clone();
            normalize(&mut condition);
            holds(&condition, &self.view, self.asker)
        };
        limits
            .limits
            .iter()
            .filter(fits)
            .map(|limit| words::limit(limit, limits.service.as_ref()))
            .collect()
    }
}
