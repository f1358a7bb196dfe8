//! Weights and header matches of the reviews' route.

use anyhow::bail;

use super::Check;
use super::driver::{none_failed, reviews, shares};

const REQUESTS: u64 = 2_000;

/// 90 to 10, within what chance allows.
pub(super) async fn check(cx: &mut Check<'_>) -> anyhow::Result<String> {
    let outcome = cx.probe.send(reviews(REQUESTS, 16)).await?;
    none_failed(&outcome)?;
    let second = outcome.tally.get("v2").copied().unwrap_or(0);
    let (low, high) = bounds(REQUESTS, 0.1);
    if !(low..=high).contains(&second) || outcome.tally.len() != 2 {
        bail!(
            "{} of {REQUESTS}, expected {low} to {high} of v2 and the rest of v1",
            shares(&outcome.tally)
        );
    }
    Ok(format!(
        "{} of {REQUESTS} (v2 within {low} to {high}), 0 failed, {:.0} requests/s",
        shares(&outcome.tally),
        REQUESTS as f64 / outcome.seconds
    ))
}

/// Jason sees version 3, and only Jason.
pub(super) async fn check_header(cx: &mut Check<'_>) -> anyhow::Result<String> {
    let count = 200;
    let outcome = cx
        .probe
        .send(reviews(count, 8).with_header("x-user", "jason"))
        .await?;
    none_failed(&outcome)?;
    if outcome.tally.get("v3") != Some(&count) {
        bail!(
            "x-user: jason got {} instead of v3 {count}",
            shares(&outcome.tally)
        );
    }
    Ok(format!("x-user: jason got v3 {count} times of {count}"))
}

/// Four standard deviations of a binomial distribution around its mean: outside by chance once in
/// 16,000 runs.
fn bounds(n: u64, p: f64) -> (u64, u64) {
    let n = n as f64;
    let four_sigma = 4.0 * (n * p * (1.0 - p)).sqrt();
    let mean = n * p;
    (
        (mean - four_sigma).ceil() as u64,
        (mean + four_sigma).floor() as u64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_four_standard_deviations_wide() {
        assert_eq!(bounds(2_000, 0.1), (147, 253));
    }
}
