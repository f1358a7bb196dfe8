//! Outbound: requests of the application to others.
//!
//! Where a request goes is known from its connection (intercepted, or a loopback port that leads to
//! one service), from its authority (explicit mode), or from the routes of a Gateway's listener. From there: route, filter, pick, send.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use model::mesh::Mesh;
use model::name::service_of_host;
use model::route::{Fraction, HeaderChange, Mirror, Target};
use model::service::Protocol;
use model::{Reason, route};
use policy::cors::Answer;
use policy::course::{self, Start};
use policy::filter::{self, Origin};
use policy::route::{Decision, RequestView, RouteTable};
use policy::{gateway, path, split};
use wire::{Fields, Method, RequestHead, Scheme};

use crate::destination::{Destination, PortView, View};
use crate::error::Failure;
use crate::forward::{self, Order, forward};
use crate::gateway::{Entrance, forwarded};
use crate::hash::Told;
use crate::http::{Reply, Request, grpc_web, websocket};
use crate::http1::client::Response;
use crate::record::{Caller, Exchange, NONE};
use crate::request::{self, Met, Policies};
use crate::session::{Place, Session};
use crate::state::Lookup;
use crate::worker::Worker;
use crate::{deadline, external, fallback, mirror, reply};

/// Where the requests of a connection go.
#[derive(Clone)]
pub(crate) enum Inlet {
    /// Each where its authority says: the connection is one to a proxy.
    Authority,
    /// All to one port of a service.
    Service(Arc<Destination>, u16),
    /// Each where the routes of a Gateway's listener say.
    Listener(Rc<Entrance>),
}

/// What a host and port lead to.
pub(crate) enum Found {
    Service(Arc<Destination>, u16),
    /// Outside the mesh, and allowed.
    Outside(String, u16),
}

/// Serves one request.
pub(crate) async fn handle(
    worker: &Rc<Worker>,
    inlet: &Inlet,
    mut exchange: Exchange,
    request: Request,
) -> Reply {
    match serve(worker, inlet, &mut exchange, request).await {
        Ok(Served::Reply(reply)) => {
            exchange.reply(reply.head.status);
            reply
        }
        Ok(Served::Answer(answer)) => forward::deliver(exchange, answer),
        Err(failure) => {
            exchange.fail(&failure);
            reply::failure(&failure, exchange.is_grpc())
        }
    }
}

pub(crate) enum Served {
    Reply(Reply),
    Answer(Response),
}

async fn serve(
    worker: &Rc<Worker>,
    inlet: &Inlet,
    exchange: &mut Exchange,
    request: Request,
) -> Result<Served, Failure> {
    let head = exchange.head();
    if head.authority.is_empty() && matches!(inlet, Inlet::Authority) {
        return Err(Failure::new(
            Reason::BadRequest,
            "the request names no host",
        ));
    }
    let (destination, port) = match inlet {
        Inlet::Service(destination, port) => (Arc::clone(destination), *port),
        Inlet::Authority => match Box::pin(find(worker, head.host(), port_of(head))).await? {
            Found::Service(destination, port) => (destination, port),
            Found::Outside(host, port) => {
                exchange.set_destination(&host.as_str().into());
                let sent = Box::pin(external::send(worker, exchange, request, &host, port));
                let answer = sent.await?;
                return Ok(Served::Answer(answer));
            }
        },
        Inlet::Listener(_) if head.method == Method::CONNECT && head.path.is_empty() => {
            let details =
                "a Gateway's listener opens no tunnels for CONNECT; ask for the host itself";
            return Err(Failure::new(Reason::BadRequest, details));
        }
        Inlet::Listener(entrance) => {
            let table = entrance.table(worker, head)?;
            exchange.set_shown(table.shown());
            exchange.set_entered();
            let tables = table.tables().map(Arc::as_ref);
            let (whose, port) = (table.name(), entrance.port);
            let policies = table.policies();
            let routed = decide(
                tables,
                whose,
                port,
                policies,
                &worker.snapshot().mesh,
                exchange,
            )?;
            let mut way = match routed {
                Routed::Reply(reply, met) => return answer(worker, exchange, reply, met).await,
                Routed::Send(way) => way,
            };
            way.met.settle(worker, exchange).await?;
            if way.authority.is_some() {
                forwarded::keep_host(exchange.head_mut());
            }
            let Some((name, port)) = way.backend else {
                let details = format!("a route of {} leads nowhere", table.name());
                return Err(Failure::no_backend(details));
            };
            way.suffer().await?;
            let backend = service(worker, name).await?;
            exchange.set_destination(&backend.host);
            way.meet(&backend, port, exchange).await?;
            return send(worker, exchange, request, way, &backend, port).await;
        }
    };
    exchange.set_destination(&destination.host);
    let view = Arc::clone(&destination.view());
    // The snapshot is let go before anybody waits.
    let routed = route(&view, &destination, port, &worker.snapshot().mesh, exchange)?;
    let mut way = match routed {
        Routed::Reply(reply, met) => return answer(worker, exchange, reply, met).await,
        Routed::Send(way) => way,
    };
    way.met.settle(worker, exchange).await?;
    way.suffer().await?;
    let (backend, backend_port) = match way.backend {
        Some((name, port)) if *name != destination.name => {
            let backend = service(worker, name).await?;
            way.meet(&backend, port, exchange).await?;
            (backend, port)
        }
        Some((_, port)) => (destination, port),
        None => (destination, port),
    };
    send(worker, exchange, request, way, &backend, backend_port).await
}

