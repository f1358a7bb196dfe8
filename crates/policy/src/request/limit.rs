//! Whether a request is within a limit, from what was counted before. No clock: `now` is a time since
//! whatever beginning, the same for all calls about one state.
//!
//! A token bucket is kept as GCRA keeps it (ITU-T I.371): not the tokens but the time at which the
//! bucket will be full again, so that there is nothing to refill. A sliding window counts what came in
//! this window and, by how much of it is still in sight, the last one's, as if that had come evenly.
//! A fixed window counts its own and forgets the last one's.
//!
//! Counting for the whole mesh is a service's; what it is told of a request is worked out here.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use model::request::{Algorithm, Key, Limit};

use super::Asker;
use crate::route::RequestView;

/// What was counted for one key. A new one has seen nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// Nanoseconds at which the bucket is full again, or the number of the window.
    at: u64,
    /// Requests of this window.
    current: u32,
    /// Requests of the one before.
    previous: u32,
}

/// What is said of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may pass; only then it counts.
    pub allowed: bool,
    /// How many more may at once.
    pub remaining: u32,
    /// Until all that there may be may be again.
    pub reset: Duration,
    /// Until the next may pass.
    pub retry_after: Duration,
}

impl State {
    /// Counts a request, if it may pass.
    pub fn take(&mut self, limit: &Limit, now: Duration) -> Verdict {
        let now = nanos(now);
        match limit.algorithm {
            Algorithm::TokenBucket => self.take_token(limit, now),
            Algorithm::SlidingWindow => self.take_place(limit, now),
            Algorithm::FixedWindow => self.take_in_window(limit, now),
        }
    }

    /// Whether it is as good as new: nothing is lost when it is forgotten.
    pub fn is_fresh(&self, limit: &Limit, now: Duration) -> bool {
        let now = nanos(now);
        match limit.algorithm {
            Algorithm::TokenBucket => self.at <= now,
            Algorithm::SlidingWindow => self.at.saturating_add(2) <= now / window(limit),
            Algorithm::FixedWindow => self.at < now / window(limit),
        }
    }

    /// The lower, the less is lost when it is forgotten.
    pub fn age(&self) -> u64 {
        self.at
    }

    fn take_token(&mut self, limit: &Limit, now: u64) -> Verdict {
        // Rounded up: never more than was asked for.
        let each = nanos(limit.per).div_ceil(u64::from(limit.requests.max(1)));
        let whole = each.saturating_mul(u64::from(limit.burst));
        let full = self.at.max(now);
        let then = full.saturating_add(each);
        let allowed = then - now <= whole;
        if allowed {
            self.at = then;
        }
        let used = self.at.saturating_sub(now);
        let left = whole.saturating_sub(used) / each.max(1);
        let wait = used.saturating_add(each).saturating_sub(whole);
        Verdict {
            allowed,
            remaining: u32::try_from(left).unwrap_or(u32::MAX),
            reset: Duration::from_nanos(used),
            retry_after: Duration::from_nanos(wait),
        }
    }

    fn take_in_window(&mut self, limit: &Limit, now: u64) -> Verdict {
        let length = window(limit);
        let number = now / length;
        if number > self.at {
            *self = Self {
                at: number,
                ..Self::default()
            };
        }
        let allowed = self.current < limit.requests;
        if allowed {
            self.current += 1;
        }
        let remaining = limit.requests.saturating_sub(self.current);
        let reset = Duration::from_nanos(length - now % length);
        Verdict {
            allowed,
            remaining,
            reset,
            retry_after: if remaining > 0 { Duration::ZERO } else { reset },
        }
    }

    fn take_place(&mut self, limit: &Limit, now: u64) -> Verdict {
        let length = window(limit);
        let number = now / length;
        let (elapsed, most) = (now % length, u64::from(limit.requests));
        match number.saturating_sub(self.at) {
            0 => {}
            1 => (self.previous, self.current) = (self.current, 0),
            _ => (self.previous, self.current) = (0, 0),
        }
        self.at = number.max(self.at);
        let in_sight = u128::from(self.previous) * u128::from(length - elapsed);
        let fits = |count: u64| in_sight + wide(count, length) <= wide(most, length);
        let allowed = fits(u64::from(self.current) + 1);
        if allowed {
            self.current += 1;
        }
        let current = u64::from(self.current);
        let room = wide(most, length).saturating_sub(in_sight + wide(current, length));
        let left = u32::try_from(room / u128::from(length)).unwrap_or(u32::MAX);
        let wait = if left > 0 {
            0
        } else {
            wait_for_place([u64::from(self.previous), current], most, length, elapsed)
        };
        Verdict {
            allowed,
            remaining: left,
            reset: Duration::from_nanos(2 * length - elapsed),
            retry_after: Duration::from_nanos(wait),
        }
    }
}

