//! The twin of `kernel/gemv_fma.wgsl` with `product/l_mul`.

use anybit_formats::PackedMatrix;

use super::Tile;
use super::fma::gemm;
use super::lmul::add_fours;
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of floats and decoded codes by the multiplier of the tile: `LANES` lanes take turns at as many columns as a load brings, each adding the sum of four L-Mul products after the
/// other, and an xor butterfly adds the lanes.
///
/// # Errors
///
/// [`ReferenceError::Constant`] for lanes that are no power of two; [`ReferenceError::Columns`], [`ReferenceError::Batches`] and
/// [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemv_lmul(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<f32>, ReferenceError> {
    gemm(x, w, batches, tile, add_fours(tile.l_mul))
}
