//! Which user is at the other end of a loopback TCP connection.
//!
//! The kernel lists every TCP socket of the network namespace with its owner in
//! `/proc/net/tcp`; the peer's own socket is the one whose local address is our remote one.
//! Read once for each connection. Where there is no such list the user stays unknown.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The lists are not read beyond this.
const LIMIT: u64 = 16 * 1024 * 1024;

/// The user who owns the other end of a connection between two sockets of this host.
/// Blocks for the time of reading `/proc/net/tcp`.
pub(crate) fn uid_of_peer(local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|path| {
        let file = BufReader::new(File::open(path).ok()?.take(LIMIT));
        file.lines()
            .skip(1)
            .map_while(Result::ok)
            .find_map(|line| owner(&line, peer, local))
    })
}

/// The owner on a line of the list, if it is the socket with this address and remote address.
fn owner(line: &str, address: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let here = parse(fields.next()?)?;
    let there = parse(fields.next()?)?;
    if !same(here, address) || !same(there, remote) {
        return None;
    }
    // state, queues, timer, retransmits, then the user
    fields.nth(4)?.parse().ok()
}

/// `0100007F:3AE8`: each 32-bit word in the host's byte order.
fn parse(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |i: usize| -> Option<[u8; 4]> {
        let digits = address.get(i * 8..i * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut bytes = [0; 16];
            for (i, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Whether two addresses are one, an IPv4 address mapped into IPv6 included.
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_peers_user_is_this_one() {
        let own =
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("proc"));
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else {
                continue; // no IPv6 here
            };
            let client =
                TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
            let (server, peer) = listener.accept().expect("accepts");
            assert_eq!(
                uid_of_peer(server.local_addr().expect("bound"), peer),
                Some(own),
                "{bind}"
            );
            drop(client);
        }
    }

    #[test]
    fn lines_that_are_not_understood_are_passed_over() {
        let a: SocketAddr = "127.0.0.1:1".parse().expect("valid");
        for line in [
            "",
            "x",
            "0: 0100007F",
            "0: 0100007F:0001 zz:1",
            "0: \u{e9}100007F:0001 0100007F:0001",
        ] {
            assert_eq!(owner(line, a, a), None, "{line}");
        }
        let line =
            "0: 0100007F:0001 0100007F:0001 01 00000000:00000000 00:00000000 00000000  1000 0 1";
        let line = if cfg!(target_endian = "little") {
            line.to_owned()
        } else {
            line.replace("0100007F", "7F000001")
        };
        assert_eq!(owner(&line, a, a), Some(1000));
    }
}
