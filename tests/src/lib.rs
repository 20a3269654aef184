//! What the cross-check of anybit is made of: cases, comparisons, adapters and lints; and what is fuzzed. The tests are under
//! `tests/`.
//!
//! | environment variable | meaning |
//! |---|---|
//! | `ANYBIT_BACKEND` | only adapters of this backend: `vulkan`, `metal`, `dx12` or `gl` |
//! | `ANYBIT_ADAPTER` | only adapters whose name holds this text |
//! | `ANYBIT_ALL_ADAPTERS=1` | every adapter that fits, not just the best |
//! | `ANYBIT_REQUIRE_ADAPTER=1` | no adapter is a failure; otherwise GPU tests are skipped, each with a line on stderr |
//! | `ANYBIT_TESTS=full` | every combination instead of covering ones |
#![warn(missing_docs)]

pub mod adapter;
pub mod case;
pub mod compare;
pub mod cover;
pub mod fuzz;
pub mod kv;
pub mod lint;
pub mod matrix;
pub mod model;
pub mod operand;
pub mod random;
pub mod raw;
pub mod rig;
pub mod shader;
pub mod translation;
pub mod uniform;
pub mod web;

/// Whether every combination is to be tested (`ANYBIT_TESTS=full`), not just covering ones.
pub fn full() -> bool {
    std::env::var("ANYBIT_TESTS").is_ok_and(|value| value == "full")
}
