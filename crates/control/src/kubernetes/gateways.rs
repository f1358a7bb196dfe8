//! Gateways on Kubernetes: for each of our class, or for all of a class that share a proxy, a
//! ServiceAccount, the mesh's roots, a Deployment and a Service (GEP-1762).
//!
//! [`objects`] says what is to be there; this writes it by server-side apply, so that what somebody
//! changes is put right and what they add stays. Only the holder of the Lease writes. An object of
//! the name that is not the Gateway's is not touched, and said in the Gateway's status. A Gateway
//! that is refused keeps what it had: its last good state goes on serving.

mod address;
mod objects;
mod owned;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use config::kind::gateway_class::BUILT_IN;
use config::{ObjectKey, ObjectKind, Spec};
use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::address::Wish;
use self::objects::{Gateway, Template};
use self::owned::{News, Owned};
use crate::gateways::{Unit, generated_name};
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

/// What is remembered of what was written for.
#[derive(Debug, Default)]
struct Written {
    /// The Gateways that it serves.
    gateways: Vec<ObjectKey>,
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
        // By the object that owns what was written.
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
        if let Some(owner) = owned.take(event)
            && let Some(known) = written.get_mut(&owner)
        {
            known.suspect = true;
        }
    }

    /// When something is due even if nothing happens.
    fn next_look(&self, written: &HashMap<ObjectKey, Written>) -> Instant {
        let soon = written.values().filter_map(|w| {
            let waits = w.gateways.iter().any(|key| {
                let problem = self.state.published().find(key).and_then(|r| r.problem);
                problem.is_some_and(|p| p.reason == "AddressNotAssigned")
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
        self.regroup(written);
        let now = Instant::now();
        let mut due = Vec::new();
        for (unit, gateways) in Unit::all(&self.state) {
            let (owner, wanted, wish) = self.wanted(unit, &gateways);
            let known = written.entry(owner.clone()).or_default();
            known.gateways = gateways;
            if known.is_due(&wanted, &template, &wish, now) {
                due.push((owner, wanted, wish));
            } else if let Some(service) = owned.service(&owner) {
                // What became of its Service may be news.
                self.publish(known, &wish, service);
            }
        }
        let work = due.into_iter().map(|(owner, wanted, wish)| {
            let template = &template;
            async move {
                let done = self.write(&wanted, template, &wish).await;
                (owner, wanted, wish, done)
            }
        });
        let mut work = futures_util::stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some((owner, wanted, wish, done)) = work.next().await {
            let known = written.entry(owner).or_default();
            known.wanted = Some((wanted, template.clone(), wish.clone()));
            known.at = Some(Instant::now());
            known.suspect = false;
            match done {
                Ok(Some((service, unusable))) => {
                    known.failures = 0;
                    known.retry = None;
                    known.service_since.get_or_insert_with(Instant::now);
                    known.unusable = unusable;
                    self.publish(known, &wish, &service);
                }
                Ok(None) => {
                    known.failures = 0;
                    known.retry = None;
                }
                Err(failure) => self.failed(known, &failure),
            }
        }
        drop(work);
        self.sweep(owned).await;
    }

    /// Forgets what has gone, and what is served elsewhere now. A Gateway that is refused keeps what
    /// it had.
    fn regroup(&self, written: &mut HashMap<ObjectKey, Written>) {
        let mut owners: HashMap<ObjectKey, ObjectKey> = HashMap::new();
        for entry in self.state.list(ObjectKind::Gateway, None) {
            if let Some(unit) = Unit::of(&entry.object, &self.state) {
                owners.insert(entry.object.key.clone(), unit.owner());
            }
        }
        for (owner, known) in written.iter_mut() {
            known.gateways.retain(|gateway| {
                let stays = owners.get(gateway) == Some(owner);
                if !stays {
                    self.state.published().set(gateway.clone(), None);
                }
                stays
            });
        }
        written.retain(|_, known| !known.gateways.is_empty());
    }

    /// What is to be there for some Gateways, and the addresses that they ask for.
    fn wanted(&self, unit: Unit, gateways: &[ObjectKey]) -> (ObjectKey, Gateway, Wish) {
        let mut wanted = Gateway {
            unit,
            uid: String::new(),
            class: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            doors: Vec::new(),
            address: None,
        };
        let mut wish = Wish::default();
        for key in gateways {
            let entry = self.state.find(key);
            let Some(Spec::Gateway(spec)) = entry.as_ref().map(|entry| &entry.object.spec) else {
                continue;
            };
            wanted.class.clone_from(&spec.gateway_class_name);
            wanted.doors.extend(self.state.distribution().doors(key));
            wish.add(spec);
            if let (Unit::Gateway(_), Some(infrastructure)) = (&wanted.unit, &spec.infrastructure) {
                wanted.labels.clone_from(&infrastructure.labels);
                wanted.annotations.clone_from(&infrastructure.annotations);
            }
        }
        (wanted.unit.owner(), wanted, wish)
    }

    fn failed(&self, known: &mut Written, failure: &Failure) {
        let pause = RETRY.0 * 2_u32.saturating_pow(known.failures.min(10));
        known.failures += 1;
        known.retry = Some(Instant::now() + pause.min(RETRY.1));
        for key in &known.gateways {
            let mut reach = self.state.published().find(key).unwrap_or_default();
            let problem = Problem {
                reason: failure.reason,
                message: failure.message.clone(),
            };
            if reach.problem.as_ref() != Some(&problem) {
                tracing::warn!(gateway = %key, "cannot be served: {}", problem.message);
                reach.problem = Some(problem);
                self.state.published().set(key.clone(), Some(reach));
            }
        }
    }

    /// Says where Gateways can be reached.
    fn publish(&self, known: &Written, wish: &Wish, service: &Value) {
        let since = known.service_since.unwrap_or_else(Instant::now);
        let kind = self.settings.service_type;
        let reach = address::reach(kind, service, wish, &known.unusable, since.elapsed());
        for key in &known.gateways {
            self.state.published().set(key.clone(), Some(reach.clone()));
        }
    }

    /// Brings all objects of a proxy into being. Returns the Service, and what of the addresses
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
        let services = self.api::<Service>(wanted.namespace());
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
        let accounts = self.api::<ServiceAccount>(wanted.namespace());
        self.own(&accounts, "ServiceAccount", &wanted).await?;
        self.apply(&accounts, &objects.account).await?;
        let maps = self.api::<ConfigMap>(wanted.namespace());
        self.own(&maps, "ConfigMap", &wanted).await?;
        self.apply(&maps, &objects.roots).await?;
        let deployments = self.api::<Deployment>(wanted.namespace());
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

    /// The owner's uid as the API server has it now; `None` if it is not there.
    async fn uid(&self, gateway: &Gateway) -> Result<Option<String>, Failure> {
        let owner = gateway.unit.owner();
        let resource = owners(owner.kind);
        let client = self.client.clone();
        let api: Api<DynamicObject> = match &gateway.unit {
            Unit::Gateway(key) => Api::namespaced_with(client, &key.namespace, &resource),
            Unit::Class(_) => Api::all_with(client, &resource),
        };
        let found = call(api.get_metadata_opt(&owner.name)).await?;
        Ok(found
            .map(|object| object.metadata)
            .filter(|metadata| metadata.deletion_timestamp.is_none())
            .and_then(|metadata| metadata.uid))
    }

    /// The object of a name if there is one; an error if it is somebody else's.
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
        let owners: Vec<_> = found.metadata.owner_references.iter().flatten().collect();
        if owners.iter().any(|owner| owner.uid == gateway.uid) {
            return Ok(Some(found));
        }
        let own = gateway.unit.owner();
        let going =
            |owner: &&&OwnerReference| owner.kind == own.kind.as_str() && owner.name == *own.name;
        let namespace = gateway.namespace();
        Err(Failure::new(if owners.iter().any(|owner| going(&owner)) {
            format!(
                "{kind} {namespace}/{name} is of an earlier {} of this name and is being removed",
                own.kind
            )
        } else {
            format!(
                "there is a {kind} {namespace}/{name} already that does not belong to this {kind_of_owner}, and it is left as it is: delete or rename it, or give the {kind_of_owner} another name",
                kind_of_owner = own.kind,
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

    /// Removes what was made for a Gateway under another class than it has now, or for a class whose
    /// Gateways share a proxy no more.
    async fn sweep(&self, owned: &Owned) {
        let units = Unit::all(&self.state);
        for (kind, namespace, name, owner) in owned.all() {
            let Some(entry) = self.state.find(owner) else {
                // It goes with its owner.
                continue;
            };
            let stays = match &entry.object.spec {
                Spec::Gateway(spec) => {
                    let class = &spec.gateway_class_name;
                    self.is_ours(class)
                        && !Unit::is_merged(class, &self.state)
                        && generated_name(&owner.name, class) == name
                }
                _ => units.contains_key(&Unit::Class(owner.name.to_string())),
            };
            if stays {
                continue;
            }
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &kind.resource());
            match call(api.delete(name, &DeleteParams::default())).await {
                Ok(_) => tracing::info!(
                    %owner, kind = kind.as_str(), name,
                    "removed: it is served otherwise now"
                ),
                Err(failure) => tracing::warn!(
                    %owner, kind = kind.as_str(), name,
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

/// Where Gateways and their classes are asked for.
fn owners(kind: ObjectKind) -> ApiResource {
    ApiResource {
        group: config::kind::GATEWAY_GROUP.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{}/v1", config::kind::GATEWAY_GROUP),
        kind: kind.as_str().to_owned(),
        plural: match kind {
            ObjectKind::GatewayClass => "gatewayclasses".to_owned(),
            _ => "gateways".to_owned(),
        },
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
