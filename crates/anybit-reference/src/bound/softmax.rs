//! Bounds of exponentials, soft caps and softmax.

use super::interval::Interval;
use super::{Bounded, ErrorModel, FLUSH};
use crate::kernel::soft_cap;

/// The coefficients of the polynomial of `core/ext_exp.wgsl` for e^t, from the constant on.
const POLYNOMIAL: [f32; 6] = [
    1.0,
    0.999_999_7,
    0.499_991_5,
    0.166_676_52,
    0.041_897_822,
    0.008_289_291,
];

/// ln 2 in two parts, as the shader has it.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// The largest |t|: half of ln 2, and what rounding x / ln 2 in f32 adds for arguments up to [`LARGEST_ARGUMENT`].
const LARGEST_T: f64 = 0.35;

/// The largest relative distance of the polynomial from e^t; a test looks at every t.
const POLYNOMIAL_ERROR: f64 = 1.3e-7;

/// Up to it n · 0.693359375 is exact.
const LARGEST_ARGUMENT: f64 = 16_384.0;

/// Beyond it the kernels do not go with 2x / cap.
const LARGEST_CAPPED: f64 = 40.0;

/// What a weight less than 2⁻¹²⁶ of the largest may be short of, in units of the sum of weights.
pub(super) const VANISHED: f64 = 4.0 * FLUSH;

impl ErrorModel {
    /// The largest relative error of `ext_exp` of an exact argument; infinite where it is not known.
    fn ext_exp(self, x: f64) -> f64 {
        if x.is_nan() || x.abs() > LARGEST_ARGUMENT {
            return f64::INFINITY;
        }
        let n = x.abs() * std::f64::consts::LOG2_E + 1.0;
        let [high, low] = LN_2.map(f64::from);
        // The parts of ln 2 are not all of it; both differences and a product round, in any order.
        let inexact = n * (high + low - std::f64::consts::LN_2).abs();
        let differences = LARGEST_T + n * low.abs();
        let t = inexact + self.unit_roundoff() * (2.0 * x.abs() + 3.0 * differences) + 4.0 * FLUSH;
        // Horner's rule: the term of t^i passes through i products and i + 1 sums, at most.
        let horner: f64 = POLYNOMIAL
            .iter()
            .enumerate()
            .map(|(i, &coefficient)| {
                self.gamma(2 * i + 2) * f64::from(coefficient) * LARGEST_T.powi(i as i32)
            })
            .sum();
        let horner = horner * LARGEST_T.exp();
        t.exp() * (1.0 + POLYNOMIAL_ERROR) * (1.0 + horner) - 1.0
    }

    /// The same of an argument that may be off.
    fn ext_exp_of(self, x: Bounded) -> f64 {
        x.bound.exp() * (1.0 + self.ext_exp(x.value.abs() + x.bound)) - 1.0
    }

    /// A logit or score under a soft cap: `core/cap.wgsl`.
    pub(super) fn capped(self, x: Interval, cap: f32) -> Interval {
        let cap = f64::from(cap);
        let doubled = x.times(Interval::exact(2.0));
        let z = doubled
            .divided_by(Interval::exact(cap), self)
            .clamp(-LARGEST_CAPPED, LARGEST_CAPPED);
        let one = Interval::exact(1.0);
        let divisor = z.exp().plus(one).rounded(self);
        let part = Interval::exact(2.0).divided_by(divisor, self);
        let tanh = one.minus(part).rounded(self);
        tanh.times(Interval::exact(cap)).rounded(self)
    }

    pub(super) fn maybe_capped(self, x: Bounded, cap: Option<f32>) -> Bounded {
        match cap {
            None => x,
            Some(limit) => self
                .capped(Interval::around(x), limit)
                .bounded(soft_cap(x.value, cap)),
        }
    }

    /// The softmax of scores, and the relative error of each weight before they are divided.
    pub(super) fn weights(self, scores: &[Bounded]) -> Vec<(f64, f64)> {
        let largest = scores
            .iter()
            .map(|score| score.value)
            .fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores
            .iter()
            .map(|score| (score.value - largest).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        let pairs = weights.iter().zip(scores);
        pairs
            .map(|(&weight, &score)| {
                let relative = self.ext_exp_of(score);
                // A weight of nothing has no error, whatever its score's.
                let p = weight / sum;
                (p, if p > 0.0 { relative } else { relative.min(1.0) })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_is_as_near_to_the_exponential_as_said() {
        for step in -35_000..=35_000 {
            let t = f64::from(step) * 1e-5;
            let polynomial = POLYNOMIAL
                .iter()
                .rev()
                .fold(0.0, |sum, &coefficient| sum * t + f64::from(coefficient));
            let error = (polynomial / t.exp() - 1.0).abs();
            assert!(error <= POLYNOMIAL_ERROR, "{t}: {error:e}");
        }
        let largest = LARGEST_ARGUMENT / std::f64::consts::LN_2;
        // The product with 1 / ln 2 is rounded, and so is that constant, which is an eighth of a unit off.
        let constant = f64::from(std::f32::consts::LOG2_E) / std::f64::consts::LOG2_E - 1.0;
        assert!(constant.abs() < f64::from(f32::EPSILON) / 8.0);
        let rounded = 1.125 * f64::from(f32::EPSILON) * LARGEST_ARGUMENT;
        assert!(std::f64::consts::LN_2 / 2.0 + rounded <= LARGEST_T);
        // 9 bits of the first part of ln 2 and those of n.
        assert!(largest < 32_768.0 && f64::from(LN_2[0]) * 512.0 == 355.0);
    }

    /// `ext_exp` in f32 lies within its bound.
    #[test]
    fn ext_exp_is_bounded() {
        for step in -3000..3000_i16 {
            let x = f32::from(step) * 3.3;
            let n = (x * std::f32::consts::LOG2_E).round_ties_even();
            let t = (x - n * LN_2[0]) - n * LN_2[1];
            let m = POLYNOMIAL.iter().rev().fold(0.0, |m, &c| m * t + c);
            let wide = f64::from(x);
            let exact = (wide - f64::from(n) * std::f64::consts::LN_2).exp();
            let error = (f64::from(m) / exact - 1.0).abs();
            let bound = ErrorModel::NEAREST.ext_exp(wide);
            assert!(error <= bound, "{x}: {error:e} {bound:e}");
        }
        assert!(ErrorModel::WGSL.ext_exp(10.0) < 1e-5);
        assert_eq!(ErrorModel::WGSL.ext_exp(f64::NAN), f64::INFINITY);
    }

    #[test]
    fn a_cap_in_f32_is_bounded() {
        for step in -200..200_i16 {
            let (x, cap) = (f32::from(step) * 1.7, 30.0_f32);
            let z = (2.0 * x / cap).clamp(-40.0, 40.0);
            let found = cap * (1.0 - 2.0 / (z.exp() + 1.0));
            let exact = Bounded {
                value: f64::from(x),
                bound: 0.0,
            };
            let bound = ErrorModel::NEAREST.maybe_capped(exact, Some(cap));
            assert!(
                bound.holds(found) && bound.bound < 1e-3,
                "{x}: {found} {bound:?}"
            );
        }
    }
}
