use model::backend_tls::Roots;
use model::balancing::LoadBalancer;
use model::service::Port;
use model::tls::TlsOptions;
use model::workload::Locality;

use super::*;

fn policy(name: &str, port: Option<u16>, hostname: &str) -> Arc<BackendTls> {
    Arc::new(BackendTls {
        name: name.parse().expect("valid"),
        target: "shop/s".parse().expect("valid"),
        port,
        created: 0,
        hostname: hostname.to_owned(),
        names: Vec::new(),
        roots: Roots::System,
        options: TlsOptions::default(),
    })
}

fn of(name: &str, zone: &str, weight: u32, health: Health) -> Arc<endpoint::Endpoint> {
    Arc::new(endpoint::Endpoint {
        service: "shop/s".parse().expect("valid"),
        workload: format!("shop/{name}").parse().expect("valid"),
        addresses: vec!["127.0.0.1".parse().expect("valid")],
        ports: [(80, 8080)].into(),
        tunnel: Tunnel::None,
        identity: "spiffe://mesh.local/ns/shop/sa/x".parse().expect("valid"),
        health,
        weight,
        locality: Locality {
            region: "eu".to_owned(),
            zone: zone.to_owned(),
        },
        version: String::new(),
    })
}

/// A destination with this balancer, after each of these sets of endpoints.
fn views(
    balancer: &LoadBalancer,
    sets: &[&[Arc<endpoint::Endpoint>]],
) -> (Arc<Destination>, Vec<Arc<View>>) {
    let service = Service {
        name: "shop/s".parse().expect("valid"),
        addresses: Vec::new(),
        ports: vec![Port {
            name: "http".to_owned(),
            number: 80,
            protocol: Protocol::Http,
        }],
        headless: false,
        near: false,
    };
    let policy = Arc::new(TrafficPolicy {
        name: "shop/p".parse().expect("valid"),
        target: service.name.clone(),
        port: None,
        created: 0,
        load_balancer: Some(balancer.clone()),
        connections: model::traffic::Connections::default(),
        outlier_detection: None,
        health_check: None,
        timeouts: model::traffic::Timeouts::default(),
        retries: None,
        hedging: None,
        adaptive_concurrency: None,
        load_shedding: None,
        fallback: None,
    });
    let own = Locality {
        region: "eu".to_owned(),
        zone: "b".to_owned(),
    };
    let destination = Arc::new(Destination::new(service.clone()));
    let views = sets.iter().map(|endpoints| {
        let policies = [Arc::clone(&policy)];
        destination.update(&own, &service, endpoints, (&policies, &[]), &[], &[]);
        Arc::clone(&destination.view())
    });
    let views = views.collect();
    (destination, views)
}

#[test]
fn a_table_is_made_anew_only_where_names_or_weights_change() {
    let balancer = LoadBalancer {
        algorithm: Algorithm::Maglev { table: 251 },
        hash: vec![model::balancing::HashKey::SourceIp],
        ..LoadBalancer::default()
    };
    let a = of("a", "a", 1, Health::Healthy);
    let b = of("b", "b", 1, Health::Healthy);
    let away = of("b", "b", 1, Health::Unhealthy);
    let heavy = of("b", "b", 2, Health::Healthy);
    let sets: [&[_]; 4] = [
        &[Arc::clone(&a), b],
        &[Arc::clone(&a), away],
        &[Arc::clone(&a), heavy],
        &[a],
    ];
    let (_, views) = views(&balancer, &sets);
    let tables: Vec<_> = views
        .iter()
        .map(|view| {
            view.port(80)
                .and_then(|p| p.table.clone())
                .expect("a table")
        })
        .collect();
    assert!(Arc::ptr_eq(&tables[0], &tables[1]));
    assert!(!Arc::ptr_eq(&tables[1], &tables[2]));
    assert!(!Arc::ptr_eq(&tables[2], &tables[3]));
}

