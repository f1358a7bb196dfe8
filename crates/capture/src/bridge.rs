//! The bridge on the host that joins the namespaces of workloads.
//!
//! Its addresses are the workloads' gateways. It is there as long as a namespace is attached, or
//! the process that asked for it with [`Bridge::ensure`] lives. Who asked, and what forwarding was
//! before, is kept in the link's alias, where it survives a crash of the process but no reboot.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::available::{self, Backend};
use crate::error::CaptureError;
use crate::forwarding::{self, Former};
use crate::namespace::{Lock, alive};
use crate::netlink::{self, Link, Netlink};

/// A bridge: its name, and in each family its address within the workloads' subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Name of the link, up to 15 characters.
    pub name: String,
    /// Gateway address and subnet, such as `10.96.0.1/16`.
    pub v4: Ipv4Net,
    /// Gateway address and subnet, such as `fd7e:7475:6c6c:1::1/64`.
    pub v6: Ipv6Net,
}

/// The kernel's limit for names of links.
const LONGEST_NAME: usize = 15;

impl Bridge {
    /// Makes the bridge, or completes one that is there, and keeps it while this process lives.
    pub async fn ensure(&self) -> Result<(), CaptureError> {
        let bridge = self.clone();
        blocking(move || bridge.ensure_blocking()).await
    }

    /// As [`Bridge::ensure`], on the calling thread.
    pub fn ensure_blocking(&self) -> Result<(), CaptureError> {
        let backend = available::backend()?;
        let lock = Lock::take()?;
        self.set_up(&lock, backend, Some(std::process::id()))
    }

    /// Removes the bridge with its rules. Namespaces attached to it lose their way to each other.
    pub async fn remove(&self) -> Result<(), CaptureError> {
        let bridge = self.clone();
        blocking(move || {
            let backend = available::backend()?;
            bridge.tear_down(&Lock::take()?, backend)
        })
        .await
    }

    /// The gateway addresses with their subnets.
    pub fn gateways(&self) -> [IpNet; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Whether the address is one of the bridge's subnets.
    pub(crate) fn holds(&self, address: &IpNet) -> bool {
        match address {
            IpNet::V4(v4) => self.v4.contains(&v4.addr()),
            IpNet::V6(v6) => self.v6.contains(&v6.addr()),
        }
    }

    pub(crate) fn set_up(
        &self,
        _: &Lock,
        backend: Backend,
        keeper: Option<u32>,
    ) -> Result<(), CaptureError> {
        check_name(&self.name, LONGEST_NAME)?;
        netlink::with(None, async |netlink| {
            let existing = netlink.link(&self.name).await?;
            let before = if let Some(link) = existing {
                Note::of(&link).ok_or_else(|| CaptureError::NotOurs(self.name.clone()))?
            } else {
                let note = Note::default();
                netlink
                    .add_bridge(&self.name, &note.text(), self.v4.addr())
                    .await?;
                note
            };
            let now = forwarding::enable(!netlink.has_advertised_routes().await?);
            let note = Note {
                keeper: keeper.or(before.keeper.filter(|pid| alive(*pid))),
                former: Former {
                    v4_was_off: before.former.v4_was_off || now.v4_was_off,
                    v6_was_off: before.former.v6_was_off || now.v6_was_off,
                },
            };
            netlink.set_alias(&self.name, &note.text()).await?;
            for address in self.gateways() {
                if address.addr().is_ipv4() || forwarding::kernel_has_ipv6() {
                    netlink.add_address(&self.name, address).await?;
                }
            }
            netlink.up(&self.name).await
        })?;
        forwarding::apply(backend, self)
    }

    pub(crate) fn tear_down(&self, _: &Lock, backend: Backend) -> Result<(), CaptureError> {
        netlink::with(None, async |netlink| {
            let links = netlink.links().await?;
            match links.iter().find(|l| l.name == self.name) {
                Some(link) if Note::of(link).is_some() => remove(netlink, &links, link).await,
                Some(_) => Err(CaptureError::NotOurs(self.name.clone())),
                None => Ok(()),
            }
        })?;
        forwarding::remove(backend, self);
        Ok(())
    }

    /// Removes the bridge where nothing is attached to it and no other living process keeps it.
    pub(crate) fn tear_down_if_unused(
        &self,
        lock: &Lock,
        backend: Backend,
    ) -> Result<(), CaptureError> {
        let unused = netlink::with(None, async |netlink| {
            let links = netlink.links().await?;
            let found = links.iter().find(|l| l.name == self.name);
            Ok(found.is_some_and(|l| is_unused(&links, l, true)))
        })?;
        if unused {
            self.tear_down(lock, backend)
        } else {
            Ok(())
        }
    }

    /// Removes all bridges of Tulle that nobody uses or keeps; gives their number.
    pub(crate) fn clean_stale(_: &Lock, backend: Backend) -> Result<usize, CaptureError> {
        let removed = netlink::with(None, async |netlink| {
            let mut removed = Vec::new();
            loop {
                let links = netlink.links().await?;
                let Some(stale) = links.iter().find(|l| is_unused(&links, l, false)) else {
                    return Ok(removed);
                };
                remove(netlink, &links, stale).await?;
                removed.push(stale.name.clone());
            }
        })?;
        for name in &removed {
            let bridge = Self {
                name: name.clone(),
                v4: Ipv4Net::default(),
                v6: Ipv6Net::default(),
            };
            forwarding::remove(backend, &bridge);
        }
        Ok(removed.len())
    }
}

/// Runs blocking work off the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CaptureError> + Send + 'static,
) -> Result<T, CaptureError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(CaptureError::Netlink {
                what: "set up the network: the process is shutting down".to_owned(),
                source: std::io::ErrorKind::Interrupted.into(),
            }),
        },
    }
}

