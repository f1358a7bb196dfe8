//! HTTP/2 and gRPC through two proxies, with tonic at both ends.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use nix::sys::signal::Signal;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::codegen::{BoxFuture, Service};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::mesh::{Mesh, Mode, SOON, Workload, in_both_modes};

in_both_modes!(
    all_four_kinds_of_calls_pass_with_their_status,
    a_call_may_stay_open_while_both_sides_talk,
    large_streams_pass_whole_in_both_directions,
);

/// `google.protobuf.StringValue`.
type Text = String;
type Texts = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

/// A server whose methods are named after what they do.
#[derive(Clone)]
pub(crate) struct Echo(pub(crate) &'static str);

/// Serves gRPC on a listener until the test process ends.
pub(crate) fn serve(listener: TcpListener, echo: Echo) {
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            let incoming = TcpListenerStream::new(listener);
            let server = Server::builder().add_service(echo);
            server
                .serve_with_incoming(incoming)
                .await
                .expect("a server");
        });
    });
}

pub(crate) fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let method = Method(method.to_owned(), self.0);
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
            Ok(grpc.streaming(method, request).await)
        })
    }
}

/// One call: what is asked for, and who answers.
struct Method(String, &'static str);

impl tonic::server::StreamingService<Text> for Method {
    type Response = Text;
    type ResponseStream = Texts;
    type Future = BoxFuture<Response<Texts>, Status>;

    fn call(&mut self, request: Request<Streaming<Text>>) -> Self::Future {
        let (method, name) = (self.0.clone(), self.1);
        let agent = request.metadata().get("x-caller").cloned();
        let mut requests = request.into_inner();
        Box::pin(async move {
            let texts: Texts = match method.as_str() {
                "Who" | "WhoElse" => Box::pin(tokio_stream::once(Ok(name.to_owned()))),
                "Unary" => {
                    let text = requests.message().await?.unwrap_or_default();
                    Box::pin(tokio_stream::once(Ok(format!("hello {text}"))))
                }
                "Count" => {
                    let text = requests.message().await?.unwrap_or_default();
                    let count: u32 = text.parse().map_err(|_| Status::invalid_argument(text))?;
                    Box::pin(tokio_stream::iter((0..count).map(|n| Ok(n.to_string()))))
                }
                "Join" => {
                    let mut all = String::new();
                    while let Some(text) = requests.message().await? {
                        all.push_str(&text);
                    }
                    Box::pin(tokio_stream::once(Ok(all)))
                }
                "Size" => {
                    let mut size = 0;
                    while let Some(text) = requests.message().await? {
                        size += text.len();
                    }
                    Box::pin(tokio_stream::once(Ok(size.to_string())))
                }
                "Bulk" => Box::pin(tokio_stream::iter((0..LARGE).map(|_| Ok(large())))),
                "Talk" => Box::pin(requests.map(|text| text.map(|text| format!("re: {text}")))),
                "Fail" => return Err(Status::failed_precondition("not now: ä")),
                "FailLate" => {
                    let mut status = Status::resource_exhausted("no more");
                    status
                        .metadata_mut()
                        .insert("x-detail", "7".parse().expect("ASCII"));
                    Box::pin(tokio_stream::iter([Ok("one".to_owned()), Err(status)]))
                }
                "Slow" => {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    Box::pin(tokio_stream::empty())
                }
                _ => return Err(Status::unimplemented(method)),
            };
            let mut response = Response::new(texts);
            if let Some(agent) = agent {
                response.metadata_mut().insert("x-caller", agent);
            }
            Ok(response)
        })
    }
}

/// Messages in a large stream, and one of them: 20 MB together.
const LARGE: usize = 320;

fn large() -> Text {
    "x".repeat(64 << 10)
}

type Client = tonic::client::Grpc<Channel>;

/// Connects as an application would that knows nothing of the mesh.
pub(crate) async fn client(workload: &Workload, host: &str) -> Client {
    let way = format!("http://{}", workload.way(host));
    let endpoint = Endpoint::from_shared(way).expect("an address");
    let origin = format!("http://{host}").parse().expect("a URI");
    let channel = endpoint.origin(origin).connect().await;
    tonic::client::Grpc::new(channel.expect("the proxy accepts"))
}

/// Connects to an address, for this host.
pub(crate) async fn client_at(address: SocketAddr, host: &str) -> Result<Client, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
    let origin = format!("http://{host}").parse().expect("a URI");
    let channel = endpoint.origin(origin).connect().await;
    channel
        .map(tonic::client::Grpc::new)
        .map_err(|e| e.to_string())
}

