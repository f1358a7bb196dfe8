//! Endpoints.

use model::endpoint::{Endpoint, Health};

use super::field::{
    Invalid, Result, addresses, addresses_to_message, by_port, known, locality,
    locality_to_message, parse, port, tunnel, tunnel_to_message,
};
use crate::proto::v1;

pub(super) fn to_message(endpoint: &Endpoint) -> v1::Endpoint {
    let health = match endpoint.health {
        Health::Healthy => v1::Health::Healthy,
        Health::Unhealthy => v1::Health::Unhealthy,
        Health::Draining => v1::Health::Draining,
    };
    v1::Endpoint {
        service: endpoint.service.to_string(),
        workload: endpoint.workload.to_string(),
        addresses: addresses_to_message(&endpoint.addresses),
        ports: endpoint
            .ports
            .iter()
            .map(|(from, to)| (u32::from(*from), u32::from(*to)))
            .collect(),
        tunnel: tunnel_to_message(endpoint.tunnel),
        identity: endpoint.identity.to_string(),
        health: health.into(),
        weight: endpoint.weight,
        locality: Some(locality_to_message(&endpoint.locality)),
        version: endpoint.version.clone(),
    }
}

pub(super) fn from_message(message: v1::Endpoint) -> Result<Endpoint> {
    if message.weight == 0 {
        return Err(Invalid::new(
            "weight",
            "is 0; an endpoint's weight is at least 1",
        ));
    }
    Ok(Endpoint {
        service: parse("service", &message.service)?,
        workload: parse("workload", &message.workload)?,
        addresses: addresses("addresses", message.addresses)?,
        ports: by_port("ports", message.ports, |number| port("", number))?,
        tunnel: tunnel("tunnel", message.tunnel)?,
        identity: parse("identity", &message.identity)?,
        health: match known("health", message.health)? {
            v1::Health::Healthy => Health::Healthy,
            v1::Health::Unhealthy => Health::Unhealthy,
            v1::Health::Draining => Health::Draining,
        },
        weight: message.weight,
        locality: locality(message.locality),
        version: message.version,
    })
}
