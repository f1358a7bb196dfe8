//! Which listeners of a Gateway or `ListenerSet` a route attaches to (Gateway API, `ParentReference` and
//! `AllowedRoutes`).

use std::borrow::Cow;

use model::gateway::{Attachment, GatewayName, Protocol};
use model::hostname::{Hostname, intersect};

use super::{Fault, Refusal};
use crate::kind::gateway::{FromNamespaces, ListenerSpec};
use crate::kind::{GATEWAY_GROUP, ObjectKind};
use crate::object::{Object, ObjectKey, Spec};
use crate::reference::ParentRef;
use crate::suggest;
use crate::translate::gateway;
use crate::translate::gateway::listener::listener_name;
use crate::translate::gateway::merge::selects;
use crate::translate::gateway::set::NoParent;
use crate::translate::store::{Topic, View};

/// What a route is attached to: the parents that it names, and default Gateways (GEP-3793).
pub(in crate::translate) fn of<'r>(route: &'r Object, view: &mut View<'_>) -> Cow<'r, [ParentRef]> {
    let named = route.spec.parent_refs();
    if route.spec.default_scope().is_none() {
        return Cow::Borrowed(named);
    }
    let mut parents = named.to_vec();
    for gateway in view.list(Topic::Defaults) {
        let (namespace, name) = (gateway.namespace(), &gateway.key.name);
        let names_it = |parent: &ParentRef| {
            let named = parent.namespace.as_deref().unwrap_or(route.namespace());
            parent.has_listeners()
                && !parent.is_listener_set()
                && (named, &*parent.name) == (namespace, &**name)
        };
        if !named.iter().any(names_it) {
            parents.push(ParentRef::gateway(namespace, name));
        }
    }
    Cow::Owned(parents)
}

/// The listeners that take a route.
pub(in crate::translate) struct Attached {
    /// The Gateway that serves them.
    pub(in crate::translate) gateway: GatewayName,
    /// The Gateway or `ListenerSet` that they are written in.
    owner: ObjectKey,
    /// Their names there.
    listeners: Vec<String>,
    /// As the model has them.
    pub(in crate::translate) attachments: Vec<Attachment>,
}

impl Attached {
    /// The listeners as they are counted.
    pub(in crate::translate) fn counted(
        &self,
    ) -> impl Iterator<Item = (ObjectKey, Option<String>)> {
        let listeners = self.listeners.iter().cloned();
        listeners.map(|listener| (self.owner.clone(), Some(listener)))
    }
}

/// What a route's parent offers.
struct Offer<'a> {
    owner: &'a Object,
    gateway: GatewayName,
    listeners: &'a [ListenerSpec],
}

/// The listeners of a Gateway or `ListenerSet` that take the route.
pub(in crate::translate) fn attach(
    object: &Object,
    parent: &ParentRef,
    hostnames: &[Hostname],
    view: &mut View<'_>,
) -> Result<Attached, Refusal> {
    let offer = offer(object, parent, view)?;
    let owner = offer.owner;
    let shown = format!("parent {} \"{}\"", owner.key.kind, owner.key.name);
    let mut allowed = Vec::new();
    let mut refusal = String::new();
    for listener in meant(parent, &shown, offer.listeners)? {
        match allows(listener, object, owner.namespace(), view) {
            Ok(()) => allowed.push(listener),
            Err(why) => refusal = format!("listener \"{}\" {why}", listener.name),
        }
    }
    if allowed.is_empty() {
        let message = format!("{shown}: {refusal}");
        return Err(refused("NotAllowedByListeners", message, String::new()));
    }
    let (mut listeners, mut attachments) = (Vec::new(), Vec::new());
    for listener in &allowed {
        if let Some(hostnames) = intersect(listener.hostname().as_ref(), hostnames) {
            listeners.push(listener.name.clone());
            attachments.push(Attachment {
                listener: listener_name(owner, &listener.name),
                hostnames,
            });
        }
    }
    if attachments.is_empty() {
        let message = format!("{shown}: none of the route's hostnames is one of its listeners'");
        let hosts: Vec<String> = allowed
            .iter()
            .filter_map(|l| l.hostname().map(|h| h.to_string()))
            .collect();
        let hint = format!("they have {}", hosts.join(", "));
        return Err(refused("NoMatchingListenerHostname", message, hint));
    }
    Ok(Attached {
        gateway: offer.gateway,
        owner: owner.key.clone(),
        listeners,
        attachments,
    })
}

