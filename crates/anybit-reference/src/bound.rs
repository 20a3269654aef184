//! The error model: how far a kernel's f32 result may be from the exact one.
//!
//! `docs/numerics.md` in the repository derives every bound. In short: WGSL rounds each addition, multiplication and
//! conversion to one of the two neighbouring floats, may contract a multiplication and an addition, may reorder sums and
//! may flush subnormals. So a term that passes through c operations carries a relative error of at most
//! γ(c) = c·u / (1 − c·u), whatever the order, and a sum of terms at most γ(c) times the sum of their magnitudes. The
//! bounds count c from the kernel and take the magnitudes from the data.
//!
//! A bound holds as long as no intermediate result overflows. It covers the error of the exact results of
//! [`exact`](crate::exact) too, so a kernel is right if |kernel − exact| ≤ bound.

mod attention;
mod cache;
mod interval;
mod logits;
mod lut;
mod rotary;
mod rows;
mod softmax;

pub use lut::gemm_lut8_rounding;

use anybit_formats::{
    AffineFormat, ElementFormat, LMul, MatrixFormat, PackedMatrix, QuantizeRowsOptions, ScaleRule,
    ScaleType, ZeroKind,
};

use crate::ReferenceError;
use crate::exact::multiply;
use crate::integers::{Integers, SpanScale, check_codes, is_grouped, level_lost, lost, span_of};
use crate::parts::Parts;
use crate::problem::{Batches, Problem, activations};
use crate::quantize::{Rule, Statistic};

/// Half the distance from 1 to the next f64.
const UNIT_F64: f64 = f64::EPSILON / 2.0;

/// The largest result that may be flushed to 0.
const FLUSH: f64 = f32::MIN_POSITIVE as f64;

/// 2¹²⁶, the largest divisor whose quotients WGSL bounds.
const LARGEST_DIVISOR: f32 = 8.507_059e37;

/// Integers up to this magnitude are exact in f32.
const EXACT_F32: f64 = 16_777_216.0;

/// What is known about the arithmetic of an adapter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorModel {
    unit_roundoff: f64,
}

/// An exact value and the largest distance from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounded {
    /// The exact value.
    pub value: f64,
    /// The largest distance that the error model allows.
    pub bound: f64,
}

impl Bounded {
    /// Whether `value` lies within the bound.
    pub fn holds(&self, value: f32) -> bool {
        (f64::from(value) - self.value).abs() <= self.bound
    }
}

/// How an integer kernel adds up along K.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulation {
    /// Integers to the end of K, then one conversion and the scales. For operands without scale groups.
    Whole,
    /// Integers inside a span of 16 or 32 columns, f32 from span to span.
    Grouped,
}

impl Accumulation {
    /// The accumulation that two formats ask for: grouped where either has scale groups.
    pub fn of(activation: &MatrixFormat, weight: &MatrixFormat) -> Self {
        if is_grouped(activation) || is_grouped(weight) {
            Self::Grouped
        } else {
            Self::Whole
        }
    }
}

impl Default for ErrorModel {
    fn default() -> Self {
        Self::WGSL
    }
}

impl ErrorModel {
    /// What WGSL promises: a result is one of the two floats next to the exact value, so its relative error is below
    /// 2⁻²³.
    pub const WGSL: Self = Self {
        unit_roundoff: f32::EPSILON as f64,
    };

    /// Rounding to nearest, which GPUs do in practice: a relative error of at most 2⁻²⁴.
    pub const NEAREST: Self = Self {
        unit_roundoff: f32::EPSILON as f64 / 2.0,
    };

    /// The largest relative error of one addition, multiplication or conversion.
    pub const fn unit_roundoff(self) -> f64 {
        self.unit_roundoff
    }

    /// The largest relative error of a term after `operations` roundings: n·u / (1 − n·u); infinite where n·u ≥ 1.
    pub fn gamma(self, operations: usize) -> f64 {
        gamma(self.unit_roundoff, operations)
    }

