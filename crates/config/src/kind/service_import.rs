//! `ServiceImport` (Multi-Cluster Services API, KEP-1645): a service whose endpoints are in several
//! clusters.
//!
//! Read as the API has it; its status is others' to write. Its endpoints are those of the
//! `EndpointSlice`s that name it in the label `multicluster.kubernetes.io/service-name`. Clients ask
//! for `<name>.<namespace>.svc.clusterset.local`.

use std::net::IpAddr;

use model::ServiceName;
use model::name::is_label;
use model::service::Service;
use serde::{Deserialize, Serialize};

use super::service::{ServicePort, SessionAffinity, check_ports, model_ports};
use crate::check::Check;
use crate::reference::{LABEL_RULE, shorten};

/// `spec` of a `ServiceImport`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceImportSpec {
    /// Whether it has an address of its own.
    #[serde(rename = "type")]
    pub import_type: ServiceImportType,
    /// Its ports; none has a target of its own.
    pub ports: Vec<ServicePort>,
    /// Its addresses, one for each family.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ips: Vec<String>,
    /// Whether a client stays with one endpoint.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<serde_json::Value>,
}

/// `spec.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the API's own words")]
pub enum ServiceImportType {
    ClusterSetIP,
    Headless,
}

impl ServiceImportSpec {
    pub(crate) fn check(&self, name: &str, c: &mut Check<'_>) {
        if !is_label(name) {
            let message = format!("\"{}\" is not a valid name of a service", shorten(name));
            c.at("metadata", |c| c.error_at("name", message, LABEL_RULE));
        }
        c.at("spec", |c| {
            check_ports(&self.ports, c);
            c.each("ports", &self.ports, |c, port| {
                if port.target_port.is_some() {
                    let message = "a port of a ServiceImport has no targetPort";
                    c.error_at("targetPort", message, "the EndpointSlices say it");
                }
            });
            c.at_most("ips", self.ips.len(), 2);
            c.each("ips", &self.ips, |c, text| {
                if text.parse::<IpAddr>().is_err() {
                    let message = format!("\"{}\" is not an IP address", shorten(text));
                    c.error(message, "leave it out to have one chosen");
                }
            });
        });
    }

    /// Its addresses, each once; none for a headless one.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        if !self.is_headless() {
            for address in self.ips.iter().filter_map(|text| text.parse().ok()) {
                if !found.contains(&address) {
                    found.push(address);
                }
            }
        }
        found
    }

    /// Whether it has no address of its own.
    pub fn is_headless(&self) -> bool {
        self.import_type == ServiceImportType::Headless
    }

    pub(crate) fn to_model(&self, name: ServiceName) -> Service {
        Service {
            name,
            addresses: self.addresses(),
            ports: model_ports(&self.ports),
            headless: self.is_headless(),
            near: false,
        }
    }
}
