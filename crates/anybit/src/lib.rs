//! Low-bit matrix multiplication on any GPU, through wgpu.
//!
//! anybit multiplies activations X (M×K) with packed weights W (N×K): Y = X · Wᵀ. Weights have 1 to 8 bits a code, with
//! scales per tensor, row or group; activations are floats, or codes of 1 to 8 bits themselves. Integer products are
//! exact on every adapter; float outputs stay within a bound that `docs/numerics.md` derives.
//!
//! The way through the crate:
//!
//! 1. a [`Context`], on your own device ([`Context::from_device`]) or one of its own ([`Context::request`]);
//! 2. a [`Plan`] for a [`Problem`]: which kernel, and the layouts that it reads ([`Context::plan`]);
//! 3. operands on the device: [`Context::upload`], [`Context::prepare_quantize`] for activations,
//!    [`Context::output`];
//! 4. [`Context::prepare`] binds them; [`Prepared::encode`] records the work in your own pass, as often as you like;
//! 5. [`Context::encode_read`] and [`PendingRead::read`], or [`Context::run`] for all of it at once.
//!
//! ```no_run
//! use anybit::formats::{ElementFormat, MatrixFormat, quantize};
//! use anybit::{Context, ContextOptions, Operands, Problem};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (m, n, k) = (4, 256, 512);
//! let weights = vec![0.01_f32; n * k];
//! let activations = vec![0.5_f32; m * k];
//!
//! // 4-bit weights with an f16 scale every 32 columns; 8-bit activations with a scale a row.
//! let weight_format = MatrixFormat::weight_default(ElementFormat::INT4);
//! let activation_format = MatrixFormat::activation_default(ElementFormat::INT8);
//! let packed = quantize(&weights, n, k, weight_format, None)?;
//!
//! let context = Context::request_blocking(&ContextOptions::default())?;
//! let plan = context.plan(&Problem::new((m, n, k), activation_format, weight_format))?;
//! let weight = context.upload(&packed, &plan.weight_layout())?;
//! let input = context.upload_f32(&activations, m, k)?;
//! let activation = context.allocate(activation_format, m, k, &plan.activation_layout())?;
//! let output = context.output(plan.problem().output, m, n)?;
//!
//! let quantize = context.prepare_quantize(&input, &activation)?;
//! let multiply = context.prepare(
//!     &plan,
//!     Operands { activation: &activation, weight: &weight, output: &output },
//! )?;
//! let values = context
//!     .submit_and_read(&[&quantize.work, &multiply], &output)?
//!     .read_blocking()?;
//! # let _ = values;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `vulkan`, `metal` and `dx12` (default), `gles`, `webgpu`: the backends of wgpu. `noop`: wgpu's backend without a
//! device, for tests of an application's own logic. `rayon` (default): matrices are packed and uploaded on several threads;
//! without effect on WebAssembly. `experimental`: contexts that make their own device ask for wgpu's cooperative matrices
//! ([`wanted_experimental_features`]), which wgpu itself calls experimental and possibly unsound.
//!
//! # Safety of shaders
//!
//! All kernels run with wgpu's checks on. There is no `unsafe` in this crate but one call: wgpu takes the bytes of an earlier
//! run's pipelines ([`ContextOptions::pipeline_cache`]) on trust, and gets none whose checksum is not right. The feature
//! `experimental` adds one: wgpu's acknowledgement that experimental features may be unsound.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod attention;
mod bind_groups;
mod cache;
mod caps;
mod choices;
mod context;
mod error;
mod experts;
mod kernel;
mod matrix;
mod model_kernels;
mod parts;
mod pipeline;
mod pipeline_cache;
mod plan;
mod prepare;
mod problem;
mod readback;
mod row_kernels;
mod row_source;
mod self_check;
mod sequence;
mod specialize;
mod staging;
mod stretches;
#[cfg(not(target_arch = "wasm32"))]
mod timing;
#[cfg(not(target_arch = "wasm32"))]
mod tune;

pub use anybit_formats as formats;
pub use attention::{Attention, HeadNorm, Pairing, Rotary, RotaryTable};
pub use bind_groups::BoundResource;
pub use cache::{KvCache, KvFormat, KvShape};
pub use caps::{
    Caps, DeviceClass, Fragment, NoMatrix, wanted_experimental_features, wanted_features,
    wanted_limits,
};
pub use choices::{
    Choices, ChoicesWarning, ChosenBy, Explained, Explanation, Figure, ShapeClass, UnknownClass,
    explain,
};
pub use context::{Context, ContextOptions, adapters};
pub use error::{Error, Result};
pub use experts::ExpertOffsets;
pub use half;
pub use kernel::{Engine, KERNELS, KernelRow, Skeleton, Tile};
pub use matrix::{DeviceMatrix, OutputMatrix, PendingRead, Values};
pub use model_kernels::model_specializations;
pub use parts::NoSplit;
pub use plan::{
    Candidate, Memories, Plan, PlanOptions, Reason, Refusal, candidates, max_k, plan, plan_with,
};
pub use prepare::{Epilogue, GEMM_PARAMS_BYTES, Operands, Prepared, Recorded};
pub use problem::{Batch, OutputFormat, Problem};
pub use row_kernels::{
    PreparedQuantize, decode_specialization, l_mul_specialization, quantize_specialization,
    quantize_specialization_with,
};
pub use row_source::{Gate, RowSource};
pub use self_check::{Verdict, Verdicts};
pub use sequence::{PendingToken, Sampling, Sequence};
pub use specialize::Specialization;
#[cfg(not(target_arch = "wasm32"))]
pub use timing::{PassTimer, TimingMethod};
#[cfg(not(target_arch = "wasm32"))]
pub use tune::{TuneOptions, TunedKernel, TunedProblem, Tuning};
pub use wgpu;
