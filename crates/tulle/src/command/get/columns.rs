//! The columns that a table of each kind has.

use config::ObjectKind;
use serde_json::Value;

use crate::ui::{Ui, age};

/// Prints a table of objects of one kind.
pub(super) fn print(
    ui: &Ui,
    kind: ObjectKind,
    objects: &[&Value],
    show_namespace: bool,
) -> anyhow::Result<()> {
    let namespace = show_namespace && kind.namespaced();
    let mut header = Vec::new();
    if namespace {
        header.push("NAMESPACE");
    }
    header.push("NAME");
    header.extend(columns(kind));
    header.push("AGE");
    let rows = objects
        .iter()
        .map(|object| {
            let mut row = Vec::new();
            if namespace {
                row.push(text(object, "/metadata/namespace"));
            }
            row.push(text(object, "/metadata/name"));
            row.extend(cells(kind, object));
            row.push(object_age(object));
            row
        })
        .collect();
    ui.table(&header, rows)
}

fn columns(kind: ObjectKind) -> &'static [&'static str] {
    match kind {
        ObjectKind::Service => &["CLUSTER-IP", "PORTS", "SELECTOR"],
        ObjectKind::ServiceImport => &["TYPE", "IPS", "PORTS"],
        ObjectKind::Workload => &["ADDRESS", "PORTS", "SERVICE-ACCOUNT", "READY"],
        ObjectKind::HttpRoute
        | ObjectKind::GrpcRoute
        | ObjectKind::TlsRoute
        | ObjectKind::TcpRoute
        | ObjectKind::UdpRoute => &["PARENTS", "BACKENDS", "ACCEPTED", "RESOLVED", "PROGRAMMED"],
        ObjectKind::FaultPolicy => &["TARGETS", "FAULTS", "UNTIL", "ACCEPTED", "PROGRAMMED"],
        ObjectKind::RateLimitPolicy => &["TARGETS", "LIMITS", "ACCEPTED", "PROGRAMMED"],
        ObjectKind::TrafficPolicy
        | ObjectKind::AuthenticationPolicy
        | ObjectKind::BackendTlsPolicy
        | ObjectKind::ListenerPolicy => &["TARGETS", "ACCEPTED", "PROGRAMMED"],
        ObjectKind::MeshConfig => &["TRUST-DOMAIN", "MTLS", "PROGRAMMED"],
        ObjectKind::GatewayClass => &["CONTROLLER", "ACCEPTED"],
        ObjectKind::Gateway => &["CLASS", "LISTENERS", "ACCEPTED", "PROGRAMMED"],
        ObjectKind::ListenerSet => &["PARENT", "LISTENERS", "ACCEPTED", "PROGRAMMED"],
        _ => &[],
    }
}

fn cells(kind: ObjectKind, object: &Value) -> Vec<String> {
    match kind {
        ObjectKind::Service => vec![
            match text(object, "/spec/clusterIP") {
                ip if ip.is_empty() => "-".into(),
                ip => ip,
            },
            ports(object, "port"),
            labels(object.pointer("/spec/selector")),
        ],
        ObjectKind::ServiceImport => vec![
            text(object, "/spec/type"),
            join(array(object, "/spec/ips").filter_map(|ip| ip.as_str().map(str::to_owned))),
            ports(object, "port"),
        ],
        ObjectKind::Workload => vec![
            text(object, "/spec/address"),
            ports(object, "port"),
            text(object, "/spec/serviceAccount"),
            condition(object, "Ready"),
        ],
        ObjectKind::HttpRoute
        | ObjectKind::GrpcRoute
        | ObjectKind::TlsRoute
        | ObjectKind::TcpRoute
        | ObjectKind::UdpRoute => vec![
            join(array(object, "/spec/parentRefs").map(reference)),
            backends(object),
            condition(object, "Accepted"),
            condition(object, "ResolvedRefs"),
            condition(object, "Programmed"),
        ],
        ObjectKind::FaultPolicy => vec![
            join(array(object, "/spec/targetRefs").map(reference)),
            join(array(object, "/spec/faults").map(fault)),
            until(object),
            condition(object, "Accepted"),
            condition(object, "Programmed"),
        ],
        ObjectKind::RateLimitPolicy => vec![
            join(array(object, "/spec/targetRefs").map(reference)),
            join(array(object, "/spec/limits").map(|limit| {
                let (requests, per) = (text(limit, "/requests"), text(limit, "/per"));
                let global = text(limit, "/scope") == "Global";
                format!("{requests}/{per}{}", if global { " global" } else { "" })
            })),
            condition(object, "Accepted"),
            condition(object, "Programmed"),
        ],
        ObjectKind::TrafficPolicy
        | ObjectKind::AuthenticationPolicy
        | ObjectKind::BackendTlsPolicy
        | ObjectKind::ListenerPolicy => vec![
            join(array(object, "/spec/targetRefs").map(reference)),
            condition(object, "Accepted"),
            condition(object, "Programmed"),
        ],
        ObjectKind::MeshConfig => vec![
            text(object, "/spec/trustDomain"),
            text(object, "/spec/mtls/mode"),
            condition(object, "Programmed"),
        ],
        ObjectKind::GatewayClass => vec![
            text(object, "/spec/controllerName"),
            condition(object, "Accepted"),
        ],
        ObjectKind::Gateway | ObjectKind::ListenerSet => vec![
            match kind {
                ObjectKind::Gateway => text(object, "/spec/gatewayClassName"),
                _ => text(object, "/spec/parentRef/name"),
            },
            join(array(object, "/spec/listeners").map(|listener| {
                format!(
                    "{}/{}",
                    text(listener, "/port"),
                    text(listener, "/protocol")
                )
            })),
            condition(object, "Accepted"),
            condition(object, "Programmed"),
        ],
        _ => Vec::new(),
    }
}

