//! Answers to questions.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tonic::{Request, Response, Status};
use xds::proto::envoy::config::core::v3::HeaderValue;
use xds::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use xds::proto::ratelimit::rate_limit_response::{Code, DescriptorStatus};
use xds::proto::ratelimit::rate_limit_service_server::RateLimitService;
use xds::proto::ratelimit::{RateLimitRequest, RateLimitResponse};

use crate::config::Config;
use crate::limit::{Limit, Unit};
use crate::metrics::Metrics;
use crate::store::{self, Count, Store};

/// Descriptors of a question.
const DESCRIPTORS: usize = 64;
/// Entries of a descriptor.
const ENTRIES: usize = 32;
/// Bytes of a name or value.
const TEXT: usize = 16 * 1024;
/// Hits that a question counts for.
const HITS: u64 = 1 << 32;

/// The service.
pub(crate) struct Service {
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Metrics,
    /// Whether those who ask are told what to tell their clients.
    pub(crate) headers: bool,
}

/// What is known of a descriptor before it is counted.
struct Asked<'q> {
    descriptor: &'q RateLimitDescriptor,
    limit: Option<Arc<Limit>>,
}

#[tonic::async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let begun = Instant::now();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let answer = self
            .answer(request.get_ref(), since.unwrap_or_default())
            .await;
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        answer.map(Response::new)
    }
}

impl Service {
    /// Counts what a question is about, at a moment since 1970.
    async fn answer(
        &self,
        question: &RateLimitRequest,
        now: Duration,
    ) -> Result<RateLimitResponse, Status> {
        if let Err(why) = check(question) {
            self.metrics.invalid.inc();
            return Err(Status::invalid_argument(why));
        }
        let asked = self.limits(question);
        let counts: Vec<Count> = asked
            .iter()
            .filter_map(|asked| asked.count(question, now))
            .collect();
        let sums = self.store.add(&counts, now).await.map_err(|error| {
            self.metrics.failed.inc();
            tracing::debug!(%error, "nothing was counted");
            Status::unavailable(error.to_string())
        })?;
        let mut sums = sums.into_iter();
        let statuses: Vec<DescriptorStatus> = asked
            .iter()
            .map(|asked| self.status(asked, &mut sums, now))
            .collect();
        let over = statuses.iter().any(|s| s.code() == Code::OverLimit);
        let overall = if over { Code::OverLimit } else { Code::Ok };
        let headers = if self.headers {
            headers(&asked, &statuses)
        } else {
            Vec::new()
        };
        Ok(RateLimitResponse {
            overall_code: overall.into(),
            statuses,
            response_headers_to_add: headers,
        })
    }

    /// The limit of each descriptor, but for those that another one replaces.
    fn limits<'q>(&self, question: &'q RateLimitRequest) -> Vec<Asked<'q>> {
        let config = self.config.load();
        let mut asked: Vec<Asked<'q>> = question
            .descriptors
            .iter()
            .map(|descriptor| Asked {
                descriptor,
                limit: override_of(descriptor).or_else(|| {
                    let found = config.find(&question.domain, entries(descriptor));
                    found.map(Arc::clone)
                }),
            })
            .collect();
        let limits: Vec<Arc<Limit>> = asked.iter().filter_map(|a| a.limit.clone()).collect();
        let replaced: HashSet<&str> = limits
            .iter()
            .flat_map(|limit| limit.replaces.iter().map(String::as_str))
            .collect();
        for asked in &mut asked {
            let limit = asked.limit.as_ref();
            if limit.is_some_and(|limit| replaced.contains(limit.name.as_str())) {
                asked.limit = None;
            }
        }
        asked
    }

    fn status(
        &self,
        asked: &Asked<'_>,
        sums: &mut impl Iterator<Item = u64>,
        now: Duration,
    ) -> DescriptorStatus {
        let Some(limit) = &asked.limit else {
            self.metrics.unknown.inc();
            return DescriptorStatus {
                code: Code::Ok.into(),
                ..DescriptorStatus::default()
            };
        };
        let Some(requests) = limit.requests else {
            self.metrics.unlimited.inc();
            return DescriptorStatus {
                code: Code::Ok.into(),
                limit_remaining: u32::MAX,
                ..DescriptorStatus::default()
            };
        };
        let sum = sums.next().unwrap_or_default();
        let beyond = sum > u64::from(requests);
        let code = if beyond && !limit.shadow {
            self.metrics.over.inc();
            Code::OverLimit
        } else {
            let counter = if beyond {
                &self.metrics.shadowed
            } else {
                &self.metrics.within
            };
            counter.inc();
            Code::Ok
        };
        let left = u64::from(requests).saturating_sub(sum);
        let reset = limit.unit.window(now).left(now);
        DescriptorStatus {
            code: code.into(),
            current_limit: Some(limit.to_message()),
            // No more than `requests`.
            limit_remaining: u32::try_from(left).unwrap_or(u32::MAX),
            duration_until_reset: prost_types::Duration::try_from(reset).ok(),
        }
    }
}

