//! What a change of configuration does to requests, found by deciding the same requests under both.
//!
//! The requests are made from the listeners, routes and services of both sides ([`probe`]): for each
//! match one that it takes and some at its borders. Those that fare differently are put together by
//! what differs. Texts are not compared: an object may change without any request faring differently,
//! and is listed as such.

mod probe;
mod sample;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::kind::endpoint_slice::{IMPORT_LABEL, SERVICE_LABEL};
use config::{Object, ObjectKey, ObjectKind};
use serde::Serialize;
use serde_json::Value;

use crate::World;
use probe::Probe;
use verdict::Verdict;

/// More requests than this are not tried.
pub const MAX_PROBES: usize = 100_000;
/// As many requests are named for one difference.
const NAMED: usize = 6;

/// What a change does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// Requests that fare differently, put together by what differs.
    pub differences: Vec<Difference>,
    /// Objects that change while no request that was tried fares differently because of them.
    pub without_effect: Vec<ObjectChange>,
    /// How many requests were tried.
    pub tried: usize,
    /// Whether there were more than could be tried.
    pub truncated: bool,
}

/// Requests that fare differently in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Some of them.
    pub requests: Vec<String>,
    /// How many of those that were tried.
    pub count: usize,
    /// What became of them.
    pub before: String,
    /// What becomes of them.
    pub after: String,
    /// What else differs: `request timeout: 10s -> 2s`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// An object that is new, gone or another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange {
    /// The object.
    pub object: ObjectKey,
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
}

impl Diff {
    /// Whether nothing fares differently.
    pub fn is_empty(&self) -> bool {
        self.differences.is_empty()
    }
}

/// What became of a request, what becomes of it, and what else is different.
type Fate = (String, String, Vec<String>);

/// Compares two configurations.
pub fn diff(old: &World, new: &World) -> Diff {
    let changed = changes(old, new);
    if changed.is_empty() {
        return Diff::default();
    }
    let (probes, truncated) = probe::all([old, new]);
    let mut groups: BTreeMap<Fate, (Vec<String>, usize)> = BTreeMap::new();
    let mut touched: BTreeSet<ObjectKey> = BTreeSet::new();
    for probe in &probes {
        let (before, after) = (Verdict::of(old, probe), Verdict::of(new, probe));
        if before.same(&after) {
            continue;
        }
        touched.extend(before.objects().chain(after.objects()).cloned());
        let key = (before.said(), after.said(), before.details(&after));
        let (requests, count) = groups.entry(key).or_default();
        if requests.len() < NAMED && !requests.contains(&probe.label) {
            requests.push(probe.label.clone());
        }
        *count += 1;
    }
    let mut differences: Vec<Difference> = groups
        .into_iter()
        .map(|((before, after, details), (requests, count))| Difference {
            requests,
            count,
            before,
            after,
            details,
        })
        .collect();
    differences.sort_by(|a, b| a.requests.cmp(&b.requests));
    let without_effect = changed
        .into_iter()
        .filter(|change| !has_part(change, [old, new], &touched))
        .collect();
    Diff {
        differences,
        without_effect,
        tried: probes.len(),
        truncated,
    }
}

fn changes(old: &World, new: &World) -> Vec<ObjectChange> {
    let keys: BTreeSet<&ObjectKey> = old.objects().keys().chain(new.objects().keys()).collect();
    let change = |key: &ObjectKey| match (old.object(key), new.object(key)) {
        (Some(a), Some(b)) if a.says_the_same(b) => None,
        (Some(_), Some(_)) => Some("changed"),
        (Some(_), None) => Some("removed"),
        (None, _) => Some("added"),
    };
    keys.into_iter()
        .filter_map(|key| {
            let object = key.clone();
            change(key).map(|change| ObjectChange { object, change })
        })
        .collect()
}

/// Whether an object may have a part in what differs. Of those that decisions do not name (grants,
/// certificates, settings of the mesh) that is assumed as soon as anything does.
fn has_part(change: &ObjectChange, worlds: [&World; 2], touched: &BTreeSet<ObjectKey>) -> bool {
    let key = &change.object;
    if touched.is_empty() || touched.contains(key) {
        return !touched.is_empty();
    }
    let objects = worlds.iter().filter_map(|w| w.object(key));
    match key.kind {
        ObjectKind::HttpRoute
        | ObjectKind::GrpcRoute
        | ObjectKind::TlsRoute
        | ObjectKind::TcpRoute
        | ObjectKind::UdpRoute
        | ObjectKind::Gateway
        | ObjectKind::Service
        | ObjectKind::ServiceImport => false,
        ObjectKind::Workload | ObjectKind::EndpointSlice => {
            let mut services = worlds.iter().flat_map(|w| serves(w, key));
            services.any(|service| touched.contains(&service))
        }
        ObjectKind::TrafficPolicy
        | ObjectKind::FaultPolicy
        | ObjectKind::RateLimitPolicy
        | ObjectKind::BackendTlsPolicy
        | ObjectKind::ListenerPolicy
        | ObjectKind::AuthenticationPolicy => {
            let mut targets = objects.flat_map(targets);
            targets.any(|(kind, name)| {
                touched.iter().any(|t| {
                    t.kind.as_str() == kind && t.namespace == key.namespace && *t.name == *name
                })
            })
        }
        _ => true,
    }
}

/// The Services that a workload, or a slice of endpoints, serves.
fn serves(world: &World, key: &ObjectKey) -> Vec<ObjectKey> {
    let labels = world.object(key).map(|o| &o.metadata.labels);
    let labelled: Vec<ObjectKey> = [
        (SERVICE_LABEL, ObjectKind::Service),
        (IMPORT_LABEL, ObjectKind::ServiceImport),
    ]
    .into_iter()
    .filter_map(|(label, kind)| {
        let service = labels?.get(label)?;
        Some(ObjectKey::new(kind, &key.namespace, service))
    })
    .collect();
    if !labelled.is_empty() {
        return labelled;
    }
    let own = |e: &model::endpoint::Endpoint| {
        *e.workload.namespace() == *key.namespace && *e.workload.name() == *key.name
    };
    let services = world.services.iter();
    services
        .filter(|(_, destination)| destination.endpoints.iter().any(own))
        .map(|(name, _)| ObjectKey::of_service(name))
        .collect()
}

/// Kind and name of what a policy is attached to.
fn targets(object: &Arc<Object>) -> Vec<(String, String)> {
    let spec = serde_json::to_value(&object.spec).unwrap_or_default();
    let targets = spec.get("targetRefs").and_then(Value::as_array);
    let text = |value: &Value, field: &str| value.get(field)?.as_str().map(str::to_owned);
    targets
        .into_iter()
        .flatten()
        .filter_map(|t| Some((text(t, "kind")?, text(t, "name")?)))
        .collect()
}
