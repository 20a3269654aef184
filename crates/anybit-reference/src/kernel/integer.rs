//! The integer kernels: `core/integer.wgsl`, and the loop over K that the dot4 and the bitplane kernels share.

use std::ops::Range;

use anybit_formats::{AffineFormat, ElementFormat, PackedMatrix, ZeroKind};

use super::accumulate::{Accumulate, Constants, Kernel, Output};
use super::reduce::butterfly;
use super::{Tile, add_parts};
use crate::ReferenceError;
use crate::integers::{check_codes, is_grouped};
use crate::problem::{Batches, Problem};

/// Columns in a block.
const BLOCK: usize = 32;

/// The words that an engine makes of a block of 32 codes.
pub(super) type Words = [u32; 8];

/// What each half of a block chooses, of codebooks with choices.
pub(super) type Choices = [u8; 2];

/// An engine: how it lays out codes in words, and multiplies and adds them. Spans are the 1 or 2 parts of a block.
pub(super) trait Engine: Send + Sync {
    /// The code that the activations' words hold as s = 0.
    fn centre(&self) -> i32;

    /// The words of a block of activations.
    fn activation(&self, codes: &[u8; BLOCK], choices: Choices) -> Words;

    /// The words of a block of weights.
    fn weight(&self, codes: &[u8; BLOCK], choices: Choices) -> Words;

    /// Σ s over a span.
    fn activation_codes(&self, x: &Words, span: Part) -> i32;

    /// Σ u over a span.
    fn weight_codes(&self, w: &Words, span: Part) -> i32;

    /// Σ s·u over a span, from its Σ s.
    fn product(&self, x: &Words, w: &Words, activation_codes: i32, span: Part) -> i32;
}

/// Span `index` of a block, `length` codes long.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) index: usize,
    pub(super) length: usize,
}

/// The activation's part of a span.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Sum of s over the span, its padding included.
    pub(super) codes: i32,
    /// Sum of the integers over the part of the span that lies inside K.
    pub(super) integers: i32,
    /// What is left of an activation integer at s = 0.
    pub(super) offset: i32,
    pub(super) scale: f32,
}

/// `scl_t`.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub(super) scale: f32,
    pub(super) zero: i32,
    pub(super) minimum: f32,
}

impl Scale {
    /// `scl_load`.
    fn load(matrix: &PackedMatrix, row: usize, group: usize) -> Self {
        Self {
            scale: matrix.scale(row, group),
            zero: matrix.zero_point(row, group),
            minimum: matrix.minimum(row, group),
        }
    }

    /// The scale of the columns from `first_k` on; past the end, that of the last column.
    pub(super) fn at(matrix: &PackedMatrix, row: usize, first_k: usize) -> Self {
        let columns = matrix.columns();
        let last = columns.saturating_sub(1);
        let group_len = matrix.format().group_len(columns).max(1);
        Self::load(matrix, row, first_k.min(last) / group_len)
    }
}

/// `integer_span`: `codes` is Σ s of the `length` codes from column `first` on, of which those inside `k` count.
fn integer_span(
    constants: &Constants,
    codes: i32,
    first: usize,
    length: usize,
    k: usize,
    scale: &Scale,
) -> Span {
    let inside = ((first + length).min(k) - first.min(k)) as i32;
    let [multiplier, offset] = constants.activation;
    let centre = constants.centre;
    let offset = multiplier * centre + offset - scale.zero;
    // A padded code is 0, so its s is -centre.
    let inner_codes = codes + (length as i32 - inside) * centre;
    Span {
        codes,
        integers: multiplier * inner_codes + inside * offset,
        offset,
        scale: scale.scale,
    }
}

/// `integer_product`, by the identity
/// Σ (aw·u + cw)·(ax·s + bx) = aw·(ax·Σ s·u + bx·Σ u) + cw·Σ x.
///
/// Terms may pass the range of i32 and wrap; the result is right whenever it fits.
pub(super) fn integer_product(
    constants: &Constants,
    codes: i32,
    weight_codes: i32,
    span: &Span,
    weight_zero: i32,
) -> i32 {
    let [multiplier, offset] = constants.weight;
    let product = constants.activation[0]
        .wrapping_mul(codes)
        .wrapping_add(span.offset.wrapping_mul(weight_codes));
    multiplier
        .wrapping_mul(product)
        .wrapping_add((offset - weight_zero).wrapping_mul(span.integers))
}

/// The integer format of an operand.
pub(super) fn affine(matrix: &PackedMatrix) -> Result<AffineFormat, ReferenceError> {
    match matrix.format().element() {
        ElementFormat::Affine(affine) => Ok(affine),
        _ => Err(ReferenceError::NotCodes {
            format: *matrix.format(),
        }),
    }
}

/// The words of every block of a matrix, row-major; padding is code 0.
fn blocks(matrix: &PackedMatrix, words: impl Fn(&[u8; BLOCK], Choices) -> Words) -> Vec<Words> {
    let columns = matrix.columns();
    if columns == 0 {
        return Vec::new();
    }
    let group_len = matrix.format().group_len(columns).max(1);
    let codes = matrix.unpack_codes();
    let mut blocks = Vec::with_capacity(codes.len().div_ceil(BLOCK));
    for (row, codes) in codes.chunks_exact(columns).enumerate() {
        for (index, codes) in codes.chunks(BLOCK).enumerate() {
            let mut block = [0; BLOCK];
            block[..codes.len()].copy_from_slice(codes);
            let choices = [0, BLOCK / 2].map(|half| {
                let column = (index * BLOCK + half).min(columns - 1);
                matrix.choice(row, column / group_len)
            });
            blocks.push(words(&block, choices));
        }
    }
    blocks
}

