//! The GPU against the reference.

mod contracts;
mod decode;
mod exact;
mod mutation;
mod nested;
mod quantize;
mod shapes;
mod transfer;