#[test]
fn an_endpoint_is_new_when_it_comes_later_or_is_well_again() {
    let balancer = LoadBalancer {
        slow_start: Some(SlowStart {
            window: Duration::from_hours(1),
            aggression_milli: 1000,
            min_weight_percent: 10,
        }),
        ..LoadBalancer::default()
    };
    let a = of("a", "a", 3, Health::Healthy);
    let b = of("b", "b", 1, Health::Healthy);
    let away = of("a", "a", 3, Health::Unhealthy);
    let sets: [&[_]; 4] = [
        &[Arc::clone(&a)],
        &[Arc::clone(&a), Arc::clone(&b)],
        &[away, Arc::clone(&b)],
        &[a, b],
    ];
    let (_, first) = views(&balancer, &sets[..1]);
    let (_, views) = views(&balancer, &sets);
    let weights = |view: &View| -> Vec<u32> {
        let port = view.port(80).expect("it has it");
        let hosts = Hosts {
            port,
            now: since_start(),
        };
        (0..hosts.len()).map(|i| hosts.weight(i)).collect()
    };
    assert_eq!(weights(&first[0]), [3000]);
    // Views share what lives: it is the last that is looked at.
    assert_eq!(weights(&views[3]), [300, 100]);
}

#[test]
fn those_of_the_own_zone_come_first_and_without_a_zone_of_its_own_there_is_no_order() {
    let near = LoadBalancer {
        locality: Some(LocalityMode::Failover),
        ..LoadBalancer::default()
    };
    let endpoints = ["a", "b", "c", "b"]
        .iter()
        .zip(["w1", "w2", "w3", "w4"])
        .map(|(zone, name)| of(name, zone, 1, Health::Healthy))
        .collect::<Vec<_>>();
    let (_, views) = views(&near, &[&endpoints]);
    let port = views[0].port(80).expect("it has it");
    let names: Vec<&str> = port
        .endpoints
        .iter()
        .map(|c| &*c.endpoint.workload)
        .collect();
    assert_eq!(names, ["w2", "w4", "w1", "w3"]);
    let spread = port.spread.as_ref().expect("levels");
    assert_eq!((spread.range(0), spread.range(1)), (0..2, 2..4));
    let mut serving: Vec<_> = Vec::new();
    let unknown = Locality::default();
    assert!(group(&mut serving, &LocalityMode::Failover, None, &unknown).is_none());
}

#[test]
fn ports_that_lead_to_one_port_of_an_endpoint_have_each_its_own_tls() {
    let port = |number| Port {
        name: format!("p{number}"),
        number,
        protocol: Protocol::Http,
    };
    let service = Service {
        name: "shop/s".parse().expect("valid"),
        addresses: Vec::new(),
        ports: vec![port(443), port(8443)],
        headless: false,
        near: false,
    };
    let endpoint = Arc::new(endpoint::Endpoint {
        service: service.name.clone(),
        workload: "shop/w".parse().expect("valid"),
        addresses: vec!["127.0.0.1".parse().expect("valid")],
        ports: [(443, 8443), (8443, 8443)].into(),
        tunnel: Tunnel::None,
        identity: "spiffe://mesh.local/ns/shop/sa/x".parse().expect("valid"),
        health: Health::Healthy,
        weight: 1,
        locality: Locality::default(),
        version: String::new(),
    });
    let policies = [
        policy("shop/one", Some(443), "one.example"),
        policy("shop/all", None, "all.example"),
    ];
    let destination = Destination::new(service.clone());
    let update = |policies: &[Arc<BackendTls>]| {
        destination.update(
            &Locality::default(),
            &service,
            &[Arc::clone(&endpoint)],
            (&[], &[]),
            &[],
            policies,
        );
        let view = Arc::clone(&destination.view());
        [443, 8443].map(|number| {
            let port = view.port(number).expect("it has it");
            Arc::clone(&port.endpoints[0].endpoint)
        })
    };
    let [one, all] = update(&policies);
    assert!(
        one.outside(8443)
            .is_some_and(|tls| tls.is_for(&policies[0]))
    );
    assert!(
        all.outside(8443)
            .is_some_and(|tls| tls.is_for(&policies[1]))
    );
    // Connections are kept by endpoint, and the load is that of one.
    assert_ne!(one.id, all.id);
    assert!(Arc::ptr_eq(&one.live, &all.live));
    // What has not changed stays.
    let again = update(&policies);
    assert_eq!(again.map(|e| e.id), [one.id, all.id]);
    let [one, all] = update(&policies[..1]);
    assert!(one.outside(8443).is_some() && all.outside(8443).is_none());
}
