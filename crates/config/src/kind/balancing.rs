//! `spec.loadBalancer` of a `TrafficPolicy`: how an endpoint is chosen.

use std::fmt;

use http::HeaderName;
use model::balancing::{self, Cookie, LocalityMode};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::check::Check;
use crate::duration::Span;
use crate::kind::filter::header_name;
use crate::reference::shorten;

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// The algorithm.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// What requests are told apart by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
    /// Entries of a ring, at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_ring_size: Option<u32>,
    /// At most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_ring_size: Option<u32>,
    /// Entries of Maglev's table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u32>,
    /// How new endpoints are spared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
    /// Percentage of usable endpoints below which health counts for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<u32>,
    /// Where endpoints are looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<LocalityPreference>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is the model's algorithm of the same name"
)]
pub enum Algorithm {
    #[default]
    LeastRequest,
    RoundRobin,
    Random,
    PeakEwma,
    RingHash,
    Maglev,
}

/// What requests are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Hash {
    /// One thing.
    One(HashKey),
    /// The first of several that a request has.
    FirstOf(Vec<HashKey>),
}

/// One thing by which requests are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HashKey {
    /// Name of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Name of a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// How long a cookie lasts that the proxy gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// For which paths it is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name of a parameter of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Whether it is the client's address.
    #[serde(rename = "sourceIP", skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<bool>,
}

/// How new endpoints are spared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowStart {
    /// For how long.
    pub window: Span,
    /// How soon they get much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggression: Option<f64>,
    /// What they get at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_weight_percent: Option<u32>,
}

/// Where endpoints are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalityPreference {
    /// How it counts where they are.
    pub mode: Mode,
    /// Shares of localities.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub weights: Vec<LocalityWeight>,
}

/// How it counts where endpoints are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the model's mode of the same name")]
pub enum Mode {
    None,
    Failover,
    Weighted,
}

/// The share of a locality.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalityWeight {
    /// Region.
    pub region: String,
    /// Zone.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub zone: String,
    /// Share relative to the others.
    pub weight: u32,
}

/// A map, or a list of maps. By hand, so that what is wrong is told as it is elsewhere.
impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Hash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map with header, cookie, query or sourceIP, or a list of such")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Hash, A::Error> {
                HashKey::deserialize(MapAccessDeserializer::new(map)).map(Hash::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Hash, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Hash::FirstOf)
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

impl LoadBalancer {
    pub(crate) fn to_model(&self, c: &mut Check<'_>) -> balancing::LoadBalancer {
        let algorithm = self.algorithm(c);
        let hash: Vec<_> = match &self.hash {
            None => Vec::new(),
            Some(Hash::One(key)) => c.at("hash", |c| key.to_model(c)).into_iter().collect(),
            Some(Hash::FirstOf(keys)) => {
                c.at_most("hash", keys.len(), 16);
                let keys = c.each("hash", keys, |c, key| key.to_model(c));
                keys.into_iter().flatten().collect()
            }
        };
        let word = algorithm.as_str();
        let given = match &self.hash {
            None => false,
            Some(Hash::One(_)) => true,
            Some(Hash::FirstOf(keys)) => !keys.is_empty(),
        };
        if algorithm.hashes() && !given {
            c.error_at(
                "hash",
                format!("is missing: {word} tells requests apart by it"),
                "add `hash: {header: NAME}`, or cookie, query or sourceIP",
            );
        }
        if !algorithm.hashes() && self.hash.is_some() {
            c.warn_at(
                "hash",
                format!("means nothing with {word}"),
                "for requests to be told apart, write `algorithm: Maglev` or `RingHash`",
            );
        }
        if algorithm.hashes() && self.slow_start.is_some() {
            c.error_at(
                "slowStart",
                format!("cannot be had with {word}: weights that change move requests about"),
                "take it out, or choose RoundRobin, LeastRequest, PeakEwma or Random",
            );
        }
        if self.panic_threshold.is_some_and(|percent| percent > 100) {
            c.error_at("panicThreshold", "must be from 0 to 100", "");
        }
        let slow_start = self.slow_start.as_ref();
        let locality = self.locality.as_ref();
        balancing::LoadBalancer {
            algorithm,
            hash,
            slow_start: slow_start.map(|x| c.at("slowStart", |c| x.to_model(c))),
            panic_threshold: self.panic_threshold,
            locality: locality.map(|x| c.at("locality", |c| x.to_model(c))),
        }
    }

