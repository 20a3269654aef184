//! Benchmarks of anybit: problem x strategy, checked before timing.
