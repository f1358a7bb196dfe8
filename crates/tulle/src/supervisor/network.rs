//! Where a workload's traffic meets its proxy: on loopback, or in a network namespace whose
//! traffic is captured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use capture::{Bridge, Namespace, namespace, rules};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use xds::proto::v1::RegisterResponse;

use crate::command::proxy::Mode;
use crate::command::run::Upstream;
use crate::supervisor::listeners::Listeners;
use crate::ui::Ui;

/// The proxy's inbound port in transparent mode.
pub(crate) const TUNNEL: u16 = 15008;

/// Where the workload lives.
pub(crate) enum Network {
    /// In this namespace; the program is told to use its proxy.
    Loopback,
    /// In one of its own, at its own address.
    Captured(Namespace),
}

/// The mode asked for, or the best that this host can do: transparent as root, else explicit.
pub(crate) fn choose(asked: Option<Mode>, ui: &Ui) -> anyhow::Result<Mode> {
    match asked {
        Some(Mode::Explicit) => Ok(Mode::Explicit),
        Some(Mode::Transparent) => match capture::available() {
            Ok(_) => Ok(Mode::Transparent),
            // Whoever asks for capture must not get a program whose traffic passes it by.
            Err(missing) => Err(anyhow!("{missing}")),
        },
        None if !nix::unistd::geteuid().is_root() => Ok(Mode::Explicit),
        None => match capture::available() {
            Ok(_) => Ok(Mode::Transparent),
            Err(missing) => {
                ui.say(&format!("tulle: explicit mode: {missing}"));
                Ok(Mode::Explicit)
            }
        },
    }
}

impl Network {
    /// Makes the namespace that the registry's answer describes, opens the proxy's sockets in it,
    /// and only then turns traffic to them.
    pub(crate) async fn capture(
        response: &RegisterResponse,
        upstreams: &[Upstream],
    ) -> anyhow::Result<(Self, Listeners)> {
        let addresses = response
            .addresses
            .iter()
            .map(|text| text.parse::<IpNet>())
            .collect::<Result<Vec<_>, _>>()
            .context("the registry gave an address that is none")?;
        let bridge = bridge(response)?;
        let namespace = Namespace::create(&namespace::next_name(), &bridge, &addresses).await?;
        let listeners = namespace
            .run(|| Listeners::transparent(upstreams))
            .context("entering the namespace")??;
        rules::apply(&namespace, &rules::Redirect::default())?;
        Ok((Self::Captured(namespace), listeners))
    }

    /// The namespace to start children in.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Loopback => None,
            Self::Captured(namespace) => Some(namespace.path()),
        }
    }

    /// Where the proxy's health answers, as reached from here.
    pub(crate) fn health(&self, listeners: &Listeners) -> anyhow::Result<SocketAddr> {
        let ip = match self {
            Self::Loopback => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::Captured(namespace) => namespace
                .addresses()
                .first()
                .map(IpNet::addr)
                .context("the registry gave no address")?,
        };
        Some(listeners.port("metrics"))
            .filter(|port| *port > 0)
            .map(|port| SocketAddr::new(ip, port))
            .context("the proxy has no metrics port")
    }

    /// Takes the namespace away.
    pub(crate) async fn close(self) {
        if let Self::Captured(namespace) = self
            && let Err(error) = namespace.remove().await
        {
            tracing::warn!(%error, "the namespace was not removed; the next start will");
        }
    }
}

fn bridge(response: &RegisterResponse) -> anyhow::Result<Bridge> {
    let gateway = |family: fn(&IpNet) -> bool| {
        let network = response
            .addresses
            .iter()
            .filter_map(|a| a.parse().ok())
            .find(family)?;
        response
            .gateways
            .iter()
            .filter_map(|g| {
                g.parse::<IpNet>()
                    .map(|net| net.addr())
                    .or_else(|_| g.parse::<IpAddr>())
                    .ok()
            })
            .find_map(|g| IpNet::new(g, network.prefix_len()).ok().filter(family))
    };
    let v4 = gateway(|n| n.addr().is_ipv4());
    let v6 = gateway(|n| n.addr().is_ipv6());
    match (v4, v6) {
        (Some(IpNet::V4(v4)), Some(IpNet::V6(v6))) => Ok(bridge_of(v4, v6)),
        _ => Err(anyhow!(
            "the registry gave no addresses for transparent mode; is the control plane of this version?"
        )),
    }
}

/// The link that joins the namespaces of a mesh's workloads on this host. Each control plane has a
/// range of addresses, and so a bridge, of its own.
fn bridge_of(v4: Ipv4Net, v6: Ipv6Net) -> Bridge {
    let [_, block, ..] = v4.addr().octets();
    Bridge {
        name: format!("tulle{block}"),
        v4,
        v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_has_the_gateways_with_the_prefixes_of_the_addresses() {
        let response = RegisterResponse {
            addresses: vec!["10.96.1.7/16".into(), "fd7e::7/64".into()],
            gateways: vec!["10.96.0.1".into(), "fd7e::1".into()],
            ..RegisterResponse::default()
        };
        let bridge = bridge(&response).expect("both families");
        assert_eq!(bridge.name, "tulle96");
        assert_eq!(bridge.v4.to_string(), "10.96.0.1/16");
        assert_eq!(bridge.v6.to_string(), "fd7e::1/64");
        assert!(super::bridge(&RegisterResponse::default()).is_err());
    }
}
