//! The quantiser's rule for one group of values. `quantize_rows` on the GPU and its CPU twin follow
//! the same rule.
//!
//! A code is exact given the scale and inverse: `rne` below is rounding to nearest, ties to even,
//! and every operation is one f32 operation, none contracted.
//!
//! | format | code |
//! |---|---|
//! | unsigned | u = clamp(rne(x · inverse), 0, 2ⁿ − 1) |
//! | unsigned, integer zero point z | u = clamp(rne(x · inverse) + z, 0, 2ⁿ − 1) |
//! | two's complement | u = clamp(rne(x · inverse), low, 2ⁿ⁻¹ − 1) + 2ⁿ⁻¹ |
//! | ternary | u = clamp(rne(x · inverse), −1, 1) + 1 |
//! | bipolar, n ≥ 2 | u = clamp(rne((x · inverse + (2ⁿ − 1)) · 0.5), 0, 2ⁿ − 1) |
//! | binary | u = 1 if x ≥ 0, else 0; zero of either sign is +1 |
//!
//! With a minimum m, x − m stands for x. `low` is −2ⁿ⁻¹, or −(2ⁿ⁻¹ − 1) in the
//! [narrow](CodeRange::Narrow) range.

use crate::parallel::map_range;
use crate::{AffineFormat, Calibration, Encoding, ScaleType, ZeroKind};

/// Fractions of the full range that [`Calibration::MeanSquareError`] tries: 64/64, 63/64 … 1/64.
pub const CLIP_STEPS: u32 = 64;

/// The smallest scale of ternary weights under [`Calibration::AbsMean`], as BitNet b1.58 has it.
pub const TERNARY_MIN_SCALE: f32 = 1e-5;

/// The codes a quantiser uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeRange {
    /// All of them.
    Full,
    /// Two's complement of 2 bits or more without its most negative value; all of any other.
    Narrow,
}

impl CodeRange {
    /// The range that goes with a calibration: narrow for [`Calibration::AbsMax`].
    pub const fn of(calibration: Calibration) -> Self {
        match calibration {
            Calibration::AbsMax => Self::Narrow,
            _ => Self::Full,
        }
    }
}

/// Scale and zero of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupScale {
    /// The scale, rounded to its stored type; not negative.
    pub scale: f32,
    /// 1 / scale in f32; 0 for a zero scale.
    pub inverse: f32,
    /// The zero.
    pub zero: GroupZero,
}

/// The zero of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GroupZero {
    /// None.
    None,
    /// An integer zero point.
    Integer(u8),
    /// A minimum, rounded to its stored type.
    Minimum(f32),
    /// What the code of a codebook that depends on the group stands for: one of its choices.
    Choice(u8),
}

impl GroupZero {
    /// The zero point; 0 for other kinds.
    pub const fn point(self) -> u8 {
        match self {
            Self::Integer(point) => point,
            _ => 0,
        }
    }

    /// The choice; 0 for other kinds.
    pub const fn choice(self) -> u8 {
        match self {
            Self::Choice(choice) => choice,
            _ => 0,
        }
    }

    /// The minimum; 0 for other kinds.
    pub const fn minimum(self) -> f32 {
        match self {
            Self::Minimum(minimum) => minimum,
            _ => 0.0,
        }
    }
}

/// A scale or minimum that its stored type cannot hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Overflow {
    /// The scale, before rounding.
    Scale(f32),
    /// The minimum, before rounding.
    Minimum(f32),
}

/// The largest magnitude; 0 without values.
pub fn absmax(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, value| max.max(value.abs()))
}

/// The mean magnitude, summed in f64 and rounded once; 0 without values.
pub fn absmean(values: &[f32]) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    (lane_sum(values, |value| f64::from(value.abs())) / values.len() as f64) as f32
}

/// The smallest and the largest value; zeros without values.
pub fn min_max(values: &[f32]) -> (f32, f32) {
    match values.first() {
        None => (0.0, 0.0),
        Some(&first) => values.iter().fold((first, first), |(min, max), &value| {
            (min.min(value), max.max(value))
        }),
    }
}

