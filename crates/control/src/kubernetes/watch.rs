//! Watches: one for each kind that the cluster has, begun and ended as kinds come and go.
//!
//! kube's watcher lists and then watches; it goes on where it was after a lost connection, lists
//! again when its resource version has expired, and waits longer after each failure ([`Pace`]). What it says
//! is handed on in the order in which it came. The queue is bounded: a source that is busy slows
//! the watches down. Of Nodes only metadata is asked for; from Pods and Secrets what nobody here may
//! know or wants is taken before they wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::{ObjectKey, ObjectKind};
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::discovery::ApiResource;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_kind};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch as signal};
use tokio::task::{AbortHandle, JoinSet};

use super::kinds::{Kinds, discover};
use super::objects::slim;
use config::kind::secret::TLS_TYPE;

/// News that may wait for the source.
const QUEUE: usize = 1024;
/// How often is looked which kinds there are.
const LOOK: Duration = Duration::from_secs(15);
/// How often after the API server could not be asked.
const RETRY: Duration = Duration::from_secs(3);

/// How long is waited after the first failure of a watch.
const FIRST: Duration = Duration::from_millis(500);
/// And at most.
const LONGEST: Duration = Duration::from_secs(5);

/// What watches say.
#[derive(Debug)]
pub(super) enum News {
    /// The API server said which kinds there are.
    Kinds(Vec<(ObjectKind, String)>),
    /// The API server could not be asked which kinds there are.
    Unknown(String),
    /// Of one kind.
    Of(ObjectKind, Watched),
    /// Of a Secret that is watched by itself.
    OfSecret(ObjectKey, Watched),
}

/// What a watch says.
#[derive(Debug)]
pub(super) enum Watched {
    /// All objects follow.
    Begins,
    /// An object is there, as it is now.
    Is(Box<DynamicObject>),
    /// An object is gone.
    Deleted(Box<DynamicObject>),
    /// All objects have been said: others are gone.
    Complete,
    /// It does not work at the moment.
    Failed {
        /// Why.
        why: String,
        /// The API server does not allow it.
        forbidden: bool,
    },
}

