//! The command as a black box.

mod format;
mod hostile;
mod matmul;
mod pack;
mod quantize;
mod support;
