//! `tulle simulate`: what becomes of a request, and why.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use explain::report::{BackendTaken, Failure, NotTaken};
use explain::{Caller, Request, Simulation};
use model::gateway::GatewayName;
use model::{ObjectName, SpiffeId, TrustDomain};

use crate::cli::{Connection, Namespace};
use crate::failure::{AlreadySaid, usage};
use crate::objects;
use crate::ui::{Format, Paint, Ui};

/// As many of those that did not take the request stand in the table.
const SHOWN: usize = 20;

/// Say what becomes of a request, and why.
///
/// Which rule takes it, what is made of it, where it goes, and why not elsewhere. Nothing is sent.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tulle simulate -f examples/gateway --request 'GET http://www.example.com:8080/old/page'\n  tulle simulate --request 'GET http://reviews.bookshop:9080/reviews/1' --header 'x-user: ada'\n  tulle simulate -f DIR --request tls://db.sealed.example.com:8444 -o json\n\nExit code: 0 it would be served, 1 it would not (or not always), 2 usage or configuration error."
)]
pub(crate) struct Simulate {
    /// The request: METHOD and URL, or tls://HOST:PORT, tcp://HOST:PORT, udp://HOST:PORT.
    #[arg(long, short, value_name = "REQUEST")]
    request: String,
    /// A header of the request; may be repeated.
    #[arg(long, short = 'H', value_name = "NAME:VALUE")]
    header: Vec<String>,
    /// Who sends it: a SPIFFE ID, NAMESPACE/ACCOUNT, or `plain` for a client without a proxy
    /// [default: some workload of the namespace].
    #[arg(long, value_name = "IDENTITY")]
    from: Option<String>,
    /// The Gateway that it comes to [default: the one that is for its host and port].
    #[arg(long, value_name = "NS/NAME")]
    gateway: Option<String>,
    /// File, directory or - for stdin; may be repeated [default: what the control plane has].
    #[arg(long = "filename", short = 'f', value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    namespace: Namespace,
    /// Output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

impl Simulate {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let request = Request::parse(&self.request, &self.header).map_err(|e| usage!("{e}"))?;
        let gateway = self.gateway.as_deref().map(gateway).transpose()?;
        let set = objects::of(&self.files, &self.connection)?;
        let caller = self.caller(&set.defaults.trust_domain)?;
        let mut refused = false;
        for diagnostic in &set.diagnostics {
            if diagnostic.is_error() {
                ui.error(&diagnostic.to_string());
                refused = true;
            }
        }
        if refused {
            return Err(AlreadySaid.into());
        }
        let said = explain::simulate(&set.world(), &request, &caller, gateway.as_ref());
        match self.output {
            Format::Table => ui.data(&page(ui, &said))?,
            format => ui.value(format, &said)?,
        }
        Ok(ExitCode::from(u8::from(!said.served)))
    }

    fn caller(&self, domain: &TrustDomain) -> anyhow::Result<Caller> {
        let namespace = self.namespace.namespace.clone();
        let Some(text) = &self.from else {
            return Ok(Caller::Somebody { namespace });
        };
        if text == "plain" {
            return Ok(Caller::Plain { namespace });
        }
        let id = match text.split_once('/') {
            Some((namespace, account)) if !text.contains("://") => {
                SpiffeId::of_service_account(domain, namespace, account)
            }
            _ => text.parse::<SpiffeId>(),
        };
        let id = id.map_err(|_| {
            usage!(
                "--from \"{text}\": expected spiffe://<trust domain>/ns/<namespace>/sa/<service account>, <namespace>/<service account>, or plain"
            )
        })?;
        Ok(Caller::Identity(id))
    }
}

fn gateway(text: &str) -> anyhow::Result<GatewayName> {
    text.parse::<ObjectName>()
        .map_err(|_| usage!("--gateway \"{text}\": expected NAMESPACE/NAME"))
}

/// The explanation for people.
fn page(ui: &Ui, said: &Simulation) -> String {
    let mut out = String::new();
    line(&mut out, "request", &said.request);
    if let Some(taken) = &said.listener {
        let text = format!(
            "{} of Gateway {} ({} on port {}, hosts {})",
            taken.name, taken.gateway, taken.protocol, taken.port, taken.hostname
        );
        line(&mut out, "listener", &text);
    }
    if let Some(service) = &said.service {
        line(&mut out, "service", service);
    }
    if let Some(route) = &said.route {
        let rule = match &route.rule_name {
            Some(name) => format!("rule \"{name}\""),
            None => format!("rule {}", route.rule_index),
        };
        let nth = route.match_index.map(|at| format!(", match {at}"));
        let nth = nth.unwrap_or_default();
        let text = format!(
            "{} {}, {rule}{nth} ({})",
            route.kind, route.name, route.condition
        );
        line(&mut out, "route", &text);
    }
    for filter in &said.filters {
        line(&mut out, "filter", filter);
    }
    for met in &said.policies {
        line(
            &mut out,
            "policy",
            &format!("{} {}: {}", met.kind, met.name, met.effect),
        );
        line(&mut out, "", &met.place);
    }
    if let Some(answer) = &said.answer {
        line(&mut out, "answer", &format!("status {}", answer.status));
        for (name, value) in &answer.headers {
            line(&mut out, "", &format!("{name}: {value}"));
        }
    }
    for taken in &said.backends {
        backend(&mut out, ui, taken);
    }
    for note in &said.notes {
        line(&mut out, "note", note);
    }
    match &said.failure {
        Some(failure) => failed(&mut out, ui, failure),
        None => line(&mut out, "result", &ui.paint(Paint::Green, "served")),
    }
    not_taken(&mut out, &said.not_taken);
    out
}

fn line(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "{name:<10} {value}");
}

fn backend(out: &mut String, ui: &Ui, taken: &BackendTaken) {
    let service = taken.service.as_deref().unwrap_or("nowhere");
    let percent = format!("{:.2}", taken.percent);
    let percent = percent.trim_end_matches('0').trim_end_matches('.');
    line(out, "backend", &format!("{service} ({percent} %)"));
    if let Some(request) = &taken.request {
        line(out, "", &format!("gets {request}"));
    }
    for (name, value) in taken.headers.iter().flatten() {
        line(out, "", &format!("  {name}: {value}"));
    }
    for text in taken.filters.iter().chain(&taken.limits) {
        line(out, "", text);
    }
    for endpoint in &taken.endpoints {
        let text = format!(
            "{} at {}, {}",
            endpoint.workload, endpoint.address, endpoint.state
        );
        line(out, "", &text);
    }
    if let Some(failure) = &taken.failure {
        line(out, "", &ui.paint(Paint::Red, &failure.details));
    }
}

fn failed(out: &mut String, ui: &Ui, failure: &Failure) {
    let answer = match (&failure.reason, failure.status) {
        (Some(reason), Some(status)) => format!("not served: {status} {reason}"),
        (Some(reason), None) => format!("not served: the connection is closed, {reason}"),
        (None, _) => "not served: no proxy takes the connection".to_owned(),
    };
    line(out, "result", &ui.paint(Paint::Red, &answer));
    line(out, "", &failure.details);
    line(out, "remedy", &failure.remedy);
}

fn not_taken(out: &mut String, all: &[NotTaken]) {
    if all.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nconsidered, and why not:");
    for one in all.iter().take(SHOWN) {
        let _ = writeln!(out, "  {}: {}", one.what, one.why);
    }
    if all.len() > SHOWN {
        let more = all.len() - SHOWN;
        let _ = writeln!(out, "  and {more} more; -o json shows all");
    }
}
