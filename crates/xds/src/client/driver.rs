//! The task that keeps session, stream, receiver and file together.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use model::resource::{Key, Kind};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tonic::Streaming;

use super::link::{self, LinkError};
use super::{Batch, Options, Reply, Shared, cache};
use crate::delta::client::Update;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// Waiting before the second attempt; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A stream that lasted this long was a good one: waiting begins anew.
const GOOD_STREAM: Duration = Duration::from_secs(10);
/// Changes within this time are written to the file together.
const SAVE_AFTER: Duration = Duration::from_millis(200);
/// Requests that wait for the connection; one for each kind is the most there can be at first.
const REQUESTS: usize = 16;

pub(super) struct Driver {
    shared: Arc<Shared>,
    options: Options,
    batches: mpsc::Sender<Batch>,
    link: Link,
    requests: Option<mpsc::Sender<DeltaDiscoveryRequest>>,
    delivery: Option<Delivery>,
    /// Whether the session may have a request to be sent.
    pending: bool,
    wait: Duration,
    failed_before: bool,
    save: Option<Pin<Box<Sleep>>>,
}

enum Link {
    Waiting(Pin<Box<Sleep>>),
    Connecting(BoxFuture<'static, Result<Box<Streaming<DeltaDiscoveryResponse>>, LinkError>>),
    Open {
        responses: Box<Streaming<DeltaDiscoveryResponse>>,
        since: Instant,
    },
}

enum Event {
    Due,
    Opened(Box<Streaming<DeltaDiscoveryResponse>>),
    Response(DeltaDiscoveryResponse),
    Failed(LinkError),
}

/// A batch on its way to the receiver, and what its acceptance means.
struct Delivery {
    batch: Option<Batch>,
    verdict: oneshot::Receiver<Result<(), String>>,
    origin: Origin,
}

enum Origin {
    Cache,
    Dropped,
    Server(Update),
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, options: Options, batches: mpsc::Sender<Batch>) -> Self {
        Self {
            shared,
            options,
            batches,
            link: Link::Waiting(Box::pin(tokio::time::sleep(Duration::ZERO))),
            requests: None,
            delivery: None,
            pending: false,
            wait: FIRST_WAIT,
            failed_before: false,
            save: None,
        }
    }

    pub(super) async fn run(mut self) {
        self.deliver_cache();
        loop {
            self.deliver_dropped();
            // While a batch is with the receiver nothing is read, and no new stream is begun.
            let idle = self.delivery.is_none();
            let delivering = !idle;
            tokio::select! {
                () = self.batches.closed() => break,
                verdict = verdict(&mut self.delivery, &self.batches), if delivering => {
                    self.settle(verdict);
                }
                () = self.shared.wake.notified() => {
                    self.pending = true;
                    self.changed();
                }
                permit = reserve(self.requests.as_ref()), if self.pending => {
                    let request = self.shared.session().poll();
                    self.pending = request.is_some();
                    if let Some(request) = request {
                        permit.send(request);
                    }
                }
                event = self.link.next(), if idle || self.link.is_connecting() => {
                    self.handle(event);
                }
                () = due(&mut self.save) => self.save().await,
            }
        }
        if self.save.is_some() {
            self.save().await;
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Due => {
                let (requests, receiver) = mpsc::channel(REQUESTS);
                self.requests = Some(requests);
                self.shared.session().opened();
                self.pending = true;
                let dial = Arc::clone(&self.options.dial);
                self.link = Link::Connecting(Box::pin(link::open(dial, receiver)));
            }
            Event::Opened(responses) => {
                tracing::info!(
                    node = self.options.node_id,
                    "connected to the control plane"
                );
                self.failed_before = false;
                self.shared.connected.send_replace(true);
                let since = Instant::now();
                self.link = Link::Open { responses, since };
            }
            Event::Response(response) => self.receive(response),
            Event::Failed(error) => self.disconnected(&error),
        }
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse) {
        self.wait = FIRST_WAIT;
        let update = self.shared.session().receive(response);
        match update {
            Ok(update) => self.deliver_update(update),
            Err(error) => tracing::warn!(%error, "ignored a response of the control plane"),
        }
    }

    fn disconnected(&mut self, error: &LinkError) {
        if let Link::Open { since, .. } = &self.link
            && since.elapsed() > GOOD_STREAM
        {
            self.wait = FIRST_WAIT;
        }
        let jitter = rand::random_range(0.5..1.0);
        let wait = self.wait.mul_f64(jitter);
        if self.failed_before {
            tracing::debug!(node = self.options.node_id, %error, ?wait, "still no control plane");
        } else {
            tracing::warn!(node = self.options.node_id, %error, "no control plane; the last good configuration stays in force");
        }
        self.failed_before = true;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        self.requests = None;
        self.shared.session().closed();
        self.shared.connected.send_replace(false);
        self.link = Link::Waiting(Box::pin(tokio::time::sleep(wait)));
    }

