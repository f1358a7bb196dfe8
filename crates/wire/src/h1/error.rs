//! What can be wrong with a message. Texts say what was found, why it is refused and what to do;
//! they hold nothing of values, which may be secrets.

/// Which bound was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Limits::head`](super::Limits::head).
    Head,
    /// [`Limits::fields`](super::Limits::fields).
    Fields,
    /// [`Limits::target`](super::Limits::target).
    Target,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head => "head is larger than the limit; oversized cookies are the usual cause",
            Self::Fields => "head has more fields than the limit",
            Self::Target => {
                "request target is longer than the limit; send the data as content instead"
            }
        })
    }
}

/// Why the head of a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A bound was exceeded.
    #[error("the {0}")]
    TooLarge(Part),
    /// RFC 9112 3.
    #[error(
        "the request line is malformed: {0}; the peer does not speak HTTP/1 here, or is broken"
    )]
    BadRequestLine(&'static str),
    /// RFC 9112 3.2.
    #[error("the request target is malformed: {0}; the client must percent-encode it")]
    BadTarget(&'static str),
    /// RFC 9112 4.
    #[error(
        "the status line is malformed: {0}; the upstream does not speak HTTP/1 on this port, or sent more than it announced before"
    )]
    BadStatusLine(&'static str),
    /// RFC 9110 2.5.
    #[error("the HTTP version is neither 1.0 nor 1.1; HTTP/2 begins with its own preface")]
    BadVersion,
    /// RFC 9112 5.
    #[error("field `{name}` is malformed: {why}")]
    BadField {
        /// The name, shortened and made printable.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// RFC 9112 3.2, RFC 9113 8.3.1.
    #[error(
        "the host is missing, given twice, contradictory or malformed; a request needs exactly one valid Host"
    )]
    BadHost,
    /// RFC 9112 6.2 and 6.3.
    #[error(
        "Content-Length is not exactly one decimal number; the end of the message would be in doubt"
    )]
    BadLength,
    /// RFC 9112 6.1 and 6.3.
    #[error(
        "Transfer-Encoding is not exactly `chunked`, or not allowed in HTTP/1.0; the end of the message would be in doubt"
    )]
    BadTransferEncoding,
    /// RFC 9112 6.1.
    #[error(
        "Transfer-Encoding names a coding other than chunked, which is not implemented; use Content-Encoding"
    )]
    UnknownTransferCoding,
    /// RFC 9112 6.3.
    #[error(
        "the message has both Transfer-Encoding and Content-Length, the mark of request smuggling"
    )]
    LengthAndTransferEncoding,
    /// RFC 9110 9.3.6.
    #[error("CONNECT with content, which has no meaning")]
    ConnectWithContent,
    /// RFC 9110 10.1.1.
    #[error("Expect asks for something other than 100-continue")]
    BadExpect,
    /// RFC 9112 2.2.
    #[error("a line ends with LF alone; lines end with CRLF")]
    BareLineFeed,
    /// RFC 9112 2.2.
    #[error("a CR that is not followed by LF; lines end with CRLF")]
    BareCarriageReturn,
    /// RFC 9112 5.2.
    #[error("a field continues on the next line (obsolete folding); it must be on one line")]
    ObsFold,
}

impl HeadError {
    /// The status to answer a request with. A response's head that is refused is the caller's 502.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge(Part::Target) => 414,
            Self::TooLarge(Part::Head | Part::Fields) => 431,
            Self::UnknownTransferCoding => 501,
            Self::BadVersion => 505,
            Self::BadExpect => 417,
            Self::BadRequestLine(_)
            | Self::BadTarget(_)
            | Self::BadStatusLine(_)
            | Self::BadField { .. }
            | Self::BadHost
            | Self::BadLength
            | Self::BadTransferEncoding
            | Self::LengthAndTransferEncoding
            | Self::ConnectWithContent
            | Self::BareLineFeed
            | Self::BareCarriageReturn
            | Self::ObsFold => 400,
        }
    }

    pub(crate) fn field(name: &[u8], why: &'static str) -> Self {
        let shown = &name[..name.len().min(64)];
        Self::BadField {
            name: shown.escape_ascii().to_string(),
            why,
        }
    }
}

/// Why the content of a message was refused. The connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The peer closed the connection before the end.
    #[error("the connection closed before the content was complete")]
    Truncated,
    /// RFC 9112 7.1: 1 to 16 hexadecimal digits.
    #[error("a chunk size is not a hexadecimal number of 64 bits")]
    BadChunkSize,
    /// RFC 9112 7.1.1.
    #[error("a chunk extension is malformed")]
    BadChunkExtension,
    /// [`Limits::chunk_line`](super::Limits::chunk_line).
    #[error("the line before a chunk is longer than the limit")]
    ChunkLineTooLong,
    /// Far more framing than data.
    #[error("chunk sizes and extensions take far more bytes than the data in them")]
    TooMuchOverhead,
    /// RFC 9112 2.2.
    #[error("a line of the chunked coding ends with a bare CR or LF")]
    BareLineEnd,
    /// RFC 9112 7.1.
    #[error(
        "the data of a chunk is not followed by CRLF: the chunk is longer or shorter than its size says"
    )]
    MissingLineEnd,
    /// [`Limits::trailers`](super::Limits::trailers) or [`Limits::fields`](super::Limits::fields).
    #[error("the trailer section is larger than the limit")]
    TrailersTooLarge,
    /// RFC 9110 6.5.1, RFC 9112 7.1.2.
    #[error("a trailer field is malformed or would change where the message ends or goes")]
    BadTrailer,
}
