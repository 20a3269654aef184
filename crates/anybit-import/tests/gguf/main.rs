//! GGUF reading: right files bit for bit, wrong files by a typed error.

mod fuzz;
mod ggml;
mod hostile;
mod metadata;
mod round_trip;
mod writer;
