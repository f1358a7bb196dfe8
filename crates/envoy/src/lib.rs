//! Standard Envoy resources from Tulle's model: what one Gateway is, in the words of LDS, RDS, CDS and
//! EDS (Envoy API v3).
//!
//! Pure: a [`View`] of the model goes in, [`Resources`] and warnings come out, the same for the same
//! view. Which route takes a request is not decided anew: `policy` puts matches in their order, and
//! Envoy, which takes the first, gets them in that order. What Envoy cannot express is left out with a
//! warning, so that it is never silently something else; docs/envoy.md lists the differences.
//!
//! It does not know who asks, or how resources travel (`xds`).
#![forbid(unsafe_code)]

mod certificate;
mod cluster;
mod listener;
pub mod proto;
mod retry;
mod route;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::ServiceName;
use model::endpoint::Endpoint;
use model::gateway::{Listener, StreamRoute};
use model::route::{Filter, Route, Target};
use model::service::Service;
use model::traffic::TrafficPolicy;
use model::workload::Locality;

/// What is to be said of one Gateway.
#[derive(Debug, Default)]
pub struct View {
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// The routes that are attached to it.
    pub routes: Vec<Arc<Route>>,
    /// Those for connections and datagrams.
    pub streams: Vec<Arc<StreamRoute>>,
    /// What they refer to, as far as it is there.
    pub destinations: BTreeMap<ServiceName, Destination>,
    /// Where the Envoy is that asks.
    pub locality: Locality,
    /// What else there is about its requests that Envoy is not told: for a warning.
    pub untold: Vec<String>,
}

/// A service with all that belongs to it.
#[derive(Debug)]
pub struct Destination {
    /// The service.
    pub service: Service,
    /// Who serves it.
    pub endpoints: Vec<Endpoint>,
    /// How they are reached.
    pub policies: Vec<Arc<TrafficPolicy>>,
    /// Whether TLS is asked of them (`BackendTLSPolicy`).
    pub tls: bool,
}

/// Encoded messages by name.
pub type Named = BTreeMap<String, Vec<u8>>;

/// What an Envoy is given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `envoy.config.listener.v3.Listener`.
    pub listeners: Named,
    /// `envoy.config.route.v3.RouteConfiguration`.
    pub routes: Named,
    /// `envoy.config.cluster.v3.Cluster`.
    pub clusters: Named,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    pub endpoints: Named,
    /// What is left out, and why.
    pub warnings: BTreeSet<String>,
}

/// The services that routes refer to, and the ports of each.
pub fn references(
    routes: &[Arc<Route>],
    streams: &[Arc<StreamRoute>],
) -> BTreeMap<ServiceName, BTreeSet<u16>> {
    let mut found: BTreeMap<ServiceName, BTreeSet<u16>> = BTreeMap::new();
    let mut note = |target: &Target| {
        if let Target::Service { name, port } = target {
            found.entry(name.clone()).or_default().insert(*port);
        }
    };
    for rule in routes.iter().flat_map(|route| &route.rules) {
        let of_backends = rule.backends.iter().flat_map(|backend| &backend.filters);
        for filter in rule.filters.iter().chain(of_backends) {
            if let Filter::Mirror(mirror) = filter {
                note(&mirror.target);
            }
        }
        for backend in &rule.backends {
            note(&backend.target);
        }
    }
    for backend in streams.iter().flat_map(|route| &route.backends) {
        note(&backend.target);
    }
    found
}

/// The resources of a Gateway.
pub fn resources(view: &View) -> Resources {
    let mut made = Resources::default();
    made.warnings.extend(view.untold.iter().cloned());
    for (service, ports) in references(&view.routes, &view.streams) {
        let Some(destination) = view.destinations.get(&service) else {
            continue;
        };
        for port in ports {
            cluster::add(&mut made, destination, port, &view.locality);
        }
    }
    listener::add(&mut made, view);
    made
}

#[cfg(test)]
mod tests;
