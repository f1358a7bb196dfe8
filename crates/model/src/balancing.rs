//! How an endpoint is chosen for a request: the algorithm, what it is bound to, and how far away it
//! may be. The settings are Envoy's, by other names.

use std::time::Duration;

use http::HeaderName;

/// Balancing as one policy sets it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadBalancer {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// What requests are told apart by; the first that a request has counts. Never empty where the
    /// algorithm needs it.
    pub hash: Vec<HashKey>,
    /// How new endpoints are spared; `None`: not at all.
    pub slow_start: Option<SlowStart>,
    /// Percentage of usable endpoints below which their health counts for nothing. `None`: only when
    /// none is usable, and then ejected ones alone.
    pub panic_threshold: Option<u32>,
    /// Where endpoints are looked for; `None`: as the Service says.
    pub locality: Option<LocalityMode>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// Of two drawn at random, the one with fewer requests in flight for its weight.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// Of two drawn at random, the one that is likely to answer sooner.
    PeakEwma,
    /// By hash, on a ring.
    RingHash {
        /// Entries of the ring, at least.
        minimum: u32,
        /// At most.
        maximum: u32,
    },
    /// By hash, in a table.
    Maglev {
        /// Entries of the table; a prime.
        table: u32,
    },
}

impl Algorithm {
    /// Entries of a ring that nobody said otherwise of.
    pub const MINIMUM_RING: u32 = 1024;
    /// The most that it grows to by default: 12 MiB.
    pub const MAXIMUM_RING: u32 = 1 << 20;
    /// The most that it may be told to grow to.
    pub const LARGEST_RING: u32 = 8 << 20;
    /// Entries of a table by default.
    pub const TABLE: u32 = 65_537;
    /// The most that a table may be told to have.
    pub const LARGEST_TABLE: u32 = 5_000_011;

    /// Whether requests are told apart.
    pub fn hashes(self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }

    /// Its name in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastRequest => "LeastRequest",
            Self::RoundRobin => "RoundRobin",
            Self::Random => "Random",
            Self::PeakEwma => "PeakEwma",
            Self::RingHash { .. } => "RingHash",
            Self::Maglev { .. } => "Maglev",
        }
    }
}

/// Something of a request by which it is told from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(Cookie),
    /// The value of a parameter of the query.
    Query(String),
    /// The client's address.
    SourceIp,
}

/// A cookie that tells clients apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// How long a cookie lasts that the proxy gives to clients without one; zero: as long as the
    /// browser runs; `None`: none is given.
    pub ttl: Option<Duration>,
    /// For which paths it is given; empty: for all.
    pub path: String,
}

/// How a new endpoint is spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlowStart {
    /// For how long.
    pub window: Duration,
    /// How soon it gets much, in thousandths: 1000 is in proportion to its age.
    pub aggression_milli: u32,
    /// What it gets at first, in percent of its weight.
    pub min_weight_percent: u32,
}

/// Where endpoints are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LocalityMode {
    /// Everywhere.
    #[default]
    None,
    /// In the proxy's own zone, then in its region, then elsewhere.
    Failover,
    /// In each locality by its weight; without any, by how many endpoints it has.
    Weighted(Vec<LocalityWeight>),
}

impl LocalityMode {
    /// Its name in configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Failover => "Failover",
            Self::Weighted(_) => "Weighted",
        }
    }
}

/// The share of a locality.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalityWeight {
    /// Its region.
    pub region: String,
    /// Its zone; empty for all of the region that have no weight of their own.
    pub zone: String,
    /// Its share relative to the others.
    pub weight: u32,
}
