//! The arithmetic of the row quantisers: `core/quantize.wgsl`.

use std::ops::RangeInclusive;

use anybit_formats::quantize::rule::TERNARY_MIN_SCALE;
use anybit_formats::{
    AffineFormat, Calibration, Encoding, FormatError, Granularity, MatrixFormat, PackedMatrix,
    ScaleLayout, ScaleType, ZeroKind, Zeros,
};

use crate::ReferenceError;

/// What a scale is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistic {
    /// The largest magnitude.
    Magnitude,
    /// The largest value, at least 0.
    Value,
    /// The mean magnitude.
    Mean,
}

/// scale = max(statistic / divisor, smallest).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) statistic: Statistic,
    pub(crate) divisor: f32,
    pub(crate) smallest: f32,
}

impl Rule {
    pub(crate) fn new(
        element: AffineFormat,
        calibration: Calibration,
    ) -> Result<Self, ReferenceError> {
        let refuse = |reason| {
            Err(ReferenceError::Quantizer {
                format: MatrixFormat::activation_default(element.into()),
                reason,
            })
        };
        let ternary = element.encoding() == Encoding::Ternary;
        match calibration {
            Calibration::AbsMax => Ok(Self {
                statistic: if element.encoding() == Encoding::Unsigned {
                    Statistic::Value
                } else {
                    Statistic::Magnitude
                },
                // int1 has the values -1 and 0: its largest magnitude takes the scale.
                divisor: element.max_value().max(1) as f32,
                smallest: 0.0,
            }),
            Calibration::AbsMean if ternary || element == AffineFormat::BINARY => Ok(Self {
                statistic: Statistic::Mean,
                divisor: 1.0,
                smallest: if ternary { TERNARY_MIN_SCALE } else { 0.0 },
            }),
            Calibration::AbsMean => refuse("only binary and ternary take the mean magnitude"),
            _ => refuse("they measure the largest or the mean magnitude only"),
        }
    }

    /// `quantize_statistic`: a vector of four values added to the statistic so far.
    pub(crate) fn statistic(&self, so_far: f32, values: [f32; 4]) -> f32 {
        let [x, y, z, w] = values;
        match self.statistic {
            Statistic::Value => so_far.max(x.max(y).max(z.max(w))),
            Statistic::Magnitude => so_far.max(x.abs().max(y.abs()).max(z.abs().max(w.abs()))),
            Statistic::Mean => so_far + ((x.abs() + y.abs()) + (z.abs() + w.abs())),
        }
    }

    /// `quantize_join`: two statistics as one.
    pub(crate) fn join(&self, a: f32, b: f32) -> f32 {
        match self.statistic {
            Statistic::Mean => a + b,
            Statistic::Magnitude | Statistic::Value => a.max(b),
        }
    }

    /// `quantize_scale`: the scale of `count` values and its inverse.
    pub(crate) fn scale_and_inverse(&self, statistic: f32, count: usize) -> (f32, f32) {
        let value = match self.statistic {
            Statistic::Mean => statistic / count as f32,
            Statistic::Magnitude | Statistic::Value => statistic,
        };
        let scale = (value / self.divisor).max(self.smallest);
        if scale < f32::MIN_POSITIVE {
            (0.0, 0.0)
        } else {
            (scale, 1.0 / scale)
        }
    }
}

/// code = round(clamp((x · inverse + add) · factor, low, high)) + offset.
#[derive(Clone, Copy, Debug)]
struct Rounding {
    add: f32,
    factor: f32,
    low: f32,
    high: f32,
    offset: f32,
}

impl Rounding {
    fn new(element: AffineFormat) -> Self {
        let (low, high) = (element.min_value() as f32, element.max_value() as f32);
        match element.encoding() {
            Encoding::Bipolar => Self {
                add: high,
                factor: 0.5,
                low: 0.0,
                high: f32::from(element.max_code()),
                offset: 0.0,
            },
            // Symmetric, so that the scale serves both signs; int1 keeps its only negative value.
            Encoding::TwosComplement => Self {
                add: 0.0,
                factor: 1.0,
                low: if element.bits() > 1 { low + 1.0 } else { low },
                high,
                offset: -low,
            },
            Encoding::Unsigned | Encoding::Ternary => Self {
                add: 0.0,
                factor: 1.0,
                low,
                high,
                offset: -low,
            },
        }
    }

    /// From x · inverse + add.
    fn code(&self, sum: f32) -> u8 {
        let level = (sum * self.factor).clamp(self.low, self.high);
        (level.round_ties_even() + self.offset) as u8
    }
}

/// The codes that a row quantiser gives to values, from the inverse scale that it emitted, with every operation rounded
/// to nearest and none contracted.
///
/// Two's complement uses the narrow range, without its most negative value. Values must be finite.
pub fn codes_given(values: &[f32], inverse: f32, element: AffineFormat) -> Vec<u8> {
    let rounding = Rounding::new(element);
    let code = |&value: &f32| {
        if element == AffineFormat::BINARY {
            u8::from(value >= 0.0)
        } else {
            rounding.code(value * inverse + rounding.add)
        }
    };
    values.iter().map(code).collect()
}

