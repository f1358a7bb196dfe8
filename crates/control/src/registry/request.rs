//! What a registration asks for, checked, and the objects that it becomes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use config::{Object, ObjectKind, Spec};
use model::name::{DEFAULT_NAMESPACE, is_label};
use model::service::Protocol;
use serde_json::json;
use tokio::time::Instant;
use xds::proto::v1::{self, Mode, RegisterRequest};

use super::{
    FIRST_TOKEN_TTL, LEASE, Live, LiveLease, MAX_LEASES, Registered, Registry, RegistryError,
    Right, workload_key,
};
use crate::address::Pool;
use crate::authority::{Authority, TokenError};
use crate::change::{Also, Change, ChangeSet, OnConflict, Origin};
use crate::state::now;
use crate::store::lease::Lease;

/// The label of objects that nobody wrote.
const MANAGED_BY: &str = "tulle.dev/managed-by";
/// The name of a workload's first port where it was given none.
const FIRST_PORT: &str = "default";
const MAX_PORTS: usize = 100;
const MAX_LABELS: usize = 100;

/// A registration that makes sense by itself.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) service: String,
    pub(super) namespace: String,
    pub(super) account: String,
    pub(super) instance: Option<String>,
    pub(super) transparent: bool,
    labels: BTreeMap<String, String>,
    ports: Vec<Port>,
    tunnel_port: u16,
    region: String,
    zone: String,
}

#[derive(Debug, Clone)]
struct Port {
    name: String,
    number: u16,
    protocol: Protocol,
}

fn invalid(message: impl Into<String>) -> RegistryError {
    RegistryError::Invalid(message.into())
}

fn label(what: &str, text: &str) -> Result<String, RegistryError> {
    if is_label(text) {
        return Ok(text.to_owned());
    }
    Err(invalid(format!(
        "{what} \"{}\": use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit",
        text.chars().take(80).collect::<String>()
    )))
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

impl Wanted {
    pub(super) fn read(request: RegisterRequest) -> Result<Self, RegistryError> {
        let service = label("service", &request.service)?;
        let namespace = label("namespace", or(&request.namespace, DEFAULT_NAMESPACE))?;
        let account = label("service account", or(&request.service_account, &service))?;
        let instance = request
            .instance
            .as_deref()
            .filter(|i| !i.is_empty())
            .map(|i| label("instance", i))
            .transpose()?;
        let transparent = match request.mode() {
            Mode::Explicit => false,
            Mode::Transparent => true,
            Mode::Unspecified => return Err(invalid("mode: must be explicit or transparent")),
        };
        if request.ports.len() > MAX_PORTS || request.labels.len() > MAX_LABELS {
            return Err(invalid(format!(
                "at most {MAX_PORTS} ports and {MAX_LABELS} labels"
            )));
        }
        let mut labels: BTreeMap<_, _> = request.labels.into_iter().collect();
        labels
            .entry("app".to_owned())
            .or_insert_with(|| service.clone());
        let locality = request.locality.unwrap_or_default();
        Ok(Self {
            ports: ports(request.ports)?,
            tunnel_port: port_number("tunnel port", request.tunnel_port)?,
            region: locality.region,
            zone: locality.zone,
            service,
            namespace,
            account,
            instance,
            transparent,
            labels,
        })
    }

    /// The workload as an object, checked like one that a user wrote.
    fn workload(&self, name: &str, addresses: &[IpAddr]) -> Result<Object, RegistryError> {
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|port| {
                with_protocol(
                    json!({"name": port.name, "port": port.number}),
                    port.protocol,
                )
            })
            .collect();
        let (address, further) = match addresses.split_first() {
            Some((first, rest)) => (Some(first), rest),
            None => (None, addresses),
        };
        object(&json!({
            "apiVersion": ObjectKind::Workload.api_version(),
            "kind": "Workload",
            "metadata": {"name": name, "namespace": self.namespace, "labels": self.labels},
            "spec": {
                "address": address, "addresses": further, "ports": ports,
                "serviceAccount": self.account,
                "locality": {"region": self.region, "zone": self.zone},
                "tunnel": {"port": self.tunnel_port},
                "ready": false,
            },
        }))
    }

    /// The service that nobody wrote: port 80 for the first port, and each port by its number.
    fn service(&self) -> Result<Option<Object>, RegistryError> {
        let Some(first) = self.ports.first() else {
            return Ok(None);
        };
        let mut ports = Vec::new();
        if self.ports.iter().all(|p| p.number != 80) {
            // By name: other instances may serve it on another number, as on one loopback they must.
            let port = json!({"name": FIRST_PORT, "port": 80, "targetPort": first.name});
            ports.push(with_protocol(port, first.protocol));
        }
        for port in &self.ports {
            let name = format!("p{}", port.number);
            let json = json!({"name": name, "port": port.number, "targetPort": port.number});
            ports.push(with_protocol(json, port.protocol));
        }
        let app = &self.labels["app"];
        object(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.service, "namespace": self.namespace,
                "labels": {MANAGED_BY: "registry"},
            },
            "spec": {"selector": {"app": app}, "ports": ports},
        }))
        .map(Some)
    }
}

