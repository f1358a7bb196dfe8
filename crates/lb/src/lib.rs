//! Pure balancing and health algorithms: endpoint choice, outlier ejection, retry budgets.
//!
//! [`choose`] is where a request comes in: it picks by itself, by [`ewma`] or by a [`table`], within
//! the group that [`spread`] says.
//!
//! Nothing here reads a clock or owns a random number generator: times come in as the [`Duration`]
//! since some start that the caller fixes once, randomness as a [`rand::Rng`]. Nothing takes a
//! lock: [`choose`] works on what one worker holds, [`outlier`], [`ewma`], [`concurrency`] and [`budget`] on
//! atomics that all workers share, and a table is only read. Envoy's behaviour is the model; each module says where it differs.
//!
//! [`Duration`]: std::time::Duration
#![forbid(unsafe_code)]

pub mod budget;
pub mod choose;
pub mod concurrency;
pub mod ewma;
pub mod hash;
pub mod outlier;
pub mod slow_start;
pub mod spread;
pub mod table;

pub use choose::{Balancer, Candidates, Choice, Lookup, Standing};
