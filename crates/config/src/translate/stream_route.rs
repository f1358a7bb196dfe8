//! Routes for connections and datagrams: one of the model for each Gateway or service that is a
//! parent.

use model::ObjectName;
use model::gateway::{StreamBackend, StreamKind, StreamRoute};
use model::resource::Resource;
use model::route::{Backend, Match, Parent, Route, RouteKind, Rule, Timeouts};

use super::Output;
use super::route::parent;
use super::route::sides::{Side, Sides};
use super::store::View;
use crate::check::Check;
use crate::kind::stream_route::{StreamRule, backends};
use crate::object::Object;

/// The parts of a route that its kinds have in common.
pub(super) struct Parts<'a> {
    pub(super) kind: StreamKind,
    pub(super) hostnames: &'a [String],
    pub(super) rules: &'a [StreamRule],
}

pub(super) fn translate(
    object: &Object,
    name: &ObjectName,
    parts: &Parts<'_>,
    view: &mut View<'_>,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    let parents = parent::of(object, view);
    let created = object.metadata.created.unwrap_or(0);
    c.at("spec", |c| {
        let sides = Sides::follow(object, &parents, Side::Gateway, view, c, |c, resolve| {
            backends(parts.rules, c, resolve)
        });
        sides.attach(
            parts.hostnames,
            view,
            c,
            output,
            |backends, service, port| {
                Resource::Route(Route {
                    kind: match parts.kind {
                        StreamKind::Tls => RouteKind::Tls,
                        StreamKind::Tcp => RouteKind::Tcp,
                        StreamKind::Udp => RouteKind::Udp,
                    },
                    name: name.clone(),
                    parent: Parent::Service(service),
                    port,
                    created,
                    rules: vec![the_rule(backends)],
                })
            },
            |backends, gateway, attachments| {
                Resource::StreamRoute(StreamRoute {
                    kind: parts.kind,
                    name: name.clone(),
                    gateway,
                    attachments,
                    created,
                    backends: backends.clone(),
                })
            },
        );
    });
}

/// The one rule of a service's route: everything goes to these.
fn the_rule(backends: &[StreamBackend]) -> Rule {
    let backend = |backend: &StreamBackend| Backend {
        target: backend.target.clone(),
        weight: backend.weight,
        filters: Vec::new(),
    };
    Rule {
        name: None,
        matches: vec![Match::default()],
        filters: Vec::new(),
        backends: backends.iter().map(backend).collect(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    }
}
