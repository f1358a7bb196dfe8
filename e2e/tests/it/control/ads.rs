//! xDS peers that send nonsense, and peers who say that they are others: their own stream ends with
//! a reason, and other proxies go on.

use bytes::{Buf as _, BufMut as _};
use testkit::certs::Forged;
use testkit::upstream::{Step, Upstream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status, Streaming};
use xds::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use xds::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest};
use xds::proto::envoy::config::core::v3::Node;

use super::*;

/// A stream under the test's hand.
pub(super) struct Peer {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

/// A subscription to these names of a kind.
pub(super) fn subscribe(kind: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: format!("type.googleapis.com/tulle.v1.{kind}"),
        resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

impl Peer {
    /// Opens a stream under this name with a first request.
    pub(super) async fn open(
        plane: &Plane,
        who: Option<&Forged>,
        node: &str,
        first: DeltaDiscoveryRequest,
    ) -> Result<Self, Status> {
        let (requests, queue) = mpsc::channel(16);
        let node = Node {
            id: node.to_owned(),
            ..Node::default()
        };
        let first = DeltaDiscoveryRequest {
            node: Some(node),
            ..first
        };
        requests.send(first).await.expect("the queue is there");
        let mut client = AggregatedDiscoveryServiceClient::new(rpc::channel(plane, who));
        let responses = client
            .delta_aggregated_resources(ReceiverStream::new(queue))
            .await?
            .into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    pub(super) async fn send(&self, request: DeltaDiscoveryRequest) {
        // A stream that has ended says why when it is read.
        let _ = self.requests.send(request).await;
    }

    /// The next response, or how the stream ended.
    pub(super) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        match tokio::time::timeout(SOON, self.responses.message()).await {
            Ok(message) => {
                message?.ok_or_else(|| Status::aborted("the stream ended without a reason"))
            }
            Err(elapsed) => panic!("no response: {elapsed}"),
        }
    }

    /// Reads until the stream ends.
    async fn ending(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

#[test]
fn a_stream_is_for_the_certificates_own_workload() {
    let plane = Plane::start("own");
    let (_caller, _) = plane.client("caller", &[]);
    let (_other, _) = plane.client("other", &[]);
    let own = Forged::from_pem(&plane.svid("caller"));
    rpc::runtime().block_on(async {
        let first = || subscribe("Workload", &["shop/caller"]);
        let mut peer = Peer::open(&plane, Some(&own), "workload/shop/caller", first())
            .await
            .expect("opened");
        let response = peer.next().await.expect("the resource");
        assert_eq!(response.resources[0].name, "shop/caller");

        for (who, node, part) in [
            (
                Some(&own),
                "workload/shop/other",
                "runs as service account other",
            ),
            (Some(&own), "workload/bank/caller", "not of the namespace"),
            (Some(&own), "workload/bank", "not of the namespace"),
            (None, "workload/shop/caller", "needs a certificate"),
        ] {
            let status = match Peer::open(&plane, who, node, first()).await {
                Ok(mut peer) => peer.ending().await,
                Err(status) => status,
            };
            assert_eq!(status.code(), Code::PermissionDenied, "{node}: {status}");
            has(status.message(), &[part]);
        }
        peer.send(subscribe("Mesh", &["default"])).await;
        peer.next().await.expect("the first stream goes on");
    });
}

#[test]
fn nonsense_ends_its_own_stream_and_no_other() {
    let mut plane = Plane::start("nonsense");
    let program = Upstream::start(|_| Step::answer("reviews"));
    let _reviews = plane.serve("reviews", "reviews-0", program.port());
    let (_caller, proxy) = plane.client("caller", &[]);
    wait_through(proxy, "reviews.shop", "reviews");
    let own = Forged::from_pem(&plane.svid("caller"));
    let before = garbage::memory(plane.process.pid());

    rpc::runtime().block_on(async {
        let many: Vec<String> = (0..100_000).map(|n| format!("shop/s{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let long = "n".repeat(100_000);
        let claims = DeltaDiscoveryRequest {
            initial_resource_versions: (0..300_000)
                .map(|n| (format!("shop/{n}"), String::new()))
                .collect(),
            ..subscribe("Service", &["shop/reviews"])
        };
        let unknown = |url: &str| DeltaDiscoveryRequest {
            type_url: url.to_owned(),
            ..subscribe("Service", &["a/b"])
        };
        for (what, node, first, code) in [
            (
                "an unknown type",
                "test/a",
                unknown("type.googleapis.com/envoy.config.cluster.v3.Cluster"),
                Code::InvalidArgument,
            ),
            ("no type", "test/a", unknown(""), Code::InvalidArgument),
            (
                "a type of 100 kB",
                "test/a",
                unknown(&long),
                Code::InvalidArgument,
            ),
            (
                "no node",
                "",
                subscribe("Service", &["a/b"]),
                Code::InvalidArgument,
            ),
            (
                "a node of 100 kB",
                &long,
                subscribe("Service", &["a/b"]),
                Code::InvalidArgument,
            ),
            (
                "a name of 100 kB",
                "test/a",
                subscribe("Service", &[&long]),
                Code::InvalidArgument,
            ),
            (
                "an empty name",
                "test/a",
                subscribe("Service", &[""]),
                Code::InvalidArgument,
            ),
            (
                "100,000 names",
                "test/a",
                subscribe("Service", &many),
                Code::ResourceExhausted,
            ),
            (
                "300,000 versions",
                "test/a",
                claims,
                Code::ResourceExhausted,
            ),
        ] {
            let mut peer = Peer::open(&plane, Some(&own), node, first)
                .await
                .expect("a stream");
            let status = peer.ending().await;
            assert_eq!(status.code(), code, "{what}: {status}");
            assert!(
                status.message().len() < 1000,
                "{what}: {} bytes of message",
                status.message().len()
            );
        }

        // Names that nothing has, in many small requests: the limit is on the stream, not the request.
        let mut peer = Peer::open(&plane, Some(&own), "test/a", subscribe("Route", &["a/b/*"]))
            .await
            .expect("a stream");
        for chunk in many.chunks(1000) {
            peer.send(subscribe("Service", chunk)).await;
        }
        assert_eq!(peer.ending().await.code(), Code::ResourceExhausted);

        // Nonces that were never given out are not answers to anything.
        let mut peer = Peer::open(
            &plane,
            Some(&own),
            "test/a",
            subscribe("Mesh", &["default"]),
        )
        .await
        .expect("a stream");
        peer.next().await.expect("a response");
        for n in 0..1000 {
            let stale = DeltaDiscoveryRequest {
                response_nonce: format!("stale-{n}"),
                error_detail: Some(xds::proto::google::rpc::Status {
                    code: 3,
                    message: "no".to_owned(),
                    ..Default::default()
                }),
                ..subscribe("Mesh", &[])
            };
            peer.send(stale).await;
        }
        peer.send(subscribe("Service", &["shop/reviews"])).await;
        let response = peer.next().await.expect("it goes on");
        assert_eq!(response.resources[0].name, "shop/reviews");

        for bytes in [
            vec![0xff; 100],
            vec![],
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
            vec![0x12; 1 << 20],
            vec![0x12; 20 << 20],
        ] {
            let size = bytes.len();
            let status = garbled(&plane, &own, bytes).await;
            assert_ne!(status.code(), Code::Ok, "{size} bytes: {status}");
        }
        let mut old = AggregatedDiscoveryServiceClient::new(rpc::channel(&plane, Some(&own)));
        let refused = old
            .stream_aggregated_resources(tokio_stream::iter([DiscoveryRequest::default()]))
            .await;
        has(
            refused.expect_err("not served").message(),
            &["DeltaAggregatedResources"],
        );
    });

    // The real proxy has had its stream all the while, and learns of changes.
    let route = SHOP.split("---").nth(1).expect("a route");
    plane.apply("route.yaml", route).success();
    wait_for("the proxy's acknowledgement", SOON, || {
        let condition = plane.condition("httproutes", "shop/reviews", "Programmed")?;
        (condition["status"] == "True").then_some(())
    });
    wait_through(proxy, "reviews.shop", "reviews");
    let streams = plane.status()["proxies"]
        .as_array()
        .cloned()
        .expect("a list");
    let nodes: Vec<_> = streams.iter().map(|p| &p["node"]).collect();
    assert_eq!(
        nodes,
        ["workload/shop/caller", "workload/shop/reviews-0"],
        "streams that have ended are listed"
    );
    assert!(plane.process.is_running());
    let after = garbage::memory(plane.process.pid());
    assert!(
        after < before + 200_000,
        "{before} kB of memory became {after} kB"
    );
}

/// Sends bytes that are no message; how the stream ends.
async fn garbled(plane: &Plane, who: &Forged, bytes: Vec<u8>) -> Status {
    let mut client = Grpc::new(rpc::channel(plane, Some(who)));
    client.ready().await.expect("a connection");
    let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
    let stream =
        tokio_stream::StreamExt::chain(tokio_stream::iter([bytes]), tokio_stream::pending());
    let request = Request::new(stream);
    let path = path.parse().expect("a path");
    let mut responses = match client.streaming(request, path, Verbatim).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    match tokio::time::timeout(SOON, responses.message())
        .await
        .expect("in time")
    {
        Ok(message) => panic!("it was answered: {message:?}"),
        Err(status) => status,
    }
}

/// Messages as they are.
struct Verbatim;

impl Codec for Verbatim {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Verbatim {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Verbatim {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}
