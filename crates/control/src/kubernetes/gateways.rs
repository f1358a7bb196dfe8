//! Gateways on Kubernetes: for each of our class a ServiceAccount, the mesh's roots, a Deployment
//! and a Service (GEP-1762).
//!
//! [`objects`] says what is to be there; this writes it by server-side apply, so that what somebody
//! changes is put right and what they add stays. Only the holder of the Lease writes. An object of
//! the name that is not the Gateway's is not touched, and said in the Gateway's status. A Gateway
//! that is refused keeps what it had: its last good state goes on serving.

mod address;
mod objects;
mod owned;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use config::kind::gateway_class::BUILT_IN;
use config::{Object, ObjectKey, ObjectKind, Spec};
use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::address::Wish;
use self::objects::{Gateway, Template};
use self::owned::{News, Owned};
use crate::gateways::generated_name;
use crate::published::Problem;
use crate::state::State;

/// The label by which what Tulle has made for Gateways is found, and its value.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const MANAGER: &str = "tulle";
/// The field manager.
const FIELDS: &str = "tulle-gateways";
/// An answer of the API server is waited for as long.
const ANSWER: Duration = Duration::from_secs(10);
/// How often everything is written again, whatever was seen of it.
const AGAIN: Duration = Duration::from_mins(5);
/// Before what failed is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Changes that come together are one.
const SETTLE: Duration = Duration::from_millis(50);
/// Gateways that are written for at once.
const AT_ONCE: usize = 8;

/// The type of the Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceType {
    /// The cluster gives each an address from outside; where it gives none, the cluster's own
    /// address is published.
    #[default]
    LoadBalancer,
    /// Addresses within the cluster.
    ClusterIp,
}

impl ServiceType {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::ClusterIp => "ClusterIP",
        }
    }

    /// The field of a Service that asks for an address.
    fn address_field(self) -> &'static str {
        match self {
            Self::LoadBalancer => "loadBalancerIP",
            Self::ClusterIp => "clusterIP",
        }
    }
}

/// What the pods of Gateways are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Image of the pods, whose entry point is `tulle`.
    pub image: String,
    /// `host:port` at which pods reach this control plane.
    pub control: String,
    /// Type of the Services.
    pub service_type: ServiceType,
}

/// Writes what Gateways need.
pub(crate) struct Provisioner {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) state: State,
    /// Whether this replica writes.
    pub(crate) leader: watch::Receiver<bool>,
    /// The mesh's roots as PEM, as they are now.
    pub(crate) roots: Box<dyn Fn() -> String + Send + Sync>,
}

/// What is remembered of a Gateway that was written for.
#[derive(Debug, Default)]
struct Written {
    /// What was wanted then; without what only the API server knows.
    wanted: Option<(Gateway, Template, Wish)>,
    at: Option<Instant>,
    /// Something of it may not be as it was written.
    suspect: bool,
    failures: u32,
    retry: Option<Instant>,
    /// Since when it has a Service.
    service_since: Option<Instant>,
    /// What of the addresses that it asks for it cannot have.
    unusable: Vec<String>,
}

/// Why a Gateway could not be written for.
#[derive(Debug)]
struct Failure {
    reason: &'static str,
    message: String,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self {
            reason: "NoResources",
            message: message.into(),
        }
    }
}