    fn algorithm(&self, c: &mut Check<'_>) -> balancing::Algorithm {
        use balancing::Algorithm as Model;
        let minimum = self.minimum_ring_size.unwrap_or(Model::MINIMUM_RING);
        // Who asks for a larger ring than the usual may have it.
        let usual = Model::MAXIMUM_RING.max(minimum);
        let maximum = self.maximum_ring_size.unwrap_or(usual);
        let table = self.table_size.unwrap_or(Model::TABLE);
        let algorithm = match self.algorithm {
            Algorithm::LeastRequest => Model::LeastRequest,
            Algorithm::RoundRobin => Model::RoundRobin,
            Algorithm::Random => Model::Random,
            Algorithm::PeakEwma => Model::PeakEwma,
            Algorithm::RingHash => Model::RingHash { minimum, maximum },
            Algorithm::Maglev => Model::Maglev { table },
        };
        let largest = Model::LARGEST_RING;
        for (field, given, size) in [
            ("minimumRingSize", self.minimum_ring_size, minimum),
            ("maximumRingSize", self.maximum_ring_size, maximum),
        ] {
            if given.is_some() && self.algorithm != Algorithm::RingHash {
                c.warn_at(
                    field,
                    format!("means nothing with {}", algorithm.as_str()),
                    "",
                );
            }
            if !(1..=largest).contains(&size) {
                c.error_at(field, format!("must be from 1 to {largest}"), "");
            }
        }
        if minimum > maximum {
            c.error_at(
                "minimumRingSize",
                "is more than `maximumRingSize`",
                "make `maximumRingSize` at least as large",
            );
        }
        if self.table_size.is_some() && self.algorithm != Algorithm::Maglev {
            let message = format!("means nothing with {}", algorithm.as_str());
            c.warn_at("tableSize", message, "");
        }
        if table > Model::LARGEST_TABLE || !is_prime(table) {
            c.error_at(
                "tableSize",
                format!("must be a prime of at most {}", Model::LARGEST_TABLE),
                "use 65537, or 655373 for a thousand endpoints and more",
            );
        }
        algorithm
    }
}

impl HashKey {
    fn to_model(&self, c: &mut Check<'_>) -> Option<balancing::HashKey> {
        let given = [
            self.header.is_some(),
            self.cookie.is_some(),
            self.query.is_some(),
            self.source_ip.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            c.error(
                "must have one of header, cookie, query and sourceIP",
                "of several the first that a request has counts: write them as a list",
            );
            return None;
        }
        for (field, given) in [("ttl", self.ttl.is_some()), ("path", self.path.is_some())] {
            if given && self.cookie.is_none() {
                c.error_at(field, "belongs to a cookie", "take it out");
            }
        }
        if let Some(name) = &self.header {
            return header_name("header", name, c).map(balancing::HashKey::Header);
        }
        if let Some(name) = &self.cookie {
            return self.cookie(name, c).map(balancing::HashKey::Cookie);
        }
        if let Some(name) = &self.query {
            if name.is_empty() || name.len() > 128 {
                c.error_at("query", "must have from 1 to 128 characters", "");
            }
            return Some(balancing::HashKey::Query(name.clone()));
        }
        if self.source_ip == Some(false) {
            c.error_at("sourceIP", "can only be true", "take it out");
            return None;
        }
        Some(balancing::HashKey::SourceIp)
    }

