//! What an attack may cost, and how it must be seen: memory and processor time of the proxy before
//! and after, the reasons it counted, and whether it still serves others.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::front::{Front, Kind};

/// A proxy under attack.
pub(super) struct Watch<'a> {
    front: &'a Front,
    memory: usize,
    cpu: Duration,
    begun: Instant,
    reasons: BTreeMap<String, f64>,
}

/// What an attack may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// How much larger the process may be at its largest, in KiB.
    pub(super) memory: usize,
    /// Processor time.
    pub(super) cpu: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            memory: 16 << 10,
            cpu: Duration::from_secs(2),
        }
    }
}

impl<'a> Watch<'a> {
    /// Begins to watch.
    pub(super) fn begin(front: &'a Front) -> Self {
        // The largest size so far is forgotten, so that the attack's own is seen.
        let _ = fs::write(format!("/proc/{}/clear_refs", front.process.pid()), "5");
        Self {
            front,
            memory: peak(front),
            cpu: front.cpu(),
            begun: Instant::now(),
            reasons: reasons(front),
        }
    }

    /// It cost no more than that, and others are served.
    #[track_caller]
    pub(super) fn end(self, what: &str, bounds: Bounds) {
        let grown = peak(self.front).saturating_sub(self.memory);
        let cpu = self.front.cpu().saturating_sub(self.cpu);
        let took = self.begun.elapsed();
        eprintln!("{what}: {grown} KiB at most, {cpu:.2?} of processor time in {took:.2?}");
        let answer = self.front.get("/after");
        assert_eq!(
            answer.status, 200,
            "{what}: the request after it: {answer:?}"
        );
        if self.front.kind == Kind::Tulle {
            assert!(grown <= bounds.memory, "{what}: {grown} KiB more memory");
            assert!(cpu <= bounds.cpu, "{what}: {cpu:?} of processor time");
        }
    }

    /// One of these reasons was counted since.
    #[track_caller]
    pub(super) fn counted(&self, what: &str, wanted: &[&str]) {
        if self.front.kind != Kind::Tulle {
            return;
        }
        let mut now = BTreeMap::new();
        let found = testkit::deadline::try_wait_for(Duration::from_secs(5), || {
            now = reasons(self.front);
            wanted.iter().find(|reason| {
                let before = self.reasons.get(**reason).copied().unwrap_or_default();
                now.get(**reason).copied().unwrap_or_default() > before
            })
        });
        assert!(
            found.is_some(),
            "{what}: none of {wanted:?} was counted; before {:?}, now {now:?}",
            self.reasons
        );
    }
}

/// The most memory that the process has had resident, in KiB.
fn peak(front: &Front) -> usize {
    let path = format!("/proc/{}/status", front.process.pid());
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default()
}

/// How often each reason was counted, whatever the metric.
fn reasons(front: &Front) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    if front.kind != Kind::Tulle {
        return found;
    }
    for line in front.page("/metrics").lines() {
        let Some((_, rest)) = line.split_once("reason=\"") else {
            continue;
        };
        let (Some((reason, _)), Some((_, value))) = (rest.split_once('"'), line.rsplit_once(' '))
        else {
            continue;
        };
        if !reason.is_empty() && (line.contains("_total{")) {
            *found.entry(reason.to_owned()).or_default() += value.parse().unwrap_or(0.0);
        }
    }
    found
}

/// Tulle does as it should; of others it is only printed.
#[track_caller]
pub(super) fn check(front: &Front, what: &str, holds: bool, seen: &dyn std::fmt::Debug) {
    if front.kind == Kind::Tulle {
        assert!(holds, "{what}: {seen:?}");
    } else if !holds {
        eprintln!("{what}: {seen:?}");
    }
}
