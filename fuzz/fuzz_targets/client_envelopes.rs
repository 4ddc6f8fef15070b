#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ciphermq_fuzz::envelopes(data));