pub(crate) async fn unary(client: &mut Client, method: &str, text: &str) -> Result<Text, Status> {
    unary_with(client, method, text, &[]).await
}

/// A call with metadata.
pub(crate) async fn unary_with(
    client: &mut Client,
    method: &str,
    text: &str,
    metadata: &[(&'static str, &'static str)],
) -> Result<Text, Status> {
    client
        .ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let codec = ProstCodec::<Text, Text>::default();
    let mut request = Request::new(text.to_owned());
    for (name, value) in metadata {
        let value = MetadataValue::from_static(value);
        request.metadata_mut().insert(*name, value);
    }
    let response = client.unary(request, path(method), codec).await?;
    Ok(response.into_inner())
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Echo/{method}").parse().expect("a path")
}

fn all_four_kinds_of_calls_pass_with_their_status(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let (_server, listener) = mesh.bound("echo", "echo", "/grpc", &[]);
    serve(listener, Echo("echo"));
    mesh.wait_ready("echo");
    let workload = mesh.client();
    workload.inside(|| runtime().block_on(calls(&workload)));
}

async fn calls(workload: &Workload) {
    let mut client = client(workload, "echo").await;
    let codec = ProstCodec::<Text, Text>::default;
    assert_eq!(
        unary(&mut client, "Unary", "you").await.unwrap(),
        "hello you"
    );

    client.ready().await.unwrap();
    let counted = client.server_streaming(Request::new("2000".to_owned()), path("Count"), codec());
    let texts: Vec<_> = counted.await.unwrap().into_inner().collect().await;
    assert_eq!(texts.len(), 2000);
    assert_eq!(texts[1999].as_deref().unwrap(), "1999");

    client.ready().await.unwrap();
    let parts = tokio_stream::iter(["a", "b", "c"].map(str::to_owned));
    let joined = client
        .client_streaming(Request::new(parts), path("Join"), codec())
        .await;
    assert_eq!(joined.unwrap().into_inner(), "abc");

    let failed = unary(&mut client, "Fail", "").await.unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        (Code::FailedPrecondition, "not now: ä")
    );
    let missing = unary(&mut client, "Nothing", "").await.unwrap_err();
    assert_eq!(missing.code(), Code::Unimplemented);

    client.ready().await.unwrap();
    let mut request = Request::new(String::new());
    request
        .metadata_mut()
        .insert("x-caller", "the test".parse().unwrap());
    let response = client
        .server_streaming(request, path("FailLate"), codec())
        .await
        .unwrap();
    assert_eq!(response.metadata().get("x-caller").unwrap(), "the test");
    let mut texts = response.into_inner();
    assert_eq!(texts.message().await.unwrap().as_deref(), Some("one"));
    let late = texts.message().await.unwrap_err();
    assert_eq!(
        (late.code(), late.message()),
        (Code::ResourceExhausted, "no more")
    );
    assert_eq!(late.metadata().get("x-detail").unwrap(), "7");

    client.ready().await.unwrap();
    let mut request = Request::new(String::new());
    request.set_timeout(Duration::from_millis(200));
    let slow = client
        .server_streaming(request, path("Slow"), codec())
        .await;
    let slow = slow.expect_err("the deadline passes");
    assert!(
        matches!(slow.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{slow:?}"
    );
    // The connection has survived all that.
    assert_eq!(
        unary(&mut client, "Unary", "again").await.unwrap(),
        "hello again"
    );
}

fn a_call_may_stay_open_while_both_sides_talk(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let (_server, listener) = mesh.bound("echo", "echo", "/grpc", &[]);
    serve(listener, Echo("echo"));
    mesh.wait_ready("echo");
    let workload = mesh.client();
    workload.inside(|| {
        runtime().block_on(async {
            let mut client = client(&workload, "echo").await;
            client.ready().await.unwrap();
            let (say, said) = mpsc::channel::<Text>(1);
            let codec = ProstCodec::<Text, Text>::default();
            let request = Request::new(ReceiverStream::new(said));
            let response = client
                .streaming(request, path("Talk"), codec)
                .await
                .unwrap();
            let mut answers = response.into_inner();
            for n in 0..20 {
                // Each only after the answer to the one before: nothing may be held back.
                say.send(n.to_string()).await.unwrap();
                let answer = tokio::time::timeout(SOON, answers.message()).await;
                let answer = answer.expect("an answer before the next word").unwrap();
                assert_eq!(answer, Some(format!("re: {n}")));
            }
            drop(say);
            assert_eq!(answers.message().await.unwrap(), None);
        });
    });
}

