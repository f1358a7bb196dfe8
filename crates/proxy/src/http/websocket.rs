//! WebSocket over HTTP/2 (extended CONNECT, RFC 8441) brought to an endpoint that speaks HTTP/1.1:
//! the same handshake in the other version's words.

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
