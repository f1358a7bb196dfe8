//! The client of the control plane's HTTP API.
//!
//! HTTP/1.1 over the unix socket in the data directory (where the file's permission is the
//! authorisation), or over TCP to the API's own port. One connection for each request: these are
//! commands, not load.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::cli::Connection;
use crate::failure::usage;
use crate::paths;

/// No answer of the API is larger than this.
const BODY_LIMIT: usize = 256 * 1024 * 1024;
/// How long the control plane may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// Speaks to one control plane.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: Address,
}

/// An answer: its status, and its JSON body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    message: String,
    #[serde(default)]
    hint: Option<String>,
}

impl Address {
    /// Reads what `--control` and `TULLE_CONTROL` may say.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path.trim_start_matches("//"))));
        }
        if text.starts_with('/') || text.starts_with("./") {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.trim_end_matches('/');
        let valid = bare
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !valid {
            return Err(usage!(
                "--control \"{text}\": expected HOST:PORT, or the path of a unix socket"
            ));
        }
        Ok(Self::Tcp(bare.to_owned()))
    }

    /// What the flags and the environment say, else the socket in the data directory.
    pub(crate) fn of(connection: &Connection) -> anyhow::Result<Self> {
        match &connection.control {
            Some(text) if !text.is_empty() => Self::parse(text),
            _ => {
                let dir = connection.data_dir.clone().unwrap_or_else(paths::data_dir);
                Ok(Self::Unix(paths::control_socket(&dir)))
            }
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

impl Client {
    /// A client of the control plane that the flags name.
    pub(crate) fn of(connection: &Connection) -> anyhow::Result<Self> {
        Ok(Self::new(Address::of(connection)?))
    }

    /// A client of the control plane at `address`.
    pub(crate) fn new(address: Address) -> Self {
        Self { address }
    }

    /// Sends a request and takes any answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let host = match &self.address {
            Address::Unix(_) => "localhost",
            Address::Tcp(address) => address,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::ACCEPT, "application/json")
            .body(Full::new(body.into()))
            .with_context(|| format!("\"{path}\" is not a path"))?;
        let exchange = async {
            match &self.address {
                Address::Unix(path) => exchange(connect_unix(path).await?, request).await,
                Address::Tcp(address) => exchange(connect_tcp(address).await?, request).await,
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| {
                anyhow!(
                    "the control plane at {} took the request and gave no answer within {} s; see its log",
                    self.address,
                    ANSWER_TIMEOUT.as_secs()
                )
            })?
            .map_err(|error| self.explain(error))
    }

    /// Sends a request and demands success.
    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let body = body.map_or_else(Bytes::new, |value| Bytes::from(value.to_string()));
        let answer = self.send(method, path, "application/json", body).await?;
        if !answer.status.is_success() {
            return Err(answer.error());
        }
        answer.json()
    }

    /// Reads a resource or a report.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.json(Method::GET, path, None).await
    }

    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(io) = error.downcast_ref::<std::io::Error>() else {
            return error.context(format!("talking to the control plane at {}", self.address));
        };
        let address = &self.address;
        match io.kind() {
            std::io::ErrorKind::PermissionDenied => anyhow!(
                "the control plane's socket {address} belongs to another user: run this as that user, or name a control plane with --control"
            ),
            std::io::ErrorKind::NotFound
            | std::io::ErrorKind::ConnectionRefused
            | std::io::ErrorKind::NotADirectory
            | std::io::ErrorKind::TimedOut => anyhow!(
                "no control plane answers at {address}: start one with `tulle control`, or name one with --control"
            ),
            _ => error.context(format!("no control plane answers at {address}")),
        }
    }
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body).context(
            "the answer is no JSON: is this the HTTP API of a Tulle control plane (port 15080)?",
        )
    }

    /// What the control plane said was wrong.
    pub(crate) fn error(&self) -> anyhow::Error {
        let Ok(ErrorBody { error }) = serde_json::from_slice::<ErrorBody>(&self.body) else {
            let text = String::from_utf8_lossy(&self.body);
            let line: String = text
                .lines()
                .next()
                .unwrap_or("")
                .chars()
                .take(200)
                .collect();
            return anyhow!("the control plane answered {}: {line}", self.status);
        };
        let text = match error.hint.filter(|h| !h.is_empty()) {
            Some(hint) => format!("{}; {hint}", error.message),
            None => error.message,
        };
        if self.status == StatusCode::BAD_REQUEST {
            usage!("{text}")
        } else {
            anyhow!(text)
        }
    }
}

async fn connect_unix(path: &Path) -> anyhow::Result<UnixStream> {
    Ok(UnixStream::connect(path).await?)
}

async fn connect_tcp(address: &str) -> anyhow::Result<TcpStream> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(stream) => Ok(stream?),
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| {
        anyhow!(error).context("it does not speak HTTP here (the API's port is 15080, not 15012)")
    })?;
    let status = response.status();
    let Ok(body) = Limited::new(response.into_body(), BODY_LIMIT)
        .collect()
        .await
    else {
        bail!("the answer broke off, or is larger than {BODY_LIMIT} bytes");
    };
    driver.abort();
    Ok(Answer {
        status,
        body: body.to_bytes(),
    })
}

/// One element of a path or query, percent-encoded.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            use std::fmt::Write as _;
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_host_and_port() {
        assert_eq!(
            Address::parse("unix:///run/x.sock").expect("valid"),
            Address::Unix("/run/x.sock".into())
        );
        assert_eq!(
            Address::parse("http://localhost:15080/").expect("valid"),
            Address::Tcp("localhost:15080".into())
        );
        for bad in ["localhost", ":1", "host:port", "host:70000", ""] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn elements_are_encoded() {
        assert_eq!(encode("a/b c"), "a%2Fb%20c");
    }
}
