//! Clusters and their endpoints: one of each for a port of a service that routes refer to.
//!
//! All policies of the port are merged as the proxy does it (`policy::effective`), so that Envoy's own
//! defaults hold nowhere.

use std::collections::BTreeMap;
use std::time::Duration;

use model::ServiceName;
use model::balancing::{Algorithm, LocalityMode, SlowStart};
use model::endpoint::{Endpoint, Health};
use model::service::Protocol;
use model::traffic::OutlierDetection;
use model::workload::{Locality, Tunnel};
use policy::effective::Effective;
use policy::locality;
use prost::Message;

use crate::proto::{cluster, core, endpoint, kind, upstream};
use crate::words::{address, any, duration, over_ads};
use crate::{Destination, Resources};

/// Envoy's largest ring.
const LARGEST_RING: u32 = 8 << 20;

/// The name of the cluster of a port.
pub(crate) fn name(service: &ServiceName, port: u16) -> String {
    format!("{service}/{port}")
}

/// Adds cluster and endpoints of a port, if the service has it.
pub(crate) fn add(made: &mut Resources, of: &Destination, port: u16, own: &Locality) {
    let Some(served) = of.service.port(port) else {
        return;
    };
    let name = name(&of.service.name, port);
    let effective = Effective::merge(&of.policies, port);
    let mut warn = |what: &str| {
        made.warnings.insert(format!("Service {name}: {what}"));
    };
    if of.tls {
        // In the clear would be worse than not at all.
        warn("its BackendTLSPolicy is not served to Envoy: requests to it are answered with 500");
        return;
    }
    for (there, what) in [
        (effective.hedging.is_some(), "hedging"),
        (effective.fallback.is_some(), "fallback"),
        (
            effective.proxy_protocol.is_some(),
            "a PROXY header towards endpoints",
        ),
    ] {
        if there {
            warn(&format!("{what} is not served to Envoy and left out"));
        }
    }
    if effective.balancer.algorithm == Algorithm::PeakEwma {
        warn("Envoy has no PeakEwma; LeastRequest takes its place");
    }
    let tunnelled = of.endpoints.iter().filter(|e| e.tunnel != Tunnel::None);
    let tunnelled = tunnelled.count();
    if tunnelled > 0 {
        warn(&format!(
            "{tunnelled} of its endpoints have a Tulle proxy, which asks for mutual TLS that this Envoy has no certificate for; they are left out"
        ));
    }
    let mode = effective.locality(&of.service);
    let message = message(&name, &effective, mode, served.protocol);
    made.clusters.insert(name.clone(), message.encode_to_vec());
    let assignment = endpoint::ClusterLoadAssignment {
        cluster_name: name.clone(),
        endpoints: localities(&of.endpoints, port, mode, own),
    };
    made.endpoints.insert(name, assignment.encode_to_vec());
}

fn message(
    name: &str,
    effective: &Effective,
    mode: &LocalityMode,
    protocol: Protocol,
) -> cluster::Cluster {
    let balancer = &effective.balancer;
    let weighted = matches!(mode, LocalityMode::Weighted(_))
        .then_some(cluster::cluster::common_lb_config::LocalityWeightedLbConfig {});
    let (policy, config) = balancing(balancer.algorithm, balancer.slow_start);
    cluster::Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::Eds as i32,
        )),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: Some(over_ads()),
        }),
        connect_timeout: Some(duration(effective.connect_timeout)),
        lb_policy: policy as i32,
        lb_config: config,
        circuit_breakers: Some(breakers(effective)),
        outlier_detection: effective.outlier.as_ref().map(outliers),
        common_lb_config: Some(cluster::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(kind::Percent {
                value: balancer.panic_threshold.unwrap_or(0).into(),
            }),
            locality_config_specifier: weighted.map(
                cluster::cluster::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig,
            ),
        }),
        typed_extension_protocol_options: BTreeMap::from([(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            any(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                &spoken(effective, protocol),
            ),
        )]),
        ..cluster::Cluster::default()
    }
}

