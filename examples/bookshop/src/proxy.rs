//! `HTTP_PROXY` and its kin, as ordinary clients read them.
//!
//! HTTP goes through `http_proxy`; gRPC, as in gRPC's own libraries, through the first of
//! `grpc_proxy`, `https_proxy` and `http_proxy`, with CONNECT. `no_proxy` lists hosts, of which each
//! also means the names below it; `*` means all.

use std::time::Duration;

use anyhow::{Context, bail};
use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a proxy's answer to CONNECT.
const MAX_HEAD: usize = 8192;

/// The proxies to use, as `host:port`.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<String>,
    grpc: Option<String>,
    exempt: Vec<String>,
}

impl Proxies {
    /// Reads the environment through `var`.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let first = |names: &[&str]| -> anyhow::Result<Option<String>> {
            for name in names {
                for name in [name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                    if let Some(value) = var(&name).filter(|value| !value.is_empty()) {
                        return address(&value)
                            .with_context(|| format!("{name}: \"{value}\""))
                            .map(Some);
                    }
                }
            }
            Ok(None)
        };
        let exempt = var("no_proxy")
            .or_else(|| var("NO_PROXY"))
            .unwrap_or_default();
        Ok(Self {
            http: first(&["http_proxy"])?,
            grpc: first(&["grpc_proxy", "https_proxy", "http_proxy"])?,
            exempt: exempt
                .split(',')
                .map(|host| host.trim().trim_start_matches('.').to_ascii_lowercase())
                .filter(|host| !host.is_empty())
                .collect(),
        })
    }

    /// The proxy for HTTP to this host.
    pub(crate) fn for_http(&self, host: &str) -> Option<&str> {
        self.http.as_deref().filter(|_| !self.is_exempt(host))
    }

    /// The proxy for gRPC to this host.
    pub(crate) fn for_grpc(&self, host: &str) -> Option<&str> {
        self.grpc.as_deref().filter(|_| !self.is_exempt(host))
    }

    fn is_exempt(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        self.exempt.iter().any(|exempt| {
            exempt == "*"
                || *exempt == host
                || host
                    .strip_suffix(exempt.as_str())
                    .is_some_and(|rest| rest.ends_with('.'))
        })
    }
}

/// `host:port` of a proxy's URL; the scheme may be left out.
fn address(value: &str) -> anyhow::Result<String> {
    let text = if value.contains("://") {
        value.to_owned()
    } else {
        format!("http://{value}")
    };
    let uri: Uri = text.parse().context("is not a URL")?;
    if uri.scheme_str() != Some("http") {
        bail!("only proxies at http:// are supported");
    }
    let host = uri.host().context("names no host")?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80)))
}

/// Connects to `host:port`.
pub(crate) async fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .with_context(|| format!("{address} did not answer in time"))?
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to `host:port` through a proxy, by CONNECT (RFC 9110, 9.3.6).
pub(crate) async fn tunnel(proxy: &str, target: &str) -> anyhow::Result<TcpStream> {
    let mut stream = connect(proxy).await?;
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte: what follows the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            bail!("proxy {proxy}: the answer to CONNECT {target} is too long");
        }
        let byte = timeout(CONNECT_TIMEOUT, stream.read_u8())
            .await
            .with_context(|| format!("proxy {proxy} did not answer CONNECT {target} in time"))?
            .with_context(|| format!("proxy {proxy} closed on CONNECT {target}"))?;
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    if !line.split(' ').nth(1).is_some_and(|s| s.starts_with('2')) {
        bail!("proxy {proxy} refused CONNECT {target}: {line}");
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        let var = |name: &str| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Proxies::from_env(var).expect("valid")
    }

    #[test]
    fn exempt_hosts_and_those_below_go_direct() {
        let p = proxies(&[
            ("HTTP_PROXY", "http://127.0.0.1:15001/"),
            ("NO_PROXY", "localhost, .corp,127.0.0.1,::1"),
        ]);
        assert_eq!(p.for_http("reviews.bookshop"), Some("127.0.0.1:15001"));
        assert_eq!(p.for_grpc("reviews.bookshop"), Some("127.0.0.1:15001"));
        for host in ["localhost", "127.0.0.1", "[::1]", "a.corp", "CORP"] {
            assert_eq!(p.for_http(host), None, "{host}");
        }
        assert!(p.for_http("mycorp").is_some());
        let all = proxies(&[("http_proxy", "p:1"), ("no_proxy", "*")]);
        assert_eq!(all.for_http("a"), None);
    }

    #[test]
    fn grpc_prefers_its_own_proxy() {
        let p = proxies(&[("http_proxy", "a:1"), ("grpc_proxy", "b:2")]);
        assert_eq!(p.for_grpc("x"), Some("b:2"));
        assert_eq!(p.for_http("x"), Some("a:1"));
        assert_eq!(proxies(&[]).for_http("x"), None);
        assert!(Proxies::from_env(|_| Some("socks5://x".to_owned())).is_err());
    }
}