    /// The largest relative error of a division of normal numbers: 2.5 units in the last place, as WGSL has it.
    pub const fn division(self) -> f64 {
        2.5 * f32::EPSILON as f64
    }

    /// Bounds of the fma kernels: operands that are floats, or are decoded to f32 first.
    ///
    /// The outputs are those of [`gemm_f64_batched`](crate::exact::gemm_f64_batched), in its order.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Columns`], [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not
    /// fit.
    pub fn gemm_fma(
        self,
        x: &PackedMatrix,
        w: &PackedMatrix,
        batches: Batches,
    ) -> Result<Vec<f64>, ReferenceError> {
        self.gemm_float(x, w, batches, 1)
    }

    /// Bounds of the matrix kernels: operands that f16 holds, multiplied exactly by cooperative matrices, f32 outputs.
    ///
    /// Of integers on both sides the sums are exact until they are scaled, and the bounds are those of
    /// [`gemm_integer`](Self::gemm_integer). Of others the unit may align the products of a fragment and the sum so far with the
    /// largest of them and cut each off at the last bit of an f32: as many errors of one unit in the last place as there are
    /// terms, where additions one by one would round once less. So each term counts for two additions.
    ///
    /// A unit that adds up in less than f32 is outside the model; the self-check of the library refuses it. So is one that takes
    /// subnormal f16 for 0.
    ///
    /// # Errors
    ///
    /// Those of [`gemm_fma`](Self::gemm_fma) and [`gemm_integer`](Self::gemm_integer).
    pub fn gemm_matrix(
        self,
        x: &PackedMatrix,
        w: &PackedMatrix,
        batches: Batches,
    ) -> Result<Vec<f64>, ReferenceError> {
        let integers = |matrix: &PackedMatrix| matrix.format().element().affine().is_some();
        if integers(x) && integers(w) {
            let accumulation = Accumulation::of(x.format(), w.format());
            return self.gemm_integer(x, w, batches, accumulation);
        }
        self.gemm_float(x, w, batches, 2)
    }

    /// Bounds of f32 products and sums, each term of which takes part in so many additions for every column.
    fn gemm_float(
        self,
        x: &PackedMatrix,
        w: &PackedMatrix,
        batches: Batches,
        additions: usize,
    ) -> Result<Vec<f64>, ReferenceError> {
        let problem = Problem::new(x, w, batches)?;
        let k = problem.k;
        let counts = FmaCounts::new(self, x, w, additions);
        let mut x = Terms::new(x);
        let decode_flush = counts.activation_flush;
        x.lost.iter_mut().for_each(|lost| *lost += decode_flush);
        let any_lost = x.lost.iter().any(|&lost| lost != 0.0);
        problem.fill(|part, out| {
            let mut w = Terms::new(&w.row_range(part.weight.clone())?);
            let flush = counts.flush(x.largest * w.largest);
            counts.round(&mut w);
            multiply(&x.magnitudes, &w.magnitudes, k, part, out);
            if any_lost {
                let mut flushed = vec![0.0; out.len()];
                multiply(&x.lost, &w.lost, k, part, &mut flushed);
                for (out, flushed) in out.iter_mut().zip(flushed) {
                    *out += flushed;
                }
            }
            for out in out {
                *out = (*out + flush) * counts.slack;
            }
            Ok(())
        })
    }

