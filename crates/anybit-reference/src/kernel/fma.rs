//! The fma kernels: f32 products and sums. The lmul kernels share their walk over K.

use anybit_formats::{ElementFormat, PackedMatrix};

use super::reduce::butterfly;
use super::{Tile, add_parts, decode};
use crate::ReferenceError;
use crate::problem::{Batches, Problem};

/// `FMT_STEP`: values that an invocation loads at a time.
pub(super) fn step(element: ElementFormat) -> usize {
    match element.bits() {
        32 => 4,
        16 => 8,
        _ => 32,
    }
}

/// A kernel whose lanes take turns at steps of `step` columns, and which sums within a step by `add`.
pub(super) fn gemm(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
    add: impl Fn(f32, &[f32], &[f32]) -> f32 + Sync,
) -> Result<Vec<f32>, ReferenceError> {
    tile.check_lanes()?;
    let problem = Problem::new(x, w, batches)?;
    let step = step(w.format().element());
    let x = decode(x);
    let k = problem.k;
    problem.fill(|part, out| {
        let w = decode(&w.row_range(part.weight.clone())?);
        let count = part.weight.len();
        for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
            let x = &x[row * k..][..k];
            for (column, out) in out.iter_mut().enumerate() {
                let w = &w[column * k..][..k];
                let parts = tile.parts.ranges(k).map(|part| {
                    let mut lanes = vec![0.0; tile.lanes];
                    let steps = x[part.clone()].chunks(step).zip(w[part].chunks(step));
                    for (index, (x, w)) in steps.enumerate() {
                        let sum = &mut lanes[index % tile.lanes];
                        *sum = add(*sum, x, w);
                    }
                    butterfly(lanes, |a, b| a + b).unwrap_or_default()
                });
                *out = add_parts(parts).unwrap_or_default();
            }
        }
        Ok(())
    })
}

/// One product after the other.
pub(super) fn add_each(sum: f32, x: &[f32], w: &[f32]) -> f32 {
    x.iter().zip(w).fold(sum, |sum, (x, w)| sum + x * w)
}

/// One `dot` of four after the other.
pub(super) fn add_dots(sum: f32, x: &[f32], w: &[f32]) -> f32 {
    let dots = x.chunks(4).zip(w.chunks(4));
    dots.fold(sum, |sum, (x, w)| {
        let products = x.iter().zip(w).map(|(x, w)| x * w);
        sum + products.reduce(|sum, product| sum + product).unwrap_or(0.0)
    })
}
