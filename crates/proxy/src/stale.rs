//! The last good answers of services, for when they have none (`TrafficPolicy`, `fallback.cache`).
//!
//! This is not a cache that spares a service requests: each request goes there first, and what was kept
//! is given only instead of a failure (RFC 5861 4, `stale-if-error`). What may be kept is what a shared
//! cache may (RFC 9111 3), and of that only complete answers with status 200 to GET, without cookies.
//!
//! Each worker keeps its own, within a bound; the oldest go first.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;
use wire::h1::Length;
use wire::{Fields, RequestHead};

use crate::error::Failure;
use crate::http::body::{Frame, Incoming};
use crate::http1::client::Response;
use crate::worker::Map;

/// The longest body that is kept.
const BODY: usize = 256 * 1024;
/// What all answers that a worker keeps may have together, bodies and fields.
const ALL: usize = 16 * 1024 * 1024;
/// What is counted for an answer beside its content.
const OVERHEAD: usize = 512;

/// The answers that a worker keeps.
#[derive(Default)]
pub(crate) struct Stale(RefCell<Answers>);

#[derive(Default)]
struct Answers {
    known: Map<Key, Answer>,
    /// In the order in which they came; those that have been replaced meanwhile included.
    order: VecDeque<(Key, u64)>,
    size: usize,
    next: u64,
}

/// What tells an answer from others: the service, and what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    service: Arc<str>,
    port: u16,
    authority: String,
    path: String,
}

/// An answer that was good.
#[derive(Clone)]
pub(crate) struct Answer {
    number: u64,
    pub(crate) fields: Fields,
    pub(crate) body: Bytes,
    /// Of the request, those that the answer depends on, with their values.
    vary: Vec<(String, Vec<u8>)>,
    since: Instant,
}

impl Answer {
    /// How long ago it came.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    fn size(&self, key: &Key) -> usize {
        let fields = self
            .fields
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let key = 2 * (key.authority.len() + key.path.len());
        self.body.len() + fields.sum::<usize>() + key + OVERHEAD
    }
}

impl Key {
    /// `None` for a request whose answer is for nobody else.
    pub(crate) fn of(service: &Arc<str>, port: u16, head: &RequestHead) -> Option<Box<Self>> {
        let fields = &head.fields;
        let personal = ["authorization", "range"]
            .iter()
            .any(|n| fields.contains(n));
        if head.method != Method::GET || personal || says(fields, &["no-store"]) {
            return None;
        }
        Some(Box::new(Self {
            service: Arc::clone(service),
            port,
            authority: head.authority.clone(),
            path: head.path.clone(),
        }))
    }
}

impl Stale {
    /// An answer to the same question that is not older than `most`.
    pub(crate) fn find(&self, key: &Key, asked: &Fields, most: Duration) -> Option<Answer> {
        let answers = self.0.borrow();
        let answer = answers.known.get(key)?;
        let same = |(name, value): &(String, Vec<u8>)| values(asked, name) == *value;
        let fits = answer.age() <= most && answer.vary.iter().all(same);
        fits.then(|| answer.clone())
    }

    fn keep(&self, key: &Key, mut answer: Answer) {
        let answers = &mut *self.0.borrow_mut();
        answers.next += 1;
        answer.number = answers.next;
        answers.size += answer.size(key);
        answers.order.push_back((key.clone(), answer.number));
        if let Some(old) = answers.known.insert(key.clone(), answer) {
            answers.size -= old.size(key);
        }
        // One that is asked for again and again must not leave a trace each time.
        let crowded = |a: &Answers| a.size > ALL || a.order.len() > 2 * a.known.len() + 64;
        while crowded(answers) {
            let Some((key, number)) = answers.order.pop_front() else {
                return;
            };
            if answers.known.get(&key).is_none_or(|a| a.number != number) {
                continue;
            }
            if answers.size <= ALL {
                // The oldest is still good: what is to go stands behind it.
                answers.order.push_back((key, number));
                continue;
            }
            if let Some(old) = answers.known.remove(&key) {
                answers.size -= old.size(&key);
            }
        }
    }
}