    /// Bounds of the lmul kernels: what the additions may round away, as products are exact; and for operands that are
    /// decoded with rounding, how far their products may lie apart.
    ///
    /// The outputs are those of [`gemm_l_mul_batched`](crate::exact::gemm_l_mul_batched), in its order.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Columns`], [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not
    /// fit.
    pub fn gemm_l_mul(
        self,
        x: &PackedMatrix,
        w: &PackedMatrix,
        batches: Batches,
        l_mul: LMul,
    ) -> Result<Vec<f64>, ReferenceError> {
        let problem = Problem::new(x, w, batches)?;
        let k = problem.k;
        let gamma_f64 = gamma(UNIT_F64, k);
        let gamma = self.gamma(k.saturating_sub(1));
        let flush = (1.0 + gamma) * k as f64 * FLUSH;
        let x = self.ranges(x);
        problem.fill(|part, out| {
            let w = self.ranges(&w.row_range(part.weight.clone())?);
            let count = part.weight.len();
            for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
                let x = &x[row * k..][..k];
                for (column, out) in out.iter_mut().enumerate() {
                    let (mut magnitude, mut apart) = (0.0, 0.0);
                    for (x, w) in x.iter().zip(&w[column * k..][..k]) {
                        let (size, distance) = x.products(w, l_mul);
                        magnitude += size;
                        apart += distance;
                    }
                    let rounded = (gamma + gamma_f64) * magnitude + (1.0 + gamma) * apart;
                    *out = (rounded + flush) * slack(k);
                }
            }
            Ok(())
        })
    }

    /// The decoded values of a matrix, and what a kernel may decode instead.
    fn ranges(self, matrix: &PackedMatrix) -> Vec<Range> {
        let distances = self.decode(matrix).into_iter().zip(matrix.decode_f64());
        let values = matrix.decode().into_iter().zip(distances);
        values
            .map(|(value, (distance, exact))| Range {
                value,
                ends: if distance == 0.0 {
                    [value; 2]
                } else {
                    // A step further, for the rounding of the ends themselves.
                    let [low, high] = [exact - distance, exact + distance].map(|end| end as f32);
                    [low.next_down(), high.next_up()]
                },
            })
            .collect()
    }

    /// Bounds of the integer kernels (dot4, bitplane, swar and integer_fma): codes on both sides, f32 outputs.
    ///
    /// The bounds for [`Accumulation::Grouped`] are never below those for [`Accumulation::Whole`]. The outputs are
    /// those of [`gemm_f64_batched`](crate::exact::gemm_f64_batched), in its order.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::NotCodes`] for formats without integers, [`ReferenceError::ActivationMinimum`] for activations that have
    /// minima, [`ReferenceError::Grouped`] for scale groups under [`Accumulation::Whole`];
    /// [`ReferenceError::Columns`], [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not
    /// fit.
    pub fn gemm_integer(
        self,
        x: &PackedMatrix,
        w: &PackedMatrix,
        batches: Batches,
        accumulation: Accumulation,
    ) -> Result<Vec<f64>, ReferenceError> {
        self.gemm_integer_parts(x, w, batches, accumulation, Parts::ONE)
    }

    /// [`gemm_integer`](Self::gemm_integer) where K is split into parts that are added up in f32. Under
    /// [`Accumulation::Grouped`] it makes no difference: a part has at least a span, so that no term passes through more
    /// additions than without parts. Nor does it in the f32 kernels, whose terms pass through no more additions than K.
    ///
    /// # Errors
    ///
    /// Those of [`gemm_integer`](Self::gemm_integer).
    pub fn gemm_integer_parts(
        self,
        x: &PackedMatrix,
        w: &PackedMatrix,
        batches: Batches,
        accumulation: Accumulation,
        parts: Parts,
    ) -> Result<Vec<f64>, ReferenceError> {
        let problem = Problem::new(x, w, batches)?;
        let counts = IntegerCounts::new(self, x, w, accumulation, parts)?;
        let span = span_of(x.format(), w.format());
        let x = Integers::new(x, span)?;
        problem.fill(|part, out| {
            let w = Integers::new(&w.row_range(part.weight.clone())?, span)?;
            let count = part.weight.len();
            for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
                for (column, out) in out.iter_mut().enumerate() {
                    *out = counts.bound(&x, row, &w, column);
                }
            }
            Ok(())
        })
    }

    /// The exact scale that a row quantiser looks for in the values of a row or group of this format, and how far the scale
    /// that it emits may be from it: nothing, for powers of two.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Quantizer`] for a format that the row quantisers do not make.
    pub fn scale(self, values: &[f32], format: &MatrixFormat) -> Result<Bounded, ReferenceError> {
        self.scale_with(values, format, ScaleRule::Floor)
    }

    /// [`scale`](Self::scale) with another rule for powers of two.
    ///
    /// # Errors
    ///
    /// Those of [`scale`](Self::scale).
    pub fn scale_with(
        self,
        values: &[f32],
        format: &MatrixFormat,
        scale_rule: ScaleRule,
    ) -> Result<Bounded, ReferenceError> {
        let options = QuantizeRowsOptions::default().with_scale_rule(scale_rule);
        let rule = Rule::new(format, &options)?;
        let size = |value: &f32| f64::from(value.abs());
        let (statistic, roundings) = match rule.statistic {
            Statistic::Magnitude => (values.iter().map(size).fold(0.0, f64::max), 0),
            Statistic::Value => {
                let largest = values.iter().fold(0.0, |max: f32, &value| max.max(value));
                (f64::from(largest), 0)
            }
            Statistic::Mean => {
                let mean = values.iter().map(size).sum::<f64>() / values.len().max(1) as f64;
                (mean, values.len())
            }
        };
        if rule.scale == Some(ScaleType::E8m0) {
            // The bits of the largest magnitude, which is an f32, decide.
            let code = scale_rule.e8m0(statistic as f32, rule.divisor);
            return Ok(Bounded {
                value: f64::from(ScaleType::E8m0.decode(u32::from(code))),
                bound: 0.0,
            });
        }
        // A sum for the mean, then a division by the count; each kernel then divides by the largest value.
        let sum = 1.0 + self.gamma(roundings.saturating_sub(1)) + gamma(UNIT_F64, roundings + 4);
        let division = 1.0 + self.division();
        let relative = if roundings > 0 {
            sum * division * division - 1.0
        } else {
            sum * division - 1.0
        };
        let value = (statistic / f64::from(rule.divisor)).max(f64::from(rule.smallest));
        Ok(Bounded {
            value,
            // Inputs, sum, quotients and the scale itself may be flushed.
            bound: relative * value + 4.0 * FLUSH,
        })
    }

    /// The exact inverse of a scale that a row quantiser emitted, and how far the inverse that it emits may be from it.
    ///
    /// A scale of 0 has the inverse 0. Divisors above 2¹²⁶ are outside what WGSL promises: the bound is infinite. Inverses
    /// of powers of two that are [stored as such](ScaleType::E8m0) are exact.
    pub fn inverse(self, scale: f32) -> Bounded {
        if scale.abs() < f32::MIN_POSITIVE {
            return Bounded {
                value: 0.0,
                bound: 0.0,
            };
        }
        let value = 1.0 / f64::from(scale);
        // 1/s is normal for s up to 2^126, the largest divisor whose quotients WGSL bounds.
        let bound = if scale.abs() <= LARGEST_DIVISOR {
            (self.division() + gamma(UNIT_F64, 2)) * value.abs()
        } else {
            f64::INFINITY
        };
        Bounded { value, bound }
    }

    /// Bounds of the decode kernel: the distance of each element from
    /// [`PackedMatrix::decode_f64`], row-major. 0 for bare codes and for floats that are not subnormal.
    pub fn decode(self, matrix: &PackedMatrix) -> Vec<f64> {
        let terms = Terms::new(matrix);
        let operations = decode_operations(matrix.format());
        let gamma = self.gamma(operations) + gamma(UNIT_F64, 2);
        let magnitudes = terms.magnitudes.iter().zip(&terms.lost);
        magnitudes
            .map(|(magnitude, lost)| {
                if operations == 0 {
                    *lost
                } else {
                    gamma * magnitude + (1.0 + gamma) * (lost + 2.0 * FLUSH)
                }
            })
            .collect()
    }
}

