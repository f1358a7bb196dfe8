//! What proxies that are connected to other replicas have acknowledged of listeners.
//!
//! Whoever writes the status of Gateways needs to know what all proxies have, and each is connected
//! to one replica. A version is that of a resource's bytes, which are the same whoever made them: of
//! a listener that is another here than there, only the interest counts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::resource::{Key, Kind};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use xds::server::Acks;

/// Of one listener: what those of one replica's proxies that want it have of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// The version that this is about.
    pub version: String,
    /// Proxies that want it.
    pub interested: usize,
    /// Of these, have it in force.
    pub acked: usize,
    /// Of these, refused it.
    #[serde(default)]
    pub rejected: usize,
    /// `node.id` and reason of one that refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<(String, String)>,
}

/// What a replica says, by the names of listeners.
pub type Testimony = BTreeMap<String, Heard>;

/// What all others say.
#[derive(Debug, Default)]
pub struct Others {
    said: Mutex<BTreeMap<String, Testimony>>,
    changes: watch::Sender<u64>,
}

impl Others {
    /// What one says now; `None` if it is gone.
    pub fn set(&self, replica: &str, testimony: Option<Testimony>) {
        let mut said = self.lock();
        let same = said.get(replica) == testimony.as_ref();
        match testimony {
            Some(testimony) => said.insert(replica.to_owned(), testimony),
            None => said.remove(replica),
        };
        drop(said);
        if !same {
            self.changes.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Grows with each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Adds what others say of a resource that has this version here.
    pub(crate) fn add(&self, key: &Key, version: Option<&str>, acks: &mut Acks) {
        if key.kind != Kind::Listener {
            return;
        }
        for heard in self.lock().values().filter_map(|said| said.get(&*key.name)) {
            acks.interested += heard.interested;
            if Some(heard.version.as_str()) == version {
                acks.acked += heard.acked;
                acks.rejected += heard.rejected;
                if acks.rejection.is_none() {
                    acks.rejection.clone_from(&heard.rejection);
                }
            }
        }
    }

    /// Every operation leaves it whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Testimony>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_another_version_only_the_interest_counts_and_of_one_who_is_gone_nothing() {
        let others = Others::default();
        let key = Key::new(Kind::Listener, "shop/web/http");
        let heard = |version: &str| Heard {
            version: version.to_owned(),
            interested: 2,
            acked: 2,
            ..Heard::default()
        };
        let name = key.name.to_string();
        others.set("b", Some(Testimony::from([(name.clone(), heard("1"))])));
        others.set("c", Some(Testimony::from([(name, heard("2"))])));
        let counted = |version| {
            let mut acks = Acks::default();
            others.add(&key, version, &mut acks);
            (acks.interested, acks.acked)
        };
        assert_eq!(counted(Some("1")), (4, 2));
        assert_eq!(counted(None), (4, 0));
        let mut changes = others.changes();
        others.set("b", None);
        assert!(changes.has_changed().expect("alive"));
        assert_eq!(counted(Some("1")), (2, 0));
        changes.mark_unchanged();
        others.set("b", None);
        assert!(!changes.has_changed().expect("alive"));
    }
}
