//! Every edge between services is mutual TLS: read from the access logs that the proxies of both
//! sides wrote, each about the identity that it verified itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio::time::Instant;

use super::Check;
use super::driver::get;
use crate::demo::shop::{ISBN, NAMESPACE};
use crate::supervisor::state;

/// The hybrid key exchange that no recording made today can be broken out of tomorrow.
const GROUP: &str = "X25519MLKEM768";

/// Who calls whom, by service account.
const EDGES: [(&str, &str); 9] = [
    ("checker", "storefront"),
    ("checker", "reviews"),
    ("load", "storefront"),
    ("storefront", "catalogue"),
    ("storefront", "reviews"),
    ("storefront", "orders"),
    ("reviews", "ratings"),
    ("orders", "payments"),
    ("orders", "stock"),
];

/// One side's word about an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    direction: String,
    source: String,
    destination: String,
}

pub(super) async fn check(cx: &mut Check<'_>) -> anyhow::Result<String> {
    let page = format!("http://storefront.{NAMESPACE}/api/books/{ISBN}");
    cx.probe
        .send_well(get(page, 5, 1).with_header("x-user", "jason"))
        .await?;
    let limit = Instant::now() + Duration::from_secs(6);
    loop {
        let seen = read(&log_files(cx));
        let missing = missing(&seen.words, &cx.world.addresses.trust_domain);
        if missing.is_empty() {
            if let Some(plain) = seen.plain.first() {
                bail!("{} hops were not mutual TLS: {plain}", seen.plain.len());
            }
            if let Some((group, n)) = seen.groups.iter().find(|(g, _)| *g != GROUP) {
                bail!("{n} hops used {group} instead of {GROUP}");
            }
            return Ok(format!(
                "{} edges, {} hops logged, identities as expected on both sides, TLS 1.3 with {GROUP}",
                EDGES.len(),
                seen.groups.values().sum::<u64>(),
            ));
        }
        if Instant::now() > limit {
            bail!("no proof in the access logs of {}", missing.join(", "));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn log_files(cx: &Check<'_>) -> Vec<PathBuf> {
    cx.world
        .processes
        .iter()
        .map(|p| state::dir(&cx.world.dir, NAMESPACE, &p.name).join("access.log"))
        .collect()
}

/// What the logs say.
#[derive(Default)]
struct Seen {
    words: BTreeSet<Word>,
    /// Hops by key exchange.
    groups: BTreeMap<String, u64>,
    /// Hops that were not mutual TLS.
    plain: Vec<String>,
}

fn read(files: &[PathBuf]) -> Seen {
    let mut seen = Seen::default();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        // The last line may be half written.
        for line in text.split_inclusive('\n').filter(|l| l.ends_with('\n')) {
            if let Ok(entry) = serde_json::from_str::<Value>(line) {
                seen.add(&entry);
            }
        }
    }
    seen
}

impl Seen {
    fn add(&mut self, entry: &Value) {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("");
        let failed_before = text("direction") == "outbound" && text("upstream_address").is_empty();
        if failed_before || text("reason") == "unauthenticated" {
            // No hop was made.
            return;
        }
        if entry.get("mtls").and_then(Value::as_bool) != Some(true) {
            self.plain.push(format!(
                "{} {} -> {}",
                text("direction"),
                text("source"),
                text("destination")
            ));
            return;
        }
        *self.groups.entry(text("tls_group").to_owned()).or_default() += 1;
        let destination = match text("direction") {
            "outbound" => text("destination_principal"),
            _ => text("destination"),
        };
        self.words.insert(Word {
            direction: text("direction").to_owned(),
            source: text("source_principal").to_owned(),
            destination: destination.to_owned(),
        });
    }
}

/// The edges of which one of the two sides has not spoken.
fn missing(words: &BTreeSet<Word>, trust_domain: &str) -> Vec<String> {
    let id = |account: &str| format!("spiffe://{trust_domain}/ns/{NAMESPACE}/sa/{account}");
    let mut missing = Vec::new();
    for (source, destination) in EDGES {
        // The caller's proxy verified the server.
        let outbound = words
            .iter()
            .any(|w| w.direction == "outbound" && w.destination == id(destination));
        // The server's proxy verified the caller.
        let inbound = words.iter().any(|w| {
            w.direction == "inbound"
                && w.source == id(source)
                && w.destination.contains(destination)
        });
        if !outbound || !inbound {
            missing.push(format!("{source} to {destination}"));
        }
    }
    missing
}
