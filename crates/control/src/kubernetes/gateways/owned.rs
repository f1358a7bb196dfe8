//! What Tulle has made for Gateways, as the API server says it is: found by its label, so that
//! what somebody changes or removes is seen at once.
//!
//! Of all of it only whose it is is kept, and of Services, which say where a Gateway can be reached,
//! themselves.

use std::collections::{BTreeMap, BTreeSet};

use config::{ObjectKey, ObjectKind};
use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{MANAGED_BY, MANAGER};
use crate::kubernetes::watch::Pace;

/// News that may wait.
const QUEUE: usize = 256;

/// The kinds that are made for a Gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Made {
    Account,
    Roots,
    Deployment,
    Service,
}

impl Made {
    const ALL: [Self; 4] = [Self::Account, Self::Roots, Self::Deployment, Self::Service];

    /// As Kubernetes calls it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Account => "ServiceAccount",
            Self::Roots => "ConfigMap",
            Self::Deployment => "Deployment",
            Self::Service => "Service",
        }
    }

    /// Where it is asked for.
    pub(super) fn resource(self) -> ApiResource {
        match self {
            Self::Account => ApiResource::erase::<ServiceAccount>(&()),
            Self::Roots => ApiResource::erase::<ConfigMap>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
        }
    }
}

/// What a watch says.
#[derive(Debug)]
pub(super) struct News(Made, Event<DynamicObject>);

/// Watches all kinds; ends when the receiver is dropped.
pub(super) fn watch(client: &Client) -> mpsc::Receiver<News> {
    let (news, receiver) = mpsc::channel(QUEUE);
    for kind in Made::ALL {
        let (client, news) = (client.clone(), news.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = follow(client, kind, &news) => {}
                () = news.closed() => {}
            }
        });
    }
    receiver
}

async fn follow(client: Client, kind: Made, news: &mpsc::Sender<News>) {
    let api: Api<DynamicObject> = Api::all_with(client, &kind.resource());
    let config = Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let events = watcher(api, config).backoff(Pace::default());
    let mut events = std::pin::pin!(events);
    let mut complained = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                complained = false;
                if news.send(News(kind, event)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(
                        kind = kind.as_str(), %error,
                        "what belongs to Gateways cannot be watched; changes by others are put right within minutes only"
                    );
                }
            }
        }
    }
}

type Name = (Made, String, String);

/// All that there is.
#[derive(Debug, Default)]
pub(super) struct Owned {
    objects: BTreeMap<Name, Object>,
    /// Seen while a watch lists anew.
    listed: BTreeMap<Made, BTreeSet<Name>>,
}

#[derive(Debug)]
struct Object {
    /// A Gateway or a GatewayClass.
    owner: ObjectKey,
    /// Grows with what is wanted of it, not with its status.
    generation: Option<i64>,
    resource_version: Option<String>,
    /// Of Services: all of it.
    data: Value,
}

impl Object {
    /// Whether the same is wanted of it: where there is a generation, a change of status is none.
    fn wants(&self, other: &Self) -> bool {
        match (self.generation, other.generation) {
            (Some(a), Some(b)) => a == b,
            _ => self.resource_version == other.resource_version,
        }
    }
}

impl Owned {
    /// Takes news in; returns the Gateway or class whose object may not be what it was.
    pub(super) fn take(&mut self, News(kind, event): News) -> Option<ObjectKey> {
        match event {
            Event::Init => {
                self.listed.insert(kind, BTreeSet::new());
                None
            }
            Event::InitApply(object) => {
                let name = name_of(kind, &object)?;
                self.listed.entry(kind).or_default().insert(name.clone());
                self.set(name, object)
            }
            Event::Apply(object) => self.set(name_of(kind, &object)?, object),
            Event::Delete(object) => {
                let gone = self.objects.remove(&name_of(kind, &object)?);
                gone.map(|object| object.owner)
            }
            Event::InitDone => {
                let listed = self.listed.remove(&kind).unwrap_or_default();
                self.objects
                    .retain(|name, _| name.0 != kind || listed.contains(name));
                None
            }
        }
    }

    fn set(&mut self, name: Name, object: DynamicObject) -> Option<ObjectKey> {
        let owners = object.metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().find_map(|owner| match &*owner.kind {
            "Gateway" => Some(ObjectKey::new(ObjectKind::Gateway, &name.1, &owner.name)),
            "GatewayClass" => Some(ObjectKey::new(ObjectKind::GatewayClass, "", &owner.name)),
            _ => None,
        })?;
        let is_service = name.0 == Made::Service;
        let now = Object {
            owner: owner.clone(),
            generation: object.metadata.generation,
            resource_version: object.metadata.resource_version,
            data: if is_service { object.data } else { Value::Null },
        };
        let same = self.objects.get(&name).is_some_and(|old| old.wants(&now));
        self.objects.insert(name, now);
        (!same).then_some(owner)
    }

    /// The Service of a Gateway or class.
    pub(super) fn service(&self, owner: &ObjectKey) -> Option<&Value> {
        let services = self
            .objects
            .iter()
            .filter(|(name, object)| name.0 == Made::Service && object.owner == *owner);
        services.map(|(_, object)| &object.data).next()
    }

    /// Everything: kind, namespace, name, and whose it is.
    pub(super) fn all(&self) -> impl Iterator<Item = (Made, &str, &str, &ObjectKey)> {
        self.objects
            .iter()
            .map(|((kind, namespace, name), object)| (*kind, &**namespace, &**name, &object.owner))
    }
}

fn name_of(kind: Made, object: &DynamicObject) -> Option<Name> {
    let namespace = object.metadata.namespace.clone()?;
    Some((kind, namespace, object.metadata.name.clone()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(generation: Option<i64>, version: &str) -> DynamicObject {
        let mut object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Any",
            "metadata": {
                "name": "web-tulle", "namespace": "shop", "resourceVersion": version,
                "ownerReferences": [{"apiVersion": "v1", "kind": "Gateway", "name": "web", "uid": "1"}],
            },
            "spec": {"clusterIP": "10.0.0.1"},
        }))
        .expect("an object");
        object.metadata.generation = generation;
        object
    }

    #[test]
    fn what_is_wanted_of_an_object_is_told_from_what_becomes_of_it() {
        let mut owned = Owned::default();
        let web = Some(ObjectKey::new(ObjectKind::Gateway, "shop", "web"));
        let mut apply = |kind, generation, version| {
            owned.take(News(kind, Event::Apply(object(generation, version))))
        };
        assert_eq!(apply(Made::Deployment, Some(1), "1"), web);
        assert_eq!(apply(Made::Deployment, Some(1), "2"), None, "its status");
        assert_eq!(apply(Made::Deployment, Some(2), "3"), web);
        assert_eq!(apply(Made::Service, None, "4"), web);
        assert_eq!(apply(Made::Service, None, "5"), web);
        let service = owned.service(web.as_ref().expect("a key")).expect("seen");
        assert_eq!(service["spec"]["clusterIP"], "10.0.0.1");
        let gone = owned.take(News(Made::Service, Event::Delete(object(None, "6"))));
        assert_eq!(gone, web);
        assert_eq!(owned.all().count(), 1);
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut owned = Owned::default();
        owned.take(News(Made::Account, Event::Apply(object(None, "1"))));
        owned.take(News(Made::Roots, Event::Apply(object(None, "1"))));
        owned.take(News(Made::Account, Event::Init));
        owned.take(News(Made::Account, Event::InitDone));
        let left: Vec<_> = owned.all().map(|(kind, ..)| kind).collect();
        assert_eq!(left, [Made::Roots]);
    }
}
