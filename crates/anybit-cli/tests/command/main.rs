//! The command as a black box.

mod format;
mod hostile;
mod matmul;
mod quantize;
mod support;
