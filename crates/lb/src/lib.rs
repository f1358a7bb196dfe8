//! Pure balancing and health algorithms: endpoint choice, outlier ejection, retry budgets.
//!
//! Nothing here reads a clock or owns a random number generator: times come in as the [`Duration`]
//! since some start that the caller fixes once, randomness as a [`rand::Rng`]. Nothing takes a
//! lock: [`choose`] works on what one worker holds, [`outlier`] and [`budget`] on atomics that all
//! workers share. Envoy's behaviour is the model; each module says where it differs.
//!
//! [`Duration`]: std::time::Duration
#![forbid(unsafe_code)]

pub mod budget;
pub mod choose;
pub mod outlier;

pub use choose::{Balancer, Candidates, Standing};
