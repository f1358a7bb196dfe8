//! Writes status to the cluster, as long as this replica holds the Lease.
//!
//! What is to be said comes from the translator, from what proxies acknowledged and from whoever
//! runs Gateways; what is said already comes from the watches. Only a difference is written, at
//! the resource version that it was compared with: who was overtaken reads and compares again.
//! Nothing is asked regularly: whatever could change a status marks it. An object is written at
//! most once in each pass, and passes have a pause between them: that bounds what one object, and
//! all of them together, can cost the API server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::status::merge;
use config::{ObjectKey, ObjectKind};
use futures_util::StreamExt as _;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::report::Report;
use super::said::said;
use super::seen::{Seen, SeenObjects, has_status};
use crate::authority::rfc3339;
use crate::state::State;

/// Between two passes.
const PAUSE: Duration = Duration::from_millis(100);
/// After a pass in which something could not be written.
const AGAIN: Duration = Duration::from_secs(2);
/// Writes at the same time.
const AT_ONCE: usize = 4;
/// An answer of the API server is waited for as long.
const ANSWER: Duration = Duration::from_secs(10);
/// How often one who was overtaken reads again in one pass.
const ATTEMPTS: usize = 4;

/// What the writer works with.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) client: Client,
    pub(super) state: State,
    pub(super) seen: SeenObjects,
    pub(super) report: Report,
}

/// Why a status was not written.
#[derive(Debug)]
enum Failure {
    /// Others were quicker each time.
    Overtaken,
    /// The API server refused or did not answer.
    Refused(String),
}

