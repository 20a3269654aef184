//! Reading and writing safetensors files.

mod fuzz;
mod golden;
mod hostile;
mod layouts;
mod models;
mod packed;
mod random;
mod writer;