/// The largest f16.
pub const LARGEST_F16: f64 = 65_504.0;

/// The smallest normal f16, 2⁻¹⁴: what is smaller may become 0.
const SMALLEST_F16: f64 = 6.103_515_625e-5;

/// The smallest subnormal f16, 2⁻²⁴, which is the step between subnormals.
const STEP_F16: f64 = SMALLEST_F16 * UNIT_F16;

/// The distance from 1 to the next f16.
const UNIT_F16: f64 = 9.765_625e-4;

/// What is right for an f16 output whose f32 value would be within `bound` of `exact`: saturated to ±[`LARGEST_F16`], then
/// rounded to either of the two neighbouring f16; a subnormal may become 0.
pub fn f16_output(exact: f64, bound: f64) -> Bounded {
    let saturate = |value: f64| value.clamp(-LARGEST_F16, LARGEST_F16);
    let value = saturate(exact);
    let (low, high) = (saturate(exact - bound), saturate(exact + bound));
    let (smallest, largest) = if low > 0.0 || high < 0.0 {
        (low.abs().min(high.abs()), low.abs().max(high.abs()))
    } else {
        (0.0, low.abs().max(high.abs()))
    };
    // What is an f16 already stays, unless it is subnormal.
    let is_f16 = low == high && (value / UNIT_F16) % power_below(largest) == 0.0;
    let rounding = if largest == 0.0 || smallest >= SMALLEST_F16 && is_f16 {
        0.0
    } else {
        let step = (UNIT_F16 * power_below(largest)).max(STEP_F16);
        if smallest >= SMALLEST_F16 {
            step
        } else {
            // A value that is flushed loses itself, another a step.
            step.max(largest.min(SMALLEST_F16))
        }
    };
    Bounded {
        value,
        bound: (value - low).max(high - value) + rounding,
    }
}

