//! Bounds of the kernels that look sums of activations up.

use std::ops::Range;

use anybit_formats::{AffineFormat, ElementFormat, PackedMatrix};

use super::{Bounded, ErrorModel, FLUSH, Terms, UNIT_F64, decode_operations, gamma, slack};
use crate::ReferenceError;
use crate::exact::multiply;
use crate::integers::{is_grouped, level_lost, span_of};
use crate::problem::{Batches, Problem};
use crate::tables::{self, BLOCK, ENTRIES, GROUPS, HALVES, LARGEST, SMALLEST};

/// Operations that round when a table of four activations is summed.
const TABLE_SUMS: usize = 3;

/// Those that round a code of a table of bytes: its sum and the largest one, a division of 2.5 units in the last place,
/// and a product; and a few more.
const CODE_ROUNDINGS: usize = 16;

impl ErrorModel {
    /// Bounds of `gemv_lut`: floats with integer codes that look sums of four floats up.
    ///
    /// The outputs are those of [`gemm_f64_batched`](crate::exact::gemm_f64_batched), in its order.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::NotCodes`] for weights that are no integers; [`ReferenceError::Columns`],
    /// [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
    pub fn gemm_lut(
        self,
        x: &PackedMatrix,
        w: &PackedMatrix,
        batches: Batches,
    ) -> Result<Vec<f64>, ReferenceError> {
        let problem = Problem::new(x, w, batches)?;
        let format = affine(w)?;
        let k = problem.k;
        let look_ups = GROUPS * usize::from(format.bits());
        let gamma_f32 = self.gamma(operations(x, w, TABLE_SUMS, look_ups));
        let gamma_f64 = gamma(UNIT_F64, k + 6);
        let x = Terms::new(x);
        let any_lost = x.lost.iter().any(|&lost| lost != 0.0);
        // What is flushed of a product of coefficients meets the sums of the activations.
        let coefficient_flush = f64::from((1 << format.bits()) + 4) * FLUSH;
        problem.fill(|part, out| {
            let w = w.row_range(part.weight.clone())?;
            let mut error = Vec::with_capacity(w.rows() * k);
            let mut size = Vec::with_capacity(w.rows() * k);
            let mut flush = Vec::with_capacity(w.rows());
            for row in 0..w.rows() {
                let mut flushed = 0.0;
                for column in 0..k {
                    let weight = Coefficients::at(&w, format, row, column);
                    let lost = weight.lost + coefficient_flush;
                    error.push((gamma_f32 + gamma_f64) * weight.size() + (1.0 + gamma_f32) * lost);
                    size.push((1.0 + gamma_f32) * (weight.size() + lost));
                    flushed += 8.0 * (weight.size() + 1.0) * FLUSH;
                }
                flush.push((1.0 + gamma_f32) * flushed);
            }
            multiply(&x.magnitudes, &error, k, part, out);
            if any_lost {
                let mut lost = vec![0.0; out.len()];
                multiply(&x.lost, &size, k, part, &mut lost);
                for (out, lost) in out.iter_mut().zip(lost) {
                    *out += lost;
                }
            }
            for (out, flush) in out.iter_mut().zip(flush.iter().cycle()) {
                *out = (*out + flush) * slack(k);
            }
            Ok(())
        })
    }

    /// The exact outputs of `gemv_lut8` from tables rounded as they should be, and how far its outputs may be from them.
    ///
    /// A sum that lies so near the middle between two codes that the arithmetic may round it to either counts as the one
    /// that is exactly nearer, and adds the other's distance to the bound. [`gemm_lut8_rounding`] bounds how far these
    /// values are from the exact product.
    ///
    /// # Errors
    ///
    /// Those of [`gemm_lut`](Self::gemm_lut).
    pub fn gemm_lut8(
        self,
        x: &PackedMatrix,
        w: &PackedMatrix,
        batches: Batches,
    ) -> Result<Vec<Bounded>, ReferenceError> {
        let problem = Problem::new(x, w, batches)?;
        let format = affine(w)?;
        let k = problem.k;
        // A block's integers are exact; their scale has a sum, a division and a product.
        let gamma_f32 = self.gamma(operations(x, w, TABLE_SUMS + 6, 1));
        let gamma_f64 = gamma(UNIT_F64, k + 6);
        let span = span_of(x.format(), w.format());
        let halves = span * HALVES / BLOCK;
        let row_blocks = k.div_ceil(BLOCK);
        let tables = ByteTables::of_rows(self, x);
        problem.fill(|part, out| {
            let w = w.row_range(part.weight.clone())?;
            let codes = tables::blocks(&w.unpack_codes(), k);
            let count = part.weight.len();
            for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
                let tables = &tables[row * row_blocks..][..row_blocks];
                for (column, out) in out.iter_mut().enumerate() {
                    let codes = &codes[column * row_blocks..][..row_blocks];
                    let (mut value, mut rounded, mut flushed) = (0.0, 0.0, 0.0);
                    for (index, (table, codes)) in tables.iter().zip(codes).enumerate() {
                        for first in (0..HALVES).step_by(halves) {
                            let start = BLOCK * index + BLOCK / HALVES * first;
                            if start >= k {
                                continue;
                            }
                            let weight = Coefficients::at(&w, format, column, start);
                            let range = first..first + halves;
                            let looked_up = table.look_up(codes, format.bits(), range.clone());
                            let sums = table.sums(range);
                            let entry = table.scale * weight.alpha * weight.scale.abs();
                            let constant = weight.scale * weight.beta + weight.minimum;
                            value += weight.scale * weight.alpha * table.scale * looked_up.code
                                + constant * sums.value;
                            let sum_size =
                                weight.scale.abs() * weight.beta.abs() + weight.minimum.abs();
                            let size = entry * looked_up.code.abs() + sum_size * sums.size;
                            rounded += (gamma_f32 + gamma_f64) * size;
                            flushed += entry
                                * (looked_up.either + table.loss * looked_up.code.abs())
                                + sum_size * sums.lost
                                + weight.relative_lost() * size
                                + 8.0 * (span as f64 + size + sum_size + sums.size) * FLUSH;
                        }
                    }
                    *out = Bounded {
                        value,
                        bound: (rounded + (1.0 + gamma_f32) * flushed) * slack(k),
                    };
                }
            }
            Ok(())
        })
    }
}

