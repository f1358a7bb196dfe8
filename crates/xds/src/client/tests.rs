//! Client and server together, over in-memory pipes and with a paused clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use model::endpoint::{Endpoint, Health};
use model::mesh::Mesh;
use model::name::ObjectName;
use model::service::Service;
use model::workload::{Locality, Tunnel};
use tokio::io::DuplexStream;
use tonic::Code;
use tonic::transport::Server;

use super::*;
use crate::codec;
use crate::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::proto::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use crate::proto::envoy::config::core::v3::Node;
use crate::server::Distributor;

fn service(name: &str, last: u8, headless: bool) -> Resource {
    Resource::Service(Service {
        name: ObjectName::new("shop", name).expect("valid"),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(240, 0, 0, last))],
        ports: Vec::new(),
        headless,
        near: false,
    })
}

fn endpoint(service: &str, workload: &str, weight: u32) -> Resource {
    Resource::Endpoint(Endpoint {
        service: ObjectName::new("shop", service).expect("valid"),
        workload: ObjectName::new("shop", workload).expect("valid"),
        addresses: Vec::new(),
        ports: BTreeMap::new(),
        tunnel: Tunnel::Tulle { port: 15008 },
        identity: "spiffe://mesh.local/ns/shop/sa/x".parse().expect("valid"),
        health: Health::Healthy,
        weight,
        locality: Locality::default(),
        version: String::new(),
    })
}

fn put(resource: Resource) -> (Key, Option<Resource>) {
    (resource.key(), Some(resource))
}

/// A control plane that can be replaced while clients are connected.
struct Plane {
    distributor: Arc<Distributor>,
    pipes: mpsc::Sender<io::Result<DuplexStream>>,
}

impl Plane {
    fn start() -> Self {
        let distributor = Distributor::new(Arc::new(|peer| {
            if peer.node_id.starts_with("workload/shop/") {
                Ok(())
            } else {
                Err(format!("{} is not of this shop", peer.node_id))
            }
        }));
        let (pipes, incoming) = mpsc::channel(8);
        let router = Server::builder().add_service(distributor.service());
        tokio::spawn(
            router.serve_with_incoming(tokio_stream::wrappers::ReceiverStream::new(incoming)),
        );
        Self { distributor, pipes }
    }

    /// Waits until something holds of the distributor.
    async fn until(&self, mut holds: impl FnMut(&Distributor) -> bool) {
        let mut changes = self.distributor.changes();
        while !holds(&self.distributor) {
            changes.changed().await.expect("the distributor lives");
        }
    }
}

/// Where clients dial: the current control plane, if there is one.
#[derive(Clone, Default)]
struct Address(Arc<Mutex<Option<mpsc::Sender<io::Result<DuplexStream>>>>>);

impl Address {
    fn set(&self, plane: Option<&Plane>) {
        *self.0.lock().expect("not poisoned") = plane.map(|plane| plane.pipes.clone());
    }

    fn dial(&self) -> Dial {
        let address = self.clone();
        Arc::new(move || {
            let pipes = address.0.lock().expect("not poisoned").clone();
            Box::pin(async move {
                let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
                let pipes = pipes.ok_or_else(refused)?;
                let (near, far) = tokio::io::duplex(64 * 1024);
                pipes.send(Ok(far)).await.map_err(|_| refused())?;
                Ok(Box::new(near) as BoxedIo)
            })
        })
    }

    fn client(&self, name: &str, cache: Option<PathBuf>) -> (Handle, mpsc::Receiver<Batch>) {
        start(Options {
            dial: self.dial(),
            node_id: format!("workload/shop/{name}"),
            cache,
        })
    }
}

fn world() -> (Plane, Address) {
    let plane = Plane::start();
    let address = Address::default();
    address.set(Some(&plane));
    (plane, address)
}

/// Takes the next batch, accepts it, and names what was in it: `+` for upserts, `-` for removals.
async fn next(batches: &mut mpsc::Receiver<Batch>) -> Vec<String> {
    let batch = batches.recv().await.expect("the client lives");
    let upserts = batch.upserts.iter().map(|(key, _)| format!("+{key}"));
    let removed = batch.removed.iter().map(|key| format!("-{key}"));
    let names = upserts.chain(removed).collect();
    batch.accept();
    names
}

