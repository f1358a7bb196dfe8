//! Routes: one of the model for each Service or Gateway that is a parent, with its backends
//! resolved.

pub(super) mod parent;
pub(super) mod sides;

use std::sync::Arc;

use model::ObjectName;
use model::resource::Resource;
use model::route::{Parent, Route, RouteKind, Rule, Target};
use model::service::Protocol;

use self::sides::{Side, Sides};
use super::store::{Topic, View};
use super::{Condition, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::backend::{BackendTarget, ROUTE_GROUP, service_kind};
use crate::kind::service::{ServicePort, find_port};
use crate::kind::session::made_name;
use crate::object::{Object, ObjectKey, Spec};
use crate::reference::ParentRef;
use crate::suggest;

/// A reference that leads nowhere: Gateway API's reason and the message.
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) hint: String,
}

/// Why a parent does not take a route.
pub(super) struct Refusal {
    fault: Fault,
    /// Whether the parent is none that Tulle serves.
    foreign: bool,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            foreign: false,
        }
    }
}

impl Refusal {
    /// Reports it, and makes the condition.
    fn into_condition(self, c: &mut Check<'_>) -> Condition {
        let fault = self.fault;
        let message = said(&fault);
        c.found(Severity::Warning, fault.message, fault.hint);
        Condition {
            foreign: self.foreign,
            ..Condition::failed("Accepted", fault.reason, message)
        }
    }
}

pub(super) fn translate(
    object: &Object,
    name: &ObjectName,
    view: &mut View<'_>,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    let (kind, hostnames) = match &object.spec {
        Spec::HttpRoute(spec) => (RouteKind::Http, &spec.hostnames),
        Spec::GrpcRoute(spec) => (RouteKind::Grpc, &spec.hostnames),
        _ => return,
    };
    let parents = parent::of(object, view);
    c.at("spec", |c| {
        let sides = Sides::follow(object, &parents, Side::Mesh, view, c, |c, resolve| {
            let mut rules = match &object.spec {
                Spec::HttpRoute(spec) => spec.rules(c, resolve),
                Spec::GrpcRoute(spec) => spec.rules(c, resolve),
                _ => Vec::new(),
            };
            name_sessions(&mut rules, object);
            rules
        });
        let route = |rules: &[Rule], parent, port| {
            Resource::Route(Route {
                kind,
                name: name.clone(),
                parent,
                port,
                created: object.metadata.created.unwrap_or(0),
                rules: rules.to_vec(),
            })
        };
        sides.attach(
            hostnames,
            view,
            c,
            output,
            |rules, service, port| route(rules, Parent::Service(service), port),
            |rules, gateway, attachments| {
                let parent = Parent::Gateway {
                    gateway,
                    attachments,
                };
                route(rules, parent, None)
            },
        );
    });
}

/// Gives sessions without a name one.
fn name_sessions(rules: &mut [Rule], object: &Object) {
    for (index, rule) in rules.iter_mut().enumerate() {
        if let Some(session) = &mut rule.session
            && session.name.is_empty()
        {
            let key = &object.key;
            session.name = made_name(key.kind.as_str(), &key.namespace, &key.name, index);
        }
    }
}

pub(super) fn resolved_refs(faults: &[Fault]) -> Condition {
    match faults {
        [] => Condition::holds(
            "ResolvedRefs",
            "ResolvedRefs",
            "all references are resolved",
        ),
        [first, rest @ ..] => {
            let mut message = said(first);
            for fault in rest.iter().take(3) {
                message.push_str("; also: ");
                message.push_str(&said(fault));
            }
            if rest.len() > 3 {
                message.push_str("; and more");
            }
            Condition::failed("ResolvedRefs", first.reason, message)
        }
    }
}

fn said(fault: &Fault) -> String {
    if fault.hint.is_empty() {
        fault.message.clone()
    } else {
        format!("{}; {}", fault.message, fault.hint)
    }
}

/// The service and port that a parent reference means.
pub(super) fn service(
    object: &Object,
    parent: &ParentRef,
    view: &mut View<'_>,
) -> Result<(ObjectName, Option<u16>), Fault> {
    let no_parent = |message: String, hint: String| Fault {
        reason: "NoMatchingParent",
        message,
        hint,
    };
    let service = parent.service(object.namespace());
    let (kind, namespace) = (service.kind, &service.namespace);
    let Some(ports) = view.ports(&service) else {
        let hint = suggest::hint(&parent.name, view.names(kind, namespace));
        let message = format!(
            "parent {kind} \"{}\" does not exist in namespace {namespace}",
            parent.name
        );
        return Err(no_parent(message, hint));
    };
    let name = service
        .service_name()
        .map_err(|error| no_parent(error.to_string(), String::new()))?;
    if parent.port.is_none() && parent.section_name.is_none() {
        return Ok((name, None));
    }
    if let Some(port) = find_port(ports, parent.port, parent.section_name.as_deref()) {
        return Ok((name, Some(port.port)));
    }
    let wanted = match (&parent.section_name, parent.port) {
        (Some(section), _) => format!("named \"{section}\""),
        (None, port) => port.unwrap_or(0).to_string(),
    };
    let message = format!("parent {kind} \"{}\" has no port {wanted}", parent.name);
    Err(no_parent(message, written(ports)))
}

