//! The twin of `kernel/gemm_tiled_fma.wgsl`.

use anybit_formats::PackedMatrix;

use super::Tile;
use super::fma::{add_each, gemm};
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of floats and decoded codes: one product after the other along K.
///
/// # Errors
///
/// [`ReferenceError::Columns`],
/// [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemm_tiled_fma(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<f32>, ReferenceError> {
    gemm(x, w, batches, tile.in_order(), add_each)
}
