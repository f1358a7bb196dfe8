//! From objects to proxies: changes go through the translator to the distributor, and what
//! proxies acknowledge comes back as the condition `Programmed`.
//!
//! The cost of a change is that of the change: the translator says which resources it led to,
//! the distributor touches the streams that asked for those. `Programmed` is worked out when
//! somebody reads it, from acknowledgements and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::translate::{Condition, Defaults, Status, Translator};
use config::{Diagnostic, ObjectKey};
use model::ServiceName;
use model::endpoint::Health;
use model::gateway::{GatewayName, Protocol};
use model::mesh::TrustBundle;
use model::resource::{Key, Kind, Resource, SINGLETON};
use xds::server::Distributor;

use crate::heard::{Heard, Others, Testimony};

/// Translator, distributor and what lies between them.
pub struct Distribution {
    distributor: Arc<Distributor>,
    inner: Mutex<Inner>,
    others: Others,
}

struct Inner {
    translator: Translator,
    /// Endpoints of each service, and whether they may be chosen: for counting.
    endpoints: HashMap<ServiceName, BTreeMap<Key, bool>>,
    /// What the listeners of each Gateway open, its own and those of ListenerSets.
    doors: HashMap<GatewayName, BTreeMap<Key, Door>>,
    /// The Gateway of each listener.
    owners: HashMap<Key, GatewayName>,
    findings: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    /// Objects of which something else is said than when somebody last asked; `None` until
    /// somebody does.
    changed: Option<BTreeSet<ObjectKey>>,
}

/// What a listener opens on whoever serves it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    /// The port.
    pub port: u16,
    /// Whether it is for datagrams.
    pub udp: bool,
    /// Whether datagrams come to it as well (HTTP/3).
    pub also_udp: bool,
    /// Where it is bound; empty for everywhere.
    pub addresses: Vec<IpAddr>,
}