/// A request that a rule answers counts like any other.
async fn answer(
    worker: &Rc<Worker>,
    exchange: &Exchange,
    reply: Reply,
    mut met: Met,
) -> Result<Served, Failure> {
    met.settle(worker, exchange).await?;
    Ok(Served::Reply(reply))
}

/// Sends a request its way, to a port of a service.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    mut request: Request,
    mut way: Way<'_>,
    backend: &Arc<Destination>,
    backend_port: u16,
) -> Result<Served, Failure> {
    if !way.mirrors.is_empty() {
        mirror::start(worker, exchange, &mut request, &way);
    }
    let backend_view = Arc::clone(&backend.view());
    let backend_port = backend_view
        .port(backend_port)
        .ok_or_else(|| no_port(backend, &backend_view, backend_port))?;
    let limits = backend_port.policy.limits(way.rule);
    let web = match backend_port.protocol {
        Protocol::Grpc | Protocol::Http2 => grpc_web::enter(exchange.head_mut(), &mut request),
        _ => None,
    };
    if web.is_some() {
        exchange.set_grpc_web();
    }
    let websocket = websocket::enter(exchange.head_mut());
    let fallback = backend_port.policy.fallback.as_deref();
    let elsewhere = fallback.is_some_and(|fallback| fallback.backend.is_some());
    let mut order = Order::new(request, exchange, limits.retry.attempts > 0 || elsewhere);
    // HTTP/1.0 may name no host; whoever serves the request is told one.
    let unnamed = exchange.head().authority.is_empty();
    let service = || unnamed.then(|| backend.host.to_string());
    order.authority = way.authority.take().or_else(service);
    order.path = way.path.take();
    let limit = limits.request_timeout.map(|limit| limit + way.waited);
    order.deadline = deadline::of(exchange, limit);
    let session = way.session.as_ref();
    order.kept = session.and_then(|s| s.endpoint(&backend.name, backend_port.number));
    let balancer = &backend_port.policy.balancer;
    let client = exchange.caller().ip();
    let told = Told::by(balancer, exchange.head(), client, rand::random);
    order.hash = told.hash;
    let result = forward(worker, exchange, backend, backend_port, limits, &mut order).await;
    let mut answer = match fallback.filter(|fallback| fallback::is_for(fallback, &result)) {
        None => result?,
        Some(fallback) => {
            let instead = fallback::answer(worker, exchange, fallback, &mut order, result);
            match Box::pin(instead).await? {
                Served::Answer(answer) => answer,
                Served::Reply(mut reply) => {
                    way.leave(&mut reply.head.fields);
                    return Ok(Served::Reply(reply));
                }
            }
        }
    };
    if let Some(failure) = Failure::of_peer(&answer.head.fields) {
        exchange.told(failure);
    }
    told.give(exchange.head().scheme, &mut answer.head.fields);
    if let Some(session) = session {
        keep(
            worker,
            exchange,
            session,
            backend,
            backend_port,
            &mut answer,
        );
    }
    if let Some(call) = web {
        call.leave(&mut answer);
    }
    if let Some(handshake) = websocket {
        handshake.leave(&mut answer)?;
    }
    way.leave(&mut answer.head.fields);
    exchange.set_limits(order.deadline.until, limits.stream_idle);
    if let Some(bytes) = way.bandwidth {
        exchange.set_pace(bytes);
    }
    Ok(Served::Answer(answer))
}

