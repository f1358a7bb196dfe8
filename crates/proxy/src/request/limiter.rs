//! Limits with what was counted, shared by all workers.
//!
//! A key is kept as a number that only this process can work out, so that whatever clients send takes
//! the same room, and nobody can choose whose bucket to share. There are at most 65536 of a limit; when
//! there would be more, those are forgotten that have nothing to remember, and if that does not
//! suffice the half that was used the least lately. A key that was forgotten begins anew.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::request::{Limit, Limits, Parent, RequestPolicy, Scope, Section};
use model::workload::PortLimits;
use model::{ObjectName, Reason, ServiceName};
use policy::request::limit::{State, Verdict, identify};
use policy::request::{Asker, holds, normalize};
use policy::route::RequestView;
use wire::Fields;

use super::global::{Global, Question};
use crate::destination::since_start;
use crate::error::{Failure, Manner};

/// Keys of one limit that are remembered; docs/rate-limits.md says so too.
#[cfg(test)]
const KEYS: usize = SHARDS * KEYS_OF_SHARD;
/// Two requests wait for each other if their keys are in one shard, for as long as counting takes.
const SHARDS: usize = 64;
const KEYS_OF_SHARD: usize = 1024;

/// The limits of one policy at one place.
pub(crate) struct Limiters {
    place: Place,
    /// `RateLimitPolicy namespace/name`, for messages.
    shown: String,
    headers: bool,
    limits: Vec<Arc<Limiter>>,
    global: Option<Arc<Global>>,
}

/// What is said of a request here, and what a service is to be asked about it.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) told: Option<Box<Told>>,
    pub(crate) question: Option<Box<Question>>,
}

/// Which policy it is, and of what.
#[derive(PartialEq, Eq)]
enum Place {
    Parent(ObjectName, Parent, Section),
    /// Of what comes to the own workload for a service.
    Workload(ObjectName, ServiceName),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(_, service) => write!(f, "Service {service}"),
            Self::Parent(_, _, Section::Route { kind, name, rule }) => {
                write!(f, "{} {name}", kind.as_str())?;
                match rule {
                    Some(rule) => write!(f, " rule {rule}"),
                    None => Ok(()),
                }
            }
            Self::Parent(_, parent, section) => {
                match parent {
                    Parent::Gateway(name) => write!(f, "Gateway {name}")?,
                    Parent::Service(name) => write!(f, "Service {name}")?,
                }
                match section {
                    Section::Listener(name) => write!(f, " listener {name}"),
                    Section::Port(port) => write!(f, " port {port}"),
                    Section::Whole | Section::Route { .. } => Ok(()),
                }
            }
        }
    }
}

struct Limiter {
    limit: Limit,
    hashes: RandomState,
    shards: Vec<Mutex<Shard>>,
}

type Shard = HashMap<u64, State, BuildHasherDefault<Same>>;

/// For keys that are hashes already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// What a client is told of the limits that its request was counted towards:
/// draft-ietf-httpapi-ratelimit-headers-10.
#[derive(Default)]
pub(crate) struct Told {
    policy: String,
    state: String,
}

impl Told {
    /// Adds it to what others have said.
    pub(crate) fn write(&self, fields: &mut Fields) {
        fields.append("ratelimit-policy", self.policy.as_bytes());
        fields.append("ratelimit", self.state.as_bytes());
    }
}

impl Limiters {
    pub(super) fn of_policy(
        policy: &RequestPolicy,
        limits: &Limits,
        before: &[Arc<Self>],
    ) -> Arc<Self> {
        let (name, parent) = (policy.name.clone(), policy.parent.clone());
        let place = Place::Parent(name, parent, policy.section.clone());
        Self::new(place, &policy.name, limits, before)
    }

    pub(crate) fn of_workload(limits: &PortLimits, before: &[Arc<Self>]) -> Arc<Self> {
        let place = Place::Workload(limits.policy.clone(), limits.service.clone());
        Self::new(place, &limits.policy, &limits.limits, before)
    }

    fn new(place: Place, name: &ObjectName, limits: &Limits, before: &[Arc<Self>]) -> Arc<Self> {
        let old = before.iter().find(|old| old.place == place);
        let limiter = |limit: &Limit| {
            let mut limit = limit.clone();
            normalize(&mut limit.condition);
            let known = old.and_then(|old| old.limits.iter().find(|l| l.limit == limit));
            known.map_or_else(|| Arc::new(Limiter::new(limit)), Arc::clone)
        };
        let shown = format!("RateLimitPolicy {name}");
        let own = limits.limits.iter().filter(|l| l.scope == Scope::Local);
        Arc::new(Self {
            headers: limits.headers,
            limits: own.map(limiter).collect(),
            global: Global::new(&name.to_string(), &shown, place.to_string(), limits),
            place,
            shown,
        })
    }

    /// Counts a request towards each limit that is for it, up to the first that it is over. What is
    /// counted for the whole mesh is to be asked after that.
    pub(crate) fn count(
        &self,
        request: &RequestView<'_>,
        asker: Asker<'_>,
    ) -> Result<Counted, Failure> {
        let now = since_start();
        let mut told: Option<Box<Told>> = None;
        for limiter in &self.limits {
            if !holds(&limiter.limit.condition, request, asker) {
                continue;
            }
            let verdict = limiter.count(request, asker, now);
            if self.headers || !verdict.allowed {
                say(&limiter.limit, &verdict, &mut told);
            }
            if !verdict.allowed {
                let told = told.filter(|_| self.headers);
                return Err(refusal(&limiter.limit, &self.shown, &verdict, told));
            }
        }
        let global = self.global.as_ref();
        let question = global.and_then(|global| global.question(request, asker));
        Ok(Counted { told, question })
    }
}

