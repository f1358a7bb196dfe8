use std::collections::BTreeMap;

use model::endpoint::{Endpoint as EndpointConfig, Health};
use model::service::{Port, Protocol, Service};
use model::workload::{Locality, Mtls, Tunnel, Workload, WorkloadPort};

use super::*;
use crate::options::Mode;
use crate::state::Lookup;

fn name(text: &str) -> ServiceName {
    text.parse().expect("valid")
}

/// An updater whose control plane never answers, and the state that it writes.
fn updater() -> (Updater, Arc<State>, mpsc::Receiver<Want>) {
    let dial: xds::client::Dial = Arc::new(|| {
        Box::pin(async { Err(std::io::Error::other("no control plane in this test")) })
    });
    let options = xds::client::Options {
        dial,
        node_id: "workload/shop/client".into(),
        cache: None,
    };
    let (handle, _batches) = xds::client::start(options);
    let (state, wants) = State::new();
    let (trust, _) = watch::channel(None);
    let own = name("shop/client");
    let updater = Updater::new(
        Arc::clone(&state),
        handle,
        own,
        &Role::Sidecar(Mode::Explicit),
        Locality::default(),
        trust,
    );
    (updater, state, wants)
}

fn service(of: &str, address: &str) -> Resource {
    Resource::Service(Service {
        name: name(of),
        addresses: vec![address.parse().expect("address")],
        ports: vec![Port {
            name: "http".into(),
            number: 80,
            protocol: Protocol::Http,
        }],
        headless: false,
        near: false,
    })
}

fn endpoint(of: &str, workload: &str, weight: u32) -> Resource {
    Resource::Endpoint(EndpointConfig {
        service: name(of),
        workload: name(workload),
        addresses: vec!["127.0.0.1".parse().expect("address")],
        ports: [(80, 8080)].into(),
        tunnel: Tunnel::Tulle { port: 15008 },
        identity: "spiffe://mesh.local/ns/shop/sa/x".parse().expect("id"),
        health: Health::Healthy,
        weight,
        locality: Locality::default(),
        version: String::new(),
    })
}

fn keyed(resource: Resource) -> (Key, Arc<Resource>) {
    (resource.key(), Arc::new(resource))
}

/// What belongs to a service.
const COLLECTIONS: [Kind; 4] = [
    Kind::Endpoint,
    Kind::TrafficPolicy,
    Kind::RequestPolicy,
    Kind::Route,
];

fn empty(kind: Kind, of: &str) -> Key {
    Key::new(kind, collection_of(&name(of)))
}

/// What the control plane answers for a service without policies and routes.
fn tell(updater: &mut Updater, of: &str, address: &str, endpoints: Vec<Resource>) {
    let mut upserts = vec![keyed(service(of, address))];
    upserts.extend(endpoints.into_iter().map(keyed));
    updater.apply(
        &upserts,
        &[
            empty(Kind::TrafficPolicy, of),
            empty(Kind::RequestPolicy, of),
            empty(Kind::Route, of),
        ],
    );
}

fn found(state: &State, of: &str) -> Option<Arc<Destination>> {
    state
        .snapshot()
        .destinations()
        .find(|d| d.name == name(of))
        .cloned()
}

