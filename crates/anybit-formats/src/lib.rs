//! Low-bit number formats, packing and quantisers for anybit.
//!
//! This crate knows numbers and bits; it has no GPU code and does no I/O.
//!
//! - [`ElementFormat`] says what one stored number is: a float, or a code of 1 to 8 bits, which is
//!   an integer, a minifloat or an entry of a codebook. [`FORMATS`] lists them all.
//! - [`MatrixFormat`] adds how the numbers are scaled: per tensor, row or group, by scales of one
//!   or two levels, with or without a zero point.
//! - [`PackedMatrix`] is a matrix in such a format, on the host.
//! - [`PackedMatrix::nested`] is an `int8` matrix read at fewer bits, by truncation or Double Rounding
//!   ([`Nesting`]).
//! - [`quantize()`] makes one from `f32` values; [`quantize::rule`] holds the rule for a single
//!   group.
//! - [`complex`] and [`dynamic_fixed_point`] hold composites: matrices whose products are products of several parts, which
//!   the same kernels multiply.
//! - [`DeviceLayout`] and [`Sections`] say where each bit stands in the two word arrays that
//!   shaders read, and [`PackedMatrix::to_device`] writes them. `docs/packing.md` in the repository
//!   draws the layouts.
//!
//! # Example
//!
//! ```
//! use anybit_formats::{DeviceLayout, ElementFormat, MatrixFormat, quantize};
//!
//! # fn main() -> Result<(), anybit_formats::FormatError> {
//! // Two rows of 64 values as signed 4-bit codes with one f16 scale per 32.
//! let values: Vec<f32> = (0..128).map(|i| (i as f32 * 0.37).sin()).collect();
//! let format = MatrixFormat::weight_default(ElementFormat::INT4);
//! assert_eq!(format.to_string(), "i4g32h");
//!
//! let matrix = quantize(&values, 2, 64, format, None)?;
//! let decoded = matrix.decode();
//! assert!(values.iter().zip(&decoded).all(|(x, y)| (x - y).abs() < 0.08));
//!
//! let image = matrix.to_device(&DeviceLayout::ROW_MAJOR)?;
//! assert_eq!(image.codes.len(), image.sections.codes_words);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `rayon` (default): rows are processed in parallel. Results do not depend on it.
#![warn(missing_docs)]

pub mod complex;
pub mod dynamic_fixed_point;
mod element;
mod error;
mod format;
mod l_mul;
pub mod layout;
mod matrix_format;
mod nested;
mod packed;
mod parallel;
pub mod quantize;

pub use element::{ElementFormat, FORMATS, Family, FormatRow};
pub use error::FormatError;
pub use format::affine::{AffineFormat, Encoding};
pub use format::codebook::{Choice, CodebookFormat};
pub use format::float::FloatFormat;
pub use format::minifloat::{MinifloatFormat, SpecialValues};
pub use l_mul::{LMul, LMulReading};
pub use layout::{CarryPlane, DeviceLayout, PieceLayout, Sections, SumLayout};
pub use matrix_format::{
    Granularity, MatrixFormat, NAMED_FORMATS, NamedFormat, ScaleLayout, ScaleType, SecondLevel,
    ZeroKind,
};
pub use nested::{Nesting, double_round, truncate};
pub use packed::{
    DeviceImage, DeviceRows, PackedMatrix, SideData, Zeros, pack_ternary5, ternary5_bytes,
    unpack_ternary5,
};
pub use quantize::{
    Calibration, Overflow, QuantizeOptions, QuantizeRowsOptions, Rounding, ScaleRule, quantize,
    quantize_with,
};
