//! Exact products: what every kernel is measured against.

use anybit_formats::{LMul, PackedMatrix};

use crate::ReferenceError;
use crate::integers::{EXACT_I32, Integers, SpanScale, check_codes, dot, is_grouped, span_of};
use crate::problem::{Batches, Part, Problem, activations};

/// The integer products Σ x·w over K of the integers a·u + b − z, or of what dot4 lifts values to
/// ([`PackedMatrix::lifted_values`]); scales and minima do not take part.
///
/// `x` is M × K and `w` is N × K; the result is M × N, row-major.
///
/// # Errors
///
/// [`ReferenceError::NotCodes`] for operands without integers, [`ReferenceError::Columns`] and [`ReferenceError::TooLarge`] for
/// shapes that do not fit.
pub fn gemm_i64(x: &PackedMatrix, w: &PackedMatrix) -> Result<Vec<i64>, ReferenceError> {
    gemm_i64_batched(x, w, Batches::ONE)
}

/// [`gemm_i64`] of stacked matrices. The result is one M × N matrix a batch, one after the other.
///
/// # Errors
///
/// Those of [`gemm_i64`], and [`ReferenceError::Batches`].
pub fn gemm_i64_batched(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
) -> Result<Vec<i64>, ReferenceError> {
    check_codes(x)?;
    check_codes(w)?;
    let problem = Problem::new(x, w, batches)?;
    let span = span_of(x.format(), w.format());
    let x = Integers::new(x, span)?;
    problem.fill(|part, out| {
        let w = Integers::new(&w.row_range(part.weight.clone())?, span)?;
        let count = part.weight.len();
        for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
            for (column, out) in out.iter_mut().enumerate() {
                let x = x.row(row).chunks(EXACT_I32);
                let w = w.row(column).chunks(EXACT_I32);
                *out = x.zip(w).map(|(x, w)| i64::from(dot(x, w))).sum();
            }
        }
        Ok(())
    })
}

/// The products Σ x·w over K of the decoded values, in f64.
///
/// Between two matrices of codes, the integers of each span of columns under one scale are added exactly, then scaled
/// and added in f64; without scale groups there is one span. Other products are added along K in f64, one rounding for
/// each product and sum. Either way the error is at most γ(n) with unit roundoff 2⁻⁵³ times the magnitudes that
/// [`bound`](crate::bound) adds up, n being the operations on a term; the bounds there include it.
///
/// `x` is M × K and `w` is N × K; the result is M × N, row-major.
///
/// # Errors
///
/// [`ReferenceError::Columns`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemm_f64(x: &PackedMatrix, w: &PackedMatrix) -> Result<Vec<f64>, ReferenceError> {
    gemm_f64_batched(x, w, Batches::ONE)
}

/// [`gemm_f64`] of f32 activations, row-major with K a row.
///
/// # Errors
///
/// Those of [`gemm_f64`] and of [`activations`].
pub fn gemm_f64_of(x: &[f32], w: &PackedMatrix) -> Result<Vec<f64>, ReferenceError> {
    gemm_f64(&activations(x, w.columns())?, w)
}

/// [`gemm_f64`] of stacked matrices. The result is one M × N matrix a batch, one after the other.
///
/// # Errors
///
/// Those of [`gemm_f64`], and [`ReferenceError::Batches`].
pub fn gemm_f64_batched(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
) -> Result<Vec<f64>, ReferenceError> {
    let problem = Problem::new(x, w, batches)?;
    if check_codes(x).is_ok() && check_codes(w).is_ok() {
        gemm_spans(x, w, &problem)
    } else {
        gemm_values(x, w, &problem)
    }
}

/// The sums over K of the L-Mul products of the decoded values: each product exact by the multiplier's rules, added in f64.
///
/// Operands are the values of [`PackedMatrix::decode`], which rounds scaled ones to f32. `x` is M × K and `w` is N × K; the
/// result is M × N, row-major.
///
/// # Errors
///
/// [`ReferenceError::Columns`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemm_l_mul(
    x: &PackedMatrix,
    w: &PackedMatrix,
    l_mul: LMul,
) -> Result<Vec<f64>, ReferenceError> {
    gemm_l_mul_batched(x, w, Batches::ONE, l_mul)
}

