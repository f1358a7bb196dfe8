//! `tulle token`: join tokens for hosts that have no other way to prove who they are.

use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::cli::{Connection, Namespace};
use crate::client::Client;
use crate::command::block_on;
use crate::failure::usage;
use crate::ui::{Format, Ui};

/// Make join tokens.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: let one workload on another host join as the service account `reviews`\n  tulle token create --service-account reviews -n bookshop > token\n  # there: tulle run --control HOST:15012 --token-file token --service reviews -- CMD"
)]
pub(crate) struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Create(Create),
}

/// Make a token: good for one workload, once, for a limited time.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tulle token create --service-account reviews -n bookshop --ttl 10m"
)]
struct Create {
    /// Service account that the token is good for.
    #[arg(long, short = 's', value_name = "NAME")]
    service_account: String,
    #[command(flatten)]
    namespace: Namespace,
    /// How long it may be used.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// Output; as a table, the bare token.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

impl Token {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let Action::Create(create) = self.action;
        let request = json!({
            "namespace": create.namespace.namespace,
            "service_account": create.service_account,
            "ttl_seconds": create.ttl.as_secs(),
        });
        let client = Client::of(&create.connection)?;
        let answer = block_on(client.json(Method::POST, "/api/v1/tokens", Some(&request)))?;
        match create.output {
            Format::Table => {
                ui.data(
                    answer
                        .get("token")
                        .and_then(Value::as_str)
                        .unwrap_or_default(),
                )?;
                if let Some(expires) = answer.get("expires").and_then(Value::as_str) {
                    ui.detail(&format!("good once, until {expires}"));
                }
            }
            format => ui.value(format, &answer)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads `90s`, `10m`, `1h`, `2d` or bare seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    number
        .parse::<u64>()
        .ok()
        .filter(|n| scale > 0 && *n > 0)
        .and_then(|n| n.checked_mul(scale))
        .map(Duration::from_secs)
        .ok_or_else(|| usage!("expected a duration like 90s, 10m or 1h").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_number_and_a_known_unit() {
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        for bad in [
            "",
            "0s",
            "m",
            "1y",
            "1h1m",
            "99999999999999999999h",
            "99999999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
