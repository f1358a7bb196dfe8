//! Counts in Redis, which several processes share.
//!
//! All that a question counts is one transaction on one shared connection: INCRBY and EXPIRE of a key
//! that has the start of its window in its name, so that nothing has to be set back and nothing stays.
//! After a failure the next question opens a new connection, but not at once: while Redis is away,
//! questions are answered by that, and not by waiting.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Mutex, Semaphore};

use super::{Count, StoreError};

/// To connect.
const CONNECT: Duration = Duration::from_secs(1);
/// For an answer.
const ANSWER: Duration = Duration::from_millis(500);
/// Without a new try after one to connect has failed.
const BREATHER: Duration = Duration::from_millis(250);
/// Questions at once.
const AT_ONCE: usize = 1024;

/// Counts in Redis.
pub struct Redis {
    client: redis::Client,
    at: String,
    held: Mutex<Held>,
    /// Connections so far, which tells one from the next.
    opened: AtomicU64,
    slots: Semaphore,
}

enum Held {
    /// Nothing was tried, or what there was broke.
    Nothing,
    Connected(MultiplexedConnection, u64),
    /// The last try failed.
    Failed(Instant, String),
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redis").field(&self.at).finish()
    }
}

impl Redis {
    pub(super) fn new(url: &str) -> Result<Self, StoreError> {
        let client = redis::Client::open(url).map_err(|error| StoreError::Redis {
            at: "the address of --store".to_owned(),
            why: error.to_string(),
        })?;
        let at = client.get_connection_info().addr().to_string();
        Ok(Self {
            client,
            at,
            held: Mutex::new(Held::Nothing),
            opened: AtomicU64::new(0),
            slots: Semaphore::new(AT_ONCE),
        })
    }

    /// Its address, without what is secret in it.
    pub fn at(&self) -> &str {
        &self.at
    }

    pub(super) async fn add(
        &self,
        counts: &[Count],
        now: Duration,
    ) -> Result<Vec<u64>, StoreError> {
        if counts.is_empty() {
            return Ok(Vec::new());
        }
        let _slot = self.slots.try_acquire().map_err(|_| StoreError::Busy {
            at: self.at.clone(),
            count: AT_ONCE,
        })?;
        let mut pipe = redis::pipe();
        pipe.atomic();
        for count in counts {
            let key = format!("tulle:ratelimit:{}|{}", count.key, count.window.start);
            // A second more, for clocks that differ.
            let stays = count.window.left(now).as_secs() + 1;
            pipe.cmd("INCRBY").arg(&key).arg(count.hits);
            pipe.cmd("EXPIRE").arg(&key).arg(stays).ignore();
        }
        let (mut connection, number) = self.connection().await?;
        let answer: redis::RedisResult<Vec<u64>> = pipe.query_async(&mut connection).await;
        match answer {
            Ok(sums) if sums.len() == counts.len() => Ok(sums),
            Ok(sums) => Err(self.failed(format!("{} answers to {}", sums.len(), counts.len()))),
            Err(error) => {
                self.forget(number).await;
                Err(self.failed(error.to_string()))
            }
        }
    }

    /// The connection, and which one it is.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let mut held = self.held.lock().await;
        let number = match &*held {
            Held::Connected(connection, number) => return Ok((connection.clone(), *number)),
            Held::Failed(when, why) if when.elapsed() < BREATHER => {
                return Err(self.failed(why.clone()));
            }
            Held::Failed(..) | Held::Nothing => self.opened.fetch_add(1, Ordering::Relaxed),
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        let client = &self.client;
        match client
            .get_multiplexed_async_connection_with_config(&config)
            .await
        {
            Ok(connection) => {
                if matches!(*held, Held::Failed(..)) {
                    tracing::info!(redis = self.at, "redis is back");
                }
                *held = Held::Connected(connection.clone(), number);
                Ok((connection, number))
            }
            Err(error) => {
                let why = error.to_string();
                if !matches!(*held, Held::Failed(..)) {
                    tracing::warn!(
                        redis = self.at,
                        why,
                        "redis cannot be reached: nothing is counted"
                    );
                }
                *held = Held::Failed(Instant::now(), why.clone());
                Err(self.failed(why))
            }
        }
    }

    /// Gives up a connection, unless another has taken its place.
    async fn forget(&self, number: u64) {
        let mut held = self.held.lock().await;
        if matches!(&*held, Held::Connected(_, own) if *own == number) {
            *held = Held::Nothing;
        }
    }

    fn failed(&self, why: String) -> StoreError {
        StoreError::Redis {
            at: self.at.clone(),
            why,
        }
    }
}
