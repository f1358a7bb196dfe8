//! gRPC-Web, as browsers speak it over any version of HTTP: turned into gRPC on the way in and back
//! on the way out (grpc/doc/PROTOCOL-WEB.md). Trailers become the last frame of the body, and the
//! `-text` form is base64 both ways.

use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use model::Reason;
use wire::{Fields, Length, RequestHead};

use super::Request;
use super::body::{Frame, Incoming};
use crate::error::Failure;
use crate::headers::is_grpc;
use crate::http1::client::Response;

const WEB: &str = "application/grpc-web";
const TEXT: &str = "application/grpc-web-text";
const GRPC: &str = "application/grpc";
/// The flag of a frame that holds trailers.
const TRAILERS: u8 = 0x80;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary,
    Text,
}

/// A gRPC-Web call that was translated.
pub(crate) struct Call {
    /// Of the response.
    form: Form,
}

/// The form of a gRPC-Web request, if it is one.
fn form(fields: &Fields) -> Option<Form> {
    let kind = fields.get_str("content-type")?;
    if kind.starts_with(TEXT) {
        Some(Form::Text)
    } else {
        kind.starts_with(WEB).then_some(Form::Binary)
    }
}

/// The form in which the response is wanted: the request's own, unless `Accept` names another.
fn wanted(fields: &Fields, own: Form) -> Form {
    match fields.get_str("accept") {
        Some(accept) if accept.contains(TEXT) => Form::Text,
        Some(accept) if accept.contains(WEB) => Form::Binary,
        _ => own,
    }
}

/// Makes a gRPC request of a gRPC-Web one.
pub(crate) fn enter(head: &mut RequestHead, request: &mut Request) -> Option<Call> {
    let form = form(&head.fields)?;
    let call = Call {
        form: wanted(&head.fields, form),
    };
    let kind = head.fields.get_str("content-type").unwrap_or(WEB);
    let format = kind
        .strip_prefix(TEXT)
        .or_else(|| kind.strip_prefix(WEB))
        .unwrap_or("");
    let kind = format!("{GRPC}{format}");
    head.fields.set("content-type", kind.as_bytes());
    request.trailers = true;
    if form == Form::Text {
        head.fields.remove("content-length");
        request.length = Length::Chunked;
        let inner = std::mem::replace(&mut request.body, Incoming::Empty);
        request.body = Incoming::Web(Box::new(Body {
            inner,
            work: Work::Decode(BytesMut::new()),
            ended: false,
            trailers: None,
        }));
    }
    Some(call)
}

impl Call {
    /// Makes a gRPC-Web response of a gRPC one. Whatever else answered, an error page for instance,
    /// is passed on as it is.
    pub(crate) fn leave(&self, response: &mut Response) {
        let fields = &mut response.head.fields;
        if !is_grpc(fields) {
            return;
        }
        let kind = fields.get_str("content-type").unwrap_or(GRPC);
        let format = kind.strip_prefix(GRPC).unwrap_or("");
        let prefix = if self.form == Form::Text { TEXT } else { WEB };
        let kind = format!("{prefix}{format}");
        fields.set("content-type", kind.as_bytes());
        fields.remove("content-length");
        fields.remove("trailer");
        let inner = std::mem::replace(&mut response.body, Incoming::Empty);
        if !inner.is_end() {
            response.length = Length::Chunked;
            response.body = Incoming::Web(Box::new(Body {
                inner,
                work: Work::Encode(self.form),
                ended: false,
                trailers: None,
            }));
        }
    }
}

/// A body being turned from one into the other.
pub(crate) struct Body {
    inner: Incoming,
    work: Work,
    ended: bool,
    /// As they were written.
    trailers: Option<Fields>,
}

enum Work {
    /// From base64; what is left of an incomplete group of four.
    Decode(BytesMut),
    Encode(Form),
}

