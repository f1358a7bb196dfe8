//! Which listeners of a Gateway a route attaches to (Gateway API, `ParentReference` and
//! `AllowedRoutes`).

use model::gateway::{Attachment, GatewayName, Protocol};
use model::hostname::{Hostname, intersect};

use super::Fault;
use crate::kind::gateway::{FromNamespaces, GatewaySpec, ListenerSpec};
use crate::kind::{GATEWAY_GROUP, ObjectKind};
use crate::object::{Object, ObjectKey, Spec};
use crate::reference::ParentRef;
use crate::suggest;
use crate::translate::gateway;
use crate::translate::store::{Topic, View};

/// The Gateway and those of its listeners that take the route.
pub(in crate::translate) fn attach(
    object: &Object,
    parent: &ParentRef,
    hostnames: &[Hostname],
    view: &mut View<'_>,
) -> Result<(GatewayName, Vec<Attachment>), Fault> {
    let namespace = parent.namespace.as_deref().unwrap_or(object.namespace());
    let key = ObjectKey::new(ObjectKind::Gateway, namespace, &parent.name);
    let Some(Spec::Gateway(spec)) = view.get(&key).map(|gateway| &gateway.spec) else {
        let siblings = view.list(Topic::Kind(ObjectKind::Gateway, namespace.into()));
        let names = siblings.iter().map(|object| &*object.key.name);
        let message = format!(
            "parent Gateway \"{}\" does not exist in namespace {namespace}",
            parent.name
        );
        return Err(fault(
            "NoMatchingParent",
            message,
            suggest::hint(&parent.name, names),
        ));
    };
    if let Err(why) = gateway::is_served(spec, view) {
        let message = format!("parent Gateway \"{}\": {why}", parent.name);
        return Err(fault("NoMatchingParent", message, String::new()));
    }
    let name = GatewayName::new(namespace, &parent.name)
        .map_err(|error| fault("NoMatchingParent", error.to_string(), String::new()))?;
    let meant = meant(parent, spec)?;
    let mut allowed = Vec::new();
    let mut refusal = String::new();
    for listener in meant {
        match allows(listener, object, namespace, view) {
            Ok(()) => allowed.push(listener),
            Err(why) => refusal = format!("listener \"{}\" {why}", listener.name),
        }
    }
    if allowed.is_empty() {
        let message = format!("parent Gateway \"{}\": {refusal}", parent.name);
        return Err(fault("NotAllowedByListeners", message, String::new()));
    }
    let attachments: Vec<Attachment> = allowed
        .iter()
        .filter_map(|listener| {
            Some(Attachment {
                listener: listener.name.clone(),
                hostnames: intersect(listener.hostname().as_ref(), hostnames)?,
            })
        })
        .collect();
    if attachments.is_empty() {
        let message = format!(
            "none of the route's hostnames is one of the listeners' of Gateway \"{}\"",
            parent.name
        );
        let hosts: Vec<String> = allowed
            .iter()
            .filter_map(|l| l.hostname().map(|h| h.to_string()))
            .collect();
        let hint = format!("they have {}", hosts.join(", "));
        return Err(fault("NoMatchingListenerHostname", message, hint));
    }
    Ok((name, attachments))
}

fn fault(reason: &'static str, message: String, hint: String) -> Fault {
    Fault {
        reason,
        message,
        hint,
    }
}

/// The listeners that a reference means.
fn meant<'a>(parent: &ParentRef, spec: &'a GatewaySpec) -> Result<Vec<&'a ListenerSpec>, Fault> {
    let found: Vec<&ListenerSpec> = spec
        .listeners
        .iter()
        .filter(|l| parent.section_name.as_ref().is_none_or(|s| *s == l.name))
        .filter(|l| parent.port.is_none_or(|port| port == l.port))
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let wanted = match (&parent.section_name, parent.port) {
        (Some(section), _) => format!("named \"{section}\""),
        (None, port) => format!("on port {}", port.unwrap_or(0)),
    };
    let message = format!(
        "parent Gateway \"{}\" has no listener {wanted}",
        parent.name
    );
    let names: Vec<String> = spec
        .listeners
        .iter()
        .map(|l| format!("{} ({})", l.name, l.port))
        .collect();
    let hint = format!("it has {}", names.join(", "));
    Err(fault("NoMatchingParent", message, hint))
}

/// Whether a listener takes routes of this kind from this namespace.
fn allows(
    listener: &ListenerSpec,
    object: &Object,
    gateway_namespace: &str,
    view: &mut View<'_>,
) -> Result<(), String> {
    let kind = object.key.kind;
    let Some(protocol) = listener.protocol() else {
        return Err(format!("is for {}, which is not served", listener.protocol));
    };
    if !fits(kind, protocol) {
        return Err(format!("is for {}, not for {kind}s", listener.protocol));
    }
    let kinds = &listener.allowed_routes.kinds;
    let listed = |k: &&crate::kind::gateway::RouteGroupKind| {
        k.group == GATEWAY_GROUP && k.kind == kind.as_str()
    };
    if !kinds.is_empty() && !kinds.iter().any(|k| listed(&k)) {
        return Err(format!("does not allow {kind}s"));
    }
    let own = object.namespace();
    let namespaces = &listener.allowed_routes.namespaces;
    let allowed = match namespaces.from {
        FromNamespaces::All => true,
        FromNamespaces::Same => own == gateway_namespace,
        FromNamespaces::Selector => {
            let key = ObjectKey::new(ObjectKind::Namespace, "", own);
            let mut labels = view
                .get(&key)
                .map(|object| object.metadata.labels.clone())
                .unwrap_or_default();
            // Kubernetes gives every namespace its name as a label.
            let name = "kubernetes.io/metadata.name".to_owned();
            labels.entry(name).or_insert_with(|| own.to_owned());
            let selector = namespaces.selector.as_ref();
            selector.is_some_and(|selector| selector.takes(&labels))
        }
    };
    if allowed {
        Ok(())
    } else {
        Err(format!("does not allow routes of namespace {own}"))
    }
}

/// Whether routes of a kind can be served by a listener.
fn fits(kind: ObjectKind, protocol: Protocol) -> bool {
    match kind {
        ObjectKind::HttpRoute | ObjectKind::GrpcRoute => {
            matches!(protocol, Protocol::Http | Protocol::Https)
        }
        ObjectKind::TlsRoute => protocol == Protocol::Tls,
        ObjectKind::TcpRoute => protocol == Protocol::Tcp,
        ObjectKind::UdpRoute => protocol == Protocol::Udp,
        _ => false,
    }
}
