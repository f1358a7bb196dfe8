//! Limits on requests at once, and who goes first.

use model::overload::{AdaptiveConcurrency, Criticality, LoadShedding, MinRtt};

use super::field::{Invalid, Result, duration, duration_to_message, known, parse, required};
use crate::proto::v1;

pub(super) fn adaptive_to_message(adaptive: &AdaptiveConcurrency) -> v1::AdaptiveConcurrency {
    v1::AdaptiveConcurrency {
        max_concurrency: adaptive.max_concurrency,
        min_concurrency: adaptive.min_concurrency,
        update_interval: Some(duration_to_message(adaptive.update_interval)),
        sample_percentile: adaptive.sample_percentile,
        min_rtt_interval: Some(duration_to_message(adaptive.min_rtt.interval)),
        min_rtt_requests: adaptive.min_rtt.request_count,
        min_rtt_jitter_percent: adaptive.min_rtt.jitter_percent,
        min_rtt_buffer_percent: adaptive.min_rtt.buffer_percent,
    }
}

pub(super) fn adaptive(message: v1::AdaptiveConcurrency) -> Result<AdaptiveConcurrency> {
    let span = |field, value| duration(field, required(field, value)?);
    Ok(AdaptiveConcurrency {
        max_concurrency: message.max_concurrency,
        min_concurrency: message.min_concurrency,
        update_interval: span("update_interval", message.update_interval)?,
        sample_percentile: percent("sample_percentile", message.sample_percentile)?,
        min_rtt: MinRtt {
            interval: span("min_rtt_interval", message.min_rtt_interval)?,
            request_count: message.min_rtt_requests,
            jitter_percent: percent("min_rtt_jitter_percent", message.min_rtt_jitter_percent)?,
            buffer_percent: percent("min_rtt_buffer_percent", message.min_rtt_buffer_percent)?,
        },
    })
}

pub(super) fn shedding_to_message(shedding: &LoadShedding) -> v1::LoadShedding {
    v1::LoadShedding {
        header: shedding.header.to_string(),
        unsaid: match shedding.unsaid {
            Criticality::CriticalPlus => v1::Criticality::CriticalPlus,
            Criticality::Critical => v1::Criticality::Critical,
            Criticality::SheddablePlus => v1::Criticality::SheddablePlus,
            Criticality::Sheddable => v1::Criticality::Sheddable,
        }
        .into(),
        shares: shedding.shares.to_vec(),
    }
}

pub(super) fn shedding(message: v1::LoadShedding) -> Result<LoadShedding> {
    let shares: [u32; 4] = message
        .shares
        .try_into()
        .map_err(|_| Invalid::new("shares", "are not four"))?;
    for share in shares {
        percent("shares", share)?;
    }
    Ok(LoadShedding {
        header: parse("header", &message.header)?,
        unsaid: match known("unsaid", message.unsaid)? {
            v1::Criticality::CriticalPlus => Criticality::CriticalPlus,
            v1::Criticality::Critical => Criticality::Critical,
            v1::Criticality::SheddablePlus => Criticality::SheddablePlus,
            v1::Criticality::Sheddable => Criticality::Sheddable,
        },
        shares,
    })
}

fn percent(field: &str, value: u32) -> Result<u32> {
    if value > 100 {
        return Err(Invalid::new(
            field,
            format!("is {value}; it is a percentage"),
        ));
    }
    Ok(value)
}
