//! Sending a request to an endpoint of a destination, more than once if need be.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use lb::outlier::Verdict;
use model::Reason;
use model::balancing::Algorithm;
use model::service::Protocol;
use model::workload::Tunnel;
use net::copy;
use policy::effective::Effective;
use policy::effective::Limits;
use tokio::time::Instant;
use wire::Version;
use wire::h1::{Length, Target};

use crate::admission::admit;
use crate::connect;
use crate::deadline::{self, Deadline};
use crate::destination::{Destination, Endpoint, PortView, at, since_start};
use crate::error::{Failure, Replay, Side};
use crate::headers::PEER_FAILURE;
use crate::hedge::Race;
use crate::http::body::{Incoming, Replay as KeptBody, RequestBody};
use crate::http::{Informer, Reply, Request};
use crate::http1;
use crate::http1::client::{Conn, Response, Unanswered};
use crate::http2;
use crate::pending::{self, Room};
use crate::pool::{Home, Wire};
use crate::record::{Exchange, Load};
use crate::retry;
pub(crate) use crate::retry::Outcome;
use crate::spare;
use crate::worker::Worker;

/// A request ready to be sent, as often as its body allows; its head is in the exchange.
pub(crate) struct Order {
    /// In place of the head's own.
    pub(crate) authority: Option<String>,
    /// In place of the head's own, with query.
    pub(crate) path: Option<String>,
    /// The endpoint that the client's session is bound to.
    pub(crate) kept: Option<SocketAddr>,
    /// Until when all tries together may take.
    pub(crate) deadline: Deadline,
    /// What the request is told from others by, where that counts.
    pub(crate) hash: Option<u64>,
    body: Source,
    length: Length,
    /// Asks for a change of protocol.
    upgrade: bool,
    trailers: bool,
    expects: bool,
    informer: Informer,
}

enum Source {
    Empty,
    Once(Option<RequestBody>),
    Kept(KeptBody),
}

impl Order {
    /// `keep` says whether the body should be kept for another try.
    pub(crate) fn new(request: Request, exchange: &mut Exchange, keep: bool) -> Self {
        let body = match request.body {
            Incoming::Empty => Source::Empty,
            body if keep => Source::Kept(KeptBody::new(body)),
            body => Source::Once(Some(RequestBody::once(body, exchange.request_bytes()))),
        };
        Self {
            authority: None,
            path: None,
            kept: None,
            deadline: Deadline::default(),
            hash: None,
            body,
            length: request.length,
            upgrade: request.upgrade,
            trailers: request.trailers,
            expects: request.expects,
            informer: request.informer,
        }
    }

    /// Whether a further try can have the whole body.
    pub(crate) fn replayable(&self) -> bool {
        match &self.body {
            Source::Empty => true,
            Source::Once(body) => body.is_some(),
            Source::Kept(kept) => kept.is_whole(),
        }
    }

    /// The same request without a body, for another try beside this one.
    pub(crate) fn twin(&self) -> Self {
        Self {
            authority: self.authority.clone(),
            path: self.path.clone(),
            kept: None,
            hash: self.hash,
            deadline: self.deadline,
            body: Source::Empty,
            length: self.length,
            upgrade: false,
            trailers: self.trailers,
            expects: false,
            informer: Informer::Nobody,
        }
    }

    /// Whether there is no body, so that nothing is lost with a try.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.body, Source::Empty)
    }

    /// The body for one try.
    fn take_body(&mut self, exchange: &mut Exchange) -> RequestBody {
        match &mut self.body {
            Source::Empty => RequestBody::empty(),
            Source::Once(body) => body.take().unwrap_or_else(RequestBody::empty),
            Source::Kept(kept) => RequestBody::replay(kept, exchange.request_bytes()),
        }
    }

    /// Takes back a body of which nothing was used.
    fn put_back(&mut self, body: RequestBody) {
        if let Source::Once(place) = &mut self.body {
            *place = Some(body);
        }
    }
}