/// Starts to watch: all kinds, and by themselves the Secrets that `secrets` names. Ends when the
/// receiver is dropped.
pub(super) fn start(
    client: Client,
    secrets: signal::Receiver<BTreeSet<ObjectKey>>,
) -> mpsc::Receiver<News> {
    let (news, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(keep(client.clone(), news.clone()));
    tokio::spawn(keep_secrets(client, secrets, news));
    receiver
}

/// Keeps a watch for each kind that there is.
async fn keep(client: Client, news: mpsc::Sender<News>) {
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<ObjectKind, Running> = BTreeMap::new();
    loop {
        let pause = match discover(&client).await {
            Ok(kinds) => {
                end_others(&mut running, &kinds);
                let told = kinds
                    .iter()
                    .map(|(k, r)| (*k, r.api_version.clone()))
                    .collect();
                if news.send(News::Kinds(told)).await.is_err() {
                    return;
                }
                for (kind, resource) in kinds {
                    running.entry(kind).or_insert_with(|| {
                        let watch = watch(client.clone(), kind, resource.clone(), news.clone());
                        Running {
                            resource,
                            handle: tasks.spawn(watch),
                        }
                    });
                }
                LOOK
            }
            Err(why) => {
                if news.send(News::Unknown(why)).await.is_err() {
                    return;
                }
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Dropping the tasks ends them.
            () = news.closed() => return,
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// Keeps a watch for each Secret that is named.
async fn keep_secrets(
    client: Client,
    mut named: signal::Receiver<BTreeSet<ObjectKey>>,
    news: mpsc::Sender<News>,
) {
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<ObjectKey, AbortHandle> = BTreeMap::new();
    loop {
        let now = named.borrow_and_update().clone();
        running.retain(|key, watch| {
            let stays = now.contains(key);
            if !stays {
                watch.abort();
            }
            stays
        });
        for key in now {
            running.entry(key).or_insert_with_key(|key| {
                tasks.spawn(watch_secret(client.clone(), key.clone(), news.clone()))
            });
        }
        tokio::select! {
            changed = named.changed() => if changed.is_err() {
                return;
            },
            // Dropping the tasks ends them.
            () = news.closed() => return,
        }
        while tasks.try_join_next().is_some() {}
    }
}

struct Running {
    resource: ApiResource,
    handle: AbortHandle,
}

/// Ends the watches of kinds that are there in another version, or not at all.
fn end_others(running: &mut BTreeMap<ObjectKind, Running>, kinds: &Kinds) {
    running.retain(|kind, watch| {
        let stays = kinds.get(kind) == Some(&watch.resource);
        if !stays {
            watch.handle.abort();
        }
        stays
    });
}

/// Only what can be of use is asked for: Secrets are others' secrets.
fn selection(kind: ObjectKind) -> watcher::Config {
    let all = watcher::Config::default();
    match kind {
        ObjectKind::Secret => all.fields(&format!("type={TLS_TYPE}")),
        ObjectKind::ConfigMap => all.fields("metadata.name!=kube-root-ca.crt"),
        // Those that have ended are nobody's endpoints, and there may be many.
        ObjectKind::Pod => all.fields("status.phase!=Succeeded,status.phase!=Failed"),
        _ => all,
    }
}

async fn watch(client: Client, kind: ObjectKind, resource: ApiResource, news: mpsc::Sender<News>) {
    let say = |said| News::Of(kind, said);
    if kind == ObjectKind::Node {
        let api: Api<PartialObjectMeta<Node>> = Api::all(client);
        let events = watch_kind(api, selection(kind)).backoff(Pace::default());
        tell(events, bare, say, &news).await;
    } else {
        let api: Api<DynamicObject> = Api::all_with(client, &resource);
        let events = watch_kind(api, selection(kind)).backoff(Pace::default());
        tell(events, |object| slim(kind, object), say, &news).await;
    }
}

/// Of the types that the watch of all Secrets does not have.
async fn watch_secret(client: Client, key: ObjectKey, news: mpsc::Sender<News>) {
    let resource = ApiResource::erase::<Secret>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client, &key.namespace, &resource);
    let selection = format!("metadata.name={},type!={TLS_TYPE}", key.name);
    let config = watcher::Config::default().fields(&selection);
    let events = watch_kind(api, config).backoff(Pace::default());
    let say = |said| News::OfSecret(key.clone(), said);
    tell(events, |object| slim(key.kind, object), say, &news).await;
}

/// Tells what a watch says, until nobody listens.
async fn tell<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    object: impl Fn(K) -> DynamicObject,
    say: impl Fn(Watched) -> News,
    news: &mpsc::Sender<News>,
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let said = match event {
            Ok(Event::Init) => Watched::Begins,
            Ok(Event::InitApply(it) | Event::Apply(it)) => Watched::Is(Box::new(object(it))),
            Ok(Event::InitDone) => Watched::Complete,
            Ok(Event::Delete(it)) => Watched::Deleted(Box::new(object(it))),
            Err(error) => failed(&error),
        };
        if news.send(say(said)).await.is_err() {
            return;
        }
    }
}

/// A Node without all that a kubelet says of it every few seconds.
fn bare(node: PartialObjectMeta<Node>) -> DynamicObject {
    let object = DynamicObject {
        types: None,
        metadata: node.metadata,
        data: serde_json::Value::Null,
    };
    slim(ObjectKind::Node, object)
}

/// How long is waited after each failure: twice as long as before, up to a few seconds. kube's own
/// goes up to a minute, which is long for one that serves traffic to be behind; a dozen watches that
/// ask every few seconds are no burden on a server that has just come back.
#[derive(Debug, Default)]
pub(super) struct Pace(u32);

impl Iterator for Pace {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let longest = FIRST.saturating_mul(1 << self.0.min(10)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        // Not all at once.
        Some(longest.mul_f64(rand::random_range(0.5..1.0)))
    }
}

impl Backoff for Pace {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

fn failed(error: &watcher::Error) -> Watched {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => Some(source),
        _ => None,
    };
    let forbidden = matches!(source, Some(kube::Error::Api(status)) if status.code == 403);
    // kube does not look at the status of the answer to a watch.
    let why = match source {
        Some(kube::Error::SerdeError(_)) => format!(
            "{error}; that is no event: an API server that has too many requests (429) answers so"
        ),
        _ => error.to_string(),
    };
    Watched::Failed { why, forbidden }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(version: &str) -> ApiResource {
        ApiResource {
            group: "gateway.networking.k8s.io".to_owned(),
            version: version.to_owned(),
            api_version: format!("gateway.networking.k8s.io/{version}"),
            kind: "Gateway".to_owned(),
            plural: "gateways".to_owned(),
        }
    }

    #[test]
    fn a_watch_that_fails_is_tried_again_within_seconds() {
        let mut pace = Pace::default();
        let waits: Vec<Duration> = pace.by_ref().take(40).collect();
        assert!(waits[0] <= FIRST, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");
        assert!(waits[20] >= LONGEST / 2, "{waits:?}");
        pace.reset();
        assert!(pace.next().expect("endless") <= FIRST);
    }

    #[tokio::test]
    async fn the_watch_of_a_kind_ends_with_its_version() {
        let mut tasks = JoinSet::new();
        let watch = Running {
            resource: resource("v1beta1"),
            handle: tasks.spawn(std::future::pending::<()>()),
        };
        let mut running = BTreeMap::from([(ObjectKind::Gateway, watch)]);
        let served = |version| Kinds::from([(ObjectKind::Gateway, resource(version))]);
        end_others(&mut running, &served("v1beta1"));
        assert_eq!(running.len(), 1);
        end_others(&mut running, &served("v1"));
        assert!(running.is_empty());
        let ended = tasks.join_next().await.expect("a task");
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }
}