/// The codes that WGSL allows for values, from the inverse scale that a row quantiser emitted: from the smallest to the
/// largest.
///
/// WGSL may round the product, and the sum for bipolar formats, to either neighbour, may contract them, and may take
/// subnormals for 0. That matters only within a rounding error of the edge between two codes: elsewhere the range is the
/// one code of [`codes_given`].
pub fn codes_allowed(
    values: &[f32],
    inverse: f32,
    element: AffineFormat,
) -> Vec<RangeInclusive<u8>> {
    let rounding = Rounding::new(element);
    let range = |&value: &f32| {
        let subnormal = value.abs() < f32::MIN_POSITIVE;
        if element == AffineFormat::BINARY {
            return u8::from(value >= 0.0)..=u8::from(value >= 0.0 || subnormal);
        }
        // The product of two f32 is exact in f64.
        let (mut low, mut high) = neighbours(f64::from(value) * f64::from(inverse));
        if subnormal {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if rounding.add != 0.0 {
            low = sum_neighbours(rounding.add, low).0;
            high = sum_neighbours(rounding.add, high).1;
        }
        rounding.code(low)..=rounding.code(high)
    };
    values.iter().map(range).collect()
}

/// The f32 next below and next above a value, or the value itself twice.
fn neighbours(value: f64) -> (f32, f32) {
    let nearest = value as f32;
    let rounded = f64::from(nearest);
    if rounded > value {
        (nearest.next_down(), nearest)
    } else if rounded < value {
        (nearest, nearest.next_up())
    } else {
        (nearest, nearest)
    }
}

/// [`neighbours`] of a + b. Exact unless |b| passes |a| by far, where codes are clamped anyway.
fn sum_neighbours(a: f32, b: f32) -> (f32, f32) {
    let (wide_a, wide_b) = (f64::from(a), f64::from(b));
    let sum = wide_a + wide_b;
    let (low, high) = neighbours(sum);
    // What a tiny b loses in f64; the sum is then an f32 itself.
    let error = wide_b - (sum - wide_a);
    if low == high && error < 0.0 {
        (low.next_down(), high)
    } else if low == high && error > 0.0 {
        (low, high.next_up())
    } else {
        (low, high)
    }
}

/// What a row quantiser writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Codes and scales.
    pub matrix: PackedMatrix,
    /// The inverse of each scale, row-major.
    pub inverses: Vec<f32>,
    /// Σu per block of 32 codes, or of 16 where the scale group is 16; row-major.
    pub sums: Vec<u32>,
}

/// Sums of `block` codes along rows of `columns`; the last sum of a row may have fewer.
pub fn code_sums(codes: &[u8], columns: usize, block: usize) -> Vec<u32> {
    if columns == 0 || block == 0 {
        return Vec::new();
    }
    // Rows are padded with code 0 to whole blocks of 32, so there may be a last sum without codes.
    let per_row = columns.div_ceil(32) * 32usize.div_ceil(block);
    codes
        .chunks(columns)
        .flat_map(|row| {
            (0..per_row).map(move |index| {
                let start = (index * block).min(row.len());
                let end = (start + block).min(row.len());
                row[start..end].iter().map(|&code| u32::from(code)).sum()
            })
        })
        .collect()
}

/// Checks that there are `rows` × `columns` finite values.
pub(crate) fn check_values(
    values: &[f32],
    rows: usize,
    columns: usize,
) -> Result<(), ReferenceError> {
    if rows.checked_mul(columns) != Some(values.len()) {
        return Err(ReferenceError::Length {
            what: "values",
            expected: rows.saturating_mul(columns),
            found: values.len(),
        });
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(ReferenceError::Format(FormatError::NonFinite {
            row: index / columns,
            column: index % columns,
            value: values[index],
        })),
    }
}

/// Four values of a row from `4 * index` on, 0 past its end: `quantize_values`.
pub(crate) fn vector(row: &[f32], index: usize) -> [f32; 4] {
    std::array::from_fn(|lane| row.get(4 * index + lane).copied().unwrap_or(0.0))
}

/// Packs what a quantiser found: `scales` has an entry (scale, inverse) for each group of each row.
pub(crate) fn assemble(
    values: &[f32],
    rows: usize,
    columns: usize,
    element: AffineFormat,
    granularity: Granularity,
    scales: &[(f32, f32)],
) -> Result<Quantized, ReferenceError> {
    let layout = ScaleLayout {
        granularity,
        scale: ScaleType::F32,
        zero: ZeroKind::None,
    };
    let format = MatrixFormat::new(element.into(), Some(layout))?;
    let group_len = format.group_len(columns).max(1);
    let codes: Vec<u8> = values
        .chunks(group_len)
        .zip(scales)
        .flat_map(|(values, &(_, inverse))| codes_given(values, inverse, element))
        .collect();
    let (scales, inverses): (Vec<f32>, Vec<f32>) = scales.iter().copied().unzip();
    Ok(Quantized {
        matrix: PackedMatrix::from_codes(format, rows, columns, &codes, &scales, Zeros::None)?,
        inverses,
        sums: code_sums(&codes, columns, group_len.min(32)),
    })
}
