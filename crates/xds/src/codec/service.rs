//! Services.

use model::service::{Port, Service};

use super::field::{Invalid, Result, addresses, addresses_to_message, each, parse, twice};
use super::workload::{port_from_message, port_to_message};
use crate::proto::v1;

pub(super) fn to_message(service: &Service) -> v1::Service {
    v1::Service {
        name: service.name.to_string(),
        addresses: addresses_to_message(&service.addresses),
        ports: service
            .ports
            .iter()
            .map(|port| port_to_message(&port.name, port.number, port.protocol))
            .collect(),
        headless: service.headless,
        near: service.near,
    }
}

pub(super) fn from_message(message: v1::Service) -> Result<Service> {
    let ports = each("ports", message.ports, |message| {
        let (name, number, protocol) = port_from_message(message)?;
        Ok(Port {
            name,
            number,
            protocol,
        })
    })?;
    if let Some(number) = twice(ports.iter().map(|port| port.number)) {
        return Err(Invalid::new(
            "ports",
            format!("port {number} is there twice"),
        ));
    }
    Ok(Service {
        name: parse("name", &message.name)?,
        addresses: addresses("addresses", message.addresses)?,
        ports,
        headless: message.headless,
        near: message.near,
    })
}