/// What ports there are, for a hint.
fn written(ports: &[ServicePort]) -> String {
    let ports: Vec<String> = ports
        .iter()
        .map(|p| match p.name.as_str() {
            "" => p.port.to_string(),
            name => format!("{} ({name})", p.port),
        })
        .collect();
    match ports.as_slice() {
        [] => "it has none".to_owned(),
        ports => format!("it has {}", ports.join(", ")),
    }
}

/// What a backend reference leads to. A grant is asked for before the Service is looked up, so
/// that nobody learns what exists in a foreign namespace (Gateway API, `ReferenceGrant`).
fn backend(
    object: &Object,
    side: Side,
    target: BackendTarget<'_>,
    view: &mut View<'_>,
) -> Result<Target, Fault> {
    let fault = |reason, message: String, hint: String| Fault {
        reason,
        message,
        hint,
    };
    let BackendTarget {
        group, kind, name, ..
    } = target;
    let Some(kind) = service_kind(group, kind) else {
        let message = format!("backend \"{name}\" is of kind {kind}, which is not served");
        return Err(fault("InvalidKind", message, "use a Service".to_owned()));
    };
    let own = object.namespace();
    let namespace = target.namespace.unwrap_or(own);
    let route_kind = object.key.kind.as_str();
    let opened = side == Side::Mesh || namespace == own;
    let service = ObjectKey::new(kind, namespace, name);
    if !opened && !granted(route_kind, own, &service, view) {
        let message = format!(
            "backend \"{name}\" is in namespace {namespace}, which does not allow {route_kind}s of {own} to refer to it"
        );
        let hint = format!("add a ReferenceGrant to namespace {namespace}");
        return Err(fault("RefNotPermitted", message, hint));
    }
    let Some(ports) = view.ports(&service) else {
        let hint = suggest::hint(name, view.names(kind, namespace));
        let message = format!("backend \"{name}\" does not exist in namespace {namespace}");
        return Err(fault("BackendNotFound", message, hint));
    };
    let number = target.port.unwrap_or(0);
    let Some(port) = find_port(ports, Some(number), None) else {
        let message = format!("backend \"{name}\" has no port {number}");
        return Err(fault("BackendNotFound", message, written(ports)));
    };
    let protocol = port.protocol();
    let reads_http = matches!(
        object.key.kind,
        ObjectKind::HttpRoute | ObjectKind::GrpcRoute
    );
    let refused = match protocol {
        Protocol::Tcp => true,
        // With a BackendTLSPolicy, TLS is what requests are sent in.
        Protocol::Tls => !has_backend_tls(&service, view),
        _ => false,
    };
    if reads_http && refused {
        let message = format!(
            "port {number} of backend \"{name}\" is declared to speak {}, which no {route_kind} can be sent to",
            protocol.as_str()
        );
        return Err(fault(
            "UnsupportedProtocol",
            message,
            match protocol {
                Protocol::Tls => "say with a BackendTLSPolicy whom to trust there",
                _ => "change its appProtocol or the route",
            }
            .to_owned(),
        ));
    }
    match service.service_name() {
        Ok(name) => Ok(Target::Service { name, port: number }),
        Err(error) => Err(fault("BackendNotFound", error.to_string(), String::new())),
    }
}

fn has_backend_tls(service: &ObjectKey, view: &mut View<'_>) -> bool {
    let policies = Topic::Attached(ObjectKind::BackendTlsPolicy, service.clone());
    !view.list(policies).is_empty()
}

fn granted(kind: &str, from: &str, service: &ObjectKey, view: &mut View<'_>) -> bool {
    let namespace = Arc::clone(&service.namespace);
    let grants = view.list(Topic::Kind(ObjectKind::ReferenceGrant, namespace));
    let to = (service.kind.group(), service.kind.as_str(), &*service.name);
    grants.iter().any(|grant| match &grant.spec {
        Spec::ReferenceGrant(spec) => spec.allows((ROUTE_GROUP, kind, from), to),
        _ => false,
    })
}

/// For the message of a policy's missing target.
pub(super) fn missing_service(
    namespace: &str,
    name: &str,
    view: &mut View<'_>,
) -> (String, String) {
    let key = ObjectKey::new(ObjectKind::Service, namespace, name);
    let hint = suggest::hint(name, view.names(ObjectKind::Service, namespace));
    (
        format!(
            "target Service \"{name}\" does not exist in namespace {}",
            key.namespace
        ),
        hint,
    )
}
