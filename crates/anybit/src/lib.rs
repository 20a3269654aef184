//! Low-bit matrix multiplication on any GPU, through wgpu.
#![warn(missing_docs)]

mod caps;
mod context;
mod error;
mod kernel;
mod matrix;
mod pipeline;
mod plan;
mod prepare;
mod problem;
mod readback;
mod row_kernels;
mod specialize;

pub use anybit_formats as formats;
pub use caps::{Caps, DeviceClass, wanted_features, wanted_limits};
pub use context::{Context, ContextOptions, adapters};
pub use error::{Error, Result};
pub use kernel::{Engine, KERNELS, KernelRow, Skeleton, Tile};
pub use matrix::{DeviceMatrix, OutputMatrix, PendingOutput, Values};
pub use plan::{Candidate, Plan, PlanOptions, Reason, Refusal, candidates, max_k, plan};
pub use prepare::{GEMM_PARAMS_BYTES, Operands, Prepared};
pub use problem::{Batch, OutputFormat, Problem};
pub use readback::PendingRead;
pub use row_kernels::{PreparedQuantize, decode_specialization, quantize_specialization};
pub use specialize::Specialization;
pub use wgpu;
