//! DNS over TCP: two bytes of length before each message (RFC 1035 4.2.2).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The message with its length before it; `None` where it is longer than 65,535 bytes.
pub fn frame(message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    Some(framed)
}

/// Reads one message; `None` where the peer ended before the first byte of one.
///
/// Not cancel-safe: the stream is of no use after a read that was given up half-way.
pub async fn read_framed<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u64::from(u16::from_be_bytes(length));
    // Grows with what really arrives, so that a length alone costs no memory.
    let mut message = Vec::new();
    stream.take(length).read_to_end(&mut message).await?;
    if (message.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(message))
}

/// Writes one message and flushes.
pub async fn write_framed<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    let framed = frame(message).ok_or(io::ErrorKind::InvalidInput)?;
    stream.write_all(&framed).await?;
    stream.flush().await
}
