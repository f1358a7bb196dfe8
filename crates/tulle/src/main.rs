//! The `tulle` binary.
fn main() {}
