//! Interception set-up: network namespaces, veth pairs, nftables and iptables rules.
//!
//! In transparent mode each workload lives in a network namespace of its own, joined to the others
//! by a [`Bridge`] on the host. Inside, the rules of [`rules::Redirect`] bring every TCP connection
//! and DNS question of the application to the proxy, and every connection from outside too. Nothing
//! here listens, accepts or knows what is redirected: that is `net`'s and the proxy's.
//!
//! What is made here carries its owner: namespaces are `tulle-<pid>-<n>`, so that what a killed
//! process left behind is found and removed by the next one ([`namespace::clean_stale`]). Nothing
//! that Tulle did not make is touched, except that forwarding is switched on while a bridge exists.

mod available;
mod bridge;
mod error;
mod firewall;
mod forwarding;
pub mod namespace;
mod netlink;
pub mod rules;

pub use available::{Backend, Unavailable, available};
pub use bridge::Bridge;
pub use error::CaptureError;
pub use namespace::{Entry, Namespace};
