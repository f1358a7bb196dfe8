//! `GET /api/v1/status`: the whole mesh at a glance.
//!
//! Worked out when it is asked for; its cost is that of the mesh's size.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Query, State};
use config::{ObjectKind, Spec};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use xds::server::ClientStatus;

use super::apply::bad_query;
use super::{Answer, Api, ApiError};
use crate::authority::rfc3339;
use crate::gateways::Unit;
use crate::registry::LiveLease;
use crate::store;

pub(super) async fn status(State(api): State<Api>) -> Answer {
    let parts = &*api.0;
    let clients = parts.state.distribution().distributor().clients();
    let objects: Map<String, Value> = ObjectKind::ALL
        .iter()
        .map(|kind| (kind.as_str().to_owned(), parts.state.count(*kind).into()))
        .collect();
    let addresses = &parts.addresses;
    Ok(Json(json!({
        "version": addresses.version,
        "pid": addresses.pid,
        "started": time(parts.started),
        "trustDomain": addresses.trust_domain,
        "rootPin": addresses.root_pin,
        "listen": {
            "socket": addresses.socket, "xds": addresses.xds, "api": addresses.api,
            "metrics": addresses.metrics, "otlp": addresses.otlp,
        },
        "objects": objects,
        "proxies": clients.iter().map(proxy).collect::<Vec<_>>(),
        "workloads": workloads(&api, &clients),
        "services": services(&api),
        "gateways": gateways(&api, &clients),
        "routes": routes(&api)?,
        "files": parts.files.as_ref().map(crate::source::files::FileReport::all).unwrap_or_default(),
        "source": parts.kubernetes.as_ref().map(crate::kubernetes::Report::to_json),
        "findings": findings(&api),
        "certificates": certificates(&api),
        "traces": {"spans": parts.traces.spans(), "evicted": parts.traces.evicted()},
    })))
}

/// What is wrong with objects in force, and with those that are not for it.
fn findings(api: &Api) -> Vec<config::Diagnostic> {
    let mut all = api.0.state.distribution().all_findings();
    if let Some(cluster) = &api.0.kubernetes {
        all.extend(cluster.findings());
    }
    all
}

/// The query of the audit log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditParameters {
    limit: Option<u32>,
}

pub(super) async fn audit(
    State(api): State<Api>,
    query: Result<Query<AuditParameters>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(parameters) = query.map_err(|error| bad_query(&error))?;
    let limit = parameters.limit.unwrap_or(100).min(10_000);
    let entries = api
        .0
        .state
        .store()
        .write(move |t| store::object::audit_log(t, limit))
        .await
        .map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| {
            json!({
                "time": rfc3339(entry.at), "who": entry.who, "action": entry.action,
                "kind": entry.kind, "namespace": entry.namespace, "name": entry.name,
                "generation": entry.generation,
            })
        })
        .collect();
    Ok(Json(json!({"entries": entries})))
}

fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    rfc3339(since.as_secs())
}

fn proxy(client: &ClientStatus) -> Value {
    let kinds: Vec<_> = client
        .kinds
        .iter()
        .map(|k| {
            json!({"kind": k.kind.as_str(), "subscribed": k.subscribed, "sent": k.sent, "acked": k.acked})
        })
        .collect();
    let rejected: Vec<_> = client
        .rejected
        .iter()
        .map(|r| {
            json!({
                "resource": r.key.to_string(), "version": r.version, "message": r.message,
                "time": time(r.when),
            })
        })
        .collect();
    let (sent, acked) = client
        .kinds
        .iter()
        .fold((0, 0), |(sent, acked), k| (sent + k.sent, acked + k.acked));
    json!({
        "node": client.node_id,
        "identity": client.identity.as_ref().map(ToString::to_string),
        "address": client.address,
        "connectedSince": time(client.connected_since),
        "kinds": kinds,
        "sent": sent,
        "acked": acked,
        "synced": acked >= sent && rejected.is_empty(),
        "rejected": rejected,
    })
}

/// A lease for people.
pub(super) fn lease(lease: &LiveLease) -> Value {
    let left = lease.until.saturating_duration_since(Instant::now());
    json!({
        "secondsLeft": left.as_secs(),
        "lastSeen": lease.seen.map(time),
        "registered": rfc3339(lease.lease.created),
        "identity": lease.lease.identity,
        "mode": lease.lease.mode,
        "ready": lease.lease.ready,
        "proxyPorts": lease.proxy_ports,
    })
}

