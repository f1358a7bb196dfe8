//! Resumption that ends with the trust it rests on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::ServerName;
use rustls::server::ProducesTickets;

use super::Shared;
use crate::verify::since_epoch;

/// Longest life of a ticket.
const LIFETIME: Duration = Duration::from_mins(10);

/// Client sessions kept per configuration (rustls keeps up to eight for each server name).
const CLIENT_SESSIONS: usize = 512;

/// Whether sessions may still be begun or resumed; once closed it stays closed.
#[derive(Debug, Clone)]
pub(super) struct Lease(Arc<AtomicBool>);

impl Lease {
    pub(super) fn open() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(super) fn close(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A client's sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    lease: Lease,
    cache: ClientSessionMemoryCache,
}

impl Sessions {
    pub(super) fn new(lease: &Lease) -> Self {
        Self {
            lease: lease.clone(),
            cache: ClientSessionMemoryCache::new(CLIENT_SESSIONS),
        }
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache.kx_hint(server_name)
    }

    fn set_tls12_session(&self, _name: ServerName<'static>, _value: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        if self.lease.is_open() {
            self.cache.insert_tls13_ticket(name, value);
        }
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.lease
            .is_open()
            .then(|| self.cache.take_tls13_ticket(name))
            .flatten()
    }
}

/// A server's stateless tickets: rustls' own, with the time of issue inside.
///
/// The key lives as long as the configuration, that is until the next rotation of our SVID.
#[derive(Debug)]
pub(super) struct Tickets {
    lease: Lease,
    shared: Arc<Shared>,
    inner: Arc<dyn ProducesTickets>,
}

impl Tickets {
    /// `None` when the system has no randomness for a key: then no tickets are given out.
    pub(super) fn new(shared: &Arc<Shared>, lease: &Lease) -> Option<Self> {
        Some(Self {
            lease: lease.clone(),
            shared: Arc::clone(shared),
            inner: Ticketer::new().ok()?,
        })
    }

    /// The client keeps our certificate with the ticket, which must not outlive it.
    fn remaining(&self) -> Duration {
        let not_after = self.shared.svid.load().not_after();
        not_after
            .duration_since(SystemTime::now())
            .unwrap_or(Duration::ZERO)
            .min(LIFETIME)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.remaining().as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        // A lifetime of zero would mean "not stated" to rustls' clients.
        if !self.lease.is_open() || self.remaining().as_secs() == 0 {
            return None;
        }
        let now = since_epoch(SystemTime::now()).as_secs();
        let mut stamped = zeroize::Zeroizing::new(Vec::with_capacity(8 + plain.len()));
        stamped.extend_from_slice(&now.to_be_bytes());
        stamped.extend_from_slice(plain);
        self.inner.encrypt(&stamped)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        if !self.lease.is_open() {
            return None;
        }
        let stamped = zeroize::Zeroizing::new(self.inner.decrypt(cipher)?);
        let (issued, plain) = stamped.split_first_chunk::<8>()?;
        let now = since_epoch(SystemTime::now()).as_secs();
        let age = now.checked_sub(u64::from_be_bytes(*issued))?;
        (age <= LIFETIME.as_secs()).then(|| plain.to_vec())
    }
}
