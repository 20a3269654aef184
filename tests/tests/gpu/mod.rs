//! The GPU against the reference.

mod contracts;
mod exact;
