//! The twin of `kernel/gemm_subgroup_swar.wgsl` with codes, or pairs of them, in f32.

use anybit_formats::PackedMatrix;

use super::integer::{affine, gemm};
use super::swar::Swar;
use super::{Output, Tile};
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of integer codes, products summed in f32, which holds them: spans of K in ascending order, as
/// `gemm_tiled_dot4`.
///
/// # Errors
///
/// [`ReferenceError::NotCodes`] for floats; [`ReferenceError::ActivationMinimum`] for activations that have minima;
/// [`ReferenceError::Grouped`] for scale groups under [`Accumulation::Whole`](crate::bound::Accumulation::Whole), and for
/// grouped zero points with i32 outputs; [`ReferenceError::Constant`] for a span or lanes that the kernel cannot have;
/// [`ReferenceError::Columns`], [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemm_subgroup_integer_fma<O: Output>(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<O>, ReferenceError> {
    let engine = Swar::in_f32(affine(x)?, affine(w)?, tile.span)?;
    gemm(x, w, batches, tile.in_order(), engine)
}
