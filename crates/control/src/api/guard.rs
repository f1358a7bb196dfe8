//! Who may do what.
//!
//! On the unix socket: everything, for the kernel has told that the peer is the same user or
//! root. On loopback TCP: reading for every process of this host, writing for those of the same
//! user or root; and because browsers of this host can be made to send requests there, a request
//! must name a loopback host (DNS rebinding) and no foreign origin (CSRF). Over TLS: what is
//! public.

use std::net::IpAddr;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::ApiError;
use crate::caller::{Caller, Peer};
use crate::listen::Via;

/// Everybody may read these, over TLS too: they hold nothing that is not meant for peers.
const PUBLIC: [&str; 2] = ["/api/v1/trust", "/api/openapi.json"];

/// Refuses what is not allowed.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    match check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(request: &Request) -> Result<(), ApiError> {
    let extensions = request.extensions();
    let caller = Caller::of(extensions);
    let via = extensions.get::<Via>().copied().unwrap_or(Via::Tls);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match via {
        Via::Socket => Ok(()),
        Via::Plain => {
            let peer = extensions.get::<Peer>().and_then(|p| p.remote);
            if !peer.is_some_and(|p| p.ip().to_canonical().is_loopback()) {
                return Err(forbidden(
                    "the HTTP API answers to this host only",
                    "use the unix socket or loopback on the control plane's host",
                ));
            }
            from_here(request.uri(), request.headers())?;
            if reads || matches!(caller, Caller::Local { .. }) {
                return Ok(());
            }
            Err(forbidden(
                "changes are taken from the control plane's own user and root only",
                "run the command as that user",
            ))
        }
        Via::Tls if reads && PUBLIC.contains(&request.uri().path()) => Ok(()),
        Via::Tls => Err(forbidden(
            "the HTTP API is not served to other hosts",
            "use the unix socket or loopback on the control plane's host",
        )),
    }
}

fn forbidden(message: &str, hint: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, message).hint(hint)
}

/// Whether a request over loopback was meant for this host by something on this host.
fn from_here(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    // HTTP/2 has it in the URI, HTTP/1.1 in the header.
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers
            .get(header::HOST)
            .and_then(|v| v.to_str().ok())
            .unwrap_or(""),
    };
    if !is_loopback(host_of(authority)) {
        return Err(forbidden(
            &format!("the host \"{authority}\" is not this API's (DNS rebinding is refused)"),
            "use http://127.0.0.1 or http://localhost with the API's port",
        ));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("");
        if origin.split_once("://").map(|(_, rest)| rest) != Some(authority) {
            return Err(forbidden(
                &format!("the origin \"{origin}\" is another site's"),
                "requests from web pages other than the dashboard are refused",
            ));
        }
    }
    let site = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
    if site == Some("cross-site")
        && headers
            .get("sec-fetch-mode")
            .is_none_or(|m| m != "navigate")
    {
        return Err(forbidden(
            "the request comes from another site's page",
            "open the dashboard itself",
        ));
    }
    Ok(())
}

fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    value.parse().expect("a header"),
                )
            })
            .collect()
    }

    #[test]
    fn only_a_loopback_host_is_answered() {
        let uri = Uri::from_static("/api/v1/status");
        for host in [
            "127.0.0.1:15080",
            "localhost:1",
            "LOCALHOST",
            "[::1]:15080",
            "127.0.0.1",
        ] {
            assert!(
                from_here(&uri, &headers(&[("host", host)])).is_ok(),
                "{host}"
            );
        }
        for host in [
            "evil.example:15080",
            "127.0.0.1.evil.example",
            "",
            "10.0.0.1:15080",
            "[::2]:1",
        ] {
            assert!(
                from_here(&uri, &headers(&[("host", host)])).is_err(),
                "{host}"
            );
        }
        let absolute = Uri::from_static("http://evil.example/api/v1/status");
        assert!(from_here(&absolute, &headers(&[("host", "localhost")])).is_err());
    }

    #[test]
    fn a_foreign_page_is_refused() {
        let uri = Uri::from_static("/api/v1/apply");
        let with = |origin| headers(&[("host", "localhost:15080"), ("origin", origin)]);
        assert!(from_here(&uri, &with("http://localhost:15080")).is_ok());
        for origin in ["http://evil.example", "null", "http://localhost:3000", ""] {
            assert!(from_here(&uri, &with(origin)).is_err(), "{origin}");
        }
    }
}
