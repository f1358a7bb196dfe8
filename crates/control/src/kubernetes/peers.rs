//! Replicas tell the one that writes status what their proxies have acknowledged.
//!
//! Each that has proxies and does not hold the Lease `tulle-control` keeps a Lease of its own, with
//! what it has heard in an annotation ([`Testimony`]); who holds it reads those. One that has not been
//! renewed for its duration, by the reader's clock, says nothing any more.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_kind};
use serde_json::json;
use tokio::sync::watch as signal;
use tokio::time::{Instant, timeout};

use super::Cluster;
use super::watch::Pace;
use crate::heard::{Others, Testimony};
use crate::state::State;

/// The label of these Leases.
const LABEL: &str = "tulle.dev/replica";
/// What their proxies have acknowledged, as JSON.
const SAID: &str = "tulle.dev/acknowledged";
/// The field manager.
const FIELDS: &str = "tulle-control";
/// What a replica says holds for as long without being said again.
const HOLDS: Duration = Duration::from_secs(30);
/// How often it is said again.
const RENEW: Duration = Duration::from_secs(10);
/// Changes that come together are one.
const SETTLE: Duration = Duration::from_millis(500);
/// An answer of the API server is waited for as long.
const ANSWER: Duration = Duration::from_secs(5);
/// Less than Kubernetes takes of annotations.
const MOST_BYTES: usize = 200 * 1024;
/// Replicas that are listened to.
const MOST_REPLICAS: usize = 32;

/// Says what this replica's proxies have acknowledged, as long as another one writes.
pub(super) async fn speak(
    cluster: Cluster,
    identity: String,
    state: State,
    mut leader: signal::Receiver<bool>,
) {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut acks = state.distribution().distributor().changes();
    let mut said = Testimony::new();
    let mut at = Instant::now();
    loop {
        let now = if *leader.borrow_and_update() {
            Testimony::new()
        } else {
            state.distribution().testimony()
        };
        if now != said || !now.is_empty() && at.elapsed() >= RENEW {
            match timeout(ANSWER, publish(&api, &identity, &now)).await {
                Ok(Ok(())) => (said, at) = (now, Instant::now()),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "what proxies acknowledged cannot be told to the replica that writes status");
                }
                Err(_) => tracing::debug!("the API server does not answer"),
            }
        }
        tokio::select! {
            Ok(()) = acks.changed() => {}
            Ok(()) = leader.changed() => {}
            () = tokio::time::sleep(RENEW) => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// The name of a replica's Lease.
fn name_of(identity: &str) -> String {
    let unique = identity.rsplit('_').next().unwrap_or(identity);
    format!("tulle-replica-{unique}")
}

async fn publish(api: &Api<Lease>, identity: &str, said: &Testimony) -> kube::Result<()> {
    let name = name_of(identity);
    if said.is_empty() {
        return match api.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        };
    }
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "labels": {LABEL: ""}, "annotations": {SAID: text(said)}},
        "spec": {
            "holderIdentity": identity, "leaseDurationSeconds": HOLDS.as_secs(),
            "renewTime": MicroTime(Timestamp::now()),
        },
    });
    let parameters = PatchParams::apply(FIELDS).force();
    api.patch(&name, &parameters, &Patch::Apply(lease)).await?;
    Ok(())
}

/// As much as an annotation takes, by name; who has more listeners is warned.
fn text(said: &Testimony) -> String {
    let mut bytes = 2;
    let fits = |(name, heard): &(&String, &crate::heard::Heard)| {
        let one = serde_json::to_string(heard).map_or(0, |text| text.len());
        bytes += name.len() + one + 4;
        bytes <= MOST_BYTES
    };
    let some: BTreeMap<_, _> = said.iter().take_while(fits).collect();
    if some.len() < said.len() {
        tracing::warn!(
            "of {} listeners that proxies of this replica serve, {} are told to the replica that writes status; the others may be said not to be programmed: run one replica, or fewer Gateways",
            said.len(),
            some.len()
        );
    }
    serde_json::to_string(&some).unwrap_or_default()
}

/// Hears what other replicas say, for as long as it is polled.
pub(super) async fn listen(cluster: Cluster, identity: String, state: State) {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let own = name_of(&identity);
    let config = watcher::Config::default().labels(LABEL);
    let mut events = std::pin::pin!(watch_kind(api, config).backoff(Pace::default()));
    let mut heard = Hearing::default();
    let mut tick = tokio::time::interval(RENEW);
    loop {
        let others = state.distribution().others();
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Apply(lease) | Event::InitApply(lease))) => {
                    let name = lease.metadata.name.clone().unwrap_or_default();
                    if name != own {
                        heard.says(&name, &lease, others);
                    }
                }
                Some(Ok(Event::Delete(lease))) => {
                    heard.gone(&lease.metadata.name.unwrap_or_default(), others);
                }
                Some(Ok(Event::Init | Event::InitDone)) => {}
                Some(Err(error)) => tracing::debug!(%error, "other replicas cannot be heard"),
                None => return,
            },
            _ = tick.tick() => heard.forget(others, Instant::now()),
        }
    }
}

/// Who said something, and when it was heard.
#[derive(Debug, Default)]
struct Hearing(BTreeMap<String, Instant>);

impl Hearing {
    fn says(&mut self, name: &str, lease: &Lease, others: &Others) {
        if !self.0.contains_key(name) && self.0.len() >= MOST_REPLICAS {
            return;
        }
        let annotations = lease.metadata.annotations.as_ref();
        let said = annotations.and_then(|all| serde_json::from_str(all.get(SAID)?).ok());
        self.0.insert(name.to_owned(), Instant::now());
        others.set(name, said);
    }

    fn gone(&mut self, name: &str, others: &Others) {
        self.0.remove(name);
        others.set(name, None);
    }

    /// Forgets who has not been heard for too long.
    fn forget(&mut self, others: &Others, now: Instant) {
        let silent = self.0.iter().filter(|(_, at)| now >= **at + HOLDS);
        let silent: Vec<String> = silent.map(|(name, _)| name.clone()).collect();
        for name in silent {
            self.gone(&name, others);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::resource::{Key, Kind};
    use xds::server::Acks;

    use super::*;
    use crate::heard::Heard;

    #[tokio::test(start_paused = true)]
    async fn what_a_replica_says_counts_until_it_is_silent_for_too_long() {
        let heard = Heard {
            version: "1".to_owned(),
            interested: 1,
            acked: 1,
            rejected: 0,
            rejection: None,
        };
        let said = Testimony::from([("shop/web/http".to_owned(), heard)]);
        let lease = |text: String| -> Lease {
            serde_json::from_value(json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "tulle-replica-1", "annotations": {SAID: text}},
            }))
            .expect("a Lease")
        };
        let others = Others::default();
        let mut hearing = Hearing::default();
        let counted = || {
            let mut acks = Acks::default();
            others.add(
                &Key::new(Kind::Listener, "shop/web/http"),
                Some("1"),
                &mut acks,
            );
            acks.acked
        };
        hearing.says("tulle-replica-1", &lease(text(&said)), &others);
        assert_eq!(counted(), 1);
        tokio::time::advance(HOLDS / 2).await;
        hearing.forget(&others, Instant::now());
        assert_eq!(counted(), 1);
        tokio::time::advance(HOLDS / 2).await;
        hearing.forget(&others, Instant::now());
        assert_eq!(counted(), 0);
        hearing.says("tulle-replica-1", &lease("nonsense".to_owned()), &others);
        assert_eq!(counted(), 0);
    }
}
