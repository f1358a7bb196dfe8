//! Routes: one of the model for each Service or Gateway that is a parent, with its backends
//! resolved.

pub(super) mod parent;

use std::collections::BTreeMap;

use model::ObjectName;
use model::gateway::Attachment;
use model::hostname::Hostname;
use model::resource::Resource;
use model::route::{Parent, Route, RouteKind, Rule, Target};
use model::service::Protocol;

use super::store::{Topic, View};
use super::{Condition, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::backend::{BackendTarget, ROUTE_GROUP, is_service};
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
    pub(super) fn into_condition(self, c: &mut Check<'_>) -> Condition {
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
    let mut faults = Vec::new();
    let mut resolve =
        |c: &mut Check<'_>, target: BackendTarget<'_>| match resolve(object, target, view) {
            Ok(target) => target,
            Err(fault) => {
                c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
                let reason = fault.message.as_str().into();
                faults.push(fault);
                Target::Invalid { reason }
            }
        };
    let (kind, rules, hostnames) = match &object.spec {
        Spec::HttpRoute(spec) => (
            RouteKind::Http,
            c.at("spec", |c| spec.rules(c, &mut resolve)),
            &spec.hostnames,
        ),
        Spec::GrpcRoute(spec) => (
            RouteKind::Grpc,
            c.at("spec", |c| spec.rules(c, &mut resolve)),
            &spec.hostnames,
        ),
        _ => return,
    };
    let mut rules = rules;
    name_sessions(&mut rules, object);
    let hostnames: Vec<Hostname> = hostnames.iter().filter_map(|h| h.parse().ok()).collect();
    let resolved = resolved_refs(&faults);
    let route = |parent, port| Route {
        kind,
        name: name.clone(),
        parent,
        port,
        created: object.metadata.created.unwrap_or(0),
        rules: rules.clone(),
    };
    let mut gateways: BTreeMap<ObjectName, Vec<Attachment>> = BTreeMap::new();
    c.at("spec", |c| {
        c.each(
            "parentRefs",
            parent::of(object, view).iter(),
            |c, parent| {
                let attached = if parent.is_service() {
                    attach(object, parent, view)
                        .map(|(service, port)| {
                            let route = route(Parent::Service(service), port);
                            output.resources.push(Resource::Route(route));
                        })
                        .map_err(Refusal::from)
                } else {
                    parent::attach(object, parent, &hostnames, view).map(|attached| {
                        output.attached.extend(attached.counted());
                        let all = gateways.entry(attached.gateway).or_default();
                        all.extend(attached.attachments);
                    })
                };
                let accepted = attached.map_or_else(
                    |refusal| refusal.into_condition(c),
                    |()| Condition::accepted(),
                );
                let foreign = accepted.foreign;
                output.conditions.push(accepted.about(parent.clone()));
                let resolved = Condition {
                    foreign,
                    ..resolved.clone()
                };
                output.conditions.push(resolved.about(parent.clone()));
            },
        );
    });
    for (gateway, attachments) in gateways {
        let parent = Parent::Gateway {
            gateway,
            attachments: merged(attachments),
        };
        output.resources.push(Resource::Route(route(parent, None)));
    }
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

/// A route may name several listeners of one Gateway, and one more than once.
pub(super) fn merged(mut attachments: Vec<Attachment>) -> Vec<Attachment> {
    attachments.sort_by(|a, b| a.listener.cmp(&b.listener));
    attachments.dedup_by(|a, b| a.listener == b.listener);
    attachments
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

pub(super) fn said(fault: &Fault) -> String {
    if fault.hint.is_empty() {
        fault.message.clone()
    } else {
        format!("{}; {}", fault.message, fault.hint)
    }
}

/// The Service and port that a parent reference means.
fn attach(
    object: &Object,
    parent: &ParentRef,
    view: &mut View<'_>,
) -> Result<(ObjectName, Option<u16>), Fault> {
    let namespace = parent.namespace.as_deref().unwrap_or(object.namespace());
    let no_parent = |message: String, hint: String| Fault {
        reason: "NoMatchingParent",
        message,
        hint,
    };
    let Some(service) = view.service(namespace, &parent.name) else {
        let hint = suggest::hint(&parent.name, view.service_names(namespace));
        let message = format!(
            "parent Service \"{}\" does not exist in namespace {namespace}",
            parent.name
        );
        return Err(no_parent(message, hint));
    };
    let name = ObjectName::new(namespace, &parent.name)
        .map_err(|error| no_parent(error.to_string(), String::new()))?;
    if parent.port.is_none() && parent.section_name.is_none() {
        return Ok((name, None));
    }
    if let Some(port) = service.find_port(parent.port, parent.section_name.as_deref()) {
        return Ok((name, Some(port.port)));
    }
    let wanted = match (&parent.section_name, parent.port) {
        (Some(section), _) => format!("named \"{section}\""),
        (None, port) => port.unwrap_or(0).to_string(),
    };
    let message = format!("parent Service \"{}\" has no port {wanted}", parent.name);
    Err(no_parent(message, ports_of(service)))
}

fn ports_of(service: &crate::kind::service::ServiceSpec) -> String {
    let ports: Vec<String> = service
        .ports
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
pub(super) fn resolve(
    object: &Object,
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
    if !is_service(group, kind) {
        let message = format!("backend \"{name}\" is of kind {kind}, which is not served");
        return Err(fault("InvalidKind", message, "use a Service".to_owned()));
    }
    let own = object.namespace();
    let namespace = target.namespace.unwrap_or(own);
    let route_kind = object.key.kind.as_str();
    if namespace != own && !granted(route_kind, own, namespace, name, view) {
        let message = format!(
            "backend \"{name}\" is in namespace {namespace}, which does not allow {route_kind}s of {own} to refer to it"
        );
        let hint = format!("add a ReferenceGrant to namespace {namespace}");
        return Err(fault("RefNotPermitted", message, hint));
    }
    let Some(service) = view.service(namespace, name) else {
        let hint = suggest::hint(name, view.service_names(namespace));
        let message = format!("backend \"{name}\" does not exist in namespace {namespace}");
        return Err(fault("BackendNotFound", message, hint));
    };
    let number = target.port.unwrap_or(0);
    let Some(port) = service.find_port(Some(number), None) else {
        let message = format!("backend \"{name}\" has no port {number}");
        return Err(fault("BackendNotFound", message, ports_of(service)));
    };
    let protocol = port.protocol();
    let reads_http = matches!(
        object.key.kind,
        ObjectKind::HttpRoute | ObjectKind::GrpcRoute
    );
    let refused = match protocol {
        Protocol::Tcp => true,
        // With a BackendTLSPolicy, TLS is what requests are sent in.
        Protocol::Tls => !has_backend_tls(namespace, name, view),
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
    match ObjectName::new(namespace, name) {
        Ok(name) => Ok(Target::Service { name, port: number }),
        Err(error) => Err(fault("BackendNotFound", error.to_string(), String::new())),
    }
}

fn has_backend_tls(namespace: &str, name: &str, view: &mut View<'_>) -> bool {
    let service = ObjectKey::new(ObjectKind::Service, namespace, name);
    let policies = Topic::Attached(ObjectKind::BackendTlsPolicy, service);
    !view.list(policies).is_empty()
}

fn granted(kind: &str, from: &str, namespace: &str, name: &str, view: &mut View<'_>) -> bool {
    let grants = view.list(Topic::Kind(ObjectKind::ReferenceGrant, namespace.into()));
    grants.iter().any(|grant| match &grant.spec {
        Spec::ReferenceGrant(spec) => spec.allows((ROUTE_GROUP, kind, from), ("", "Service", name)),
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
    let hint = suggest::hint(name, view.service_names(namespace));
    (
        format!(
            "target Service \"{name}\" does not exist in namespace {}",
            key.namespace
        ),
        hint,
    )
}