impl Provisioner {
    /// Writes for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut news = owned::watch(&self.client);
        let mut owned = Owned::default();
        let mut revision = self.state.revision();
        let mut written: HashMap<ObjectKey, Written> = HashMap::new();
        loop {
            let next = self.next_look(&written);
            tokio::select! {
                _ = self.leader.changed() => {}
                _ = revision.changed() => {}
                Some(event) = news.recv() => Self::take(event, &mut owned, &mut written),
                () = tokio::time::sleep_until(next) => {}
            }
            tokio::time::sleep(SETTLE).await;
            while let Ok(event) = news.try_recv() {
                Self::take(event, &mut owned, &mut written);
            }
            revision.mark_unchanged();
            if *self.leader.borrow_and_update() {
                self.round(&owned, &mut written).await;
            } else {
                written.clear();
            }
        }
    }

    fn take(event: News, owned: &mut Owned, written: &mut HashMap<ObjectKey, Written>) {
        if let Some(gateway) = owned.take(event)
            && let Some(known) = written.get_mut(&gateway)
        {
            known.suspect = true;
        }
    }

    /// When something is due even if nothing happens.
    fn next_look(&self, written: &HashMap<ObjectKey, Written>) -> Instant {
        let soon = written.iter().filter_map(|(key, w)| {
            let waits = self.state.published().find(key).is_some_and(|reach| {
                reach
                    .problem
                    .is_some_and(|p| p.reason == "AddressNotAssigned")
            });
            let grace = w
                .service_since
                .map(|at| at + address::GRACE)
                .filter(|_| waits);
            [w.retry, grace].into_iter().flatten().min()
        });
        let later = Instant::now() + AGAIN;
        let floor = Instant::now() + Duration::from_millis(200);
        soon.min().map_or(later, |at| at.clamp(floor, later))
    }

    async fn round(&self, owned: &Owned, written: &mut HashMap<ObjectKey, Written>) {
        let template = Template {
            image: self.settings.image.clone(),
            control: self.settings.control.clone(),
            service_type: self.settings.service_type,
            roots: (self.roots)(),
        };
        let gateways: Vec<(ObjectKey, std::sync::Arc<Object>)> = self
            .state
            .list(ObjectKind::Gateway, None)
            .into_iter()
            .map(|entry| (entry.object.key.clone(), entry.object))
            .collect();
        let all: BTreeSet<&ObjectKey> = gateways.iter().map(|(key, _)| key).collect();
        written.retain(|key, _| {
            let stays = all.contains(key);
            if !stays {
                self.state.published().set(key.clone(), None);
            }
            stays
        });
        let now = Instant::now();
        let mut due = Vec::new();
        for (key, object) in &gateways {
            if !self.state.distribution().is_accepted(key) {
                continue;
            }
            let Spec::Gateway(spec) = &object.spec else {
                continue;
            };
            let infrastructure = spec.infrastructure.clone().unwrap_or_default();
            let wanted = Gateway {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                uid: String::new(),
                class: spec.gateway_class_name.clone(),
                labels: infrastructure.labels,
                annotations: infrastructure.annotations,
                doors: self.state.distribution().doors(key),
                address: None,
            };
            let wish = Wish::of(spec);
            let known = written.entry(key.clone()).or_default();
            if known.is_due(&wanted, &template, &wish, now) {
                due.push((key.clone(), wanted, wish));
            } else if let Some(service) = owned.service(key) {
                // What became of its Service may be news.
                self.publish(key, known, &wish, service);
            }
        }
        let work = due.into_iter().map(|(key, wanted, wish)| {
            let template = &template;
            async move {
                let done = self.write(&wanted, template, &wish).await;
                (key, wanted, wish, done)
            }
        });
        let mut work = futures_util::stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some((key, wanted, wish, done)) = work.next().await {
            let known = written.entry(key.clone()).or_default();
            known.wanted = Some((wanted, template.clone(), wish.clone()));
            known.at = Some(Instant::now());
            known.suspect = false;
            match done {
                Ok(Some((service, unusable))) => {
                    known.failures = 0;
                    known.retry = None;
                    known.service_since.get_or_insert_with(Instant::now);
                    known.unusable = unusable;
                    self.publish(&key, known, &wish, &service);
                }
                Ok(None) => {
                    known.failures = 0;
                    known.retry = None;
                }
                Err(failure) => self.failed(&key, known, failure),
            }
        }
        drop(work);
        self.sweep(owned).await;
    }

    fn failed(&self, key: &ObjectKey, known: &mut Written, failure: Failure) {
        let pause = RETRY.0 * 2_u32.saturating_pow(known.failures.min(10));
        known.failures += 1;
        known.retry = Some(Instant::now() + pause.min(RETRY.1));
        let mut reach = self.state.published().find(key).unwrap_or_default();
        let problem = Some(Problem {
            reason: failure.reason,
            message: failure.message,
        });
        if reach.problem != problem {
            if let Some(problem) = &problem {
                tracing::warn!(gateway = %key, "cannot be served: {}", problem.message);
            }
            reach.problem = problem;
            self.state.published().set(key.clone(), Some(reach));
        }
    }

    /// Says where a Gateway can be reached.
    fn publish(&self, key: &ObjectKey, known: &Written, wish: &Wish, service: &Value) {
        let since = known.service_since.unwrap_or_else(Instant::now);
        let kind = self.settings.service_type;
        let reach = address::reach(kind, service, wish, &known.unusable, since.elapsed());
        self.state.published().set(key.clone(), Some(reach));
    }

    /// Brings all objects of a Gateway into being. Returns the Service, and what of the addresses
    /// asked for cannot be had.
    async fn write(
        &self,
        wanted: &Gateway,
        template: &Template,
        wish: &Wish,
    ) -> Result<Option<(Value, Vec<String>)>, Failure> {
        let Some(uid) = self.uid(wanted).await? else {
            // It has gone meanwhile, and what it had goes with it.
            return Ok(None);
        };
        let mut wanted = Gateway {
            uid,
            ..wanted.clone()
        };
        let services = self.api::<Service>(&wanted.namespace);
        let current = self.own(&services, "Service", &wanted).await?;
        let (address, unusable) = match self.settings.service_type {
            ServiceType::ClusterIp => {
                address::cluster_ip(&services, &wanted.generated(), current.as_ref(), wish).await?
            }
            ServiceType::LoadBalancer => (wish.first(), Vec::new()),
        };
        wanted.address = address;
        if let (ServiceType::ClusterIp, Some(address), Some(current)) =
            (self.settings.service_type, address, &current)
            && current.data["spec"]["clusterIP"] != address.to_string()
        {
            // A Service keeps its address as long as it lives.
            let name = wanted.generated();
            call(services.delete(&name, &DeleteParams::default())).await?;
        }
        let objects = wanted.objects(template);
        let accounts = self.api::<ServiceAccount>(&wanted.namespace);
        self.own(&accounts, "ServiceAccount", &wanted).await?;
        self.apply(&accounts, &objects.account).await?;
        let maps = self.api::<ConfigMap>(&wanted.namespace);
        self.own(&maps, "ConfigMap", &wanted).await?;
        self.apply(&maps, &objects.roots).await?;
        let deployments = self.api::<Deployment>(&wanted.namespace);
        self.own(&deployments, "Deployment", &wanted).await?;
        self.apply(&deployments, &objects.deployment).await?;
        let Some(service) = &objects.service else {
            return Ok(None);
        };
        let service = self.apply(&services, service).await?;
        Ok(Some((service.data, unusable)))
    }

    fn api<K>(&self, namespace: &str) -> Api<DynamicObject>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let resource = ApiResource::erase::<K>(&());
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// The Gateway's uid as the API server has it now; `None` if it is not there.
    async fn uid(&self, gateway: &Gateway) -> Result<Option<String>, Failure> {
        let resource = gateways();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &gateway.namespace, &resource);
        let found = call(api.get_metadata_opt(&gateway.name)).await?;
        Ok(found
            .map(|object| object.metadata)
            .filter(|metadata| metadata.deletion_timestamp.is_none())
            .and_then(|metadata| metadata.uid))
    }

    /// The object of a Gateway's name if there is one; an error if it is somebody else's.
    async fn own(
        &self,
        api: &Api<DynamicObject>,
        kind: &str,
        gateway: &Gateway,
    ) -> Result<Option<DynamicObject>, Failure> {
        let name = gateway.generated();
        let Some(found) = call(api.get_opt(&name)).await? else {
            return Ok(None);
        };
        let owners = found.metadata.owner_references.iter().flatten();
        if owners.into_iter().any(|owner| owner.uid == gateway.uid) {
            return Ok(Some(found));
        }
        let going = found
            .metadata
            .owner_references
            .iter()
            .flatten()
            .any(|o| o.kind == "Gateway" && o.name == gateway.name);
        Err(Failure::new(if going {
            format!(
                "{kind} {}/{name} is of an earlier Gateway of this name and is being removed",
                gateway.namespace
            )
        } else {
            format!(
                "there is a {kind} {}/{name} already that does not belong to this Gateway, and it is left as it is: delete or rename it, or give the Gateway another name",
                gateway.namespace
            )
        }))
    }

    async fn apply(
        &self,
        api: &Api<DynamicObject>,
        object: &Value,
    ) -> Result<DynamicObject, Failure> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let parameters = PatchParams::apply(FIELDS).force();
        call(api.patch(name, &parameters, &Patch::Apply(object))).await
    }

    /// Removes what was made for a Gateway under another class than it has now.
    async fn sweep(&self, owned: &Owned) {
        for (kind, namespace, name, gateway) in owned.all() {
            let Some(entry) = self.state.find(gateway) else {
                // It goes with the Gateway.
                continue;
            };
            let Spec::Gateway(spec) = &entry.object.spec else {
                continue;
            };
            let class = &spec.gateway_class_name;
            if self.is_ours(class) && generated_name(&gateway.name, class) == name {
                continue;
            }
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &kind.resource());
            match call(api.delete(name, &DeleteParams::default())).await {
                Ok(_) => tracing::info!(
                    gateway = %gateway, kind = kind.as_str(), name,
                    "removed: the Gateway has another class now"
                ),
                Err(failure) => tracing::warn!(
                    gateway = %gateway, kind = kind.as_str(), name,
                    "cannot be removed: {}", failure.message
                ),
            }
        }
    }

    fn is_ours(&self, class: &str) -> bool {
        let key = ObjectKey::new(ObjectKind::GatewayClass, "", class);
        match self.state.find(&key).as_ref().map(|e| &e.object.spec) {
            Some(Spec::GatewayClass(spec)) => spec.is_ours(),
            _ => class == BUILT_IN,
        }
    }
}