/// The largest power of two that is no larger than a positive normal number.
fn power_below(value: f64) -> f64 {
    f64::from_bits(value.to_bits() & !((1 << 52) - 1))
}

/// [`ErrorModel::gemm_fma`] for one product of whole matrices under [`ErrorModel::WGSL`].
///
/// # Errors
///
/// Those of [`ErrorModel::gemm_fma`].
pub fn gemm_fma_bound(x: &PackedMatrix, w: &PackedMatrix) -> Result<Vec<f64>, ReferenceError> {
    ErrorModel::WGSL.gemm_fma(x, w, Batches::ONE)
}

/// [`ErrorModel::gemm_l_mul`] for one product of whole matrices under [`ErrorModel::WGSL`].
///
/// # Errors
///
/// Those of [`ErrorModel::gemm_l_mul`].
pub fn gemm_l_mul_bound(
    x: &PackedMatrix,
    w: &PackedMatrix,
    l_mul: LMul,
) -> Result<Vec<f64>, ReferenceError> {
    ErrorModel::WGSL.gemm_l_mul(x, w, Batches::ONE, l_mul)
}

/// [`gemm_fma_bound`] of f32 activations, row-major with K a row.
///
/// # Errors
///
/// Those of [`gemm_fma_bound`] and of [`activations`].
pub fn gemm_fma_bound_of(x: &[f32], w: &PackedMatrix) -> Result<Vec<f64>, ReferenceError> {
    gemm_fma_bound(&activations(x, w.columns())?, w)
}

/// [`ErrorModel::gemm_integer`] for one product of whole matrices under [`ErrorModel::WGSL`], with the accumulation
/// that the formats ask for.
///
/// # Errors
///
/// Those of [`ErrorModel::gemm_integer`].
pub fn gemm_integer_bound(x: &PackedMatrix, w: &PackedMatrix) -> Result<Vec<f64>, ReferenceError> {
    let accumulation = Accumulation::of(x.format(), w.format());
    ErrorModel::WGSL.gemm_integer(x, w, Batches::ONE, accumulation)
}

/// [`ErrorModel::scale`] under [`ErrorModel::WGSL`].
///
/// # Errors
///
/// Those of [`ErrorModel::scale`].
pub fn scale_bound(values: &[f32], format: &MatrixFormat) -> Result<Bounded, ReferenceError> {
    ErrorModel::WGSL.scale(values, format)
}

/// The largest K for which every integer product Σ x·w of two formats without zero points fits an i32.
///
/// Integer kernels compute it from sums that may pass the range on the way. WGSL's i32 arithmetic wraps, so the result
/// is right whenever it fits.
pub fn max_k_i32(activation: AffineFormat, weight: AffineFormat) -> usize {
    let range = |format: AffineFormat| [format.min_value(), format.max_value()];
    max_k(range(activation), range(weight))
}

