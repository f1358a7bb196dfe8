//! UDP sockets: a listening one that answers from the address it was asked at, and connected ones.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{UdpSocket, UnixDatagram};

use super::Upstream;

/// A listening socket.
///
/// Where it is bound to no address in particular, the kernel would answer from whichever address
/// it finds on the way to the client; clients drop answers from addresses that they did not ask.
/// So the address that was asked is read with each datagram, and answers are sent from it.
#[derive(Debug)]
pub struct Listener {
    socket: UdpSocket,
    /// Where it is bound to no address in particular: room for what the kernel tells.
    told: Option<RefCell<Box<[u8]>>>,
}

/// Where a datagram came from, and where it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its length.
    pub length: usize,
    /// Who sent it.
    pub client: SocketAddr,
    /// The address that it was sent to, where the socket has no single one.
    pub local: Option<IpAddr>,
}

impl Listener {
    /// Takes a bound, non-blocking socket.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let told = address.ip().is_unspecified();
        if told {
            // On a dual-stack socket both kinds arrive.
            let v6 = address
                .is_ipv6()
                .then(|| setsockopt(&socket, Ipv6RecvPacketInfo, &true));
            let v4 = setsockopt(&socket, Ipv4PacketInfo, &true);
            v6.unwrap_or(v4)?;
        }
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            told: told.then(|| RefCell::new(space().into_boxed_slice())),
        })
    }

    /// The address that it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for a datagram.
    pub async fn receive(&self, into: &mut [u8]) -> io::Result<Received> {
        let Some(told) = &self.told else {
            let (length, client) = self.socket.recv_from(into).await?;
            return Ok(Received {
                length,
                client,
                local: None,
            });
        };
        let receive = || receive(&self.socket, into, &mut told.borrow_mut());
        self.socket.async_io(Interest::READABLE, receive).await
    }

    /// Sends a datagram, or fails at once where the socket is full.
    pub fn send(&self, data: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<usize> {
        let Some(from) = from else {
            return SockRef::from(&self.socket).send_to(data, &to.into());
        };
        let (v4, v6) = (packet_info_v4(from), packet_info_v6(from));
        // By the family of the socket: answers to IPv4 on a dual-stack one go to mapped addresses.
        let control = match to {
            SocketAddr::V4(_) => ControlMessage::Ipv4PacketInfo(&v4),
            SocketAddr::V6(_) => ControlMessage::Ipv6PacketInfo(&v6),
        };
        let to = SockaddrStorage::from(to);
        let sent = sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(data)],
            &[control],
            MsgFlags::MSG_DONTWAIT,
            Some(&to),
        )?;
        Ok(sent)
    }
}

/// A socket with one other end.
#[derive(Debug)]
pub enum Socket {
    /// Hears only whom it is connected to.
    Udp(UdpSocket),
    /// Of a local pair.
    Pair(UnixDatagram),
}

impl Socket {
    /// Connects to an upstream; `mark` is the `SO_MARK` of a socket to an address.
    pub fn to(upstream: Upstream, mark: Option<u32>) -> io::Result<Self> {
        let to = match upstream {
            Upstream::Pair(end) => return Ok(Self::Pair(end)),
            Upstream::Address(to) => to,
        };
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = crate::socket::bind_udp(SocketAddr::new(any, 0), mark)?;
        socket.connect(to)?;
        Ok(Self::Udp(UdpSocket::from_std(socket)?))
    }

    /// Sends a datagram, or fails at once where the other end is full.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => SockRef::from(socket).send(datagram),
            Self::Pair(socket) => SockRef::from(socket).send(datagram),
        }
    }

    /// Waits until there may be something to receive. Fails with what ICMP told of the other end,
    /// which does not make a socket readable.
    pub async fn readable(&self) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::ERROR;
        let ready = match self {
            Self::Udp(socket) => socket.ready(interest).await?,
            Self::Pair(socket) => socket.ready(interest).await?,
        };
        if ready.is_error() {
            let told = match self {
                Self::Udp(socket) => socket.take_error()?,
                Self::Pair(socket) => socket.take_error()?,
            };
            if let Some(error) = told {
                return Err(error);
            }
            // Told already to whoever sent; this forgets the readiness.
            let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = match self {
                Self::Udp(socket) => socket.try_io(Interest::ERROR, nothing),
                Self::Pair(socket) => socket.try_io(Interest::ERROR, nothing),
            };
        }
        Ok(())
    }

    /// Receives what is there.
    pub fn try_recv(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.try_recv(into),
            Self::Pair(socket) => socket.try_recv(into),
        }
    }
}

/// Whether an error concerns one datagram and not the whole session.
pub(super) fn is_about_datagram(error: &io::Error) -> bool {
    use nix::errno::Errno::{EAGAIN, EMSGSIZE, ENOBUFS, ENOMEM};
    let errno = error.raw_os_error().map(nix::errno::Errno::from_raw);
    matches!(errno, Some(EAGAIN | EMSGSIZE | ENOBUFS | ENOMEM))
}

fn space() -> Vec<u8> {
    nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo)
}

fn receive(socket: &UdpSocket, into: &mut [u8], told: &mut [u8]) -> io::Result<Received> {
    let mut buffers = [IoSliceMut::new(into)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(told),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let client = message.address.as_ref().and_then(address);
    let client = client.ok_or(io::ErrorKind::AddrNotAvailable)?;
    // What does not fit is cut off by the kernel, and not believed.
    let local = message.cmsgs().ok().and_then(|mut all| {
        all.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into())
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
            }
            _ => None,
        })
    });
    Ok(Received {
        length: message.bytes,
        client,
        local,
    })
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage
        .as_sockaddr_in()
        .map(|a| SocketAddr::V4((*a).into()));
    v4.or_else(|| {
        storage
            .as_sockaddr_in6()
            .map(|a| SocketAddr::V6((*a).into()))
    })
}

fn packet_info_v4(from: IpAddr) -> libc::in_pktinfo {
    let ip = match from.to_canonical() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from(ip).to_be(),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    }
}

fn packet_info_v6(from: IpAddr) -> libc::in6_pktinfo {
    let ip = match from {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr {
            s6_addr: ip.octets(),
        },
        ipi6_ifindex: 0,
    }
}
