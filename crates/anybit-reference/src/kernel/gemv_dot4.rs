//! The twin of `kernel/gemv_dot4.wgsl`.

use anybit_formats::PackedMatrix;

use super::dot4::Dot4;
use super::integer::gemm;
use super::{Output, Tile};
use crate::{Batches, ReferenceError};

/// Y = X · Wᵀ of codes by packed dot products: `LANES` lanes take turns at the blocks of 32 columns, an xor butterfly adds them.
///
/// # Errors
///
/// [`ReferenceError::NotCodes`] for formats without integers; [`ReferenceError::ActivationMinimum`] for activations that have minima;
/// [`ReferenceError::Grouped`] for scale groups under [`Accumulation::Whole`](crate::bound::Accumulation::Whole), and for
/// grouped zero points with i32 outputs; [`ReferenceError::Constant`] for a span or lanes that the kernel cannot have;
/// [`ReferenceError::Columns`], [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemv_dot4<O: Output>(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<O>, ReferenceError> {
    let engine = Dot4::new(x.format().element(), w.format().element());
    gemm(x, w, batches, tile, engine)
}
