//! More than one try at once, where the first does not answer soon ("hedging": Dean and Barroso, The
//! Tail at Scale, 2013; gRPC's proposal A6; Envoy's `hedge_policy`).
//!
//! Only of requests without a body whose method is idempotent, each to another endpoint, and out of
//! the retry budget: when all are slow, nothing is added to their load. The first answer that would
//! not be tried again wins; the others are given up, which their endpoints see as a reset.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use model::traffic::Hedging;
use policy::effective::Limits;
use tokio::time::Instant;

use crate::deadline;
use crate::destination::{Destination, Endpoint, PortView, since_start};
use crate::error::Failure;
use crate::forward::{self, Order, Outcome, judge, within};
use crate::http1::client::Response;
use crate::record::{Exchange, Load};
use crate::retry;
use crate::worker::Worker;

/// A request that may be sent to several endpoints at once.
pub(crate) struct Race<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) destination: &'a Arc<Destination>,
    pub(crate) port: &'a PortView,
    pub(crate) limits: Limits<'a>,
    pub(crate) hedging: Hedging,
}

/// A try that has ended.
struct Ended {
    endpoint: Arc<Endpoint>,
    result: Result<Response, Failure>,
    /// That of the try, where it is not the request's own.
    twin: Option<Exchange>,
}

type Try<'a> = Pin<Box<dyn Future<Output = Ended> + 'a>>;

impl Race<'_> {
    /// Sends the request to `first`, and to others while none answers. Returns how the best try ended,
    /// and where it went; `tried` gets all others.
    pub(crate) async fn run(
        &self,
        exchange: &mut Exchange,
        order: &mut Order,
        first: (Arc<Endpoint>, u16),
        tried: &mut Vec<u64>,
    ) -> (Arc<Endpoint>, Result<Response, Failure>) {
        let method = exchange.head().method.clone();
        let mut twin = exchange.copy();
        twin.forget();
        let twin_order = order.twin();
        let mut more = 0;
        let mut asked = vec![first.0.id];
        let best = {
            let mut running: FuturesUnordered<Try<'_>> = FuturesUnordered::new();
            running.push(Box::pin(async {
                let result = self.send(exchange, order, &first.0, first.1).await;
                Ended {
                    endpoint: Arc::clone(&first.0),
                    result,
                    twin: None,
                }
            }));
            let mut sleep = pin!(tokio::time::sleep(self.hedging.delay));
            let mut last: Option<Ended> = None;
            loop {
                tokio::select! {
                    biased;
                    ended = running.next() => {
                        let Some(ended) = ended else { break last };
                        let outcome = Outcome::of(&ended.result);
                        if !retry::wanted(self.limits.retry, &method, &outcome) {
                            break Some(ended);
                        }
                        last = Some(ended);
                    }
                    () = &mut sleep, if more < self.hedging.max => {
                        more += 1;
                        let next = self.next(&asked, twin_order.hash);
                        if let Some((endpoint, target)) = next {
                            asked.push(endpoint.id);
                            running.push(self.another(twin.copy(), twin_order.twin(), endpoint, target));
                            sleep.as_mut().reset(Instant::now() + self.hedging.delay);
                        } else {
                            more = self.hedging.max;
                        }
                    }
                }
            }
        };
        let further = asked.len() as u32 - 1;
        let Some(best) = best else {
            let details = "no try of a request came to an end";
            let failure = Failure::new(model::Reason::Internal, details);
            return (first.0, Err(failure));
        };
        exchange.hedged(further, best.twin.as_ref());
        tried.extend(asked.into_iter().filter(|id| *id != best.endpoint.id));
        (best.endpoint, best.result)
    }

    /// Another endpoint, if there is one that nobody asked yet and the budget allows for one more try.
    fn next(&self, asked: &[u64], hash: Option<u64>) -> Option<(Arc<Endpoint>, u16)> {
        let now = Instant::now().into_std();
        let (worker, destination, port) = (self.worker, self.destination, self.port);
        let (endpoint, target) = worker.with_balancer(destination.id, port.number, |balancer| {
            port.pick(balancer, hash, asked, now)
        })?;
        let allowed = !asked.contains(&endpoint.id)
            && destination
                .live
                .budget
                .allow(since_start(), &self.limits.retry.budget);
        allowed.then(|| (Arc::clone(endpoint), target))
    }

    fn another(
        &self,
        mut twin: Exchange,
        mut order: Order,
        endpoint: Arc<Endpoint>,
        target: u16,
    ) -> Try<'_> {
        twin.forget();
        tracing::debug!(workload = %endpoint.workload, "no answer yet: asking another as well");
        Box::pin(async move {
            let result = self.send(&mut twin, &mut order, &endpoint, target).await;
            Ended {
                endpoint,
                result,
                twin: Some(twin),
            }
        })
    }

    async fn send(
        &self,
        exchange: &mut Exchange,
        order: &mut Order,
        endpoint: &Arc<Endpoint>,
        target: u16,
    ) -> Result<Response, Failure> {
        let now = Instant::now();
        exchange.attempt(endpoint, now.into_std());
        let wire = forward::wire_for(endpoint, self.port.protocol, exchange, false);
        let per_try = self.limits.per_try_timeout.map(|limit| now + limit);
        let deadline = order.deadline.until;
        deadline::tell(exchange, deadline.into_iter().chain(per_try).min(), now);
        let load = Load::on(&**endpoint);
        let result = {
            let attempt = pin!(forward::send(
                self.worker,
                exchange,
                endpoint,
                target,
                wire,
                order,
                &self.port.policy,
            ));
            within(deadline, per_try, attempt).await
        };
        drop(load);
        forward::time(self.destination, self.port, endpoint, now, &result);
        if !exchange.is_pending() {
            judge(self.destination, self.port, endpoint, &result);
        }
        result
    }
}
