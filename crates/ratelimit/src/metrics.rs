//! What the service counts.

use telemetry::metrics::{Counter, Gauge, Histogram, Registry};

/// Seconds, up to what a proxy waits for.
const BOUNDS: [f64; 9] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.02, 0.1,
];

/// Counters. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) within: Counter,
    pub(crate) over: Counter,
    pub(crate) shadowed: Counter,
    pub(crate) unlimited: Counter,
    pub(crate) unknown: Counter,
    pub(crate) invalid: Counter,
    pub(crate) failed: Counter,
    pub(crate) seconds: Histogram,
    pub(crate) config_loaded: Counter,
    pub(crate) config_is_bad: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let said = |code| {
            let help = "Descriptors of questions, by what was said of them.";
            registry.counter_with("tulle_ratelimit_descriptors_total", help, &[("code", code)])
        };
        let failed = |reason| {
            let help = "Questions that were not answered.";
            registry.counter_with("tulle_ratelimit_errors_total", help, &[("reason", reason)])
        };
        Self {
            within: said("ok"),
            over: said("over_limit"),
            shadowed: said("shadow"),
            unlimited: said("unlimited"),
            unknown: said("no_limit"),
            invalid: failed("invalid"),
            failed: failed("store"),
            seconds: registry.histogram(
                "tulle_ratelimit_duration_seconds",
                "From a question to its answer.",
                &[],
                &BOUNDS,
            ),
            config_loaded: registry.counter(
                "tulle_ratelimit_config_loads_total",
                "Changes of files that were put in force.",
            ),
            config_is_bad: registry.gauge(
                "tulle_ratelimit_config_invalid",
                "1 while files are not valid and what they said before is in force.",
            ),
            registry,
        }
    }
}
