//! Request smuggling: one request must never be read as two.
//!
//! Each payload is one message whose length, end or target can be read in more than one way (the
//! classes are those that were published, the bytes are our own). It carries a *hidden* request
//! that appears only to who reads it otherwise. Every payload goes through the proxy to back ends
//! that others wrote, which write down what they see; then
//!
//! - no back end may have seen the hidden request, nor more requests than the payload is,
//! - no back end may have been sent something that it refuses as malformed,
//! - the answer is an error, or the right answer to the right reading,
//! - and the next requests, on connections of their own but on the same pool of upstream
//!   connections, get their own answers.
//!
//! In the bytes, `{id}` is the payload's number in four digits, so that lengths stay as computed.

mod h1;
mod h1_framing;
mod h1_head;
mod h2;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use testkit::frames::{self, Frame, Outcome};
use testkit::raw::{Ended, Raw};

use crate::front::{BackEnd, Front, Kind};

/// How long the answer to something complete may take before it counts as missing.
const ANSWER: Duration = Duration::from_millis(700);
/// How long to look for more answers after the first.
const QUIET: Duration = Duration::from_millis(40);
/// How long a proxy may take to end a connection whose other side is closed.
const END: Duration = Duration::from_secs(8);

/// What the RFCs ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Want {
    /// An error with one of these statuses; for HTTP/2 also an error of the stream or connection.
    Refuse(&'static [u16]),
    /// A 200 whose body is the visible request, and (from a back end that echoes) its content.
    Pass(Vec<u8>),
    /// The RFCs leave it open: an error, or the right answer.
    Either,
}

/// Bytes of HTTP/1, or frames of HTTP/2.
#[derive(Debug, Clone)]
pub(super) enum Wire {
    H1(Vec<u8>),
    H2(Vec<Frame>),
}

/// One message with something hidden in it.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    pub(super) class: &'static str,
    pub(super) name: String,
    pub(super) wire: Wire,
    pub(super) want: Want,
    /// Requests that a right reading finds; their targets begin with `/v/{id}`.
    pub(super) requests: usize,
}

impl Payload {
    pub(super) fn new(
        class: &'static str,
        name: &str,
        bytes: impl Into<Vec<u8>>,
        want: Want,
    ) -> Self {
        Self {
            class,
            name: name.to_owned(),
            wire: Wire::H1(bytes.into()),
            want,
            requests: 1,
        }
    }
}

fn payloads() -> Vec<Payload> {
    let mut all = h1::payloads();
    all.extend(h1_framing::payloads());
    all.extend(h1_head::payloads());
    all.extend(h2::payloads());
    all
}

/// Puts the number where `{id}` stands.
fn numbered(bytes: &[u8], id: usize) -> Vec<u8> {
    let digits = format!("{id:04}");
    let mut out = bytes.to_vec();
    for at in 0..out.len().saturating_sub(3) {
        if &out[at..at + 4] == b"{id}" {
            out[at..at + 4].copy_from_slice(digits.as_bytes());
        }
    }
    out
}

/// How a payload was answered.
#[derive(Default)]
struct Answer {
    /// Statuses and bodies, in order.
    responses: Vec<(u16, Vec<u8>)>,
    /// For HTTP/2: how the stream ended, unless with an answer.
    error: Option<Outcome>,
    /// What came that is no response.
    odd: Option<String>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |body: &[u8]| String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let responses = self.responses.iter();
        f.debug_list()
            .entries(responses.map(|(status, body)| (status, text(body))))
            .entries(&self.error)
            .entries(&self.odd)
            .finish()
    }
}

fn send_h1(front: &Front, bytes: &[u8]) -> Answer {
    let mut answer = Answer::default();
    let mut raw = Raw::connect(front.addr).expect("the front accepts");
    let _ = raw.send(bytes);
    let mut limit = ANSWER;
    let mut shut = false;
    loop {
        match raw.response(limit) {
            Ok(response) => {
                answer.responses.push((response.status, response.body));
                limit = if shut { END } else { QUIET };
            }
            Err(Ended::TimedOut) if !shut => {
                // The proxy waits for more, or is done: either way there is no more.
                shut = true;
                limit = END;
                if raw.shut_write().is_err() {
                    break;
                }
            }
            Err(Ended::Closed | Ended::Reset) => break,
            Err(ended) => {
                answer.odd = Some(format!("{ended:?}: {:?}", raw.received()));
                break;
            }
        }
    }
    answer
}

