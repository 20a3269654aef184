//! The twin of `kernel/gemv_bitplane.wgsl`.

use anybit_formats::PackedMatrix;

use super::bitplane::Bitplane;
use super::integer::{affine, gemm};
use super::{Output, Tile};
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of codes by bit planes: `LANES` lanes take turns at the blocks of 32 columns, an xor butterfly adds them.
///
/// # Errors
///
/// [`ReferenceError::NotCodes`] for floats; [`ReferenceError::ActivationMinimum`] for activations that have minima;
/// [`ReferenceError::Grouped`] for scale groups under [`Accumulation::Whole`](crate::bound::Accumulation::Whole), and for
/// grouped zero points with i32 outputs; [`ReferenceError::Constant`] for a span or lanes that the kernel cannot have;
/// [`ReferenceError::Columns`], [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemv_bitplane<O: Output>(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<O>, ReferenceError> {
    let engine = Bitplane::new(affine(x)?, affine(w)?);
    gemm(x, w, batches, tile, engine)
}
