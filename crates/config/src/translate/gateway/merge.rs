//! The listeners of a Gateway and of the `ListenerSet`s that it allows, as one list, and which of
//! them conflict (Gateway API, "Distinct Listeners"; GEP-1713). Where the Gateways of a class share a
//! proxy, the list is that of all of them.
//!
//! A listener of an earlier owner wins over one of a later: first Gateways, then sets, by age, then
//! by name. Among listeners of one owner nobody wins, as the specification demands. What is refused
//! here occupies nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use model::gateway::Protocol;
use model::hostname::Hostname;

use super::overlap::Overlaps;
use crate::kind::ObjectKind;
use crate::kind::gateway::{GatewaySpec, LabelSelector, ListenerSpec, ListenersFrom};
use crate::object::{Object, ObjectKey, Spec};
use crate::translate::store::{Topic, View};

/// What was found for each listener.
#[derive(Debug, Default)]
pub(in crate::translate) struct Merged {
    /// Of each Gateway, and of each set that is allowed, in the order in which they were written.
    found: BTreeMap<ObjectKey, Vec<Option<Conflict>>>,
    /// UDP ports that are taken.
    pub(super) datagrams: BTreeSet<u16>,
    /// Which of them end TLS for hosts of each other.
    pub(super) overlaps: Overlaps,
}

impl Merged {
    /// Whether the listeners of a Gateway or set are in the list.
    pub(super) fn has(&self, owner: &ObjectKey) -> bool {
        self.found.contains_key(owner)
    }

    /// What was found for the listeners of a Gateway or set.
    pub(super) fn of(&self, owner: &ObjectKey) -> &[Option<Conflict>] {
        self.found.get(owner).map_or(&[], Vec::as_slice)
    }
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
    let class = super::merged_class(spec, view).filter(|_| super::refusal(spec).is_none());
    let Some(class) = class else {
        return view.once(&gateway.key, |view| merge(&[(gateway, spec)], view));
    };
    let class = ObjectKey::new(ObjectKind::GatewayClass, "", class);
    view.once(&class, |view| {
        let mut gateways: Vec<(&Object, &GatewaySpec)> = Vec::new();
        for object in view.list(Topic::Attached(ObjectKind::Gateway, class.clone())) {
            if let Spec::Gateway(spec) = &object.spec
                && super::refusal(spec).is_none()
            {
                gateways.push((&**object, spec));
            }
        }
        gateways.sort_by_cached_key(|(gateway, _)| age(gateway));
        merge(&gateways, view)
    })
}

/// Who comes first.
fn age(object: &Object) -> (u64, String) {
    let key = &object.key;
    let created = object.metadata.created.unwrap_or(0);
    (created, format!("{}/{}", key.namespace, key.name))
}

/// Merges and compares; the cost is in proportion to the number of listeners.
fn merge(gateways: &[(&Object, &GatewaySpec)], view: &mut View<'_>) -> Merged {
    let mut merged = Merged::default();
    let mut ports = Ports::new();
    let mut distinct: Vec<&ListenerSpec> = Vec::new();
    for (gateway, spec) in gateways {
        let found = settle(&spec.listeners, "the Gateway", &mut ports);
        distinct.extend(without_conflict(&spec.listeners, &found));
        merged.found.insert(gateway.key.clone(), found);
    }
    let mut sets = Vec::new();
    for (gateway, spec) in gateways {
        let attached = Topic::Attached(ObjectKind::ListenerSet, gateway.key.clone());
        let all = view.list(attached).into_iter();
        sets.extend(all.filter(|set| allows(gateway, spec, set, view)));
    }
    sets.sort_by_cached_key(|set| age(set));
    for set in sets {
        if let Spec::ListenerSet(spec) = &set.spec {
            let found = settle(&spec.listeners, "this ListenerSet", &mut ports);
            distinct.extend(without_conflict(&spec.listeners, &found));
            merged.found.insert(set.key.clone(), found);
        }
    }
    let datagrams = ports.keys().filter(|(_, datagrams)| *datagrams);
    merged.datagrams = datagrams.map(|(port, _)| *port).collect();
    merged.overlaps = Overlaps::of(distinct.into_iter());
    merged
}

fn without_conflict<'a>(
    listeners: &'a [ListenerSpec],
    found: &[Option<Conflict>],
) -> impl Iterator<Item = &'a ListenerSpec> {
    let both = listeners.iter().zip(found);
    both.filter_map(|(listener, conflict)| conflict.is_none().then_some(listener))
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