/// A scale rounded to its stored type, and its inverse in f32.
///
/// A scale that is zero or subnormal in f32 becomes (0, 0), since GPUs may flush subnormals. One
/// too large for the type becomes infinite, with the inverse 0.
pub fn scale_and_inverse(scale: f32, stored: ScaleType) -> (f32, f32) {
    let rounded = stored.round(scale);
    if rounded.abs() < f32::MIN_POSITIVE {
        (0.0, 0.0)
    } else {
        (rounded, 1.0 / rounded)
    }
}

/// Scale and zero for the values of a group. Values must be finite.
///
/// Write r for the largest minus the smallest value, and `low`, `high` for the format's smallest
/// and largest integer.
///
/// - [`AbsMax`](Calibration::AbsMax): s = absmax / d with d = 2ⁿ⁻¹ − 1 for two's complement (1 for
///   one bit), 2ⁿ − 1 for bipolar, 1 for ternary; for unsigned, s = max(x, 0) / (2ⁿ − 1).
/// - [`AbsMean`](Calibration::AbsMean): s = mean |x|; for ternary at least [`TERNARY_MIN_SCALE`].
/// - [`MinMax`](Calibration::MinMax) with an integer zero point: the range is widened to include 0,
///   s = r / (2ⁿ − 1), z = clamp(rne(−min · inverse), 0, 2ⁿ − 1). With a minimum: s = r / (high −
///   low), m = min − s·low with s before its rounding, so m = min for unsigned codes.
/// - [`MeanSquareError`](Calibration::MeanSquareError): every clip c = i / [`CLIP_STEPS`] from 1
///   down to 1 / [`CLIP_STEPS`] shrinks the range of `AbsMax` (about 0), or of `MinMax` (about 0
///   with a zero point, about its middle with a minimum), and codes use the [full](CodeRange::Full)
///   range; binary and ternary also try `AbsMean`. The least sum of squared differences wins, the
///   first in this order among equals.
///
/// The calibration must [apply](Calibration::applies_to) to the format; `MinMax` without zeros is
/// taken as `AbsMax`, and `AbsMax` or `AbsMean` with zeros as `MinMax`.
///
/// # Errors
///
/// [`Overflow`] where the stored type cannot hold the scale or minimum; for `MeanSquareError`, of
/// every clip.
pub fn calibrate(
    element: AffineFormat,
    stored: ScaleType,
    zero: ZeroKind,
    calibration: Calibration,
    values: &[f32],
) -> Result<GroupScale, Overflow> {
    let extent = Extent::of(element, zero, values);
    let full = extent.clipped(element, stored, 1.0);
    let mean = || group(absmean_scale(element, values), stored, GroupZero::None);
    let mean_applies = zero == ZeroKind::None
        && (matches!(element.encoding(), Encoding::Ternary) || element == AffineFormat::BINARY);
    match calibration {
        Calibration::AbsMean if mean_applies => mean(),
        Calibration::AbsMax | Calibration::AbsMean | Calibration::MinMax => full,
        Calibration::MeanSquareError => {
            let candidate = |index: usize| -> Result<(f64, GroupScale), Overflow> {
                let candidate = match CLIP_STEPS as usize - index {
                    0 => mean()?,
                    step => extent.clipped(element, stored, step as f32 / CLIP_STEPS as f32)?,
                };
                Ok((
                    squared_error(element, CodeRange::Full, &candidate, values),
                    candidate,
                ))
            };
            let count = CLIP_STEPS as usize + usize::from(mean_applies);
            let candidates = map_range(count, values.len(), candidate);
            let best = candidates
                .into_iter()
                .filter_map(Result::ok)
                .reduce(|best, candidate| {
                    if candidate.0 < best.0 {
                        candidate
                    } else {
                        best
                    }
                });
            // Where no candidate fits its type, the full range says what overflowed.
            best.map_or(full, |(_, group)| Ok(group))
        }
    }
}