/// Tells the client which endpoint is its own from now on.
fn keep(
    worker: &Worker,
    exchange: &Exchange,
    session: &Session<'_>,
    backend: &Destination,
    port: &PortView,
    answer: &mut Response,
) {
    let Some(endpoint) = exchange.endpoint().and_then(|e| e.place(port.number)) else {
        return;
    };
    let place = Place::new(&backend.name, port.number, endpoint);
    let secure = exchange.head().scheme == Some(Scheme::Https);
    let fields = &mut answer.head.fields;
    session.write(&worker.snapshot().mesh, &place, secure, fields);
}

/// Where a request goes and with what changes.
#[derive(Default)]
pub(crate) struct Way<'v> {
    /// `None`: the service itself.
    backend: Option<(&'v model::ServiceName, u16)>,
    pub(crate) rule: Option<&'v route::Rule>,
    /// In place of the request's own.
    pub(crate) authority: Option<String>,
    /// In place of the request's own, with query.
    pub(crate) path: Option<String>,
    response_headers: Vec<&'v HeaderChange>,
    /// For the page that sent it, in the response.
    cors: Option<Fields>,
    /// Who gets a copy.
    pub(crate) mirrors: Vec<&'v Mirror>,
    /// Whose endpoint it is, where sessions are kept.
    session: Option<Session<'v>>,
    /// Faults and limits.
    met: Met,
    /// For how long faults have held it up, which no bound on time counts.
    waited: Duration,
    /// Bytes a second in which the response comes.
    bandwidth: Option<u64>,
}

impl<'v> Way<'v> {
    /// What the route makes of an answer.
    fn leave(&self, fields: &mut Fields) {
        if let Some(told) = &self.met.told {
            told.write(fields);
        }
        if let Some(cors) = &self.cors {
            Answer::apply(cors, fields);
        }
        for change in &self.response_headers {
            filter::apply_headers(fields, change);
        }
    }

    /// Waits, and fails, as the faults of where the request came to say.
    async fn suffer(&mut self) -> Result<(), Failure> {
        if self.met.is_harmless() {
            return Ok(());
        }
        let met = std::mem::take(&mut self.met);
        // In a box: seldom done.
        self.waited += Box::pin(met.suffer()).await?;
        self.bandwidth = met
            .bandwidth()
            .min(self.bandwidth)
            .or(met.bandwidth())
            .or(self.bandwidth);
        self.met.told = met.told;
        Ok(())
    }

    /// The same for the faults of the service that it goes to, where that is another.
    async fn meet(
        &mut self,
        backend: &Destination,
        port: u16,
        exchange: &Exchange,
    ) -> Result<(), Failure> {
        let view = backend.view();
        let policies = view.port(port).map(|port| &port.requests);
        let Some(policies) = policies.filter(|policies| !policies.is_empty()) else {
            return Ok(());
        };
        let normal = normal_path(exchange.head())?;
        let path = self.path.as_deref().or(normal.as_deref());
        let request = self::view(exchange.head(), path);
        policies.meet(None, &request, request::asker(exchange), &mut self.met);
        drop(view);
        self.suffer().await
    }

    /// Of a request that goes where it is told to, under the bounds of a rule.
    pub(crate) fn under(
        rule: &'v route::Rule,
        authority: Option<String>,
        path: Option<String>,
    ) -> Self {
        Self {
            rule: Some(rule),
            authority,
            path,
            ..Self::default()
        }
    }
}

