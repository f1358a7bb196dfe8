//! New endpoints get little at first: Envoy's slow start.
//!
//! While it is younger than the window an endpoint's weight is multiplied by
//! `max(minimum, (age / window) ^ (1 / aggression))`.

use std::time::Duration;

use model::balancing::SlowStart;

/// What a whole weight is multiplied with: parts of a weight are told in thousandths.
pub const WHOLE: u32 = 1000;

/// What the weight of an endpoint of this age is multiplied with, in thousandths.
pub fn factor(age: Duration, settings: &SlowStart) -> u32 {
    if age >= settings.window {
        return WHOLE;
    }
    // As Envoy: nothing is younger than a millisecond.
    let age = age.max(Duration::from_millis(1)).as_secs_f64();
    let part = age / settings.window.as_secs_f64();
    let grown = if settings.aggression_milli == 1000 {
        part
    } else {
        part.powf(1000.0 / f64::from(settings.aggression_milli.max(1)))
    };
    let grown = (grown * f64::from(WHOLE)) as u32;
    grown
        .max(settings.min_weight_percent * (WHOLE / 100))
        .clamp(1, WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(aggression_milli: u32, min_weight_percent: u32) -> SlowStart {
        SlowStart {
            window: Duration::from_mins(1),
            aggression_milli,
            min_weight_percent,
        }
    }

    #[test]
    fn the_curve_is_envoys() {
        for (aggression, minimum, seconds, expected) in [
            // In proportion to the age, but never less than the minimum.
            (1000, 10, 0, 100),
            (1000, 10, 3, 100),
            (1000, 10, 15, 250),
            (1000, 10, 30, 500),
            (1000, 10, 59, 983),
            (1000, 10, 60, 1000),
            (1000, 10, 600, 1000),
            // More at once: the square root.
            (2000, 10, 15, 500),
            // Less at first: the square.
            (500, 10, 30, 250),
            (500, 0, 6, 10),
            (500, 0, 0, 1),
            (1000, 100, 0, 1000),
        ] {
            let got = factor(Duration::from_secs(seconds), &settings(aggression, minimum));
            assert_eq!(got, expected, "{aggression} {minimum} {seconds}");
        }
    }
}