/// A field as text; empty where it is missing.
pub(crate) fn text(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

pub(crate) fn array<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn join<T: AsRef<str>>(parts: impl Iterator<Item = T>) -> String {
    let parts: Vec<T> = parts.collect();
    parts
        .iter()
        .map(AsRef::as_ref)
        .collect::<Vec<_>>()
        .join(",")
}

fn ports(object: &Value, field: &str) -> String {
    join(array(object, "/spec/ports").map(|port| {
        let number = port.get(field).map(ToString::to_string).unwrap_or_default();
        match port.get("appProtocol").and_then(Value::as_str) {
            Some(protocol) => format!("{number}/{protocol}"),
            None => number,
        }
    }))
}

fn labels(value: Option<&Value>) -> String {
    join(
        value
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())),
    )
}

fn reference(value: &Value) -> String {
    let name = text(value, "/name");
    match value.get("kind").and_then(Value::as_str) {
        Some("Service") | None => name,
        Some(kind) => format!("{kind}/{name}"),
    }
}

/// `10%:delay+abort`.
fn fault(value: &Value) -> String {
    let does = ["delay", "abort", "bandwidth"];
    let does: Vec<&str> = does
        .into_iter()
        .filter(|field| value.get(field).is_some())
        .collect();
    let percent = value.get("percent").and_then(Value::as_f64);
    format!("{}%:{}", percent.unwrap_or(100.0), does.join("+"))
}

/// When it ends: for good, that is, if it has.
fn until(object: &Value) -> String {
    let parse = |text: &str| {
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
    };
    let said = conditions(object).into_iter().find_map(|c| {
        let message = c.get("message")?.as_str()?;
        let (_, until) = message.split_once("in force until ")?;
        Some(until.to_owned())
    });
    match said {
        Some(until) if parse(&until).is_some_and(|at| at <= time::OffsetDateTime::now_utc()) => {
            format!("{until} (over)")
        }
        Some(until) => until,
        None => "-".to_owned(),
    }
}

fn backends(object: &Value) -> String {
    join(array(object, "/spec/rules").flat_map(|rule| {
        array(rule, "/backendRefs").map(|backend| {
            let name = text(backend, "/name");
            match backend.get("weight").and_then(Value::as_u64) {
                None | Some(1) => name,
                Some(weight) => format!("{name}:{weight}"),
            }
        })
    }))
}

/// Every condition of an object, whether of its own or of one of its parents (or ancestors).
pub(crate) fn conditions(object: &Value) -> Vec<&Value> {
    let own = array(object, "/status/conditions");
    let parents = array(object, "/status/parents").flat_map(|p| array(p, "/conditions"));
    let ancestors = array(object, "/status/ancestors").flat_map(|p| array(p, "/conditions"));
    own.chain(parents).chain(ancestors).collect()
}

/// `True` if all conditions of this type are, `-` if there is none.
fn condition(object: &Value, kind: &str) -> String {
    let mut states = conditions(object)
        .into_iter()
        .filter(|c| c.get("type").and_then(Value::as_str) == Some(kind))
        .map(|c| text(c, "/status"))
        .peekable();
    if states.peek().is_none() {
        return "-".into();
    }
    states
        .find(|status| status != "True")
        .unwrap_or_else(|| "True".into())
}

fn object_age(object: &Value) -> String {
    let created = text(object, "/metadata/creationTimestamp");
    time::OffsetDateTime::parse(&created, &time::format_description::well_known::Rfc3339)
        .map_or_else(
            |_| "-".into(),
            |created| age((time::OffsetDateTime::now_utc() - created).whole_seconds()),
        )
}
