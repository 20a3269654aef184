//! The twin of `kernel/gemm_subgroup_swar.wgsl`.

use anybit_formats::PackedMatrix;

use super::integer::{affine, gemm};
use super::swar::Swar;
use super::{Output, Tile};
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of integer codes, products summed in 16 bits: spans of K in ascending order, as `gemm_tiled_dot4`.
///
/// # Errors
///
/// [`ReferenceError::NotCodes`] for floats; [`ReferenceError::ActivationMinimum`] for activations that have minima;
/// [`ReferenceError::Grouped`] for scale groups under [`Accumulation::Whole`](crate::bound::Accumulation::Whole), and for
/// grouped zero points with i32 outputs; [`ReferenceError::Constant`] for codes so wide that 16 bits hold fewer than four
/// products, and for a span or lanes that the kernel cannot have; [`ReferenceError::Columns`], [`ReferenceError::Batches`]
/// and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemm_subgroup_swar<O: Output>(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<O>, ReferenceError> {
    let engine = Swar::in_u32(affine(x)?, affine(w)?, tile.span)?;
    gemm(x, w, batches, tile.in_order(), engine)
}
