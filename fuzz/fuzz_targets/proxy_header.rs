//! See `checks`.
#![no_main]
#[path = "../checks/net.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::proxy_header(data));
