//! The load generator: people who look at books, and some who buy.
//!
//! `RATE` requests a second, for `DURATION` seconds or until told to stop; a line to stderr every
//! ten seconds, the [`Summary`] as JSON to stdout at the end. One in five buys, one in ten is
//! Jason, who sees the newest reviews.

use std::collections::BTreeMap;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::books;
use crate::client::Client;
use crate::forward::Forward;
use crate::settings::Settings;
use crate::stop::Stop;

/// Requests in flight at once; beyond, some are left out.
const MAX_IN_FLIGHT: usize = 512;
/// Different failures told apart.
const MAX_FAILURES: usize = 20;
const REPORT: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Requests answered as they should be.
    pub succeeded: u64,
    /// Those that were not.
    pub failed: u64,
    /// Left out because too many were in flight.
    pub skipped: u64,
    /// Orders among those that succeeded.
    pub orders: u64,
    /// Books looked at, by the version of their reviews.
    pub reviews: BTreeMap<String, u64>,
    /// How often each failure was seen.
    pub failures: BTreeMap<String, u64>,
    /// Of all requests that succeeded, in milliseconds.
    pub mean_ms: f64,
    /// The slowest, in milliseconds.
    pub max_ms: f64,
}

pub(crate) async fn run(settings: &Settings, stop: Stop) -> anyhow::Result<()> {
    let summary = generate(settings, stop).await;
    let line = serde_json::to_string(&summary)?;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// How one request ended.
struct Outcome {
    took: Duration,
    result: anyhow::Result<Seen>,
}

enum Seen {
    Reviews(String),
    Order,
}

pub(crate) async fn generate(settings: &Settings, stop: Stop) -> Summary {
    let client = Arc::new(Client::new(settings.proxies.clone()));
    let shop: Arc<str> = settings.storefront_url.as_str().into();
    let mut summary = Summary::default();
    let mut running = JoinSet::new();
    let mut ticks = interval(Duration::from_secs_f64(1.0 / settings.rate.max(0.01)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reports = interval(REPORT);
    reports.tick().await;
    let mut stopped = pin!(ends(settings.duration, stop));
    loop {
        tokio::select! {
            () = &mut stopped => break,
            Some(done) = running.join_next(), if !running.is_empty() => {
                if let Ok(outcome) = done {
                    summary.add(outcome);
                }
            }
            _ = ticks.tick() => {
                if running.len() < MAX_IN_FLIGHT {
                    running.spawn(request(Arc::clone(&client), Arc::clone(&shop)));
                } else {
                    summary.skipped += 1;
                }
            }
            _ = reports.tick() => summary.report(),
        }
    }
    while let Some(done) = running.join_next().await {
        if let Ok(outcome) = done {
            summary.add(outcome);
        }
    }
    summary
}

async fn ends(duration: Duration, stop: Stop) {
    if duration.is_zero() {
        stop.wait().await;
    } else {
        let _ = tokio::time::timeout(duration, stop.wait()).await;
    }
}

async fn request(client: Arc<Client>, shop: Arc<str>) -> Outcome {
    let start = Instant::now();
    let dice: u32 = rand::random_range(0..100);
    let isbns = books::isbns();
    let isbn = isbns[rand::random_range(0..isbns.len())];
    let mut forward = Forward::default();
    if dice % 10 == 9 {
        forward = forward.with("x-user", "jason");
    }
    let result = if dice < 20 {
        buy(&client, &shop, isbn, forward).await
    } else {
        look(&client, &shop, isbn, &forward).await
    };
    Outcome {
        took: start.elapsed(),
        result,
    }
}

async fn look(client: &Client, shop: &str, isbn: &str, forward: &Forward) -> anyhow::Result<Seen> {
    let answer = client
        .get(&format!("{shop}/api/books/{isbn}"), forward)
        .await?;
    let page: Value = answer.json()?;
    match page["reviews"]["version"].as_str() {
        Some(version) => Ok(Seen::Reviews(version.to_owned())),
        None => anyhow::bail!(
            "no reviews: {}",
            page["reviews_error"].as_str().unwrap_or("?")
        ),
    }
}

async fn buy(client: &Client, shop: &str, isbn: &str, forward: Forward) -> anyhow::Result<Seen> {
    let key = format!("{:032x}", rand::random::<u128>());
    let forward = forward.with("idempotency-key", &key);
    let wish = json!({ "isbn": isbn, "quantity": 1 });
    let url = format!("{shop}/api/purchase");
    client.post(&url, &forward, &wish).await?.json::<Value>()?;
    Ok(Seen::Order)
}

impl Summary {
    fn add(&mut self, outcome: Outcome) {
        match outcome.result {
            Ok(seen) => {
                match seen {
                    Seen::Reviews(version) => *self.reviews.entry(version).or_default() += 1,
                    Seen::Order => self.orders += 1,
                }
                self.succeeded += 1;
                let ms = outcome.took.as_secs_f64() * 1e3;
                self.mean_ms += (ms - self.mean_ms) / self.succeeded as f64;
                self.max_ms = self.max_ms.max(ms);
            }
            Err(e) => {
                self.failed += 1;
                let mut why = format!("{e:#}");
                why.truncate(why.floor_char_boundary(300));
                if self.failures.len() >= MAX_FAILURES && !self.failures.contains_key(&why) {
                    "others".clone_into(&mut why);
                }
                *self.failures.entry(why).or_default() += 1;
            }
        }
    }

    fn report(&self) {
        eprintln!(
            "load: {} succeeded ({} orders), {} failed, reviews {:?}, mean {:.1} ms",
            self.succeeded, self.orders, self.failed, self.reviews, self.mean_ms
        );
    }
}
