//! The twin of `kernel/gemv_lut.wgsl`.

use std::ops::Range;

use anybit_formats::PackedMatrix;

use super::Tile;
use super::lut::{Tables, gemm};
use crate::tables::{self, BLOCK, ENTRIES, GROUPS};
use crate::{Batches, ReferenceError};

/// f32 tables.
struct F32([[f32; ENTRIES]; GROUPS]);

impl Tables for F32 {
    fn of_block(x: &[f32; BLOCK]) -> Self {
        Self(std::array::from_fn(|group| {
            tables::entries(tables::group(x, group))
        }))
    }

    fn look_up(&self, planes: &[u32], halves: Range<usize>) -> f32 {
        let mut sum = 0.0;
        for (plane, &word) in planes.iter().enumerate() {
            let mut span = 0.0;
            for group in tables::groups(halves.clone()) {
                let (entry, negative) = tables::index(word, group);
                let looked_up = self.0[group][entry];
                span += if negative { -looked_up } else { looked_up };
            }
            sum += (1 << plane) as f32 * span;
        }
        sum
    }
}

/// Y = X · Wᵀ of floats and integer codes: each plane of the weights looks sums of four activations up in f32 tables.
/// `LANES` clusters take turns at the blocks of 32 columns, and a tree adds them.
///
/// # Errors
///
/// [`ReferenceError::NotCodes`] for weights that are no integers; [`ReferenceError::Grouped`] for scale groups under
/// [`Accumulation::Whole`](crate::bound::Accumulation::Whole); [`ReferenceError::Constant`] for a span or lanes that the
/// kernel cannot have; [`ReferenceError::Columns`], [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes
/// that do not fit.
pub fn gemv_lut(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<f32>, ReferenceError> {
    gemm::<F32>(x, w, batches, tile)
}
