//! The rules as iptables has them: one text for each family.

use std::fmt::Write as _;

use super::{Family, Redirect};

pub(super) fn text(redirect: &Redirect, family: Family) -> String {
    let mut text = String::from(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :POSTROUTING ACCEPT [0:0]\n:TULLE_INBOUND - [0:0]\n:TULLE_OUTBOUND - [0:0]\n\
         -A PREROUTING -p tcp -j TULLE_INBOUND\n-A OUTPUT -j TULLE_OUTBOUND\n",
    );
    for rule in outbound(redirect, family) {
        let _ = writeln!(text, "-A TULLE_OUTBOUND {rule}");
    }
    for rule in inbound(redirect) {
        let _ = writeln!(text, "-A TULLE_INBOUND {rule}");
    }
    text.push_str(
        "COMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n",
    );
    for port in redirect.closed() {
        let _ = writeln!(
            text,
            "-A INPUT ! -i lo -p tcp --dport {port} -m conntrack ! --ctstate DNAT -j REJECT --reject-with tcp-reset"
        );
    }
    text.push_str("COMMIT\n");
    text
}

fn outbound(redirect: &Redirect, family: Family) -> Vec<String> {
    let mut rules = vec![format!("-m mark --mark {:#x} -j RETURN", redirect.mark)];
    if let Some(dns) = redirect.dns {
        for protocol in ["udp", "tcp"] {
            rules.push(format!(
                "-p {protocol} --dport 53 -j REDIRECT --to-ports {dns}"
            ));
        }
    }
    rules.push("-o lo -j RETURN".to_owned());
    rules.push(match family {
        Family::V4 => "-d 127.0.0.0/8 -j RETURN".to_owned(),
        Family::V6 => "-d ::1/128 -j RETURN".to_owned(),
    });
    for net in &redirect.exclude_outbound {
        if net.addr().is_ipv4() == (family == Family::V4) {
            rules.push(format!("-d {} -j RETURN", net.trunc()));
        }
    }
    for port in super::sorted(redirect.exclude_outbound_ports.clone()) {
        rules.push(format!("-p tcp --dport {port} -j RETURN"));
    }
    rules.push(format!(
        "-p tcp -j REDIRECT --to-ports {}",
        redirect.outbound
    ));
    rules
}

fn inbound(redirect: &Redirect) -> Vec<String> {
    let mut rules = vec!["-i lo -j RETURN".to_owned()];
    for port in redirect.open().into_iter().chain(redirect.closed()) {
        rules.push(format!("-p tcp --dport {port} -j RETURN"));
    }
    rules.push(format!(
        "-p tcp -j REDIRECT --to-ports {}",
        redirect.inbound
    ));
    rules
}
