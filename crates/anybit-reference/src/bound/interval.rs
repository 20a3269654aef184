//! Intervals that hold whatever a device may compute: an operation on them is the exact one on their ends, widened by what the
//! device may round away.

use super::{Bounded, ErrorModel, FLUSH, LARGEST_DIVISOR};

/// What f64 itself rounds away in a few operations.
const F64: f64 = 8.0 * f64::EPSILON;

/// Numbers from `low` to `high`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Interval {
    pub(crate) fn new(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    /// One number, which the device has as it is.
    pub(crate) fn exact(value: f64) -> Self {
        Self::new(value, value)
    }

    /// A number of f32 that a device reads: 0 too, if it is subnormal.
    pub(crate) fn input(value: f32) -> Self {
        let wide = f64::from(value);
        if value.abs() < f32::MIN_POSITIVE {
            Self::new(wide.min(0.0), wide.max(0.0))
        } else {
            Self::exact(wide)
        }
    }

    pub(crate) fn around(bounded: Bounded) -> Self {
        Self::new(bounded.value - bounded.bound, bounded.value + bounded.bound)
    }

    /// Wider by a part of its ends and by an absolute distance.
    pub(crate) fn widen(self, relative: f64, distance: f64) -> Self {
        Self::new(
            self.low - self.low.abs() * (relative + F64) - distance,
            self.high + self.high.abs() * (relative + F64) + distance,
        )
    }

    /// Rounded by one operation.
    pub(crate) fn rounded(self, model: ErrorModel) -> Self {
        self.widen(model.unit_roundoff(), FLUSH)
    }

    /// Within so many units in the last place.
    pub(crate) fn within_ulp(self, ulp: f64) -> Self {
        self.widen(ulp * f64::from(f32::EPSILON), FLUSH)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self::new(self.low + other.low, self.high + other.high)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self::new(self.low - other.high, self.high - other.low)
    }

    pub(crate) fn times(self, other: Self) -> Self {
        let ends = [
            self.low * other.low,
            self.low * other.high,
            self.high * other.low,
            self.high * other.high,
        ];
        Self::new(
            ends.into_iter().fold(f64::INFINITY, f64::min),
            ends.into_iter().fold(f64::NEG_INFINITY, f64::max),
        )
    }

    /// A product of three factors, rounded twice, in any order: what is flushed of two may meet the third.
    pub(crate) fn times_both(self, second: Self, third: Self, model: ErrorModel) -> Self {
        let flushed = FLUSH * (1.0 + self.largest() + second.largest() + third.largest());
        self.times(second)
            .times(third)
            .widen(model.gamma(2), 2.0 * flushed)
    }

    /// A quotient of a divisor that is positive and within the range that WGSL promises something for; anything else is
    /// unbounded.
    pub(crate) fn divided_by(self, divisor: Self, model: ErrorModel) -> Self {
        if divisor.low < f64::from(f32::MIN_POSITIVE) || divisor.high > f64::from(LARGEST_DIVISOR) {
            return Self::new(f64::NEG_INFINITY, f64::INFINITY);
        }
        let inverse = Self::new(1.0 / divisor.high, 1.0 / divisor.low);
        self.times(inverse).widen(model.division(), FLUSH)
    }

    /// e^x: WGSL promises 3 + 2·|x| units in the last place.
    pub(crate) fn exp(self) -> Self {
        let ulp = |x: f64| (3.0 + 2.0 * x.abs()) * f64::from(f32::EPSILON);
        let (low, high) = (self.low.exp(), self.high.exp());
        Self::new(
            (low * (1.0 - ulp(self.low) - F64)).max(0.0),
            high * (1.0 + ulp(self.high) + F64),
        )
        .widen(0.0, FLUSH)
    }

    /// 1 / √x of what is positive, else unbounded: 2 units in the last place.
    pub(crate) fn inverse_sqrt(self) -> Self {
        if self.low <= 0.0 {
            return Self::new(0.0, f64::INFINITY);
        }
        Self::new(self.high.sqrt().recip(), self.low.sqrt().recip()).within_ulp(2.0)
    }

    pub(crate) fn clamp(self, low: f64, high: f64) -> Self {
        Self::new(self.low.clamp(low, high), self.high.clamp(low, high))
    }

    /// The largest magnitude.
    pub(crate) fn largest(self) -> f64 {
        self.low.abs().max(self.high.abs())
    }

    /// As the distance from a value; infinite if an end is no number.
    pub(crate) fn bounded(self, value: f64) -> Bounded {
        let distance = (value - self.low).max(self.high - value);
        let sound = self.low.is_finite() && self.high.is_finite() && self.low <= self.high;
        Bounded {
            value,
            bound: if sound {
                // The value itself is rounded too.
                distance.max(0.0) + F64 * value.abs()
            } else {
                f64::INFINITY
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_what_f32_computes() {
        let model = ErrorModel::NEAREST;
        for index in 1..2000_i16 {
            let x = f32::from(index) * 0.037 - 30.0;
            let y = f32::from(index % 89) * 0.11 + 0.01;
            let (wide_x, wide_y) = (Interval::input(x), Interval::input(y));
            let holds = |interval: Interval, value: f32| {
                let value = f64::from(value);
                assert!(
                    interval.low <= value && value <= interval.high,
                    "{interval:?} {value}"
                );
            };
            holds(wide_x.plus(wide_y).rounded(model), x + y);
            holds(wide_x.minus(wide_y).rounded(model), x - y);
            holds(wide_x.times(wide_y).rounded(model), x * y);
            holds(wide_x.divided_by(wide_y, model), x / y);
            holds(wide_x.exp(), x.exp());
            holds(wide_y.inverse_sqrt(), y.sqrt().recip());
            holds(wide_x.times_both(wide_y, wide_x, model), x * y * x);
        }
    }

    #[test]
    fn nothing_is_promised_of_a_divisor_near_zero() {
        let divided = Interval::exact(1.0).divided_by(Interval::new(0.0, 1.0), ErrorModel::WGSL);
        assert_eq!(divided.bounded(1.0).bound, f64::INFINITY);
        assert_eq!(
            Interval::new(0.0, 1.0).inverse_sqrt().bounded(1.0).bound,
            f64::INFINITY
        );
    }
}
