//! Limits that a service counts for the whole mesh, in Envoy's protocol.
//!
//! A question is a request of the proxy's own: it goes to the service as any other would, by its
//! balancing, pools and mutual TLS, is traced below the request that it is about, and is counted. The
//! request waits for the answer as long as its policy says. A question that comes too late is not
//! broken off: it is counted all the same, and the connection that is being made for it serves the
//! next.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use model::Reason;
use model::request::{FailureMode, Limit, Limits, RateLimitService, Scope};
use policy::request::limit::{Entry, Verdict, entries};
use policy::request::{Asker, holds, normalize};
use policy::route::RequestView;
use telemetry::hex;
use tokio::sync::oneshot;
use wire::h1::Length;
use wire::{Fields, Method, RequestHead, Scheme, Version};
use xds::ratelimit::{self, Descriptor, Status};

use super::limiter::{Told, refusal, say};
use crate::deadline;
use crate::error::Failure;
use crate::forward::{self, Order};
use crate::http::body::{Frame, Incoming};
use crate::http::{Informer, Request};
use crate::outbound;
use crate::record::Exchange;
use crate::worker::Worker;

/// All that Tulle asks about is counted under this name, apart from what others ask.
const DOMAIN: &str = "tulle";
/// Questions under way in one worker; requests beyond are answered as if nobody counted.
const AT_ONCE: usize = 1024;
/// For a question, whoever still waits for it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of an answer.
const ANSWER: usize = 64 * 1024;
/// Bytes of a value that are sent as they are.
const PLAIN: usize = 128;

/// The limits of one policy at one place that are the whole mesh's.
pub(crate) struct Global {
    /// `RateLimitPolicy namespace/name`, for messages.
    shown: String,
    /// What all its counts begin with.
    start: [(String, String); 2],
    headers: bool,
    service: Option<Arc<RateLimitService>>,
    limits: Vec<Limit>,
}

/// What is to be asked about one request.
pub(crate) struct Question {
    service: Option<Arc<RateLimitService>>,
    parts: Vec<Part>,
}

/// What one policy wants to know.
struct Part {
    global: Arc<Global>,
    /// Which of its limits, and what each is told.
    asked: Vec<(usize, Descriptor)>,
}

impl Global {
    /// `target` is what the policy is for, in words: each has a count of its own.
    pub(super) fn new(
        policy: &str,
        shown: &str,
        target: String,
        limits: &Limits,
    ) -> Option<Arc<Self>> {
        if !limits.has_global() {
            return None;
        }
        let all = limits.limits.iter();
        let own = all.filter(|limit| limit.scope != Scope::Local).cloned();
        Some(Arc::new(Self {
            shown: shown.to_owned(),
            start: [
                ("policy".to_owned(), policy.to_owned()),
                ("target".to_owned(), target),
            ],
            headers: limits.headers,
            service: limits.service.clone().map(Arc::new),
            limits: own
                .map(|mut limit| {
                    normalize(&mut limit.condition);
                    limit
                })
                .collect(),
        }))
    }

    /// What is to be asked about a request, if anything.
    pub(super) fn question(
        self: &Arc<Self>,
        request: &RequestView<'_>,
        asker: Asker<'_>,
    ) -> Option<Box<Question>> {
        let limits = self.limits.iter().enumerate();
        let asked: Vec<_> = limits
            .filter(|(_, limit)| holds(&limit.condition, request, asker))
            .map(|(at, limit)| (at, self.descriptor(limit, request, asker)))
            .collect();
        (!asked.is_empty()).then(|| {
            Box::new(Question {
                service: self.service.clone(),
                parts: vec![Part {
                    global: Arc::clone(self),
                    asked,
                }],
            })
        })
    }

    fn descriptor(&self, limit: &Limit, request: &RequestView<'_>, asker: Asker<'_>) -> Descriptor {
        let mut all = self.start.to_vec();
        all.push(("limit".to_owned(), limit.name.clone()));
        for entry in entries(limit, request, asker) {
            let value = text(&entry);
            all.push((entry.name.into_owned(), value));
        }
        Descriptor {
            entries: all,
            requests: limit.requests,
            per: limit.per,
        }
    }
}

