//! Interception set-up: network namespaces, veth pairs, nftables and iptables rules.
