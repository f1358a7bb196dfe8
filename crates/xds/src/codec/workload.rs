//! Workloads.

use model::service::Protocol;
use model::workload::{Mtls, MtlsMode, PortLimits, Workload, WorkloadPort};

use super::field::{
    Result, Within, addresses, addresses_to_message, by_port, each, known, locality,
    locality_to_message, parse, port, required, tunnel, tunnel_to_message,
};
use super::request;
use crate::proto::v1;

pub(super) fn to_message(workload: &Workload) -> v1::Workload {
    v1::Workload {
        name: workload.name.to_string(),
        addresses: addresses_to_message(&workload.addresses),
        ports: workload
            .ports
            .iter()
            .map(|port| port_to_message(&port.name, port.number, port.protocol))
            .collect(),
        identity: workload.identity.to_string(),
        labels: workload.labels.clone(),
        locality: Some(locality_to_message(&workload.locality)),
        tunnel: tunnel_to_message(workload.tunnel),
        mtls: Some(v1::Mtls {
            mode: mode_to_message(workload.mtls.mode).into(),
            ports: workload
                .mtls
                .ports
                .iter()
                .map(|(port, mode)| (u32::from(*port), mode_to_message(*mode).into()))
                .collect(),
        }),
        limits: workload.limits.iter().map(limits_to_message).collect(),
    }
}

fn limits_to_message(limits: &PortLimits) -> v1::PortLimits {
    v1::PortLimits {
        policy: limits.policy.to_string(),
        service: limits.service.to_string(),
        ports: limits.ports.iter().map(|port| u32::from(*port)).collect(),
        limits: Some(request::limits_to_message(&limits.limits)),
    }
}

fn limits(message: v1::PortLimits) -> Result<PortLimits> {
    Ok(PortLimits {
        policy: parse("policy", &message.policy)?,
        service: parse("service", &message.service)?,
        ports: each("ports", message.ports, |number| port("", number))?,
        limits: request::limits(required("limits", message.limits)?).within("limits")?,
    })
}

pub(super) fn from_message(message: v1::Workload) -> Result<Workload> {
    Ok(Workload {
        name: parse("name", &message.name)?,
        addresses: addresses("addresses", message.addresses)?,
        ports: each("ports", message.ports, |message| {
            let (name, number, protocol) = port_from_message(message)?;
            Ok(WorkloadPort {
                name,
                number,
                protocol,
            })
        })?,
        identity: parse("identity", &message.identity)?,
        labels: message.labels,
        locality: locality(message.locality),
        tunnel: tunnel("tunnel", message.tunnel)?,
        mtls: message
            .mtls
            .map(mtls)
            .transpose()
            .within("mtls")?
            .unwrap_or_default(),
        limits: each("limits", message.limits, limits)?,
    })
}

fn mtls(message: v1::Mtls) -> Result<Mtls> {
    Ok(Mtls {
        mode: mode_from_message("mode", message.mode)?,
        ports: by_port("ports", message.ports, |mode| mode_from_message("", mode))?,
    })
}

pub(super) fn mode_to_message(mode: MtlsMode) -> v1::MtlsMode {
    match mode {
        MtlsMode::Strict => v1::MtlsMode::Strict,
        MtlsMode::Permissive => v1::MtlsMode::Permissive,
        MtlsMode::Disable => v1::MtlsMode::Disable,
    }
}

pub(super) fn mode_from_message(field: &str, mode: i32) -> Result<MtlsMode> {
    Ok(match known(field, mode)? {
        v1::MtlsMode::Strict => MtlsMode::Strict,
        v1::MtlsMode::Permissive => MtlsMode::Permissive,
        v1::MtlsMode::Disable => MtlsMode::Disable,
    })
}

pub(super) fn port_to_message(name: &str, number: u16, protocol: Protocol) -> v1::Port {
    let protocol = match protocol {
        Protocol::Detect => v1::Protocol::Detect,
        Protocol::Http => v1::Protocol::Http,
        Protocol::Http2 => v1::Protocol::Http2,
        Protocol::Grpc => v1::Protocol::Grpc,
        Protocol::Tls => v1::Protocol::Tls,
        Protocol::Tcp => v1::Protocol::Tcp,
    };
    v1::Port {
        name: name.to_owned(),
        number: number.into(),
        protocol: protocol.into(),
    }
}

pub(super) fn port_from_message(message: v1::Port) -> Result<(String, u16, Protocol)> {
    let protocol = match known("protocol", message.protocol)? {
        v1::Protocol::Detect => Protocol::Detect,
        v1::Protocol::Http => Protocol::Http,
        v1::Protocol::Http2 => Protocol::Http2,
        v1::Protocol::Grpc => Protocol::Grpc,
        v1::Protocol::Tls => Protocol::Tls,
        v1::Protocol::Tcp => Protocol::Tcp,
    };
    Ok((message.name, port("number", message.number)?, protocol))
}