/// Writes until the future is dropped.
pub(super) async fn write(writer: Writer, mut leader: watch::Receiver<bool>) {
    let mut acks = writer.state.distribution().distributor().changes();
    let mut reaches = writer.state.published().changes();
    let mut others = writer.state.distribution().others().changes();
    let mut revision = writer.state.revision();
    let seen = writer.seen.clone();
    let gateways = |kind| matches!(kind, ObjectKind::Gateway | ObjectKind::ListenerSet);
    loop {
        tokio::select! {
            () = seen.marked() => {}
            Ok(()) = revision.changed() => {}
            Ok(()) = acks.changed() => seen.mark_kinds(gateways),
            Ok(()) = reaches.changed() => seen.mark_kinds(gateways),
            Ok(()) = others.changed() => seen.mark_kinds(gateways),
            Ok(()) = leader.changed() => seen.mark_kinds(has_status),
            // All senders are gone with the control plane.
            else => return,
        }
        seen.mark(writer.state.distribution().take_changed());
        if !*leader.borrow_and_update() || !writer.report.is_settled() {
            // Marks stay, one for each object; a new holder looks at everything. Before everything
            // was listed something would be said to be missing that is there.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let failed = writer.pass().await;
        tokio::time::sleep(if failed { AGAIN } else { PAUSE }).await;
    }
}

impl Writer {
    /// Looks at everything that is marked; whether something has to be tried again.
    async fn pass(&self) -> bool {
        let marked = self.seen.take_marked();
        let failed: Vec<ObjectKey> = futures_util::stream::iter(marked)
            .map(|key| async move {
                match self.one(&key).await {
                    Ok(()) => None,
                    Err(failure) => {
                        self.failed(&key, &failure);
                        Some(key)
                    }
                }
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let again = !failed.is_empty();
        self.seen.mark(failed);
        again
    }

    fn failed(&self, key: &ObjectKey, failure: &Failure) {
        let count = {
            let mut report = self.report.lock();
            report.write_errors += 1;
            report.write_errors
        };
        let why = match failure {
            Failure::Overtaken => "somebody else changes it all the time",
            Failure::Refused(why) => why.as_str(),
        };
        // One in a while: the API server may be away for all of them.
        if count.is_power_of_two() {
            tracing::warn!(
                "the status of {key} cannot be written: {why}; it is tried again ({count} failures so far)"
            );
        } else {
            tracing::debug!("the status of {key} cannot be written: {why}");
        }
    }

    /// Writes one status, if it is to be another.
    async fn one(&self, key: &ObjectKey) -> Result<(), Failure> {
        let Some(mut seen) = self.seen.find(key) else {
            return Ok(());
        };
        let api = self.api(key);
        for _ in 0..ATTEMPTS {
            let Some(wanted) = said(&self.state, &self.seen, &self.report, key, &seen) else {
                return Ok(());
            };
            let Some(patch) = patch(key, &seen, wanted, &now()) else {
                return Ok(());
            };
            let parameters = PatchParams::default();
            let patch = Patch::Merge(patch);
            let written = api.patch_status(&key.name, &parameters, &patch);
            match answer(written).await {
                Ok(object) => {
                    self.report.lock().writes += 1;
                    self.seen.note(key, &object);
                    return Ok(());
                }
                Err(error) if code(error.as_deref()) == Some(404) => return Ok(()),
                Err(error) if code(error.as_deref()) == Some(409) => {
                    match answer(api.get_opt(&key.name)).await {
                        Ok(Some(object)) => seen = Seen::of(&object),
                        Ok(None) => return Ok(()),
                        Err(error) => return Err(Failure::Refused(text(error))),
                    }
                }
                Err(error) => return Err(Failure::Refused(text(error))),
            }
        }
        Err(Failure::Overtaken)
    }

    fn api(&self, key: &ObjectKey) -> Api<DynamicObject> {
        let watched = self
            .report
            .lock()
            .watches
            .get(&key.kind)
            .map(|w| w.version.clone());
        let api_version = watched
            .filter(|version| !version.is_empty())
            .unwrap_or_else(|| key.kind.api_version());
        let version = api_version
            .rsplit_once('/')
            .map_or(&*api_version, |(_, v)| v);
        let resource = ApiResource {
            group: key.kind.group().to_owned(),
            version: version.to_owned(),
            kind: key.kind.as_str().to_owned(),
            plural: key.kind.plural().to_owned(),
            api_version,
        };
        let client = self.client.clone();
        if key.namespace.is_empty() {
            Api::all_with(client, &resource)
        } else {
            Api::namespaced_with(client, &key.namespace, &resource)
        }
    }
}

/// A failure of the API server, or its silence.
type Unanswered = Option<Arc<kube::Error>>;

async fn answer<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, Unanswered> {
    match timeout(ANSWER, asked).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Some(Arc::new(error))),
        Err(_) => Err(None),
    }
}

fn code(error: Option<&kube::Error>) -> Option<u16> {
    match error {
        Some(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

fn text(error: Unanswered) -> String {
    error.map_or_else(
        || format!("no answer within {} s", ANSWER.as_secs()),
        |error| error.to_string(),
    )
}

fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    rfc3339(since.unwrap_or_default().as_secs())
}

/// The merge patch that makes a status what it is to be, at the version that was seen; `None` if it
/// is that already.
fn patch(key: &ObjectKey, seen: &Seen, wanted: Map<String, Value>, now: &str) -> Option<Value> {
    let mut status = merge(&seen.status, wanted, now);
    let fields = status.as_object_mut()?;
    // A list that is empty and was not there says nothing new.
    fields.retain(|field, value| {
        value.as_array().is_none_or(|list| !list.is_empty()) || seen.status.get(field).is_some()
    });
    let old = seen.status.as_object();
    let gone: Vec<&String> = old
        .into_iter()
        .flat_map(Map::keys)
        .filter(|field| !fields.contains_key(*field))
        .collect();
    let same = gone.is_empty() && fields.iter().all(|(f, v)| seen.status.get(f) == Some(v));
    if same {
        return None;
    }
    for field in gone {
        fields.insert(field.clone(), Value::Null);
    }
    Some(json!({
        "apiVersion": seen.api_version, "kind": key.kind.as_str(),
        "metadata": {"resourceVersion": seen.resource_version},
        "status": status,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: Value) -> Seen {
        Seen {
            resource_version: Some("5".to_owned()),
            api_version: "gateway.networking.k8s.io/v1".to_owned(),
            status,
            ..Seen::default()
        }
    }

    fn wanted(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().expect("a map")
    }

    #[test]
    fn nothing_is_written_that_is_said_already() {
        let key = ObjectKey::new(ObjectKind::Gateway, "shop", "web");
        let said = json!({"conditions": [{"type": "Accepted", "status": "True"}], "listeners": []});
        let first = patch(&key, &seen(Value::Null), wanted(&said), "T1").expect("a patch");
        assert_eq!(first["metadata"]["resourceVersion"], "5");
        assert!(first["status"].get("listeners").is_none());
        let written = seen(first["status"].clone());
        assert_eq!(patch(&key, &written, wanted(&said), "T2"), None);
    }

    #[test]
    fn what_is_no_longer_said_is_taken_back() {
        let key = ObjectKey::new(ObjectKind::Gateway, "shop", "web");
        let old = seen(json!({"addresses": [{"value": "1.2.3.4"}], "conditions": []}));
        let patch = patch(&key, &old, wanted(&json!({"conditions": []})), "T").expect("a patch");
        assert_eq!(patch["status"]["addresses"], Value::Null);
    }

    #[test]
    fn a_route_that_is_nobodys_is_left_alone() {
        let key = ObjectKey::new(ObjectKind::HttpRoute, "shop", "cart");
        let nothing = wanted(&json!({"parents": []}));
        assert_eq!(patch(&key, &seen(Value::Null), nothing.clone(), "T"), None);
        let theirs = json!({"parents": [{"parentRef": {"name": "x"}, "controllerName": "example.com/x", "conditions": []}]});
        assert_eq!(patch(&key, &seen(theirs), nothing, "T"), None);
    }
}