/// `(multiplier, offset)` of an operand's integers: lifted values are the integers themselves.
fn coefficients(matrix: &PackedMatrix) -> Result<[i32; 2], ReferenceError> {
    check_codes(matrix)?;
    let affine = matrix.format().element().affine();
    let (multiplier, offset) = affine.map_or((1, 0), AffineFormat::coefficients);
    Ok([multiplier, offset])
}

/// What an operand's integers are worth.
fn unit(matrix: &PackedMatrix) -> f32 {
    matrix.format().element().lift_unit().unwrap_or(1.0)
}

/// An integer kernel whose lanes take turns at the blocks of K.
pub(super) fn gemm<E: Engine, O: Output>(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
    engine: E,
) -> Result<Vec<O>, ReferenceError> {
    let (activation, weight) = (coefficients(x)?, coefficients(w)?);
    if x.format().zero_kind() == ZeroKind::Minimum {
        return Err(ReferenceError::ActivationMinimum {
            format: *x.format(),
        });
    }
    tile.check_span(x.format(), w.format())?;
    tile.check_lanes()?;
    let constants = Constants {
        activation,
        centre: engine.centre(),
        weight,
        activation_grouped: is_grouped(x.format()),
        weight_minimum: w.format().zero_kind() == ZeroKind::Minimum,
        fold: unit(x) * unit(w),
    };
    let integer = Integer {
        x,
        w,
        problem: Problem::new(x, w, batches)?,
        tile,
        engine,
        constants,
    };
    O::dispatch(integer, constants, tile, x.format(), w.format())
}

struct Integer<'a, E> {
    x: &'a PackedMatrix,
    w: &'a PackedMatrix,
    problem: Problem,
    tile: Tile,
    engine: E,
    constants: Constants,
}

impl<E: Engine> Kernel for Integer<'_, E> {
    fn run<A: Accumulate>(self, accumulate: A) -> Result<Vec<A::Out>, ReferenceError> {
        let Self {
            x,
            w,
            problem,
            tile,
            engine,
            constants,
        } = self;
        let k = problem.k;
        let row_blocks = k.div_ceil(BLOCK);
        let spans = BLOCK / tile.span;
        let x_blocks = blocks(x, |codes, choices| engine.activation(codes, choices));
        // The activation's part of every span of a row.
        let row_spans = |row: usize, words: &[Words]| -> Vec<Span> {
            let parts = (0..row_blocks * spans).map(|index| {
                let first_k = index * tile.span;
                let part = tile.part(index % spans);
                let codes = engine.activation_codes(&words[index / spans], part);
                let scale = Scale::at(x, row, first_k);
                integer_span(&constants, codes, first_k, tile.span, k, &scale)
            });
            parts.collect()
        };
        problem.fill(|part, out| {
            let w = w.row_range(part.weight.clone())?;
            let w_blocks = blocks(&w, |codes, choices| engine.weight(codes, choices));
            let count = part.weight.len();
            for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
                let x_words = &x_blocks[row * row_blocks..][..row_blocks];
                let x_spans = row_spans(row, x_words);
                for (column, out) in out.iter_mut().enumerate() {
                    let w_words = &w_blocks[column * row_blocks..][..row_blocks];
                    // A part of K, complete in itself.
                    let part = |columns: Range<usize>| {
                        let mut lanes = vec![A::Sum::default(); tile.lanes];
                        let (mut weight_codes, mut integers) = (0_i32, 0_i32);
                        let first = columns.start / BLOCK;
                        for block in first..columns.end.div_ceil(BLOCK) {
                            let (x_words, w_words) = (&x_words[block], &w_words[block]);
                            for index in 0..spans {
                                let part = tile.part(index);
                                let span = &x_spans[block * spans + index];
                                let codes = engine.weight_codes(w_words, part);
                                let product = engine.product(x_words, w_words, span.codes, part);
                                let scale =
                                    Scale::at(&w, column, BLOCK * block + tile.span * index);
                                let sum = &mut lanes[(block - first) % tile.lanes];
                                *sum = accumulate.span(*sum, product, codes, span, &scale);
                                weight_codes = weight_codes.wrapping_add(codes);
                                integers = integers.wrapping_add(span.integers);
                            }
                        }
                        let row_scale = Scale::at(x, row, 0);
                        let [multiplier, offset] = constants.activation;
                        let total = Span {
                            codes: 0,
                            integers,
                            offset: multiplier * constants.centre + offset - row_scale.zero,
                            scale: row_scale.scale,
                        };
                        let sum =
                            butterfly(lanes, |a, b| accumulate.join(a, b)).unwrap_or_default();
                        accumulate.finish(sum, weight_codes, &total, &Scale::at(&w, column, 0))
                    };
                    *out = add_parts(tile.parts.ranges(k).map(part)).unwrap_or_default();
                }
            }
            Ok(())
        })
    }
}

impl Tile {
    fn part(self, index: usize) -> Part {
        Part {
            index,
            length: self.span,
        }
    }
}