fn ports(given: Vec<v1::Port>) -> Result<Vec<Port>, RegistryError> {
    let mut ports: Vec<Port> = Vec::with_capacity(given.len());
    for port in given {
        let protocol = match port.protocol() {
            v1::Protocol::Detect => Protocol::Detect,
            v1::Protocol::Http => Protocol::Http,
            v1::Protocol::Http2 => Protocol::Http2,
            v1::Protocol::Grpc => Protocol::Grpc,
            v1::Protocol::Tls => Protocol::Tls,
            v1::Protocol::Tcp => Protocol::Tcp,
        };
        let number = port_number("port", port.number)?;
        if ports.iter().any(|p| p.number == number) {
            return Err(invalid(format!("port {number} is there twice")));
        }
        let name = match port.name.as_str() {
            "" if ports.is_empty() => FIRST_PORT.to_owned(),
            "" => format!("p{number}"),
            name => label("port name", name)?,
        };
        ports.push(Port {
            name,
            number,
            protocol,
        });
    }
    Ok(ports)
}

fn port_number(what: &str, number: u32) -> Result<u16, RegistryError> {
    u16::try_from(number)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| invalid(format!("{what} {number}: must be from 1 to 65535")))
}

fn with_protocol(mut port: serde_json::Value, protocol: Protocol) -> serde_json::Value {
    if protocol != Protocol::Detect {
        port["appProtocol"] = protocol.as_str().into();
    }
    port
}

fn object(json: &serde_json::Value) -> Result<Object, RegistryError> {
    let mut parsed = config::parse("registration", &json.to_string());
    if let Some(error) = parsed.diagnostics.iter().find(|d| d.is_error()) {
        return Err(invalid(format!("{}: {}", error.field, error.message)));
    }
    match parsed.objects.pop() {
        Some(object) => Ok(object),
        None => Err(invalid("the registration makes no object")),
    }
}

/// Whether `right` covers what is wanted.
pub(super) fn allowed(right: &Right, wanted: &Wanted) -> Result<(), RegistryError> {
    let want = format!("{}/{}", wanted.namespace, wanted.account);
    match right {
        Right::Local(_) => Ok(()),
        Right::Svid(id) => {
            let own = id.service_account();
            if own == Some((&wanted.namespace, &wanted.account)) {
                return Ok(());
            }
            Err(RegistryError::Denied(format!(
                "{id} may register only as itself, not as service account {want}"
            )))
        }
        Right::Token(token) => {
            let allowed = format!("{}/{}", token.namespace, token.service_account);
            if allowed == want {
                return Ok(());
            }
            Err(TokenError::Scope {
                allowed: format!("service account {allowed}"),
                wanted: want,
            }
            .into())
        }
    }
}

impl Registry {
    /// Makes the workload known.
    pub(super) async fn register(
        &self,
        right: Right,
        wanted: Wanted,
        peer: Option<IpAddr>,
    ) -> Result<Registered, RegistryError> {
        let _changing = self.0.changing.lock().await;
        let identity = self
            .0
            .authority
            .identity(&wanted.namespace, &wanted.account)
            .map_err(|status| invalid(status.message()))?;
        let (name, before) = self.name(&wanted, identity.as_str())?;
        let workload = format!("{}/{name}", wanted.namespace);
        let place = if wanted.transparent {
            let mut live = self.lock();
            Some(live.addresses.allot(Pool::Workloads, &workload)?)
        } else {
            None
        };
        let addresses = addresses(place, peer);
        let lease = Lease {
            workload: workload.clone(),
            identity: identity.to_string(),
            mode: if wanted.transparent {
                "transparent"
            } else {
                "explicit"
            }
            .to_owned(),
            ready: false,
            created: before.as_ref().map_or_else(now, |l| l.lease.created),
            token_hash: match &right {
                Right::Token(token) => Some(token.hash.clone()),
                _ => before.and_then(|l| l.lease.token_hash),
            },
        };
        let written = self
            .write(&right, &wanted, &name, &addresses, lease.clone(), place)
            .await;
        let join_token = match written {
            Ok(token) => token,
            Err(error) => {
                let mut live = self.lock();
                if !live.leases.contains_key(&workload) {
                    live.addresses.release(&workload);
                }
                return Err(error);
            }
        };
        let entry = LiveLease {
            lease,
            until: Instant::now() + LEASE,
            seen: Some(SystemTime::now()),
            proxy_ports: BTreeMap::new(),
        };
        self.lock().leases.insert(workload.clone(), entry);
        tracing::info!(workload, %identity, ?addresses, "workload registered");
        Ok(Registered {
            workload,
            identity,
            place,
            join_token,
        })
    }

