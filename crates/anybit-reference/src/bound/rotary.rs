//! Bounds of rotary position embedding.

use super::interval::Interval;
use super::{Bounded, ErrorModel};
use crate::kernel::{HeadKind, Rotary, Rotated, rotate};

/// Positions whose angles the first half of the table has.
const LOW_POSITIONS: usize = 256;

impl ErrorModel {
    /// The rotated queries and keys and the values of a token at a position, and how far a kernel's may be from them.
    ///
    /// Cosine and sine are those of the sum of two angles, whose own are rounded to f32: four products and two additions; then
    /// the pair is turned: again so many.
    pub fn rotate(self, rotary: &Rotary<'_>, row: &[f32], position: usize) -> Rotated<Bounded> {
        let exact = rotate(rotary, row, position);
        let mut intervals: Rotated<Interval> = Rotated::default();
        for (kind, column) in rotary.heads() {
            intervals.push(
                kind,
                self.rotate_head(rotary, kind, &row[column..], column, position),
            );
        }
        let bounded = |exact: Vec<f64>, intervals: Vec<Interval>| {
            let pairs = exact.into_iter().zip(intervals);
            pairs
                .map(|(value, interval)| interval.bounded(value))
                .collect()
        };
        Rotated {
            queries: bounded(exact.queries, intervals.queries),
            keys: bounded(exact.keys, intervals.keys),
            values: bounded(exact.values, intervals.values),
        }
    }

    fn rotate_head(
        self,
        rotary: &Rotary<'_>,
        kind: HeadKind,
        row: &[f32],
        column: usize,
        position: usize,
    ) -> Vec<Interval> {
        let values = row.iter().take(rotary.head_dim).enumerate();
        let mut head: Vec<Interval> = values
            .map(|(channel, &x)| match rotary.bias {
                None => Interval::input(x),
                Some(bias) => Interval::input(x)
                    .plus(Interval::input(bias[column + channel]))
                    .rounded(self),
            })
            .collect();
        if let Some((weights, epsilon)) = rotary.norm_of(kind) {
            let factor = self.norm_factor(head.iter().copied(), epsilon);
            for (x, &weight) in head.iter_mut().zip(weights) {
                *x = x.times_both(factor, Interval::input(weight), self);
            }
        }
        if kind == HeadKind::Value {
            return head;
        }
        for pair in 0..rotary.frequencies.len() {
            let [a, b] = rotary.pair(pair);
            let [cos, sin] = self.turn(rotary, position, pair);
            let product = |x: Interval, y: Interval| x.times(y).rounded(self);
            let (x, y) = (head[a], head[b]);
            head[a] = product(x, cos).minus(product(y, sin)).rounded(self);
            head[b] = product(x, sin).plus(product(y, cos)).rounded(self);
        }
        head
    }

    /// Cosine and sine of a pair's angle as the kernel has them.
    fn turn(self, rotary: &Rotary<'_>, position: usize, pair: usize) -> [Interval; 2] {
        let entries = |position: usize| {
            let angle = rotary.angle(position, pair);
            // An angle of f64 is as far off as its whole size is rounded; entries are rounded to the nearest f32.
            let distance =
                4.0 * f64::EPSILON * (1.0 + (position as f64 * rotary.frequencies[pair]).abs());
            [angle.cos(), angle.sin()].map(|entry| {
                Interval::exact(entry)
                    .widen(0.0, distance)
                    .rounded(Self::NEAREST)
            })
        };
        let [low_cos, low_sin] = entries(position % LOW_POSITIONS);
        let [high_cos, high_sin] = entries(position / LOW_POSITIONS * LOW_POSITIONS);
        let product = |x: Interval, y: Interval| x.times(y).rounded(self);
        let cos = product(high_cos, low_cos).minus(product(high_sin, low_sin));
        let sin = product(high_sin, low_cos).plus(product(high_cos, low_sin));
        [cos.rounded(self), sin.rounded(self)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_positions_are_as_precise_as_near_ones() {
        let frequencies: Vec<f64> = (0..32)
            .map(|i| 10_000_f64.powf(f64::from(-i) / 32.0))
            .collect();
        let row: Vec<f32> = (0..192).map(|i| ((i * 31) as f32).sin()).collect();
        let rotary = Rotary {
            head_dim: 64,
            query_heads: 1,
            key_heads: 1,
            columns: [64, 128],
            frequencies: &frequencies,
            halves: true,
            bias: None,
            norm: None,
        };
        for position in [0, 255, 256, 99_999] {
            let rotated = ErrorModel::WGSL.rotate(&rotary, &row, position);
            let largest = rotated
                .queries
                .iter()
                .map(|query| query.bound)
                .fold(0.0, f64::max);
            assert!(
                largest < 16.0 * f64::from(f32::EPSILON),
                "{position}: {largest:e}"
            );
        }
    }
}