#[tokio::test(start_paused = true)]
async fn each_subscription_is_answered() {
    let (plane, address) = world();
    plane.distributor.apply(vec![
        put(service("reviews", 1, false)),
        put(endpoint("reviews", "reviews-0", 1)),
        put(endpoint("reviews", "reviews-1", 1)),
        put(endpoint("ratings", "ratings-0", 1)),
    ]);
    let (handle, mut batches) = address.client("a", None);
    handle.subscribe(Kind::Service, "ip/240.0.0.1");
    assert_eq!(next(&mut batches).await, ["+Service shop/reviews"]);
    handle.subscribe(Kind::Endpoint, "shop/reviews/*");
    assert_eq!(
        next(&mut batches).await,
        [
            "+Endpoint shop/reviews/shop.reviews-0",
            "+Endpoint shop/reviews/shop.reviews-1"
        ]
    );
    handle.subscribe(Kind::Route, "shop/reviews/*");
    assert_eq!(next(&mut batches).await, ["-Route shop/reviews/*"]);
    handle.subscribe(Kind::Service, "ip/240.0.0.9");
    assert_eq!(next(&mut batches).await, ["-Service ip/240.0.0.9"]);

    let gone = endpoint("reviews", "reviews-0", 1).key();
    plane.distributor.apply(vec![(gone.clone(), None)]);
    assert_eq!(
        next(&mut batches).await,
        ["-Endpoint shop/reviews/shop.reviews-0"]
    );
    plane.until(|d| d.acknowledged(&gone).acked == 1).await;
    // Nobody here asked for ratings.
    let other = endpoint("ratings", "ratings-0", 1).key();
    assert_eq!(plane.distributor.acknowledged(&other).interested, 0);

    handle.unsubscribe(Kind::Service, "ip/240.0.0.1");
    assert_eq!(next(&mut batches).await, ["-Service shop/reviews"]);
    assert!(*handle.connected().borrow());
}