fn send_h2(front: &Front, frames: &[Frame]) -> Answer {
    let mut answer = Answer::default();
    let raw = Raw::connect(front.addr_h2).expect("the front accepts");
    let Ok(mut connection) = frames::Connection::open(raw) else {
        answer.error = Some(Outcome::Closed);
        return answer;
    };
    let _ = connection.send(frames);
    match connection.outcome(1, 2 * ANSWER) {
        Outcome::Answered(Some(status), body) => answer.responses.push((status, body)),
        // A stream that waits for its end is given up, as its client would.
        Outcome::Silent => {
            let _ = connection.send(&[Frame::reset(1, frames::code::CANCEL)]);
            answer.error = Some(Outcome::Silent);
        }
        other => answer.error = Some(other),
    }
    answer
}

/// What is wrong, if anything.
fn judge(
    payload: &Payload,
    id: usize,
    answer: &Answer,
    seen: &[String],
    echoes: bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let visible = format!("/v/{id:04}");
    let own = seen.iter().filter(|line| line.contains(&visible)).count();
    if own > payload.requests {
        wrong.push(format!(
            "the back end saw {own} requests, sent were {}",
            payload.requests
        ));
    }
    for line in seen {
        let target = line.split(' ').nth(1).unwrap_or_default();
        let known = target.contains(&visible)
            || ["/good/", "/ready", "*"]
                .iter()
                .any(|own| target.starts_with(own));
        // Where the RFCs leave it open, back ends differ in what they take.
        let malformed = line.starts_with(|c: char| c.is_ascii_digit());
        if !known && !malformed || malformed && payload.want != Want::Either {
            wrong.push(format!("the back end saw {line:?}"));
        }
    }
    let answered: Vec<u16> = answer.responses.iter().map(|(status, _)| *status).collect();
    let refused = answered.iter().all(|status| (400..600).contains(status));
    if answered.iter().filter(|status| **status == 200).count() > payload.requests {
        wrong.push("more answers than requests".to_owned());
    }
    if let Some(odd) = &answer.odd {
        wrong.push(format!("an answer that is none: {odd}"));
    }
    if let (Wire::H1(_), None, None) = (&payload.wire, answered.first(), &answer.odd) {
        wrong.push("no answer".to_owned());
    }
    match (&payload.want, &payload.wire) {
        (Want::Refuse(statuses), Wire::H1(_)) => match answered.first() {
            Some(status) if statuses.contains(status) => {}
            other => wrong.push(format!("wanted one of {statuses:?}, got {other:?}")),
        },
        (Want::Refuse(statuses), Wire::H2(_)) => match (&answer.error, answered.first()) {
            (Some(Outcome::Reset(..) | Outcome::GoAway(_) | Outcome::Closed), _) => {}
            (_, Some(status)) if statuses.contains(status) => {}
            other => wrong.push(format!(
                "wanted an error or one of {statuses:?}, got {other:?}"
            )),
        },
        (Want::Pass(body), _) => match answer.responses.first() {
            Some((200, got)) if !echoes || got.ends_with(&numbered(body, id)) => {}
            _ => wrong.push(format!("wanted 200 with the content, got {answer:?}")),
        },
        (Want::Either, _) if refused || answered.first() == Some(&200) => {}
        // HTTP/2 was asked for, and it did not come.
        (Want::Either, _) if answered == [101] && payload.class == "upgrade" => {}
        (Want::Either, _) => wrong.push(format!("neither refused nor answered: {answered:?}")),
    }
    wrong
}

/// Each of a few requests on connections of their own gets its own answer.
fn good(front: &Front, id: usize) -> Result<(), String> {
    for n in 0..2 {
        let path = format!("/good/{id:04}/{n}");
        let mut raw = Raw::connect(front.addr).map_err(|e| e.to_string())?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: app.local\r\nConnection: close\r\n\r\n");
        raw.send(request).map_err(|e| e.to_string())?;
        let response = raw.response(END);
        let own = format!("GET {path}\n");
        match &response {
            Ok(r) if r.status == 200 && r.text() == own => {}
            other => return Err(format!("the request after it, {path}, got {other:?}")),
        }
    }
    Ok(())
}