fn large_streams_pass_whole_in_both_directions(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let (_server, listener) = mesh.bound("echo", "echo", "/grpc", &[]);
    serve(listener, Echo("echo"));
    mesh.wait_ready("echo");
    let workload = mesh.client();
    workload.inside(|| {
        runtime().block_on(async {
            let mut client = client(&workload, "echo").await;
            client.ready().await.unwrap();
            let codec = ProstCodec::<Text, Text>::default;
            let parts = tokio_stream::iter((0..LARGE).map(|_| large()));
            let request = Request::new(parts);
            let size = client
                .client_streaming(request, path("Size"), codec())
                .await;
            let total = LARGE * large().len();
            assert_eq!(size.unwrap().into_inner(), total.to_string());

            client.ready().await.unwrap();
            let request = Request::new(String::new());
            let bulk = client
                .server_streaming(request, path("Bulk"), codec())
                .await;
            let mut bulk = bulk.unwrap().into_inner();
            let mut received = 0;
            while let Some(text) = bulk.message().await.unwrap() {
                received += text.len();
            }
            assert_eq!(received, total);
        });
    });
}

#[test]
fn a_failure_of_the_mesh_is_a_grpc_status_with_the_reason() {
    let mesh = Mesh::start();
    let _server = mesh.idle("silent", "silent", &["--port", "1/grpc"]);
    let workload = mesh.client();
    runtime().block_on(async {
        let mut client = client(&workload, "silent").await;
        let failed = unary(&mut client, "Unary", "").await.unwrap_err();
        assert_eq!(failed.code(), Code::Unavailable, "{failed:?}");
        assert!(
            failed.message().contains("no_healthy_endpoints"),
            "{failed:?}"
        );
        let status = failed
            .metadata()
            .get("proxy-status")
            .unwrap()
            .to_str()
            .unwrap();
        assert!(status.starts_with("tulle; error="), "{status}");
    });
}

#[test]
fn grpc_routes_choose_by_method_and_metadata() {
    let mesh = Mesh::start();
    let servers = ["v1", "v2"].map(|name| {
        let (workload, listener) = mesh.bound(name, name, "/grpc", &[]);
        serve(listener, Echo(name));
        mesh.wait_ready(name);
        workload
    });
    mesh.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec: {selector: {app: ratings}, ports: [{port: 80, appProtocol: grpc}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: ratings}
spec:
  parentRefs: [{group: \"\", kind: Service, name: ratings}]
  rules:
    - matches:
        - {method: {service: test.Echo, method: WhoElse}}
        - {method: {service: test.Echo, method: Who}, headers: [{name: x-tester, value: \"yes\"}]}
      backendRefs: [{name: v2, port: 80}]
    - matches: [{method: {service: test.Echo, method: Who}}]
      backendRefs: [{name: v1, port: 80}]
",
    );
    let workload = mesh.client();
    runtime().block_on(async {
        let mut client = client(&workload, "ratings").await;
        assert_eq!(unary(&mut client, "Who", "").await.unwrap(), "v1");
        assert_eq!(unary(&mut client, "WhoElse", "").await.unwrap(), "v2");
        client.ready().await.unwrap();
        let mut request = Request::new(String::new());
        request
            .metadata_mut()
            .insert("x-tester", "yes".parse().unwrap());
        let codec = ProstCodec::<Text, Text>::default();
        let answer = client.unary(request, path("Who"), codec).await.unwrap();
        assert_eq!(answer.into_inner(), "v2");
        let failed = unary(&mut client, "Unary", "").await.unwrap_err();
        assert_eq!(failed.code(), Code::Unimplemented, "{failed:?}");
        assert!(failed.message().contains("no_route"), "{failed:?}");
    });
    drop(servers);
}

#[test]
fn servers_that_come_and_go_cost_no_call_on_a_kept_connection() {
    let mesh = Mesh::start();
    let start = |name: &'static str| {
        let (workload, listener) = mesh.bound("echo", name, "/grpc", &[]);
        serve(listener, Echo(name));
        mesh.wait_ready(name);
        workload
    };
    let _stays = start("stays");
    let workload = mesh.client();
    runtime().block_on(async {
        let mut client = client(&workload, "echo").await;
        for name in ["one", "two"] {
            let comes = start(name);
            let mut seen = 0;
            while seen < 20 {
                seen += u32::from(unary(&mut client, "Who", "").await.unwrap() == name);
            }
            comes.process.signal(Signal::SIGTERM);
            while mesh.workload(name).is_some() {
                unary(&mut client, "Who", "").await.unwrap();
            }
            for _ in 0..50 {
                assert_eq!(unary(&mut client, "Who", "").await.unwrap(), "stays");
            }
        }
    });
}