fn absmean_scale(element: AffineFormat, values: &[f32]) -> f32 {
    let mean = absmean(values);
    if element.encoding() == Encoding::Ternary {
        mean.max(TERNARY_MIN_SCALE)
    } else {
        mean
    }
}

fn group(scale: f32, stored: ScaleType, zero: GroupZero) -> Result<GroupScale, Overflow> {
    let (rounded, inverse) = scale_and_inverse(scale, stored);
    if rounded.is_finite() {
        Ok(GroupScale {
            scale: rounded,
            inverse,
            zero,
        })
    } else {
        Err(Overflow::Scale(scale))
    }
}

/// What the scale of a group is made of.
enum Extent {
    /// The value that maps to the largest integer.
    Symmetric(f32),
    /// The range including 0.
    AroundZero(f32, f32),
    /// The range.
    Between(f32, f32),
}

impl Extent {
    fn of(element: AffineFormat, zero: ZeroKind, values: &[f32]) -> Self {
        match zero {
            ZeroKind::None | ZeroKind::Choice => Self::Symmetric(match element.encoding() {
                Encoding::Unsigned => values.iter().fold(0.0, |max, &value| max.max(value)),
                _ => absmax(values),
            }),
            ZeroKind::Integer => {
                let (min, max) = min_max(values);
                Self::AroundZero(min.min(0.0), max.max(0.0))
            }
            ZeroKind::Minimum => {
                let (min, max) = min_max(values);
                Self::Between(min, max)
            }
        }
    }

    /// Scale and zero for the range shrunk to the fraction `clip`.
    fn clipped(
        &self,
        element: AffineFormat,
        stored: ScaleType,
        clip: f32,
    ) -> Result<GroupScale, Overflow> {
        let (low, high) = (element.min_value() as f32, element.max_value() as f32);
        match *self {
            // int1 has the values −1 and 0: its largest magnitude, not its largest value, takes the
            // extent.
            Self::Symmetric(extent) => {
                group(clip * extent / high.max(1.0), stored, GroupZero::None)
            }
            Self::AroundZero(min, max) => {
                let mut group = group(
                    (clip * max - clip * min) / (high - low),
                    stored,
                    GroupZero::None,
                )?;
                let point = round_small(
                    (-(clip * min) * group.inverse).clamp(0.0, f32::from(element.max_code())),
                );
                group.zero = GroupZero::Integer(point as u8);
                Ok(group)
            }
            Self::Between(min, max) => {
                let range = max - min;
                let scale = clip * range / (high - low);
                // Unsigned codes and the full range: exactly the smallest value.
                let minimum = min + (1.0 - clip) * 0.5 * range - scale * low;
                let rounded = stored.round(minimum);
                let group = group(scale, stored, GroupZero::Minimum(rounded))?;
                if rounded.is_finite() {
                    Ok(group)
                } else {
                    Err(Overflow::Minimum(minimum))
                }
            }
        }
    }
}

/// 1.5 · 2²³: adding it leaves no bits below 1, so the addition itself rounds, ties to even.
const ROUNDER: f32 = 12_582_912.0;

/// `value` rounded to nearest, ties to even, for magnitudes up to 2²². Vectorises everywhere,
/// unlike [`f32::round_ties_even`], which is a call where the target has no instruction for it.
#[inline]
fn round_small(value: f32) -> f32 {
    (value + ROUNDER) - ROUNDER
}

/// The code rule of one group as one formula: code = rne(clamp(((x − m) · inverse + add) · factor,
/// low, high)) + offset.
///
/// Clamping before rounding equals clamping after it, because the ends are integers. Adding 0 and
/// multiplying by 1 change nothing.
#[derive(Clone, Copy)]
struct Encoder {
    minimum: f32,
    inverse: f32,
    add: f32,
    factor: f32,
    low: f32,
    high: f32,
    offset: f32,
}

