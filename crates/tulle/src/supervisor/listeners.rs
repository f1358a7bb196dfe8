//! The proxy's listening sockets, held by the supervisor: when a proxy dies, connections wait in
//! their queues for the next one instead of being refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::{Context as _, anyhow};
use net::socket::{ListenOptions, listen};

use crate::command::run::Upstream;

/// Sockets by name, and where they listen.
#[derive(Debug)]
pub(crate) struct Listeners {
    sockets: BTreeMap<String, TcpListener>,
    ports: BTreeMap<String, u16>,
}

/// The proxy's sockets in transparent mode, with the ports that mesh operators know.
const TRANSPARENT: [(&str, u16); 4] = [
    ("outbound", 15001),
    ("inbound", 15006),
    ("tunnel", 15008),
    ("metrics", 15020),
];
const ADMIN: u16 = 15000;

impl Listeners {
    /// On loopback, on free ports; the tunnel port where peers can reach it.
    pub(crate) fn explicit(reach: IpAddr, upstreams: &[Upstream]) -> anyhow::Result<Self> {
        let mut all = Self {
            sockets: BTreeMap::new(),
            ports: BTreeMap::new(),
        };
        for name in ["outbound", "admin", "metrics"] {
            all.open(name, loopback(0))
                .context("no free port on loopback")?;
        }
        all.open("tunnel", SocketAddr::new(reach, 0))
            .context("no free port for the tunnel")?;
        all.open_upstreams(upstreams)?;
        Ok(all)
    }

    /// On the usual ports; must run inside the workload's namespace.
    pub(crate) fn transparent(upstreams: &[Upstream]) -> anyhow::Result<Self> {
        let mut all = Self {
            sockets: BTreeMap::new(),
            ports: BTreeMap::new(),
        };
        for (name, port) in TRANSPARENT {
            all.open(name, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
                .with_context(|| format!("port {port} in the workload's namespace"))?;
        }
        all.open("admin", loopback(ADMIN))
            .with_context(|| format!("port {ADMIN} in the workload's namespace"))?;
        all.open_upstreams(upstreams)?;
        Ok(all)
    }

    fn open_upstreams(&mut self, upstreams: &[Upstream]) -> anyhow::Result<()> {
        for upstream in upstreams {
            self.open(&upstream.listener(), loopback(upstream.local))
                .map_err(|error| {
                    anyhow!(
                        "--upstream {0}:{1}: cannot listen on 127.0.0.1:{2}: {error}; choose another with --upstream {0}:{1}=LOCALPORT",
                        upstream.host,
                        upstream.port,
                        upstream.local
                    )
                })?;
        }
        Ok(())
    }

    fn open(&mut self, name: &str, address: SocketAddr) -> std::io::Result<()> {
        let options = ListenOptions {
            dual_stack: address.is_ipv6(),
            ..ListenOptions::default()
        };
        let socket = listen(address, &options)?;
        self.ports
            .insert(name.to_owned(), socket.local_addr()?.port());
        self.sockets.insert(name.to_owned(), socket);
        Ok(())
    }

    /// The port of a socket.
    pub(crate) fn port(&self, name: &str) -> u16 {
        self.ports.get(name).copied().unwrap_or(0)
    }

    /// All ports, for the registry and `tulle status`.
    pub(crate) fn ports(&self) -> BTreeMap<String, u32> {
        // The name that the registry knows the explicit proxy's port by.
        let outbound = if self.ports.contains_key("inbound") {
            "outbound"
        } else {
            "explicit_http"
        };
        self.ports
            .iter()
            .map(|(name, port)| {
                let name = if name == "outbound" { outbound } else { name };
                (name.to_owned(), u32::from(*port))
            })
            .collect()
    }

    /// The sockets with their names, to be handed to a proxy.
    pub(crate) fn sockets(&self) -> Vec<(&str, &TcpListener)> {
        self.sockets
            .iter()
            .map(|(name, socket)| (name.as_str(), socket))
            .collect()
    }
}

impl Upstream {
    /// The name of its socket.
    pub(crate) fn listener(&self) -> String {
        format!("upstream-{}", self.local)
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_taken_local_port_is_named_with_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
        let upstream = Upstream {
            host: "stock.bookshop".into(),
            port: 7000,
            local: taken.local_addr().expect("bound").port(),
        };
        let error = Listeners::explicit(LOOPBACK, &[upstream])
            .expect_err("taken")
            .to_string();
        assert!(
            error.contains("--upstream stock.bookshop:7000=LOCALPORT"),
            "{error}"
        );
    }

    #[test]
    fn explicit_sockets_have_names_and_ports() {
        let all = Listeners::explicit(LOOPBACK, &[]).expect("free ports");
        assert_ne!(all.port("tunnel"), 0);
        assert_eq!(all.sockets().len(), 4);
        assert!(all.ports().contains_key("explicit_http"));
    }
}
