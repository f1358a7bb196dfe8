//! Secrets that are watched one by one: those that objects name and that are not of the type
//! `kubernetes.io/tls`, all of which one watch follows.
//!
//! Others' secrets are not read. The translator says which Secrets it has looked for (a reference
//! that no ReferenceGrant allows is not followed); each of these has a watch of its own for as long
//! as something names it. Two watches may speak of one name, where a Secret is replaced by one of
//! another type: what counts of it is what the one said that showed it last.

use std::collections::{BTreeMap, BTreeSet};

use config::{ObjectKey, ObjectKind};
use tokio::sync::watch;

/// How many are watched one by one: each is a request that stays open.
const MOST: usize = 64;

/// Which Secrets the translation of what is in force has looked for.
pub(super) type Wanted = Box<dyn Fn() -> BTreeSet<ObjectKey> + Send>;

/// What is known of them.
pub(super) struct Secrets {
    wanted: Wanted,
    /// What the watches are told to follow.
    follow: watch::Sender<BTreeSet<ObjectKey>>,
    /// Shown by the watch of all; nothing is asked by itself before that has listed.
    by_all: Option<BTreeSet<ObjectKey>>,
    /// What is followed, and whether its watch has said what is there, or cannot.
    settled: BTreeMap<ObjectKey, bool>,
    /// Shown last by a watch of its own.
    own: BTreeSet<ObjectKey>,
    /// Seen since its own watch began to list.
    listed: BTreeSet<ObjectKey>,
    complained: bool,
}

impl Secrets {
    /// Follows what is wanted, and tells `follow`.
    pub(super) fn new(wanted: Wanted, follow: watch::Sender<BTreeSet<ObjectKey>>) -> Self {
        let mut secrets = Self {
            wanted,
            follow,
            by_all: None,
            settled: BTreeMap::new(),
            own: BTreeSet::new(),
            listed: BTreeSet::new(),
            complained: false,
        };
        secrets.look();
        secrets
    }

    /// Asks again what is wanted. Returns what only a watch of its own showed and nobody wants any
    /// more.
    pub(super) fn look(&mut self) -> Vec<ObjectKey> {
        let mut wanted = (self.wanted)();
        debug_assert!(wanted.iter().all(|key| key.kind == ObjectKind::Secret));
        if let Some(by_all) = &self.by_all {
            wanted.retain(|key| !by_all.contains(key));
        }
        if self.by_all.is_some() && wanted.len() > MOST {
            if !std::mem::replace(&mut self.complained, true) {
                tracing::warn!(
                    "{} Secrets that are not of the type kubernetes.io/tls are named by Gateways and policies, and the first {MOST} by name are followed: give certificates that type, and put root certificates into ConfigMaps",
                    wanted.len()
                );
            }
            wanted = wanted.into_iter().take(MOST).collect();
        }
        self.settled.retain(|key, _| wanted.contains(key));
        for key in &wanted {
            self.settled.entry(key.clone()).or_insert(false);
        }
        let gone: Vec<ObjectKey> = self.own.difference(&wanted).cloned().collect();
        self.own.retain(|key| wanted.contains(key));
        self.listed.retain(|key| wanted.contains(key));
        if self.by_all.is_some() {
            self.follow.send_if_modified(|follow| {
                let differs = *follow != wanted;
                *follow = wanted;
                differs
            });
        }
        gone
    }

    /// Whether of each that is wanted is known whether it is there, or that this cannot be said.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.values().all(|settled| *settled)
    }

    /// The watch of all has shown one.
    pub(super) fn shown_by_all(&mut self, key: &ObjectKey) {
        self.own.remove(key);
        if let Some(by_all) = &mut self.by_all {
            by_all.insert(key.clone());
        }
    }

    /// The watch of all says that one is gone; whether that counts.
    pub(super) fn gone_by_all(&mut self, key: &ObjectKey) -> bool {
        if let Some(by_all) = &mut self.by_all {
            by_all.remove(key);
        }
        !self.own.contains(key)
    }

    /// The watch of all has listed these, or cannot list.
    pub(super) fn listed_by_all(&mut self, listed: &BTreeSet<ObjectKey>) {
        self.by_all = Some(listed.clone());
    }

    /// Whether the watch of all says nothing of one by not listing it: its own watch has shown it,
    /// or is still to say whether it is there.
    pub(super) fn is_anothers(&self, key: &ObjectKey) -> bool {
        self.own.contains(key) || self.settled.get(key) == Some(&false)
    }

    /// Its own watch begins to list.
    pub(super) fn begins(&mut self, key: &ObjectKey) {
        self.listed.remove(key);
    }

    /// Its own watch has shown it; whether it is still followed.
    pub(super) fn shown(&mut self, key: &ObjectKey) -> bool {
        let followed = self.settled.contains_key(key);
        if followed {
            self.own.insert(key.clone());
            self.listed.insert(key.clone());
        }
        followed
    }

    /// Its own watch has said that it is gone; whether that counts.
    pub(super) fn gone(&mut self, key: &ObjectKey) -> bool {
        self.listed.remove(key);
        self.own.remove(key)
    }

    /// Its own watch has listed; whether it is gone by that, be it one from before a restart.
    pub(super) fn complete(&mut self, key: &ObjectKey) -> bool {
        if !self.settled.contains_key(key) {
            return false;
        }
        self.cannot_say_more(key);
        let own = self.own.contains(key);
        let by_all = self.by_all.as_ref().is_some_and(|all| all.contains(key));
        let gone = !self.listed.contains(key) && (own || !by_all);
        if gone {
            self.own.remove(key);
        }
        gone
    }

    /// Its own watch has said what is there, or does not work at the moment.
    pub(super) fn cannot_say_more(&mut self, key: &ObjectKey) {
        if let Some(settled) = self.settled.get_mut(key) {
            *settled = true;
        }
    }
}
