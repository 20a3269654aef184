//! The reference model and the tiny models of the tests, and the tests of both.

mod golden;
mod miniatures;
mod properties;
mod reference;
mod sample;
mod tiny;
mod tiny_models;