impl Encoder {
    fn new(element: AffineFormat, range: CodeRange, group: &GroupScale) -> Self {
        let point = i32::from(group.zero.point());
        let (a, b) = element.coefficients();
        let (min, max) = (element.min_value() - point, element.max_value() - point);
        let mut encoder = Self {
            minimum: group.zero.minimum(),
            inverse: group.inverse,
            add: 0.0,
            factor: 1.0,
            low: min as f32,
            high: max as f32,
            offset: (point - b) as f32,
        };
        if a == 2 {
            encoder.add = (point - b) as f32;
            encoder.factor = 0.5;
            encoder.low = 0.0;
            encoder.high = f32::from(element.max_code());
            encoder.offset = 0.0;
        } else if range == CodeRange::Narrow
            && element.encoding() == Encoding::TwosComplement
            && element.bits() > 1
        {
            encoder.low += 1.0;
        }
        encoder
    }

    /// The code less the offset, an integer.
    #[inline]
    fn level(&self, value: f32) -> f32 {
        let scaled = ((value - self.minimum) * self.inverse + self.add) * self.factor;
        round_small(scaled.clamp(self.low, self.high))
    }

    #[inline]
    fn code(&self, value: f32) -> u8 {
        (self.level(value) + self.offset) as u8
    }

    /// The decoded value of the code, less the minimum and over the scale.
    #[inline]
    fn integer(&self, value: f32) -> f32 {
        if self.factor == 1.0 {
            self.level(value)
        } else {
            2.0 * self.level(value) - self.add
        }
    }
}

/// The code of one value.
pub fn encode(element: AffineFormat, range: CodeRange, group: &GroupScale, value: f32) -> u8 {
    if element == AffineFormat::BINARY {
        binary_code(group, value)
    } else {
        Encoder::new(element, range, group).code(value)
    }
}

#[inline]
fn binary_code(group: &GroupScale, value: f32) -> u8 {
    u8::from(value - group.zero.minimum() >= 0.0)
}

/// The codes of a group's values; as many as the shorter of `values` and `codes`.
pub fn encode_group(
    element: AffineFormat,
    range: CodeRange,
    group: &GroupScale,
    values: &[f32],
    codes: &mut [u8],
) {
    if element == AffineFormat::BINARY {
        for (code, &value) in codes.iter_mut().zip(values) {
            *code = binary_code(group, value);
        }
    } else {
        let encoder = Encoder::new(element, range, group);
        for (code, &value) in codes.iter_mut().zip(values) {
            *code = encoder.code(value);
        }
    }
}

/// The value that a code of the group stands for: s·(a·u + b − z) rounded to f32, then + m rounded
/// to f32.
pub fn decode(element: AffineFormat, group: &GroupScale, code: u8) -> f32 {
    let product = group.scale * (element.value(code) - i32::from(group.zero.point())) as f32;
    match group.zero {
        GroupZero::Minimum(minimum) => product + minimum,
        _ => product,
    }
}

/// The sum of squared differences between the values and what their codes decode to, in f64.
pub fn squared_error(
    element: AffineFormat,
    range: CodeRange,
    group: &GroupScale,
    values: &[f32],
) -> f64 {
    let minimum = group.zero.minimum();
    let square = |value: f32, integer: f32| {
        let difference = f64::from(value) - f64::from(group.scale * integer + minimum);
        difference * difference
    };
    if element == AffineFormat::BINARY {
        lane_sum(values, |value| {
            square(value, 2.0 * f32::from(binary_code(group, value)) - 1.0)
        })
    } else {
        let encoder = Encoder::new(element, range, group);
        lane_sum(values, |value| square(value, encoder.integer(value)))
    }
}

/// A sum in eight interleaved lanes: a fixed order that compilers can vectorise.
#[inline]
fn lane_sum(values: &[f32], term: impl Fn(f32) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += term(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += term(value);
    }
    lanes.iter().sum()
}