#[tokio::test(start_paused = true)]
async fn asking_for_too_much_does_not_cost_what_is_there() {
    let (plane, address) = world();
    plane
        .distributor
        .apply(vec![put(service("reviews", 1, false))]);
    let (handle, mut batches) = address.client("a", None);
    assert!(handle.subscribe(Kind::Service, "shop/reviews"));
    assert_eq!(next(&mut batches).await, ["+Service shop/reviews"]);
    assert!(!handle.subscribe(Kind::Service, ""));
    assert!(!handle.subscribe(Kind::Service, &"x".repeat(2000)));
    let mut taken = 0;
    while handle.subscribe(Kind::Route, &format!("shop/x{taken}/*")) {
        taken += 1;
        assert!(taken < 100_000, "there is no bound");
    }
    assert_eq!(next(&mut batches).await.len(), taken);
    assert!(*handle.connected().borrow());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_reported_until_there_is_a_newer_version() {
    let (plane, address) = world();
    let key = service("reviews", 1, false).key();
    plane
        .distributor
        .apply(vec![put(service("reviews", 1, false))]);
    let (handle, mut batches) = address.client("a", None);
    handle.subscribe(Kind::Service, "shop/reviews");
    let batch = batches.recv().await.expect("a batch");
    batch.reject("no room");
    plane.until(|d| d.acknowledged(&key).rejected == 1).await;
    let (who, why) = plane.distributor.acknowledged(&key).rejection.expect("one");
    assert_eq!(who, "workload/shop/a");
    assert!(why.contains("no room"), "{why}");
    assert_eq!(plane.distributor.clients()[0].rejected[0].key, key);

    plane
        .distributor
        .apply(vec![put(service("reviews", 1, true))]);
    assert_eq!(next(&mut batches).await, ["+Service shop/reviews"]);
    plane.until(|d| d.acknowledged(&key).acked == 1).await;
    assert!(plane.distributor.clients()[0].rejected.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_control_plane_sends_only_what_differs() {
    let (plane, address) = world();
    let all = vec![
        put(service("a", 1, false)),
        put(service("b", 2, false)),
        put(service("c", 3, false)),
    ];
    plane.distributor.apply(all.clone());
    let (handle, mut batches) = address.client("a", None);
    let mut connected = handle.connected();
    for name in ["shop/a", "shop/b", "shop/c"] {
        handle.subscribe(Kind::Service, name);
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(next(&mut batches).await);
    }
    plane.until(|d| d.clients()[0].kinds[0].acked == 3).await;

    address.set(None);
    plane.distributor.close();
    connected.wait_for(|c| !c).await.expect("the client lives");
    let second = Plane::start();
    second.distributor.apply(all);
    second.distributor.apply(vec![
        put(service("b", 2, true)),
        (service("c", 3, false).key(), None),
    ]);
    address.set(Some(&second));
    assert_eq!(
        next(&mut batches).await,
        ["+Service shop/b", "-Service shop/c"]
    );
    connected.wait_for(|c| *c).await.expect("the client lives");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_starts_from_its_cache_without_a_control_plane() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = directory.path().join("last-good");
    let (plane, address) = world();
    plane.distributor.apply(vec![
        put(Resource::Mesh(Mesh::default())),
        put(service("reviews", 1, false)),
    ]);
    let (handle, mut batches) = address.client("a", Some(cache.clone()));
    handle.subscribe(Kind::Service, "shop/reviews");
    handle.subscribe(Kind::Mesh, "default");
    handle.subscribe(Kind::Route, "shop/reviews/*");
    for _ in 0..3 {
        next(&mut batches).await;
    }
    plane
        .until(|d| d.clients()[0].kinds.iter().all(|k| k.acked == k.sent))
        .await;
    // What was acknowledged is written soon after; the file is replaced whole.
    while codec_of(&cache).is_none_or(|resources| resources < 2) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    drop(batches);

    address.set(None);
    let (handle, mut batches) = address.client("a", Some(cache.clone()));
    assert_eq!(handle.subscriptions().len(), 3);
    assert_eq!(
        next(&mut batches).await,
        [
            "+Mesh default",
            "+Service shop/reviews",
            "-Route shop/reviews/*"
        ]
    );
    assert!(!*handle.connected().borrow());
    // Back again, the control plane has one thing to say.
    plane
        .distributor
        .apply(vec![put(service("reviews", 1, true))]);
    address.set(Some(&plane));
    assert_eq!(next(&mut batches).await, ["+Service shop/reviews"]);

    // Another proxy's file is not taken, nor is garbage.
    let (handle, _batches) = address.client("b", Some(cache.clone()));
    assert!(handle.subscriptions().is_empty());
    std::fs::write(&cache, b"\xff\xff\xff").expect("writable");
    let (handle, _batches) = address.client("a", Some(cache));
    assert!(handle.subscriptions().is_empty());
}

/// How many resources the file has; `None` if there is none.
fn codec_of(path: &std::path::Path) -> Option<usize> {
    let bytes = std::fs::read(path).ok()?;
    let cache: crate::proto::v1::Cache = prost::Message::decode(&*bytes).expect("whole");
    Some(cache.kinds.iter().map(|kind| kind.resources.len()).sum())
}

#[tokio::test(start_paused = true)]
async fn a_slow_proxy_gets_the_latest_and_no_queue() {
    let (plane, address) = world();
    let key = endpoint("reviews", "reviews-0", 1).key();
    plane
        .distributor
        .apply(vec![put(endpoint("reviews", "reviews-0", 1))]);
    let (handle, mut batches) = address.client("a", None);
    handle.subscribe(Kind::Endpoint, "shop/reviews/*");
    let first = batches.recv().await.expect("a batch");
    for weight in 2..1000 {
        let change = put(endpoint("reviews", "reviews-0", weight));
        plane.distributor.apply(vec![change]);
    }
    first.accept();
    let mut batches_seen = 1;
    while plane.distributor.acknowledged(&key).acked == 0 {
        let mut changes = plane.distributor.changes();
        tokio::select! {
            _ = next(&mut batches) => batches_seen += 1,
            _ = changes.changed() => {}
        }
    }
    assert!(batches_seen <= 3, "{batches_seen} batches for one resource");
}

#[tokio::test(start_paused = true)]
async fn a_silent_control_plane_is_noticed() {
    let silent = Arc::new(AtomicBool::new(true));
    let (plane, address) = world();
    plane
        .distributor
        .apply(vec![put(service("reviews", 1, false))]);
    let (working, quiet) = (address.dial(), Arc::clone(&silent));
    let held = Arc::new(Mutex::new(Vec::new()));
    let dial: Dial = Arc::new(move || {
        if quiet.swap(false, Ordering::Relaxed) {
            let (near, far) = tokio::io::duplex(64 * 1024);
            held.lock().expect("not poisoned").push(far);
            Box::pin(async move { Ok(Box::new(near) as BoxedIo) })
        } else {
            working()
        }
    });
    let node_id = "workload/shop/a".to_owned();
    let (handle, mut batches) = start(Options {
        dial,
        node_id,
        cache: None,
    });
    handle.subscribe(Kind::Service, "shop/reviews");
    let began = tokio::time::Instant::now();
    assert_eq!(next(&mut batches).await, ["+Service shop/reviews"]);
    let took = began.elapsed();
    assert!(took.as_secs() < 30, "noticed only after {took:?}");
    assert!(!silent.load(Ordering::Relaxed));
}

async fn raw(
    address: &Address,
    request: DeltaDiscoveryRequest,
) -> Result<Option<crate::proto::discovery::DeltaDiscoveryResponse>, tonic::Status> {
    let mut client = AggregatedDiscoveryServiceClient::new(channel(address.dial()));
    // The stream stays open: it is the server that ends it.
    let requests = futures_util::StreamExt::chain(
        tokio_stream::iter([request]),
        futures_util::stream::pending(),
    );
    let mut responses = client
        .delta_aggregated_resources(requests)
        .await?
        .into_inner();
    responses.message().await
}

#[tokio::test(start_paused = true)]
async fn a_bad_stream_ends_alone_and_says_why() {
    let (plane, address) = world();
    plane
        .distributor
        .apply(vec![put(service("reviews", 1, false))]);
    let (handle, mut batches) = address.client("a", None);
    handle.subscribe(Kind::Service, "shop/reviews");
    next(&mut batches).await;

    let request = |node: &str, url: &str, name: &str| DeltaDiscoveryRequest {
        node: Some(Node {
            id: node.to_owned(),
            ..Default::default()
        }),
        type_url: url.to_owned(),
        resource_names_subscribe: vec![name.to_owned()],
        ..Default::default()
    };
    let url = codec::type_url(Kind::Service);
    let cases = [
        (
            request("workload/shop/x", "nonsense", "a"),
            Code::InvalidArgument,
        ),
        (request("workload/shop/x", url, ""), Code::InvalidArgument),
        (request("", url, "a"), Code::InvalidArgument),
        (
            request("workload/other/x", url, "a"),
            Code::PermissionDenied,
        ),
    ];
    for (request, code) in cases {
        let status = raw(&address, request.clone()).await.expect_err("refused");
        assert_eq!(status.code(), code, "{request:?}: {status}");
    }
    let good = raw(&address, request("workload/shop/x", url, "shop/none")).await;
    let good = good.expect("answered").expect("a response");
    assert_eq!(good.removed_resources, ["shop/none"]);

    let mut client = AggregatedDiscoveryServiceClient::new(channel(address.dial()));
    let requests = tokio_stream::iter([DiscoveryRequest::default()]);
    let status = client.stream_aggregated_resources(requests).await;
    assert_eq!(status.expect_err("not served").code(), Code::Unimplemented);

    plane
        .distributor
        .apply(vec![put(service("reviews", 1, true))]);
    assert_eq!(next(&mut batches).await, ["+Service shop/reviews"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_only_those_whom_it_concerns() {
    let (plane, address) = world();
    let mut clients = Vec::new();
    for n in 0..10 {
        let (handle, mut batches) = address.client(&format!("w{n}"), None);
        handle.subscribe(Kind::Service, &format!("shop/s{n}"));
        next(&mut batches).await;
        clients.push((handle, batches));
    }
    plane.distributor.apply(vec![put(service("s3", 3, false))]);
    assert_eq!(next(&mut clients[3].1).await, ["+Service shop/s3"]);
    let key = service("s3", 3, false).key();
    plane.until(|d| d.acknowledged(&key).acked == 1).await;
    assert_eq!(plane.distributor.acknowledged(&key).interested, 1);
    for (n, (_, batches)) in clients.iter_mut().enumerate() {
        assert!(batches.try_recv().is_err(), "client {n}");
    }
    // Streams that end leave nothing behind.
    clients.clear();
    plane.until(|d| d.clients().is_empty()).await;
    assert_eq!(plane.distributor.acknowledged(&key).interested, 0);
}
