//! Addresses of Gateways on Kubernetes: which of those asked for can be had, and which there are.
//!
//! The API server itself says whether a cluster's address can be had: it is asked to make such a
//! Service without keeping it. Whether an address from outside can be had shows when the Service
//! has it, or has nothing after a while.

use std::net::IpAddr;
use std::time::Duration;

use config::kind::gateway::GatewaySpec;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};

use super::{Failure, ServiceType, call};
use crate::published::{Address, Problem, Reach};

/// How long is waited for an address from outside before the cluster's own is published.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// Gateway API's bound on `status.addresses`.
const MAX_ADDRESSES: usize = 16;

/// The addresses that some Gateways ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wish(Vec<IpAddr>);

impl Wish {
    /// Those of a Gateway that are addresses; an empty one leaves the choice to others.
    pub(super) fn add(&mut self, spec: &GatewaySpec) {
        let values = spec.addresses.iter().filter_map(|a| a.value.as_deref());
        for address in values.filter_map(|value| value.parse().ok()) {
            if !self.0.contains(&address) {
                self.0.push(address);
            }
        }
    }

    /// The first.
    pub(super) fn first(&self) -> Option<IpAddr> {
        self.0.first().copied()
    }
}

/// The first address of those wished for that a Service of the cluster can have, or has, and why
/// others cannot be had.
pub(super) async fn cluster_ip(
    services: &Api<DynamicObject>,
    name: &str,
    current: Option<&DynamicObject>,
    wish: &Wish,
) -> Result<(Option<IpAddr>, Vec<String>), Failure> {
    let had = current.and_then(|service| service.data["spec"]["clusterIP"].as_str());
    let (mut chosen, mut unusable) = (None, Vec::new());
    for address in &wish.0 {
        let usable = if had == Some(&*address.to_string()) {
            Ok(())
        } else {
            probe(services, name, *address).await?
        };
        match usable {
            Err(why) => unusable.push(format!("{address} cannot be used: {why}")),
            Ok(()) if chosen.is_none() => chosen = Some(*address),
            Ok(()) => unusable.push(format!(
                "{address} cannot be used: a Service has one address, and that is {}",
                chosen.unwrap_or(*address)
            )),
        }
    }
    Ok((chosen, unusable))
}

/// Asks for a Service with this address, without making it.
async fn probe(
    services: &Api<DynamicObject>,
    name: &str,
    address: IpAddr,
) -> Result<Result<(), String>, Failure> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"generateName": format!("{}-", name.chars().take(40).collect::<String>())},
        "spec": {"type": "ClusterIP", "clusterIP": address.to_string(), "ports": [{"port": 80}]},
    });
    let service: DynamicObject = serde_json::from_value(service)
        .map_err(|error| Failure::new(format!("a Service cannot be asked for: {error}")))?;
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let asked = async {
        match services.create(&parameters, &service).await {
            Ok(_) => Ok(Ok(())),
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
                Ok(Err(status.message.clone()))
            }
            Err(error) => Err(error),
        }
    };
    call(asked).await
}

/// Where a Gateway can be reached by its Service as it is now.
pub(super) fn reach(
    kind: ServiceType,
    service: &Value,
    wish: &Wish,
    unusable: &[String],
    age: Duration,
) -> Reach {
    let outside = ingress(service);
    let inside = cluster_addresses(service);
    let given = match kind {
        ServiceType::ClusterIp => inside,
        ServiceType::LoadBalancer if outside.is_empty() && age >= GRACE => inside,
        ServiceType::LoadBalancer => outside,
    };
    let mut missing = unusable.to_vec();
    if kind == ServiceType::LoadBalancer && age >= GRACE {
        for address in &wish.0 {
            if !given.iter().any(|a| a.value == address.to_string()) {
                missing.push(format!(
                    "{address} cannot be used: the cluster has not given it to the Gateway's Service"
                ));
            }
        }
    }
    let problem = if !missing.is_empty() {
        Some(Problem {
            reason: "AddressNotUsable",
            message: missing.join("; "),
        })
    } else if given.is_empty() {
        Some(Problem {
            reason: "AddressNotAssigned",
            message: "its Service has no address yet".to_owned(),
        })
    } else {
        None
    };
    // One that asks for addresses and gets none of them is not to be reached at another.
    let addresses = given
        .into_iter()
        .filter(|a| wish.0.is_empty() || wish.0.iter().any(|w| w.to_string() == a.value))
        .take(MAX_ADDRESSES)
        .collect();
    Reach { addresses, problem }
}

