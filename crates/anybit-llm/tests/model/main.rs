//! The reference model and the tiny models of the tests, the tests of both, and the library's models against them.

mod architectures;
mod bad_input;
mod chunks;
mod golden;
mod miniatures;
mod packed_file;
mod perplexities;
mod properties;
mod random_input;
mod reference;
mod requantised;
mod rig;
mod sample;
mod sample_gpu;
mod session;
mod small_device;
mod tiny;
mod tiny_models;
