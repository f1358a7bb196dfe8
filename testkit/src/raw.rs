//! A client that sends exact bytes and reads with deadlines, over TCP or TLS.
//!
//! It knows just enough of HTTP/1.1 to find the end of a response; what it sends is never checked, so
//! that tests can send what no HTTP library would.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::SockRef;

/// A connection under the test's hand.
pub struct Raw {
    stream: Stream,
    /// Received and not yet taken.
    buffer: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// How a read ended that did not find what it looked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// The peer closed its side in order.
    Closed,
    /// The peer reset the connection.
    Reset,
    /// TLS failed; the alert, when the peer sent one.
    Tls(rustls::Error),
    /// Nothing more came in time.
    TimedOut,
    /// Something else.
    Failed(String),
}

/// A response of HTTP/1.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// With chunked coding taken off.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a header; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The body as text, whatever it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &self.text())
            .finish()
    }
}

impl Raw {
    /// Connects within five seconds.
    pub fn connect(address: impl ToSocketAddrs) -> io::Result<Self> {
        let address = address
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::from(ErrorKind::AddrNotAvailable))?;
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: Stream::Plain(stream),
            buffer: Vec::new(),
        })
    }

    /// Connects and shakes hands within five seconds, `sni` being the server name sent.
    ///
    /// TLS 1.3 clients are done before the server has seen their certificate: a refusal of it comes
    /// with the first read, as [`Ended::Tls`] with the alert.
    pub fn connect_tls(
        address: impl ToSocketAddrs,
        config: Arc<ClientConfig>,
        sni: &str,
    ) -> Result<Self, Ended> {
        let failed = |e: io::Error| ended(&e);
        let Stream::Plain(mut tcp) = Self::connect(address).map_err(failed)?.stream else {
            return Err(Ended::Failed("a plain connection was made".to_owned()));
        };
        let name = ServerName::try_from(sni.to_owned()).expect("a DNS name");
        let mut tls = ClientConnection::new(config, name).map_err(Ended::Tls)?;
        tcp.set_read_timeout(Some(Duration::from_secs(5)))
            .map_err(failed)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).map_err(failed)?;
        }
        Ok(Self {
            stream: Stream::Tls(Box::new(StreamOwned::new(tls, tcp))),
            buffer: Vec::new(),
        })
    }

    /// The TLS connection, where it is one.
    pub fn tls(&self) -> Option<&ClientConnection> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => Some(&tls.conn),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &tls.sock,
        }
    }

    /// Our own address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().local_addr()
    }

    /// Sends these bytes; an error when the peer no longer takes them, or not within ten seconds.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.tcp()
            .set_write_timeout(Some(Duration::from_secs(10)))?;
        match &mut self.stream {
            Stream::Plain(tcp) => tcp.write_all(bytes.as_ref()),
            Stream::Tls(tls) => tls.write_all(bytes.as_ref()).and_then(|()| tls.flush()),
        }
    }

    /// Sends byte by byte, each in a segment of its own, with a pause after each.
    pub fn send_slowly(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) -> io::Result<()> {
        for byte in bytes.as_ref() {
            self.send([*byte])?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Sends a GET request and reads the response, within ten seconds.
    #[track_caller]
    pub fn get(&mut self, host: &str, path: &str) -> Response {
        self.request(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
    }

    /// Sends these bytes and reads a response, within ten seconds.
    #[track_caller]
    pub fn request(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        self.send(bytes).expect("the peer takes the request");
        match self.response(Duration::from_secs(10)) {
            Ok(response) => response,
            Err(ended) => panic!("no response: {ended:?}; received {:?}", self.received()),
        }
    }

    /// What came and was not taken, as text.
    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Reads until a pattern, which is part of what it gives.
    pub fn read_until(&mut self, pattern: &[u8], limit: Duration) -> Result<Vec<u8>, Ended> {
        let end = Instant::now() + limit;
        loop {
            let found = self
                .buffer
                .windows(pattern.len())
                .position(|w| w == pattern);
            if let Some(at) = found {
                return Ok(self.buffer.drain(..at + pattern.len()).collect());
            }
            self.fill(end)?;
        }
    }

    /// Reads this many bytes.
    pub fn read_exact(&mut self, count: usize, limit: Duration) -> Result<Vec<u8>, Ended> {
        let end = Instant::now() + limit;
        while self.buffer.len() < count {
            self.fill(end)?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Reads until the peer ends the connection: everything it sent, and how it ended it.
    pub fn read_to_end(&mut self, limit: Duration) -> (Vec<u8>, Ended) {
        let end = Instant::now() + limit;
        loop {
            if let Err(ended) = self.fill(end) {
                return (std::mem::take(&mut self.buffer), ended);
            }
        }
    }

    /// Reads one response of HTTP/1 to a request that was not HEAD; interim ones (1xx but 101) are
    /// passed over.
    pub fn response(&mut self, limit: Duration) -> Result<Response, Ended> {
        let end = Instant::now() + limit;
        let left = || end.saturating_duration_since(Instant::now());
        loop {
            let head = self.read_until(b"\r\n\r\n", left())?;
            let (status, headers) = parse_head(&head)?;
            let mut response = Response {
                status,
                headers,
                body: Vec::new(),
            };
            match status {
                101 | 204 | 304 => return Ok(response),
                100..=199 => continue,
                _ => {}
            }
            let chunked = response.header("transfer-encoding") == Some("chunked");
            let length = response.header("content-length").map(str::parse::<usize>);
            response.body = match length {
                _ if chunked => self.chunks(left)?,
                Some(Ok(length)) => self.read_exact(length, left())?,
                Some(Err(e)) => return Err(Ended::Failed(format!("content-length: {e}"))),
                None => match self.read_to_end(left()) {
                    (body, Ended::Closed) => body,
                    (_, ended) => return Err(ended),
                },
            };
            return Ok(response);
        }
    }

    fn chunks(&mut self, left: impl Fn() -> Duration) -> Result<Vec<u8>, Ended> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until(b"\r\n", left())?;
            let line = String::from_utf8_lossy(&line);
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|e| Ended::Failed(format!("chunk size {size:?}: {e}")))?;
            if size == 0 {
                // Trailers, up to the empty line.
                while self.read_until(b"\r\n", left())? != b"\r\n" {}
                return Ok(body);
            }
            body.extend(self.read_exact(size, left())?);
            self.read_exact(2, left())?;
        }
    }

    /// Says that nothing more will be sent; what comes can still be read.
    pub fn shut_write(&mut self) -> io::Result<()> {
        if let Stream::Tls(tls) = &mut self.stream {
            tls.conn.send_close_notify();
            tls.flush()?;
        }
        self.tcp().shutdown(Shutdown::Write)
    }

    /// Ends the connection with a reset instead of a close.
    pub fn reset(self) {
        // A linger time of zero makes the close a reset.
        let _ = SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }

    fn fill(&mut self, end: Instant) -> Result<(), Ended> {
        let left = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
            .ok_or(Ended::TimedOut)?;
        self.tcp()
            .set_read_timeout(Some(left))
            .map_err(|e| Ended::Failed(e.to_string()))?;
        let mut bytes = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Plain(tcp) => tcp.read(&mut bytes),
            Stream::Tls(tls) => tls.read(&mut bytes),
        };
        match read {
            Ok(0) => Err(Ended::Closed),
            Ok(n) => {
                self.buffer.extend_from_slice(&bytes[..n]);
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(ended(&e)),
        }
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw")
            .field("local_addr", &self.local_addr().ok())
            .field("received", &self.received())
            .finish_non_exhaustive()
    }
}

fn ended(error: &io::Error) -> Ended {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Ended::TimedOut,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ended::Reset,
        // TLS ended without close_notify.
        ErrorKind::UnexpectedEof => Ended::Closed,
        _ => match identity::tls::tls_error(error) {
            Some(tls) => Ended::Tls(tls.clone()),
            None => Ended::Failed(error.to_string()),
        },
    }
}

