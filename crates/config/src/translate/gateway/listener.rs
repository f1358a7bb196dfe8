//! One listener of a Gateway or `ListenerSet`: its resource, and what its status says.

use std::collections::BTreeSet;

use model::ObjectName;
use model::gateway::{BackendIdentity, Listener, Protocol, ProxyProtocol, Tls};
use model::resource::Resource;

use super::merge::{Conflict, Merged};
use super::{policy, tls};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::GATEWAY_GROUP;
use crate::kind::gateway::{GatewaySpec, ListenerSpec, RouteGroupKind};
use crate::object::Object;
use crate::translate::route::{Fault, resolved_refs};
use crate::translate::store::View;
use crate::translate::{Condition, Defaults, ListenerStatus, Output, mesh_config};

/// What the listeners of one owner have in common.
pub(super) struct Owner<'a> {
    /// The Gateway or `ListenerSet` that they are written in.
    pub(super) object: &'a Object,
    /// The Gateway.
    pub(super) gateway: &'a Object,
    /// Its name.
    pub(super) name: ObjectName,
    /// What is said in it.
    pub(super) spec: &'a GatewaySpec,
    /// Its listeners beside those of others.
    pub(super) merged: &'a Merged,
    /// What it shows to backends.
    pub(super) identity: BackendIdentity,
    /// Why none of its listeners is programmed, if so.
    pub(super) refused: Option<Condition>,
}

impl Owner<'_> {
    /// The model's name for a listener. Those of a `ListenerSet` may be called like others of the
    /// Gateway; ':' occurs in no name.
    pub(super) fn listener_name(&self, listener: &ListenerSpec) -> String {
        listener_name(self.object, &listener.name)
    }
}

/// The model's name for a listener of a Gateway or `ListenerSet`.
pub(in crate::translate) fn listener_name(owner: &Object, listener: &str) -> String {
    let key = &owner.key;
    match key.kind {
        crate::kind::ObjectKind::ListenerSet => {
            format!("{}:{}:{listener}", key.namespace, key.name)
        }
        _ => listener.to_owned(),
    }
}

/// Translates a listener, at which the check stands. Returns whether it is accepted.
pub(super) fn translate(
    owner: &Owner<'_>,
    listener: &ListenerSpec,
    conflict: Option<&Conflict>,
    view: &mut View<'_>,
    defaults: &Defaults,
    c: &mut Check<'_>,
    output: &mut Output,
) -> bool {
    let (supported, kinds_fault) = supported_kinds(listener);
    let (tls, mut faults) = tls::resolve(owner.object, owner.gateway, owner.spec, listener, view);
    faults.extend(kinds_fault);
    for fault in &faults {
        c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
    }
    let resolved = resolved_refs(&faults);
    let accepted = accepted(listener, &tls, conflict);
    let mut resource = None;
    if !accepted.status {
        c.found(Severity::Warning, accepted.message.clone(), "");
    } else if owner.refused.is_none()
        && let Some(protocol) = listener.protocol()
    {
        let mut model = to_model(owner, listener, protocol, tls.tls, view, defaults);
        if let Some(why) = without_http3(&mut model, &owner.merged.datagrams) {
            let hint = "HTTP/1 and HTTP/2 are served; see docs/gateway.md";
            c.found(Severity::Warning, why, hint);
        }
        let made = Resource::Listener(model);
        resource = Some(made.key());
        output.resources.push(made);
    }
    let taken = accepted.status;
    let unprogrammed = match &owner.refused {
        _ if !taken => Some(accepted.unprogrammed()),
        refused => refused.as_ref().map(Condition::unprogrammed),
    };
    let conflicted = match conflict {
        Some(conflict) => Condition::holds("Conflicted", conflict.reason, &conflict.message),
        None => Condition::failed(
            "Conflicted",
            "NoConflicts",
            "no other listener is in its way",
        ),
    };
    let mut conditions = vec![accepted, resolved, conflicted];
    if conflict.is_none() {
        conditions.extend(owner.merged.overlaps.condition(listener));
    }
    conditions.extend(unprogrammed);
    output.listeners.push(ListenerStatus {
        name: listener.name.clone(),
        supported_kinds: supported,
        attached_routes: 0,
        conditions,
        resource,
    });
    taken
}