/// Finds the parent, and the Gateway that serves its listeners.
fn offer<'a>(
    object: &Object,
    parent: &ParentRef,
    view: &mut View<'a>,
) -> Result<Offer<'a>, Refusal> {
    let namespace = parent.namespace.as_deref().unwrap_or(object.namespace());
    let kind = if parent.is_listener_set() {
        ObjectKind::ListenerSet
    } else {
        ObjectKind::Gateway
    };
    let name = &parent.name;
    let key = ObjectKey::new(kind, namespace, name);
    let Some(owner) = view.get(&key) else {
        let siblings = view.list(Topic::Kind(kind, namespace.into()));
        let names = siblings.iter().map(|object| &*object.key.name);
        let message = format!("parent {kind} \"{name}\" does not exist in namespace {namespace}");
        return Err(foreign(message, suggest::hint(name, names)));
    };
    let (gateway, listeners) = match &owner.spec {
        Spec::Gateway(spec) => {
            gateway::is_served(spec, view).map_err(|why| {
                foreign(format!("parent Gateway \"{name}\": {why}"), String::new())
            })?;
            (owner, &spec.listeners)
        }
        Spec::ListenerSet(spec) => match gateway::set::parent(owner, spec, view) {
            Ok((gateway, _)) => (gateway, &spec.listeners),
            Err(NoParent::Foreign(why)) => {
                let message = format!("parent ListenerSet \"{name}\": {why}");
                return Err(foreign(message, String::new()));
            }
            Err(NoParent::NotAllowed(why)) => {
                let message = format!("parent ListenerSet \"{name}\": {why}");
                return Err(refused("NoMatchingParent", message, String::new()));
            }
        },
        _ => return Err(foreign(format!("{key} takes no routes"), String::new())),
    };
    let gateway = GatewayName::new(gateway.namespace(), &gateway.key.name)
        .map_err(|error| refused("NoMatchingParent", error.to_string(), String::new()))?;
    Ok(Offer {
        owner,
        gateway,
        listeners,
    })
}

/// The Gateway that a reference of a route leads to, if Tulle serves it.
pub(in crate::translate) fn gateway_of(
    route: &Object,
    reference: &ParentRef,
    view: &mut View<'_>,
) -> Option<ObjectKey> {
    if reference.is_service() {
        return None;
    }
    let gateway = offer(route, reference, view).ok()?.gateway;
    let (namespace, name) = (gateway.namespace(), gateway.name());
    Some(ObjectKey::new(ObjectKind::Gateway, namespace, name))
}

/// About a parent that Tulle does not serve.
fn foreign(message: String, hint: String) -> Refusal {
    Refusal {
        foreign: true,
        ..refused("NoMatchingParent", message, hint)
    }
}

fn refused(reason: &'static str, message: String, hint: String) -> Refusal {
    Refusal::from(Fault {
        reason,
        message,
        hint,
    })
}

/// The listeners that a reference means.
fn meant<'a>(
    parent: &ParentRef,
    shown: &str,
    listeners: &'a [ListenerSpec],
) -> Result<Vec<&'a ListenerSpec>, Refusal> {
    let found: Vec<&ListenerSpec> = listeners
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
    let message = format!("{shown} has no listener {wanted}");
    let names: Vec<String> = listeners
        .iter()
        .map(|l| format!("{} ({})", l.name, l.port))
        .collect();
    let hint = format!("it has {}", names.join(", "));
    Err(refused("NoMatchingParent", message, hint))
}

/// Whether a listener takes routes of this kind from this namespace.
fn allows(
    listener: &ListenerSpec,
    object: &Object,
    owner_namespace: &str,
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
        FromNamespaces::Same => own == owner_namespace,
        FromNamespaces::Selector => {
            let selector = namespaces.selector.as_ref();
            selector.is_some_and(|selector| selects(selector, own, view))
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
