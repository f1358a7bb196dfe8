//! The upstream of every measurement: `--h1 ADDR` (a thread for each connection; `/big` answers
//! 100 KiB, anything else 13 bytes) and `--h2 ADDR` (hyper, prior knowledge).
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use bench::Arguments;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

const SMALL: usize = 13;
const BIG: usize = 100 << 10;

fn main() {
    let arguments = Arguments::of_process();
    if let Some(address) = arguments.text("h2").map(str::to_owned) {
        thread::spawn(move || h2(&address));
    }
    let address = arguments.text("h1").expect("--h1 ADDR");
    let listener = TcpListener::bind(address).expect("a free address");
    for stream in listener.incoming().flatten() {
        let builder = thread::Builder::new().stack_size(256 << 10);
        // Without a thread the connection is closed, which the load reports.
        let _ = builder.spawn(move || serve(stream));
    }
}

fn response(length: usize) -> Vec<u8> {
    let mut text =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n")
            .into_bytes();
    text.resize(text.len() + length, b'x');
    text
}

/// Answers requests without bodies, as fast as can be.
fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (small, big) = (response(SMALL), response(BIG));
    let mut pending = Vec::with_capacity(16 << 10);
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        pending.extend_from_slice(&bytes[..count]);
        while let Some(end) = pending.windows(4).position(|w| w == b"\r\n\r\n") {
            let answer = if pending.starts_with(b"GET /big") {
                &big
            } else {
                &small
            };
            if stream.write_all(answer).is_err() {
                return;
            }
            pending.drain(..end + 4);
        }
    }
}

/// 13 bytes; to gRPC a message and trailers.
async fn answer(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
    if request.headers().get(CONTENT_TYPE) != Some(&GRPC) {
        let body = Full::new(Bytes::from_static(&[b'x'; SMALL]));
        return Ok(Response::new(body.boxed()));
    }
    let body = Full::new(Bytes::from_static(b"\0\0\0\0\x0dxxxxxxxxxxxxx"));
    let trailers = async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Some(Ok(trailers))
    };
    let mut response = Response::new(body.with_trailers(trailers).boxed());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    Ok(response)
}

fn h2(address: &str) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .expect("a free address");
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let service = service_fn(answer);
                let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                server.max_concurrent_streams(1000);
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}