pub(crate) fn check_name(name: &str, longest: usize) -> Result<(), CaptureError> {
    let valid = (1..=longest).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if valid {
        Ok(())
    } else {
        Err(CaptureError::Name(name.to_owned(), longest))
    }
}

/// Deletes the link; what forwarding was before goes to another bridge of ours, or is restored.
async fn remove(netlink: &Netlink, links: &[Link], bridge: &Link) -> Result<(), CaptureError> {
    let former = Note::of(bridge).unwrap_or_default().former;
    netlink.delete(bridge).await?;
    let heir = links
        .iter()
        .filter(|l| l.index != bridge.index)
        .find_map(|l| Some((l, Note::of(l)?)));
    if let Some((heir, mut note)) = heir {
        note.former.v4_was_off |= former.v4_was_off;
        note.former.v6_was_off |= former.v6_was_off;
        netlink.set_alias(&heir.name, &note.text()).await
    } else {
        forwarding::restore(former);
        Ok(())
    }
}

fn is_unused(links: &[Link], bridge: &Link, ours_to_end: bool) -> bool {
    let Some(note) = Note::of(bridge) else {
        return false;
    };
    let kept = note
        .keeper
        .is_some_and(|pid| alive(pid) && !(ours_to_end && pid == std::process::id()));
    !kept && !links.iter().any(|l| l.controller == Some(bridge.index))
}

/// What the alias of a bridge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Note {
    keeper: Option<u32>,
    former: Former,
}

impl Note {
    fn of(link: &Link) -> Option<Self> {
        let mut fields = link
            .alias
            .as_deref()?
            .strip_prefix("tulle bridge ")?
            .split(' ');
        let keeper: u32 = fields.next()?.parse().ok()?;
        let former = Former {
            v4_was_off: fields.next()? == "1",
            v6_was_off: fields.next()? == "1",
        };
        Some(Self {
            keeper: (keeper != 0).then_some(keeper),
            former,
        })
    }

    fn text(self) -> String {
        let Former {
            v4_was_off,
            v6_was_off,
        } = self.former;
        format!(
            "tulle bridge {} {} {}",
            self.keeper.unwrap_or(0),
            u8::from(v4_was_off),
            u8::from(v6_was_off)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, index: u32, alias: Option<String>, controller: Option<u32>) -> Link {
        Link {
            index,
            name: name.into(),
            alias,
            controller,
        }
    }

    #[test]
    fn a_note_survives_the_alias() {
        for note in [
            Note::default(),
            Note {
                keeper: Some(77),
                former: Former {
                    v4_was_off: true,
                    v6_was_off: false,
                },
            },
        ] {
            assert_eq!(Note::of(&link("b", 1, Some(note.text()), None)), Some(note));
        }
        assert_eq!(Note::of(&link("docker0", 1, None, None)), None);
        assert_eq!(
            Note::of(&link("b", 1, Some("tulle bridge x".into()), None)),
            None
        );
    }

    #[test]
    fn a_bridge_is_unused_without_ports_and_keeper() {
        let ours = |keeper| {
            Note {
                keeper,
                ..Note::default()
            }
            .text()
        };
        let free = link("tulle0", 5, Some(ours(None)), None);
        assert!(is_unused(std::slice::from_ref(&free), &free, false));
        let port = link("tv1-0", 6, None, Some(5));
        assert!(!is_unused(&[free.clone(), port], &free, false));
        let kept = link("tulle0", 5, Some(ours(Some(std::process::id()))), None);
        assert!(!is_unused(std::slice::from_ref(&kept), &kept, false));
        assert!(is_unused(std::slice::from_ref(&kept), &kept, true));
        let foreign = link("docker0", 5, None, None);
        assert!(!is_unused(std::slice::from_ref(&foreign), &foreign, true));
    }

    #[test]
    fn names_that_tools_would_misread_are_refused() {
        for name in [
            "",
            "0a",
            "a b",
            "a;b",
            "A",
            "sixteen-letters0",
            "-a",
            "a/b",
            "a\"b",
        ] {
            assert!(check_name(name, LONGEST_NAME).is_err(), "{name}");
        }
        for name in ["tulle0", "t", "a-b_c", "fifteen-letters"] {
            assert!(check_name(name, LONGEST_NAME).is_ok(), "{name}");
        }
    }
}