enum Routed<'v> {
    Reply(Reply, Met),
    Send(Way<'v>),
}

fn route<'v>(
    view: &'v View,
    destination: &Destination,
    port: u16,
    mesh: &Mesh,
    exchange: &mut Exchange,
) -> Result<Routed<'v>, Failure> {
    let port_view = view
        .port(port)
        .ok_or_else(|| no_port(destination, view, port))?;
    // No route: the service itself is the backend (GAMMA).
    if port_view.routes.is_empty() {
        let mut way = Way {
            path: normal_path(exchange.head())?,
            ..Way::default()
        };
        let policies = &port_view.requests;
        if !policies.is_empty() {
            let request = self::view(exchange.head(), way.path.as_deref());
            let asker = request::asker(exchange);
            policies.count(None, &request, asker, &mut way.met)?;
            policies.meet(None, &request, asker, &mut way.met);
        }
        return Ok(Routed::Send(way));
    }
    decide(
        std::iter::once(&port_view.routes),
        &format_args!("service {}", destination.name),
        port,
        &port_view.requests,
        mesh,
        exchange,
    )
}

/// The path in normal form with its query, where that is not the path as it came: whoever reads it
/// after the proxy must not read another one than the policies did.
pub(crate) fn normal_path(head: &RequestHead) -> Result<Option<String>, Failure> {
    if head.path.is_empty() {
        return Ok(None);
    }
    match path::normalize(head.path_only()) {
        Ok(Cow::Borrowed(_)) => Ok(None),
        Ok(Cow::Owned(normal)) => Ok(Some(with_query(&normal, head.query()))),
        Err(error) => Err(Failure::new(Reason::BadRequest, error.to_string())),
    }
}

/// The request as conditions look at it; `path` is its path with query where that is another than it
/// came with.
pub(crate) fn view<'a>(head: &'a RequestHead, path: Option<&'a str>) -> RequestView<'a> {
    let path = path.map(|path| path.split_once('?').map_or(path, |(path, _)| path));
    RequestView {
        method: &head.method,
        path: path.unwrap_or_else(|| head.path_only()),
        query: head.query(),
        authority: &head.authority,
        headers: &head.fields,
    }
}

