//! Datagrams on a stream: each behind its length in two bytes, as DNS over TCP has it (RFC 1035
//! 4.2.2).

use std::cell::RefCell;
use std::io;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::LARGEST;
use super::socket::{Socket, is_about_datagram};

/// Why carrying ended before the stream did.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// The stream broke.
    #[error("the stream broke")]
    Stream(#[source] io::Error),
    /// The socket cannot be used: nothing listens at the other end.
    #[error("nothing takes datagrams at the other end")]
    Socket(#[source] io::Error),
}

/// A datagram moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes from the stream to the socket.
    Down(usize),
    /// So many bytes from the socket to the stream.
    Up(usize),
    /// One that the socket had no room for was lost.
    Lost,
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; LARGEST].into_boxed_slice());
}

/// Carries datagrams both ways until the stream ends.
///
/// One that the socket has no room for is lost, as on any way of datagrams; where the stream takes
/// no more, the socket fills.
pub async fn carry<S>(stream: S, socket: &Socket, moved: impl Fn(Moved)) -> Result<(), CarryError>
where
    S: AsyncRead + AsyncWrite,
{
    let (reader, writer) = tokio::io::split(stream);
    let mut frames = LengthDelimitedCodec::builder();
    frames
        .length_field_length(2)
        .max_frame_length(usize::from(u16::MAX));
    let mut reader = FramedRead::new(reader, frames.new_codec());
    let mut writer = FramedWrite::new(writer, frames.new_codec());
    let down = async {
        while let Some(datagram) = reader.next().await {
            let datagram = datagram.map_err(CarryError::Stream)?;
            match socket.send(&datagram) {
                Ok(n) => moved(Moved::Down(n)),
                Err(error) if is_about_datagram(&error) => moved(Moved::Lost),
                Err(error) => return Err(CarryError::Socket(error)),
            }
        }
        Ok(())
    };
    let up = async {
        loop {
            let datagram = receive(socket).await.map_err(CarryError::Socket)?;
            let n = datagram.len();
            writer.send(datagram).await.map_err(CarryError::Stream)?;
            moved(Moved::Up(n));
        }
    };
    tokio::select! {
        ended = down => ended,
        ended = up => ended,
    }
}

async fn receive(socket: &Socket) -> io::Result<Bytes> {
    loop {
        socket.readable().await?;
        let received: io::Result<Bytes> = SCRATCH.with_borrow_mut(|scratch| {
            let n = socket.try_recv(scratch)?;
            Ok(Bytes::copy_from_slice(&scratch[..n]))
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}
