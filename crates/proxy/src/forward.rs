//! Sending a request to an endpoint of a destination, more than once if need be.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use lb::outlier::Verdict;
use model::Reason;
use model::service::Protocol;
use model::workload::Tunnel;
use policy::effective::Effective;
use policy::effective::Limits;
use tokio::time::Instant;

use crate::body::{Replay as KeptBody, RequestBody};
use crate::connect;
use crate::destination::{Destination, Endpoint, PortView, since_start};
use crate::error::{Failure, Replay, Side};
use crate::headers;
use crate::pool::{Lease, Sender, Wire};
use crate::record::{Exchange, Load};
use crate::retry::{self, Outcome};
use crate::worker::Worker;

/// A request ready to be sent, as often as its body allows.
pub(crate) struct Order {
    head: request::Parts,
    authority: Authority,
    path: PathAndQuery,
    body: Source,
    /// Asks for a change of protocol.
    upgrade: bool,
}

enum Source {
    Empty,
    Once(Option<RequestBody>),
    Kept(KeptBody),
}

/// A response whose body is still to come.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
}

impl Order {
    /// `keep` says whether the body should be kept for another try.
    pub(crate) fn new(
        head: request::Parts,
        body: Incoming,
        authority: Authority,
        path: PathAndQuery,
        exchange: &Exchange,
        keep: bool,
    ) -> Self {
        let body = if body.is_end_stream() {
            Source::Empty
        } else if keep {
            Source::Kept(KeptBody::new(body, exchange.request_bytes()))
        } else {
            Source::Once(Some(RequestBody::stream(body, exchange.request_bytes())))
        };
        Self {
            head,
            authority,
            path,
            body,
            upgrade: false,
        }
    }

    pub(crate) fn upgrading(mut self, upgrade: bool) -> Self {
        self.upgrade = upgrade;
        self
    }

    fn method(&self) -> &Method {
        &self.head.method
    }

    /// Whether a further try can have the whole body.
    fn replayable(&self) -> bool {
        match &self.body {
            Source::Empty => true,
            Source::Once(body) => body.is_some(),
            Source::Kept(kept) => kept.is_whole(),
        }
    }

    /// The request for its only try.
    pub(crate) fn into_request(mut self, wire: Wire) -> Request<RequestBody> {
        self.request(wire)
    }

    /// Whether there is no body, so that nothing is lost with a try.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.body, Source::Empty)
    }

    pub(crate) fn request(&mut self, wire: Wire) -> Request<RequestBody> {
        let body = match &mut self.body {
            Source::Empty => RequestBody::Empty,
            Source::Once(body) => body.take().unwrap_or(RequestBody::Empty),
            Source::Kept(kept) => kept.attempt(),
        };
        let version = match wire {
            Wire::Http1 => Version::HTTP_11,
            Wire::Http2 => Version::HTTP_2,
        };
        let mut head = self.head.clone();
        headers::set_target(&mut head, &self.authority, self.path.clone(), version);
        if self.upgrade && wire == Wire::Http1 {
            headers::ask_upgrade(&mut head.headers);
        }
        Request::from_parts(head, body)
    }
}

/// Sends `order` to an endpoint of `destination`, and again as its policy says.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    destination: &Arc<Destination>,
    port: &PortView,
    limits: Limits<'_>,
    mut order: Order,
    version: Version,
) -> Result<Answer, Failure> {
    let live = &destination.live;
    if live.requests.load(Ordering::Relaxed) >= port.policy.max_requests {
        let details = format!(
            "{} requests to {} are in flight",
            port.policy.max_requests, destination.name
        );
        return Err(Failure::new(Reason::CircuitOpen, details));
    }
    exchange.count_towards(destination);
    let deadline = limits
        .request_timeout
        .map(|limit| Instant::from_std(exchange.begun()) + limit);
    let mut tried = Vec::new();
    loop {
        let picked = worker.with_balancer(destination.id, port.number, |b| {
            port.pick(b, &tried).map(|(e, p)| (Arc::clone(e), p))
        });
        let (endpoint, target) = picked.ok_or_else(|| nobody(destination, port))?;
        let retry = tried.len() as u32;
        tried.push(endpoint.id);
        exchange.attempt(&endpoint);

        let wire = wire_for(&endpoint, port.protocol, version);
        let request = order.request(wire);
        let per_try = limits.per_try_timeout.map(|limit| Instant::now() + limit);
        let load = Load::on(&endpoint);
        let result = within(
            deadline,
            per_try,
            send(
                worker,
                exchange,
                &endpoint,
                target,
                wire,
                request,
                &port.policy,
            ),
        )
        .await;
        drop(load);

        judge(&endpoint, &result, &port.policy);
        let outcome = match &result {
            Ok(answer) => match Failure::of_peer(answer.response.headers()) {
                Some(failure) => Outcome::Failed(failure),
                None => Outcome::Answered {
                    status: answer.response.status().as_u16(),
                    headers: answer.response.headers(),
                },
            },
            Err(failure) => Outcome::Failed(failure.clone()),
        };
        let again = retry < limits.retry.attempts
            && order.replayable()
            && retry::wanted(limits.retry, order.method(), &outcome)
            && live.budget.allow(since_start(), &limits.retry.budget);
        if !again {
            return result.map_err(|failure| exhausted(failure, retry + 1));
        }
        let delivered =
            !matches!(&outcome, Outcome::Failed(failure) if failure.replay == Replay::Safe);
        let pause = retry::wait(limits.retry.backoff, retry + 1, delivered, &mut rand::rng());
        tracing::debug!(destination = %destination.name, workload = %endpoint.workload, ?pause, "trying again");
        // An answer that is not passed on takes its connection with it, unless it was complete.
        if let Ok(answer) = result
            && answer.response.body().is_end_stream()
        {
            answer.lease.give_back();
        }
        if !pause.is_zero() {
            let woken = within(deadline, None, async {
                tokio::time::sleep(pause).await;
                Ok(())
            });
            woken.await?;
        }
    }
}

