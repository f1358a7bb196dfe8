//! Routes for connections and datagrams: one of the model for each Gateway that is a parent.

use std::collections::BTreeMap;

use model::ObjectName;
use model::gateway::{Attachment, GatewayName, StreamKind, StreamRoute};
use model::hostname::Hostname;
use model::resource::Resource;
use model::route::Target;

use super::route::{self, merged, parent, resolved_refs};
use super::store::View;
use super::{Condition, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::backend::BackendTarget;
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
    let mut faults = Vec::new();
    let mut resolve = |c: &mut Check<'_>, target: BackendTarget<'_>| {
        route::resolve(object, target, view).unwrap_or_else(|fault| {
            c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
            let reason = fault.message.as_str().into();
            faults.push(fault);
            Target::Invalid { reason }
        })
    };
    let backends = c.at("spec", |c| backends(parts.rules, c, &mut resolve));
    let names = parts.hostnames.iter().filter_map(|h| h.parse().ok());
    let hostnames: Vec<Hostname> = names.collect();
    let resolved = resolved_refs(&faults);
    let mut gateways: BTreeMap<GatewayName, Vec<Attachment>> = BTreeMap::new();
    c.at("spec", |c| {
        c.each(
            "parentRefs",
            parent::of(object, view).iter(),
            |c, reference| {
                let accepted = match parent::attach(object, reference, &hostnames, view) {
                    Ok(attached) => {
                        output.attached.extend(attached.counted());
                        let all = gateways.entry(attached.gateway).or_default();
                        all.extend(attached.attachments);
                        Condition::accepted()
                    }
                    Err(refusal) => refusal.into_condition(c),
                };
                let foreign = accepted.foreign;
                output.conditions.push(accepted.about(reference.clone()));
                let resolved = Condition {
                    foreign,
                    ..resolved.clone()
                };
                output.conditions.push(resolved.about(reference.clone()));
            },
        );
    });
    for (gateway, attachments) in gateways {
        output.resources.push(Resource::StreamRoute(StreamRoute {
            kind: parts.kind,
            name: name.clone(),
            gateway,
            attachments: merged(attachments),
            created: object.metadata.created.unwrap_or(0),
            backends: backends.clone(),
        }));
    }
}
