//! The rules as nftables has them: one table for both families.

use std::fmt::Write as _;

use super::{Redirect, joined};

pub(super) fn text(redirect: &Redirect) -> String {
    // To name a table before deleting it makes that work whether or not it is there.
    let mut text = String::from("table inet tulle\ndelete table inet tulle\ntable inet tulle {\n");
    text.push_str("\tchain outbound {\n\t\ttype nat hook output priority -100; policy accept;\n");
    for rule in outbound(redirect) {
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str(
        "\t}\n\tchain inbound {\n\t\ttype nat hook prerouting priority -100; policy accept;\n",
    );
    for rule in inbound(redirect) {
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str("\t}\n\tchain closed {\n\t\ttype filter hook input priority 0; policy accept;\n");
    let _ = writeln!(
        text,
        "\t\tiifname != \"lo\" tcp dport {{ {} }} ct status & dnat == 0 reject with tcp reset",
        joined(&redirect.closed(), ", ")
    );
    text.push_str("\t}\n}\n");
    text
}

fn outbound(redirect: &Redirect) -> Vec<String> {
    let mut rules = vec![format!("meta mark {:#x} return", redirect.mark)];
    if let Some(dns) = redirect.dns {
        rules.push(format!("udp dport 53 redirect to :{dns}"));
        rules.push(format!("tcp dport 53 redirect to :{dns}"));
    }
    rules.push("oifname \"lo\" return".to_owned());
    rules.push("ip daddr 127.0.0.0/8 return".to_owned());
    rules.push("ip6 daddr ::1 return".to_owned());
    for net in &redirect.exclude_outbound {
        let family = if net.addr().is_ipv4() { "ip" } else { "ip6" };
        rules.push(format!("{family} daddr {} return", net.trunc()));
    }
    if !redirect.exclude_outbound_ports.is_empty() {
        let ports = super::sorted(redirect.exclude_outbound_ports.clone());
        rules.push(format!("tcp dport {{ {} }} return", joined(&ports, ", ")));
    }
    rules.push(format!(
        "meta l4proto tcp redirect to :{}",
        redirect.outbound
    ));
    rules
}

fn inbound(redirect: &Redirect) -> Vec<String> {
    vec![
        "iifname \"lo\" return".to_owned(),
        format!("tcp dport {{ {} }} return", joined(&redirect.open(), ", ")),
        format!(
            "tcp dport {{ {} }} return",
            joined(&redirect.closed(), ", ")
        ),
        format!("meta l4proto tcp redirect to :{}", redirect.inbound),
    ]
}
