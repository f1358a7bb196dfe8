//! The check's hand inside the mesh: tells the probe what to send and hears what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use crate::demo::probe::{Answer, Command, Outcome, Plan};
use crate::demo::process::Process;

const LIMIT: Duration = Duration::from_secs(40);

/// A running probe.
pub(crate) struct Probe {
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Probe {
    /// The probe in this process.
    pub(crate) fn of(process: &mut Process) -> anyhow::Result<Self> {
        let stdin = process
            .child
            .stdin
            .take()
            .context("the probe has no stdin")?;
        let stdout = process
            .child
            .stdout
            .take()
            .context("the probe has no stdout")?;
        Ok(Self {
            stdin,
            stdout: BufReader::new(stdout).lines(),
        })
    }

    async fn tell(&mut self, command: &Command) -> anyhow::Result<Outcome> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        let exchange = async {
            self.stdin.write_all(line.as_bytes()).await?;
            self.stdin.flush().await?;
            let answer = self.stdout.next_line().await?.context("the probe ended")?;
            serde_json::from_str(&answer).context("the probe's answer")
        };
        match tokio::time::timeout(LIMIT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("the probe did not finish within {} s", LIMIT.as_secs()),
        }
    }

    /// Sends requests and waits for all.
    pub(crate) async fn send(&mut self, plan: Plan) -> anyhow::Result<Outcome> {
        self.tell(&Command::Send(plan)).await
    }

    /// Sends requests of which none may fail.
    pub(crate) async fn send_well(&mut self, plan: Plan) -> anyhow::Result<Outcome> {
        let outcome = self.send(plan).await?;
        none_failed(&outcome)?;
        Ok(outcome)
    }

    /// Sends one request and demands success.
    pub(crate) async fn one(&mut self, plan: Plan) -> anyhow::Result<Answer> {
        let plan = Plan {
            count: 1,
            concurrency: 1,
            ..plan
        };
        self.send_well(plan).await?.last.context("no answer")
    }

    /// Begins to send requests in the background.
    pub(crate) async fn start(&mut self, plan: Plan) -> anyhow::Result<()> {
        self.tell(&Command::Start(plan)).await.map(|_| ())
    }

    /// Ends what [`Self::start`] began.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<Outcome> {
        self.tell(&Command::Stop).await
    }
}

/// Fails with the first failures' words.
pub(crate) fn none_failed(outcome: &Outcome) -> anyhow::Result<()> {
    if outcome.sent == 0 {
        bail!("no request was sent");
    }
    if outcome.failed() > 0 {
        bail!(
            "{} of {} requests failed: {}",
            outcome.failed(),
            outcome.sent,
            outcome.failures.join("; ")
        );
    }
    Ok(())
}

/// GET requests.
pub(crate) fn get(url: impl Into<String>, count: u64, concurrency: usize) -> Plan {
    Plan {
        method: "GET".into(),
        url: url.into(),
        count,
        concurrency,
        ..Plan::default()
    }
}

/// `GET` of a book's reviews, counted by the version that answered.
pub(crate) fn reviews(count: u64, concurrency: usize) -> Plan {
    Plan {
        tally: "/version".into(),
        ..get(
            format!(
                "http://reviews.{}/reviews/{}",
                crate::demo::shop::NAMESPACE,
                crate::demo::shop::ISBN
            ),
            count,
            concurrency,
        )
    }
}

impl Plan {
    /// The same with a header.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// `v1 1805, v2 195`.
pub(crate) fn shares(tally: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = tally.iter().map(|(k, n)| format!("{k} {n}")).collect();
    parts.join(", ")
}