#[tokio::test(start_paused = true)]
async fn a_service_is_served_only_when_all_of_it_is_known() {
    let (mut updater, state, _wants) = updater();
    updater.want_service(&name("shop/a"));
    updater.apply(&[keyed(service("shop/a", "240.0.0.1"))], &[]);
    assert!(
        found(&state, "shop/a").is_none(),
        "its routes are not known yet"
    );
    updater.apply(
        &[keyed(endpoint("shop/a", "shop/a-0", 1))],
        &[
            empty(Kind::TrafficPolicy, "shop/a"),
            empty(Kind::RequestPolicy, "shop/a"),
        ],
    );
    assert!(
        found(&state, "shop/a").is_none(),
        "its routes are not known yet"
    );
    updater.apply(&[], &[empty(Kind::Route, "shop/a")]);
    let destination = found(&state, "shop/a").expect("complete");
    assert_eq!(
        destination.view().port(80).expect("port").endpoints.len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_lookup_waits_for_the_answer_and_remembers_that_there_is_none() {
    let (mut updater, state, mut wants) = updater();
    let asking = Arc::clone(&state);
    let asked =
        tokio::spawn(
            async move { matches!(asking.service(&name("shop/none")).await, Lookup::Absent) },
        );
    let want = wants.recv().await.expect("asked");
    updater.want(&want);
    let missing = COLLECTIONS.map(|kind| empty(kind, "shop/none"));
    updater.apply(&[], &missing);
    updater.apply(&[], &[Key::new(Kind::Service, "shop/none")]);
    assert!(asked.await.expect("no panic"));
    assert!(
        matches!(state.service(&name("shop/none")).await, Lookup::Absent),
        "without asking again"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_control_plane_a_lookup_ends_all_the_same() {
    let (_updater, state, _wants) = updater();
    assert!(matches!(
        state.service(&name("shop/a")).await,
        Lookup::Unknown
    ));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_did_not_change_keeps_its_connections_and_load() {
    let (mut updater, state, _wants) = updater();
    updater.want_service(&name("shop/a"));
    tell(
        &mut updater,
        "shop/a",
        "240.0.0.1",
        vec![
            endpoint("shop/a", "shop/a-0", 1),
            endpoint("shop/a", "shop/a-1", 1),
        ],
    );
    let before: BTreeMap<String, u64> = ids(&state, "shop/a");
    let second = Arc::clone(&found(&state, "shop/a").expect("known").view().endpoints()[1]);
    let load = crate::record::Load::on(second);
    updater.apply(&[keyed(endpoint("shop/a", "shop/a-1", 5))], &[]);
    let after = ids(&state, "shop/a");
    assert_eq!(before["a-0"], after["a-0"], "the one that did not change");
    assert_ne!(before["a-1"], after["a-1"], "the one that did");
    let destination = found(&state, "shop/a").expect("known");
    let in_flight = destination.view().endpoints()[1]
        .live
        .in_flight
        .load(Ordering::Relaxed);
    assert_eq!(
        in_flight, 1,
        "requests in flight count on under the new weight"
    );
    drop(load);
}

fn ids(state: &State, of: &str) -> BTreeMap<String, u64> {
    let destination = found(state, of).expect("known");
    let view = destination.view();
    view.endpoints()
        .iter()
        .map(|e| (e.workload.to_string(), e.id))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_address_leads_to_its_service_or_workload() {
    let (mut updater, state, _wants) = updater();
    let vip: IpAddr = "240.0.0.1".parse().expect("address");
    updater.want_address(vip);
    updater.apply(
        &[keyed(service("shop/a", "240.0.0.1"))],
        &[Key::new(Kind::Workload, "ip/240.0.0.1")],
    );
    tell(
        &mut updater,
        "shop/a",
        "240.0.0.1",
        vec![endpoint("shop/a", "shop/a-0", 1)],
    );
    assert!(matches!(state.address(vip).await, Lookup::Found(d) if d.name == name("shop/a")));

    let pod: IpAddr = "10.0.0.9".parse().expect("address");
    updater.want_address(pod);
    let workload = Resource::Workload(Workload {
        name: name("shop/a-0"),
        addresses: vec![pod],
        ports: vec![WorkloadPort {
            name: "http".into(),
            number: 8080,
            protocol: Protocol::Http,
        }],
        identity: "spiffe://mesh.local/ns/shop/sa/a".parse().expect("id"),
        labels: BTreeMap::new(),
        locality: Locality::default(),
        tunnel: Tunnel::Tulle { port: 15008 },
        mtls: Mtls::default(),
        limits: Vec::new(),
    });
    updater.apply(
        &[keyed(workload)],
        &[Key::new(Kind::Service, "ip/10.0.0.9")],
    );
    let Lookup::Found(direct) = state.address(pod).await else {
        panic!("a workload has this address")
    };
    assert_eq!(
        direct
            .view()
            .port(8080)
            .expect("its own port")
            .endpoints
            .len(),
        1
    );

    let none: IpAddr = "10.0.0.10".parse().expect("address");
    updater.want_address(none);
    updater.apply(
        &[],
        &[
            Key::new(Kind::Service, "ip/10.0.0.10"),
            Key::new(Kind::Workload, "ip/10.0.0.10"),
        ],
    );
    assert!(matches!(state.address(none).await, Lookup::Absent));
}

#[tokio::test(start_paused = true)]
async fn names_that_do_not_exist_take_up_bounded_room() {
    let (mut updater, state, _wants) = updater();
    for n in 0..3 * ABSENT_LIMIT {
        let of = format!("shop/none-{n}");
        updater.want_service(&name(&of));
        let missing = COLLECTIONS.map(|kind| empty(kind, &of));
        updater.apply(&[], &missing);
        updater.apply(&[], &[Key::new(Kind::Service, of.as_str())]);
    }
    assert!(updater.services.len() <= ABSENT_LIMIT + 1);
    assert!(state.snapshot().services.len() <= ABSENT_LIMIT + 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_deleted_is_absent_and_can_come_back() {
    let (mut updater, state, _wants) = updater();
    updater.want_service(&name("shop/a"));
    tell(
        &mut updater,
        "shop/a",
        "240.0.0.1",
        vec![endpoint("shop/a", "shop/a-0", 1)],
    );
    updater.apply(&[], &[Key::new(Kind::Service, "shop/a")]);
    assert!(matches!(
        state.service(&name("shop/a")).await,
        Lookup::Absent
    ));
    updater.apply(&[keyed(service("shop/a", "240.0.0.2"))], &[]);
    assert!(matches!(
        state.service(&name("shop/a")).await,
        Lookup::Found(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_forgotten_is_asked_for_again() {
    let (mut updater, state, _wants) = updater();
    let address: IpAddr = "10.0.0.9".parse().expect("address");
    let gone = [
        Key::new(Kind::Service, "ip/10.0.0.9"),
        Key::new(Kind::Workload, "ip/10.0.0.9"),
    ];
    updater.want_address(address);
    updater.apply(&[], &gone);
    updater.forget_address(address);
    updater.apply(&[], &gone);
    assert!(
        !updater.addresses.contains_key(&address),
        "the end of a subscription is no answer to it"
    );
    assert!(matches!(state.address(address).await, Lookup::Unknown));
}

fn route_of(namespace: &str, of: &str) -> Resource {
    Resource::Route(model::route::Route {
        kind: model::route::RouteKind::Http,
        name: format!("{namespace}/r").parse().expect("valid"),
        parent: model::route::Parent::Service(name(of)),
        port: None,
        created: 0,
        rules: Vec::new(),
    })
}

#[tokio::test(start_paused = true)]
async fn routes_for_clients_of_this_namespace_alone_are_waited_for_and_go_first() {
    let (mut updater, state, _wants) = updater();
    // The proxy's own namespace is shop.
    updater.want_service(&name("other/a"));
    let asked = updater.handle.subscriptions();
    let own = Key::new(Kind::Route, "other/a/consumers:shop/*");
    assert!(asked.contains(&own), "{asked:?}");
    tell(&mut updater, "other/a", "240.0.0.1", Vec::new());
    updater.apply(&[], &[empty(Kind::Endpoint, "other/a")]);
    assert!(
        found(&state, "other/a").is_none(),
        "whether there are such routes is not known yet"
    );
    updater.apply(&[keyed(route_of("shop", "other/a"))], &[]);
    updater.apply(&[keyed(route_of("other", "other/a"))], &[]);
    let names = |state: &State| -> Vec<String> {
        let destination = found(state, "other/a").expect("complete");
        let view = destination.view();
        let routes = view.port(80).expect("port").routes.routes();
        routes.iter().map(|r| r.name.to_string()).collect()
    };
    assert_eq!(names(&state), ["shop/r"]);
    updater.apply(&[], &[route_of("shop", "other/a").key()]);
    assert_eq!(names(&state), ["other/r"]);
}

#[tokio::test(start_paused = true)]
async fn of_its_own_namespaces_services_it_asks_for_no_such_routes() {
    let (mut updater, _state, _wants) = updater();
    updater.want_service(&name("shop/a"));
    let asked = updater.handle.subscriptions();
    assert!(asked.iter().all(|key| !key.name.contains("consumers:")));
    updater.forget(&name("shop/a"));
    updater.want_service(&name("other/a"));
    updater.forget(&name("other/a"));
    let asked = updater.handle.subscriptions();
    assert!(
        asked.iter().all(|key| !key.name.starts_with("other/")),
        "{asked:?}"
    );
}
