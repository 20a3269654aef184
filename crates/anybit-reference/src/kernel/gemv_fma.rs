//! The twin of `kernel/gemv_fma.wgsl`.

use anybit_formats::PackedMatrix;

use super::Tile;
use super::fma::{add_dots, gemm};
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of floats and decoded codes: `LANES` lanes take turns at as many columns as a load brings (4 f32, 8 f16 or bf16, 32 codes), each adding one
/// `dot` of four after the other, and an xor butterfly adds the lanes.
///
/// # Errors
///
/// [`ReferenceError::Constant`] for lanes that are no power of two; [`ReferenceError::Columns`], [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemv_fma(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<f32>, ReferenceError> {
    gemm(x, w, batches, tile, add_dots)
}
