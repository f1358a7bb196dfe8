//! What a client sends after its preface. See `proxy::fuzzed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::fuzzed::http2(data));
