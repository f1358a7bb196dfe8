//! Outbound: requests of the application to others.
//!
//! Where a request goes is known from its connection (intercepted, or a loopback port that leads to
//! one service) or from its authority (explicit mode). From there: route, filter, pick, send.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, StatusCode, request};
use hyper::body::Incoming;
use model::name::service_of_host;
use model::route::{Filter, HeaderChange, Target};
use model::{Reason, route};
use policy::filter::{self, Origin};
use policy::route::{Decision, RequestView};
use policy::{path, split};
use telemetry::Direction;

use crate::body::ResponseBody;
use crate::destination::{Destination, View};
use crate::error::Failure;
use crate::forward::{self, Order, forward};
use crate::headers;
use crate::record::{Caller, Exchange, NONE};
use crate::state::Lookup;
use crate::worker::Worker;
use crate::{external, reply, upgrade};

/// Where the requests of a connection go.
#[derive(Clone)]
pub(crate) enum Inlet {
    /// Each where its authority says: the connection is one to a proxy.
    Authority,
    /// All to one port of a service.
    Service(Arc<Destination>, u16),
}

/// What a host and port lead to.
pub(crate) enum Found {
    Service(Arc<Destination>, u16),
    /// Outside the mesh, and allowed.
    Outside(String, u16),
}

/// Serves one request.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    inlet: Inlet,
    caller: Rc<Caller>,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let upgrade = upgrade::requested(&mut request);
    let (mut head, body) = request.into_parts();
    let mut exchange = Exchange::begin(&worker, Direction::Outbound, &caller, &mut head);
    let grpc = exchange.is_grpc();
    match serve(
        &worker,
        &inlet,
        &mut exchange,
        head,
        body,
        upgrade.is_some(),
    )
    .await
    {
        Ok(Served::Reply(response)) => {
            exchange.reply(response.status().as_u16());
            response
        }
        Ok(Served::Answer(answer)) => upgrade::deliver(exchange, answer, upgrade),
        Err(failure) => {
            exchange.fail(&failure);
            reply::failure(&failure, grpc)
        }
    }
}

enum Served {
    Reply(Response<ResponseBody>),
    Answer(forward::Answer),
}

async fn serve(
    worker: &Rc<Worker>,
    inlet: &Inlet,
    exchange: &mut Exchange,
    mut head: request::Parts,
    body: Incoming,
    upgrade: bool,
) -> Result<Served, Failure> {
    let authority = headers::authority(&head.uri, &head.headers).ok_or_else(|| {
        Failure::new(
            Reason::BadRequest,
            "the request names no host, or more than one",
        )
    })?;
    exchange.set_authority(&authority);
    headers::strip_hop_by_hop(&mut head.headers);
    headers::ensure_host(&mut head.headers, &authority);
    let (destination, port) = match inlet {
        Inlet::Service(destination, port) => (Arc::clone(destination), *port),
        Inlet::Authority => match find(worker, &authority, default_port(&head)).await? {
            Found::Service(destination, port) => (destination, port),
            Found::Outside(host, port) => {
                exchange.set_destination(&host.as_str().into());
                let answer =
                    external::send(worker, exchange, head, body, &authority, &host, port).await?;
                return Ok(Served::Answer(answer));
            }
        },
    };
    exchange.set_destination(&destination.host);
    let view = Arc::clone(&destination.view());
    let way = match route(&view, &destination, port, &mut head, exchange, &authority)? {
        Routed::Reply(response) => return Ok(Served::Reply(response)),
        Routed::Send(way) => way,
    };
    let (backend, backend_port) = match way.backend {
        Some((name, port)) if *name != destination.name => (service(worker, name).await?, port),
        Some((_, port)) => (destination, port),
        None => (destination, port),
    };
    let backend_view = Arc::clone(&backend.view());
    let backend_port = backend_view
        .port(backend_port)
        .ok_or_else(|| no_port(&backend, &backend_view, backend_port))?;
    let limits = backend_port.policy.limits(way.rule);
    let version = head.version;
    let order = Order::new(
        head,
        body,
        way.authority,
        way.path,
        exchange,
        limits.retry.attempts > 0,
    )
    .upgrading(upgrade);
    let mut answer = forward(
        worker,
        exchange,
        &backend,
        backend_port,
        limits,
        order,
        version,
    )
    .await?;
    if let Some(failure) = Failure::of_peer(answer.response.headers()) {
        exchange.told(failure);
    }
    for change in way.response_headers {
        filter::apply_headers(answer.response.headers_mut(), change);
    }
    let until = limits
        .request_timeout
        .map(|limit| tokio::time::Instant::from_std(exchange.begun()) + limit);
    exchange.set_deadline(until, Reason::RequestTimeout);
    exchange.set_idle(limits.stream_idle);
    Ok(Served::Answer(answer))
}

