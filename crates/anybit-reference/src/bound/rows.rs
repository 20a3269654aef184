//! Bounds of what row kernels make of a source: RMSNorm, gates, and scales of them.

use anybit_formats::{MatrixFormat, PackedMatrix, QuantizeRowsOptions, ScaleRule, ScaleType};

use super::interval::Interval;
use super::{Bounded, ErrorModel, FLUSH};
use crate::ReferenceError;
use crate::quantize::{Rule, Statistic};
use crate::source::{Gate, Source};

/// Beyond it the kernels do not go with e^x, nor does the quotient change by more than f32 sees.
const LARGEST_EXPONENT: f64 = 80.0;

impl ErrorModel {
    /// The values that a source makes of a row, and how far a kernel's may be from them.
    ///
    /// # Errors
    ///
    /// Those of [`Source::columns`].
    pub fn source(self, source: &Source<'_>, row: &[f32]) -> Result<Vec<Bounded>, ReferenceError> {
        let exact = source.values(row)?;
        let input = |&x: &f32| Interval::input(x);
        let intervals: Vec<Interval> = match *source {
            Source::Rows => row.iter().map(input).collect(),
            Source::RmsNorm { weight, epsilon } => {
                let factor = self.norm_factor(row.iter().map(input), epsilon);
                let pairs = row.iter().map(input).zip(weight.iter().map(input));
                pairs.map(|(x, w)| x.times_both(w, factor, self)).collect()
            }
            Source::Gated { gate, up, .. } => {
                let pairs = row.iter().zip(&row[up..]);
                pairs.map(|(&x, &up)| self.gate(gate, x, up)).collect()
            }
        };
        let exact = exact.into_iter().zip(intervals);
        Ok(exact
            .map(|(value, interval)| interval.bounded(value))
            .collect())
    }

    /// 1 / √(mean of x² + epsilon) of n values: n squares added in any order, a division, an addition, an inverse root.
    pub(crate) fn norm_factor(
        self,
        values: impl Iterator<Item = Interval>,
        epsilon: f32,
    ) -> Interval {
        let (mut count, mut squares) = (0, Interval::exact(0.0));
        for x in values {
            count += 1;
            let square = x.times(x);
            squares = squares.plus(Interval::new(square.low.max(0.0), square.high));
        }
        let flushed = count as f64 * FLUSH;
        let squares = squares.widen(self.gamma(count), flushed);
        let squares = Interval::new(squares.low.max(0.0), squares.high);
        let mean = squares.divided_by(Interval::exact(count.max(1) as f64), self);
        mean.plus(Interval::input(epsilon))
            .rounded(self)
            .inverse_sqrt()
    }

    /// gate(x) · up as `source/gated.wgsl` has it.
    fn gate(self, gate: Gate, x: f32, up: f32) -> Interval {
        let value = Interval::input(x);
        let argument = match gate {
            Gate::Silu => value,
            Gate::GeluTanh => {
                // Both terms have one sign; two constants are rounded, there are four products and an addition, and the cube's
                // products may be flushed on the way.
                let exact = gate.argument(f64::from(x));
                let size = 1.0 + f64::from(x).abs();
                Interval::exact(exact).widen(self.gamma(7), 8.0 * size * size * FLUSH)
            }
        };
        let exponent = Interval::new(-argument.high, -argument.low);
        let exponent = exponent.clamp(f64::NEG_INFINITY, LARGEST_EXPONENT);
        let divisor = Interval::exact(1.0).plus(exponent.exp()).rounded(self);
        let gated = value.divided_by(divisor, self);
        gated
            .times(Interval::input(up))
            .widen(self.unit_roundoff(), FLUSH * (1.0 + f64::from(up).abs()))
    }

    /// The values of a matrix times a factor, row-major, and how far those of the gather kernel may be from them.
    pub fn gather(self, matrix: &PackedMatrix, factor: f32) -> Vec<Bounded> {
        let decoded = matrix.decode_f64().into_iter().zip(self.decode(matrix));
        decoded
            .map(|(value, bound)| {
                Interval::around(Bounded { value, bound })
                    .times(Interval::input(factor))
                    .rounded(self)
                    .bounded(value * f64::from(factor))
            })
            .collect()
    }

    /// A value that is added to a residual.
    pub fn with_residual(self, value: Bounded, residual: f32) -> Bounded {
        Interval::around(value)
            .plus(Interval::input(residual))
            .rounded(self)
            .bounded(value.value + f64::from(residual))
    }

