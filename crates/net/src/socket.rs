//! Opening, tuning and questioning sockets.
//!
//! Listeners share their port between worker threads (`SO_REUSEPORT`), so that the kernel spreads
//! connections without a lock. Sockets that the proxy itself opens carry [`MARK`], which the
//! redirect rules of `capture` let pass: that is what keeps the proxy from catching itself.
//! Setting a mark needs `CAP_NET_ADMIN`; without it [`connect`] fails rather than loop.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// The mark (`SO_MARK`) of the proxy's own sockets: 1337, as Istio's ambient mode uses it.
pub const MARK: u32 = 0x539;

/// How a listening socket is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// Lets several sockets listen on the same port; the kernel spreads connections over them.
    pub reuse_port: bool,
    /// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
    /// A socket on `[::]` also takes IPv4 (peers then appear as `::ffff:a.b.c.d`; see [`canonical`]).
    pub dual_stack: bool,
    /// Accepts connections to addresses that are not the host's (`IP_TRANSPARENT`, for TPROXY).
    pub transparent: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            reuse_port: true,
            backlog: 4096,
            dual_stack: false,
            transparent: false,
        }
    }
}

/// Keepalive probes of an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe; whole seconds.
    pub idle: Duration,
    /// Time between probes; whole seconds.
    pub interval: Duration,
    /// Unanswered probes after which the connection is given up.
    pub probes: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(1),
            interval: Duration::from_secs(15),
            probes: 4,
        }
    }
}

/// Options of an established connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Sends small segments at once (`TCP_NODELAY`).
    pub nodelay: bool,
    /// Probes of an idle connection.
    pub keepalive: Option<Keepalive>,
    /// Sent data unacknowledged for so long breaks the connection (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Some(Keepalive::default()),
            user_timeout: Some(Duration::from_secs(90)),
        }
    }
}

/// How [`connect`] opens a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// `SO_MARK` of the socket; [`MARK`] in transparent mode.
    pub mark: Option<u32>,
    /// Longest wait for the handshake.
    pub timeout: Duration,
    /// `TCP_NODELAY` (the common case; the rest is in `tuning`).
    pub nodelay: bool,
    /// Keepalive probes.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`.
    pub user_timeout: Option<Duration>,
    /// Local address to connect from.
    pub source: Option<IpAddr>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let tuning = Tuning::default();
        Self {
            mark: None,
            timeout: Duration::from_secs(10),
            nodelay: tuning.nodelay,
            keepalive: tuning.keepalive,
            user_timeout: tuning.user_timeout,
            source: None,
        }
    }
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host answered with a reset: nothing listens on that port.
    #[error("connection to {0} was refused: nothing listens there")]
    Refused(SocketAddr),
    /// No answer in time.
    #[error(
        "connection to {0} timed out after {1:?}: host down, or packets are dropped on the way"
    )]
    Timeout(SocketAddr, Duration),
    /// There is no way to that address.
    #[error("{0} is unreachable: no route, or a firewall rejects it")]
    Unreachable(SocketAddr, #[source] io::Error),
    /// Anything else, such as no file descriptors or no ports left, or the mark not permitted.
    #[error("cannot open a connection to {0}")]
    Other(SocketAddr, #[source] io::Error),
}

impl ConnectError {
    fn classify(address: SocketAddr, timeout: Duration, e: io::Error) -> Self {
        match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNREFUSED | Errno::ECONNRESET) => Self::Refused(address),
            Some(Errno::ETIMEDOUT) => Self::Timeout(address, timeout),
            Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::ENETDOWN) => {
                Self::Unreachable(address, e)
            }
            _ => Self::Other(address, e),
        }
    }
}

/// Opens a listening TCP socket, non-blocking and closed on exec.
///
/// `[::]` with `dual_stack` falls back to `0.0.0.0` on a host without IPv6.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<std::net::TcpListener> {
    match listen_on(address, *options) {
        Err(e)
            if options.dual_stack
                && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && matches!(
                    e.raw_os_error().map(Errno::from_raw),
                    Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
                ) =>
        {
            let v4 = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), address.port());
            listen_on(v4, *options)
        }
        result => result,
    }
}

fn listen_on(address: SocketAddr, options: ListenOptions) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A listener of the process before us may leave connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!options.dual_stack)?;
    }
    if options.transparent {
        if address.is_ipv6() {
            socket.set_ip_transparent_v6(true)?;
        } else {
            socket.set_ip_transparent_v4(true)?;
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// Opens a UDP socket, non-blocking and closed on exec, with an optional mark.
pub fn bind_udp(address: SocketAddr, mark: Option<u32>) -> io::Result<std::net::UdpSocket> {
    bind_datagrams(address, mark, false)
}

/// Opens a UDP socket that shares its port with others of this process' user: the kernel gives each
/// client's datagrams to one of them. On `[::]` it also takes IPv4.
pub fn share_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    bind_datagrams(address, None, true)
}

fn bind_datagrams(
    address: SocketAddr,
    mark: Option<u32>,
    shared: bool,
) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!shared || !address.ip().is_unspecified())?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Where a connection that a REDIRECT rule brought here was meant to go.
///
/// `None` where nothing was redirected: no rule, or the rule led to where the client wanted to go
/// anyway. IPv4 on a dual-stack socket gives an IPv4 address.
pub fn original_destination(stream: &impl AsFd) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = canonical(socket.local_addr().ok()?.as_socket()?);
    let original = if local.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    let original = canonical(original.ok()?.as_socket()?);
    (original != local).then_some(original)
}

/// Opens a connection.
pub async fn connect(
    address: SocketAddr,
    options: &ConnectOptions,
) -> Result<TcpStream, ConnectError> {
    let other = |e| ConnectError::Other(address, e);
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(other)?;
    if let Some(mark) = options.mark {
        SockRef::from(&socket).set_mark(mark).map_err(other)?;
    }
    if let Some(source) = options.source {
        socket.bind(SocketAddr::new(source, 0)).map_err(other)?;
    }
    let tuning = Tuning {
        nodelay: options.nodelay,
        keepalive: options.keepalive,
        user_timeout: options.user_timeout,
    };
    tune(&socket, &tuning).map_err(other)?;
    match tokio::time::timeout(options.timeout, socket.connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => Err(ConnectError::classify(address, options.timeout, e)),
        Err(_) => Err(ConnectError::Timeout(address, options.timeout)),
    }
}

/// Sets the options of a TCP socket, connected or not.
pub fn tune(socket: &impl AsFd, tuning: &Tuning) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(tuning.nodelay)?;
    if let Some(keepalive) = tuning.keepalive {
        let params = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.probes);
        socket.set_tcp_keepalive(&params)?;
    }
    if let Some(limit) = tuning.user_timeout {
        socket.set_tcp_user_timeout(Some(limit))?;
    }
    Ok(())
}

/// Makes closing the socket send a reset instead of an orderly end, so that the peer learns that
/// what it got is not the whole.
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// The address, with an IPv4 one that came mapped into IPv6 unmapped.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The user id of the process at the other end of a unix socket, as the kernel vouches for it.
pub fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(stream.peer_cred()?.uid())
}

#[cfg(test)]
mod tests;