impl Asked<'_> {
    fn count(&self, question: &RateLimitRequest, now: Duration) -> Option<Count> {
        let limit = self.limit.as_ref().filter(|l| l.requests.is_some())?;
        // Unset means one.
        let of_all = u64::from(question.hits_addend.max(1));
        Some(Count {
            key: store::key(&question.domain, entries(self.descriptor), limit.unit),
            window: limit.unit.window(now),
            hits: self.descriptor.hits_addend.unwrap_or(of_all),
        })
    }

    /// What clients are told that the limit is named.
    fn name(&self, limit: &Limit) -> String {
        let own = (!limit.name.is_empty()).then_some(limit.name.as_str());
        let entries = self.descriptor.entries.iter();
        let keys = || {
            entries
                .map(|e| e.key.as_str())
                .collect::<Vec<_>>()
                .join("_")
        };
        let name = own.map_or_else(keys, str::to_owned);
        let safe = |c: &char| (' '..='~').contains(c) && !matches!(c, '"' | '\\');
        name.chars().filter(safe).take(64).collect()
    }
}

fn entries(descriptor: &RateLimitDescriptor) -> impl Iterator<Item = (&str, &str)> {
    let entries = descriptor.entries.iter();
    entries.map(|entry| (entry.key.as_str(), entry.value.as_str()))
}

/// The limit that comes with a descriptor.
fn override_of(descriptor: &RateLimitDescriptor) -> Option<Arc<Limit>> {
    let limit = descriptor.limit.as_ref()?;
    Some(Arc::new(Limit {
        name: String::new(),
        requests: Some(limit.requests_per_unit),
        unit: Unit::of_message(limit.unit())?,
        shadow: false,
        replaces: Vec::new(),
    }))
}

fn check(question: &RateLimitRequest) -> Result<(), String> {
    if question.domain.is_empty() {
        return Err("domain must not be empty".to_owned());
    }
    let count = question.descriptors.len();
    if count == 0 || count > DESCRIPTORS {
        return Err(format!(
            "{count} descriptors; there may be 1 to {DESCRIPTORS}"
        ));
    }
    let mut texts = vec![question.domain.len()];
    for descriptor in &question.descriptors {
        let count = descriptor.entries.len();
        if count == 0 || count > ENTRIES {
            return Err(format!(
                "a descriptor of {count} entries; there may be 1 to {ENTRIES}"
            ));
        }
        if descriptor.hits_addend.is_some_and(|hits| hits > HITS) {
            return Err(format!("hits_addend is beyond {HITS}"));
        }
        if let Some(limit) = &descriptor.limit
            && Unit::of_message(limit.unit()).is_none()
        {
            return Err("a limit has no unit that is known".to_owned());
        }
        texts.extend(
            descriptor
                .entries
                .iter()
                .flat_map(|e| [e.key.len(), e.value.len()]),
        );
    }
    match texts.into_iter().find(|length| *length > TEXT) {
        Some(length) => Err(format!("a text of {length} bytes; there may be {TEXT}")),
        None => Ok(()),
    }
}

/// draft-ietf-httpapi-ratelimit-headers-10, and Retry-After (RFC 9110 10.2.3).
fn headers(asked: &[Asked<'_>], statuses: &[DescriptorStatus]) -> Vec<HeaderValue> {
    let (mut policy, mut state) = (String::new(), String::new());
    let mut wait = None;
    for (asked, status) in asked.iter().zip(statuses) {
        let Some(limit) = &asked.limit else { continue };
        let (Some(requests), Some(reset)) = (limit.requests, &status.duration_until_reset) else {
            continue;
        };
        let seconds = reset.seconds + i64::from(reset.nanos > 0);
        let comma = if policy.is_empty() { "" } else { ", " };
        let (name, window) = (asked.name(limit), limit.unit.seconds());
        // Writing to a String cannot fail.
        let _ = write!(policy, "{comma}\"{name}\";q={requests};w={window}");
        let left = status.limit_remaining;
        let _ = write!(state, "{comma}\"{name}\";r={left};t={seconds}");
        if status.code() == Code::OverLimit {
            wait = wait.max(Some(seconds.max(1)));
        }
    }
    let header = |key: &str, value: String| HeaderValue {
        key: key.to_owned(),
        value,
        raw_value: Vec::new(),
    };
    let mut all = Vec::new();
    if !policy.is_empty() {
        all.push(header("ratelimit-policy", policy));
        all.push(header("ratelimit", state));
    }
    all.extend(wait.map(|seconds| header("retry-after", seconds.to_string())));
    all
}

#[cfg(test)]
mod tests;
