//! Delivering an answer to the client, and what becomes of a connection that changes its protocol
//! (RFC 9110 7.8): from then on it is two streams of bytes.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use net::copy;

use crate::body::ResponseBody;
use crate::error::chain;
use crate::forward::Answer;
use crate::headers::{self, PEER_FAILURE};
use crate::record::Exchange;

/// The client's side of a change of protocol, if the request asks for one.
pub(crate) fn requested(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    request
        .headers()
        .contains_key(http::header::UPGRADE)
        .then(|| hyper::upgrade::on(request))
}

/// Passes an answer on. A `101` joins the two connections once both have changed.
pub(crate) fn deliver(
    mut exchange: Exchange,
    answer: Answer,
    client: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    let Answer {
        mut response,
        lease,
    } = answer;
    response.headers_mut().remove(PEER_FAILURE);
    headers::strip_hop_by_hop(response.headers_mut());
    // RFC 9110 6.2: what is passed on has our version, also where the application spoke HTTP/1.0.
    *response.version_mut() = http::Version::HTTP_11;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        exchange.hold(lease);
        return response.map(|incoming| ResponseBody::stream(incoming, exchange));
    }
    let server = hyper::upgrade::on(&mut response);
    headers::ask_upgrade(response.headers_mut());
    if let Some(client) = client {
        tokio::task::spawn_local(async move {
            // Held until the end: dropping it would close the connection to the endpoint.
            let _lease = lease;
            match tokio::try_join!(client, server) {
                Ok((client, server)) => {
                    let outcome = copy::bidirectional(
                        TokioIo::new(client),
                        TokioIo::new(server),
                        copy::Options::default(),
                    )
                    .await;
                    exchange.response_bytes(outcome.b_to_a);
                    exchange.request_bytes().set(outcome.a_to_b);
                }
                Err(error) => tracing::debug!(error = chain(&error), "change of protocol failed"),
            }
            exchange.complete(None);
        });
    }
    response.map(|_| ResponseBody::empty())
}
