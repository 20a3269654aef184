//! The GPU against the reference.

mod contracts;
mod decode;
mod exact;
mod l_mul;
mod mutation;
mod quantize;
mod shapes;
mod transfer;