impl Body {
    pub(crate) fn is_end(&self) -> bool {
        self.ended
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Failure>>> {
        while !self.ended {
            let frame = ready!(self.inner.poll_frame(cx)).transpose();
            let data = match (frame, &mut self.work) {
                (Err(failure), _) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(failure)));
                }
                (Ok(Some(Frame::Data(data))), Work::Encode(form)) => written(*form, data),
                (Ok(Some(Frame::Trailers(fields))), Work::Encode(form)) => {
                    self.ended = true;
                    let data = written(*form, trailers(&fields));
                    self.trailers = Some(fields);
                    data
                }
                (Ok(Some(Frame::Data(data))), Work::Decode(rest)) => {
                    rest.extend_from_slice(&data);
                    match decode(rest) {
                        Ok(data) => data,
                        Err(failure) => {
                            self.ended = true;
                            return Poll::Ready(Some(Err(failure)));
                        }
                    }
                }
                (Ok(None | Some(Frame::Trailers(_))), work) => {
                    self.ended = true;
                    match work {
                        Work::Decode(rest) if !rest.is_empty() => {
                            return Poll::Ready(Some(Err(invalid())));
                        }
                        _ => return Poll::Ready(None),
                    }
                }
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::Data(data))));
            }
        }
        Poll::Ready(None)
    }
}

fn written(form: Form, data: Bytes) -> Bytes {
    match form {
        Form::Binary => data,
        Form::Text => STANDARD.encode(&data).into(),
    }
}

/// Trailers as a frame: a flag, the length, lines of HTTP/1.
fn trailers(fields: &Fields) -> Bytes {
    let mut lines = Vec::with_capacity(fields.size() + 8 * fields.len());
    for (name, value) in fields {
        lines.extend(name.iter().map(u8::to_ascii_lowercase));
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value);
        lines.extend_from_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(lines.len() + 5);
    frame.put_u8(TRAILERS);
    // Bounded by what the codec takes for trailers.
    frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    frame.put_slice(&lines);
    frame.freeze()
}

/// Decodes the whole groups of four that have come. Pieces may be padded each on its own.
fn decode(rest: &mut BytesMut) -> Result<Bytes, Failure> {
    let mut groups = rest.split_to(rest.len() / 4 * 4);
    let mut out = BytesMut::with_capacity(groups.len() / 4 * 3);
    while !groups.is_empty() {
        let padded = groups.iter().position(|b| *b == b'=');
        let end = padded.map_or(groups.len(), |at| at / 4 * 4 + 4);
        let piece = groups.split_to(end.min(groups.len()));
        out.extend_from_slice(&STANDARD.decode(&piece).map_err(|_| invalid())?);
    }
    Ok(out.freeze())
}

fn invalid() -> Failure {
    Failure::new(
        Reason::BadRequest,
        "the body of a grpc-web-text request is not base64",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_decoded_wherever_they_are_cut_and_padded() {
        let mut text = STANDARD.encode(b"hello");
        text.push_str(&STANDARD.encode(b"w"));
        text.push_str(&STANDARD.encode(b"orld!!"));
        for cut in 0..text.len() {
            let mut rest = BytesMut::from(&text.as_bytes()[..cut]);
            let mut out = decode(&mut rest).expect("base64").to_vec();
            rest.extend_from_slice(&text.as_bytes()[cut..]);
            out.extend_from_slice(&decode(&mut rest).expect("base64"));
            assert_eq!(out, b"helloworld!!", "cut at {cut}");
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in ["@@@@", "a=bc", "====", "aGk=aGk"] {
            let mut rest = BytesMut::from(text);
            let decoded = decode(&mut rest);
            assert!(decoded.is_err() || !rest.is_empty(), "{text}");
        }
    }

    #[test]
    fn trailers_become_a_frame() {
        let mut fields = Fields::new();
        fields.append("Grpc-Status", b"0");
        assert_eq!(&trailers(&fields)[..], b"\x80\0\0\0\x10grpc-status: 0\r\n");
    }

    #[test]
    fn the_form_is_in_the_content_type() {
        for (kind, want) in [
            ("application/grpc-web", Some(Form::Binary)),
            ("application/grpc-web+proto", Some(Form::Binary)),
            ("application/grpc-web-text+proto", Some(Form::Text)),
            ("application/grpc", None),
        ] {
            let mut fields = Fields::new();
            fields.append("content-type", kind.as_bytes());
            assert_eq!(form(&fields), want, "{kind}");
        }
    }

    #[test]
    fn accept_says_in_which_form_the_response_is_wanted() {
        for (accept, want) in [
            ("application/grpc-web-text", Form::Text),
            ("application/grpc-web+proto, */*", Form::Binary),
            ("*/*", Form::Text),
        ] {
            let mut fields = Fields::new();
            fields.append("accept", accept.as_bytes());
            assert_eq!(wanted(&fields, Form::Text), want, "{accept}");
        }
        assert_eq!(wanted(&Fields::new(), Form::Binary), Form::Binary);
    }
}
