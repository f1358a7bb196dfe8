//! Weighted choice between a rule's backends.
//!
//! Gateway API: a backend gets `weight / sum of weights` of the requests. Backends that lead
//! nowhere keep their share (those requests are answered with 500), so that a broken reference
//! does not silently shift traffic to the others.

use model::route::Backend;

/// The index of the backend for this request, given an evenly distributed `random`; `None` when
/// there is no backend with a weight above zero.
pub fn choose(backends: &[Backend], random: u64) -> Option<usize> {
    if let [only] = backends {
        return (only.weight > 0).then_some(0);
    }
    by_weight(backends.iter().map(|b| b.weight), random)
}

/// The same for whatever has weights.
pub fn by_weight(weights: impl Iterator<Item = u32> + Clone, random: u64) -> Option<usize> {
    let total: u128 = weights.clone().map(u128::from).sum();
    // Multiplying and keeping the high half maps `random` evenly to 0..total, without division.
    let mut point = (u128::from(random) * total) >> 64;
    let mut weights = weights;
    weights.position(|weight| {
        let weight = u128::from(weight);
        let here = point < weight;
        point = point.saturating_sub(weight);
        here
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::route::Target;

    fn backends(weights: &[u32]) -> Vec<Backend> {
        let backend = |&weight| Backend {
            target: Target::Invalid {
                reason: "test".into(),
            },
            weight,
            filters: Vec::new(),
        };
        weights.iter().map(backend).collect()
    }

    /// Evenly spaced draws over the whole range.
    fn shares(weights: &[u32], draws: u64) -> Vec<u64> {
        let backends = backends(weights);
        let mut counts = vec![0; weights.len()];
        for i in 0..draws {
            let random = (u128::from(2 * i + 1) << 63) / u128::from(draws);
            let chosen = choose(&backends, random as u64).expect("a weight is above zero");
            counts[chosen] += 1;
        }
        counts
    }

    #[test]
    fn shares_follow_the_weights() {
        assert_eq!(shares(&[90, 10], 1000), [900, 100]);
        assert_eq!(shares(&[1, 0, 1], 10), [5, 0, 5]);
        assert_eq!(shares(&[7], 10), [10]);
        assert_eq!(shares(&[0, 0, 3], 9), [0, 0, 9]);
    }

    #[test]
    fn no_weight_means_no_backend() {
        assert_eq!(choose(&backends(&[]), 7), None);
        assert_eq!(choose(&backends(&[0]), 7), None);
        assert_eq!(choose(&backends(&[0, 0]), u64::MAX), None);
    }

    #[test]
    fn the_largest_weights_and_draws_stay_in_range() {
        let backends = backends(&[u32::MAX, u32::MAX, u32::MAX]);
        assert_eq!(choose(&backends, u64::MAX), Some(2));
        assert_eq!(choose(&backends, 0), Some(0));
    }
}