/// A tally of how payloads were answered, for `--nocapture` and comparisons.
#[derive(Default)]
struct Report {
    failures: Vec<String>,
    statuses: BTreeMap<String, usize>,
}

fn run(payloads: &[(usize, Payload)], mut backend: BackEnd, report: &Mutex<Report>) {
    let front = Front::start(backend.addr());
    let echoes = matches!(backend, BackEnd::Hyper(_));
    for (id, payload) in payloads {
        let before = backend.seen().len();
        let (answer, text) = match &payload.wire {
            Wire::H1(bytes) => {
                let bytes = numbered(bytes, *id);
                (
                    send_h1(&front, &bytes),
                    String::from_utf8_lossy(&bytes).into_owned(),
                )
            }
            Wire::H2(frames) => {
                let numbered =
                    |f: &Frame| Frame::new(f.kind, f.flags, f.stream, numbered(&f.payload, *id));
                let frames: Vec<_> = frames.iter().map(numbered).collect();
                (send_h2(&front, &frames), format!("{frames:?}"))
            }
        };
        let after = good(&front, *id);
        let seen = backend.seen();
        let seen = &seen[before.min(seen.len())..];
        let mut wrong = judge(payload, *id, &answer, seen, echoes);
        wrong.extend(after.err());
        let mut report = report.lock().expect("no test thread failed");
        let how = match answer.responses.first() {
            Some((status, _)) => status.to_string(),
            None => format!("{:?}", answer.error.as_ref().unwrap_or(&Outcome::Closed)),
        };
        *report.statuses.entry(how).or_default() += 1;
        if !wrong.is_empty() {
            let mut text = text;
            if text.len() > 1500 {
                text.truncate(text.floor_char_boundary(1500));
                text.push('…');
            }
            let mut all = format!(
                "--- {id:04} {}: {:?} (back end {})\n",
                payload.class,
                payload.name,
                backend.name()
            );
            for wrong in wrong {
                let _ = writeln!(all, "    {wrong}");
            }
            let _ = writeln!(
                all,
                "  sent     {text:?}\n  answered {answer:?}\n  seen     {seen:?}"
            );
            report.failures.push(all);
        }
        assert!(backend.is_running(), "the back end died of {payload:?}");
    }
    if front.kind == Kind::Tulle {
        counted(&front, &backend);
    }
}

/// The proxy's own log knows of every request that the back end saw.
fn counted(front: &Front, backend: &BackEnd) {
    let seen = backend.seen().len();
    testkit::wait_for("the access log to name every request", END, || {
        (front.access_log().len() >= seen).then_some(())
    });
}

#[test]
fn one_request_is_never_read_as_two() {
    const SHARES: usize = 3;
    let only = std::env::var("PAYLOADS").unwrap_or_default();
    let all: Vec<_> = payloads().into_iter().enumerate().collect();
    assert!(all.len() >= 300, "only {} payloads", all.len());
    let chosen: Vec<_> = all
        .into_iter()
        .filter(|(_, p)| only.is_empty() || format!("{}: {}", p.class, p.name).contains(&only))
        .collect();
    let report = Mutex::new(Report::default());
    let nginx = BackEnd::nginx().is_some();
    thread::scope(|scope| {
        for share in 0..SHARES {
            let part: Vec<_> = chosen.iter().skip(share).step_by(SHARES).cloned().collect();
            let (report, second) = (&report, part.clone());
            scope.spawn(move || run(&part, BackEnd::hyper(), report));
            if nginx {
                scope.spawn(move || run(&second, BackEnd::nginx().expect("installed"), report));
            }
        }
    });
    let report = report.into_inner().expect("no test thread failed");
    println!("{} payloads; answers: {:?}", chosen.len(), report.statuses);
    for failure in &report.failures {
        println!("{failure}");
    }
    println!("{} failures", report.failures.len());
    if Kind::chosen().is_ours() {
        assert!(report.failures.is_empty(), "see above");
    }
}
