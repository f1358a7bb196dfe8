//! Trace context as it travels in headers.
//!
//! W3C Trace Context (Recommendation of 2021-11-23, and level 2) is read first, then B3 in its
//! single and multiple forms. A context that breaks its rules is ignored, never an error: the
//! request starts a new trace. `traceparent` is always written; B3 only where the request had it,
//! so that applications which know nothing else stay in the trace.

use std::time::{Duration, Instant};

use wire::Fields;

use crate::hex;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const B3: &str = "b3";
const B3_TRACE: &str = "x-b3-traceid";
const B3_SPAN: &str = "x-b3-spanid";
const B3_PARENT: &str = "x-b3-parentspanid";
const B3_SAMPLED: &str = "x-b3-sampled";
const B3_FLAGS: &str = "x-b3-flags";

/// A span's place in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Never all zeros.
    pub trace_id: [u8; 16],
    /// Never all zeros.
    pub span_id: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
    /// B3 leaves the decision to the receiver: `sampled` is then not yet meant.
    pub deferred: bool,
    /// The other vendors' state, as received: members joined, at most 32 and 512 bytes.
    pub tracestate: Option<Box<str>>,
}

impl Context {
    /// The first span of a new trace.
    pub fn root(sampled: bool) -> Self {
        Self {
            trace_id: non_zero(),
            span_id: non_zero(),
            sampled,
            deferred: false,
            tracestate: None,
        }
    }

    /// The caller's span, if the headers name one.
    pub fn parse(headers: &Fields) -> Option<Self> {
        w3c(headers)
            .or_else(|| b3_single(headers))
            .or_else(|| b3_multiple(headers))
    }

    /// A new span in the same trace.
    pub fn child(&self) -> Self {
        Self {
            span_id: non_zero(),
            ..self.clone()
        }
    }

    /// Writes this span into the headers, in place of what they had.
    pub fn inject(&self, headers: &mut Fields) {
        headers.set(TRACEPARENT, &self.traceparent());
        headers.remove(TRACESTATE);
        if let Some(state) = &self.tracestate {
            headers.set(TRACESTATE, state.as_bytes());
        }
        let sampled = if self.sampled { "1" } else { "0" };
        if headers.contains(B3) {
            let value = format!("{}-{}-{sampled}", self.trace_hex(), self.span_hex());
            headers.set(B3, value.as_bytes());
        }
        if headers.contains(B3_TRACE) {
            headers.set(B3_TRACE, self.trace_hex().as_bytes());
            headers.set(B3_SPAN, self.span_hex().as_bytes());
            headers.remove(B3_PARENT);
            if !headers.contains(B3_FLAGS) {
                headers.set(B3_SAMPLED, sampled.as_bytes());
            }
        }
    }

    /// The value of `traceparent`.
    pub fn traceparent(&self) -> [u8; 55] {
        let mut out = *b"00-________________________________-________________-00";
        hex::write(&self.trace_id, &mut out[3..35]);
        hex::write(&self.span_id, &mut out[36..52]);
        out[54] += u8::from(self.sampled);
        out
    }

    /// The trace's id in lower-case hexadecimal.
    pub fn trace_hex(&self) -> String {
        hex::text(&self.trace_id)
    }

    /// The span's id in lower-case hexadecimal.
    pub fn span_hex(&self) -> String {
        hex::text(&self.span_id)
    }
}

fn non_zero<const N: usize>() -> [u8; N] {
    loop {
        let mut id = [0; N];
        rand::fill(&mut id[..]);
        if id != [0; N] {
            return id;
        }
    }
}

fn id<const N: usize>(text: impl AsRef<[u8]>, upper: bool) -> Option<[u8; N]> {
    hex::read(text, upper).filter(|id| *id != [0; N])
}

/// The header's text, if it stands there exactly once.
fn only<'f>(headers: &'f Fields, name: &'f str) -> Option<&'f str> {
    let mut values = headers.get_all(name);
    let value = std::str::from_utf8(values.next()?).ok()?;
    values.next().is_none().then_some(value)
}

fn w3c(headers: &Fields) -> Option<Context> {
    let value = only(headers, TRACEPARENT)?.trim_matches([' ', '\t']);
    let (parts, more) = value.as_bytes().split_first_chunk::<55>()?;
    if [2, 35, 52].iter().any(|&at| parts[at] != b'-') {
        return None;
    }
    let [version] = hex::read(&parts[..2], false)?;
    let trace_id = id(&parts[3..35], false)?;
    let span_id = id(&parts[36..52], false)?;
    let [flags] = hex::read(&parts[53..], false)?;
    // 3.2.2: version 255 is forbidden; 4.3: later versions may append what we do not know.
    if version == 0xff || !(more.is_empty() || version > 0 && more[0] == b'-') {
        return None;
    }
    Some(Context {
        trace_id,
        span_id,
        sampled: flags & 1 == 1,
        deferred: false,
        tracestate: tracestate(headers),
    })
}

