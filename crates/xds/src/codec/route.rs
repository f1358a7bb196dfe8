//! Routes.

mod filter;
pub(super) mod matches;
mod session;

use model::resource::gateway_of;
use model::route::{Backend, Parent, Route, RouteKind, Rule, Target, Timeouts};

use super::field::{
    Invalid, Result, Within, duration_to_message, each, known, optional_duration, optional_port,
    parse, port, required,
};
use super::{gateway, retry};
use crate::proto::v1;

pub(super) fn to_message(route: &Route) -> v1::Route {
    let (parent, attachments) = match &route.parent {
        Parent::Service(service) => (service.to_string(), Vec::new()),
        Parent::Gateway {
            gateway: name,
            attachments,
        } => (
            format!("{}/gateway:{}", name.namespace(), name.name()),
            gateway::attachments_to_message(attachments),
        ),
    };
    v1::Route {
        kind: kind_to_message(route.kind).into(),
        name: route.name.to_string(),
        parent,
        attachments,
        port: route.port.map(u32::from),
        created: route.created,
        rules: route.rules.iter().map(rule_to_message).collect(),
    }
}

pub(super) fn kind_to_message(kind: RouteKind) -> v1::route::Kind {
    match kind {
        RouteKind::Http => v1::route::Kind::Http,
        RouteKind::Grpc => v1::route::Kind::Grpc,
        RouteKind::Tls => v1::route::Kind::Tls,
        RouteKind::Tcp => v1::route::Kind::Tcp,
        RouteKind::Udp => v1::route::Kind::Udp,
    }
}

pub(super) fn kind(value: i32) -> Result<RouteKind> {
    Ok(match known("kind", value)? {
        v1::route::Kind::Unspecified => {
            return Err(Invalid::new("kind", "is not specified"));
        }
        v1::route::Kind::Http => RouteKind::Http,
        v1::route::Kind::Grpc => RouteKind::Grpc,
        v1::route::Kind::Tls => RouteKind::Tls,
        v1::route::Kind::Tcp => RouteKind::Tcp,
        v1::route::Kind::Udp => RouteKind::Udp,
    })
}

fn rule_to_message(rule: &Rule) -> v1::RouteRule {
    v1::RouteRule {
        name: rule.name.clone(),
        matches: rule.matches.iter().map(matches::to_message).collect(),
        filters: rule.filters.iter().map(filter::to_message).collect(),
        backends: rule.backends.iter().map(backend_to_message).collect(),
        request_timeout: rule.timeouts.request.map(duration_to_message),
        per_try_timeout: rule.timeouts.per_try.map(duration_to_message),
        retry: rule.retry.as_ref().map(retry::to_message),
        session: rule.session.as_ref().map(session::to_message),
    }
}

fn backend_to_message(backend: &Backend) -> v1::RouteBackend {
    v1::RouteBackend {
        weight: backend.weight,
        filters: backend.filters.iter().map(filter::to_message).collect(),
        ..target_to_message(&backend.target)
    }
}

fn target_to_message(target: &Target) -> v1::RouteBackend {
    use v1::route_backend::Target as Wire;
    let target = match target {
        Target::Service { name, port } => Wire::Service(v1::ServicePort {
            name: name.to_string(),
            port: u32::from(*port),
        }),
        Target::Invalid { reason } => Wire::Invalid(reason.to_string()),
    };
    v1::RouteBackend {
        target: Some(target),
        ..v1::RouteBackend::default()
    }
}

pub(super) fn from_message(message: v1::Route) -> Result<Route> {
    Ok(Route {
        kind: kind(message.kind)?,
        name: parse("name", &message.name)?,
        parent: parent(&message.parent, message.attachments)?,
        port: optional_port("port", message.port)?,
        created: message.created,
        rules: each("rules", message.rules, rule)?,
    })
}

fn parent(name: &str, messages: Vec<v1::Attachment>) -> Result<Parent> {
    match gateway_of(&format!("{name}/")) {
        Some(name) => Ok(Parent::Gateway {
            gateway: name,
            attachments: gateway::attachments(messages)?,
        }),
        None => parse("parent", name).map(Parent::Service),
    }
}

fn rule(message: v1::RouteRule) -> Result<Rule> {
    if message.matches.is_empty() {
        return Err(Invalid::new(
            "matches",
            "is empty; a rule that takes all has one empty match",
        ));
    }
    Ok(Rule {
        name: message.name,
        matches: each("matches", message.matches, matches::from_message)?,
        filters: each("filters", message.filters, filter::from_message)?,
        backends: each("backends", message.backends, backend)?,
        timeouts: Timeouts {
            request: optional_duration("request_timeout", message.request_timeout)?,
            per_try: optional_duration("per_try_timeout", message.per_try_timeout)?,
        },
        retry: message
            .retry
            .map(retry::from_message)
            .transpose()
            .within("retry")?,
        session: message
            .session
            .map(session::from_message)
            .transpose()
            .within("session")?,
    })
}

fn backend(message: v1::RouteBackend) -> Result<Backend> {
    Ok(Backend {
        target: target(message.target)?,
        weight: message.weight,
        filters: each("filters", message.filters, filter::from_message)?,
    })
}

fn target(message: Option<v1::route_backend::Target>) -> Result<Target> {
    use v1::route_backend::Target as Wire;
    Ok(match required("target", message)? {
        Wire::Service(service) => Target::Service {
            name: parse("service.name", &service.name)?,
            port: port("service.port", service.port)?,
        },
        Wire::Invalid(reason) => Target::Invalid {
            reason: reason.into(),
        },
    })
}
