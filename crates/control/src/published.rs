//! Where Gateways can be reached, as whoever runs their proxies says.
//!
//! The provisioner writes, status reads. What is here lives in memory: whoever runs the proxies
//! says it again after a restart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::ObjectKey;
use serde::Serialize;
use tokio::sync::watch;

/// The place of each Gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Published(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    reaches: Mutex<BTreeMap<ObjectKey, Reach>>,
    required: AtomicBool,
    changes: watch::Sender<u64>,
}

/// Where a Gateway can be reached, and what keeps it from being so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// `status.addresses`, in this order.
    pub addresses: Vec<Address>,
    /// Why it does not run, if it does not: `Programmed` is then `False`.
    pub problem: Option<Problem>,
}

/// An address, as `status.addresses[]` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Address {
    /// `IPAddress` or `Hostname`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The address.
    pub value: String,
}

/// Why a Gateway does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One word of Gateway API: `AddressNotUsable`, `AddressNotAssigned`, `NoResources`, ...
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Default for Published {
    fn default() -> Self {
        Self(Arc::new(Shared {
            reaches: Mutex::default(),
            required: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }))
    }
}

impl Published {
    /// Says where a Gateway can be reached; `None` that nobody runs it.
    pub fn set(&self, gateway: ObjectKey, reach: Option<Reach>) {
        let mut reaches = self.lock();
        let same = reaches.get(&gateway) == reach.as_ref();
        match reach {
            Some(reach) => reaches.insert(gateway, reach),
            None => reaches.remove(&gateway),
        };
        drop(reaches);
        if !same {
            self.0.changes.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Where a Gateway can be reached, as far as anybody said.
    pub fn find(&self, gateway: &ObjectKey) -> Option<Reach> {
        self.lock().get(gateway).cloned()
    }

    /// Somebody runs the proxies of all Gateways: one of which nothing was said yet does not run.
    pub fn require(&self) {
        self.0.required.store(true, Ordering::Relaxed);
        self.0.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Whether a Gateway of which nothing was said does not run.
    pub fn is_required(&self) -> bool {
        self.0.required.load(Ordering::Relaxed)
    }

    /// Grows with each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Every operation leaves it whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Reach>> {
        self.0
            .reaches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