/// How far the values of [`ErrorModel::gemm_lut8`] may be from the exact product: half a code for each sum that is looked
/// up.
///
/// # Errors
///
/// Those of [`ErrorModel::gemm_lut`].
pub fn gemm_lut8_rounding(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
) -> Result<Vec<f64>, ReferenceError> {
    let problem = Problem::new(x, w, batches)?;
    let format = affine(w)?;
    let k = problem.k;
    let row_blocks = k.div_ceil(BLOCK);
    let tables = ByteTables::of_rows(ErrorModel::WGSL, x);
    let signs = f64::from((1 << format.bits()) - 1);
    problem.fill(|part, out| {
        let w = w.row_range(part.weight.clone())?;
        let count = part.weight.len();
        for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
            let tables = &tables[row * row_blocks..][..row_blocks];
            for (column, out) in out.iter_mut().enumerate() {
                for (index, table) in tables.iter().enumerate() {
                    for half in 0..HALVES {
                        let start = BLOCK * index + BLOCK / HALVES * half;
                        if start >= k {
                            continue;
                        }
                        let weight = Coefficients::at(&w, format, column, start);
                        let groups = GROUPS / HALVES;
                        let error = if table.scale == 0.0 {
                            table.sums(half..half + 1).size
                        } else {
                            0.5 * table.scale * groups as f64
                        };
                        *out += weight.scale.abs() * weight.alpha * signs * error;
                    }
                }
                *out *= slack(k);
            }
        }
        Ok(())
    })
}

fn affine(w: &PackedMatrix) -> Result<AffineFormat, ReferenceError> {
    match w.format().element() {
        ElementFormat::Affine(affine) => Ok(affine),
        _ => Err(ReferenceError::NotCodes {
            format: *w.format(),
        }),
    }
}

/// The most roundings of a term. `table` is how many an entry has behind it, `look_ups` how many entries a block adds.
fn operations(x: &PackedMatrix, w: &PackedMatrix, table: usize, look_ups: usize) -> usize {
    let blocks = x.columns().div_ceil(BLOCK);
    // Terms are added inside a span, or along all of K; then the sum of x joins them, is scaled, and spans are joined.
    let (inner, outer) = if is_grouped(w.format()) {
        (1, x.columns().div_ceil(span_of(x.format(), w.format())))
    } else {
        (blocks, blocks)
    };
    let looked_up = table + look_ups * inner;
    let sum = BLOCK * inner + 1;
    looked_up.max(sum) + 1 + decode_operations(w.format()) + outer
}

/// What a weight row multiplies sums with, at a column.
struct Coefficients {
    /// Of the sums of signs: half the multiplier.
    alpha: f64,
    /// Of the sum of the activations, less the zero point.
    beta: f64,
    scale: f64,
    minimum: f64,
    /// Σ 2^p over the planes.
    signs: f64,
    /// What flushing scale and minimum may take from a weight, and from the scale and the minimum alone.
    lost: f64,
    scale_lost: f64,
    minimum_lost: f64,
}

impl Coefficients {
    fn at(w: &PackedMatrix, format: AffineFormat, row: usize, column: usize) -> Self {
        let group = column / w.format().group_len(w.columns()).max(1);
        let (alpha, beta) = tables::coefficients(format);
        let mut coefficients = Self {
            alpha: f64::from(alpha),
            beta: f64::from(beta) - f64::from(w.zero_point(row, group)),
            scale: f64::from(w.scale(row, group)),
            minimum: f64::from(w.minimum(row, group)),
            signs: f64::from((1 << format.bits()) - 1),
            lost: 0.0,
            scale_lost: level_lost(w.format(), w.scale_levels(row, group)),
            minimum_lost: level_lost(w.format(), w.minimum_levels(row, group)),
        };
        coefficients.lost =
            coefficients.scale_lost * coefficients.unscaled() + coefficients.minimum_lost;
        coefficients
    }