/// Joins what may be several headers (3.3.1); a state that breaks the rules is dropped whole.
fn tracestate(headers: &Fields) -> Option<Box<str>> {
    let mut out = String::new();
    let mut members = 0;
    for value in headers.get_all(TRACESTATE) {
        let text = std::str::from_utf8(value).ok()?;
        for member in text.split(',').map(|m| m.trim_matches([' ', '\t'])) {
            if member.is_empty() {
                continue;
            }
            members += 1;
            let (key, value) = member.split_once('=')?;
            if members > 32 || !valid_key(key) || !valid_value(value) {
                return None;
            }
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(member);
            if out.len() > 512 {
                return None;
            }
        }
    }
    (!out.is_empty()).then(|| out.into_boxed_str())
}

fn valid_key(key: &str) -> bool {
    (1..=256).contains(&key.len())
        && key
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'))
        && key.as_bytes()[0].is_ascii_alphanumeric()
}

fn valid_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value
            .bytes()
            .all(|b| matches!(b, 0x20..=0x7e) && b != b',' && b != b'=')
}

fn b3_trace_id(text: &str) -> Option<[u8; 16]> {
    if text.len() == 16 {
        let low: [u8; 8] = id(text, true)?;
        let mut out = [0; 16];
        out[8..].copy_from_slice(&low);
        return Some(out);
    }
    id(text, true)
}

fn b3_single(headers: &Fields) -> Option<Context> {
    let mut parts = only(headers, B3)?.split('-');
    let trace_id = b3_trace_id(parts.next()?)?;
    let span_id = id(parts.next()?, true)?;
    let (sampled, deferred) = match parts.next() {
        None => (false, true),
        Some("1" | "d") => (true, false),
        Some("0") => (false, false),
        Some(_) => return None,
    };
    if let Some(parent) = parts.next() {
        hex::read::<8>(parent, true)?;
    }
    parts.next().is_none().then_some(Context {
        trace_id,
        span_id,
        sampled,
        deferred,
        tracestate: None,
    })
}

fn b3_multiple(headers: &Fields) -> Option<Context> {
    let trace_id = b3_trace_id(only(headers, B3_TRACE)?)?;
    let span_id = id(only(headers, B3_SPAN)?, true)?;
    let debug = only(headers, B3_FLAGS) == Some("1");
    let (sampled, deferred) = match only(headers, B3_SAMPLED) {
        _ if debug => (true, false),
        Some("1" | "true") => (true, false),
        Some("0" | "false") => (false, false),
        _ => (false, true),
    };
    Some(Context {
        trace_id,
        span_id,
        sampled,
        deferred,
        tracestate: None,
    })
}

/// Decides which new traces are recorded; a caller's decision is followed.
///
/// The first few of each second are (the reservoir, as in AWS X-Ray's sampling rules), and of the
/// others a share: where little happens all of it can be seen, and where much happens it costs
/// little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    hundredths: u32,
    reservoir: u32,
}

/// What is left of a thread's reservoir in the present second.
#[derive(Debug, Default)]
pub struct Reservoir {
    since: Option<Instant>,
    used: u32,
}

impl Reservoir {
    fn take(&mut self, size: u32, now: Instant) -> bool {
        if size == 0 {
            return false;
        }
        let over = |since| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(over) {
            *self = Self {
                since: Some(now),
                used: 0,
            };
        }
        let left = self.used < size;
        self.used += u32::from(left);
        left
    }
}

impl Sampler {
    /// Records the first `reservoir` traces of each second, and of the others a share in
    /// hundredths of a percent (10,000 is all).
    pub fn new(hundredths: u32, reservoir: u32) -> Self {
        Self {
            hundredths,
            reservoir,
        }
    }

    /// Whether a new trace of this id is recorded at `now`.
    pub fn samples(self, trace_id: &[u8; 16], reservoir: &mut Reservoir, now: Instant) -> bool {
        // The last 8 bytes, as a fraction, against the share.
        let low = u128::from_be_bytes(*trace_id) & u128::from(u64::MAX);
        let place = (low * 10_000) >> 64;
        place < u128::from(self.hundredths) || reservoir.take(self.reservoir, now)
    }

    /// The context of the span for an arriving request: the caller's child, or a new trace's root.
    pub fn start(
        self,
        caller: Option<&Context>,
        reservoir: &mut Reservoir,
        now: Instant,
    ) -> Context {
        let mut context = match caller {
            Some(caller) if !caller.deferred => return caller.child(),
            Some(caller) => caller.child(),
            None => Context::root(false),
        };
        context.sampled = self.samples(&context.trace_id, reservoir, now);
        context.deferred = false;
        context
    }
}

#[cfg(test)]
mod tests;