/// Where a request goes and with what changes.
struct Way<'v> {
    /// `None`: the service itself.
    backend: Option<(&'v model::ServiceName, u16)>,
    rule: Option<&'v route::Rule>,
    authority: Authority,
    path: PathAndQuery,
    response_headers: Vec<&'v HeaderChange>,
}

enum Routed<'v> {
    Reply(Response<ResponseBody>),
    Send(Way<'v>),
}

fn route<'v>(
    view: &'v View,
    destination: &Destination,
    port: u16,
    head: &mut request::Parts,
    exchange: &mut Exchange,
    authority: &Authority,
) -> Result<Routed<'v>, Failure> {
    let port_view = view
        .port(port)
        .ok_or_else(|| no_port(destination, view, port))?;
    let original = head
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut way = Way {
        backend: None,
        rule: None,
        authority: authority.clone(),
        path: original.clone(),
        response_headers: Vec::new(),
    };
    // No route: the service itself is the backend (GAMMA).
    if port_view.routes.is_empty() {
        return Ok(Routed::Send(way));
    }
    let normal = path::normalize(original.path())
        .map_err(|e| Failure::new(Reason::BadRequest, e.to_string()))?;
    let request = RequestView {
        method: &head.method,
        path: &normal,
        query: original.query(),
        headers: &head.headers,
    };
    let Decision {
        rule,
        matched,
        name,
        ..
    } = port_view.routes.decide(&request).ok_or_else(|| {
        let details = format!(
            "no rule of the routes of service {} takes {} {normal}",
            destination.name, head.method
        );
        Failure::new(Reason::NoRoute, details)
    })?;
    exchange.set_route(name);
    for filter in &rule.filters {
        if let Filter::Redirect(redirect) = filter {
            let origin = Origin {
                scheme: "http",
                authority: authority.as_str(),
                port: authority.port_u16().unwrap_or(port),
            };
            let (status, location) = filter::redirect(redirect, &request, &origin, matched);
            return Ok(Routed::Reply(redirect_reply(status, &location)?));
        }
    }
    let query = original.query();
    if let Cow::Owned(normal) = &normal {
        way.path = with_query(normal, query)?;
    }
    let normal = normal.into_owned();
    let backend = split::choose(&rule.backends, rand::random()).and_then(|i| rule.backends.get(i));
    let Some(backend) = backend else {
        let details = format!("rule {name} has no backend with a weight above 0");
        return Err(Failure::no_backend(details));
    };
    for filter in rule.filters.iter().chain(&backend.filters) {
        apply(filter, head, &mut way, &normal, query, matched)?;
    }
    way.backend = Some(match &backend.target {
        Target::Service { name, port } => (name, *port),
        Target::Invalid { reason } => {
            return Err(Failure::no_backend(format!("rule {name}: {reason}")));
        }
    });
    way.rule = Some(rule);
    Ok(Routed::Send(way))
}

/// What was matched is what is sent: the application must not read another path than the rules did.
fn with_query(path: &str, query: Option<&str>) -> Result<PathAndQuery, Failure> {
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::try_from(text)
        .map_err(|e| Failure::new(Reason::BadRequest, format!("the path in normal form: {e}")))
}

