//! The cross-check: reference, shaders, planner and API without a GPU; then the GPU against the reference.

mod api;
mod gpu;
mod plan;
mod reference;
mod shaders;