impl Written {
    fn is_due(&self, wanted: &Gateway, template: &Template, wish: &Wish, now: Instant) -> bool {
        if let Some(retry) = self.retry {
            return now >= retry;
        }
        let same = self.wanted.as_ref().is_some_and(|(gateway, with, asked)| {
            gateway == wanted && with == template && asked == wish
        });
        !same || self.suspect || self.at.is_none_or(|at| now >= at + AGAIN)
    }
}

fn gateways() -> ApiResource {
    ApiResource {
        group: config::kind::GATEWAY_GROUP.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{}/v1", config::kind::GATEWAY_GROUP),
        kind: "Gateway".to_owned(),
        plural: "gateways".to_owned(),
    }
}

/// One call to the API server, with a bound and an error for people.
async fn call<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Err(Failure::new(format!(
            "Kubernetes does not allow it: {}; give the control plane's service account the ClusterRole of deploy/kubernetes",
            status.message
        ))),
        Ok(Err(kube::Error::Api(status))) => Err(Failure::new(format!(
            "Kubernetes refuses it: {}",
            status.message
        ))),
        Ok(Err(error)) => Err(Failure::new(format!(
            "the API server cannot be asked: {error}"
        ))),
        Err(_) => Err(Failure::new(format!(
            "the API server did not answer within {} s",
            ANSWER.as_secs()
        ))),
    }
}
