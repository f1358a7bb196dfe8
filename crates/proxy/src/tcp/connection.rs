//! One connection of bytes, or one session of datagrams: counted while it runs, logged when it
//! ends.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use model::Reason;
use net::copy::{self, CopyError, Side};
use net::tcp::Stream;
use telemetry::Direction;
use telemetry::access_log::Entry;
use telemetry::metrics::TcpSeries;

use super::race::Opened;
use crate::destination::Endpoint;
use crate::error::{Failure, chain};
use crate::pool::Link;
use crate::record::{Caller, NONE, account};
use crate::worker::{SeriesKey, Worker};

/// One connection, recorded when it ends.
pub(crate) struct Connection<'a> {
    worker: &'a Rc<Worker>,
    direction: Direction,
    protocol: &'static str,
    caller: &'a Caller,
    destination: &'a Arc<str>,
    endpoint: Option<Arc<Endpoint>>,
    upstream: Option<SocketAddr>,
    mtls: bool,
    group: &'static str,
    begun: Instant,
    begun_at: SystemTime,
}

impl<'a> Connection<'a> {
    pub(crate) fn begin(
        worker: &'a Rc<Worker>,
        direction: Direction,
        caller: &'a Caller,
        destination: &'a Arc<str>,
    ) -> Self {
        Self {
            worker,
            direction,
            protocol: "tcp",
            caller,
            destination,
            endpoint: None,
            upstream: None,
            mtls: caller.mtls,
            group: caller.group,
            begun: Instant::now(),
            begun_at: SystemTime::now(),
        }
    }

    /// For a session of datagrams that began at these times.
    pub(crate) fn datagrams(self, begun: Instant, begun_at: SystemTime) -> Self {
        Self {
            protocol: "udp",
            begun,
            begun_at,
            ..self
        }
    }

    pub(crate) fn reached(&mut self, endpoint: &Arc<Endpoint>, link: &Link) {
        self.endpoint = Some(Arc::clone(endpoint));
        self.sent_to(link);
    }

    pub(crate) fn sent_to(&mut self, link: &Link) {
        self.upstream = Some(link.address);
        if self.direction == Direction::Outbound {
            self.mtls = link.mtls;
            self.group = link.group;
        }
    }

    /// Copies both ways between the client and what was opened for it.
    pub(crate) fn join<S>(mut self, client: S, opened: Opened) -> impl Future<Output = ()>
    where
        S: Stream,
    {
        let Opened {
            io,
            link,
            endpoint,
            held,
        } = opened;
        self.reached(&endpoint, &link);
        let (io, greeting) = io.into_parts();
        let copying = self.copy(client, io.with_ahead(greeting));
        async move {
            copying.await;
            drop(held);
        }
    }

    /// Copies both ways until the end, or until the proxy has drained long enough.
    ///
    /// What is needed until then is one allocation of just its size: an idle connection should
    /// not cost what connecting and detecting took.
    pub(crate) fn copy<A, B>(self, client: A, server: B) -> impl Future<Output = ()>
    where
        A: Stream,
        B: Stream,
    {
        let series = self.series();
        series.opened();
        let (sent, received) = (Cell::new(0), Cell::new(0));
        let totals = Rc::new((sent, received));
        let count = {
            let (series, totals) = (Rc::clone(&series), Rc::clone(&totals));
            move |sent, received| {
                series.sent(sent);
                series.received(received);
                totals.0.set(totals.0.get() + sent);
                totals.1.set(totals.1.get() + received);
            }
        };
        let options = copy::Options::default();
        let copying = Box::pin(copy::bidirectional_counted(client, server, options, count));
        async move {
            let failure = tokio::select! {
                outcome = copying => outcome.result.err().map(|error| failure(&error)),
                () = self.worker.shared.drain.cut() => {
                    Some(Failure::new(Reason::Draining, "cut when the proxy stopped"))
                }
            };
            series.closed(failure.as_ref().map(|f| f.reason));
            self.log(failure.as_ref(), totals.0.get(), totals.1.get());
        }
    }

    pub(crate) fn failed(self, failure: &Failure) {
        let series = self.series();
        series.opened();
        series.closed(Some(failure.reason));
        self.log(Some(failure), 0, 0);
    }

    fn series(&self) -> Rc<TcpSeries> {
        let none = &*NONE;
        let (workload, version) = self
            .endpoint
            .as_ref()
            .map_or((none, none), |e| (&e.workload, &e.version));
        self.worker.connections(&SeriesKey {
            direction: self.direction,
            principal: &self.caller.principal,
            destination: self.destination,
            workload,
            version,
            route: none,
            grpc: false,
            mtls: self.mtls,
        })
    }

    /// Writes the line of the access log.
    pub(crate) fn log(&self, failure: Option<&Failure>, sent: u64, received: u64) {
        let shared = &self.worker.shared;
        // A connection of bytes belongs to no trace: it is sampled as the root of one would be.
        let sampled = || self.worker.trace(None, Instant::now()).sampled;
        if !self.worker.logs(failure.is_some(), sampled) {
            return;
        }
        let source = if self.direction == Direction::Outbound {
            &*shared.source
        } else {
            account(&self.caller.principal)
        };
        let endpoint = self.endpoint.as_deref();
        shared.log.write(&Entry {
            protocol: self.protocol,
            reason: failure.map(|f| f.reason),
            details: failure.map_or("", |f| &f.details),
            duration: self.begun.elapsed(),
            request_bytes: sent,
            response_bytes: received,
            source,
            source_principal: &self.caller.principal,
            source_address: Some(self.caller.address),
            destination: self.destination,
            destination_workload: endpoint.map_or("", |e| &e.workload),
            destination_version: endpoint.map_or("", |e| &e.version),
            destination_principal: endpoint.map_or("", |e| &e.principal),
            upstream_address: self.upstream,
            attempts: 1,
            mtls: self.mtls,
            tls_group: self.group,
            ..Entry::at(self.begun_at, self.direction)
        });
    }
}

fn failure(error: &CopyError) -> Failure {
    let reason = match error.side() {
        Some(Side::A) => Reason::ClientDisconnected,
        Some(Side::B) => Reason::UpstreamReset,
        None => Reason::StreamIdleTimeout,
    };
    Failure::new(reason, chain(error))
}