/// The failure of a request that is over a limit of the policy that is `shown`.
pub(super) fn refusal(
    limit: &Limit,
    shown: &str,
    verdict: &Verdict,
    told: Option<Box<Told>>,
) -> Failure {
    let details = format!(
        "limit \"{}\" of {shown}: {} requests in {:?}",
        limit.name, limit.requests, limit.per
    );
    let mut fields = Fields::new();
    let seconds = seconds(verdict.retry_after).max(1).to_string();
    fields.append("retry-after", seconds.as_bytes());
    if let Some(told) = told {
        told.write(&mut fields);
    }
    Failure {
        manner: Manner::With(Box::new(fields)),
        ..Failure::new(Reason::RateLimited, details)
    }
}

impl Limiter {
    fn new(limit: Limit) -> Self {
        let shards = if limit.key.is_empty() { 1 } else { SHARDS };
        Self {
            limit,
            hashes: RandomState::new(),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    fn count(&self, request: &RequestView<'_>, asker: Asker<'_>, now: Duration) -> Verdict {
        let mut hasher = self.hashes.build_hasher();
        identify(&self.limit, request, asker, &mut hasher);
        self.count_key(hasher.finish(), now)
    }

    fn count_key(&self, key: u64, now: Duration) -> Verdict {
        // The upper bits: a table looks at the lower ones.
        let at = (key >> 32) as usize % self.shards.len();
        // Nothing in here panics half-way.
        let mut shard = self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= KEYS_OF_SHARD && !shard.contains_key(&key) {
            make_room(&mut shard, &self.limit, now);
        }
        shard.entry(key).or_default().take(&self.limit, now)
    }
}

/// Costs about as much as the keys that it forgets have cost to count.
fn make_room(shard: &mut Shard, limit: &Limit, now: Duration) {
    shard.retain(|_, state| !state.is_fresh(limit, now));
    if shard.len() > KEYS_OF_SHARD / 2 {
        let mut ages: Vec<u64> = shard.values().map(State::age).collect();
        let middle = ages.len() / 2;
        let (_, middle, _) = ages.select_nth_unstable(middle);
        let middle = *middle;
        shard.retain(|_, state| state.age() > middle);
    }
}

pub(super) fn say(limit: &Limit, verdict: &Verdict, told: &mut Option<Box<Told>>) {
    let told = told.get_or_insert_default();
    let comma = if told.policy.is_empty() { "" } else { ", " };
    let name = &limit.name;
    let (quota, window) = (limit.requests, seconds(limit.per));
    // Writing to a String cannot fail.
    let _ = write!(told.policy, "{comma}\"{name}\";q={quota};w={window}");
    let (left, reset) = (verdict.remaining, seconds(verdict.reset));
    let _ = write!(told.state, "{comma}\"{name}\";r={left};t={reset}");
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use model::request::{Algorithm, Condition, Key};

    use super::*;

    fn limit() -> Limit {
        Limit {
            name: "l".to_owned(),
            condition: Condition::default(),
            key: vec![Key::Path],
            requests: 1,
            per: Duration::from_mins(1),
            burst: 1,
            algorithm: Algorithm::TokenBucket,
            scope: Scope::Local,
        }
    }

    #[test]
    fn keys_are_bounded_and_those_that_wait_the_longest_are_kept() {
        let limiter = Limiter::new(limit());
        let start = Duration::from_secs(1);
        for key in 0..8 * KEYS as u64 {
            let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert!(limiter.count_key(hash, start).allowed);
        }
        let held = |limiter: &Limiter| -> usize {
            let shards = limiter.shards.iter();
            shards.map(|s| s.lock().expect("whole").len()).sum()
        };
        assert!(held(&limiter) <= KEYS, "{}", held(&limiter));
        // Of keys in use the last is not the one that goes.
        let last = 7u64;
        let later = start + Duration::from_secs(30);
        assert!(limiter.count_key(last, later).allowed);
        for key in 0..KEYS_OF_SHARD as u64 {
            let _ = limiter.count_key(0x100 + key, start);
        }
        assert!(!limiter.count_key(last, later).allowed, "it is remembered");
    }

    #[test]
    fn what_was_counted_stays_while_the_limit_is_the_same() {
        let limits = |requests| Limits {
            limits: vec![Limit {
                requests,
                ..limit()
            }],
            headers: true,
            service: None,
        };
        let of = |requests, before: &[Arc<Limiters>]| {
            let port = PortLimits {
                policy: "shop/l".parse().expect("valid"),
                service: "shop/s".parse().expect("valid"),
                ports: vec![80],
                limits: limits(requests),
            };
            Limiters::of_workload(&port, before)
        };
        let first = of(1, &[]);
        let same = of(1, &[Arc::clone(&first)]);
        let other = of(2, &[Arc::clone(&first)]);
        assert!(Arc::ptr_eq(&first.limits[0], &same.limits[0]));
        assert!(!Arc::ptr_eq(&first.limits[0], &other.limits[0]));
    }
}
