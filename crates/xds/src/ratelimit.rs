//! Envoy's rate limit service (`envoy.service.ratelimit.v3`) as those who ask it see it: one unary
//! gRPC call, in bytes, for a proxy that sends it as it sends other requests.
//!
//! Owns the words of the protocol; who is asked and what becomes of the answer it does not know.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use crate::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use crate::proto::envoy::r#type::v3::RateLimitUnit;
use crate::proto::ratelimit::rate_limit_response::{Code, DescriptorStatus};
use crate::proto::ratelimit::{RateLimitRequest, RateLimitResponse};

/// The path of the call.
pub const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// Bytes before a message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What one limit is told of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What tells those apart that are counted apart, by name.
    pub entries: Vec<(String, String)>,
    /// So many.
    pub requests: u32,
    /// In so much time: a second, a minute, an hour or a day.
    pub per: Duration,
}

/// What a limit says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// It is beyond the limit.
    pub over: bool,
    /// How many more there may be in this window.
    pub remaining: u32,
    /// Until the window ends.
    pub reset: Duration,
}

/// An answer that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It breaks off, or is compressed, which was not asked for.
    #[error("its answer is no message of gRPC")]
    Framing,
    /// It is no `RateLimitResponse`.
    #[error("its answer cannot be read: {0}")]
    Message(#[from] prost::DecodeError),
    /// It is about something else.
    #[error("it says something of {answered} limits, and was asked about {asked}")]
    Count {
        /// Descriptors of the request.
        asked: usize,
        /// Statuses of the response.
        answered: usize,
    },
}

/// The body of a call about one request.
pub fn encode(domain: &str, descriptors: impl Iterator<Item = Descriptor>) -> Bytes {
    let request = RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors.map(to_message).collect(),
        hits_addend: 1,
    };
    let length = request.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    // A request's head bounds what is said of it, far below 4 GiB.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // It writes to memory that grows.
    let _ = request.encode(&mut bytes);
    bytes.freeze()
}

/// Reads the body of an answer to a call about `asked` descriptors.
pub fn decode(body: &[u8], asked: usize) -> Result<Vec<Status>, AnswerError> {
    let (prefix, message) = body.split_at_checked(PREFIX).ok_or(AnswerError::Framing)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || usize::try_from(length) != Ok(message.len()) {
        return Err(AnswerError::Framing);
    }
    let answer = RateLimitResponse::decode(message)?;
    let answered = answer.statuses.len();
    if answered != asked {
        return Err(AnswerError::Count { asked, answered });
    }
    Ok(answer.statuses.iter().map(status).collect())
}

fn to_message(descriptor: Descriptor) -> RateLimitDescriptor {
    let entries = descriptor.entries.into_iter();
    let unit = match descriptor.per.as_secs() {
        ..60 => RateLimitUnit::Second,
        60..3600 => RateLimitUnit::Minute,
        3600..86_400 => RateLimitUnit::Hour,
        _ => RateLimitUnit::Day,
    };
    RateLimitDescriptor {
        entries: entries.map(|(key, value)| Entry { key, value }).collect(),
        limit: Some(RateLimitOverride {
            requests_per_unit: descriptor.requests,
            unit: unit.into(),
        }),
        hits_addend: None,
    }
}

fn status(status: &DescriptorStatus) -> Status {
    let reset = status.duration_until_reset;
    Status {
        over: status.code() == Code::OverLimit,
        remaining: status.limit_remaining,
        reset: reset
            .and_then(|reset| reset.try_into().ok())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_says_what_is_counted_and_an_answer_is_read() {
        let descriptor = Descriptor {
            entries: vec![("path".to_owned(), "/x".to_owned())],
            requests: 7,
            per: Duration::from_mins(1),
        };
        let body = encode("tulle", std::iter::once(descriptor));
        assert_eq!(usize::from(body[4]), body.len() - PREFIX);
        let asked = RateLimitRequest::decode(&body[PREFIX..]).expect("a request");
        assert_eq!(asked.domain, "tulle");
        let limit = asked.descriptors[0].limit.expect("a limit");
        assert_eq!(limit.requests_per_unit, 7);
        assert_eq!(limit.unit(), RateLimitUnit::Minute);

        let answer = RateLimitResponse {
            overall_code: Code::OverLimit.into(),
            statuses: vec![DescriptorStatus {
                code: Code::OverLimit.into(),
                current_limit: None,
                limit_remaining: 0,
                duration_until_reset: Some(prost_types::Duration {
                    seconds: 12,
                    nanos: 0,
                }),
            }],
            response_headers_to_add: Vec::new(),
        };
        let mut bytes = vec![
            0,
            0,
            0,
            0,
            u8::try_from(answer.encoded_len()).expect("short"),
        ];
        answer.encode(&mut bytes).expect("room");
        let status = Status {
            over: true,
            remaining: 0,
            reset: Duration::from_secs(12),
        };
        assert_eq!(decode(&bytes, 1), Ok(vec![status]));
        assert!(matches!(decode(&bytes, 2), Err(AnswerError::Count { .. })));
        bytes.pop();
        assert_eq!(decode(&bytes, 1), Err(AnswerError::Framing));
        assert_eq!(decode(&[0, 0], 1), Err(AnswerError::Framing));
    }
}
