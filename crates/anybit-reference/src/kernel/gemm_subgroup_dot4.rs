//! The twin of `kernel/gemm_subgroup_dot4.wgsl`.

use anybit_formats::PackedMatrix;

use super::dot4::Dot4;
use super::integer::gemm;
use super::{Output, Tile};
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of codes by packed dot products: spans of K in ascending order, as `gemm_tiled_dot4`.
///
/// # Errors
///
/// [`ReferenceError::NotCodes`] for formats without integers; [`ReferenceError::ActivationMinimum`] for activations that have minima;
/// [`ReferenceError::Grouped`] for scale groups under [`Accumulation::Whole`](crate::bound::Accumulation::Whole), and for
/// grouped zero points with i32 outputs; [`ReferenceError::Constant`] for a span or lanes that the kernel cannot have;
/// [`ReferenceError::Columns`], [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemm_subgroup_dot4<O: Output>(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<O>, ReferenceError> {
    let engine = Dot4::new(x.format().element(), w.format().element());
    gemm(x, w, batches, tile.in_order(), engine)
}
