//! Bodies of requests on their way in.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::{Code, StreamError};
use h3::server::RequestStream;
use http::{Response, StatusCode};
use model::Reason;

use super::interim::Interims;
use super::transport::RecvStream;
use crate::error::Failure;
use crate::http::Bounds;
use crate::http::body::{Allowance, Frame};

/// The body of a request.
pub(crate) struct Body {
    stream: RequestStream<RecvStream, Bytes>,
    /// Read to see whether there is a body at all.
    first: Option<Read>,
    /// All data has come, though trailers may follow.
    drained: bool,
    ended: bool,
    /// The client waits for `100 Continue`.
    waiting: Option<Rc<Interims>>,
    /// What is to come of the length that was announced.
    announced: Option<u64>,
    allowance: Allowance,
    /// Most bytes of trailers.
    trailers: usize,
}

type Read = Option<Result<Frame, StreamError>>;

impl Body {
    pub(super) fn new(stream: RequestStream<RecvStream, Bytes>, bounds: &Bounds) -> Self {
        Self {
            stream,
            first: None,
            drained: false,
            ended: false,
            waiting: None,
            announced: None,
            allowance: Allowance::of(bounds),
            trailers: bounds.codec.trailers,
        }
    }

    /// The client has said how long it is.
    pub(super) fn announce(&mut self, length: u64) {
        self.announced = Some(length);
    }

    /// The client waits for `100 Continue`, which is due when the body is first read.
    pub(super) fn expect(&mut self, interims: &Rc<Interims>) {
        self.waiting = Some(Rc::clone(interims));
    }

    /// Whether there is none. Without waiting, one that has not come yet counts as there.
    pub(super) async fn is_none(&mut self, wait: bool) -> bool {
        let read = poll_fn(|cx| match self.poll_read(cx) {
            Poll::Pending if wait => Poll::Pending,
            polled => Poll::Ready(polled),
        });
        match read.await {
            Poll::Ready(read) => {
                self.ended = read.is_none();
                self.first = Some(read);
                self.ended
            }
            Poll::Pending => false,
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        self.ended
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Failure>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(interims) = self.waiting.take() {
            let mut head = Response::new(());
            *head.status_mut() = StatusCode::CONTINUE;
            interims.put(head);
        }
        let read = match self.first.take() {
            Some(read) => Poll::Ready(read),
            None => self.poll_read(cx),
        };
        let result = match read {
            Poll::Pending => {
                return self
                    .allowance
                    .poll_late(cx)
                    .map(|failure| Some(Err(failure)));
            }
            Poll::Ready(None) => self.end().map(|()| None),
            Poll::Ready(Some(Ok(frame))) => self.within(frame).map(Some),
            Poll::Ready(Some(Err(error))) => Err(Failure::new(
                Reason::ClientDisconnected,
                format!("before its request was complete: {error}"),
            )),
        };
        self.ended = !matches!(result, Ok(Some(Frame::Data(_))));
        Poll::Ready(result.transpose())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        while !self.drained {
            match ready!(self.stream.poll_recv_data(cx)) {
                Ok(Some(mut data)) if data.has_remaining() => {
                    let data = data.copy_to_bytes(data.remaining());
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Ok(Some(_)) => {}
                Ok(None) => self.drained = true,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        let trailers = ready!(self.stream.poll_recv_trailers(cx)).transpose();
        Poll::Ready(
            trailers.map(|trailers| {
                trailers.map(|map| Frame::Trailers(wire::map::trailers_from_map(map)))
            }),
        )
    }

    /// RFC 9114 4.1.2: a body is as long as was announced. One that is not could be read as two
    /// requests by a server behind HTTP/1.
    fn within(&mut self, frame: Frame) -> Result<Frame, Failure> {
        match &frame {
            Frame::Data(data) => {
                if let Some(announced) = &mut self.announced {
                    *announced = announced
                        .checked_sub(data.len() as u64)
                        .ok_or_else(|| malformed(&mut self.stream, "longer"))?;
                }
                self.allowance.take(data.len())?;
            }
            Frame::Trailers(fields) => {
                self.end()?;
                let size: usize = fields.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
                if size > self.trailers {
                    let text = "the request's trailers are longer than allowed";
                    return Err(Failure::new(Reason::HeaderTooLarge, text));
                }
            }
        }
        Ok(frame)
    }

    fn end(&mut self) -> Result<(), Failure> {
        match self.announced {
            None | Some(0) => Ok(()),
            Some(_) => Err(malformed(&mut self.stream, "shorter")),
        }
    }
}

fn malformed(stream: &mut RequestStream<RecvStream, Bytes>, how: &str) -> Failure {
    stream.stop_sending(Code::H3_MESSAGE_ERROR);
    let text = format!("the request's body is {how} than its content-length");
    Failure::new(Reason::BadRequest, text)
}
