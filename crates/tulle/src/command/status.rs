//! `tulle status`: who is in the mesh, and whether the proxies have what they should.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::Connection;
use crate::client::Client;
use crate::command::apply::diagnostic_line;
use crate::command::block_on;
use crate::command::get::columns::text;
use crate::ui::{Format, Paint, Ui};

/// Show the state of the mesh.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tulle status\n  tulle status -o json | jq .proxies")]
pub(crate) struct Status {
    /// Output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let client = Client::of(&self.connection)?;
        let status: Value = block_on(client.get("/api/v1/status"))?;
        match self.output {
            Format::Table => page(ui, &status)?,
            format => ui.value(format, &status)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn page(ui: &Ui, status: &Value) -> anyhow::Result<()> {
    ui.data(&format!(
        "control plane {}, trust domain {}, API and dashboard at http://{}/\n\n",
        text(status, "/version"),
        text(status, "/trustDomain"),
        text(status, "/listen/api"),
    ))?;
    if let Some(source) = status.get("source").filter(|source| source.is_object()) {
        ui.data(&of_kubernetes(source))?;
    }
    let gateways = list(status, "gateways");
    if !gateways.is_empty() {
        ui.table(
            &[
                "NAMESPACE",
                "GATEWAY",
                "PORTS",
                "ADDRESSES",
                "PROXIES",
                "PROCESS",
            ],
            gateways.iter().map(gateway).collect(),
        )?;
        ui.data("\n")?;
    }
    let workloads = list(status, "workloads");
    if workloads.is_empty() {
        ui.say("no workloads yet: start one with `tulle run --service NAME --port PORT -- CMD`");
        return troubles(ui, status);
    }
    let rows = workloads.iter().map(workload).collect();
    ui.table(
        &[
            "NAMESPACE",
            "WORKLOAD",
            "VERSION",
            "ADDRESS",
            "MODE",
            "READY",
            "PROXY",
            "PROXY PORTS",
        ],
        rows,
    )?;
    ui.data("\n")?;
    let rows = list(status, "services").iter().map(service).collect();
    ui.table(
        &["NAMESPACE", "SERVICE", "PORTS", "READY", "ADDRESSES"],
        rows,
    )?;
    troubles(ui, status)
}

/// Where objects come from, in a line; what its watches have wrong is among what to look at.
fn of_kubernetes(source: &Value) -> String {
    let holds = |name: &str| source.get(name).and_then(Value::as_bool) == Some(true);
    format!(
        "objects from Kubernetes at {}: {}, status is written by {}\n\n",
        text(source, "/url"),
        if holds("synced") {
            "all kinds are listed"
        } else {
            "not all kinds are listed yet"
        },
        if holds("leader") {
            "this replica"
        } else {
            "the holder of the Lease"
        },
    )
}

fn workload(workload: &Value) -> Vec<String> {
    let flag = |name: &str| workload.get(name).and_then(Value::as_bool) == Some(true);
    let port = workload
        .pointer("/ports/0")
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let proxy = match (flag("proxyConnected"), flag("proxySynced")) {
        (false, _) => "away",
        (true, false) => "behind",
        (true, true) => "up to date",
    };
    let ports: Vec<String> = workload
        .pointer("/lease/proxyPorts")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, port)| format!("{name} {port}"))
        .collect();
    vec![
        text(workload, "/namespace"),
        text(workload, "/name"),
        text(workload, "/version"),
        format!("{}{port}", text(workload, "/address")),
        text(workload, "/lease/mode"),
        if flag("ready") { "yes" } else { "no" }.to_owned(),
        proxy.to_owned(),
        ports.join(", "),
    ]
}

fn gateway(gateway: &Value) -> Vec<String> {
    let ports: Vec<String> = list(gateway, "ports")
        .iter()
        .map(|p| format!("{}/{}", text(p, "/port"), text(p, "/protocol")))
        .collect();
    let addresses: Vec<String> = list(gateway, "addresses")
        .iter()
        .map(|a| text(a, "/value"))
        .collect();
    let restarts = gateway.pointer("/process/restarts").and_then(Value::as_u64);
    let process = match (text(gateway, "/process/pid"), restarts) {
        (_, None) => "-".to_owned(),
        (pid, Some(0)) => pid,
        (pid, Some(n)) => format!("{pid} (restarts: {n})"),
    };
    vec![
        text(gateway, "/namespace"),
        text(gateway, "/name"),
        ports.join(", "),
        addresses.join(", "),
        text(gateway, "/proxies"),
        process,
    ]
}

fn service(service: &Value) -> Vec<String> {
    let ports: Vec<String> = list(service, "ports")
        .iter()
        .map(|p| format!("{}/{}", text(p, "/port"), text(p, "/protocol")))
        .collect();
    let addresses: Vec<String> = list(service, "addresses")
        .iter()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    vec![
        text(service, "/namespace"),
        text(service, "/name"),
        ports.join(", "),
        format!(
            "{}/{}",
            text(service, "/ready"),
            text(service, "/endpoints")
        ),
        addresses.join(", "),
    ]
}

/// What somebody should look at: refused resources, broken files, findings.
fn troubles(ui: &Ui, status: &Value) -> anyhow::Result<()> {
    let mut lines = String::new();
    for proxy in list(status, "proxies") {
        for rejected in list(proxy, "rejected") {
            let _ = writeln!(
                lines,
                "proxy {} refuses {}: {}",
                text(proxy, "/node"),
                text(rejected, "/resource"),
                text(rejected, "/message")
            );
        }
    }
    let watches = status.get("source").map_or(&[][..], |s| list(s, "watches"));
    for watch in watches.iter().filter(|w| text(w, "/state") == "failing") {
        let _ = writeln!(
            lines,
            "the watch of {} lags by {} s: {}",
            text(watch, "/kind"),
            text(watch, "/lagSeconds"),
            text(watch, "/lastError/message")
        );
    }
    for gateway in list(status, "gateways") {
        if let Some(problem) = gateway.get("problem").and_then(Value::as_str) {
            let name = format!("{}/{}", text(gateway, "/namespace"), text(gateway, "/name"));
            let _ = writeln!(lines, "Gateway {name}: {problem}");
        }
    }
    for file in list(status, "files") {
        for diagnostic in list(file, "diagnostics") {
            let _ = writeln!(lines, "{}", in_file(diagnostic, &text(file, "/path")));
        }
    }
    for finding in list(status, "findings") {
        let _ = writeln!(lines, "{}", in_file(finding, &text(finding, "/file")));
    }
    if !lines.is_empty() {
        ui.data("\n")?;
        ui.data(&ui.paint(Paint::Yellow, "Look at:\n"))?;
        ui.data(&lines)?;
    }
    Ok(())
}

/// A finding as one line that begins with its file and line, where it has any.
fn in_file(diagnostic: &Value, file: &str) -> String {
    if file.is_empty() {
        return diagnostic_line(diagnostic, &Vec::new());
    }
    let line = diagnostic_line(diagnostic, &vec![(1, file.to_owned())]);
    if line.starts_with(file) {
        line
    } else {
        format!("{file}: {line}")
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
