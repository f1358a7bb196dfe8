//! What the control plane counts, and how it is exposed.

use std::time::SystemTime;

use config::ObjectKind;
use telemetry::metrics::{Counter, Registry};

use crate::kubernetes::Report;
use crate::source::files::FileReport;
use crate::state::State;

/// Counters that several parts add to. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// All metrics, for exposition.
    pub registry: Registry,
    /// Certificates issued.
    pub issued: Counter,
    /// Leases that ended without a farewell.
    pub leases_expired: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        Self {
            issued: registry.counter(
                "tulle_certificate_issued_total",
                "Certificates issued to workloads.",
            ),
            leases_expired: registry.counter(
                "tulle_registry_leases_expired_total",
                "Workloads that vanished without a farewell.",
            ),
            registry,
        }
    }
}

impl Metrics {
    /// Counts a certificate that was not issued.
    pub fn refused(&self, reason: &str) {
        self.registry
            .counter_with(
                "tulle_certificate_refused_total",
                "Requests for certificates or with join tokens that were refused.",
                &[("reason", reason)],
            )
            .inc();
    }

    /// Counts a connection that did not come about.
    pub fn handshake_failed(&self, reason: &str) {
        self.registry
            .counter_with(
                "tulle_control_handshake_failures_total",
                "TLS handshakes with the control plane that failed.",
                &[("reason", reason)],
            )
            .inc();
    }

    /// Registers what Envoys are sent.
    pub fn watch_envoys(&self, envoys: &std::sync::Arc<xds::envoy::Envoys>) {
        let of = std::sync::Arc::clone(envoys);
        self.registry.gauge_fn(
            "tulle_xds_connected_envoys",
            "Envoys with an open xDS stream.",
            &[],
            move || of.counts().0 as f64,
        );
        let of = std::sync::Arc::clone(envoys);
        self.registry.counter_fn(
            "tulle_xds_envoy_pushes_total",
            "Responses sent to Envoys.",
            &[],
            move || of.counts().1,
        );
        let of = std::sync::Arc::clone(envoys);
        self.registry.counter_fn(
            "tulle_xds_envoy_rejections_total",
            "Responses that Envoys refused.",
            &[],
            move || of.counts().2,
        );
    }

    /// Registers what is worked out when somebody scrapes.
    pub fn watch_state(&self, state: &State, files: Option<FileReport>, cluster: Option<&Report>) {
        let registry = &self.registry;
        let distributor = std::sync::Arc::clone(state.distribution().distributor());
        registry.gauge_fn(
            "tulle_xds_connected_proxies",
            "Proxies with an open xDS stream.",
            &[],
            move || distributor.clients().len() as f64,
        );
        let distributor = std::sync::Arc::clone(state.distribution().distributor());
        registry.counter_fn(
            "tulle_xds_pushes_total",
            "Responses sent to proxies.",
            &[],
            move || distributor.counts().0,
        );
        let distributor = std::sync::Arc::clone(state.distribution().distributor());
        registry.counter_fn(
            "tulle_xds_rejections_total",
            "Responses that proxies refused.",
            &[],
            move || distributor.counts().1,
        );
        for kind in ObjectKind::ALL {
            let state = state.clone();
            registry.gauge_fn(
                "tulle_config_objects",
                "Objects in force, by kind.",
                &[("kind", kind.as_str())],
                move || state.count(kind) as f64,
            );
        }
        let of = state.clone();
        let of_cluster = cluster.cloned();
        let broken = move || {
            files.as_ref().map_or(0, FileReport::broken)
                + of_cluster.as_ref().map_or(0, Report::broken)
        };
        registry.gauge_fn(
            "tulle_config_errors",
            "Files and objects whose last good state is in force instead of what they say, and objects with errors.",
            &[],
            move || {
                let findings = of.distribution().all_findings();
                (broken() + findings.iter().filter(|d| d.is_error()).count()) as f64
            },
        );
        if let Some(cluster) = cluster {
            self.watch_cluster(cluster);
        }
    }

    /// Registers what there is to say of Kubernetes as the source of objects.
    fn watch_cluster(&self, cluster: &Report) {
        let registry = &self.registry;
        for kind in ObjectKind::ALL {
            let labels = [("kind", kind.as_str())];
            let of = cluster.clone();
            registry.gauge_fn(
                "tulle_config_watch_lag_seconds",
                "For how long the watch of a kind may have missed changes in Kubernetes.",
                &labels,
                move || of.watch(kind).0,
            );
            let of = cluster.clone();
            registry.counter_fn(
                "tulle_config_watch_failures_total",
                "Failures of the watch of a kind in Kubernetes.",
                &labels,
                move || of.watch(kind).1,
            );
            let of = cluster.clone();
            registry.counter_fn(
                "tulle_config_lists_total",
                "Whole lists of a kind that were taken from Kubernetes.",
                &labels,
                move || of.watch(kind).2,
            );
        }
        let of = cluster.clone();
        registry.counter_fn(
            "tulle_config_status_writes_total",
            "Statuses written to Kubernetes.",
            &[],
            move || of.writes().0,
        );
        let of = cluster.clone();
        registry.counter_fn(
            "tulle_config_status_write_errors_total",
            "Statuses that could not be written to Kubernetes, and were tried again.",
            &[],
            move || of.writes().1,
        );
        let of = cluster.clone();
        registry.gauge_fn(
            "tulle_config_leader",
            "1 where this replica writes to Kubernetes.",
            &[],
            move || f64::from(u8::from(of.is_leader())),
        );
    }

    /// Registers the time at which a certificate of the control plane ends.
    pub fn watch_expiry(
        &self,
        certificate: &str,
        not_after: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) {
        self.registry.gauge_fn(
            "tulle_certificate_expiry_seconds",
            "Seconds until a certificate of the control plane expires.",
            &[("certificate", certificate)],
            move || match not_after().duration_since(SystemTime::now()) {
                Ok(left) => left.as_secs_f64(),
                Err(late) => -late.duration().as_secs_f64(),
            },
        );
    }
}