/// `Programmed` as worked out from acknowledgements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programmed {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Distribution {
    /// Nothing is distributed yet but the trust bundle.
    pub fn new(distributor: Arc<Distributor>, defaults: Defaults, bundle: TrustBundle) -> Self {
        distributor.apply(vec![(
            Key::new(Kind::TrustBundle, SINGLETON),
            Some(Resource::TrustBundle(bundle)),
        )]);
        Self {
            distributor,
            inner: Mutex::new(Inner {
                translator: Translator::new(defaults),
                endpoints: HashMap::new(),
                doors: HashMap::new(),
                owners: HashMap::new(),
                findings: BTreeMap::new(),
                changed: None,
            }),
            others: Others::default(),
        }
    }

    /// The distributor.
    pub fn distributor(&self) -> &Arc<Distributor> {
        &self.distributor
    }

    /// Translates and distributes changes, all together. Returns what was found wrong.
    pub fn apply(&self, changes: Vec<config::translate::Change>) -> Vec<Diagnostic> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        for change in &changes {
            let key = match change {
                config::translate::Change::Put(object) => &object.key,
                config::translate::Change::Delete(key) => key,
            };
            inner.findings.remove(key);
        }
        let outcome = inner.translator.apply(changes);
        for key in &outcome.translated {
            inner.findings.remove(key);
        }
        for finding in &outcome.diagnostics {
            if let Some(key) = &finding.object {
                let known = inner.findings.entry(key.clone()).or_default();
                if !known.contains(finding) {
                    known.push(finding.clone());
                }
            }
        }
        if let Some(changed) = &mut inner.changed {
            changed.extend(outcome.statuses.iter().map(|(key, _)| key.clone()));
        }
        for (key, resource) in &outcome.resources {
            inner.count(key, resource.as_ref());
            if key.kind == Kind::Listener {
                inner.open(key, resource.as_ref());
            }
        }
        // Under the lock: two changes reach the distributor in the order of the translator.
        self.distributor.apply(outcome.resources);
        outcome.diagnostics
    }

    /// What proxies of other replicas have acknowledged.
    pub fn others(&self) -> &Others {
        &self.others
    }

    /// What proxies of this one have acknowledged of listeners.
    pub fn testimony(&self) -> Testimony {
        let listeners: Vec<Key> = self.lock().owners.keys().cloned().collect();
        let heard = listeners.into_iter().filter_map(|key| {
            let acks = self.distributor.acknowledged(&key);
            let heard = Heard {
                version: self.distributor.version(&key)?.to_string(),
                interested: acks.interested,
                acked: acks.acked,
                rejected: acks.rejected,
                rejection: acks.rejection,
            };
            (heard.interested > 0).then(|| (key.name.to_string(), heard))
        });
        heard.collect()
    }

    /// What the translator says of an object.
    pub fn status(&self, key: &ObjectKey) -> Status {
        let inner = self.lock();
        inner.translator.status(key).cloned().unwrap_or_default()
    }

    /// The objects of which something else is said than at the last call; for a single caller.
    pub fn take_changed(&self) -> BTreeSet<ObjectKey> {
        self.lock()
            .changed
            .replace(BTreeSet::new())
            .unwrap_or_default()
    }

    /// The Secrets that something in force refers to, and may, whether or not they are there.
    pub fn wanted_secrets(&self) -> BTreeSet<ObjectKey> {
        let inner = self.lock();
        inner.translator.wanted_secrets().cloned().collect()
    }

    /// What was found wrong with an object.
    pub fn findings(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        self.lock().findings.get(key).cloned().unwrap_or_default()
    }

    /// All findings.
    pub fn all_findings(&self) -> Vec<Diagnostic> {
        self.lock().findings.values().flatten().cloned().collect()
    }

    /// Endpoints of each service that has any: how many, and how many of them may be chosen.
    pub fn endpoint_counts(&self) -> HashMap<ServiceName, (usize, usize)> {
        self.lock()
            .endpoints
            .iter()
            .map(|(service, all)| {
                let ready = all.values().filter(|ready| **ready).count();
                (service.clone(), (all.len(), ready))
            })
            .collect()
    }

    /// Whether an object was accepted as a whole.
    pub fn is_accepted(&self, key: &ObjectKey) -> bool {
        let conditions = self.status(key).conditions;
        let accepted =
            |c: &Condition| c.parent.is_none() && !c.foreign && c.kind == "Accepted" && c.status;
        conditions.iter().any(accepted)
    }

    /// What the listeners of a Gateway open that can serve, by name; nothing twice.
    pub fn doors(&self, gateway: &ObjectKey) -> Vec<Door> {
        let Ok(name) = GatewayName::new(&gateway.namespace, &gateway.name) else {
            return Vec::new();
        };
        let inner = self.lock();
        let doors: BTreeSet<Door> = inner
            .doors
            .get(&name)
            .map(|doors| doors.values().cloned().collect())
            .unwrap_or_default();
        doors.into_iter().collect()
    }

    /// Whether the proxies have in force what an object leads to; `None` where it leads to
    /// nothing that could be in force.
    pub fn programmed(&self, key: &ObjectKey) -> Option<Programmed> {
        let keys = self.lock().translator.emits(key);
        (!keys.is_empty()).then(|| self.programmed_resources(&keys))
    }

    /// Whether the proxies have these resources in force.
    pub fn programmed_resources(&self, keys: &[Key]) -> Programmed {
        let mut interested = 0;
        let mut acked = 0;
        for key in keys {
            let mut acks = self.distributor.acknowledged(key);
            let version = self.distributor.version(key).map(|v| v.to_string());
            self.others.add(key, version.as_deref(), &mut acks);
            interested += acks.interested;
            acked += acks.acked;
            if acks.rejected > 0 {
                let (node, why) = acks.rejection.unwrap_or_default();
                return Programmed {
                    status: "False",
                    reason: "Rejected",
                    message: format!(
                        "{} of {} proxies refused {key}; {node}: {why}",
                        acks.rejected, acks.interested
                    ),
                };
            }
        }
        match (interested, acked) {
            (0, _) => Programmed {
                status: "Unknown",
                reason: "NotRequested",
                message: "no connected proxy has asked for it yet; it is sent to those that do"
                    .to_owned(),
            },
            (wanted, had) if had < wanted => Programmed {
                status: "False",
                reason: "Pending",
                message: format!("{had} of {wanted} deliveries to proxies are acknowledged"),
            },
            (wanted, _) => Programmed {
                status: "True",
                reason: "Programmed",
                message: format!("all {wanted} deliveries to proxies are acknowledged"),
            },
        }
    }

    /// Every operation leaves the maps whole; the translator is told whole sets.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn open(&mut self, key: &Key, resource: Option<&Resource>) {
        if let Some(gateway) = self.owners.remove(key)
            && let Some(doors) = self.doors.get_mut(&gateway)
        {
            doors.remove(key);
            if doors.is_empty() {
                self.doors.remove(&gateway);
            }
        }
        if let Some(Resource::Listener(listener)) = resource {
            let door = Door {
                port: listener.port,
                udp: listener.protocol == Protocol::Udp,
                also_udp: listener.http3.is_some(),
                addresses: listener.addresses.clone(),
            };
            let gateway = listener.gateway.clone();
            self.owners.insert(key.clone(), gateway.clone());
            let doors = self.doors.entry(gateway).or_default();
            doors.insert(key.clone(), door);
        }
    }

    fn count(&mut self, key: &Key, resource: Option<&Resource>) {
        if let Some(Resource::Endpoint(endpoint)) = resource {
            self.endpoints
                .entry(endpoint.service.clone())
                .or_default()
                .insert(key.clone(), endpoint.health == Health::Healthy);
        } else if key.kind == Kind::Endpoint {
            // `namespace/service/namespace.workload`
            let service = key.name.rsplit_once('/').and_then(|(s, _)| s.parse().ok());
            if let Some(service) = service
                && let Some(all) = self.endpoints.get_mut(&service)
            {
                all.remove(key);
                if all.is_empty() {
                    self.endpoints.remove(&service);
                }
            }
        }
    }
}
