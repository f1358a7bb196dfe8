//! The probe: a program inside the mesh that sends requests as it is told.
//!
//! One JSON command a line on stdin, one JSON answer a line on stdout. It knows nothing of the
//! mesh: it uses `HTTP_PROXY` where that is set, and connects to the host itself where it is not,
//! as any program would. So the same check works in both modes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const BODY_LIMIT: usize = 4 * 1024 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How many failures are told in words.
const FAILURES_TOLD: usize = 5;

/// What the probe is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Command {
    /// Sends requests and answers when all are done.
    Send(Plan),
    /// Begins to send requests until [`Command::Stop`]; answers at once.
    Start(Plan),
    /// Ends what [`Command::Start`] began and answers with its outcome.
    Stop,
}

/// Requests to send.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Plan {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// How many requests; ignored by [`Command::Start`].
    pub(crate) count: u64,
    /// How many at a time; each has a connection of its own.
    pub(crate) concurrency: usize,
    /// What to count responses by: the name of a response header, or a JSON pointer into the body.
    pub(crate) tally: String,
    /// Pause of each of them between two requests, in milliseconds.
    pub(crate) pause_ms: u64,
}

/// What came of a [`Plan`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    /// Responses with a status below 400.
    pub(crate) succeeded: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) tally: BTreeMap<String, u64>,
    /// The first failures, in words.
    pub(crate) failures: Vec<String>,
    pub(crate) seconds: f64,
    /// The last response.
    pub(crate) last: Option<Answer>,
}

/// A response.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Outcome {
    /// Requests that did not succeed.
    pub(crate) fn failed(&self) -> u64 {
        self.sent - self.succeeded
    }

    fn add(&mut self, plan: &Plan, result: Result<Answer, anyhow::Error>) {
        self.sent += 1;
        match result {
            Ok(answer) => {
                *self.statuses.entry(answer.status).or_default() += 1;
                if answer.status < 400 {
                    self.succeeded += 1;
                } else {
                    self.fail(&format!(
                        "{} {}: {} {}",
                        plan.method,
                        plan.url,
                        answer.status,
                        answer
                            .headers
                            .get("proxy-status")
                            .unwrap_or(&answer.body.chars().take(200).collect())
                    ));
                }
                if !plan.tally.is_empty() {
                    *self.tally.entry(tally(&plan.tally, &answer)).or_default() += 1;
                }
                self.last = Some(answer);
            }
            Err(error) => self.fail(&format!("{} {}: {error:#}", plan.method, plan.url)),
        }
    }

    fn fail(&mut self, message: &str) {
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(message.to_owned());
        }
    }

    fn merge(&mut self, other: Self) {
        self.sent += other.sent;
        self.succeeded += other.succeeded;
        for (status, n) in other.statuses {
            *self.statuses.entry(status).or_default() += n;
        }
        for (key, n) in other.tally {
            *self.tally.entry(key).or_default() += n;
        }
        for failure in other.failures {
            self.fail(&failure);
        }
        self.last = other.last.or(self.last.take());
    }
}

