//! What Envoys are given that this control plane feeds: the Gateway that each names itself after.
//!
//! All of it is made from the resources that proxies get, so that an object means the same to both. It
//! is made anew for each node after each change, at a cost in proportion to the Gateway and what it
//! refers to; what comes out as it was is not sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use ::envoy::{Destination, View};
use model::ServiceName;
use model::gateway::GatewayName;
use model::resource::{Kind, Resource, collection_of, collection_of_gateway};
use model::workload::Locality;
use tokio::sync::watch;
use xds::envoy::{Given, Kind as Asked, Source};
use xds::proto::envoy::config::core::v3::Node;
use xds::server::Distributor;

/// Nodes whose warnings are remembered, so that they are said once.
const REMEMBERED: usize = 256;

/// Gateways in Envoy's words.
pub(crate) struct Gateways {
    distributor: Arc<Distributor>,
    /// What was last said of each node.
    said: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Gateways {
    pub(crate) fn new(distributor: Arc<Distributor>) -> Self {
        Self {
            distributor,
            said: Mutex::default(),
        }
    }

    fn view(&self, gateway: &GatewayName) -> View {
        let own = collection_of_gateway(gateway);
        let mut view = View::default();
        for resource in self.distributor.read(Kind::Listener, &own) {
            if let Resource::Listener(listener) = resource {
                view.listeners.push(listener);
            }
        }
        for resource in self.distributor.read(Kind::Route, &own) {
            if let Resource::Route(route) = resource {
                view.routes.push(Arc::new(route));
            }
        }
        for resource in self.distributor.read(Kind::StreamRoute, &own) {
            if let Resource::StreamRoute(route) = resource {
                view.streams.push(Arc::new(route));
            }
        }
        self.untold(&mut view, &own);
        for service in ::envoy::references(&view.routes, &view.streams).into_keys() {
            self.untold(&mut view, &collection_of(&service));
            if let Some(destination) = self.destination(&service) {
                view.destinations.insert(service, destination);
            }
        }
        view
    }

    fn destination(&self, name: &ServiceName) -> Option<Destination> {
        let mut services = self.distributor.read(Kind::Service, &name.to_string());
        let Some(Resource::Service(service)) = services.pop() else {
            return None;
        };
        let own = collection_of(name);
        let endpoints = self.distributor.read(Kind::Endpoint, &own).into_iter();
        let policies = self.distributor.read(Kind::TrafficPolicy, &own).into_iter();
        Some(Destination {
            service,
            endpoints: endpoints
                .filter_map(|resource| match resource {
                    Resource::Endpoint(endpoint) => Some(endpoint),
                    _ => None,
                })
                .collect(),
            policies: policies
                .filter_map(|resource| match resource {
                    Resource::TrafficPolicy(policy) => Some(Arc::new(policy)),
                    _ => None,
                })
                .collect(),
            tls: !self.distributor.read(Kind::BackendTls, &own).is_empty(),
        })
    }

    /// Policies about requests have no form for Envoy.
    fn untold(&self, view: &mut View, collection: &str) {
        for resource in self.distributor.read(Kind::RequestPolicy, collection) {
            if let Resource::RequestPolicy(policy) = resource {
                let kind = policy.effect.kind();
                view.untold.push(format!(
                    "{kind} {}: is not served to Envoy and left out",
                    policy.name
                ));
            }
        }
    }

    fn warn(&self, node: &str, warnings: BTreeSet<String>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= REMEMBERED && !said.contains_key(node) {
            said.clear();
        }
        let before = said.entry(node.to_owned()).or_default();
        for warning in warnings.difference(before) {
            tracing::warn!(node, "{warning}");
        }
        *before = warnings;
    }
}

impl Source for Gateways {
    fn give(&self, node: &Node) -> Result<Given, String> {
        let name = node.id.strip_prefix("gateway/");
        let gateway = name.and_then(|name| name.parse::<GatewayName>().ok());
        let Some(gateway) = gateway else {
            let shown: String = node.id.chars().take(200).collect();
            return Err(format!(
                "node.id \"{shown}\" names no Gateway; an Envoy of Gateway web in namespace shop has the node.id gateway/shop/web"
            ));
        };
        let mut view = self.view(&gateway);
        if let Some(place) = &node.locality {
            view.locality = Locality {
                region: place.region.clone(),
                zone: place.zone.clone(),
            };
        }
        let made = ::envoy::resources(&view);
        self.warn(&node.id, made.warnings);
        let all = [
            (Asked::Cluster, made.clusters),
            (Asked::Endpoints, made.endpoints),
            (Asked::Listener, made.listeners),
            (Asked::Routes, made.routes),
        ];
        let given = all.into_iter().flat_map(|(kind, named)| {
            named
                .into_iter()
                .map(move |(name, bytes)| (kind, name.into(), bytes))
        });
        Ok(given.collect())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.distributor.applied()
    }
}
