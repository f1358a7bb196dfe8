//! Links, addresses and routes, through rtnetlink.
//!
//! Each call runs on a thread of its own with a small runtime, so that it works inside another
//! network namespace, in `Drop`, and with or without a runtime around it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::error::CaptureError;

type Result<T> = std::result::Result<T, CaptureError>;

/// A network link, as much as is asked about it here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) controller: Option<u32>,
}

/// A connection to the kernel's routing, in one namespace.
pub(crate) struct Netlink(Handle);

/// Runs `f` with a connection, in the namespace of the calling thread or in `inside`.
pub(crate) fn with<T, F>(inside: Option<BorrowedFd<'_>>, f: F) -> Result<T>
where
    T: Send,
    F: AsyncFnOnce(&Netlink) -> Result<T> + Send,
{
    let open = |source| CaptureError::Netlink {
        what: "open a netlink connection".to_owned(),
        source,
    };
    let work = move || {
        if let Some(namespace) = inside {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)
                .map_err(|e| open(e.into()))?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(open)?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(open)?;
            tokio::spawn(connection);
            f(&Netlink(handle)).await
        })
    };
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn failed(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> CaptureError {
    let what = what.into();
    move |e| CaptureError::Netlink {
        what,
        source: match e {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        },
    }
}

fn is(e: &CaptureError, errno: nix::errno::Errno) -> bool {
    matches!(e, CaptureError::Netlink { source, .. } if source.raw_os_error() == Some(errno as i32))
}

impl Netlink {
    pub(crate) async fn links(&self) -> Result<Vec<Link>> {
        let links = self.0.link().get().execute();
        links
            .map_ok(link)
            .try_collect()
            .await
            .map_err(failed("list the network links"))
    }

    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>> {
        Ok(self.links().await?.into_iter().find(|l| l.name == name))
    }

    /// The link's index; an error where it is gone.
    pub(crate) async fn index(&self, name: &str) -> Result<u32> {
        let found = self.link(name).await?;
        found.map(|l| l.index).ok_or_else(|| CaptureError::Netlink {
            what: format!("find link {name}"),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// Makes a bridge with a MAC address of its own. One without takes the lowest of its ports', and
    /// changes it as ports come and go: then the others' packets to it are lost until they ask again.
    pub(crate) async fn add_bridge(
        &self,
        name: &str,
        alias: &str,
        gateway: Ipv4Addr,
    ) -> Result<()> {
        // Locally administered (IEEE 802 8.4): as unique on the host as the subnet is.
        let [a, b, c, d] = gateway.octets();
        let address = vec![0x02, 0x00, a, b, c, d];
        let bridge = LinkBridge::new(name).address(address).build();
        let add = self.0.link().add(bridge).execute().await;
        add.map_err(failed(format!("create bridge {name}")))?;
        self.set_alias(name, alias).await
    }

    pub(crate) async fn set_alias(&self, name: &str, alias: &str) -> Result<()> {
        let index = self.index(name).await?;
        self.change(LinkUnspec::new_with_index(index).alias(alias), || {
            format!("set the alias of {name}")
        })
        .await
    }

    pub(crate) async fn add_veth(&self, name: &str, peer: &str) -> Result<()> {
        let veth = LinkVeth::new(name, peer).build();
        let add = self.0.link().add(veth).execute().await;
        add.map_err(failed(format!("create the veth pair {name}")))
    }

    /// Makes a link a port of a bridge, and brings it up.
    pub(crate) async fn attach(&self, name: &str, bridge: &str) -> Result<()> {
        let (port, bridge_index) = (self.index(name).await?, self.index(bridge).await?);
        let change = LinkUnspec::new_with_index(port)
            .controller(bridge_index)
            .up();
        self.change(change, || format!("attach {name} to bridge {bridge}"))
            .await
    }

    /// Moves a link into another namespace.
    pub(crate) async fn hand_over(&self, name: &str, to: BorrowedFd<'_>) -> Result<()> {
        let index = self.index(name).await?;
        let change = LinkUnspec::new_with_index(index).setns_by_fd(to.as_raw_fd());
        self.change(change, || format!("move {name} into its namespace"))
            .await
    }

    pub(crate) async fn rename(&self, name: &str, to: &str) -> Result<()> {
        let index = self.index(name).await?;
        let change = LinkUnspec::new_with_index(index).name(to);
        self.change(change, || format!("rename {name} to {to}"))
            .await
    }

    pub(crate) async fn up(&self, name: &str) -> Result<()> {
        let index = self.index(name).await?;
        self.change(LinkUnspec::new_with_index(index).up(), || {
            format!("bring {name} up")
        })
        .await
    }

    async fn change(
        &self,
        change: LinkMessageBuilder<LinkUnspec>,
        what: impl FnOnce() -> String,
    ) -> Result<()> {
        let set = self.0.link().set(change.build()).execute().await;
        set.map_err(failed(what()))
    }

    /// Removes a link; one that is gone already is fine.
    pub(crate) async fn delete(&self, link: &Link) -> Result<()> {
        let delete = self.0.link().del(link.index).execute().await;
        match delete.map_err(failed(format!("remove link {}", link.name))) {
            Err(e) if is(&e, nix::errno::Errno::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Gives a link an address, usable at once (no duplicate detection: addresses are assigned).
    pub(crate) async fn add_address(&self, link: &str, address: IpNet) -> Result<()> {
        let index = self.index(link).await?;
        let mut request = self
            .0
            .address()
            .add(index, address.addr(), address.prefix_len())
            .replace();
        if address.addr().is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            // The kernel takes the attribute in place of the header where both are there.
            message.attributes.push(AddressAttribute::Flags(
                rtnetlink::packet_route::address::AddressFlags::Nodad,
            ));
        }
        let add = request.execute().await;
        add.map_err(failed(format!("give {link} the address {address}")))
    }

    pub(crate) async fn default_route(&self, gateway: IpAddr) -> Result<()> {
        let route = match gateway {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).build(),
        };
        let add = self.0.route().add(route).replace().execute().await;
        add.map_err(failed(format!("route everything through {gateway}")))
    }

    /// Whether IPv6 routers told this host a route (which it forgets when it forwards itself).
    pub(crate) async fn has_advertised_routes(&self) -> Result<bool> {
        let filter = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let routes: Vec<RouteMessage> = self
            .0
            .route()
            .get(filter)
            .execute()
            .try_collect()
            .await
            .map_err(failed("list the IPv6 routes"))?;
        Ok(routes
            .iter()
            .any(|r| r.header.protocol == RouteProtocol::Ra))
    }
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alias: None,
        controller: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Controller(index) => link.controller = Some(index),
            _ => {}
        }
    }
    link
}
