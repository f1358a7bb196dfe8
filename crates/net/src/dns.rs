//! DNS messages: reading queries, writing answers, and asking another server.
//!
//! Queries arrive from applications whose traffic to port 53 was redirected, over UDP or TCP. What
//! the mesh knows is answered here with [`Query::answer`] and its siblings; the rest is handed to
//! a real resolver by [`forward()`]. Every input is taken as hostile: reading never panics, and an
//! answer over UDP never exceeds what the client said it takes (RFC 6891), nor [`MAX_UDP`].

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

mod forward;
mod framing;
mod resolver;

pub use forward::{ForwardError, Forwarder, forward};
pub use framing::{frame, read_framed, write_framed};
pub use resolver::{Resolver, upstream};

/// Largest answer over UDP: what crosses every path unfragmented (the DNS flag day of 2020).
pub const MAX_UDP: usize = 1232;
/// Largest message over TCP.
pub const MAX_TCP: usize = 65_535;

/// How a query came, which bounds its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A stream, with a length before each message.
    Tcp,
}

/// The type of record asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryType {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Anything else, by its number.
    Other(u16),
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The name: lower-case, without the last dot; empty for the root.
    pub name: String,
    /// The record type.
    pub kind: QueryType,
}

/// A query that was understood.
#[derive(Debug, Clone)]
pub struct Query {
    question: Question,
    message: Message,
    transport: Transport,
}

/// Bytes that are no query we can answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Not a DNS message.
    #[error("not a DNS message")]
    Malformed {
        /// A FORMERR answer, where at least the header could be read.
        reply: Option<Vec<u8>>,
    },
    /// A response, not a query. Must not be answered, lest two servers talk for ever.
    #[error("a DNS response where a query was expected")]
    NotAQuery,
    /// An operation, class or number of questions that is not served.
    #[error("a DNS operation other than one standard question")]
    Unsupported {
        /// The answer that says so.
        reply: Vec<u8>,
    },
}

impl QueryError {
    /// What to send back, if anything.
    pub fn reply(&self) -> Option<&[u8]> {
        match self {
            Self::Malformed { reply } => reply.as_deref(),
            Self::NotAQuery => None,
            Self::Unsupported { reply } => Some(reply),
        }
    }
}

impl Query {
    /// Reads a query.
    pub fn parse(bytes: &[u8], transport: Transport) -> Result<Self, QueryError> {
        // Our smallest obligation (RFC 1035 4.1.1): never answer an answer, however broken.
        if bytes.get(2).is_some_and(|flags| flags & 0x80 != 0) {
            return Err(QueryError::NotAQuery);
        }
        let message = Message::from_vec(bytes).map_err(|_| QueryError::Malformed {
            reply: formerr(bytes),
        })?;
        let unsupported = |code| QueryError::Unsupported {
            reply: encode(reply_to(&message, code), transport),
        };
        if message.metadata.op_code != OpCode::Query {
            return Err(unsupported(ResponseCode::NotImp));
        }
        let [query] = &message.queries[..] else {
            return Err(unsupported(ResponseCode::FormErr));
        };
        if message.edns.as_ref().is_some_and(|e| e.version() > 0) {
            return Err(unsupported(ResponseCode::BADVERS));
        }
        if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return Err(unsupported(ResponseCode::Refused));
        }
        let mut name = query.name().to_ascii().to_ascii_lowercase();
        if name.ends_with('.') {
            name.pop();
        }
        let question = Question {
            name,
            kind: match query.query_type() {
                RecordType::A => QueryType::A,
                RecordType::AAAA => QueryType::Aaaa,
                other => QueryType::Other(other.into()),
            },
        };
        Ok(Self {
            question,
            message,
            transport,
        })
    }

    /// What is asked.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// The answer that the name has these addresses; those of the type not asked for are left out,
    /// and with none left it says that the name exists without such records. `ttl` in seconds.
    pub fn answer(&self, addresses: &[IpAddr], ttl: u32) -> Vec<u8> {
        let mut reply = reply_to(&self.message, ResponseCode::NoError);
        reply.metadata.authoritative = true;
        let name = self
            .message
            .queries
            .first()
            .map_or_else(Name::root, |q| q.name().clone());
        for address in addresses {
            let data = match (address, self.question.kind) {
                (IpAddr::V4(v4), QueryType::A) => RData::A(A(*v4)),
                (IpAddr::V6(v6), QueryType::Aaaa) => RData::AAAA(AAAA(*v6)),
                _ => continue,
            };
            reply.add_answer(Record::from_rdata(name.clone(), ttl, data));
        }
        encode(reply, self.transport)
    }

    /// The answer that the name does not exist.
    pub fn nxdomain(&self) -> Vec<u8> {
        encode(
            reply_to(&self.message, ResponseCode::NXDomain),
            self.transport,
        )
    }

    /// The answer that we could not find out; the client may try again or elsewhere.
    pub fn servfail(&self) -> Vec<u8> {
        encode(
            reply_to(&self.message, ResponseCode::ServFail),
            self.transport,
        )
    }

    /// The answer that we do not serve this.
    pub fn refused(&self) -> Vec<u8> {
        encode(
            reply_to(&self.message, ResponseCode::Refused),
            self.transport,
        )
    }

    /// An answer to this query that came from another server, brought to the size that the client
    /// takes: as it is, or without records and marked as truncated, so that it asks over TCP.
    pub fn relay(&self, answer: Vec<u8>) -> Vec<u8> {
        if answer.len() <= self.limit() {
            return answer;
        }
        let mut reply = reply_to(&self.message, ResponseCode::NoError);
        reply.metadata.truncation = true;
        encode(reply, self.transport)
    }

    fn limit(&self) -> usize {
        limit(&self.message, self.transport)
    }
}

fn limit(message: &Message, transport: Transport) -> usize {
    match transport {
        Transport::Udp => usize::from(message.max_payload()).min(MAX_UDP),
        Transport::Tcp => MAX_TCP,
    }
}

fn reply_to(query: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::new(
        query.metadata.id,
        MessageType::Response,
        query.metadata.op_code,
    );
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.checking_disabled = query.metadata.checking_disabled;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    // One question is echoed; more would let a small query have a large answer.
    reply.add_queries(query.queries.iter().take(1).cloned());
    // RFC 6891 6.1.1: an OPT record is answered with one.
    if let Some(theirs) = &query.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(theirs.max_payload().clamp(512, MAX_UDP as u16));
        reply.set_edns(edns);
    }
    reply
}

/// Encodes within the limit; drops answers from the end and says so where they do not fit.
fn encode(mut reply: Message, transport: Transport) -> Vec<u8> {
    let limit = limit(&reply, transport);
    loop {
        match reply.to_vec() {
            Ok(bytes) if bytes.len() <= limit => return bytes,
            _ if reply.answers.is_empty() => return header_only(&reply),
            _ => {
                reply.metadata.truncation = true;
                let keep = reply.answers.len() * 3 / 4;
                reply.answers.truncate(keep);
            }
        }
    }
}

/// A bare header, for what cannot be encoded otherwise.
fn header_only(reply: &Message) -> Vec<u8> {
    let id = reply.metadata.id.to_be_bytes();
    vec![id[0], id[1], 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn formerr(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.get(..12)?;
    let flags = 0x80 | (header[2] & 0x79); // a response, same operation and RD
    Some(vec![header[0], header[1], flags, 1, 0, 0, 0, 0, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests;