/// A value as a service may keep it: short, text, and of no use to whoever finds it.
fn text(entry: &Entry<'_>) -> String {
    let plain = std::str::from_utf8(&entry.value).ok();
    if let Some(text) = plain.filter(|text| !entry.secret && text.len() <= PLAIN) {
        return text.to_owned();
    }
    let hash = digest::digest(&digest::SHA256, &entry.value);
    let mut digits = [0; 64];
    hex::write(hash.as_ref(), &mut digits);
    format!("sha256:{}", String::from_utf8_lossy(&digits))
}

impl Question {
    /// Asks what another wants to know as well, if of the same service.
    pub(crate) fn join(&mut self, other: Box<Self>) -> Option<Box<Self>> {
        if self.service != other.service {
            return Some(other);
        }
        self.parts.extend(other.parts);
        None
    }

    /// Asks, and says what the client is to be told. Fails if a limit is reached, or if nobody answers
    /// and a limit is to be closed then.
    pub(crate) async fn put(
        self,
        worker: &Rc<Worker>,
        exchange: &Exchange,
        told: &mut Option<Box<Told>>,
    ) -> Result<(), Failure> {
        match self.answer(worker, exchange).await {
            Ok(statuses) => self.judge(&statuses, told),
            Err(why) => self.unanswered(worker, &why),
        }
    }

    async fn answer(
        &self,
        worker: &Rc<Worker>,
        exchange: &Exchange,
    ) -> Result<Vec<Status>, String> {
        let Some(service) = &self.service else {
            return Err("no service is named that counts".to_owned());
        };
        let place = Rc::clone(&worker.questions);
        if Rc::strong_count(&place) > AT_ONCE + 1 {
            return Err(format!("{AT_ONCE} questions are under way"));
        }
        let descriptors = self.parts.iter().flat_map(|part| &part.asked);
        let count = descriptors.clone().count();
        let body = ratelimit::encode(DOMAIN, descriptors.map(|(_, d)| d.clone()));
        let question = exchange.beside(head(service), outbound::local_caller);
        let (tell, answer) = oneshot::channel();
        let (asker, to) = (Rc::clone(worker), Arc::clone(service));
        tokio::task::spawn_local(async move {
            let asked = Box::pin(ask(&asker, question, &to, body));
            let late = |_| Err(format!("no answer in {PATIENCE:?}"));
            let answer = tokio::time::timeout(PATIENCE, asked).await;
            // Nobody may wait for it any more.
            let _ = tell.send(answer.unwrap_or_else(late));
            drop(place);
        });
        let limit = service.timeout;
        let answer = match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the question was not put".to_owned()),
            Err(_) => Err(format!("no answer in {limit:?}")),
        };
        let body = answer.map_err(|why| format!("{service}: {why}"))?;
        ratelimit::decode(&body, count).map_err(|error| format!("{service}: {error}"))
    }

    fn judge(&self, statuses: &[Status], told: &mut Option<Box<Told>>) -> Result<(), Failure> {
        let mut over = None;
        let asked = self.parts.iter().flat_map(|part| {
            let limits = part.asked.iter();
            limits.filter_map(move |(at, _)| Some((&part.global, part.global.limits.get(*at)?)))
        });
        for ((global, limit), status) in asked.zip(statuses) {
            let verdict = Verdict {
                allowed: !status.over,
                remaining: status.remaining,
                reset: status.reset,
                retry_after: status.reset,
            };
            if global.headers {
                say(limit, &verdict, told);
            }
            if status.over && over.is_none() {
                over = Some((global, limit, verdict));
            }
        }
        match over {
            None => Ok(()),
            Some((global, limit, verdict)) => {
                Err(refusal(limit, &global.shown, &verdict, told.take()))
            }
        }
    }

    /// Nobody counts: each limit says what is to become of requests then.
    fn unanswered(&self, worker: &Worker, why: &str) -> Result<(), Failure> {
        let closed = self.parts.iter().find_map(|part| {
            let asked = part.asked.iter();
            let mut limits = asked.filter_map(|(at, _)| part.global.limits.get(*at));
            let limit = limits.find(|l| l.scope == Scope::Global(FailureMode::Closed))?;
            Some((&part.global, limit))
        });
        let Some((global, limit)) = closed else {
            tracing::debug!(why, "nobody counts: the request passes");
            worker.shared.uncounted_passed.inc();
            return Ok(());
        };
        worker.shared.uncounted_refused.inc();
        let details = format!(
            "limit \"{}\" of {} is closed while nobody counts: {why}",
            limit.name, global.shown
        );
        Err(Failure {
            own_status: Some(503),
            ..Failure::new(Reason::ExtensionFailed, details)
        })
    }
}

