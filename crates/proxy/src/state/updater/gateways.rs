//! The updater's part that is about Gateways: their listeners, and the routes of those.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use model::gateway::{GatewayName, Listener, StreamRoute};
use model::request::{self, RequestPolicy};
use model::resource::{Key, Kind, Resource, collection_of_gateway, gateway_of};
use model::route::Route;
use xds::client::Handle;

use crate::gateway::{Inputs, Listeners};

/// A Gateway is complete when each of these has been answered.
const PARTS: [Kind; 3] = [Kind::RequestPolicy, Kind::Route, Kind::StreamRoute];

/// What is known of Gateways.
#[derive(Default)]
pub(super) struct Gateways {
    listeners: BTreeMap<Key, Arc<Listener>>,
    routes: BTreeMap<Key, Arc<Route>>,
    streams: BTreeMap<Key, Arc<StreamRoute>>,
    policies: BTreeMap<Key, Arc<RequestPolicy>>,
    /// Those that have listeners, and what of their routes has been answered.
    answered: HashMap<GatewayName, HashSet<Kind>>,
    /// Whether it has been answered which listeners there are.
    known: bool,
}

impl Gateways {
    /// Takes in a resource, or that it is gone; whether it has to do with Gateways.
    pub(super) fn note(&mut self, handle: &Handle, key: &Key, resource: Option<&Resource>) -> bool {
        match resource {
            Some(Resource::Listener(listener)) => {
                self.want(handle, &listener.gateway);
                let listener = Arc::new(listener.clone());
                self.listeners.insert(key.clone(), listener);
            }
            Some(Resource::Route(route)) if route.parent.gateway().is_some() => {
                self.routes.insert(key.clone(), Arc::new(route.clone()));
            }
            Some(Resource::StreamRoute(route)) => {
                self.streams.insert(key.clone(), Arc::new(route.clone()));
            }
            Some(Resource::RequestPolicy(policy))
                if matches!(policy.parent, request::Parent::Gateway(_)) =>
            {
                self.policies.insert(key.clone(), Arc::new(policy.clone()));
            }
            Some(_) => {}
            None => {
                self.streams.remove(key);
                self.policies.remove(key);
                self.listeners.remove(key);
                self.routes.remove(key);
            }
        }
        if key.kind == Kind::Listener {
            self.known = true;
            return true;
        }
        let Some(gateway) = gateway_of(&key.name) else {
            return false;
        };
        if let Some(answered) = self.answered.get_mut(&gateway) {
            answered.insert(key.kind);
        }
        true
    }

    /// Whether all is known of all Gateways.
    pub(super) fn are_complete(&self) -> bool {
        let complete = |answered: &HashSet<Kind>| PARTS.iter().all(|p| answered.contains(p));
        self.known && self.answered.values().all(complete)
    }

    fn want(&mut self, handle: &Handle, name: &GatewayName) {
        if self.answered.contains_key(name) {
            return;
        }
        self.answered.insert(name.clone(), HashSet::new());
        for kind in PARTS {
            handle.subscribe(kind, &collection_of_gateway(name));
        }
    }

    /// All listeners with their routes. Gateways without listeners are forgotten.
    pub(super) fn compile(&mut self, handle: &Handle, before: &Listeners) -> Listeners {
        let listeners: Vec<Arc<Listener>> = self.listeners.values().cloned().collect();
        let served = |name: &GatewayName| listeners.iter().any(|l| l.gateway == *name);
        let gone: Vec<GatewayName> = self
            .answered
            .keys()
            .filter(|name| !served(name))
            .cloned()
            .collect();
        for name in gone {
            self.answered.remove(&name);
            for kind in PARTS {
                handle.unsubscribe(kind, &collection_of_gateway(&name));
            }
        }
        let routes: Vec<Arc<Route>> = self.routes.values().cloned().collect();
        let streams: Vec<Arc<StreamRoute>> = self.streams.values().cloned().collect();
        let policies: Vec<Arc<RequestPolicy>> = self.policies.values().cloned().collect();
        let inputs = Inputs {
            listeners: &listeners,
            routes: &routes,
            streams: &streams,
            policies: &policies,
        };
        Listeners::compile(&inputs, before)
    }
}
