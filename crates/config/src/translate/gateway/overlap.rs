//! Listeners of one port that end TLS for hosts of each other (GEP-3567): `*.example.com` beside
//! `www.example.com`. Clients that reuse connections may send to one what is for the other.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use model::gateway::Protocol;
use model::hostname::Hostname;

use crate::kind::gateway::ListenerSpec;
use crate::translate::Condition;

/// What listeners of a port are for; all hosts if `None`.
type Hosts = BTreeSet<Option<Hostname>>;

/// The hosts of those that overlap, with their ports.
#[derive(Debug, Default)]
pub(super) struct Overlaps(HashSet<(u16, Option<Hostname>)>);

impl Overlaps {
    /// Compares listeners that are distinct. The cost is in proportion to their number and to the
    /// labels of their hosts.
    pub(super) fn of<'a>(listeners: impl Iterator<Item = &'a ListenerSpec>) -> Self {
        let mut ports: BTreeMap<u16, Hosts> = BTreeMap::new();
        for listener in listeners.filter(|listener| has_tls(listener)) {
            let hosts = ports.entry(listener.port).or_default();
            hosts.insert(listener.hostname());
        }
        let mut overlaps = Self::default();
        for (port, hosts) in ports {
            for host in hosts.iter().flatten() {
                for wider in wider(host, &hosts) {
                    overlaps.0.insert((port, Some(host.clone())));
                    overlaps.0.insert((port, wider));
                }
            }
        }
        overlaps
    }

    /// `OverlappingTLSConfig` of a listener; only where it holds, as Gateway API demands.
    pub(super) fn condition(&self, listener: &ListenerSpec) -> Option<Condition> {
        let key = (listener.port, listener.hostname());
        if !has_tls(listener) || !self.0.contains(&key) {
            return None;
        }
        let message = format!(
            "another listener on port {} ends TLS for some of its hosts, or it for some of the other's; \
             a request that comes over a connection for the other is answered with 421",
            listener.port
        );
        let kind = "OverlappingTLSConfig";
        Some(Condition::holds(kind, "OverlappingHostnames", &message))
    }
}

fn has_tls(listener: &ListenerSpec) -> bool {
    matches!(listener.protocol(), Some(Protocol::Https | Protocol::Tls))
}

/// Which of the others take all that a host stands for.
fn wider(host: &Hostname, hosts: &Hosts) -> Vec<Option<Hostname>> {
    let (Hostname::Exact(mut rest) | Hostname::Below(mut rest)) = host.clone();
    let mut found = Vec::new();
    found.extend(hosts.contains(&None).then_some(None));
    while let Some((_, above)) = rest.split_once('.') {
        rest = above.into();
        let wildcard = Some(Hostname::Below(rest.clone()));
        found.extend(hosts.contains(&wildcard).then_some(wildcard));
    }
    found
}