fn workloads(api: &Api, clients: &[ClientStatus]) -> Vec<Value> {
    let leases = api.0.registry.leases();
    let connected: HashMap<&str, &ClientStatus> =
        clients.iter().map(|c| (c.node_id.as_str(), c)).collect();
    api.0
        .state
        .list(ObjectKind::Workload, None)
        .iter()
        .filter_map(|entry| {
            let Spec::Workload(spec) = &entry.object.spec else {
                return None;
            };
            let key = &entry.object.key;
            let name = format!("{}/{}", key.namespace, key.name);
            let labels = &entry.object.metadata.labels;
            let proxy = connected.get(format!("workload/{name}").as_str());
            Some(json!({
                "namespace": key.namespace,
                "name": key.name,
                "app": labels.get("app"),
                "version": labels.get("version"),
                "address": spec.address,
                "addresses": spec.addresses,
                "ports": spec.ports.iter().map(|p| p.port).collect::<Vec<_>>(),
                "serviceAccount": spec.service_account,
                "tunnelPort": spec.tunnel.as_ref().map(|t| t.port),
                "ready": spec.ready,
                "lease": leases.get(&name).map(lease),
                "proxyConnected": proxy.is_some(),
                "proxySynced": proxy.map(|p| p.rejected.is_empty() && p.kinds.iter().all(|k| k.acked >= k.sent)),
            }))
        })
        .collect()
}

fn gateways(api: &Api, clients: &[ClientStatus]) -> Vec<Value> {
    let distribution = api.0.state.distribution();
    let published = api.0.state.published();
    api.0
        .state
        .list(ObjectKind::Gateway, None)
        .iter()
        .map(|entry| {
            let key = &entry.object.key;
            let unit = Unit::of(&entry.object, &api.0.state);
            let node = unit.map(|unit| unit.node_id()).unwrap_or_default();
            let reach = published.find(key).unwrap_or_default();
            let child = api.0.children.find(key);
            let doors = distribution.doors(key);
            json!({
                "namespace": key.namespace,
                "name": key.name,
                "ports": doors.iter().map(|door| json!({
                    "port": door.port, "protocol": if door.udp { "UDP" } else { "TCP" },
                })).collect::<Vec<_>>(),
                "addresses": reach.addresses,
                "problem": reach.problem.map(|problem| problem.message),
                "process": child.map(|c| json!({"pid": c.pid, "restarts": c.restarts})),
                "proxies": clients.iter().filter(|c| c.node_id == node).count(),
            })
        })
        .collect()
}

fn services(api: &Api) -> Vec<Value> {
    let counts = api.0.state.distribution().endpoint_counts();
    let own = api.0.state.list(ObjectKind::Service, None);
    let imported = api.0.state.list(ObjectKind::ServiceImport, None);
    own.iter()
        .chain(&imported)
        .filter_map(|entry| {
            let (addresses, ports) = match &entry.object.spec {
                Spec::Service(spec) => (spec.addresses(), &spec.ports),
                Spec::ServiceImport(spec) => (spec.addresses(), &spec.ports),
                _ => return None,
            };
            let name = entry.object.key.service_name().ok()?;
            let (endpoints, ready) = counts.get(&name).copied().unwrap_or_default();
            Some(json!({
                "namespace": name.namespace(),
                "name": name.name(),
                "addresses": addresses,
                "ports": ports.iter().map(|p| json!({
                    "name": p.name, "port": p.port, "protocol": p.protocol().as_str(),
                })).collect::<Vec<_>>(),
                "endpoints": endpoints,
                "ready": ready,
            }))
        })
        .collect()
}

/// Routes as their authors wrote them, without what a table has no room for.
fn routes(api: &Api) -> Result<Vec<Value>, ApiError> {
    let mut routes = Vec::new();
    for kind in [ObjectKind::HttpRoute, ObjectKind::GrpcRoute] {
        for entry in api.0.state.list(kind, None) {
            let full = super::resource::render(api, &entry)?;
            let conditions = full.pointer("/status/conditions");
            let parents = full.pointer("/status/parents");
            let rules: Vec<_> = list(&full, "/spec/rules")
                .iter()
                .map(|rule| {
                    json!({
                        "matches": rule.get("matches"),
                        "backends": list(rule, "/backendRefs").iter().map(|backend| json!({
                            "name": backend.get("name"), "port": backend.get("port"),
                            "weight": backend.get("weight").cloned().unwrap_or(json!(1)),
                        })).collect::<Vec<_>>(),
                    })
                })
                .collect();
            let key = &entry.object.key;
            routes.push(json!({
                "kind": kind.as_str(),
                "namespace": key.namespace,
                "name": key.name,
                "parentRefs": full.pointer("/spec/parentRefs"),
                "rules": rules,
                "conditions": conditions,
                "parents": parents,
            }));
        }
    }
    Ok(routes)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn certificates(api: &Api) -> Vec<Value> {
    let signer = api.0.authority.signer();
    let now = SystemTime::now();
    let left = |at: SystemTime| match at.duration_since(now) {
        Ok(left) => left.as_secs() as i64,
        Err(late) => -(late.duration().as_secs() as i64),
    };
    let mut all: Vec<_> = identity::inspect::describe_bundle(&signer.trust_bundle(), now)
        .into_iter()
        .map(|root| {
            json!({
                "name": "root", "subject": root.subject, "notAfter": root.not_after,
                "secondsLeft": root.seconds_left, "fingerprint": root.fingerprint,
            })
        })
        .collect();
    for (name, at) in [
        ("intermediate", signer.intermediate_not_after()),
        ("control", (api.0.own_not_after)()),
    ] {
        all.push(json!({"name": name, "notAfter": time(at), "secondsLeft": left(at)}));
    }
    all
}
