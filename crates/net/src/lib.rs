//! Sockets, original destinations, protocol detection, byte copy and DNS wire handling.
//!
//! What lies between the kernel and the proxy's decisions. Nothing here knows routes, services or
//! policies: [`socket`] opens and tunes sockets, [`inherit`] hands listening ones to a child,
//! [`detect`] tells what a client speaks, [`prefixed`] gives back the bytes that took, [`copy`]
//! moves bytes both ways and [`splice`] within the kernel, [`udp`] makes sessions of datagrams, [`tls`] shakes hands and says who the
//! peer is, [`dns`] reads and writes DNS messages. With `capture` the only crate that may contain
//! `unsafe`.

pub mod copy;
pub mod detect;
pub mod dns;
pub mod inherit;
pub mod memory;
pub mod prefixed;
pub mod proxy_protocol;
pub mod socket;
pub mod splice;
pub mod tcp;
pub mod tls;
pub mod udp;