/// Nanoseconds until one more fits, if none comes.
fn wait_for_place([previous, current]: [u64; 2], most: u64, length: u64, elapsed: u64) -> u64 {
    // In this window, as the last one's leave it; else in the next, as this one's do.
    if current < most {
        return out_of_sight(previous, most - current - 1, length).saturating_sub(elapsed);
    }
    (length - elapsed) + out_of_sight(current, most.saturating_sub(1), length)
}

/// Nanoseconds into a window after which no more than `most` of the `count` of the last are in sight.
fn out_of_sight(count: u64, most: u64, length: u64) -> u64 {
    if count <= most {
        return 0;
    }
    let over = u128::from(count - most) * u128::from(length);
    u64::try_from(over.div_ceil(u128::from(count))).unwrap_or(u64::MAX)
}

fn wide(count: u64, length: u64) -> u128 {
    u128::from(count) * u128::from(length)
}

fn window(limit: &Limit) -> u64 {
    nanos(limit.per).max(1)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// Feeds what tells the request apart from others to `hasher`. What a request has not counts as
/// empty: leaving it out is no way around a limit.
pub fn identify(
    limit: &Limit,
    request: &RequestView<'_>,
    asker: Asker<'_>,
    hasher: &mut impl Hasher,
) {
    for key in &limit.key {
        match key {
            Key::Header(name) => {
                for value in request.headers.get_all(name.as_str()) {
                    value.hash(hasher);
                }
            }
            Key::Cookie(name) => cookie(request, name).unwrap_or_default().hash(hasher),
            Key::Identity => asker.identity.hash(hasher),
            Key::SourceIp => asker.address.hash(hasher),
            Key::Path => request.path.hash(hasher),
            Key::Method => request.method.hash(hasher),
        }
        // So that ["a", "b"] is not ["ab", ""].
        hasher.write_u8(0xff);
    }
}

/// What a service that counts for the whole mesh is told of a request: what it is told from others
/// by, each part by a name, and whether what it says is nobody's business. What a request has not is
/// left out, which tells it from all that have it.
pub fn entries<'r>(
    limit: &'r Limit,
    request: &'r RequestView<'_>,
    asker: Asker<'_>,
) -> Vec<Entry<'r>> {
    let mut found = Vec::new();
    for key in &limit.key {
        let mut add = |name: Cow<'static, str>, value: Cow<'r, [u8]>, secret| {
            found.push(Entry {
                name,
                value,
                secret,
            });
        };
        match key {
            Key::Header(name) => {
                let values: Vec<&[u8]> = request.headers.get_all(name.as_str()).collect();
                if !values.is_empty() {
                    let secret = matches!(name.as_str(), "authorization" | "cookie");
                    let name = format!("header:{name}");
                    add(name.into(), values.join(&b","[..]).into(), secret);
                }
            }
            Key::Cookie(name) => {
                if let Some(value) = cookie(request, name) {
                    add(format!("cookie:{name}").into(), value.into(), true);
                }
            }
            Key::Identity if asker.identity.is_empty() => {}
            Key::Identity => {
                let identity = asker.identity.as_bytes().to_vec();
                add("identity".into(), identity.into(), false);
            }
            Key::SourceIp => {
                let address = asker.address.to_string().into_bytes();
                add("remote_address".into(), address.into(), false);
            }
            Key::Path => add("path".into(), request.path.as_bytes().into(), false),
            Key::Method => {
                let method = request.method.as_str().as_bytes();
                add("method".into(), method.into(), false);
            }
        }
    }
    found
}

/// A part of what a request is told from others by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'r> {
    /// Which part it is.
    pub name: Cow<'static, str>,
    /// What the request says; any bytes.
    pub value: Cow<'r, [u8]>,
    /// It lets whoever knows it act for somebody.
    pub secret: bool,
}

/// The first cookie of that name (RFC 6265 5.4).
fn cookie<'r>(request: &RequestView<'r>, name: &str) -> Option<&'r [u8]> {
    let mut pairs = request
        .headers
        .get_all("cookie")
        .flat_map(|line| line.split(|b| *b == b';'));
    pairs.find_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}