fn spoken(effective: &Effective, protocol: Protocol) -> upstream::HttpProtocolOptions {
    use upstream::http_protocol_options::explicit_http_config::ProtocolConfig;
    use upstream::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    let config = match protocol {
        Protocol::Http2 | Protocol::Grpc => {
            ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default())
        }
        _ => ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions {}),
    };
    upstream::HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            // Zero: never.
            idle_timeout: Some(duration(effective.idle_timeout.unwrap_or_default())),
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(config),
            },
        )),
    }
}

fn balancing(
    algorithm: Algorithm,
    slow: Option<SlowStart>,
) -> (
    cluster::cluster::LbPolicy,
    Option<cluster::cluster::LbConfig>,
) {
    use cluster::cluster::{LbConfig, LbPolicy};
    let slow_start_config = slow.map(|slow| cluster::cluster::SlowStartConfig {
        slow_start_window: Some(duration(slow.window)),
        aggression: Some(core::RuntimeDouble {
            default_value: f64::from(slow.aggression_milli) / 1000.0,
            // Envoy asks for a name; nobody sets it.
            runtime_key: "tulle.slow_start.aggression".to_owned(),
        }),
        min_weight_percent: Some(kind::Percent {
            value: slow.min_weight_percent.into(),
        }),
    });
    match algorithm {
        Algorithm::LeastRequest | Algorithm::PeakEwma => {
            let config = cluster::cluster::LeastRequestLbConfig { slow_start_config };
            (
                LbPolicy::LeastRequest,
                Some(LbConfig::LeastRequestLbConfig(config)),
            )
        }
        Algorithm::RoundRobin => {
            let config = cluster::cluster::RoundRobinLbConfig { slow_start_config };
            (
                LbPolicy::RoundRobin,
                Some(LbConfig::RoundRobinLbConfig(config)),
            )
        }
        Algorithm::Random => (LbPolicy::Random, None),
        Algorithm::RingHash { minimum, maximum } => {
            let config = cluster::cluster::RingHashLbConfig {
                minimum_ring_size: Some(minimum.min(LARGEST_RING).into()),
                maximum_ring_size: Some(maximum.min(LARGEST_RING).into()),
            };
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)))
        }
        Algorithm::Maglev { table } => {
            let config = cluster::cluster::MaglevLbConfig {
                table_size: Some(table.into()),
            };
            (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(config)))
        }
    }
}

fn breakers(effective: &Effective) -> cluster::CircuitBreakers {
    let budget = effective.retry.budget;
    cluster::CircuitBreakers {
        thresholds: vec![cluster::circuit_breakers::Thresholds {
            max_connections: Some(effective.max_connections),
            max_pending_requests: Some(effective.max_requests),
            max_requests: Some(effective.max_requests),
            retry_budget: Some(cluster::circuit_breakers::thresholds::RetryBudget {
                budget_percent: Some(kind::Percent {
                    value: f64::from(budget.percent.min(100)),
                }),
                min_retry_concurrency: Some(budget.min_per_second),
            }),
        }],
    }
}