fn accepted(
    listener: &ListenerSpec,
    tls: &tls::Resolved,
    conflict: Option<&Conflict>,
) -> Condition {
    if listener.protocol().is_none() {
        let message = format!("listeners for {} are not served", listener.protocol);
        return Condition::failed("Accepted", "UnsupportedProtocol", message);
    }
    if let Some(conflict) = conflict {
        return Condition::failed("Accepted", conflict.reason, conflict.message.clone());
    }
    if let Some(reason) = tls.unusable {
        let message = match reason {
            tls::NO_ROOTS => "nobody vouches for its clients: see ResolvedRefs",
            _ => "it has nothing to end TLS with: see ResolvedRefs",
        };
        return Condition::failed("Accepted", reason, message);
    }
    Condition::accepted()
}

/// The kinds of routes that a listener takes, and what is wrong with those that it names.
fn supported_kinds(listener: &ListenerSpec) -> (Vec<RouteGroupKind>, Option<Fault>) {
    let fitting: &[&str] = match listener.protocol() {
        Some(Protocol::Http | Protocol::Https) => &["HTTPRoute", "GRPCRoute"],
        Some(Protocol::Tls) => &["TLSRoute"],
        Some(Protocol::Tcp) => &["TCPRoute"],
        Some(Protocol::Udp) => &["UDPRoute"],
        None => return (Vec::new(), None),
    };
    let named = &listener.allowed_routes.kinds;
    if named.is_empty() {
        let all = fitting.iter().map(|kind| RouteGroupKind {
            group: GATEWAY_GROUP.to_owned(),
            kind: (*kind).to_owned(),
        });
        return (all.collect(), None);
    }
    let fits = |k: &&RouteGroupKind| k.group == GATEWAY_GROUP && fitting.contains(&k.kind.as_str());
    let mut taken: Vec<RouteGroupKind> = Vec::new();
    for kind in named.iter().filter(fits) {
        if !taken.contains(kind) {
            taken.push(kind.clone());
        }
    }
    let fault = named.iter().find(|k| !fits(k)).map(|wrong| Fault {
        reason: "InvalidRouteKinds",
        message: format!(
            "allowedRoutes.kinds has {}, which a listener for {} does not take",
            wrong.kind, listener.protocol
        ),
        hint: format!("it takes {}", fitting.join(", ")),
    });
    (taken, fault)
}

fn to_model(
    owner: &Owner<'_>,
    listener: &ListenerSpec,
    protocol: Protocol,
    tls: Option<Tls>,
    view: &mut View<'_>,
    defaults: &Defaults,
) -> Listener {
    let limits = mesh_config(view, defaults)
        .map_or_else(Default::default, |mesh| mesh.to_model(defaults).limits);
    let mut model = Listener {
        gateway: owner.name.clone(),
        merged_class: super::merged_class(owner.spec, view).map(Into::into),
        name: owner.listener_name(listener),
        addresses: if defaults.addresses_outside {
            Vec::new()
        } else {
            owner.spec.bound_to()
        },
        port: listener.port,
        protocol,
        hostname: listener.hostname(),
        tls,
        proxy_protocol: ProxyProtocol::Off,
        trusted_hops: 0,
        backend_identity: owner.identity.clone(),
        http3: None,
        limits,
    };
    policy::apply(owner.gateway, &mut model, view);
    model
}

/// Takes HTTP/3 back where it cannot be served beside what else is asked for; says why.
fn without_http3(listener: &mut Listener, datagrams: &BTreeSet<u16>) -> Option<String> {
    listener.http3?;
    let port = listener.port;
    let why = if listener.proxy_protocol != ProxyProtocol::Off {
        "HTTP/3 is not served together with proxyProtocol: its datagrams carry no PROXY header"
            .to_owned()
    } else if datagrams.contains(&port) {
        format!("HTTP/3 is not served: UDP port {port} is taken by another listener")
    } else {
        return None;
    };
    listener.http3 = None;
    Some(why)
}
