//! The CPU reference of every anybit shader, exact results, and the error model.
//!
//! Written for reading, on [`anybit_formats`] alone. Products are Y = X · Wᵀ with X of M × K activations and W of N × K
//! weights, both [`PackedMatrix`](anybit_formats::PackedMatrix); outputs are row-major.
//!
//! - [`exact`] has the exact products: integers in i64, decoded values in f64. [`projection`] checks integer products
//!   that are too large to compute again.
//! - [`kernel`] has a function for each shader under `shaders/wgsl/kernel`, of the same name and with the same order of
//!   operations.
//! - [`experts`] has the products of mixtures of experts, by any of these.
//! - [`bound`] says how far a kernel's f32 results may be from the exact ones. `docs/numerics.md` in the repository
//!   derives it.
//! - [`quantize`] has the codes that the row quantisers give, exact from the scale that they emit.
//!
//! # Example
//!
//! ```
//! use anybit_formats::{ElementFormat, MatrixFormat, quantize};
//! use anybit_reference::{bound, exact, kernel};
//!
//! # fn main() -> Result<(), anybit_reference::ReferenceError> {
//! let values: Vec<f32> = (0..4 * 64).map(|i| (i as f32 * 0.37).sin()).collect();
//! let x = quantize(&values, 4, 64, MatrixFormat::activation_default(ElementFormat::INT8), None)?;
//! let w = quantize(&values, 4, 64, MatrixFormat::weight_default(ElementFormat::INT4), None)?;
//!
//! let tile = kernel::Tile::of(&x, &w);
//! let y: Vec<f32> = kernel::gemm_tiled_dot4(&x, &w, Default::default(), tile)?;
//! let bounds = bound::gemm_integer_bound(&x, &w)?;
//! for ((y, exact), bound) in y.iter().zip(exact::gemm_f64(&x, &w)?).zip(bounds) {
//!     assert!((f64::from(*y) - exact).abs() <= bound);
//! }
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

pub mod bound;
pub mod cache;
mod error;
pub mod exact;
pub mod experts;
mod integers;
pub mod kernel;
mod parts;
mod problem;
pub mod projection;
pub mod quantize;
mod source;
mod tables;

pub use error::ReferenceError;
pub use parts::Parts;
pub use problem::{Batches, activations};
pub use source::{Gate, Source};