/// Sends `order` to an endpoint of `destination`, and again as its policy says.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    destination: &Arc<Destination>,
    port: &PortView,
    limits: Limits<'_>,
    order: &mut Order,
) -> Result<Response, Failure> {
    let live = &destination.live;
    admit(destination, &port.policy, &exchange.head().fields)?;
    exchange.count_towards(destination);
    let deadline = order.deadline.until;
    let mut tried = Vec::new();
    let mut retries = 0;
    let mut retrying = None;
    loop {
        let now = Instant::now();
        deadline::passed(deadline, now)?;
        let picked = worker.with_balancer(destination.id, port.number, |b| {
            let kept = order.kept.filter(|_| tried.is_empty());
            let kept = kept.and_then(|place| port.kept(place, now.into_std()));
            kept.or_else(|| port.pick(b, order.hash, &tried, now.into_std()))
        });
        let (endpoint, target) = picked.ok_or_else(|| nobody(destination, port))?;
        let retry = retries;
        retries += 1;
        let hedging = port.policy.hedging.filter(|_| {
            retry == 0
                && order.is_empty()
                && !order.upgrade
                && retry::is_idempotent(&exchange.head().method)
        });
        let (endpoint, result) = if let Some(hedging) = hedging {
            let race = Race {
                worker,
                destination,
                port,
                limits,
                hedging,
            };
            let first = (Arc::clone(endpoint), target);
            Box::pin(race.run(exchange, order, first, &mut tried)).await
        } else {
            exchange.attempt(endpoint, now.into_std());
            let wire = wire_for(endpoint, port.protocol, exchange, order.upgrade);
            let per_try = limits.per_try_timeout.map(|limit| now + limit);
            let until = [deadline, per_try].into_iter().flatten().min();
            deadline::tell(exchange, until, now);
            let load = Load::on(&**endpoint);
            let result = {
                let attempt = pin!(send(
                    worker,
                    exchange,
                    endpoint,
                    target,
                    wire,
                    order,
                    &port.policy,
                ));
                within(deadline, per_try, attempt).await
            };
            drop(load);
            time(destination, port, endpoint, now, &result);
            if !exchange.is_pending() {
                judge(destination, port, endpoint, &result);
            }
            (Arc::clone(endpoint), result)
        };
        let outcome = Outcome::of(&result);
        let asked = retry::asked_for(&outcome);
        let again = retry < limits.retry.attempts
            && order.replayable()
            && retry::wanted(limits.retry, &exchange.head().method, &outcome)
            && asked.is_none_or(|pause| retry::may_wait(pause, deadline))
            && live.budget.allow(since_start(), &limits.retry.budget)
            && {
                drop(retrying.take());
                retrying = live.retry(port.policy.max_retries);
                retrying.is_some()
            };
        if !again {
            return result.map_err(|failure| exhausted(failure, retry + 1));
        }
        let delivered =
            !matches!(&outcome, Outcome::Failed(failure) if failure.replay == Replay::Safe);
        let pause = retry::wait(limits.retry.backoff, retry + 1, delivered, &mut rand::rng());
        let pause = pause.max(asked.unwrap_or_default());
        tracing::debug!(destination = %destination.name, workload = %endpoint.workload, ?pause, "trying again");
        // An answer that is not passed on takes its connection with it, unless it was complete.
        drop(result);
        tried.push(endpoint.id);
        if !pause.is_zero() {
            let woken = Box::pin(async {
                tokio::time::sleep(pause).await;
                Ok(())
            });
            within(deadline, None, woken).await?;
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
    order: &mut Order,
    policy: &Effective,
) -> Result<Response, Failure> {
    let behalf = exchange.behalf(policy.proxy_protocol, endpoint.outside(port).is_some());
    let home = worker
        .pool
        .home(endpoint, port, policy.idle_timeout, behalf);
    loop {
        let body = order.take_body(exchange);
        let (result, reused) = match wire {
            Wire::Http1 => {
                let conn = match home.http1() {
                    Some(conn) => conn,
                    // In a box: seldom done, and large.
                    None => {
                        Box::pin(http1(worker, exchange, endpoint, port, policy, &home)).await?
                    }
                };
                let reused = conn.reused;
                exchange.sent_on(&conn.link);
                let request = written(exchange, order);
                let sent = http1::client::send(conn, &request, body, &order.informer);
                (sent.await, reused)
            }
            Wire::Http2 => {
                let (handle, reused) = if let Some(handle) = home.http2() {
                    (handle, true)
                } else {
                    let connecting = connect::http2(worker, endpoint, port, policy, &home);
                    (Box::pin(connecting).await?, false)
                };
                exchange.sent_on(&handle.link);
                let map = spare::header_map(&mut exchange.head_mut().fields);
                let request = written(exchange, order);
                let sent = http2::client::send(handle, &request, map, body, &order.informer);
                (sent.await, reused)
            }
        };
        match result {
            Ok(response) => {
                exchange.answered(response.head.status, &response.head.fields);
                return Ok(response);
            }
            Err(Unanswered { failure, body }) => {
                let whole = body.is_some();
                if let Some(body) = body {
                    order.put_back(body);
                }
                if !(reused && whole && failure.replay == Replay::Safe) {
                    return Err(failure);
                }
            }
        }
    }
}

/// An HTTP/1 connection where none was free: a new one, if there may be one more, else one for which the
/// request waits.
async fn http1(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    endpoint: &Arc<Endpoint>,
    port: u16,
    policy: &Effective,
    home: &Home,
) -> Result<Box<Conn>, Failure> {
    let slot = if let Some(slot) = worker.pool.reserve(endpoint, policy.max_connections) {
        slot
    } else {
        // Stays set if the time is over meanwhile: the endpoint has nothing to do with it.
        exchange.set_pending(true);
        let room = pending::wait(worker, endpoint, policy, home).await;
        exchange.set_pending(false);
        match room? {
            Room::New(slot) => slot,
            Room::Kept(conn) => return Ok(conn),
        }
    };
    connect::http1(worker, endpoint, port, policy, home, slot).await
}

/// The request as it goes on the wire.
fn written<'a>(exchange: &'a Exchange, order: &'a Order) -> http1::client::Order<'a> {
    let head = exchange.head();
    http1::client::Order {
        head,
        target: Target {
            authority: order.authority.as_deref().unwrap_or(&head.authority),
            path: order.path.as_deref().unwrap_or(&head.path),
        },
        length: order.length,
        upgrade: order.upgrade,
        trailers: order.trailers,
        expects: order.expects,
    }
}

/// What is spoken to an endpoint: between proxies what the client spoke, so that nothing is
/// translated on the way; to an application what its port was declared to be. A port that is just
/// `http` takes HTTP/1.1, but for gRPC, which has no other way than HTTP/2. So does a port of which
/// nothing is declared when the request came in at a Gateway: its client chose a version for the
/// Gateway. Beside a workload the client meant the application, and what it speaks is passed on.
pub(crate) fn wire_for(
    endpoint: &Endpoint,
    protocol: Protocol,
    exchange: &Exchange,
    upgrade: bool,
) -> Wire {
    let same = if exchange.head().version == Version::HTTP_2 {
        Wire::Http2
    } else {
        Wire::Http1
    };
    match (endpoint.config.tunnel, protocol) {
        (Tunnel::None, Protocol::Grpc | Protocol::Http2) => Wire::Http2,
        _ if upgrade => Wire::Http1,
        (Tunnel::None, Protocol::Http) if !exchange.is_grpc() => Wire::Http1,
        (Tunnel::None, Protocol::Detect) if exchange.has_entered() && !exchange.is_grpc() => {
            Wire::Http1
        }
        _ => same,
    }
}

/// Passes an answer on. Connections that have changed their protocol (RFC 9110 7.8) are joined: from
/// then on they are two streams of bytes.
pub(crate) fn deliver(mut exchange: Exchange, answer: Response) -> Reply {
    let Response {
        mut head,
        body,
        length,
        switched,
    } = answer;
    head.fields.remove(PEER_FAILURE);
    let Some(server) = switched else {
        return Reply::stream(head, body, length, exchange);
    };
    Reply::bare(head).then(Box::new(move |client| {
        Box::pin(async move {
            let outcome = copy::bidirectional(client, server, copy::Options::default()).await;
            exchange.response_bytes(outcome.b_to_a);
            exchange.request_bytes().set(outcome.a_to_b);
            exchange.complete(None);
        })
    }))
}

/// Runs a try within the request's and its own time.
pub(crate) async fn within<T>(
    deadline: Option<Instant>,
    per_try: Option<Instant>,
    attempt: impl Future<Output = Result<T, Failure>> + Unpin,
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

/// Notes how long the endpoint took, where that counts.
pub(crate) fn time(
    destination: &Destination,
    port: &PortView,
    endpoint: &Endpoint,
    begun: Instant,
    result: &Result<Response, Failure>,
) {
    let policy = &port.policy;
    // A failure counts as well: where it comes of waiting it costs as much, and endpoints that fail at
    // once are for outlier detection to see.
    let costs = policy.balancer.algorithm == Algorithm::PeakEwma
        && !result.as_ref().is_err_and(|f| f.side != Side::Upstream);
    // Here it does not: what fails at once says nothing of how much there may be.
    let good = |answer: &Response| answer.head.status < 500;
    let adaptive = policy.adaptive.as_deref();
    let adaptive = adaptive.filter(|_| result.as_ref().is_ok_and(good));
    if !costs && adaptive.is_none() {
        return;
    }
    let now = Instant::now();
    if costs {
        let latency = &endpoint.live.latency;
        latency.observe(now.saturating_duration_since(begun), at(now.into_std()));
    }
    if let Some(settings) = adaptive {
        let (sent, now) = (at(begun.into_std()), at(now.into_std()));
        let gradient = destination.live.gradient(settings);
        gradient.observe(sent, now, settings, rand::random());
    }
}

/// Tells outlier detection how the endpoint did.
pub(crate) fn judge(
    destination: &Destination,
    port: &PortView,
    endpoint: &Endpoint,
    result: &Result<Response, Failure>,
) {
    let Some(settings) = &port.policy.outlier else {
        return;
    };
    if settings.has_rates() {
        destination.compare(settings);
    }
    let verdict = match result {
        Ok(answer) => match Verdict::of_status(answer.head.status) {
            Verdict::Success => return endpoint.live.outlier.succeeded(settings),
            verdict => verdict,
        },
        // The proxy's own doing, or the client's: it says nothing of the endpoint.
        Err(failure)
            if failure.side != Side::Upstream || failure.reason == Reason::RequestTimeout =>
        {
            return;
        }
        Err(_) => Verdict::NoAnswer,
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
