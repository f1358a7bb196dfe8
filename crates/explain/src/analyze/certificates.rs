//! Certificates of listeners that are over, or soon will be.

use std::time::SystemTime;

use config::Spec;
use model::gateway::{Certificate, Tls};

use super::{Notes, Said, Severity, listeners};

/// How soon is soon: what renews certificates does so well before.
const SOON: i64 = 14 * 24 * 60 * 60;
const DAY: i64 = 24 * 60 * 60;

pub(super) fn look(notes: &mut Notes<'_>, now: SystemTime) {
    let world = notes.world;
    for (name, gateway) in &world.gateways {
        for listener in gateway.listeners() {
            let Some(Tls::Terminate(termination)) = &listener.config.tls else {
                continue;
            };
            let field = listeners::field(notes, name, &listener.config.name);
            for (at, certificate) in termination.certificates.iter().enumerate() {
                let Some((severity, message)) = judge(certificate, now) else {
                    continue;
                };
                let secret = secret(notes, name, &listener.config.name, at);
                let said = Said {
                    severity,
                    check: "certificate",
                    field: format!("{field}.tls.certificateRefs[{at}]"),
                    message: format!("the certificate{secret} {message}"),
                    why: String::new(),
                    remedy: "renew it and apply the Secret again".to_owned(),
                };
                notes.add(listeners::object(name), said);
            }
        }
    }
}

fn judge(certificate: &Certificate, now: SystemTime) -> Option<(Severity, String)> {
    let own = certificate.chain.first()?;
    if identity::edge::is_stand_in(own) {
        return None;
    }
    let described = identity::inspect::describe_chain(std::slice::from_ref(own), now);
    let Ok([described]) = described.as_deref() else {
        return Some((Severity::Error, "cannot be read".to_owned()));
    };
    let until = &described.not_after;
    match described.seconds_left {
        ..=0 => Some((
            Severity::Error,
            format!("expired on {until}: clients refuse it"),
        )),
        left @ 1..=SOON => Some((
            Severity::Warning,
            format!("expires on {until}, in {} days", left / DAY),
        )),
        _ => None,
    }
}

/// ` of Secret www`, where it is plain which it is.
fn secret(
    notes: &Notes<'_>,
    gateway: &model::gateway::GatewayName,
    listener: &str,
    at: usize,
) -> String {
    let object = notes.world.object(&listeners::object(gateway));
    let name = object.and_then(|object| match &object.spec {
        Spec::Gateway(spec) => {
            let listener = spec.listeners.iter().find(|l| l.name == listener)?;
            Some(&listener.tls.as_ref()?.certificate_refs.get(at)?.name)
        }
        _ => None,
    });
    name.map(|name| format!(" of Secret {name}"))
        .unwrap_or_default()
}
