//! The twin of `kernel/gemm_subgroup_fma.wgsl` with `product/l_mul`.

use anybit_formats::PackedMatrix;

use super::Tile;
use super::fma::gemm;
use super::lmul::add_fours;
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of floats and decoded codes by the multiplier of the tile: the sum of four L-Mul products after the other.
///
/// # Errors
///
/// [`ReferenceError::Columns`], [`ReferenceError::Batches`] and
/// [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemm_subgroup_lmul(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<f32>, ReferenceError> {
    gemm(x, w, batches, tile.in_order(), add_fours(tile.l_mul))
}