    fn cookie(&self, name: &str, c: &mut Check<'_>) -> Option<Cookie> {
        // RFC 6265 4.1.1: a token, as headers' names are.
        if name.len() > 128 || HeaderName::from_bytes(name.as_bytes()).is_err() {
            let message = format!("\"{}\" is not a cookie's name", shorten(name));
            c.error_at("cookie", message, "use letters, digits and -._");
            return None;
        }
        let path = self.path.clone().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_graphic() && b != b';';
        let fits = path.is_empty() || path.starts_with('/') && path.bytes().all(plain);
        if !fits {
            let message = format!("\"{}\" is not a path", shorten(&path));
            c.error_at("path", message, "begin it with a slash");
        }
        if self.path.is_some() && self.ttl.is_none() {
            c.warn_at(
                "path",
                "means nothing without `ttl`: the proxy gives no cookie then",
                "",
            );
        }
        Some(Cookie {
            name: name.to_owned(),
            ttl: self.ttl.as_ref().map(Span::get),
            path,
        })
    }
}

impl SlowStart {
    fn to_model(&self, c: &mut Check<'_>) -> balancing::SlowStart {
        if self.window.get().is_zero() {
            c.error_at("window", "must not be 0", "take `slowStart` out");
        }
        let aggression = self.aggression.unwrap_or(1.0);
        if !(0.001..=1000.0).contains(&aggression) {
            c.error_at("aggression", "must be from 0.001 to 1000", "");
        }
        let min_weight_percent = self.min_weight_percent.unwrap_or(10);
        if min_weight_percent > 100 {
            c.error_at("minWeightPercent", "must be from 0 to 100", "");
        }
        balancing::SlowStart {
            window: self.window.get(),
            aggression_milli: (aggression * 1000.0).round() as u32,
            min_weight_percent: min_weight_percent.min(100),
        }
    }
}

impl LocalityPreference {
    fn to_model(&self, c: &mut Check<'_>) -> LocalityMode {
        if !self.weights.is_empty() {
            self.check_weights(c);
        }
        match self.mode {
            Mode::None => LocalityMode::None,
            Mode::Failover => LocalityMode::Failover,
            Mode::Weighted => {
                let weights = self.weights.iter();
                let weights = weights.map(|w| balancing::LocalityWeight {
                    region: w.region.clone(),
                    zone: w.zone.clone(),
                    weight: w.weight,
                });
                LocalityMode::Weighted(weights.collect())
            }
        }
    }

    fn check_weights(&self, c: &mut Check<'_>) {
        c.at_most("weights", self.weights.len(), 128);
        if self.mode != Mode::Weighted {
            c.error_at(
                "weights",
                "belong to the mode Weighted",
                "write `mode: Weighted`, or take them out",
            );
        }
        if self.weights.iter().all(|w| w.weight == 0) {
            c.error_at(
                "weights",
                "are all 0: no locality would get anything",
                "give one a weight above 0",
            );
        }
        let mut seen = Vec::new();
        c.each("weights", &self.weights, |c, w| {
            let place = (&w.region, &w.zone);
            if w.weight > 1_000_000 {
                c.error_at("weight", "must be from 0 to 1000000", "");
            }
            if seen.contains(&place) {
                c.error("is there twice", "give each locality one weight");
            }
            seen.push(place);
        });
    }
}

fn is_prime(n: u32) -> bool {
    let divisors = (2..).take_while(|d| u64::from(*d) * u64::from(*d) <= u64::from(n));
    n > 1 && divisors.into_iter().all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_others() {
        let primes = (0..30).filter(|n| is_prime(*n)).collect::<Vec<_>>();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        for (n, prime) in [
            (65_537, true),
            (65_536, false),
            (655_373, true),
            (balancing::Algorithm::LARGEST_TABLE, true),
            (u32::MAX, false),
        ] {
            assert_eq!(is_prime(n), prime, "{n}");
        }
    }
}
