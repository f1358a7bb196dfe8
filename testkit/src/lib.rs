//! What tests are made of; never shipped.
//!
//! Everything here panics when it cannot do what it was asked, with a text that says what was going
//! on: a test's failure should be understood without running it again.
#![forbid(unsafe_code)]

pub mod certs;