/// [`max_k_i32`] of matrix formats, whose integer zero points may be anything from 0 to 255; of lifted formats, in their
/// units. `None` for formats without integers.
pub fn max_k_i32_scaled(activation: &MatrixFormat, weight: &MatrixFormat) -> Option<usize> {
    let range = |format: &MatrixFormat| {
        let (low, high) = format.element().integer_range()?;
        let zero = match format.zero_kind() {
            ZeroKind::Integer => i32::from(u8::MAX),
            ZeroKind::None | ZeroKind::Minimum | ZeroKind::Choice => 0,
        };
        Some([low - zero, high])
    };
    Some(max_k(range(activation)?, range(weight)?))
}

fn max_k(x: [i32; 2], w: [i32; 2]) -> usize {
    let products = x
        .iter()
        .flat_map(|&x| w.map(|w| i64::from(x) * i64::from(w)));
    let terms = products.map(|product| match product {
        0 => i64::MAX,
        1.. => i64::from(i32::MAX) / product,
        _ => i64::from(i32::MIN) / product,
    });
    usize::try_from(terms.min().unwrap_or(i64::MAX)).unwrap_or(usize::MAX)
}

fn gamma(unit_roundoff: f64, operations: usize) -> f64 {
    let error = operations as f64 * unit_roundoff;
    if error < 1.0 {
        error / (1.0 - error)
    } else {
        f64::INFINITY
    }
}

/// A little more than 1, for what computing a bound itself rounds away.
fn slack(operations: usize) -> f64 {
    1.0 + gamma(UNIT_F64, operations.saturating_add(16))
}

/// Elements of a matrix as the error model sees them.
struct Terms {
    /// |s·v| + |m|, v being the value of the code less the zero point.
    magnitudes: Vec<f64>,
    /// What flushing subnormal inputs may take from the value.
    lost: Vec<f64>,
    /// The largest max(1, |s|) · max(1, |v|): what a flushed product of some factors may be multiplied by.
    largest: f64,
}

impl Terms {
    fn new(matrix: &PackedMatrix) -> Self {
        let format = matrix.format();
        let element = format.element();
        if let ElementFormat::Float(float) = element {
            let values = matrix.decode();
            return Self {
                magnitudes: values.iter().map(|&value| f64::from(value.abs())).collect(),
                lost: values.iter().map(|&value| lost(value, float)).collect(),
                largest: 1.0,
            };
        }
        let columns = matrix.columns();
        let group_len = format.group_len(columns).max(1);
        let codes = matrix.unpack_codes();
        let mut terms = Self {
            magnitudes: Vec::with_capacity(codes.len()),
            lost: Vec::with_capacity(codes.len()),
            largest: 1.0,
        };
        for row in 0..matrix.rows() {
            let codes = &codes[row * columns..][..columns];
            for (group, codes) in codes.chunks(group_len).enumerate() {
                let size = f64::from(matrix.scale(row, group).abs());
                let shift = f64::from(matrix.minimum(row, group).abs());
                let scale_lost = level_lost(format, matrix.scale_levels(row, group));
                let minimum_lost = level_lost(format, matrix.minimum_levels(row, group));
                let zero = f64::from(matrix.zero_point(row, group));
                let choice = matrix.choice(row, group);
                let mut largest = 1.0_f64;
                for &code in codes {
                    let value = element.code_value_with(code, choice).unwrap_or(0.0);
                    let value = (f64::from(value) - zero).abs();
                    terms.magnitudes.push(size * value + shift);
                    terms.lost.push(scale_lost * value + minimum_lost);
                    largest = largest.max(value);
                }
                terms.largest = terms.largest.max(size.max(1.0) * largest);
            }
        }
        terms
    }
}

/// A decoded value, and the least and the largest that a kernel may have instead.
struct Range {
    value: f32,
    ends: [f32; 2],
}

