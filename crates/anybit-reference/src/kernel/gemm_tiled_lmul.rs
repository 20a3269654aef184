//! The twin of `kernel/gemm_tiled_fma.wgsl` with `product/l_mul`.

use anybit_formats::PackedMatrix;

use super::Tile;
use super::fma::gemm;
use super::lmul::add_each;
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of floats and decoded codes by the multiplier of the tile: one L-Mul product after the other along K.
///
/// # Errors
///
/// [`ReferenceError::Columns`], [`ReferenceError::Batches`] and
/// [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemm_tiled_lmul(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<f32>, ReferenceError> {
    gemm(x, w, batches, tile.in_order(), add_each(tile.l_mul))
}
