//! A request before routes: which match takes it, what its rule makes of it, and what kept the others.

use std::borrow::Cow;

use model::Reason;
use model::route::{Backend, Rule};
use policy::course::{self, Start};
use policy::filter::Origin;
use policy::path;
use policy::route::{Decision, Outcome, Place, RequestView, RouteTable};
use wire::Fields;

use super::backend;
use crate::report::{Answer, BackendTaken, Failure, NotTaken, RouteTaken, Simulation};
use crate::request::Request;
use crate::words;
use crate::world::World;

/// What a request is put to.
pub(super) struct Asked<'a> {
    /// In this order.
    pub(super) tables: &'a [&'a RouteTable],
    /// Whose they are.
    pub(super) whose: String,
    /// The port that the request came to.
    pub(super) port: u16,
}

pub(super) fn go(world: &World, request: &Request, asked: &Asked<'_>, said: &mut Simulation) {
    let normal = match path::normalize(request.path()) {
        Ok(normal) => normal,
        Err(error) => return said.fail(Failure::new(Reason::BadRequest, error.to_string())),
    };
    let view = RequestView {
        method: &request.method,
        path: &normal,
        query: request.query(),
        authority: &request.authority,
        headers: &request.headers,
    };
    if let Cow::Owned(normal) = &normal {
        let note = format!("the path is read, and sent on, as {normal}");
        said.notes.push(note);
    }
    if !said.brief {
        not_taken(asked, &view, said);
    }
    let tables = asked.tables.iter().copied();
    let Some(decision) = policy::gateway::decide(tables, &view) else {
        let details = format!(
            "no rule of the routes of {} takes {} {normal}",
            asked.whose, request.method
        );
        let remedy = "add a rule whose matches take it, or correct the request";
        return said.fail(Failure::new(Reason::NoRoute, details).remedy(remedy));
    };
    said.route = Some(taken(&decision));
    said.filters = decision.rule.filters.iter().map(words::filter).collect();
    said.filters
        .extend(decision.rule.session.as_ref().map(words::session));
    let origin = Origin {
        scheme: request.scheme.as_str(),
        authority: &request.authority,
        port: wire::host::number(&request.authority).unwrap_or(asked.port),
    };
    match course::start(decision.rule, decision.matched, &view, &origin) {
        Start::Preflight(fields) => said.answer = Some(answer(200, Some(&fields), None)),
        Start::Redirect {
            status,
            location,
            cors,
        } => said.answer = Some(answer(status.as_u16(), cors.as_ref(), Some(location))),
        Start::Backend(_) => {
            send(world, request, &decision, &normal, said);
        }
    }
}

fn answer(status: u16, fields: Option<&Fields>, location: Option<String>) -> Answer {
    let mut headers = fields.map(words::fields).unwrap_or_default();
    headers.extend(location.map(|l| ("location".to_owned(), l)));
    Answer { status, headers }
}

fn taken(decision: &Decision<'_>) -> RouteTaken {
    let Decision {
        route,
        rule,
        rule_index,
        matched,
        ..
    } = decision;
    RouteTaken {
        kind: route.kind.to_string(),
        name: route.name.to_string(),
        rule_index: *rule_index,
        rule_name: rule.name.clone(),
        match_index: rule.matches.iter().position(|m| std::ptr::eq(m, *matched)),
        condition: words::condition(matched),
    }
}

fn send(
    world: &World,
    request: &Request,
    decision: &Decision<'_>,
    normal: &str,
    said: &mut Simulation,
) {
    let rule = decision.rule;
    let total: u64 = rule.backends.iter().map(|b| u64::from(b.weight)).sum();
    if total == 0 {
        let details = format!(
            "rule {} has no backend with a weight above 0",
            decision.name
        );
        let remedy = "give one of its backendRefs a weight";
        return said.fail(Failure::no_backend(details).remedy(remedy));
    }
    for backend in &rule.backends {
        let mut taken = backend::taken(
            world,
            Some(rule),
            &backend.target,
            (backend.weight, total),
            said.brief,
        );
        if let Some(failure) = &mut taken.failure
            && matches!(backend.target, model::route::Target::Invalid { .. })
        {
            failure.details = format!("rule {}: {}", decision.name, failure.details);
        }
        changed(request, rule, backend, decision, normal, &mut taken);
        said.backends.push(taken);
    }
    backend::judge(said);
}

/// What filters make of the request on its way to a backend.
fn changed(
    request: &Request,
    rule: &Rule,
    backend: &Backend,
    decision: &Decision<'_>,
    normal: &str,
    taken: &mut BackendTaken,
) {
    taken.filters = backend.filters.iter().map(words::filter).collect();
    let mut fields = request.headers.clone();
    let target = (normal, request.query());
    let changes = course::change(rule, backend, decision.matched, target, &mut fields, |_| {
        true
    });
    match changes {
        Ok(changes) => {
            let unchanged = || match request.query() {
                Some(query) => format!("{normal}?{query}"),
                None => normal.to_owned(),
            };
            let authority = changes.authority.unwrap_or(&request.authority);
            let path = changes.path.unwrap_or_else(unchanged);
            taken.request = Some(format!("{} http://{authority}{path}", request.method));
        }
        Err(error) => {
            let details = format!("rewriting the path: {error}");
            taken.failure = Some(Failure::new(Reason::BadRequest, details));
        }
    }
    let fields = words::fields(&fields);
    taken.headers = (fields != words::fields(&request.headers)).then_some(fields);
}

/// What each other match makes of the request.
fn not_taken(asked: &Asked<'_>, view: &RequestView<'_>, said: &mut Simulation) {
    let mut taken = false;
    for table in asked.tables {
        let explained = table.places().zip(table.explain(view));
        let mut takes = taken;
        for (place, explanation) in explained {
            let why = match explanation.outcome {
                Outcome::Takes if taken => {
                    "would take it, but routes for a more specific host come first".to_owned()
                }
                Outcome::Takes => {
                    takes = true;
                    continue;
                }
                Outcome::Shadowed => "would take it, but has less precedence".to_owned(),
                Outcome::Fails(why) => why,
            };
            said.not_taken.push(NotTaken::new(described(&place), why));
        }
        taken = takes;
    }
}

/// `HTTPRoute shop/www, rule 0 (path /old or below)`.
pub(crate) fn described(place: &Place<'_>) -> String {
    let route = place.route;
    let rule = &route.rules[place.rule_index];
    let which = match &rule.name {
        Some(name) => format!("rule \"{name}\""),
        None => format!("rule {}", place.rule_index),
    };
    let condition = words::condition(&rule.matches[place.match_index]);
    format!("{} {}, {which} ({condition})", route.kind, route.name)
}
