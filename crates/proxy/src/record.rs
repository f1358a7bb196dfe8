//! One request from its arrival to the end of its response: what is known of it, and what is
//! written down when it ends (metric, access log, span).
//!
//! An [`Exchange`] travels with the request and then with the response's body; whichever way it
//! ends, dropped included, it is recorded exactly once.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use http::header::USER_AGENT;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Uri, Version, request};
use model::Reason;
use telemetry::Direction;
use telemetry::access_log::Entry;
use telemetry::trace::{self, Http, Span};
use tokio::time::Sleep;

use crate::destination::{Destination, Endpoint};
use crate::error::Failure;
use crate::headers::{self, REQUEST_ID};
use crate::pool::{Lease, Link};
use crate::worker::{ByAddress, SeriesKey, Worker};

/// A text that says nothing.
pub(crate) static NONE: LazyLock<Arc<str>> = LazyLock::new(|| "".into());

/// A request being served.
pub(crate) struct Exchange(Box<Inner>);

struct Inner {
    worker: Rc<Worker>,
    direction: Direction,
    begun: Instant,
    begun_at: SystemTime,
    method: Method,
    uri: Uri,
    authority: Option<Authority>,
    version: Version,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    caller: SocketAddr,
    /// Identity of the caller.
    principal: Arc<str>,
    mtls: bool,
    group: &'static str,
    trace: trace::Context,
    parent: Option<[u8; 8]>,
    grpc: bool,
    destination: Arc<str>,
    route: Arc<str>,
    endpoint: Option<Arc<Endpoint>>,
    upstream: Option<SocketAddr>,
    attempts: u32,
    status: u16,
    grpc_status: Option<u8>,
    failure: Option<Failure>,
    sent: Option<Instant>,
    answered: Option<Duration>,
    request_bytes: Rc<Cell<u64>>,
    response_bytes: u64,
    lease: Option<Lease>,
    in_flight: Option<InFlight>,
    deadline: Option<Deadline>,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    recorded: bool,
}

struct Deadline {
    sleep: Pin<Box<Sleep>>,
    reason: Reason,
}

/// Counts a request towards its destination's limit and retry budget.
struct InFlight(Arc<Destination>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.live.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.live.budget.finished();
    }
}

/// Counts a try towards its endpoint's load.
pub(crate) struct Load(Arc<Endpoint>);

impl Load {
    pub(crate) fn on(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.live.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(endpoint))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.live.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who sent a request, as its connection tells.
pub(crate) struct Caller {
    pub(crate) address: SocketAddr,
    pub(crate) principal: Arc<str>,
    pub(crate) mtls: bool,
    pub(crate) group: &'static str,
}

impl Exchange {
    /// Begins with the request's head: continues or starts its trace, and gives it an id.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        direction: Direction,
        caller: &Caller,
        head: &mut request::Parts,
    ) -> Self {
        let received = trace::Context::parse(&head.headers);
        let context = worker.shared.sampler().start(received.as_ref());
        context.inject(&mut head.headers);
        if !head.headers.contains_key(REQUEST_ID)
            && let Ok(id) = HeaderValue::try_from(request_id())
        {
            head.headers.insert(REQUEST_ID, id);
        }
        Self(Box::new(Inner {
            worker: Rc::clone(worker),
            direction,
            begun: Instant::now(),
            begun_at: SystemTime::now(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            authority: None,
            version: head.version,
            user_agent: head.headers.get(USER_AGENT).cloned(),
            request_id: head.headers.get(REQUEST_ID).cloned(),
            caller: caller.address,
            principal: Arc::clone(&caller.principal),
            mtls: caller.mtls,
            group: caller.group,
            trace: context,
            parent: received.map(|c| c.span_id),
            grpc: headers::is_grpc(&head.headers),
            destination: Arc::clone(&NONE),
            route: Arc::clone(&NONE),
            endpoint: None,
            upstream: None,
            attempts: 0,
            status: 0,
            grpc_status: None,
            failure: None,
            sent: None,
            answered: None,
            request_bytes: Rc::default(),
            response_bytes: 0,
            lease: None,
            in_flight: None,
            deadline: None,
            idle: None,
            recorded: false,
        }))
    }

    pub(crate) fn is_grpc(&self) -> bool {
        self.0.grpc
    }

    pub(crate) fn begun(&self) -> Instant {
        self.0.begun
    }

    pub(crate) fn request_bytes(&self) -> &Rc<Cell<u64>> {
        &self.0.request_bytes
    }

    pub(crate) fn set_authority(&mut self, authority: &Authority) {
        self.0.authority = Some(authority.clone());
    }

    /// The host that the request is for, once known.
    pub(crate) fn set_destination(&mut self, host: &Arc<str>) {
        self.0.destination = Arc::clone(host);
    }

    pub(crate) fn set_route(&mut self, name: &Arc<str>) {
        self.0.route = Arc::clone(name);
    }

    /// Counts the request towards `destination`'s limits for as long as it lasts.
    pub(crate) fn count_towards(&mut self, destination: &Arc<Destination>) {
        destination.live.requests.fetch_add(1, Ordering::Relaxed);
        destination
            .live
            .budget
            .started(crate::destination::since_start());
        self.0.in_flight = Some(InFlight(Arc::clone(destination)));
    }

    /// A try begins.
    pub(crate) fn attempt(&mut self, endpoint: &Arc<Endpoint>) {
        self.0.attempts += 1;
        self.0.endpoint = Some(Arc::clone(endpoint));
        self.0.sent = Some(Instant::now());
    }

    /// The connection on which the try was sent.
    pub(crate) fn sent_on(&mut self, link: &Link) {
        self.0.upstream = Some(link.address);
        if self.0.direction == Direction::Outbound {
            self.0.mtls = link.mtls;
            self.0.group = link.group;
        }
    }

    /// The response's head is there.
    pub(crate) fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.0.status = status;
        self.0.answered = self.0.sent.map(|sent| sent.elapsed());
        self.0.grpc_status = grpc_status(headers);
    }

