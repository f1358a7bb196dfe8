//! What becomes of a request, in a form in which two can be compared.

use std::collections::{BTreeMap, BTreeSet};

use config::{ObjectKey, ObjectKind};
use model::ServiceName;

use super::Probe;
use crate::World;
use crate::report::{BackendTaken, Failure, Simulation};
use crate::words;

/// What becomes of a request.
#[derive(Debug)]
pub(super) struct Verdict {
    said: Simulation,
    objects: BTreeSet<ObjectKey>,
}

impl Verdict {
    pub(super) fn of(world: &World, probe: &Probe) -> Self {
        let gateway = probe.gateway.as_ref();
        let mut said = crate::simulate::briefly(world, &probe.request, &probe.caller, gateway);
        // Who gets nothing has no part in it.
        said.backends.retain(|backend| backend.weight > 0);
        Self {
            objects: objects(&said, probe),
            said,
        }
    }

    /// The objects that have a part in it.
    pub(super) fn objects(&self) -> impl Iterator<Item = &ObjectKey> {
        self.objects.iter()
    }

    /// Whether the request fares the same: which rule has taken it is no difference.
    pub(super) fn same(&self, other: &Self) -> bool {
        let (a, b) = (&self.said, &other.said);
        let failure = |f: &Option<Failure>| f.as_ref().map(|f| (f.reason.clone(), f.status));
        let settings = |s: &Simulation| s.listener.as_ref().map(|l| l.settings.clone());
        failure(&a.failure) == failure(&b.failure)
            && a.answer == b.answer
            && a.filters == b.filters
            && settings(a) == settings(b)
            && a.policies == b.policies
            && a.backends.len() == b.backends.len()
            && a.backends.iter().zip(&b.backends).all(|(a, b)| {
                a.service == b.service
                    && words::percent(a.percent) == words::percent(b.percent)
                    && a.request == b.request
                    && a.headers == b.headers
                    && a.filters == b.filters
                    && a.limits == b.limits
                    && failure(&a.failure) == failure(&b.failure)
            })
    }

    /// The gist: `goes to shop/api:80 (90 %) and shop/old:80 (10 %)`.
    pub(super) fn said(&self) -> String {
        let said = &self.said;
        if let Some(answer) = &said.answer {
            let redirect = said.filters.iter().find(|f| f.starts_with("redirect"));
            return match redirect {
                Some(redirect) => format!("answered with a {redirect}"),
                None => format!("answered with {}", answer.status),
            };
        }
        if said.backends.is_empty() {
            return said
                .failure
                .as_ref()
                .map_or_else(|| "passed on outside the mesh".to_owned(), answered);
        }
        let backends: Vec<String> = said.backends.iter().map(backend).collect();
        format!("goes to {}", backends.join(" and "))
    }

    /// What else differs: of the listener, of the filters, and of what bounds requests to backends
    /// that they go to before and after.
    pub(super) fn details(&self, after: &Self) -> Vec<String> {
        let (before, after) = (self.list(after), after.list(self));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let value = |list: &BTreeMap<String, String>, name| {
            list.get(name).cloned().unwrap_or_else(|| "none".to_owned())
        };
        let differing = names
            .into_iter()
            .filter(|name| before.get(*name) != after.get(*name));
        differing
            .map(|name| {
                format!(
                    "{name}: {} -> {}",
                    value(&before, name),
                    value(&after, name)
                )
            })
            .collect()
    }