fn apply<'v>(
    filter: &'v Filter,
    head: &mut request::Parts,
    way: &mut Way<'v>,
    path: &str,
    query: Option<&str>,
    matched: &route::Match,
) -> Result<(), Failure> {
    match filter {
        Filter::RequestHeaders(change) => filter::apply_headers(&mut head.headers, change),
        Filter::ResponseHeaders(change) => way.response_headers.push(change),
        Filter::Rewrite(rewrite) => {
            let new = filter::rewrite(rewrite, path, query, matched).map_err(|e| {
                Failure::new(Reason::BadRequest, format!("rewriting the path: {e}"))
            })?;
            if let Some(path) = new {
                way.path = path;
            }
            if let Some(host) = &rewrite.hostname {
                way.authority = Authority::try_from(host.as_str()).map_err(|e| {
                    Failure::new(
                        Reason::Internal,
                        format!("rewriting the host to {host}: {e}"),
                    )
                })?;
            }
        }
        Filter::Redirect(_) => {}
    }
    Ok(())
}

fn redirect_reply(status: StatusCode, location: &str) -> Result<Response<ResponseBody>, Failure> {
    let location = HeaderValue::from_str(location).map_err(|_| {
        Failure::new(
            Reason::BadRequest,
            "the redirect's target has bytes that no header may have",
        )
    })?;
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::LOCATION, location);
    Ok(response)
}

/// What a host and port lead to, asking the control plane if need be.
pub(crate) async fn find(
    worker: &Worker,
    authority: &Authority,
    default_port: u16,
) -> Result<Found, Failure> {
    let host = authority.host();
    let port = match authority.port() {
        None => default_port,
        Some(port) => port.as_u16(),
    };
    let shared = &worker.shared;
    let outside = || {
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if shared.state.snapshot().allows_outside() {
            Ok(Found::Outside(host, port))
        } else {
            let details =
                format!("host {host} is not of this mesh, and outboundPolicy is RegistryOnly");
            Err(Failure::new(Reason::NoRoute, details))
        }
    };
    let Some(name) = service_of_host(host, shared.workload.namespace()) else {
        return outside();
    };
    match shared.state.service(&name).await {
        Lookup::Found(destination) => Ok(Found::Service(destination, port)),
        // `reviews` and `reviews.bookshop.svc` can be nothing else; `example.com` can.
        Lookup::Absent if host.split('.').count() == 2 => outside(),
        Lookup::Absent => Err(Failure::new(
            Reason::NoRoute,
            format!("there is no service {name}"),
        )),
        Lookup::Unknown => Err(unknown(&name)),
    }
}

async fn service(worker: &Worker, name: &model::ServiceName) -> Result<Arc<Destination>, Failure> {
    match worker.shared.state.service(name).await {
        Lookup::Found(destination) => Ok(destination),
        Lookup::Absent => Err(Failure::no_backend(format!(
            "backend service {name} does not exist"
        ))),
        Lookup::Unknown => Err(unknown(name)),
    }
}

fn unknown(name: &model::ServiceName) -> Failure {
    Failure::new(
        Reason::ConfigMissing,
        format!("the control plane has not told about service {name}"),
    )
}

pub(crate) fn no_port(destination: &Destination, view: &View, port: u16) -> Failure {
    let ports: Vec<String> = view.port_numbers().map(|p| p.to_string()).collect();
    let details = format!(
        "service {} has no port {port}, but {}",
        destination.name,
        ports.join(", ")
    );
    Failure::new(Reason::NoRoute, details)
}

fn default_port(head: &request::Parts) -> u16 {
    if head.uri.scheme_str() == Some("https") {
        443
    } else {
        80
    }
}

/// A caller on this side: the application itself.
pub(crate) fn local_caller(worker: &Worker, address: SocketAddr) -> Caller {
    let principal = worker.shared.state.snapshot().own.as_ref().map_or_else(
        || Arc::clone(&NONE),
        |own| Arc::clone(&own.application.principal),
    );
    Caller {
        address,
        principal,
        mtls: false,
        group: "",
    }
}

#[cfg(test)]
mod tests;
