use super::*;

fn full() -> Redirect {
    Redirect {
        exclude_inbound: vec![9999, 22],
        exclude_outbound_ports: vec![3306, 25],
        exclude_outbound: vec!["10.0.0.7/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        ..Redirect::default()
    }
}

#[track_caller]
fn golden(text: &str, expected: &str) {
    assert_eq!(text, expected, "\n--- got:\n{text}");
}

#[test]
fn nft_text() {
    golden(&full().nft(), include_str!("../../testdata/full.nft"));
    golden(
        &Redirect::default().nft(),
        include_str!("../../testdata/default.nft"),
    );
}

#[test]
fn iptables_text() {
    golden(
        &full().iptables(Family::V4),
        include_str!("../../testdata/full.iptables"),
    );
    golden(
        &full().iptables(Family::V6),
        include_str!("../../testdata/full.ip6tables"),
    );
}

#[test]
fn without_dns_nothing_is_said_about_port_53() {
    let redirect = Redirect {
        dns: None,
        ..Redirect::default()
    };
    assert!(!redirect.nft().contains(" 53 "));
    assert!(!redirect.iptables(Family::V4).contains(" 53 "));
}