    fn deliver(
        &mut self,
        upserts: Vec<(Key, Arc<model::resource::Resource>)>,
        removed: Vec<Key>,
        origin: Origin,
    ) {
        let (reply, verdict) = oneshot::channel();
        self.delivery = Some(Delivery {
            batch: Some(Batch {
                upserts,
                removed,
                reply: Reply(reply),
            }),
            verdict,
            origin,
        });
    }

    fn deliver_cache(&mut self) {
        let mut upserts = Vec::new();
        let mut removed = Vec::new();
        let session = self.shared.session();
        for kind in Kind::ALL {
            for (name, held) in session.held(kind) {
                upserts.push((Key::new(kind, Arc::clone(name)), Arc::clone(&held.resource)));
            }
            let absent = session.absent(kind);
            removed.extend(absent.into_iter().map(|name| Key::new(kind, name)));
        }
        drop(session);
        if !upserts.is_empty() || !removed.is_empty() {
            self.deliver(upserts, removed, Origin::Cache);
        }
    }

    fn deliver_dropped(&mut self) {
        if self.delivery.is_none() {
            let dropped = self.shared.session().take_dropped();
            if !dropped.is_empty() {
                self.deliver(Vec::new(), dropped, Origin::Dropped);
            }
        }
    }

    fn deliver_update(&mut self, update: Update) {
        if !update.refused.is_empty() {
            let first = update.refused.iter().next();
            tracing::warn!(kind = %update.kind, count = update.refused.len(), ?first, "resources of the control plane cannot be used");
        }
        let key = |name: &Arc<str>| Key::new(update.kind, Arc::clone(name));
        let upserts: Vec<_> = update
            .upserts
            .iter()
            .map(|(name, held)| (key(name), Arc::clone(&held.resource)))
            .collect();
        let removed: Vec<_> = update.removed.iter().map(key).collect();
        if upserts.is_empty() && removed.is_empty() {
            self.shared.session().settle(update, Ok(()));
            self.pending = true;
        } else {
            self.deliver(upserts, removed, Origin::Server(update));
        }
    }

    fn settle(&mut self, verdict: Result<(), String>) {
        let Some(delivery) = self.delivery.take() else {
            return;
        };
        match (delivery.origin, verdict) {
            (Origin::Server(update), verdict) => {
                let verdict = verdict.as_ref().copied().map_err(String::as_str);
                self.shared.session().settle(update, verdict);
                self.pending = true;
                self.changed();
            }
            (Origin::Cache, Err(why)) => {
                tracing::warn!(
                    why,
                    "the last good configuration was refused; starting without"
                );
                self.shared.session().forget();
            }
            (Origin::Dropped, Err(why)) => {
                tracing::warn!(why, "the proxy refused to forget what it no longer wants");
            }
            (Origin::Cache | Origin::Dropped, Ok(())) => {}
        }
    }

    fn changed(&mut self) {
        if self.options.cache.is_some() && self.save.is_none() {
            self.save = Some(Box::pin(tokio::time::sleep(SAVE_AFTER)));
        }
    }

    async fn save(&mut self) {
        self.save = None;
        let Some(path) = self.options.cache.clone() else {
            return;
        };
        let snapshot = cache::snapshot(&self.options.node_id, &self.shared.session());
        let shown = path.display().to_string();
        let saved = tokio::task::spawn_blocking(move || cache::save(&path, &snapshot)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(path = shown, %error, "the last good configuration cannot be saved");
        }
    }
}

impl Link {
    fn is_connecting(&self) -> bool {
        matches!(self, Self::Connecting(_))
    }

    /// The next event. May be dropped and called again without losing one.
    async fn next(&mut self) -> Event {
        match self {
            Self::Waiting(sleep) => {
                sleep.as_mut().await;
                Event::Due
            }
            Self::Connecting(connecting) => match connecting.as_mut().await {
                Ok(responses) => Event::Opened(responses),
                Err(error) => Event::Failed(error),
            },
            Self::Open { responses, .. } => match responses.message().await {
                Ok(Some(response)) => Event::Response(response),
                Ok(None) => Event::Failed(LinkError::Ended),
                Err(status) => Event::Failed(LinkError::Status(status)),
            },
        }
    }
}

/// Brings a batch to its receiver and waits for the answer. May be dropped and called again.
async fn verdict(
    delivery: &mut Option<Delivery>,
    batches: &mpsc::Sender<Batch>,
) -> Result<(), String> {
    let Some(delivery) = delivery else {
        return std::future::pending().await;
    };
    if delivery.batch.is_some()
        && let Ok(permit) = batches.reserve().await
        && let Some(batch) = delivery.batch.take()
    {
        permit.send(batch);
    }
    (&mut delivery.verdict)
        .await
        .unwrap_or_else(|_| Err("dropped without an answer".to_owned()))
}

/// A place for a request; never, if there is no connection.
async fn reserve(
    requests: Option<&mpsc::Sender<DeltaDiscoveryRequest>>,
) -> OwnedPermit<DeltaDiscoveryRequest> {
    if let Some(requests) = requests
        && let Ok(permit) = requests.clone().reserve_owned().await
    {
        return permit;
    }
    // Where the connection is gone, the link says so.
    std::future::pending().await
}

async fn due(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.as_mut().await,
        None => std::future::pending().await,
    }
}
