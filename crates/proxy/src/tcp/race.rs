//! The race of a port of which nothing is declared: whoever speaks first decides.
//!
//! The upstream is dialled while the client is listened to, so a server that speaks first is heard
//! as soon as it is reached, and a client that begins like HTTP gets the HTTP path; the connection
//! that was opened for it is then dropped unused. A client that says nothing waits for the server
//! as long as an idle connection may; one whose server cannot be reached has a moment to show that
//! it speaks HTTP, and so to be told in words.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use model::Reason;
use net::detect::{self, Sniff};
use net::prefixed::Prefixed;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::{LOOK, Spoken};
use crate::connect::Io;
use crate::destination::Endpoint;
use crate::error::Failure;
use crate::pool::Slot;
use crate::pool::{Link, Wire};
use crate::record::Load;

/// Without a word from either side.
const SILENCE: Duration = Duration::from_hours(1);
/// For a client that has nobody to be connected with.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A connection to an endpoint, ready for bytes.
pub(crate) struct Opened {
    pub(super) io: Prefixed<Io>,
    pub(super) link: Link,
    pub(super) endpoint: Arc<Endpoint>,
    /// Held until the end: the connection counts.
    pub(super) held: Option<(Load, Slot)>,
}

impl Opened {
    /// A connection that nobody counts: that to the own application.
    pub(crate) fn new(io: Io, link: Link, endpoint: &Arc<Endpoint>) -> Self {
        Self {
            io: Prefixed::new(io, bytes::Bytes::new()),
            link,
            endpoint: Arc::clone(endpoint),
            held: None,
        }
    }

    fn heard(self, greeting: BytesMut) -> Self {
        let (io, _) = self.io.into_parts();
        Self {
            io: Prefixed::new(io, greeting.freeze()),
            ..self
        }
    }
}

/// Lets the client and whoever `dial` leads to race for the first word.
///
/// Fails where neither speaks, the client is gone, or it speaks no HTTP and nobody was reached.
pub(crate) async fn race<S, D>(mut client: S, dial: D) -> Result<Spoken<S>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Future<Output = Result<Opened, Failure>>,
{
    let mut seen = BytesMut::with_capacity(LOOK);
    let mut greeting = BytesMut::new();
    let mut dial = pin!(dial);
    let mut silence = pin!(sleep_until(Instant::now() + SILENCE));
    let mut opened = None;
    loop {
        let wire = match detect::sniff(&seen) {
            Sniff::Http1 => Some(Wire::Http1),
            Sniff::Http2 => Some(Wire::Http2),
            Sniff::NeedMore if seen.len() < detect::LIMIT => None,
            _ => break,
        };
        if let Some(wire) = wire {
            return Ok(Spoken::Http(Prefixed::new(client, seen.freeze()), wire));
        }
        tokio::select! {
            read = client.read_buf(&mut seen) => match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) => return Err(Failure::new(Reason::ClientDisconnected, e.to_string())),
            },
            result = &mut dial, if opened.is_none() => {
                if result.is_err() {
                    silence.as_mut().reset(Instant::now() + LAST_WORDS);
                }
                opened = Some(result);
            }
            heard = listen(opened.as_mut(), &mut greeting) => {
                heard.map_err(|e| Failure::new(Reason::UpstreamReset, e.to_string()))?;
                break;
            }
            () = &mut silence => {
                if let Some(Err(failure)) = opened {
                    return Err(failure);
                }
                let details = format!("neither side said anything for {SILENCE:?}");
                return Err(Failure::new(Reason::StreamIdleTimeout, details));
            }
        }
    }
    let opened = match opened {
        Some(opened) => opened?,
        None => dial.await?,
    };
    let client = Prefixed::new(client, seen.freeze());
    Ok(Spoken::Bytes(client, Some(opened.heard(greeting))))
}

/// Reads the server's first words; forever pending without a server.
async fn listen(
    opened: Option<&mut Result<Opened, Failure>>,
    into: &mut BytesMut,
) -> io::Result<()> {
    match opened {
        Some(Ok(opened)) => {
            into.reserve(LOOK);
            opened.io.read_buf(into).await.map(drop)
        }
        _ => std::future::pending().await,
    }
}
