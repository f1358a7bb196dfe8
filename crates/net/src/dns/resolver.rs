//! Which servers and search domains the host uses: resolv.conf(5).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// What a resolv.conf says, as far as we need it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// The name servers, port 53, in the file's order.
    pub servers: Vec<SocketAddr>,
    /// Domains appended to short names.
    pub search: Vec<String>,
}

/// The C library uses no more than three.
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 32;

impl Resolver {
    /// Reads the text of a resolv.conf. Lines that are not understood are passed over, as the C
    /// library does.
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(server);
                    if resolver.servers.len() < MAX_SERVERS {
                        resolver.servers.extend(server);
                    }
                }
                Some("search" | "domain") => {
                    let domains = words.map(|d| d.trim_end_matches('.').to_ascii_lowercase());
                    resolver.search = domains.take(MAX_SEARCH).collect();
                }
                _ => {}
            }
        }
        resolver
    }

    /// Reads a resolv.conf.
    pub fn load(path: &Path) -> io::Result<Self> {
        std::fs::read_to_string(path).map(|text| Self::parse(&text))
    }
}

/// The name servers of this host.
///
/// Where systemd-resolved has put its loopback stub into resolv.conf, the servers behind it are
/// given, since the stub cannot be reached from another network namespace.
pub fn upstream() -> io::Result<Vec<SocketAddr>> {
    let servers = Resolver::load(Path::new("/etc/resolv.conf"))?.servers;
    if servers.iter().all(|s| s.ip().is_loopback())
        && let Ok(behind) = Resolver::load(Path::new("/run/systemd/resolve/resolv.conf"))
        && !behind.servers.is_empty()
    {
        return Ok(behind.servers);
    }
    Ok(servers)
}

fn server(text: &str) -> Option<SocketAddr> {
    // A link-local server carries its interface: fe80::1%eth0.
    if let Some((address, zone)) = text.split_once('%') {
        let ip = address.parse().ok()?;
        let scope = zone
            .parse()
            .or_else(|_| nix::net::if_::if_nametoindex(zone))
            .ok()?;
        return Some(std::net::SocketAddrV6::new(ip, 53, 0, scope).into());
    }
    let ip: IpAddr = text.parse().ok()?;
    Some(SocketAddr::new(ip, 53))
}
