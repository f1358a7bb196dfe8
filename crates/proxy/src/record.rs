//! One request from its arrival to the end of its response: what is known of it, and what is
//! written down when it ends (metric, access log, span).
//!
//! An [`Exchange`] travels with the request and then with the response's body; whichever way it
//! ends, dropped included, it is recorded exactly once.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use model::Reason;
use model::traffic::ProxyVersion;
use telemetry::Direction;
use telemetry::access_log::Entry;
use telemetry::hex;
use telemetry::trace::{self, Http, Span};
use tokio::time::Sleep;
use wire::{Fields, RequestHead, Version};

use crate::behalf::{Behalf, Client, Shown};
use crate::destination::{self, Destination, Endpoint};
use crate::error::Failure;
use crate::headers::{self, REQUEST_ID};
use crate::pool::Link;
use crate::request::pace::Paced;
use crate::spare;
use crate::worker::{SeriesKey, Worker};

/// A text that says nothing.
pub(crate) static NONE: LazyLock<Arc<str>> = LazyLock::new(|| "".into());

/// A request being served.
pub(crate) struct Exchange(Box<Inner>);

struct Inner {
    worker: Rc<Worker>,
    direction: Direction,
    begun: Instant,
    head: RequestHead,
    /// The connection on which it came.
    client: Client,
    /// What its Gateway shows to backends.
    shown: Option<Arc<Shown>>,
    /// It came in at a listener of a Gateway.
    entered: bool,
    /// Whom it came from: the client of the connection, unless that is believed about another.
    caller: SocketAddr,
    /// Identity of the caller.
    principal: Arc<str>,
    mtls: bool,
    group: &'static str,
    trace: trace::Context,
    parent: Option<[u8; 8]>,
    grpc: bool,
    /// As gRPC-Web, to the client.
    web: bool,
    destination: Option<Arc<str>>,
    route: Option<Arc<str>>,
    endpoint: Option<Arc<Endpoint>>,
    upstream: Option<SocketAddr>,
    attempts: u32,
    status: u16,
    grpc_status: Option<u8>,
    failure: Option<Failure>,
    sent: Option<Instant>,
    answered: Option<Duration>,
    /// Only of a request with a body.
    request_bytes: Option<Rc<Cell<u64>>>,
    response_bytes: u64,
    in_flight: Option<InFlight>,
    limits: BodyLimits,
    recorded: bool,
}

/// How long a response's body may take. The timer is made when the body is first waited for: most
/// come together with their head.
#[derive(Default)]
struct BodyLimits {
    deadline: Option<tokio::time::Instant>,
    idle: Option<Duration>,
    last: Option<tokio::time::Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Of a body that comes more slowly than it could.
    pace: Option<Box<Paced>>,
}