/// Answers commands until stdin ends.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut out = tokio::io::stdout();
    let mut running: Option<(Arc<AtomicBool>, JoinHandle<Outcome>)> = None;
    while let Some(line) = lines.next_line().await? {
        let command: Command =
            serde_json::from_str(&line).with_context(|| format!("not a command: {line}"))?;
        let outcome = match command {
            Command::Send(plan) => {
                let left = Arc::new(AtomicU64::new(plan.count));
                let take = move || {
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                        .is_ok()
                };
                carry_out(plan, take).await
            }
            Command::Start(plan) => {
                if running.is_some() {
                    bail!("already sending; stop first");
                }
                let stop = Arc::new(AtomicBool::new(false));
                let seen = stop.clone();
                let take = move || !seen.load(Ordering::Relaxed);
                running = Some((stop, tokio::spawn(carry_out(plan, take))));
                Outcome::default()
            }
            Command::Stop => {
                let (stop, task) = running.take().context("nothing to stop")?;
                stop.store(true, Ordering::Relaxed);
                task.await?
            }
        };
        let mut text = serde_json::to_string(&outcome)?;
        text.push('\n');
        out.write_all(text.as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}

async fn carry_out(plan: Plan, take: impl Fn() -> bool + Clone + Send + 'static) -> Outcome {
    let begun = Instant::now();
    let plan = Arc::new(plan);
    let workers: Vec<_> = (0..plan.concurrency.max(1))
        .map(|_| {
            let plan = plan.clone();
            let take = take.clone();
            tokio::spawn(async move {
                let mut outcome = Outcome::default();
                let mut connection = None;
                while take() {
                    let result = one(&plan, &mut connection).await;
                    outcome.add(&plan, result);
                    if plan.pause_ms > 0 {
                        tokio::time::sleep(Duration::from_millis(plan.pause_ms)).await;
                    }
                }
                outcome
            })
        })
        .collect();
    let mut all = Outcome::default();
    for worker in workers {
        match worker.await {
            Ok(outcome) => all.merge(outcome),
            Err(error) => all.fail(&format!("a worker of the probe ended: {error}")),
        }
    }
    all.seconds = begun.elapsed().as_secs_f64();
    all
}

type Connection = SendRequest<Full<Bytes>>;

async fn one(plan: &Plan, kept: &mut Option<Connection>) -> anyhow::Result<Answer> {
    let exchange = async {
        let uri: Uri = plan
            .url
            .parse()
            .with_context(|| format!("\"{}\"", plan.url))?;
        let host = uri.authority().context("a URL needs a host")?.clone();
        let port = host.port_u16().unwrap_or(80);
        let proxy = http_proxy();
        let mut usable = None;
        if let Some(mut sender) = kept.take()
            && sender.ready().await.is_ok()
        {
            usable = Some(sender);
        }
        let mut sender = match (usable, &proxy) {
            (Some(sender), _) => sender,
            (None, Some(proxy)) => connect(proxy).await?,
            (None, None) => connect(&format!("{}:{port}", host.host())).await?,
        };
        // RFC 9112 3.2: the absolute form to a proxy, the origin form to a server.
        let target = match &proxy {
            Some(_) => plan.url.clone(),
            None => uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        };
        let mut request = Request::builder()
            .method(plan.method.as_str())
            .uri(target)
            .header(header::HOST, host.as_str());
        for (name, value) in &plan.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(plan.body.clone())))?;
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_LIMIT)
            .collect()
            .await
            .map_err(|error| anyhow!("the body broke off: {error}"))?;
        *kept = Some(sender);
        Ok(Answer {
            status: head.status.as_u16(),
            headers: text_headers(&head.headers),
            body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        })
    };
    tokio::time::timeout(REQUEST_TIMEOUT, exchange)
        .await
        .map_err(|_| anyhow!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))?
}

async fn connect(address: &str) -> anyhow::Result<Connection> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its end shows in the request that it carries.
        let _ = connection.await;
    });
    Ok(sender)
}

/// `host:port` of the proxy that the environment names.
fn http_proxy() -> Option<String> {
    let value = std::env::var("http_proxy")
        .or_else(|_| std::env::var("HTTP_PROXY"))
        .ok()?;
    let bare = value.strip_prefix("http://").unwrap_or(&value);
    let bare = bare.trim_end_matches('/');
    (!bare.is_empty()).then(|| bare.to_owned())
}

fn text_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}

fn tally(by: &str, answer: &Answer) -> String {
    let found = if by.starts_with('/') {
        serde_json::from_str::<serde_json::Value>(&answer.body)
            .ok()
            .and_then(|body| body.pointer(by).cloned())
            .map(|value| match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            })
    } else {
        answer.headers.get(by).cloned()
    };
    found.unwrap_or_else(|| "none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_counted_by_header_or_by_a_place_in_the_body() {
        let answer = Answer {
            status: 200,
            headers: BTreeMap::from([("x-version".into(), "v2".into())]),
            body: r#"{"reviews": {"version": "v1"}}"#.into(),
        };
        assert_eq!(tally("x-version", &answer), "v2");
        assert_eq!(tally("/reviews/version", &answer), "v1");
        assert_eq!(tally("/nothing", &answer), "none");
    }

    #[test]
    fn an_outcome_counts_what_failed_and_tells_the_first_few() {
        let plan = Plan {
            method: "GET".into(),
            url: "http://x/".into(),
            ..Plan::default()
        };
        let mut outcome = Outcome::default();
        for status in [200, 503, 503, 503, 503, 503, 503] {
            outcome.add(
                &plan,
                Ok(Answer {
                    status,
                    ..Answer::default()
                }),
            );
        }
        assert_eq!((outcome.sent, outcome.failed()), (7, 6));
        assert_eq!(outcome.failures.len(), FAILURES_TOLD);
    }
}
