//! The rules that bring a workload's traffic to its proxy.
//!
//! **Outbound.** Every TCP connection of the application goes to the proxy's outbound port, and
//! DNS questions to its DNS port, also those to a resolver on loopback (127.0.0.53, 127.0.0.11).
//! Left alone are: sockets with the proxy's mark, without which the proxy would catch itself;
//! loopback; and the workload's own addresses. The last is what Istio does: an application that
//! calls its own *address* talks to itself, one that calls its own *service* (another address)
//! goes through the proxy, which may pick any endpoint, itself included, over mutual TLS.
//!
//! **Inbound.** Every TCP connection from outside goes to the proxy's inbound port, except to the
//! tunnel and metrics ports, which are the proxy's own, and to the excluded. Ports of the proxy that
//! are not for others (admin, outbound, inbound, DNS) are closed to them with a reset, even where
//! the proxy listens on all addresses; otherwise a connection to the inbound port itself would be
//! passed on to itself.
//!
//! The address that a connection was meant for is kept by the kernel: `net::socket`'s
//! `original_destination`. REDIRECT leads outbound connections to 127.0.0.1 and ::1, so the
//! outbound and DNS ports must listen there (DNS bound to exactly these, so that replies have
//! the source that the kernel expects), the inbound port on all addresses.

mod iptables;
mod nft;

use ipnet::IpNet;

use crate::available::Backend;
use crate::error::CaptureError;
use crate::namespace::Namespace;
use crate::{firewall, forwarding};

/// What is redirected where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Takes the application's connections: 15001.
    pub outbound: u16,
    /// Takes connections from outside: 15006.
    pub inbound: u16,
    /// Takes tunnels from other proxies, never redirected: 15008.
    pub tunnel: u16,
    /// Metrics and health, never redirected: 15020.
    pub metrics: u16,
    /// Administration, closed to the outside: 15000.
    pub admin: u16,
    /// Takes DNS questions over UDP and TCP: 15053. `None` leaves DNS alone.
    pub dns: Option<u16>,
    /// `SO_MARK` of the proxy's own sockets: 1337.
    pub mark: u32,
    /// Ports on which connections from outside reach the application directly.
    pub exclude_inbound: Vec<u16>,
    /// Ports to which the application connects directly.
    pub exclude_outbound_ports: Vec<u16>,
    /// Destinations to which the application connects directly.
    pub exclude_outbound: Vec<IpNet>,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            outbound: 15001,
            inbound: 15006,
            tunnel: 15008,
            metrics: 15020,
            admin: 15000,
            dns: Some(15053),
            mark: 0x539,
            exclude_inbound: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_outbound: Vec::new(),
        }
    }
}

/// An address family, where the rules differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Redirect {
    /// The rules for `nft -f`, both families. They take the place of former ones.
    pub fn nft(&self) -> String {
        nft::text(self)
    }

    /// The rules for `iptables-restore` or `ip6tables-restore`. They take the place of everything
    /// in the tables `nat` and `filter`, which are the namespace's own.
    pub fn iptables(&self, family: Family) -> String {
        iptables::text(self, family)
    }

    /// The proxy's ports that the outside may not reach.
    fn closed(&self) -> Vec<u16> {
        let mut ports = vec![self.admin, self.outbound, self.inbound];
        ports.extend(self.dns);
        sorted(ports)
    }

    /// Ports on which connections from outside are left alone.
    fn open(&self) -> Vec<u16> {
        let mut ports = vec![self.tunnel, self.metrics];
        ports.extend(&self.exclude_inbound);
        sorted(ports)
    }
}

/// Applies the rules inside a namespace, in place of former ones.
pub fn apply(namespace: &Namespace, redirect: &Redirect) -> Result<(), CaptureError> {
    apply_with(namespace.backend(), namespace, redirect)
}

/// As [`apply`], with a backend of the caller's choice.
pub fn apply_with(
    backend: Backend,
    namespace: &Namespace,
    redirect: &Redirect,
) -> Result<(), CaptureError> {
    namespace
        .run(|| apply_here(backend, redirect))
        .map_err(CaptureError::namespace(namespace.name(), "enter it"))?
}

/// Applies the rules in the network namespace of the calling thread.
pub(crate) fn apply_here(backend: Backend, redirect: &Redirect) -> Result<(), CaptureError> {
    match backend {
        Backend::Nft => firewall::nft(&redirect.nft()),
        Backend::Iptables => {
            firewall::feed("iptables-restore", &[], &redirect.iptables(Family::V4))?;
            if forwarding::kernel_has_ipv6() {
                firewall::feed("ip6tables-restore", &[], &redirect.iptables(Family::V6))?;
            }
            Ok(())
        }
    }
}

fn sorted(mut ports: Vec<u16>) -> Vec<u16> {
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn joined<T: ToString>(items: &[T], separator: &str) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(separator)
}

#[cfg(test)]
mod tests;