impl BodyLimits {
    /// When the wait ends, and why.
    fn due(&self) -> Option<(tokio::time::Instant, Reason)> {
        let idle = self.idle.zip(self.last).map(|(limit, last)| last + limit);
        match (self.deadline, idle) {
            (Some(all), Some(idle)) if idle < all => Some((idle, Reason::StreamIdleTimeout)),
            (Some(all), _) => Some((all, Reason::RequestTimeout)),
            (None, idle) => Some((idle?, Reason::StreamIdleTimeout)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        if self.idle.is_some() && self.last.is_none() {
            self.last = Some(tokio::time::Instant::now());
        }
        let Some((due, reason)) = self.due() else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if tokio::time::Instant::now() >= due {
                return Poll::Ready(reason);
            }
            sleep.as_mut().reset(due);
        }
    }
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
pub(crate) struct Load<E: Deref<Target = Endpoint> = Arc<Endpoint>>(E);

impl<E: Deref<Target = Endpoint>> Load<E> {
    pub(crate) fn on(endpoint: E) -> Self {
        endpoint.live.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }
}

impl<E: Deref<Target = Endpoint>> Drop for Load<E> {
    fn drop(&mut self) {
        self.0.live.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who sent a request, as its connection tells.
pub(crate) struct Caller {
    pub(crate) address: SocketAddr,
    /// Where the connection came to, where endpoints may have to be told.
    pub(crate) local: Option<SocketAddr>,
    /// What the Gateway that it came to shows to backends.
    pub(crate) shown: Option<Arc<Shown>>,
    pub(crate) principal: Arc<str>,
    pub(crate) mtls: bool,
    pub(crate) group: &'static str,
}

impl Caller {
    /// Of a connection that proves nothing.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            address,
            local: None,
            shown: None,
            principal: Arc::clone(&NONE),
            mtls: false,
            group: "",
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client {
            address: self.address,
            local: self.local,
        }
    }
}

impl Exchange {
    /// Begins with the request's head: continues or starts its trace, and gives it an id.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        direction: Direction,
        caller: &Caller,
        mut head: RequestHead,
    ) -> Self {
        let fields = &mut head.fields;
        let received = trace::Context::parse(fields);
        let begun = Instant::now();
        let context = worker.trace(received.as_ref(), begun);
        context.inject(fields);
        if !fields.contains(REQUEST_ID) {
            fields.append(REQUEST_ID, &request_id());
        }
        Self(Box::new(Inner {
            worker: Rc::clone(worker),
            direction,
            begun,
            client: caller.client(),
            shown: caller.shown.clone(),
            entered: false,
            caller: caller.address,
            principal: Arc::clone(&caller.principal),
            mtls: caller.mtls,
            group: caller.group,
            trace: context,
            parent: received.map(|c| c.span_id),
            grpc: headers::is_grpc(&head.fields),
            web: false,
            head,
            destination: None,
            route: None,
            endpoint: None,
            upstream: None,
            attempts: 0,
            status: 0,
            grpc_status: None,
            failure: None,
            sent: None,
            answered: None,
            request_bytes: None,
            response_bytes: 0,
            in_flight: None,
            limits: BodyLimits::default(),
            recorded: false,
        }))
    }

    /// Begins a request like this one, whose client is the proxy: it is traced below this one.
    pub(crate) fn copy(&self) -> Self {
        let inner = &*self.0;
        let caller = Caller {
            address: inner.client.address,
            local: inner.client.local,
            shown: inner.shown.clone(),
            principal: Arc::clone(&inner.principal),
            mtls: inner.mtls,
            group: inner.group,
        };
        let mut copy = Self::begin(&inner.worker, inner.direction, &caller, inner.head.clone());
        copy.0.caller = inner.caller;
        copy.0.entered = inner.entered;
        copy.0.route.clone_from(&inner.route);
        copy
    }

    /// Begins a request of the proxy's own with this head, because of this one: it is traced below it.
    /// `caller` is who sends what this side sends.
    pub(crate) fn beside(
        &self,
        mut head: RequestHead,
        caller: impl FnOnce(&Worker, SocketAddr) -> Caller,
    ) -> Self {
        let inner = &*self.0;
        inner.trace.inject(&mut head.fields);
        head.fields
            .append(REQUEST_ID, self.0.field(REQUEST_ID).as_bytes());
        let caller = caller(&inner.worker, inner.caller);
        Self::begin(&inner.worker, Direction::Outbound, &caller, head)
    }

    /// The request's head, as the filters have left it.
    pub(crate) fn head(&self) -> &RequestHead {
        &self.0.head
    }

    pub(crate) fn head_mut(&mut self) -> &mut RequestHead {
        &mut self.0.head
    }

    /// Whether the client speaks gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        self.0.grpc && !self.0.web
    }

    /// Whether it is a gRPC call, whatever its client speaks.
    pub(crate) fn is_call(&self) -> bool {
        self.0.grpc
    }

    /// The client speaks gRPC-Web: a call like others for whoever counts them.
    pub(crate) fn set_grpc_web(&mut self) {
        self.0.grpc = true;
        self.0.web = true;
    }

    pub(crate) fn begun(&self) -> Instant {
        self.0.begun
    }

    /// Whom it came from, as far as that is believed.
    pub(crate) fn caller(&self) -> SocketAddr {
        self.0.caller
    }

    /// Identity of the caller; empty if nothing proves one.
    pub(crate) fn principal(&self) -> &str {
        &self.0.principal
    }

    /// Somebody who is believed says that the request came from there.
    pub(crate) fn set_caller(&mut self, address: SocketAddr) {
        self.0.caller = address;
    }

    /// What its Gateway shows to backends.
    pub(crate) fn set_shown(&mut self, shown: Option<&Arc<Shown>>) {
        self.0.shown = shown.cloned();
    }

    /// It came in at a listener of a Gateway.
    pub(crate) fn set_entered(&mut self) {
        self.0.entered = true;
    }

    /// Whether it came in at a listener of a Gateway.
    pub(crate) fn has_entered(&self) -> bool {
        self.0.entered
    }

    /// For whom a connection must be, where the endpoint is told: by a PROXY header of this version,
    /// or in TLS.
    pub(crate) fn behalf(&self, version: Option<ProxyVersion>, tls: bool) -> Option<Behalf> {
        let shown = self.0.shown.as_ref().filter(|_| tls);
        Behalf::of(version, self.0.client, shown)
    }

    /// Where the bytes of the request's body are counted.
    pub(crate) fn request_bytes(&mut self) -> &Rc<Cell<u64>> {
        self.0.request_bytes.get_or_insert_default()
    }

    /// The host that the request is for.
    pub(crate) fn destination(&self) -> Arc<str> {
        Arc::clone(self.0.destination())
    }

    /// The host that the request is for, once known.
    pub(crate) fn set_destination(&mut self, host: &Arc<str>) {
        self.0.destination = Some(Arc::clone(host));
    }

    pub(crate) fn set_route(&mut self, name: &Arc<str>) {
        self.0.route = Some(Arc::clone(name));
    }

    /// Counts the request towards `destination`'s limits for as long as it lasts.
    pub(crate) fn count_towards(&mut self, destination: &Arc<Destination>) {
        destination.live.requests.fetch_add(1, Ordering::Relaxed);
        destination
            .live
            .budget
            .started(destination::at(self.0.begun));
        self.0.in_flight = Some(InFlight(Arc::clone(destination)));
    }

    /// Where the last try went.
    pub(crate) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.0.endpoint.as_ref()
    }

