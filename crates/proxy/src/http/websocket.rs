//! WebSocket over HTTP/2 (extended CONNECT, RFC 8441) and over HTTP/1.1 (RFC 6455): the same
//! handshake in the other version's words.
//!
//! Inside the proxy a request for one always has the words of HTTP/1.1; where the client's are
//! HTTP/2's, they are translated when it comes ([`enter`]), and where the endpoint's are, when it is
//! sent ([`Asked`]).

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::Reason;
use wire::{Method, RequestHead};

use crate::error::Failure;
use crate::http1::client::Response;

/// RFC 6455 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A handshake that was translated.
pub(crate) struct Handshake {
    key: String,
}

/// Makes an upgrade of an extended CONNECT for a WebSocket.
pub(crate) fn enter(head: &mut RequestHead) -> Option<Handshake> {
    if head.method != Method::CONNECT || head.protocol.as_deref() != Some("websocket") {
        return None;
    }
    head.protocol = None;
    head.method = Method::GET;
    let key = STANDARD.encode(rand::random::<[u8; 16]>());
    head.fields.set("upgrade", b"websocket");
    head.fields.set("sec-websocket-key", key.as_bytes());
    if !head.fields.contains("sec-websocket-version") {
        head.fields.append("sec-websocket-version", b"13");
    }
    Some(Handshake { key })
}

impl Handshake {
    /// Makes the answer one to the CONNECT (RFC 8441 5).
    pub(crate) fn leave(&self, response: &mut Response) -> Result<(), Failure> {
        if response.switched.is_none() {
            return Ok(());
        }
        let fields = &mut response.head.fields;
        // RFC 6455 4.1: whoever asked must see that it was understood.
        if fields.get_str("sec-websocket-accept") != Some(&accept(&self.key)) {
            let details = "the endpoint switched protocols without accepting the WebSocket's key";
            return Err(Failure::new(Reason::UpstreamReset, details));
        }
        for name in ["sec-websocket-accept", "upgrade", "connection"] {
            fields.remove(name);
        }
        response.head.status = 200;
        response.head.reason.clear();
        Ok(())
    }
}

/// A WebSocket that is asked for over HTTP/2.
pub(crate) struct Asked {
    key: String,
}

impl Asked {
    /// `None` for all other requests.
    pub(crate) fn of(head: &RequestHead) -> Option<Self> {
        let fields = &head.fields;
        let named = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"websocket");
        let mut upgrades = fields
            .get_all("upgrade")
            .flat_map(|v| v.split(|b| *b == b','));
        if head.method != Method::GET || !upgrades.any(named) {
            return None;
        }
        let key = fields.get_str("sec-websocket-key").unwrap_or("");
        Some(Self { key: key.into() })
    }

    /// Makes an extended CONNECT of the request (RFC 8441 4 and 5).
    pub(crate) fn write(request: &mut http::Request<()>) {
        *request.method_mut() = Method::CONNECT;
        let protocol = h2::ext::Protocol::from_static("websocket");
        request.extensions_mut().insert(protocol);
        request.headers_mut().remove("sec-websocket-key");
    }

    /// Makes the answer one to an upgrade (RFC 6455 4.2.2).
    pub(crate) fn read(&self, response: &mut Response) {
        if response.switched.is_none() {
            return;
        }
        let head = &mut response.head;
        head.status = 101;
        head.fields.remove("content-length");
        head.fields.set("upgrade", b"websocket");
        let accept = accept(&self.key);
        head.fields.set("sec-websocket-accept", accept.as_bytes());
    }
}

/// What a server answers to a key (RFC 6455 4.2.2).
fn accept(key: &str) -> String {
    let text = format!("{key}{GUID}");
    STANDARD.encode(digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        text.as_bytes(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_accepted_as_in_the_specification() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn an_upgrade_becomes_an_extended_connect_and_its_answer_an_upgrade() {
        let mut head = RequestHead::new();
        head.method = Method::GET;
        assert!(Asked::of(&head).is_none());
        head.fields.append("Upgrade", b"h2c, WebSocket");
        head.fields
            .append("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==");
        assert!(Asked::of(&head).is_some());
        let mut request = http::Request::new(());
        let key = http::HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        request.headers_mut().insert("sec-websocket-key", key);
        Asked::write(&mut request);
        assert_eq!(request.method(), Method::CONNECT);
        assert!(request.headers().is_empty());
        assert!(request.extensions().get::<h2::ext::Protocol>().is_some());
        head.method = Method::POST;
        assert!(Asked::of(&head).is_none());
    }

    #[test]
    fn only_a_websocket_is_translated() {
        let mut head = RequestHead::new();
        head.method = Method::CONNECT;
        assert!(enter(&mut head).is_none());
        head.protocol = Some("websocket".into());
        assert!(enter(&mut head).is_some());
        assert_eq!(head.method, Method::GET);
        assert_eq!(head.fields.get("upgrade"), Some(&b"websocket"[..]));
    }
}
