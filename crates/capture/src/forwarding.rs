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

/// The tools of the iptables backend, for IPv4 and IPv6.
const TOOLS: [(&str, &str, bool); 2] = [
    ("iptables-restore", "iptables-save", false),
    ("ip6tables-restore", "ip6tables-save", true),
];

/// Applies the host's rules for a bridge, in place of former ones.
pub(crate) fn apply(backend: Backend, bridge: &Bridge) -> Result<(), CaptureError> {
    remove(backend, bridge);
    if backend == Backend::Nft {
        firewall::nft(&nft(bridge))?;
    }
    for (restore, save, v6) in TOOLS {
        let text = match backend {
            // Docker has the kernel drop what is forwarded, unless an iptables rule accepts it.
            Backend::Nft if drops_by_default(save) => iptables_filter(bridge),
            Backend::Nft => continue,
            Backend::Iptables if v6 && !kernel_has_ipv6() => continue,
            Backend::Iptables => iptables(bridge, v6),
        };
        firewall::feed(restore, &["--noflush"], &text)?;
    }
    Ok(())
}

/// Removes the host's rules for a bridge; none is fine.
pub(crate) fn remove(backend: Backend, bridge: &Bridge) {
    let mut results = Vec::new();
    if backend == Backend::Nft {
        results.push(firewall::nft(&nft_removal(&bridge.name)));
    }
    for (restore, save, _) in TOOLS {
        let text = iptables_removal(&bridge.name, &firewall::listing(save, &[]));
        if !text.is_empty() {
            results.push(firewall::feed(restore, &["--noflush"], &text));
        }
    }
    for error in results.into_iter().filter_map(Result::err) {
        warn!(%error, bridge = bridge.name, "cannot remove the host's rules");
    }
}

fn drops_by_default(save: &str) -> bool {
    firewall::listing(save, &["-t", "filter"]).contains("\n:FORWARD DROP")
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
		iifname "{name}" oifname != "{name}" tcp flags syn tcp option maxseg size set rt mtu
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
    let filter = iptables_filter(bridge);
    format!(
        "*nat
:TULLE_{name} - [0:0]
-A POSTROUTING -j TULLE_{name}
-A TULLE_{name} -s {subnet} ! -o {name} -j MASQUERADE
COMMIT
*mangle
:TULLE_{name} - [0:0]
-A FORWARD -j TULLE_{name}
-A TULLE_{name} -i {name} ! -o {name} -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
{filter}"
    )
}

fn iptables_filter(bridge: &Bridge) -> String {
    let name = &bridge.name;
    format!(
        "*filter
:TULLE_{name} - [0:0]
-I FORWARD -j TULLE_{name}
-A TULLE_{name} -i {name} -j ACCEPT
-A TULLE_{name} -o {name} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A TULLE_{name} -o {name} -j DROP
COMMIT
"
    )
}

/// Takes out of a listing what is the bridge's; empty where nothing is.
fn iptables_removal(bridge: &str, listing: &str) -> String {
    let chain = format!(":TULLE_{bridge} ");
    let jump = format!(" -j TULLE_{bridge}");
    let mut text = String::new();
    for table in listing.split("\n*").map(|t| t.trim_start_matches('*')) {
        if !table.contains(&chain) {
            continue;
        }
        let _ = writeln!(text, "*{}", table.lines().next().unwrap_or_default());
        let jumps = table.lines().filter(|line| line.ends_with(&jump));
        for line in jumps.filter_map(|line| line.strip_prefix("-A")) {
            let _ = writeln!(text, "-D{line}");
        }
        let _ = writeln!(text, "-F TULLE_{bridge}\n-X TULLE_{bridge}\nCOMMIT");
    }
    text
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
                    Backend::Nft => firewall::listing("nft", show),
                    Backend::Iptables => {
                        firewall::listing("iptables-save", &[])
                            + &firewall::listing("ip6tables-save", &[])
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

    #[test]
    fn where_the_host_drops_what_is_forwarded_the_bridge_is_let_through() {
        let usable = crate::available() == Ok(Backend::Nft);
        if !usable || firewall::find("iptables-restore").is_none() {
            eprintln!("skipped: needs root, nft and iptables");
            return;
        }
        let work = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let docker = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i docker0 -j ACCEPT\nCOMMIT\n";
            firewall::feed("iptables-restore", &[], docker).unwrap();
            let shown = || firewall::listing("iptables-save", &["-t", "filter"]);
            for _ in 0..2 {
                apply(Backend::Nft, &bridge()).unwrap();
                assert_eq!(
                    shown().matches("-A FORWARD -j TULLE_tulle0").count(),
                    1,
                    "{}",
                    shown()
                );
            }
            remove(Backend::Nft, &bridge());
            assert!(!shown().contains("TULLE"), "{}", shown());
            assert!(
                shown().contains("docker0") && drops_by_default("iptables-save"),
                "{}",
                shown()
            );
        };
        std::thread::spawn(work).join().unwrap();
    }
}