impl Range {
    /// The largest magnitude of an L-Mul product of two values of the ranges, and how far it may be from that of the
    /// decoded values.
    ///
    /// A product never falls while the magnitude of an operand rises, so the ends of the ranges make the ends of the
    /// products.
    fn products(&self, other: &Self, l_mul: LMul) -> (f64, f64) {
        let product = |x, y| f64::from(l_mul.product(x, y));
        let value = product(self.value, other.value);
        let (mut magnitude, mut distance) = (value.abs(), 0.0_f64);
        if self.is_exact() && other.is_exact() {
            return (magnitude, distance);
        }
        for x in self.ends {
            for y in other.ends {
                let end = product(x, y);
                magnitude = magnitude.max(end.abs());
                distance = distance.max((end - value).abs());
            }
        }
        (magnitude, distance)
    }

    fn is_exact(&self) -> bool {
        let [low, high] = self.ends;
        low.to_bits() == high.to_bits()
    }
}

/// Operations that round when an element is decoded: the scale, the minimum, and the product of the levels of each, which
/// the exact side rounds too.
fn decode_operations(format: &MatrixFormat) -> usize {
    let levels = 2 * usize::from(format.second().is_some());
    match (format.scales(), format.zero_kind()) {
        (None, _) => 0,
        (Some(_), ZeroKind::Minimum) => 2 + levels,
        (Some(_), _) => 1 + levels,
    }
}

/// What rounds in an fma kernel.
struct FmaCounts {
    /// Of a term: its decoding, its product, and its additions.
    gamma: f64,
    /// Of a term of the exact result.
    gamma_f64: f64,
    columns: f64,
    /// Results that may be flushed: of the decoding of an activation, and of a weight.
    activation_flush: f64,
    weight_flush: f64,
    slack: f64,
}

impl FmaCounts {
    fn new(model: ErrorModel, x: &PackedMatrix, w: &PackedMatrix, additions: usize) -> Self {
        let k = x.columns();
        let (activation, weight) = (decode_operations(x.format()), decode_operations(w.format()));
        Self {
            gamma: model.gamma(additions * k + activation + weight),
            gamma_f64: gamma(UNIT_F64, k + 6),
            columns: k as f64,
            activation_flush: activation as f64 * FLUSH,
            weight_flush: weight as f64 * FLUSH,
            slack: slack(k),
        }
    }

    /// Turns the weights' terms into what an activation is multiplied with: `magnitudes` into the error that the
    /// weight brings, `lost` into the weight that a flushed activation loses.
    fn round(&self, w: &mut Terms) {
        for (magnitude, lost) in w.magnitudes.iter_mut().zip(&mut w.lost) {
            let size = *magnitude;
            *magnitude = (self.gamma + self.gamma_f64) * size
                + (1.0 + self.gamma) * (*lost + self.weight_flush);
            *lost = (1.0 + self.gamma) * (size + *lost + self.weight_flush);
        }
    }

    /// What flushed products and sums may take: a product and a sum for each term; or, reordered, a product of some of the
    /// factors of a term, the others being at most `largest`.
    fn flush(&self, largest: f64) -> f64 {
        (1.0 + self.gamma) * (2.0 + largest) * self.columns * FLUSH
    }
}

/// What rounds in an integer kernel.
struct IntegerCounts {
    model: ErrorModel,
    accumulation: Accumulation,
    /// Spans at which parts of K end, without the last.
    ends: Vec<usize>,
    /// Roundings of a term without the conversion of an integer that f32 cannot hold.
    operations: usize,
    /// Whether any scale multiplies; without, all results are integers.
    scaled: bool,
    /// What a flushed result is multiplied by at most: units of lifted operands above 1.
    flush: f64,
    gamma_f64: f64,
    slack: f64,
}