    /// [`scale_with`](Self::scale_with) of values that are known within bounds: those of a row or group of what a
    /// [source](Self::source) makes.
    ///
    /// # Errors
    ///
    /// Those of [`scale_with`](Self::scale_with).
    pub fn scale_within(
        self,
        values: &[Bounded],
        format: &MatrixFormat,
        scale_rule: ScaleRule,
    ) -> Result<Bounded, ReferenceError> {
        let options = QuantizeRowsOptions::default().with_scale_rule(scale_rule);
        let rule = Rule::new(format, &options)?;
        let statistic = |part: &dyn Fn(&Bounded) -> f64| match rule.statistic {
            Statistic::Magnitude | Statistic::Value => values.iter().map(part).fold(0.0, f64::max),
            Statistic::Mean => values.iter().map(part).sum::<f64>() / values.len().max(1) as f64,
        };
        let size = |value: f64| match rule.statistic {
            Statistic::Value => value,
            Statistic::Magnitude | Statistic::Mean => value.abs(),
        };
        let exact = statistic(&|value| size(value.value));
        let ends = Interval::new(
            statistic(&|value| (size(value.value) - value.bound).max(0.0)),
            statistic(&|value| size(value.value) + value.bound),
        );
        if rule.scale == Some(ScaleType::E8m0) {
            let power = |statistic: f32| {
                let code = scale_rule.e8m0(statistic.max(0.0), rule.divisor);
                f64::from(ScaleType::E8m0.decode(u32::from(code)))
            };
            // The rules keep the order of statistics.
            let (low, high) = ((ends.low as f32).next_down(), (ends.high as f32).next_up());
            return Ok(Interval::new(power(low), power(high)).bounded(power(exact as f32)));
        }
        let ends = match rule.statistic {
            // A sum in any order, and a division by the count.
            Statistic::Mean => ends.widen(
                (1.0 + self.gamma(values.len())) * (1.0 + self.division()) - 1.0,
                2.0 * FLUSH,
            ),
            Statistic::Magnitude | Statistic::Value => ends,
        };
        let divisor = f64::from(rule.divisor);
        let smallest = f64::from(rule.smallest);
        let scale = ends.divided_by(Interval::exact(divisor), self);
        let scale = Interval::new(scale.low.max(smallest), scale.high.max(smallest));
        // Scale and quotient may be flushed.
        Ok(scale
            .widen(0.0, 4.0 * FLUSH)
            .bounded((exact / divisor).max(smallest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919) as f32 * 0.013).sin() * 4.0)
            .collect()
    }

    /// Plain f32, rounding to nearest, lies within the bounds of rounding to nearest, and they are small.
    #[test]
    fn f32_lies_within_the_bounds() {
        let model = ErrorModel::NEAREST;
        let row = values(200);
        let weight = values(200);
        let norm = Source::RmsNorm {
            weight: &weight,
            epsilon: 1e-5,
        };
        let mean = row.iter().map(|x| x * x).sum::<f32>() / 200.0 + 1e-5;
        let factor = mean.sqrt().recip();
        let normed = row.iter().zip(&weight).map(|(x, w)| x * w * factor);
        for (found, bound) in normed.zip(model.source(&norm, &row).unwrap()) {
            assert!(bound.holds(found), "{found} {bound:?}");
            assert!(bound.bound < 1e-4);
        }
        for gate in [Gate::Silu, Gate::GeluTanh] {
            let gated = Source::Gated {
                gate,
                columns: 100,
                up: 100,
            };
            let bounds = model.source(&gated, &row).unwrap();
            for ((&x, &up), bound) in row.iter().zip(&row[100..]).zip(bounds) {
                let argument = match gate {
                    Gate::Silu => x,
                    Gate::GeluTanh => 1.595_769 * (x + 0.044_715 * x * x * x),
                };
                let found = x / (1.0 + (-argument).exp()) * up;
                assert!(bound.holds(found), "{gate:?} {x} {up}: {found} {bound:?}");
                assert!(bound.bound < 1e-4);
            }
        }
    }

    #[test]
    fn gates_far_out_are_bounded() {
        for x in [-1.0e4_f32, -200.0, -88.0, -80.0, 0.0, 80.0, 1.0e4] {
            for gate in [Gate::Silu, Gate::GeluTanh] {
                let source = Source::Gated {
                    gate,
                    columns: 1,
                    up: 1,
                };
                let bound = ErrorModel::WGSL.source(&source, &[x, 1.0]).unwrap()[0];
                assert!(
                    bound.bound <= 1e-5 * f64::from(x.abs()) + 1e-20,
                    "{x}: {bound:?}"
                );
            }
        }
    }

    #[test]
    fn scales_of_exact_values_are_those_of_the_quantisers() {
        let row = values(64);
        let known: Vec<Bounded> = row
            .iter()
            .map(|&x| Bounded {
                value: f64::from(x),
                bound: 0.0,
            })
            .collect();
        for name in ["i8rf", "u4rf", "b1rf", "trf", "e4m3rf"] {
            let format: MatrixFormat = name.parse().unwrap();
            let model = ErrorModel::WGSL;
            let expected = model.scale(&row, &format).unwrap();
            let found = model
                .scale_within(&known, &format, ScaleRule::Floor)
                .unwrap();
            assert!(
                (expected.value - found.value).abs() <= 1e-12 * expected.value,
                "{name}"
            );
            assert!(
                found.bound >= 0.9 * expected.bound,
                "{name}: {found:?} {expected:?}"
            );
            assert!(
                found.bound <= 1.1 * expected.bound + 1e-12,
                "{name}: {found:?} {expected:?}"
            );
        }
    }
}
