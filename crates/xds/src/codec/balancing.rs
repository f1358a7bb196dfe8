//! How an endpoint is chosen.

use model::balancing::{
    Algorithm, Cookie, HashKey, LoadBalancer, LocalityMode, LocalityWeight, SlowStart,
};

use super::field::{
    Invalid, Result, duration, duration_to_message, each, known, locality, locality_to_message,
    optional_duration, parse, required,
};
use crate::proto::v1;
use v1::hash_key::Key;

pub(super) fn algorithm(algorithm: Algorithm) -> v1::LoadBalancer {
    match algorithm {
        Algorithm::LeastRequest => v1::LoadBalancer::LeastRequest,
        Algorithm::RoundRobin => v1::LoadBalancer::RoundRobin,
        Algorithm::Random => v1::LoadBalancer::Random,
        Algorithm::PeakEwma => v1::LoadBalancer::PeakEwma,
        Algorithm::RingHash { .. } => v1::LoadBalancer::RingHash,
        Algorithm::Maglev { .. } => v1::LoadBalancer::Maglev,
    }
}

pub(super) fn to_message(balancer: &LoadBalancer) -> v1::Balancing {
    let (minimum_ring, maximum_ring) = match balancer.algorithm {
        Algorithm::RingHash { minimum, maximum } => (minimum, maximum),
        _ => (0, 0),
    };
    let table = match balancer.algorithm {
        Algorithm::Maglev { table } => table,
        _ => 0,
    };
    let weights = match &balancer.locality {
        Some(LocalityMode::Weighted(weights)) => weights.as_slice(),
        _ => &[],
    };
    v1::Balancing {
        hash: balancer.hash.iter().map(key_to_message).collect(),
        minimum_ring,
        maximum_ring,
        table,
        slow_start: balancer.slow_start.map(|slow| v1::SlowStart {
            window: Some(duration_to_message(slow.window)),
            aggression_milli: slow.aggression_milli,
            min_weight_percent: slow.min_weight_percent,
        }),
        panic_threshold: balancer.panic_threshold,
        locality: balancer.locality.as_ref().map(|mode| {
            match mode {
                LocalityMode::None => v1::LocalityMode::None,
                LocalityMode::Failover => v1::LocalityMode::Failover,
                LocalityMode::Weighted(_) => v1::LocalityMode::Weighted,
            }
            .into()
        }),
        locality_weights: weights.iter().map(weight_to_message).collect(),
    }
}

pub(super) fn from_message(
    algorithm: v1::LoadBalancer,
    message: v1::Balancing,
) -> Result<LoadBalancer> {
    let algorithm = match algorithm {
        v1::LoadBalancer::LeastRequest => Algorithm::LeastRequest,
        v1::LoadBalancer::RoundRobin => Algorithm::RoundRobin,
        v1::LoadBalancer::Random => Algorithm::Random,
        v1::LoadBalancer::PeakEwma => Algorithm::PeakEwma,
        v1::LoadBalancer::RingHash => Algorithm::RingHash {
            minimum: within(
                "minimum_ring",
                message.minimum_ring,
                Algorithm::LARGEST_RING,
            )?,
            maximum: within(
                "maximum_ring",
                message.maximum_ring,
                Algorithm::LARGEST_RING,
            )?,
        },
        v1::LoadBalancer::Maglev => Algorithm::Maglev {
            table: within("table", message.table, Algorithm::LARGEST_TABLE)?,
        },
    };
    let hash = each("hash", message.hash, key)?;
    if algorithm.hashes() && hash.is_empty() {
        return Err(Invalid::new("hash", "is missing: the algorithm needs it"));
    }
    let slow_start = message.slow_start.map(slow_start).transpose()?;
    let percent = |value| match value {
        0..=100 => Ok(value),
        _ => Err(Invalid::new("panic_threshold", "is not a percentage")),
    };
    let mode = |value| {
        Ok(match known("locality", value)? {
            v1::LocalityMode::None => LocalityMode::None,
            v1::LocalityMode::Failover => LocalityMode::Failover,
            v1::LocalityMode::Weighted => LocalityMode::Weighted(Vec::new()),
        })
    };
    let mut mode = message.locality.map(mode).transpose()?;
    if let Some(LocalityMode::Weighted(weights)) = &mut mode {
        let given = message.locality_weights.into_iter();
        weights.extend(given.map(weight));
    }
    Ok(LoadBalancer {
        algorithm,
        hash,
        slow_start,
        panic_threshold: message.panic_threshold.map(percent).transpose()?,
        locality: mode,
    })
}

/// A size for which memory is taken.
fn within(field: &str, size: u32, largest: u32) -> Result<u32> {
    if (1..=largest).contains(&size) {
        return Ok(size);
    }
    Err(Invalid::new(
        field,
        format!("is {size}; it must be from 1 to {largest}"),
    ))
}

fn key_to_message(key: &HashKey) -> v1::HashKey {
    let key = match key {
        HashKey::Header(name) => Key::Header(name.to_string()),
        HashKey::Cookie(cookie) => Key::Cookie(v1::HashCookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(duration_to_message),
            path: cookie.path.clone(),
        }),
        HashKey::Query(name) => Key::Query(name.clone()),
        HashKey::SourceIp => Key::SourceIp(true),
    };
    v1::HashKey { key: Some(key) }
}

fn key(message: v1::HashKey) -> Result<HashKey> {
    Ok(match required("key", message.key)? {
        Key::Header(name) => HashKey::Header(parse("header", &name)?),
        Key::Cookie(cookie) => HashKey::Cookie(Cookie {
            name: cookie.name,
            ttl: optional_duration("cookie.ttl", cookie.ttl)?,
            path: cookie.path,
        }),
        Key::Query(name) => HashKey::Query(name),
        Key::SourceIp(_) => HashKey::SourceIp,
    })
}

fn slow_start(message: v1::SlowStart) -> Result<SlowStart> {
    Ok(SlowStart {
        window: duration(
            "slow_start.window",
            required("slow_start.window", message.window)?,
        )?,
        aggression_milli: within(
            "slow_start.aggression_milli",
            message.aggression_milli,
            u32::MAX,
        )?,
        min_weight_percent: message.min_weight_percent.min(100),
    })
}

fn weight_to_message(weight: &LocalityWeight) -> v1::LocalityWeight {
    let place = model::workload::Locality {
        region: weight.region.clone(),
        zone: weight.zone.clone(),
    };
    v1::LocalityWeight {
        locality: Some(locality_to_message(&place)),
        weight: weight.weight,
    }
}

fn weight(message: v1::LocalityWeight) -> LocalityWeight {
    let place = locality(message.locality);
    LocalityWeight {
        region: place.region,
        zone: place.zone,
        weight: message.weight,
    }
}
