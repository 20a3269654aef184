//! `cargo fuzz run verdicts`; see `anybit_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anybit_tests::fuzz::run("verdicts", input));