    /// All that the gist leaves out, by name, as far as it can be compared with the other's.
    fn list(&self, other: &Self) -> BTreeMap<String, String> {
        let mut list = BTreeMap::new();
        let said = &self.said;
        for setting in said.listener.iter().flat_map(|l| &l.settings) {
            add(&mut list, setting, "listener");
        }
        for (at, met) in said.policies.iter().enumerate() {
            let name = format!("{} {} ({})", met.kind, met.name, at + 1);
            list.insert(name, format!("{}, {}", met.effect, met.place));
        }
        let backends = |s: &Simulation| {
            s.backends
                .iter()
                .filter_map(|b| b.service.clone())
                .collect()
        };
        let (own, theirs): (Vec<String>, Vec<String>) = (backends(said), backends(&other.said));
        if theirs.is_empty() || own.is_empty() {
            return list;
        }
        if !said.filters.is_empty() {
            list.insert("filters".to_owned(), said.filters.join("; "));
        }
        let alone = own.len() == 1 && own == theirs;
        for backend in &said.backends {
            let Some(service) = backend.service.as_ref().filter(|s| theirs.contains(s)) else {
                continue;
            };
            let whose = if alone { "" } else { service.as_str() };
            if !backend.filters.is_empty() {
                let text = format!("filters of the backend: {}", backend.filters.join("; "));
                add(&mut list, &text, whose);
            }
            for limit in &backend.limits {
                add(&mut list, limit, whose);
            }
            let changed = |b: &BackendTaken| (b.request.clone(), b.headers.clone());
            let same = |b: &&BackendTaken| b.service.as_ref() == Some(service);
            let differs = other
                .said
                .backends
                .iter()
                .find(same)
                .is_some_and(|b| changed(b) != changed(backend));
            if differs && let Some(request) = &backend.request {
                let headers = backend
                    .headers
                    .iter()
                    .flatten()
                    .map(|(n, v)| format!(", {n}: {v}"));
                let text = format!("gets: {request}{}", headers.collect::<String>());
                add(&mut list, &text, whose);
            }
        }
        list
    }
}

/// Puts `name: value` in, as `name of whose`.
fn add(list: &mut BTreeMap<String, String>, text: &str, whose: &str) {
    let (name, value) = text.split_once(": ").unwrap_or((text, "yes"));
    let name = match whose {
        "" => name.to_owned(),
        whose => format!("{name} of {whose}"),
    };
    list.insert(name, value.to_owned());
}

fn backend(taken: &BackendTaken) -> String {
    let mut text = taken
        .service
        .clone()
        .unwrap_or_else(|| "nowhere".to_owned());
    let failure = taken.failure.as_ref().map(answered);
    let percent = words::percent(taken.percent);
    let share = (taken.percent < 100.0).then_some(percent);
    let notes: Vec<String> = share.into_iter().chain(failure).collect();
    if notes.is_empty() {
        return text;
    }
    text.extend([" (", &notes.join(", "), ")"]);
    text
}

fn answered(failure: &Failure) -> String {
    match (&failure.reason, failure.status) {
        (Some(reason), Some(status)) => format!("answered with {status} {reason}"),
        (Some(reason), None) => format!("closed with {reason}"),
        (None, _) => "taken by no proxy".to_owned(),
    }
}

fn objects(said: &Simulation, probe: &Probe) -> BTreeSet<ObjectKey> {
    let mut objects = BTreeSet::new();
    let mut add = |kind: ObjectKind, name: &str| {
        if let Some((namespace, name)) = name.split_once('/') {
            objects.insert(ObjectKey::new(kind, namespace, name));
        }
    };
    let service = |text: &str| text.rsplit_once(':').map(|(name, _)| name.to_owned());
    if let Some(gateway) = &probe.gateway {
        add(ObjectKind::Gateway, &gateway.to_string());
    }
    if let Some(route) = &said.route
        && let Some(kind) = ObjectKind::from_word(&route.kind)
    {
        add(kind, &route.name);
    }
    let backends = said.backends.iter().filter_map(|b| b.service.as_deref());
    let services = backends.chain(said.service.as_deref());
    let mut services: Vec<ServiceName> = services
        .filter_map(service)
        .filter_map(|name| name.parse().ok())
        .collect();
    // Nobody knows a Service whose requests find none; the host says which was meant.
    if probe.gateway.is_none()
        && let Some(name) = model::name::service_of_host(&probe.request.host, "default")
    {
        services.push(name);
    }
    objects.extend(services.iter().map(ObjectKey::of_service));
    objects
}
