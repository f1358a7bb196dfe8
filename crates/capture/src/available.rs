//! Whether this machine and this user can intercept at all, found out by trying.

use std::net::Ipv4Addr;
use std::sync::OnceLock;

use crate::error::CaptureError;
use crate::namespace::{self, Lock};
use crate::netlink;
use crate::rules::Redirect;
use crate::{firewall, rules};

/// What applies the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `nft`.
    Nft,
    /// `iptables-restore` and `ip6tables-restore`.
    Iptables,
}

/// Why transparent mode is not possible here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Not root, or a container without the capabilities.
    #[error(
        "transparent mode needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN): {0}; use --mode explicit, or run as root (in a container: --privileged)"
    )]
    Permission(String),
    /// The kernel lacks bridges or veth pairs.
    #[error(
        "transparent mode needs bridges and veth pairs in the kernel: {0}; try: modprobe bridge veth"
    )]
    Kernel(String),
    /// Neither tool works.
    #[error(
        "transparent mode needs nft or iptables with REDIRECT: {0}; try: apt-get install nftables"
    )]
    Firewall(String),
}

/// Tries in a namespace that is gone afterwards, what [`crate::Namespace`] and [`rules::apply`] do. Takes some
/// tens of milliseconds.
pub fn available() -> Result<Backend, Unavailable> {
    probe_mount()?;
    let probe = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|e| Unavailable::Permission(format!("creating a network namespace: {e}")))?;
        netlink::with(None, async |netlink| {
            netlink
                .add_bridge("probe", "", Ipv4Addr::UNSPECIFIED)
                .await?;
            netlink.add_veth("probe-a", "probe-b").await
        })
        .map_err(|e| Unavailable::Kernel(describe(&e)))?;
        probe_rules()
    };
    std::thread::scope(|scope| match scope.spawn(probe).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// The backend, found out once in a process.
pub(crate) fn backend() -> Result<Backend, CaptureError> {
    static BACKEND: OnceLock<Backend> = OnceLock::new();
    if let Some(backend) = BACKEND.get() {
        return Ok(*backend);
    }
    let backend = available()?;
    Ok(*BACKEND.get_or_init(|| backend))
}

fn probe_mount() -> Result<(), Unavailable> {
    let denied = |e: CaptureError| Unavailable::Permission(describe(&e));
    let lock = Lock::take().map_err(denied)?;
    let name = namespace::next_name();
    let made = namespace::make(&lock, &name).map(drop);
    namespace::unmake(&name).and(made).map_err(denied)
}

fn probe_rules() -> Result<Backend, Unavailable> {
    let redirect = Redirect::default();
    let mut tried = Vec::new();
    for backend in [Backend::Nft, Backend::Iptables] {
        match rules::apply_here(backend, &redirect) {
            Ok(()) => return Ok(backend),
            Err(e) => tried.push(e.to_string()),
        }
    }
    if firewall::find("nft").is_none() && firewall::find("iptables-restore").is_none() {
        return Err(Unavailable::Firewall("neither is installed".to_owned()));
    }
    Err(Unavailable::Firewall(tried.join("; ")))
}

fn describe(e: &CaptureError) -> String {
    match std::error::Error::source(e) {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    }
}