type Head = (u16, Vec<(String, String)>);

fn parse_head(head: &[u8]) -> Result<Head, Ended> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| Ended::Failed(format!("not a status line: {first:?}")))?;
    let headers = lines
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    Ok((status, headers))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use identity::ca::{Authority, DEFAULT_TTL};
    use identity::tls::{ClientAuth, Credentials, server_config};
    use model::TrustDomain;
    use rustls::{AlertDescription, ServerConnection};

    use super::*;
    use crate::certs::Forge;
    use crate::place::DataDir;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_forged_client_reads_the_alert_that_refuses_it() {
        let dir = DataDir::new("raw");
        let now = std::time::SystemTime::now();
        let authority = Authority::open(dir.path(), &TrustDomain::default(), None, now).unwrap();
        let id = identity::control_id(authority.trust_domain());
        let svid = authority.issue(&id, DEFAULT_TTL, now).unwrap();
        let genuine = dir.join("svid.pem");
        svid.save(&genuine).unwrap();
        let credentials = Credentials::new(svid, authority.trust_bundle());
        let config = server_config(&credentials, &[], ClientAuth::Required);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            for _ in 0..2 {
                let (tcp, _) = listener.accept().unwrap();
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(tls, tcp);
                let _ = stream.write_all(b"welcome").and_then(|()| stream.flush());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        let forged = Forge::new("mesh.local").svid(id.as_str());
        let stolen = crate::certs::Forged::from_pem(&std::fs::read(genuine).unwrap());
        let connect = |identity: crate::certs::Forged| {
            Raw::connect_tls(address, identity.client_config(&[]), "a.tulle").unwrap()
        };
        let (bytes, ended) = connect(forged).read_to_end(SOON);
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateUnknown);
        assert_eq!((bytes, ended), (vec![], Ended::Tls(alert)));

        let mut known = connect(stolen);
        assert_eq!(
            known.read_to_end(SOON),
            (b"welcome".to_vec(), Ended::Closed)
        );
        assert!(known.tls().is_some());
        server.join().unwrap();
    }

    #[test]
    fn a_reset_is_seen_as_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Raw::connect(listener.local_addr().unwrap()).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        client.reset();
        let error = accepted.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