/// Has an answer kept once it has come to its end, if it may be.
pub(crate) fn keep(stale: &Rc<Stale>, key: Box<Key>, asked: &Fields, answer: &mut Response) {
    let fields = &answer.head.fields;
    let length = match answer.length {
        Length::Known(length) => usize::try_from(length).unwrap_or(usize::MAX),
        _ => 0,
    };
    let Some(vary) = vary(fields, asked) else {
        return;
    };
    let private = fields.contains("set-cookie") || says(fields, &["no-store", "private"]);
    if answer.head.status != 200 || private || length > BODY || answer.switched.is_some() {
        return;
    }
    let mut keeping = Keeping {
        stale: Rc::clone(stale),
        key: Some(key),
        fields: fields.clone(),
        vary,
        body: Vec::new(),
        incoming: Incoming::Empty,
    };
    if answer.body.is_end() {
        keeping.ended();
        return;
    }
    keeping.incoming = std::mem::replace(&mut answer.body, Incoming::Empty);
    answer.body = Incoming::Kept(Box::new(keeping));
}

/// Whether `Cache-Control` has one of these directives.
fn says(fields: &Fields, directives: &[&str]) -> bool {
    fields.get_all("cache-control").any(|line| {
        line.split(|b| *b == b',').any(|one| {
            let name = one.split(|b| *b == b'=').next().unwrap_or_default();
            let name = name.trim_ascii();
            directives
                .iter()
                .any(|d| name.eq_ignore_ascii_case(d.as_bytes()))
        })
    })
}

/// What of the request the answer depends on; `None` if nobody knows (`*`), or too much.
fn vary(answer: &Fields, asked: &Fields) -> Option<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for line in answer.get_all("vary") {
        for name in line.split(|b| *b == b',') {
            let name = std::str::from_utf8(name.trim_ascii()).ok()?;
            if name == "*" || found.len() == 16 {
                return None;
            }
            let name = name.to_ascii_lowercase();
            let value = values(asked, &name);
            found.push((name, value));
        }
    }
    Some(found)
}

fn values(fields: &Fields, name: &str) -> Vec<u8> {
    let all: Vec<&[u8]> = fields.get_all(name).collect();
    all.join(&b","[..])
}

/// The body of an answer that is kept when it has come whole.
pub(crate) struct Keeping {
    stale: Rc<Stale>,
    /// `None` once it was kept, or cannot be.
    key: Option<Box<Key>>,
    fields: Fields,
    vary: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    incoming: Incoming,
}

