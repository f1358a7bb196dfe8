//! The way from a bridge to the outside: kernel forwarding and address translation on the host.
//!
//! Rules live in a table (or chains) named after the bridge, and go with it. Forwarding is a switch
//! of the whole host: its former state is kept with the bridge and restored when the last bridge
//! goes. IPv6 forwarding stays off where the host has its own route from router advertisements,
//! since the kernel would then forget it; workloads still reach each other over IPv6.

use std::fmt::Write as _;
use std::path::Path;

use tracing::warn;

use crate::available::Backend;
use crate::bridge::Bridge;
use crate::error::CaptureError;
use crate::firewall;

const V4: &str = "/proc/sys/net/ipv4/ip_forward";
const V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// Which switches were off before, and are to be off again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Former {
    pub(crate) v4_was_off: bool,
    pub(crate) v6_was_off: bool,
}

/// Switches forwarding on; what could not be switched is logged and left.
pub(crate) fn enable(v6_is_safe: bool) -> Former {
    let v6_was_off = if v6_is_safe {
        switch_on(V6)
    } else {
        warn!(
            "IPv6 forwarding stays off, since this host gets its IPv6 route from router advertisements; workloads reach the outside over IPv4 only"
        );
        false
    };
    Former {
        v4_was_off: switch_on(V4),
        v6_was_off,
    }
}

/// Switches off what [`enable`] switched on.
pub(crate) fn restore(former: Former) {
    for (path, was_off) in [(V4, former.v4_was_off), (V6, former.v6_was_off)] {
        if was_off && let Err(error) = std::fs::write(path, "0") {
            warn!(%error, "cannot restore {path}");
        }
    }
}

fn switch_on(path: &str) -> bool {
    match std::fs::read_to_string(path) {
        Ok(value) if value.trim() == "0" => match std::fs::write(path, "1") {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "cannot switch forwarding on in {path}; workloads will not reach the outside");
                false
            }
        },
        _ => false,
    }
}

/// Whether the kernel has IPv6 at all.
pub(crate) fn kernel_has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Applies the host's rules for a bridge, in place of former ones.
pub(crate) fn apply(backend: Backend, bridge: &Bridge) -> Result<(), CaptureError> {
    match backend {
        Backend::Nft => firewall::nft(&nft(bridge)),
        Backend::Iptables => {
            remove(backend, bridge);
            firewall::feed("iptables-restore", &["--noflush"], &iptables(bridge, false))?;
            if kernel_has_ipv6() {
                firewall::feed("ip6tables-restore", &["--noflush"], &iptables(bridge, true))?;
            }
            Ok(())
        }
    }
}

/// Removes the host's rules for a bridge; none is fine.
pub(crate) fn remove(backend: Backend, bridge: &Bridge) {
    let result = match backend {
        Backend::Nft => firewall::nft(&nft_removal(&bridge.name)),
        Backend::Iptables => {
            for tool in ["iptables-restore", "ip6tables-restore"] {
                // Fails where there are none, which is fine.
                let _ = firewall::feed(tool, &["--noflush"], &iptables_removal(&bridge.name));
            }
            Ok(())
        }
    };
    if let Err(error) = result {
        warn!(%error, bridge = bridge.name, "cannot remove the host's rules");
    }
}

fn nft_removal(bridge: &str) -> String {
    // To name a table before deleting it makes that work whether or not it is there.
    format!("table inet tulle-{bridge}\ndelete table inet tulle-{bridge}\n")
}

/// The host's rules for a bridge, for `nft -f`.
pub(crate) fn nft(bridge: &Bridge) -> String {
    let mut text = nft_removal(&bridge.name);
    let name = &bridge.name;
    let (v4, v6) = (bridge.v4.trunc(), bridge.v6.trunc());
    let _ = write!(
        text,
        r#"table inet tulle-{name} {{
	chain forward {{
		type filter hook forward priority filter; policy accept;
		oifname "{name}" iifname != "{name}" ct state new drop comment "workloads are reached through gateways"
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {v4} oifname != "{name}" masquerade
		ip6 saddr {v6} oifname != "{name}" masquerade
	}}
}}
"#
    );
    text
}

