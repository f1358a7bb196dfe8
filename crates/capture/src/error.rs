//! What can go wrong while interception is set up.

use std::io;

use crate::available::Unavailable;

/// Why a namespace, bridge or rule could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// This machine or this user cannot do it at all.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A name that the kernel or the tools would not take.
    #[error(
        "\"{0}\" is no valid name here: use up to {1} of a-z, 0-9, \"-\" and \"_\", starting with a letter"
    )]
    Name(String, usize),
    /// A namespace of that name exists and belongs to a living process.
    #[error("network namespace {0} exists already and its owner is running")]
    Exists(String),
    /// A link of that name exists which Tulle did not make.
    #[error(
        "network link {0} exists but was not made by Tulle; choose another name for the bridge"
    )]
    NotOurs(String),
    /// Address families of the namespace and the bridge do not match.
    #[error("address {0} is not within the subnets of bridge {1}")]
    Address(String, String),
    /// A request to the kernel about links, addresses or routes failed.
    #[error("cannot {what}")]
    Netlink {
        /// What was to be done.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Creating, entering or removing a namespace failed.
    #[error("network namespace {name}: cannot {what}")]
    Namespace {
        /// The namespace.
        name: String,
        /// What was to be done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// `nft` or `iptables-restore` refused the rules.
    #[error("{tool} refused the rules: {message}")]
    Rules {
        /// The program.
        tool: String,
        /// What it wrote.
        message: String,
    },
}

impl CaptureError {
    pub(crate) fn namespace(name: &str, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        let name = name.to_owned();
        move |source| Self::Namespace { name, what, source }
    }
}