/// [`gemm_l_mul`] of stacked matrices. The result is one M × N matrix a batch, one after the other.
///
/// # Errors
///
/// Those of [`gemm_l_mul`], and [`ReferenceError::Batches`].
pub fn gemm_l_mul_batched(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    l_mul: LMul,
) -> Result<Vec<f64>, ReferenceError> {
    let problem = Problem::new(x, w, batches)?;
    let x = x.decode();
    let k = problem.k;
    problem.fill(|part, out| {
        let w = w.row_range(part.weight.clone())?.decode();
        let count = part.weight.len();
        for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
            let x = &x[row * k..][..k];
            for (column, out) in out.iter_mut().enumerate() {
                let pairs = x.iter().zip(&w[column * k..][..k]);
                *out = pairs.map(|(&x, &w)| f64::from(l_mul.product(x, w))).sum();
            }
        }
        Ok(())
    })
}

/// Exact integer sums over a span, or over all of K.
#[derive(Default)]
struct Sums {
    products: f64,
    activation: f64,
    weight: f64,
    columns: f64,
}

impl Sums {
    fn add(&mut self, product: f64, x: &SpanScale, w: &SpanScale) {
        self.products += product;
        self.activation += x.integers;
        self.weight += w.integers;
        self.columns += x.columns;
    }

    /// Σ (s·i + m)·(s′·i′ + m′), i and i′ being the integers.
    fn scaled(&self, x: &SpanScale, w: &SpanScale) -> f64 {
        x.scale * w.scale * self.products
            + x.scale * w.minimum * self.activation
            + x.minimum * w.scale * self.weight
            + x.minimum * w.minimum * self.columns
    }
}

/// Codes with codes: integers exactly, scales in f64.
fn gemm_spans(
    x: &PackedMatrix,
    w: &PackedMatrix,
    problem: &Problem,
) -> Result<Vec<f64>, ReferenceError> {
    let span = span_of(x.format(), w.format());
    let grouped = is_grouped(x.format()) || is_grouped(w.format());
    let x = Integers::new(x, span)?;
    problem.fill(|part, out| {
        let w = Integers::new(&w.row_range(part.weight.clone())?, span)?;
        let count = part.weight.len();
        for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
            for (column, out) in out.iter_mut().enumerate() {
                let mut sums = Sums::default();
                for (product, x, w) in x.spans(row, &w, column) {
                    sums.add(product, x, w);
                    if grouped {
                        *out += std::mem::take(&mut sums).scaled(x, w);
                    }
                }
                if let (false, Some(x), Some(w)) =
                    (grouped, x.scales(row).first(), w.scales(column).first())
                {
                    *out = sums.scaled(x, w);
                }
            }
        }
        Ok(())
    })
}

/// Any two matrices: decoded values, along K.
fn gemm_values(
    x: &PackedMatrix,
    w: &PackedMatrix,
    problem: &Problem,
) -> Result<Vec<f64>, ReferenceError> {
    let x = x.decode_f64();
    problem.fill(|part, out| {
        let w = w.row_range(part.weight.clone())?.decode_f64();
        multiply(&x, &w, problem.k, part, out);
        Ok(())
    })
}

/// `out` = X · Wᵀ for a part of the rows of X and all rows of `w`, each sum along K in order.
pub(crate) fn multiply(x: &[f64], w: &[f64], k: usize, part: &Part, out: &mut [f64]) {
    let count = part.weight.len();
    let row = |row: usize| row * k..(row + 1) * k;
    for (m, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
        let x = &x[row(m)];
        // Four sums at a time, because each waits for its last addition.
        let mut sets = out.chunks_exact_mut(4);
        let mut column = 0;
        for set in &mut sets {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| &w[row(column + i)]);
            let mut sums = [0.0; 4];
            for ((((&x, a), b), c), d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
                sums[0] += x * a;
                sums[1] += x * b;
                sums[2] += x * c;
                sums[3] += x * d;
            }
            set.copy_from_slice(&sums);
            column += 4;
        }
        for out in sets.into_remainder() {
            *out = x.iter().zip(&w[row(column)]).map(|(x, w)| x * w).sum();
            column += 1;
        }
    }
}