impl IntegerCounts {
    fn new(
        model: ErrorModel,
        x: &PackedMatrix,
        w: &PackedMatrix,
        accumulation: Accumulation,
        parts: Parts,
    ) -> Result<Self, ReferenceError> {
        check_codes(x)?;
        check_codes(w)?;
        let (activation, weight) = (x.format(), w.format());
        if activation.zero_kind() == ZeroKind::Minimum {
            return Err(ReferenceError::ActivationMinimum {
                format: *activation,
            });
        }
        let span = span_of(activation, weight);
        let mut ends: Vec<usize> = parts
            .ranges(x.columns())
            .map(|part| part.end / span)
            .collect();
        ends.pop();
        let spans = match accumulation {
            Accumulation::Grouped => x.columns().div_ceil(span),
            Accumulation::Whole => {
                for format in [activation, weight] {
                    if is_grouped(format) {
                        return Err(ReferenceError::Grouped { format: *format });
                    }
                }
                // Each part is converted and scaled by itself.
                1 + ends.len()
            }
        };
        let scaled = activation.scales().is_some() || weight.scales().is_some();
        // Minima are added by themselves, where no scale of the activations is yet to multiply them.
        let sums = match weight.zero_kind() {
            ZeroKind::Minimum if !is_grouped(activation) => 2,
            _ => 1,
        };
        let scales = decode_operations(weight) + decode_operations(activation);
        let unit = |format: &MatrixFormat| {
            let unit = format.element().lift_unit().unwrap_or(1.0);
            f64::from(unit).max(1.0)
        };
        Ok(Self {
            model,
            accumulation,
            ends,
            operations: match accumulation {
                Accumulation::Grouped => scales + sums * spans.saturating_sub(1),
                Accumulation::Whole => scales + spans - 1,
            },
            scaled,
            flush: FLUSH * unit(activation) * unit(weight),
            gamma_f64: if scaled {
                gamma(UNIT_F64, spans + 6)
            } else {
                0.0
            },
            slack: slack(x.columns()),
        })
    }

    fn bound(&self, x: &Integers, row: usize, w: &Integers, column: usize) -> f64 {
        let (mut magnitude, mut flushed) = (0.0, 0.0);
        // The largest integer that is converted over all of a part.
        let mut converted = 0.0_f64;
        let mut add = |product: f64, integers: f64, x: &SpanScale, w: &SpanScale| {
            let (product, integers) = (product.abs(), integers.abs());
            let term = product * w.scale.abs() + integers * w.minimum.abs();
            let lost = product * w.scale_lost + integers * w.minimum_lost;
            magnitude += x.scale.abs() * term;
            flushed += x.scale.abs() * lost + x.scale_lost * term;
            if self.scaled {
                // Four results before the activation's scale and three after it; or, reordered, a product of scales.
                flushed += (4.0 * x.scale.abs() + 3.0 + product + integers) * self.flush;
            }
        };
        match self.accumulation {
            Accumulation::Grouped => {
                for (product, x, w) in x.spans(row, w, column) {
                    add(product, x.integers, x, w);
                }
            }
            Accumulation::Whole => {
                let mut parts = vec![(0.0, 0.0)];
                for (index, (product, x, _)) in x.spans(row, w, column).enumerate() {
                    if self.ends.contains(&index) {
                        parts.push((0.0, 0.0));
                    }
                    if let Some((products, integers)) = parts.last_mut() {
                        *products += product;
                        *integers += x.integers;
                    }
                }
                if let (Some(x), Some(w)) = (x.scales(row).first(), w.scales(column).first()) {
                    for (products, integers) in parts {
                        converted = converted.max(products.abs()).max(integers.abs());
                        add(products, integers, x, w);
                    }
                }
            }
        }
        self.finish(converted, magnitude, flushed)
    }

    /// `integer` is the largest that is converted over all of a part.
    fn finish(&self, integer: f64, magnitude: f64, flushed: f64) -> f64 {
        // A span's integers are below 2^24: at most 32 · 510 · 510.
        let converted = self.accumulation == Accumulation::Whole && integer > EXACT_F32;
        let gamma = self.model.gamma(self.operations + usize::from(converted));
        ((gamma + self.gamma_f64) * magnitude + (1.0 + gamma) * flushed) * self.slack
    }
}
