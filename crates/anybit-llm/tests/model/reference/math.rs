//! The functions that models are made of.

use rayon::prelude::*;

use super::config::{Activation, Pairing, Rope};
use super::weights::{Linear, Matrix};

/// Sums that a product of rows keeps at once, so that it is computed several elements at a time.
const LANES: usize = 8;

/// Matrix rows that one task takes: few enough that they stay in the cache while all of `x` passes.
const ROWS: usize = 8;

/// `x` · `matrix`ᵀ: rows × columns in, rows × the matrix's rows out. Every element is the same sum in the same order
/// however many rows `x` has.
pub(crate) fn product(x: &[f64], matrix: &Matrix) -> Vec<f64> {
    let (rows, columns) = (x.len() / matrix.columns, matrix.columns);
    // Transposed first: each task then writes a stretch of its own.
    let mut transposed = vec![0.0; rows * matrix.rows];
    let outputs = transposed.par_chunks_mut((ROWS * rows).max(1));
    outputs
        .zip(matrix.values.par_chunks(ROWS * columns))
        .for_each(|(output, weights)| {
            let weights: Vec<f64> = weights.iter().copied().map(f64::from).collect();
            for (row, x) in x.chunks_exact(columns).enumerate() {
                let outputs = output.iter_mut().skip(row).step_by(rows);
                for (output, weights) in outputs.zip(weights.chunks_exact(columns)) {
                    *output = dot(x, weights);
                }
            }
        });
    if rows == 1 {
        return transposed;
    }
    let mut output = vec![0.0; transposed.len()];
    output
        .par_chunks_exact_mut(matrix.rows)
        .enumerate()
        .for_each(|(row, output)| {
            let column = transposed.iter().skip(row).step_by(rows);
            for (output, &value) in output.iter_mut().zip(column) {
                *output = value;
            }
        });
    output
}

/// As [`product`], with the bias added.
pub(crate) fn linear(x: &[f64], linear: &Linear) -> Vec<f64> {
    let mut output = product(x, &linear.matrix);
    if let Some(bias) = &linear.bias {
        for row in output.chunks_exact_mut(bias.len()) {
            for (output, &bias) in row.iter_mut().zip(bias) {
                *output += f64::from(bias);
            }
        }
    }
    output
}

/// The sum of the products of two rows of like length.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    let mut sums = [0.0; LANES];
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// Divides each row by its root mean square and multiplies it by the weights, which are as long as a row.
pub(crate) fn rms_norm(x: &[f64], weights: &[f32], epsilon: f64) -> Vec<f64> {
    let mut output = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weights.len()) {
        let mean_square = dot(row, row) / row.len() as f64;
        let inverse = 1.0 / (mean_square + epsilon).sqrt();
        let normalized = row
            .iter()
            .zip(weights)
            .map(|(x, &w)| x * inverse * f64::from(w));
        output.extend(normalized);
    }
    output
}

/// The angles by which the pairs of a head are turned at a position: base^(−2i/d) · position for pair i, divided by
/// the scaling factor and by the pair's own factor.
pub(crate) fn angles(
    position: usize,
    dimension: usize,
    rope: Rope,
    factors: Option<&[f32]>,
) -> Vec<f64> {
    (0..dimension / 2)
        .map(|pair| {
            let exponent = -2.0 * pair as f64 / dimension as f64;
            let angle = position as f64 * rope.base.powf(exponent) / rope.factor;
            angle / factors.map_or(1.0, |factors| f64::from(factors[pair]))
        })
        .collect()
}

/// Turns each pair of a head by its angle. Elements beyond twice the number of angles stay.
pub(crate) fn rotate(head: &mut [f64], angles: &[f64], pairing: Pairing) {
    for (pair, angle) in angles.iter().enumerate() {
        let (first, second) = match pairing {
            Pairing::Adjacent => (2 * pair, 2 * pair + 1),
            Pairing::Halves => (pair, pair + angles.len()),
        };
        let (sine, cosine) = angle.sin_cos();
        let (a, b) = (head[first], head[second]);
        head[first] = a * cosine - b * sine;
        head[second] = a * sine + b * cosine;
    }
}

/// Turns scores into weights that sum to 1.
pub(crate) fn softmax(scores: &mut [f64]) {
    let shift = log_sum_exp(scores);
    for score in scores {
        *score = (*score - shift).exp();
    }
}

/// The logarithm of the sum of the exponentials, without overflow.
pub(crate) fn log_sum_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = values.iter().map(|value| (value - largest).exp()).sum();
    largest + sum.ln()
}

/// The place of the largest value; of equals, the first.
pub(crate) fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (place, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = place;
        }
    }
    best
}

/// Bends a value smoothly into (−cap, cap).
pub(crate) fn soft_cap(value: f64, cap: f64) -> f64 {
    cap * (value / cap).tanh()
}

pub(crate) fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}
