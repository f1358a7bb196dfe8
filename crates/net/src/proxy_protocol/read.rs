//! Reading a header off a stream, within a time.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Header, Parsed, parse};

/// What a listener does about PROXY headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// None is looked for.
    #[default]
    Off,
    /// One is taken where the connection begins with it.
    Accept,
    /// Connections without one are refused.
    Require,
}

/// Why a connection is refused for its header.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It begins like a header and is none.
    #[error("the PROXY header is invalid: {0}")]
    Invalid(&'static str),
    /// There is none.
    #[error(
        "the connection has no PROXY header, and this listener requires one: is the client a load balancer that sends it?"
    )]
    Absent,
    /// Not complete in time.
    #[error("no complete PROXY header within {0:?}")]
    Timeout(Duration),
    /// The peer ended the connection in the middle.
    #[error("the connection ended within the PROXY header")]
    Eof,
    /// The connection broke.
    #[error("the connection broke within the PROXY header")]
    Io(#[source] io::Error),
}

/// Bytes read at a time: of most headers all, of the rest a part.
const CHUNK: usize = 256;

/// Takes the header off the beginning of `stream`. What was read beyond it stays in `buffer`.
///
/// A mode of [`Mode::Accept`] waits for the client's first bytes, at most `limit`; after that the
/// connection counts as one without a header, so that a client that waits for the server is served
/// late rather than never.
pub async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    mode: Mode,
    limit: Duration,
) -> Result<Option<Header>, ReadError> {
    if mode == Mode::Off {
        return Ok(None);
    }
    let taken = tokio::time::timeout(limit, take(stream, buffer)).await;
    match taken {
        Ok(Ok(None)) | Err(_) if mode == Mode::Accept && !begun(buffer) => Ok(None),
        Ok(Ok(Some(header))) => Ok(Some(header)),
        Ok(Ok(None)) => Err(ReadError::Absent),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ReadError::Timeout(limit)),
    }
}

/// Whether the bytes are the beginning of a header.
fn begun(buffer: &[u8]) -> bool {
    !buffer.is_empty() && parse(buffer) == Parsed::NeedMore
}

async fn take<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Result<Option<Header>, ReadError> {
    loop {
        match parse(buffer) {
            Parsed::Header(header, length) => {
                buffer.advance(length);
                return Ok(Some(header));
            }
            Parsed::Absent => return Ok(None),
            Parsed::Invalid(why) => return Err(ReadError::Invalid(why)),
            Parsed::NeedMore => {}
        }
        buffer.reserve(CHUNK);
        match stream.read_buf(buffer).await {
            Ok(0) if buffer.is_empty() => return Ok(None),
            Ok(0) => return Err(ReadError::Eof),
            Ok(_) => {}
            Err(error) => return Err(ReadError::Io(error)),
        }
    }
}
