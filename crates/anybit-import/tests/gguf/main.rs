//! GGUF reading: right files bit for bit, wrong files by a typed error.

mod blocks;
mod fuzz;
mod ggml;
mod golden;
mod hostile;
mod metadata;
mod round_trip;
mod writer;