    /// The workload's name, and its lease if it has one already.
    fn name(
        &self,
        wanted: &Wanted,
        identity: &str,
    ) -> Result<(String, Option<LiveLease>), RegistryError> {
        let live = self.lock();
        let taken = |name: &str| {
            live.leases
                .contains_key(&format!("{}/{name}", wanted.namespace))
                || workload_key(&format!("{}/{name}", wanted.namespace))
                    .is_some_and(|key| self.0.state.find(&key).is_some())
        };
        if let Some(name) = &wanted.instance {
            let workload = format!("{}/{name}", wanted.namespace);
            let before = live.leases.get(&workload).cloned();
            match &before {
                Some(lease) if lease.lease.identity != identity => {
                    return Err(RegistryError::Taken(format!(
                        "workload {workload} is registered as {}; choose another instance name",
                        lease.lease.identity
                    )));
                }
                None => full(&live)?,
                Some(_) => {}
            }
            return Ok((name.clone(), before));
        }
        full(&live)?;
        // 63 bytes at most, with the suffix.
        let stem: String = wanted.service.chars().take(56).collect();
        let stem = stem.trim_end_matches('-');
        let mut name = format!("{stem}-{}", suffix());
        while taken(&name) {
            name = format!("{stem}-{}", suffix());
        }
        Ok((name, None))
    }

    /// Commits service, workload, lease and token; returns the token.
    async fn write(
        &self,
        right: &Right,
        wanted: &Wanted,
        name: &str,
        addresses: &[IpAddr],
        lease: Lease,
        place: Option<u32>,
    ) -> Result<String, RegistryError> {
        let object = wanted.workload(name, addresses)?;
        let owner = self.0.state.find(&object.key).map(|entry| entry.origin);
        if let Some(owner) = owner.filter(|o| *o != Origin::Registry) {
            return Err(RegistryError::Taken(format!(
                "{} exists already and belongs to {owner}; choose another instance name",
                object.key
            )));
        }
        let who = match right {
            Right::Local(uid) => format!("uid:{uid}"),
            Right::Svid(id) => id.to_string(),
            Right::Token(token) => format!("token:{}", token.id),
        };
        if !self.is_selected(&object)
            && let Some(service) = wanted.service()?
        {
            let set = ChangeSet {
                changes: vec![Change::Put {
                    object: Arc::new(service),
                    origin: Origin::Registry,
                }],
                who: who.clone(),
                // Somebody who wrote one of this name in the meantime knows better.
                on_conflict: OnConflict::Skip,
                ..ChangeSet::default()
            };
            self.0.state.apply(set).await?;
        }
        let (join_token, record) = self
            .0
            .authority
            .make_token(&wanted.namespace, &wanted.account, FIRST_TOKEN_TTL, &who)
            .map_err(TokenError::from)?;
        let mut also = vec![Also::Lease { lease, place }, Also::Token(record)];
        if let Right::Token(token) = right {
            also.push(Authority::spending(&token.id, &who));
        }
        let set = ChangeSet {
            changes: vec![Change::Put {
                object: Arc::new(object),
                origin: Origin::Registry,
            }],
            who,
            also,
            ..ChangeSet::default()
        };
        self.0.state.apply(set).await?;
        Ok(join_token.to_string())
    }

    /// Whether some service has the workload behind it.
    fn is_selected(&self, workload: &Object) -> bool {
        let namespace = Some(&*workload.key.namespace);
        let labels = &workload.metadata.labels;
        self.0
            .state
            .list(ObjectKind::Service, namespace)
            .iter()
            .any(|entry| match &entry.object.spec {
                Spec::Service(spec) => {
                    let selector = &spec.selector;
                    !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
                }
                _ => false,
            })
    }
}

fn full(live: &Live) -> Result<(), RegistryError> {
    if live.leases.len() >= MAX_LEASES {
        return Err(RegistryError::Full);
    }
    Ok(())
}

/// In transparent mode the mesh's own; otherwise the host's, as it is seen from here.
fn addresses(place: Option<u32>, peer: Option<IpAddr>) -> Vec<IpAddr> {
    match (place, peer) {
        (Some(place), _) => {
            let (v4, v6) = Pool::Workloads.at(place);
            vec![IpAddr::V4(v4), IpAddr::V6(v6)]
        }
        (None, Some(ip)) if !ip.is_loopback() => vec![ip.to_canonical()],
        (None, _) => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
    }
}

/// Five characters that cannot be mistaken for one another or make a word.
fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5)
        .map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]))
        .collect()
}