/// Sends a request on a pooled connection or a new one. One that turns out to be closed before
/// anything was written is replaced without counting as a try.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    endpoint: &Arc<Endpoint>,
    port: u16,
    wire: Wire,
    mut request: Request<RequestBody>,
    policy: &Effective,
) -> Result<Answer, Failure> {
    loop {
        let mut lease = if let Some(lease) = worker.pool.checkout(endpoint, port, wire) {
            lease
        } else {
            let (sender, link) = connect::http(worker, endpoint, port, wire, policy).await?;
            worker
                .pool
                .admit(endpoint, port, sender, link, policy.idle_timeout)
        };
        exchange.sent_on(&lease.link);
        let result = match &mut lease.sender {
            Sender::Http1(sender) => {
                if let Err(error) = sender.ready().await {
                    if lease.reused {
                        continue;
                    }
                    return Err(Failure::send(&error, false, lease.link.address));
                }
                sender.try_send_request(request).await
            }
            Sender::Http2(sender) => {
                if let Err(error) = sender.ready().await {
                    if lease.reused {
                        continue;
                    }
                    return Err(Failure::send(&error, false, lease.link.address));
                }
                sender.try_send_request(request).await
            }
        };
        match result {
            Ok(response) => {
                exchange.answered(response.status().as_u16(), response.headers());
                return Ok(Answer { response, lease });
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if lease.reused => request = unsent,
                unsent => {
                    let failure = Failure::send(error.error(), lease.reused, lease.link.address);
                    return Err(if unsent.is_some() {
                        failure.replay(Replay::Safe)
                    } else {
                        failure
                    });
                }
            },
        }
    }
}

/// What is spoken to an endpoint: between proxies what the client spoke, so that nothing is
/// translated on the way; to an application what its port was declared to be.
pub(crate) fn wire_for(endpoint: &Endpoint, protocol: Protocol, version: Version) -> Wire {
    let same = if version == Version::HTTP_2 {
        Wire::Http2
    } else {
        Wire::Http1
    };
    match (endpoint.config.tunnel, protocol) {
        (Tunnel::None, Protocol::Grpc | Protocol::Http2) => Wire::Http2,
        _ => same,
    }
}

/// Runs a try within the request's and its own time.
async fn within<T>(
    deadline: Option<Instant>,
    per_try: Option<Instant>,
    attempt: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (at, reason) = match (deadline, per_try) {
        (None, None) => return attempt.await,
        (Some(all), Some(one)) if one < all => (one, Reason::TryTimeout),
        (Some(all), _) => (all, Reason::RequestTimeout),
        (None, Some(one)) => (one, Reason::TryTimeout),
    };
    tokio::time::timeout_at(at, attempt)
        .await
        .unwrap_or_else(|_| {
            Err(Failure::new(
                reason,
                "no response's head within the time allowed",
            ))
        })
}

/// Tells outlier detection how the endpoint did.
fn judge(endpoint: &Endpoint, result: &Result<Answer, Failure>, policy: &Effective) {
    let Some(settings) = &policy.outlier else {
        return;
    };
    let verdict = match result {
        Ok(answer) => Verdict::of_status(answer.response.status().as_u16()),
        // The proxy's own doing, or the client's: it says nothing of the endpoint.
        Err(failure)
            if failure.side != Side::Upstream || failure.reason == Reason::RequestTimeout =>
        {
            return;
        }
        Err(_) => Verdict::GatewayError,
    };
    if let Some(ejection) = endpoint
        .live
        .outlier
        .record(verdict, since_start(), settings)
    {
        tracing::warn!(
            service = %endpoint.config.service,
            workload = %endpoint.config.workload,
            ?ejection,
            "endpoint ejected: it failed too often in a row"
        );
    }
}

fn nobody(destination: &Destination, port: &PortView) -> Failure {
    if port.endpoints.is_empty() {
        Failure::new(
            Reason::NoEndpoints,
            format!(
                "service {} has no workload on port {}",
                destination.name, port.number
            ),
        )
    } else {
        let count = port.endpoints.len();
        let details = format!(
            "none of the {count} workloads of service {} may be chosen",
            destination.name
        );
        Failure::new(Reason::NoHealthyEndpoints, details)
    }
}

/// After more than one try the reason is that they were exhausted; the details keep the last one's.
fn exhausted(failure: Failure, tries: u32) -> Failure {
    if tries < 2 || matches!(failure.reason, Reason::RequestTimeout | Reason::NoEndpoints) {
        return failure;
    }
    let details = format!("{tries} tries, the last: {failure}");
    Failure {
        reason: Reason::RetriesExhausted,
        details,
        ..failure
    }
}
