//! The listeners of a Gateway and of the `ListenerSet`s that it allows, as one list, and which of
//! them conflict (Gateway API, "Distinct Listeners"; GEP-1713).
//!
//! A listener of an earlier owner wins over one of a later: first the Gateway, then sets by age,
//! then by name. Among listeners of one owner nobody wins, as the specification demands. What is
//! refused here occupies nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use model::gateway::Protocol;
use model::hostname::Hostname;

use crate::kind::ObjectKind;
use crate::kind::gateway::{GatewaySpec, LabelSelector, ListenerSpec, ListenersFrom};
use crate::object::{Object, ObjectKey, Spec};
use crate::translate::store::{Topic, View};

/// What was found for each listener, in the order in which they were written.
#[derive(Debug, Default)]
pub(in crate::translate) struct Merged {
    /// The Gateway's own.
    pub(super) own: Vec<Option<Conflict>>,
    /// Those of the sets that are allowed.
    pub(super) sets: BTreeMap<ObjectKey, Vec<Option<Conflict>>>,
    /// UDP ports that are taken.
    pub(super) datagrams: BTreeSet<u16>,
}

/// Why a listener is not distinct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Gateway API's word.
    pub(super) reason: &'static str,
    /// For people. Says nothing of what others have in other namespaces.
    pub(super) message: String,
}

/// Protocols that can share a port, being told apart by host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Http,
    Tls,
    Tcp,
    Udp,
}

/// What a port is taken for.
struct Taken {
    family: Family,
    hosts: BTreeSet<Option<Hostname>>,
}

/// Ports, those for datagrams apart.
type Ports = HashMap<(u16, bool), Taken>;

/// The merged list. It is worked out once for each set of changes, however many sets ask.
pub(super) fn merged(gateway: &Object, spec: &GatewaySpec, view: &mut View<'_>) -> Rc<Merged> {
    view.once(&gateway.key, |view| merge(gateway, spec, view))
}

/// Merges and compares; the cost is in proportion to the number of listeners.
fn merge(gateway: &Object, spec: &GatewaySpec, view: &mut View<'_>) -> Merged {
    let mut merged = Merged::default();
    let mut ports = Ports::new();
    merged.own = settle(&spec.listeners, "the Gateway", &mut ports);
    let attached = Topic::Attached(ObjectKind::ListenerSet, gateway.key.clone());
    let mut sets = view.list(attached);
    sets.retain(|set| allows(gateway, spec, set, view));
    sets.sort_by_cached_key(|set| {
        let key = &set.key;
        let created = set.metadata.created.unwrap_or(0);
        (created, format!("{}/{}", key.namespace, key.name))
    });
    for set in sets {
        if let Spec::ListenerSet(spec) = &set.spec {
            let found = settle(&spec.listeners, "this ListenerSet", &mut ports);
            merged.sets.insert(set.key.clone(), found);
        }
    }
    let datagrams = ports.keys().filter(|(_, datagrams)| *datagrams);
    merged.datagrams = datagrams.map(|(port, _)| *port).collect();
    merged
}

/// Whether a Gateway allows a `ListenerSet` to add listeners.
fn allows(gateway: &Object, spec: &GatewaySpec, set: &Object, view: &mut View<'_>) -> bool {
    let Some(allowed) = &spec.allowed_listeners else {
        return false;
    };
    match allowed.namespaces.from {
        ListenersFrom::None => false,
        ListenersFrom::All => true,
        ListenersFrom::Same => set.namespace() == gateway.namespace(),
        ListenersFrom::Selector => {
            let selector = allowed.namespaces.selector.as_ref();
            selector.is_some_and(|selector| selects(selector, set.namespace(), view))
        }
    }
}

/// Whether a selector takes a namespace.
pub(in crate::translate) fn selects(
    selector: &LabelSelector,
    namespace: &str,
    view: &mut View<'_>,
) -> bool {
    let key = ObjectKey::new(ObjectKind::Namespace, "", namespace);
    let mut labels = view
        .get(&key)
        .map(|object| object.metadata.labels.clone())
        .unwrap_or_default();
    // Kubernetes gives every namespace its name as a label.
    let name = "kubernetes.io/metadata.name".to_owned();
    labels.entry(name).or_insert_with(|| namespace.to_owned());
    selector.takes(&labels)
}

/// Compares the listeners of one owner with what is taken, then with each other, and takes what is
/// left for them.
fn settle(listeners: &[ListenerSpec], owner: &str, ports: &mut Ports) -> Vec<Option<Conflict>> {
    let mut found: Vec<Option<Conflict>> = listeners
        .iter()
        .map(|listener| {
            let (family, port) = place(listener)?;
            let taken = ports.get(&port)?;
            conflict(listener, family, taken.family, |host| {
                taken.hosts.contains(host)
            })
            .map(|(reason, what)| Conflict {
                reason,
                message: format!("{what} is taken by a listener that comes first"),
            })
        })
        .collect();
    let earlier = found.clone();
    for (i, listener) in listeners.iter().enumerate() {
        let Some((family, port)) = place(listener).filter(|_| earlier[i].is_none()) else {
            continue;
        };
        let others = listeners.iter().enumerate();
        found[i] = others
            .filter(|(j, _)| *j != i && earlier[*j].is_none())
            .find_map(|(_, other)| {
                let (theirs, _) = place(other).filter(|(_, theirs)| *theirs == port)?;
                let host = other.hostname();
                let clash = conflict(listener, family, theirs, |mine| *mine == host);
                clash.map(|(reason, what)| Conflict {
                    reason,
                    message: format!(
                        "{what} is also that of listener \"{}\" of {owner}; neither is served",
                        other.name
                    ),
                })
            });
    }
    for (listener, found) in listeners.iter().zip(&found) {
        if let (Some((family, port)), None) = (place(listener), found) {
            let taken = ports.entry(port).or_insert_with(|| Taken {
                family,
                hosts: BTreeSet::new(),
            });
            taken.hosts.insert(listener.hostname());
        }
    }
    found
}

/// What a listener asks for; `None` if its protocol is not served.
fn place(listener: &ListenerSpec) -> Option<(Family, (u16, bool))> {
    let family = match listener.protocol()? {
        Protocol::Http => Family::Http,
        Protocol::Https | Protocol::Tls => Family::Tls,
        Protocol::Tcp => Family::Tcp,
        Protocol::Udp => Family::Udp,
    };
    Some((family, (listener.port, family == Family::Udp)))
}

/// Gateway API's reason, and what two listeners of a port both want.
fn conflict(
    listener: &ListenerSpec,
    family: Family,
    theirs: Family,
    same_host: impl Fn(&Option<Hostname>) -> bool,
) -> Option<(&'static str, String)> {
    let port = listener.port;
    if family != theirs {
        let what = format!(
            "port {port}, with another protocol than {},",
            listener.protocol
        );
        return Some(("ProtocolConflict", what));
    }
    if matches!(family, Family::Tcp | Family::Udp) {
        return Some(("ListenerConflict", format!("port {port}")));
    }
    let host = listener.hostname();
    same_host(&host).then(|| {
        let what = match host {
            Some(host) => format!("host {host} on port {port}"),
            None => format!("port {port} for every host"),
        };
        ("HostnameConflict", what)
    })
}
