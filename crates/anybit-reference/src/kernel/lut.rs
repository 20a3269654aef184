//! The kernels that look sums of four activations up by planes of the weights: `core/lut.wgsl`.

use std::ops::Range;

use anybit_formats::{AffineFormat, PackedMatrix, ZeroKind};

use super::bitplane::planes;
use super::integer::{Scale, affine};
use super::reduce::butterfly;
use super::{Tile, check_whole};
use crate::ReferenceError;
use crate::bound::Accumulation;
use crate::problem::{Batches, Problem};
use crate::tables::{self, BLOCK, HALVES};

/// The tables of a block of activations.
pub(super) trait Tables: Send + Sync {
    /// The tables of a block; activations past K are 0.
    fn of_block(x: &[f32; BLOCK]) -> Self;

    /// Σ 2^p · Σ (looked up by plane p) over some halves of the block.
    fn look_up(&self, planes: &[u32], halves: Range<usize>) -> f32;
}

/// Σ of the activations of half a block: `lut_sum`.
fn half_sum(x: &[f32]) -> f32 {
    let column = |q: usize| (x[q] + x[q + 4]) + (x[q + 8] + x[q + 12]);
    (column(0) + column(1)) + (column(2) + column(3))
}

/// The coefficients of `lut_value`.
#[derive(Clone, Copy)]
struct Coefficients {
    multiplier: f32,
    offset: f32,
    integer_zeros: bool,
    minima: bool,
}

impl Coefficients {
    fn new(format: AffineFormat, zero: ZeroKind) -> Self {
        let (multiplier, offset) = tables::coefficients(format);
        Self {
            multiplier,
            offset,
            integer_zeros: zero == ZeroKind::Integer,
            minima: zero == ZeroKind::Minimum,
        }
    }

    /// `lut_value`.
    fn value(self, looked_up: f32, sum: f32, scale: &Scale) -> f32 {
        let mut offset = self.offset;
        if self.integer_zeros {
            offset -= scale.zero as f32;
        }
        let mut value = (self.multiplier * looked_up + offset * sum) * scale.scale;
        if self.minima {
            value += scale.minimum * sum;
        }
        value
    }
}

/// A kernel whose clusters take turns at the blocks of K.
pub(super) fn gemm<T: Tables>(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<f32>, ReferenceError> {
    let format = affine(w)?;
    let bits = usize::from(format.bits());
    tile.check_lanes()?;
    tile.check_span(x.format(), w.format())?;
    let grouped = tile.accumulation == Accumulation::Grouped;
    if !grouped {
        check_whole(w.format())?;
    }
    let coefficients = Coefficients::new(format, w.format().zero_kind());
    let problem = Problem::new(x, w, batches)?;
    let k = problem.k;
    let row_blocks = k.div_ceil(BLOCK);
    let spans = BLOCK / tile.span;
    let halves = HALVES / spans;
    let blocks: Vec<(T, [f32; HALVES])> = tables::blocks(&x.decode(), k)
        .iter()
        .map(|block| {
            let sums = [0, 1].map(|half| half_sum(&block[half * BLOCK / HALVES..]));
            (T::of_block(block), sums)
        })
        .collect();
    problem.fill(|part, out| {
        let w = w.row_range(part.weight.clone())?;
        let words: Vec<_> = tables::blocks(&w.unpack_codes(), k)
            .iter()
            .map(planes)
            .collect();
        let count = part.weight.len();
        for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
            let blocks = &blocks[row * row_blocks..][..row_blocks];
            for (column, out) in out.iter_mut().enumerate() {
                let words = &words[column * row_blocks..][..row_blocks];
                let mut lanes = vec![(0.0_f32, 0.0_f32); tile.lanes];
                for (index, ((tables, sums), words)) in blocks.iter().zip(words).enumerate() {
                    let (acc, sum) = &mut lanes[index % tile.lanes];
                    *sum += sums[0] + sums[1];
                    for span in 0..spans {
                        let range = halves * span..halves * (span + 1);
                        let looked_up = tables.look_up(&words[..bits], range.clone());
                        *acc += if grouped {
                            let sum = sums[range].iter().copied().reduce(|a, b| a + b);
                            let scale = Scale::at(&w, column, BLOCK * index + tile.span * span);
                            coefficients.value(looked_up, sum.unwrap_or_default(), &scale)
                        } else {
                            looked_up
                        };
                    }
                }
                let scale = Scale::at(&w, column, 0);
                let sums = lanes.into_iter().map(|(acc, sum)| {
                    if grouped {
                        acc
                    } else {
                        coefficients.value(acc, sum, &scale)
                    }
                });
                *out = butterfly(sums.collect(), |a, b| a + b).unwrap_or_default();
            }
        }
        Ok(())
    })
}