    /// A try begins.
    pub(crate) fn attempt(&mut self, endpoint: &Arc<Endpoint>, now: Instant) {
        self.0.attempts += 1;
        self.0.endpoint = Some(Arc::clone(endpoint));
        self.0.sent = Some(now);
    }

    /// So many further tries were made beside this one; `by`, if it is not this one's own, was the best.
    pub(crate) fn hedged(&mut self, further: u32, by: Option<&Self>) {
        self.0.attempts += further;
        if let Some(by) = by {
            let (own, by) = (&mut *self.0, &*by.0);
            own.endpoint.clone_from(&by.endpoint);
            own.upstream = by.upstream;
            own.mtls = by.mtls;
            own.group = by.group;
            own.status = by.status;
            own.grpc_status = by.grpc_status;
            own.sent = by.sent;
            own.answered = by.answered;
        }
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
    pub(crate) fn answered(&mut self, status: u16, fields: &Fields) {
        self.0.status = status;
        self.0.answered = self.0.sent.map(|sent| sent.elapsed());
        if self.0.grpc {
            self.0.grpc_status = grpc_status(fields);
        }
    }

    /// Ends the body when the time has come, or when nothing came for so long.
    pub(crate) fn set_limits(
        &mut self,
        deadline: Option<tokio::time::Instant>,
        idle: Option<Duration>,
    ) {
        self.0.limits.deadline = deadline;
        self.0.limits.idle = idle;
    }

    /// Lets the body come no faster than this many bytes a second.
    pub(crate) fn set_pace(&mut self, bytes: u64) {
        self.0.limits.pace = Some(Box::new(Paced::new(bytes)));
    }

    pub(crate) fn has_a_pace(&self) -> bool {
        self.0.limits.pace.is_some()
    }

    /// Whether some of the body has come and may not pass yet.
    pub(crate) fn holds_back(&self) -> bool {
        let pace = self.0.limits.pace.as_ref();
        pace.is_some_and(|paced| !paced.held.is_empty())
    }

    pub(crate) fn hold_back(&mut self, data: Bytes) {
        if let Some(paced) = &mut self.0.limits.pace {
            paced.held = data;
        }
    }

    /// The next piece of what is held back.
    pub(crate) fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        match &mut self.0.limits.pace {
            Some(paced) => paced.poll_piece(cx),
            None => Poll::Ready(Bytes::new()),
        }
    }

    pub(crate) fn response_bytes(&mut self, bytes: u64) {
        self.0.response_bytes += bytes;
        self.0.limits.last = None;
    }

    /// Whether the time for the body is over; asked when no data waits.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let expired = ready!(self.0.limits.poll(cx));
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

    /// What began as a request goes on as a connection, which is recorded as such.
    pub(crate) fn forget(&mut self) {
        self.0.recorded = true;
    }

    /// The proxy answers by rule (a redirect): no failure. Records at once.
    pub(crate) fn reply(&mut self, status: u16) {
        self.0.status = status;
        self.record();
    }

    /// The body ended in order, perhaps with trailers.
    pub(crate) fn complete(&mut self, trailers: Option<&Fields>) {
        if self.0.grpc
            && let Some(status) = trailers.and_then(grpc_status)
        {
            self.0.grpc_status = Some(status);
        }
        self.record();
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
            self.fail(&Failure::new(
                Reason::ClientDisconnected,
                "before the response was complete",
            ));
        }
        spare::keep_request_head(std::mem::take(&mut self.0.head));
    }
}