    fn unscaled(&self) -> f64 {
        self.alpha * self.signs + self.beta.abs()
    }

    /// The sum of the magnitudes of all that an activation is multiplied with.
    fn size(&self) -> f64 {
        self.scale.abs() * self.unscaled() + self.minimum.abs()
    }

    /// What flushing may take from a product, as a part of it.
    fn relative_lost(&self) -> f64 {
        if self.scale_lost > 0.0 || self.minimum_lost > 0.0 {
            1.0
        } else {
            0.0
        }
    }
}

/// The tables of a block as `gemv_lut8` rounds them.
struct ByteTables {
    codes: [[f64; ENTRIES]; GROUPS],
    /// How far the code that the arithmetic finds may be from that.
    either: [[f64; ENTRIES]; GROUPS],
    scale: f64,
    /// What flushed activations may take from the scale, as a part of it.
    loss: f64,
    halves: [Sums; HALVES],
}

#[derive(Clone, Copy, Default)]
struct Sums {
    value: f64,
    size: f64,
    lost: f64,
}

struct LookedUp {
    code: f64,
    either: f64,
}

impl ByteTables {
    fn of_rows(model: ErrorModel, x: &PackedMatrix) -> Vec<Self> {
        let k = x.columns();
        let values = tables::blocks(&x.decode_f64(), k);
        let lost = tables::blocks(&Terms::new(x).lost, k);
        let blocks = values.iter().zip(&lost);
        blocks
            .map(|(values, lost)| Self::new(model, values, lost))
            .collect()
    }

    fn new(model: ErrorModel, values: &[f64; BLOCK], lost: &[f64; BLOCK]) -> Self {
        let size = |group| -> f64 { tables::group(values, group).map(f64::abs).iter().sum() };
        let size = (0..GROUPS).map(size).fold(0.0, f64::max);
        let half = |half: usize| {
            let range = BLOCK / HALVES * half..BLOCK / HALVES * (half + 1);
            Sums {
                value: values[range.clone()].iter().sum(),
                size: values[range.clone()].iter().map(|x| x.abs()).sum(),
                lost: lost[range].iter().sum(),
            }
        };
        let mut tables = Self {
            codes: [[0.0; ENTRIES]; GROUPS],
            either: [[0.0; ENTRIES]; GROUPS],
            scale: 0.0,
            loss: 0.0,
            halves: std::array::from_fn(half),
        };
        let largest = f64::from(LARGEST);
        let smallest = f64::from(SMALLEST);
        if size < 0.99 * smallest {
            return tables;
        }
        tables.scale = size / largest;
        tables.loss = lost.iter().sum::<f64>() / size;
        if size < 1.01 * smallest {
            // The arithmetic may find it smaller.
            tables.either = [[largest; ENTRIES]; GROUPS];
            return tables;
        }
        let either =
            largest * (model.gamma(CODE_ROUNDINGS) + 2.0 * tables.loss + 8.0 * FLUSH / size);
        let round = |code: f64| code.round_ties_even().clamp(-largest, largest);
        for group in 0..GROUPS {
            let sums: [f64; ENTRIES] = tables::entries(tables::group(values, group));
            for (entry, sum) in sums.into_iter().enumerate() {
                let exact = sum / tables.scale;
                let code = round(exact);
                tables.codes[group][entry] = code;
                let (low, high) = (round(exact - either), round(exact + either));
                tables.either[group][entry] = (high - code).max(code - low);
            }
        }
        tables
    }

    fn look_up(&self, codes: &[u8; BLOCK], bits: u8, halves: Range<usize>) -> LookedUp {
        let mut looked_up = LookedUp {
            code: 0.0,
            either: 0.0,
        };
        for group in tables::groups(halves) {
            let codes = tables::group(codes, group);
            for plane in 0..bits {
                let bits = (0..4).fold(0, |bits, i| bits | usize::from(codes[i] >> plane & 1) << i);
                let (entry, sign) = if bits < ENTRIES {
                    (bits, 1.0)
                } else {
                    (15 - bits, -1.0)
                };
                let power = f64::from(1 << plane);
                looked_up.code += power * sign * self.codes[group][entry];
                looked_up.either += power * self.either[group][entry];
            }
        }
        looked_up
    }

    fn sums(&self, halves: Range<usize>) -> Sums {
        let sums = self.halves[halves].iter();
        sums.fold(Sums::default(), |a, b| Sums {
            value: a.value + b.value,
            size: a.size + b.size,
            lost: a.lost + b.lost,
        })
    }
}
