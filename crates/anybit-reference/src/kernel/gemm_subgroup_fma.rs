//! The twin of `kernel/gemm_subgroup_fma.wgsl`.

use anybit_formats::PackedMatrix;

use super::Tile;
use super::fma::{add_dots, gemm};
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of floats and decoded codes: one `dot` of four columns after the other.
///
/// # Errors
///
/// [`ReferenceError::Columns`],
/// [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemm_subgroup_fma(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<f32>, ReferenceError> {
    gemm(x, w, batches, tile.in_order(), add_dots)
}