fn head(service: &RateLimitService) -> RequestHead {
    let mut fields = Fields::new();
    fields.append("content-type", b"application/grpc");
    let mut head = RequestHead::new();
    head.method = Method::POST;
    head.version = Version::HTTP_2;
    head.scheme = Some(Scheme::Http);
    head.authority = service.to_string();
    ratelimit::PATH.clone_into(&mut head.path);
    head.fields = fields;
    head
}

/// Puts a question, and reads the answer.
async fn ask(
    worker: &Rc<Worker>,
    mut exchange: Exchange,
    service: &RateLimitService,
    body: Bytes,
) -> Result<Bytes, String> {
    match send(worker, &mut exchange, service, body).await {
        Ok(answer) => read(forward::deliver(exchange, answer)).await,
        Err(failure) => {
            let why = failure.to_string();
            exchange.fail(&failure);
            Err(why)
        }
    }
}

async fn send(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    service: &RateLimitService,
    body: Bytes,
) -> Result<crate::http1::client::Response, Failure> {
    let backend = outbound::service(worker, &service.name).await?;
    exchange.set_destination(&backend.host);
    let view = Arc::clone(&backend.view());
    let port = view
        .port(service.port)
        .ok_or_else(|| outbound::no_port(&backend, &view, service.port))?;
    let limits = port.policy.limits(None);
    let request = Request {
        length: Length::Known(body.len() as u64),
        body: Incoming::Own(body),
        upgrade: false,
        trailers: true,
        expects: false,
        informer: Informer::Nobody,
    };
    let mut order = Order::new(request, exchange, limits.retry.attempts > 0);
    order.deadline = deadline::of(exchange, Some(PATIENCE));
    forward::forward(worker, exchange, &backend, port, limits, &mut order).await
}

/// The message of an answer. gRPC tells of failures in trailers, or in the head where nothing else
/// follows.
async fn read(reply: crate::http::Reply) -> Result<Bytes, String> {
    if reply.head.status != 200 {
        return Err(format!("it answers with status {}", reply.head.status));
    }
    refused(&reply.head.fields)?;
    let mut body = reply.body;
    let mut bytes = BytesMut::new();
    loop {
        match poll_fn(|cx| body.poll_frame(cx)).await {
            Some(Ok(Frame::Data(data))) if bytes.len() + data.len() <= ANSWER => {
                bytes.extend_from_slice(&data);
            }
            Some(Ok(Frame::Data(_))) => return Err(format!("its answer is beyond {ANSWER} bytes")),
            Some(Ok(Frame::Trailers(fields))) => {
                refused(&fields)?;
                return Ok(bytes.freeze());
            }
            Some(Err(_)) => return Err("its answer broke off".to_owned()),
            None => return Ok(bytes.freeze()),
        }
    }
}

fn refused(fields: &Fields) -> Result<(), String> {
    match fields.get_str("grpc-status") {
        None | Some("0") => Ok(()),
        Some(status) => {
            let message = fields.get_str("grpc-message").unwrap_or_default();
            let message: String = message.chars().take(200).collect();
            Err(format!("it answers with gRPC status {status}: {message}"))
        }
    }
}

#[cfg(test)]
mod tests;