    /// Holds the connection until the body has ended.
    pub(crate) fn hold(&mut self, lease: Lease) {
        self.0.lease = Some(lease);
    }

    /// Ends the body with `reason` when the time has come.
    pub(crate) fn set_deadline(&mut self, at: Option<tokio::time::Instant>, reason: Reason) {
        self.0.deadline = at.map(|at| Deadline {
            sleep: Box::pin(tokio::time::sleep_until(at)),
            reason,
        });
    }

    /// Ends the body when nothing came for so long.
    pub(crate) fn set_idle(&mut self, limit: Option<Duration>) {
        self.0.idle = limit.map(|limit| (limit, Box::pin(tokio::time::sleep(limit))));
    }

    pub(crate) fn response_bytes(&mut self, bytes: u64) {
        self.0.response_bytes += bytes;
        if let Some((limit, sleep)) = &mut self.0.idle {
            sleep.as_mut().reset(tokio::time::Instant::now() + *limit);
        }
    }

    /// Whether the time for the body is over; asked when no data waits.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.0;
        let late = inner
            .deadline
            .as_mut()
            .is_some_and(|d| d.sleep.as_mut().poll(cx).is_ready());
        let idle = inner
            .idle
            .as_mut()
            .is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        let expired = match &inner.deadline {
            Some(deadline) if late => deadline.reason,
            _ if idle => Reason::StreamIdleTimeout,
            _ => return Poll::Pending,
        };
        self.fail(&Failure::new(
            expired,
            "while the response's body was on its way",
        ));
        Poll::Ready(())
    }

    /// The proxy answers in the application's stead. Records at once.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        if self.0.status == 0 {
            self.0.status = failure.status();
        }
        self.0.failure = Some(failure.clone());
        self.record();
    }

    /// The response that is passed on is one that the peer's proxy made: its reason is ours too.
    pub(crate) fn told(&mut self, failure: Failure) {
        self.0.failure = Some(failure);
    }

    /// The proxy answers by rule (a redirect): no failure. Records at once.
    pub(crate) fn reply(&mut self, status: u16) {
        self.0.status = status;
        self.record();
    }

    /// The body ended in order, perhaps with trailers.
    pub(crate) fn complete(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(status) = trailers.and_then(grpc_status) {
            self.0.grpc_status = Some(status);
        }
        if let Some(lease) = self.0.lease.take() {
            lease.give_back();
        }
        self.record();
    }

    /// The body broke off.
    pub(crate) fn broken(&mut self, error: &hyper::Error) {
        self.0.lease = None;
        self.fail(&Failure::new(
            Reason::UpstreamReset,
            crate::error::chain(error),
        ));
    }

    fn record(&mut self) {
        let inner = &mut *self.0;
        if inner.recorded {
            return;
        }
        inner.recorded = true;
        inner.in_flight = None;
        inner.write();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.0.recorded {
            self.0.lease = None;
            self.fail(&Failure::new(
                Reason::ClientDisconnected,
                "before the response was complete",
            ));
        }
    }
}