/// Every detector is on or off as the policy says: a share of 0 or 100 % enforces it.
fn outliers(of: &OutlierDetection) -> cluster::OutlierDetection {
    let enforced = |on: bool| Some(if on { 100 } else { 0 });
    let count = |threshold: u32| Some(threshold.max(1));
    let rate = of.success_rate.unwrap_or_default();
    let failures = of.failure_percentage.unwrap_or_default();
    let local = of.consecutive_local_origin_failures;
    cluster::OutlierDetection {
        consecutive_5xx: count(of.consecutive_5xx),
        enforcing_consecutive_5xx: enforced(of.consecutive_5xx > 0),
        consecutive_gateway_failure: count(of.consecutive_gateway_errors),
        enforcing_consecutive_gateway_failure: enforced(of.consecutive_gateway_errors > 0),
        split_external_local_origin_errors: local.is_some(),
        consecutive_local_origin_failure: local.and_then(count),
        enforcing_consecutive_local_origin_failure: enforced(local.is_some_and(|n| n > 0)),
        enforcing_local_origin_success_rate: Some(0),
        interval: Some(duration(of.interval.max(Duration::from_millis(1)))),
        base_ejection_time: Some(duration(of.base_ejection_time)),
        // Envoy's own bound of five minutes would cut longer ones.
        max_ejection_time: Some(duration(of.base_ejection_time.max(Duration::from_mins(5)))),
        max_ejection_time_jitter: Some(duration(Duration::ZERO)),
        max_ejection_percent: Some(of.max_ejection_percent.min(100)),
        enforcing_success_rate: enforced(of.success_rate.is_some()),
        success_rate_minimum_hosts: Some(rate.minimum_hosts),
        success_rate_request_volume: Some(rate.minimum_requests),
        success_rate_stdev_factor: Some(rate.stdev_factor),
        enforcing_failure_percentage: enforced(of.failure_percentage.is_some()),
        failure_percentage_threshold: Some(failures.threshold),
        failure_percentage_minimum_hosts: Some(failures.minimum_hosts),
        failure_percentage_request_volume: Some(failures.minimum_requests),
    }
}

/// Endpoints by where they are; with failover, near ones first.
fn localities(
    endpoints: &[Endpoint],
    port: u16,
    mode: &LocalityMode,
    own: &Locality,
) -> Vec<endpoint::LocalityLbEndpoints> {
    let plain = endpoints.iter().filter(|e| e.tunnel == Tunnel::None);
    let usable: Vec<_> = plain.filter_map(|e| Some((e, one(e, port)?))).collect();
    let weights = match mode {
        LocalityMode::Weighted(given) => Some(locality::weights(
            given,
            usable.iter().map(|(e, _)| &e.locality),
        )),
        _ => None,
    };
    let mut groups: BTreeMap<(usize, &str, &str), Vec<endpoint::LbEndpoint>> = BTreeMap::new();
    for (of, message) in usable {
        let place = &of.locality;
        let distance = match mode {
            LocalityMode::Failover if locality::is_known(own) => locality::distance(own, place),
            _ => 0,
        };
        let group = (distance, place.region.as_str(), place.zone.as_str());
        groups.entry(group).or_default().push(message);
    }
    // Envoy takes no gaps between priorities.
    let distances: Vec<usize> = {
        let mut all: Vec<_> = groups.keys().map(|(distance, ..)| *distance).collect();
        all.dedup();
        all
    };
    let group = |((distance, region, zone), lb_endpoints): ((usize, &str, &str), _)| {
        let rank = distances.iter().position(|d| *d == distance);
        endpoint::LocalityLbEndpoints {
            locality: Some(core::Locality {
                region: region.to_owned(),
                zone: zone.to_owned(),
                ..core::Locality::default()
            }),
            lb_endpoints,
            load_balancing_weight: weights
                .as_ref()
                .map(|weights| weights.get(&(region, zone)).copied().unwrap_or(0)),
            priority: rank.unwrap_or(0) as u32,
        }
    };
    groups.into_iter().map(group).collect()
}

fn one(of: &Endpoint, port: u16) -> Option<endpoint::LbEndpoint> {
    let at = of.addresses.first()?.to_string();
    let port = *of.ports.get(&port)?;
    let health = match of.health {
        Health::Healthy => core::HealthStatus::Healthy,
        Health::Unhealthy => core::HealthStatus::Unhealthy,
        Health::Draining => core::HealthStatus::Draining,
    };
    Some(endpoint::LbEndpoint {
        health_status: health as i32,
        load_balancing_weight: Some(of.weight.max(1)),
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(
            endpoint::Endpoint {
                address: Some(address(&at, port)),
            },
        )),
    })
}