impl Keeping {
    pub(crate) fn is_end(&self) -> bool {
        self.incoming.is_end()
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        self.incoming.trailers()
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Failure>>> {
        let polled = self.incoming.poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                if self.key.is_some() && self.body.len() + data.len() <= BODY {
                    self.body.extend_from_slice(data);
                    if self.incoming.is_end() {
                        self.ended();
                    }
                } else {
                    self.give_up();
                }
            }
            Poll::Ready(None) => self.ended(),
            // It would lack its trailers, or the rest.
            Poll::Ready(Some(_)) => self.give_up(),
        }
        polled
    }

    fn give_up(&mut self) {
        self.key = None;
        self.body = Vec::new();
    }

    fn ended(&mut self) {
        let Some(key) = self.key.take() else {
            return;
        };
        let answer = Answer {
            number: 0,
            fields: std::mem::take(&mut self.fields),
            body: std::mem::take(&mut self.body).into(),
            vary: std::mem::take(&mut self.vary),
            since: Instant::now(),
        };
        self.stale.keep(&key, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in list {
            fields.append(name, value.as_bytes());
        }
        fields
    }

    fn asked(path: &str, list: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        (head.method, head.fields) = (Method::GET, fields(list));
        (head.authority, head.path) = ("s.shop".to_owned(), path.to_owned());
        head
    }

    fn key(head: &RequestHead) -> Option<Box<Key>> {
        Key::of(&"s.shop".into(), 80, head)
    }

    fn answered(status: u16, list: &[(&str, &str)]) -> Response {
        Response {
            head: wire::ResponseHead {
                status,
                fields: fields(list),
                ..wire::ResponseHead::default()
            },
            body: Incoming::Empty,
            length: Length::Known(0),
            switched: None,
        }
    }

    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn only_what_a_shared_cache_may_keep_is_kept() {
        let kept = |request: &[(&str, &str)], status, answer: &[(&str, &str)]| {
            let stale = Rc::new(Stale::default());
            let head = asked("/", request);
            let Some(key) = key(&head) else { return false };
            keep(
                &stale,
                key.clone(),
                &head.fields,
                &mut answered(status, answer),
            );
            stale.find(&key, &head.fields, LONG).is_some()
        };
        assert!(kept(
            &[],
            200,
            &[("cache-control", "max-age=0, must-revalidate")]
        ));
        for (name, value) in [
            ("authorization", "Basic x"),
            ("range", "bytes=0-1"),
            ("cache-control", "max-age=0,No-Store"),
        ] {
            assert!(!kept(&[(name, value)], 200, &[]), "{name}");
        }
        for (name, value) in [
            ("set-cookie", "a=b"),
            ("cache-control", "private=\"x\""),
            ("cache-control", "no-store"),
            ("vary", "accept, *"),
        ] {
            assert!(!kept(&[], 200, &[(name, value)]), "{name}");
        }
        for status in [201, 204, 206, 301, 404, 503] {
            assert!(!kept(&[], status, &[]), "{status}");
        }
        let mut post = asked("/", &[]);
        post.method = Method::POST;
        assert_eq!(key(&post), None);
    }

    #[tokio::test]
    async fn an_answer_is_for_the_same_question_and_for_a_while() {
        let stale = Rc::new(Stale::default());
        let german = asked("/a", &[("accept-language", "de")]);
        let key = |head: &RequestHead| key(head).expect("one for all");
        let mut answer = answered(200, &[("vary", "Accept-Language"), ("x-who", "de")]);
        keep(&stale, key(&german), &german.fields, &mut answer);
        let find = |head: &RequestHead, most| {
            let found = stale.find(&key(head), &head.fields, most)?;
            found.fields.get_str("x-who").map(str::to_owned)
        };
        assert_eq!(find(&german, LONG).as_deref(), Some("de"));
        assert_eq!(find(&asked("/a", &[("accept-language", "en")]), LONG), None);
        assert_eq!(find(&asked("/a", &[]), LONG), None);
        assert_eq!(find(&asked("/b", &[("accept-language", "de")]), LONG), None);
        assert_eq!(find(&german, Duration::ZERO), None);
    }

    #[tokio::test]
    async fn what_is_kept_stays_within_its_bound_and_the_oldest_go_first() {
        let stale = Stale::default();
        let add = |n: usize, length: usize| {
            let head = asked(&format!("/{n}"), &[]);
            let answer = Answer {
                number: 0,
                fields: Fields::new(),
                body: vec![0; length].into(),
                vary: Vec::new(),
                since: Instant::now(),
            };
            stale.keep(&key(&head).expect("one for all"), answer);
        };
        // The same again and again leaves nothing behind.
        for _ in 0..10_000 {
            add(0, 10);
        }
        let small = stale.0.borrow().size;
        assert!(
            small < 2000 && stale.0.borrow().order.len() < 100,
            "{small}"
        );
        for n in 1..200 {
            add(n, 200 * 1024);
        }
        let answers = stale.0.borrow();
        assert!(answers.size <= ALL && answers.size > ALL - 300 * 1024);
        let there = |n| {
            answers
                .known
                .contains_key(&key(&asked(&format!("/{n}"), &[])).expect("one"))
        };
        assert!(there(199) && !there(0) && !there(1));
        let counted: usize = answers.known.iter().map(|(key, a)| a.size(key)).sum();
        assert_eq!(answers.size, counted);
    }
}
