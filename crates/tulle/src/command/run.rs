//! `tulle run`: any program with a proxy beside it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::{Connection, Namespace, Talk};
use crate::command::block_on;
use crate::command::proxy::Mode;
use crate::supervisor::{self, program, signals};
use crate::ui::Ui;

/// Run a program as a workload of the mesh.
///
/// Registers it, gives it an identity, starts its proxy, waits until that is ready, then starts
/// the program with its input, output and exit code untouched. Signals are passed on; at the end
/// the proxy finishes what is in flight and the workload is deregistered.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tulle run --service reviews -n bookshop --label version=v1 --port 9080 -- ./reviews\n  tulle run --service client -- curl http://reviews.bookshop/      # one request from inside the mesh\n  tulle run --service report --upstream stock.bookshop:7000 -- ./report"
)]
pub(crate) struct Run {
    /// Name of the service that the program is an instance of.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) service: String,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// Label of the workload; may be repeated.
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Port on which the program serves, with what it speaks there if that should not be found
    /// out; may be repeated. The first is in the program's environment as PORT.
    #[arg(long = "port", short, value_name = "[NAME:]PORT[/PROTOCOL]", value_parser = port)]
    pub(crate) ports: Vec<Port>,
    /// How traffic comes to the proxy [default: transparent as root on Linux, else explicit].
    #[arg(long, env = "TULLE_MODE", value_enum, hide_env_values = true)]
    pub(crate) mode: Option<Mode>,
    /// A loopback port that leads to a service, for programs that speak something other than
    /// HTTP; without LOCALPORT, the service's own number. May be repeated.
    #[arg(long = "upstream", value_name = "HOST:PORT[=LOCALPORT]", value_parser = upstream)]
    pub(crate) upstreams: Vec<Upstream>,
    /// Service account, and so the identity [default: the service's name].
    #[arg(long, value_name = "NAME")]
    pub(crate) service_account: Option<String>,
    /// Stable name of this instance [default: the service's name and something random].
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<String>,
    /// Where this is: REGION or REGION/ZONE.
    #[arg(
        long,
        env = "TULLE_LOCALITY",
        value_name = "REGION[/ZONE]",
        hide_env_values = true
    )]
    pub(crate) locality: Option<String>,
    /// A join token, for a control plane on another host.
    #[arg(
        long,
        env = "TULLE_TOKEN_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// A port that the program serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) protocol: String,
}

/// A loopback port that leads to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) local: u16,
}

impl Run {
    pub(crate) fn execute(self, talk: &Talk, ui: &Ui) -> anyhow::Result<ExitCode> {
        runtime::logging::init(runtime::logging::Verbosity {
            quiet: talk.quiet,
            verbose: talk.verbose,
            json: false,
        });
        if let Some(Err(missing)) = self.command.first().map(|p| program::look_up(p)) {
            ui.error(&missing.to_string());
            return Ok(ExitCode::from(missing.status));
        }
        signals::block()?;
        let talk = talk.arguments();
        // One thread: children are tied to the life of the thread that starts them.
        block_on(supervisor::run(self, talk, ui))
    }

    /// The labels as a map.
    pub(crate) fn label_map(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE, for example version=v1".into()),
    }
}

fn port(text: &str) -> Result<Port, String> {
    let expected =
        "expected [NAME:]PORT[/PROTOCOL], for example 9080 or 9080/http or grpc:9090/grpc";
    let (name, rest) = text.split_once(':').unwrap_or(("", text));
    let (number, protocol) = rest.split_once('/').unwrap_or((rest, ""));
    let number = number
        .parse::<u16>()
        .ok()
        .filter(|n| *n > 0)
        .ok_or(expected)?;
    Ok(Port {
        name: name.into(),
        number,
        protocol: protocol.into(),
    })
}

fn upstream(text: &str) -> Result<Upstream, String> {
    let expected =
        "expected HOST:PORT or HOST:PORT=LOCALPORT, for example stock.bookshop:7000=17000";
    let (target, local) = match text.split_once('=') {
        Some((target, local)) => (target, Some(local)),
        None => (text, None),
    };
    let (host, port) = target.rsplit_once(':').ok_or(expected)?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0).ok_or(expected);
    let port = number(port)?;
    if host.is_empty() {
        return Err(expected.into());
    }
    Ok(Upstream {
        host: host.into(),
        port,
        local: local.map_or(Ok(port), number)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_may_have_a_name_and_a_protocol() {
        let read = |name: &str, number, protocol: &str| {
            Ok(Port {
                name: name.into(),
                number,
                protocol: protocol.into(),
            })
        };
        assert_eq!(port("9080"), read("", 9080, ""));
        assert_eq!(port("web:9080/http"), read("web", 9080, "http"));
        for bad in ["", "0", "web:", "x", "70000"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn upstreams_listen_on_their_own_number_unless_told() {
        let up = upstream("stock.bookshop:7000").expect("valid");
        assert_eq!((up.port, up.local), (7000, 7000));
        let up = upstream("stock.bookshop:7000=17000").expect("valid");
        assert_eq!((up.port, up.local), (7000, 17000));
        for bad in ["stock", ":1", "a:b", "a:1=", "a:1=0"] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
    }
}