/// What a load balancer gave.
fn ingress(service: &Value) -> Vec<Address> {
    let all = service.pointer("/status/loadBalancer/ingress");
    let all = all.and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|one| {
        let text = |field: &str| one.get(field).and_then(Value::as_str).map(str::to_owned);
        match (text("ip"), text("hostname")) {
            (Some(value), _) => Some(Address {
                kind: "IPAddress",
                value,
            }),
            (None, Some(value)) => Some(Address {
                kind: "Hostname",
                value,
            }),
            (None, None) => None,
        }
    })
    .collect()
}

/// The cluster's own.
fn cluster_addresses(service: &Value) -> Vec<Address> {
    let all = service
        .pointer("/spec/clusterIPs")
        .and_then(Value::as_array);
    all.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|value| value.parse::<IpAddr>().is_ok())
        .map(|value| Address {
            kind: "IPAddress",
            value: value.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(addresses: &[&str]) -> Wish {
        Wish(addresses.iter().map(|a| a.parse().expect("IP")).collect())
    }

    fn service(ingress: &Value) -> Value {
        json!({
            "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"]},
            "status": {"loadBalancer": {"ingress": ingress}},
        })
    }

    fn shown(reach: &Reach) -> Vec<&str> {
        reach.addresses.iter().map(|a| &*a.value).collect()
    }

    fn reason(reach: &Reach) -> Option<&'static str> {
        reach.problem.as_ref().map(|p| p.reason)
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn a_load_balancer_is_waited_for_and_then_done_without() {
        let kind = ServiceType::LoadBalancer;
        let bare = service(&json!([]));
        let first = reach(kind, &bare, &wish(&[]), &[], NOW);
        assert_eq!(reason(&first), Some("AddressNotAssigned"));
        assert!(first.addresses.is_empty());
        let later = reach(kind, &bare, &wish(&[]), &[], GRACE);
        assert_eq!((shown(&later), reason(&later)), (vec!["10.96.0.7"], None));
        let given = service(&json!([{"ip": "192.0.2.7"}, {"hostname": "lb.example"}]));
        for age in [NOW, GRACE] {
            let given = reach(kind, &given, &wish(&[]), &[], age);
            assert_eq!(shown(&given), ["192.0.2.7", "lb.example"]);
            assert_eq!(given.addresses[1].kind, "Hostname");
            assert_eq!(reason(&given), None);
        }
    }

    #[test]
    fn only_addresses_that_were_asked_for_are_published_and_missing_ones_said() {
        let kind = ServiceType::ClusterIp;
        let bare = service(&json!([]));
        let all = wish(&["192.0.2.1", "10.96.0.7"]);
        let why = ["192.0.2.1 cannot be used: not in range".to_owned()];
        let some = reach(kind, &bare, &all, &why, NOW);
        assert_eq!(shown(&some), ["10.96.0.7"]);
        assert_eq!(reason(&some), Some("AddressNotUsable"));
        let fine = reach(kind, &bare, &wish(&["10.96.0.7"]), &[], NOW);
        assert_eq!((shown(&fine), reason(&fine)), (vec!["10.96.0.7"], None));
        let none = reach(kind, &bare, &wish(&["192.0.2.1"]), &why, NOW);
        assert!(none.addresses.is_empty());

        let kind = ServiceType::LoadBalancer;
        let asked = wish(&["192.0.2.9"]);
        let waiting = reach(kind, &bare, &asked, &[], NOW);
        assert_eq!(reason(&waiting), Some("AddressNotAssigned"));
        let late = reach(kind, &bare, &asked, &[], GRACE);
        assert_eq!(reason(&late), Some("AddressNotUsable"));
        assert!(late.addresses.is_empty());
    }
}