impl Inner {
    fn write(&self) {
        let duration = self.begun.elapsed();
        let reason = self.failure.as_ref().map(|f| f.reason);
        let (workload, version) = match &self.endpoint {
            Some(endpoint) => (
                Arc::clone(&endpoint.workload),
                Arc::clone(&endpoint.version),
            ),
            None => (Arc::clone(&NONE), Arc::clone(&NONE)),
        };
        let series = self.worker.requests(SeriesKey {
            direction: self.direction,
            principal: ByAddress(Arc::clone(&self.principal)),
            destination: ByAddress(Arc::clone(&self.destination)),
            workload: ByAddress(Arc::clone(&workload)),
            version: ByAddress(Arc::clone(&version)),
            route: ByAddress(Arc::clone(&self.route)),
            grpc: self.grpc,
            mtls: self.mtls,
        });
        let request_bytes = self.request_bytes.get();
        let grpc_status = self.grpc.then_some(self.grpc_status).flatten();
        series.record(
            self.status,
            grpc_status,
            reason,
            duration,
            request_bytes,
            self.response_bytes,
        );
        if self.worker.shared.state.snapshot().mesh.access_log {
            self.log(duration, &workload, &version);
        }
        if self.trace.sampled {
            self.span();
        }
    }

    fn log(&self, duration: Duration, workload: &str, version: &str) {
        let shared = &self.worker.shared;
        let outbound = self.direction == Direction::Outbound;
        let source = if outbound {
            &*shared.source
        } else {
            account(&self.principal)
        };
        shared.log.write(&Entry {
            trace_id: Some(self.trace.trace_id),
            span_id: Some(self.trace.span_id),
            request_id: text(self.request_id.as_ref()),
            method: self.method.as_str(),
            authority: self.authority.as_ref().map_or("", Authority::as_str),
            path: self.uri.path(),
            protocol: self.protocol(),
            status: self.status,
            grpc_status: self.grpc_status,
            reason: self.failure.as_ref().map(|f| f.reason),
            details: self.failure.as_ref().map_or("", |f| &f.details),
            duration,
            upstream_duration: self.answered,
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes,
            source,
            source_principal: &self.principal,
            source_address: Some(self.caller),
            destination: &self.destination,
            destination_workload: workload,
            destination_version: version,
            destination_principal: self.endpoint.as_ref().map_or("", |e| &e.principal),
            route: &self.route,
            upstream_address: self.upstream,
            attempts: self.attempts,
            mtls: self.mtls,
            tls_group: self.group,
            user_agent: text(self.user_agent.as_ref()),
            ..Entry::at(self.begun_at, self.direction)
        });
    }

    fn span(&self) {
        let kind = match self.direction {
            Direction::Outbound => trace::Kind::Client,
            Direction::Inbound => trace::Kind::Server,
        };
        let mut span = Span::new(self.trace.clone(), self.parent, kind, self.begun_at);
        span.end = self.begun_at + self.begun.elapsed();
        span.http(&Http {
            method: self.method.as_str(),
            scheme: "http",
            authority: self.authority.as_ref().map_or("", Authority::as_str),
            path: self.uri.path(),
            version: if self.version == Version::HTTP_2 {
                "2"
            } else {
                "1.1"
            },
            status: self.status,
            grpc_status: self.grpc.then_some(self.grpc_status).flatten(),
            route: &self.route,
            peer: if self.direction == Direction::Outbound {
                self.upstream
            } else {
                Some(self.caller)
            },
            user_agent: text(self.user_agent.as_ref()),
            request_id: text(self.request_id.as_ref()),
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes,
            resends: self.attempts.saturating_sub(1),
            reason: self.failure.as_ref().map(|f| f.reason),
        });
        span.set("tulle.direction", self.direction.as_str());
        span.set("tulle.mtls", self.mtls);
        if self.mtls {
            span.set("tulle.tls.group", self.group);
        }
        if !self.principal.is_empty() {
            span.set("tulle.source.principal", &*self.principal);
        }
        if let Some(endpoint) = &self.endpoint {
            span.set("tulle.destination.principal", &*endpoint.principal);
            span.set("tulle.destination.workload", &*endpoint.workload);
        }
        if !self.destination.is_empty() {
            span.set("tulle.destination", &*self.destination);
        }
        self.worker.shared.exporter.send(span);
    }

    fn protocol(&self) -> &'static str {
        match self.version {
            _ if self.grpc => "grpc",
            Version::HTTP_2 => "http/2",
            Version::HTTP_10 => "http/1.0",
            _ => "http/1.1",
        }
    }
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|v| v.to_str().ok()).unwrap_or("")
}

/// The service account of an identity.
pub(crate) fn account(principal: &str) -> &str {
    principal
        .rsplit_once("/sa/")
        .map_or("", |(_, account)| account)
}

fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A random UUID (RFC 9562, version 4), as Envoy writes `x-request-id`.
fn request_id() -> String {
    let random: u128 = rand::random();
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids() {
        let id = request_id();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
        assert_ne!(id, request_id());
    }
}