/// The host's rules for a bridge, for `iptables-restore --noflush` or `ip6tables-restore --noflush`.
pub(crate) fn iptables(bridge: &Bridge, v6: bool) -> String {
    let name = &bridge.name;
    let subnet = if v6 {
        bridge.v6.trunc().to_string()
    } else {
        bridge.v4.trunc().to_string()
    };
    format!(
        "*nat
:TULLE_{name} - [0:0]
-A POSTROUTING -j TULLE_{name}
-A TULLE_{name} -s {subnet} ! -o {name} -j MASQUERADE
COMMIT
*filter
:TULLE_{name} - [0:0]
-I FORWARD -j TULLE_{name}
-A TULLE_{name} -i {name} -j ACCEPT
-A TULLE_{name} -o {name} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A TULLE_{name} -o {name} -j DROP
COMMIT
"
    )
}

fn iptables_removal(name: &str) -> String {
    format!(
        "*nat
-D POSTROUTING -j TULLE_{name}
-F TULLE_{name}
-X TULLE_{name}
COMMIT
*filter
-D FORWARD -j TULLE_{name}
-F TULLE_{name}
-X TULLE_{name}
COMMIT
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge() -> Bridge {
        Bridge {
            name: "tulle0".into(),
            v4: "10.96.0.1/16".parse().unwrap(),
            v6: "fd7e:1::1/64".parse().unwrap(),
        }
    }

    #[test]
    fn the_hosts_rules_concern_the_bridge_alone() {
        let text = nft(&bridge());
        assert!(text.starts_with("table inet tulle-tulle0\ndelete table inet tulle-tulle0\n"));
        assert!(text.contains("ip saddr 10.96.0.0/16 oifname != \"tulle0\" masquerade"));
        assert!(text.contains("ip6 saddr fd7e:1::/64 oifname != \"tulle0\" masquerade"));
        assert!(!text.contains("flush ruleset"));
    }

    #[test]
    fn the_iptables_form_has_the_subnet_of_its_family() {
        assert!(iptables(&bridge(), false).contains("-s 10.96.0.0/16 ! -o tulle0 -j MASQUERADE"));
        assert!(iptables(&bridge(), true).contains("-s fd7e:1::/64 ! -o tulle0 -j MASQUERADE"));
    }

    /// In a namespace of its own, which is gone afterwards.
    #[test]
    fn both_backends_take_the_hosts_rules_twice_and_give_them_back() {
        if let Err(reason) = crate::available() {
            eprintln!("skipped: {reason}");
            return;
        }
        let listing = |tool: &str, arguments: &[&str]| {
            let output = std::process::Command::new(tool).args(arguments).output();
            output.map_or_else(|_| String::new(), |o| String::from_utf8(o.stdout).unwrap())
        };
        let work = move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            for (backend, tool, show) in [
                (Backend::Nft, "nft", &["list", "ruleset"][..]),
                (Backend::Iptables, "iptables-restore", &[][..]),
            ] {
                if firewall::find(tool).is_none() {
                    continue;
                }
                let shown = || match backend {
                    Backend::Nft => listing("nft", show),
                    Backend::Iptables => {
                        listing("iptables-save", &[]) + &listing("ip6tables-save", &[])
                    }
                };
                apply(backend, &bridge()).unwrap();
                let once = shown();
                assert_eq!(
                    once.matches("MASQUERADE").count() + once.matches("masquerade").count(),
                    2,
                    "{once}"
                );
                apply(backend, &bridge()).unwrap();
                let lines =
                    |text: &str| text.lines().filter(|l| !l.starts_with(['#', ':'])).count();
                assert_eq!(lines(&shown()), lines(&once), "{}", shown());
                remove(backend, &bridge());
                remove(backend, &bridge());
                assert!(!shown().contains("tulle0"), "{}", shown());
            }
        };
        std::thread::spawn(work).join().unwrap();
    }
}