/// Asks each table in turn which of its rules takes the request, and does what that says. `whose` and
/// `port` are those of what the request came to.
fn decide<'v>(
    tables: impl Iterator<Item = &'v RouteTable>,
    whose: &dyn Display,
    port: u16,
    policies: &Policies,
    mesh: &Mesh,
    exchange: &mut Exchange,
) -> Result<Routed<'v>, Failure> {
    let mut way = Way::default();
    let head = exchange.head();
    let normal = path::normalize(head.path_only())
        .map_err(|e| Failure::new(Reason::BadRequest, e.to_string()))?;
    let query = head.query();
    let request = RequestView {
        method: &head.method,
        path: &normal,
        query,
        authority: &head.authority,
        headers: &head.fields,
    };
    let decision = gateway::decide(tables, &request).ok_or_else(|| {
        let details = format!(
            "no rule of the routes of {whose} takes {} {normal}",
            head.method
        );
        Failure::new(Reason::NoRoute, details)
    })?;
    let Decision {
        rule,
        matched,
        name,
        ..
    } = decision;
    let asker = request::asker(exchange);
    let decided = Some((&**decision.route, rule));
    if !policies.is_empty() {
        let counted = policies.count(decided, &request, asker, &mut way.met);
        if let Err(failure) = counted {
            exchange.set_route(name);
            return Err(failure);
        }
    }
    let origin = Origin {
        scheme: head.scheme.map_or("http", Scheme::as_str),
        authority: &head.authority,
        port: head.port().unwrap_or(port),
    };
    match course::start(rule, matched, &request, &origin) {
        Start::Preflight(fields) => {
            exchange.set_route(name);
            return Ok(Routed::Reply(Reply::own(200, fields, ""), way.met));
        }
        Start::Redirect {
            status,
            location,
            cors,
        } => {
            let mut reply = redirect_reply(status, &location);
            if let Some(fields) = &cors {
                Answer::apply(fields, &mut reply.head.fields);
            }
            exchange.set_route(name);
            return Ok(Routed::Reply(reply, way.met));
        }
        Start::Backend(cors) => way.cors = cors,
    }
    if !policies.is_empty() {
        policies.meet(decided, &request, asker, &mut way.met);
    }
    way.session = Session::find(&decision, mesh, &head.fields);
    let kept = way.session.as_ref().and_then(|s| s.backend(&rule.backends));
    let backend = kept.or_else(|| {
        split::choose(&rule.backends, rand::random()).and_then(|i| rule.backends.get(i))
    });
    let Some(backend) = backend else {
        let details = format!("rule {name} has no backend with a weight above 0");
        exchange.set_route(name);
        return Err(Failure::no_backend(details));
    };
    // What was matched is what is sent: the application must not read another path than the rules
    // did.
    if let Cow::Owned(normal) = &normal {
        way.path = Some(with_query(normal, query));
    }
    if !(rule.filters.is_empty() && backend.filters.is_empty()) {
        let (path, query) = (normal.into_owned(), query.map(str::to_owned));
        let fields = &mut exchange.head_mut().fields;
        let target = (path.as_str(), query.as_deref());
        let drawn = |share: Fraction| share.takes(rand::random());
        let changes = course::change(rule, backend, matched, target, fields, drawn)
            .map_err(|e| Failure::new(Reason::BadRequest, format!("rewriting the path: {e}")))?;
        if changes.path.is_some() {
            way.path = changes.path;
        }
        way.authority = changes.authority.map(str::to_owned);
        way.response_headers = changes.response_headers;
        way.mirrors = changes.mirrors;
    }
    exchange.set_route(name);
    way.backend = Some(match &backend.target {
        Target::Service { name, port } => (name, *port),
        Target::Invalid { reason } => {
            return Err(Failure::no_backend(format!("rule {name}: {reason}")));
        }
    });
    way.rule = Some(rule);
    Ok(Routed::Send(way))
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

fn redirect_reply(status: StatusCode, location: &str) -> Reply {
    let mut fields = Fields::new();
    fields.append("location", location.as_bytes());
    Reply::own(status.as_u16(), fields, "")
}

/// What a host and port lead to, asking the control plane if need be.
pub(crate) async fn find(worker: &Worker, host: &str, port: u16) -> Result<Found, Failure> {
    let shared = &worker.shared;
    let outside = || {
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if worker.snapshot().allows_outside() {
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
    match worker.service(&name).await {
        Lookup::Found(destination) => Ok(Found::Service(destination, port)),
        Lookup::Absent if policy::host::may_be_outside(host) => outside(),
        Lookup::Absent => Err(Failure::new(
            Reason::NoRoute,
            format!("there is no service {name}"),
        )),
        Lookup::Unknown => Err(unknown(&name)),
    }
}

/// A service that a route leads to.
pub(crate) async fn service(
    worker: &Worker,
    name: &model::ServiceName,
) -> Result<Arc<Destination>, Failure> {
    match worker.service(name).await {
        Lookup::Found(destination) => Ok(destination),
        Lookup::Absent => Err(Failure::no_backend(format!(
            "backend service {name} does not exist"
        ))),
        Lookup::Unknown => Err(unknown(name)),
    }
}

pub(crate) fn unknown(name: &model::ServiceName) -> Failure {
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

fn port_of(head: &RequestHead) -> u16 {
    let implied = match head.scheme {
        Some(Scheme::Https) => 443,
        _ => 80,
    };
    head.port().unwrap_or(implied)
}

/// A caller on this side: the application itself.
pub(crate) fn local_caller(worker: &Worker, address: SocketAddr) -> Caller {
    let principal = worker.snapshot().own.as_ref().map_or_else(
        || Arc::clone(&NONE),
        |own| Arc::clone(&own.application.principal),
    );
    Caller {
        principal,
        ..Caller::at(address)
    }
}

#[cfg(test)]
pub(crate) mod tests;