impl Inner {
    fn write(&self) {
        let duration = self.begun.elapsed();
        let reason = self.failure.as_ref().map(|f| f.reason);
        let none = &*NONE;
        let (workload, version) = self
            .endpoint
            .as_ref()
            .map_or((none, none), |e| (&e.workload, &e.version));
        let series = self.worker.requests(&SeriesKey {
            direction: self.direction,
            principal: &self.principal,
            destination: self.destination(),
            workload,
            version,
            route: self.route(),
            grpc: self.grpc,
            mtls: self.mtls,
        });
        let request_bytes = self.sent_bytes();
        let grpc_status = self.grpc.then_some(self.grpc_status).flatten();
        series.record(
            self.status,
            grpc_status,
            reason,
            duration,
            request_bytes,
            self.response_bytes,
        );
        // gRPC tells of failures in its own way, with status 200.
        let failed = reason.is_some() || self.status >= 500 || grpc_status.is_some_and(|s| s != 0);
        if self.worker.logs(failed, || self.trace.sampled) {
            self.log(duration, workload, version);
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
            request_id: self.field(REQUEST_ID),
            method: self.head.method.as_str(),
            authority: &self.head.authority,
            path: self.head.path_only(),
            protocol: self.protocol(),
            status: self.status,
            grpc_status: self.grpc_status,
            reason: self.failure.as_ref().map(|f| f.reason),
            details: self.failure.as_ref().map_or("", |f| &f.details),
            duration,
            upstream_duration: self.answered,
            request_bytes: self.sent_bytes(),
            response_bytes: self.response_bytes,
            source,
            source_principal: &self.principal,
            source_address: Some(self.caller),
            destination: self.destination(),
            destination_workload: workload,
            destination_version: version,
            destination_principal: self.endpoint.as_ref().map_or("", |e| &e.principal),
            route: self.route(),
            upstream_address: self.upstream,
            attempts: self.attempts,
            mtls: self.mtls,
            tls_group: self.group,
            user_agent: self.field("user-agent"),
            ..Entry::at(self.begun_at(), self.direction)
        });
    }

    fn span(&self) {
        let kind = match self.direction {
            Direction::Outbound => trace::Kind::Client,
            Direction::Inbound => trace::Kind::Server,
        };
        let mut span = Span::new(self.trace.clone(), self.parent, kind, self.begun_at());
        span.end = SystemTime::now();
        span.http(&Http {
            method: self.head.method.as_str(),
            scheme: "http",
            authority: &self.head.authority,
            path: self.head.path_only(),
            version: match self.head.version {
                Version::HTTP_3 => "3",
                Version::HTTP_2 => "2",
                _ => "1.1",
            },
            status: self.status,
            grpc_status: self.grpc.then_some(self.grpc_status).flatten(),
            route: self.route(),
            peer: if self.direction == Direction::Outbound {
                self.upstream
            } else {
                Some(self.caller)
            },
            user_agent: self.field("user-agent"),
            request_id: self.field(REQUEST_ID),
            request_bytes: self.sent_bytes(),
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
        if let Some(destination) = &self.destination {
            span.set("tulle.destination", &**destination);
        }
        self.worker.shared.exporter.send(span);
    }

    /// By the calendar, which is read only where it is written down.
    fn begun_at(&self) -> SystemTime {
        SystemTime::now() - self.begun.elapsed()
    }

    fn destination(&self) -> &Arc<str> {
        self.destination.as_ref().unwrap_or(&NONE)
    }

    fn route(&self) -> &Arc<str> {
        self.route.as_ref().unwrap_or(&NONE)
    }

    fn sent_bytes(&self) -> u64 {
        self.request_bytes.as_ref().map_or(0, |bytes| bytes.get())
    }

    fn field(&self, name: &str) -> &str {
        self.head.fields.get_str(name).unwrap_or("")
    }

    fn protocol(&self) -> &'static str {
        match self.head.version {
            _ if self.grpc => "grpc",
            Version::HTTP_3 => "http/3",
            Version::HTTP_2 => "http/2",
            Version::HTTP_10 => "http/1.0",
            _ => "http/1.1",
        }
    }
}

/// The service account of an identity.
pub(crate) fn account(principal: &str) -> &str {
    principal
        .rsplit_once("/sa/")
        .map_or("", |(_, account)| account)
}

fn grpc_status(fields: &Fields) -> Option<u8> {
    fields.get_str("grpc-status")?.parse().ok()
}

/// A random UUID (RFC 9562, version 4), as Envoy writes `x-request-id`.
fn request_id() -> [u8; 36] {
    let random: u128 = rand::random();
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut digits = [0; 32];
    hex::write(&bits.to_be_bytes(), &mut digits);
    let mut text = [b'-'; 36];
    for (group, at) in [
        (0..8, 0),
        (8..12, 9),
        (12..16, 14),
        (16..20, 19),
        (20..32, 24),
    ] {
        text[at..at + group.len()].copy_from_slice(&digits[group]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids() {
        let id = String::from_utf8(request_id().to_vec()).expect("text");
        let groups: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
        assert!(
            id.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
        assert_ne!(id.as_bytes(), request_id());
    }
}
