//! The quantiser's rule for the formats that [`rule`](super::rule) does not serve: minifloats,
//! codebooks, power-of-two scales and scales of two levels, and every rounding.
//!
//! Three steps, each over all groups:
//!
//! 1. *Ideal scales*, in f32: of minifloats and codebooks, the largest magnitude over the largest
//!    value; of integers, as [`rule::calibrate`] has it with f32 scales. With
//!    [`MeanSquareError`](Calibration::MeanSquareError), that or one of its fractions
//!    i / [`CLIP_STEPS`], whichever, rounded to its type where it has one level, gives the least
//!    sum of squared errors.
//! 2. *Stored scales*. One level: the ideal, rounded to its type; powers of two by the
//!    [`ScaleRule`]. Two levels: the second is the largest ideal scale it serves over 448 (E4M3)
//!    or 127 (integers); the first is the ideal over the second, rounded to its type. Minima of two
//!    levels are 0 or negative; they are made the same way.
//! 3. *Codes*: x · inverse, rounded to the element, where inverse is 1 / scale in f32, 0 for a scale
//!    that is 0 or subnormal.

use super::rule::{self, CLIP_STEPS, GroupScale, GroupZero, Overflow as Overflowing};
use super::{Calibration, QuantizeOptions, bitmod};
use crate::format::scale_codes::e8m0_decode;
use crate::packed::Side;
use crate::parallel::{for_each_chunk_mut, map_chunks};
use crate::{
    AffineFormat, ElementFormat, Encoding, FormatError, Granularity, MatrixFormat, Overflow,
    PackedMatrix, Rounding, ScaleLayout, ScaleType, SideData, ZeroKind, Zeros,
};

/// Quantises with scales. The options must apply to the format, values be finite.
pub(super) fn quantize_groups(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: MatrixFormat,
    layout: ScaleLayout,
    options: &QuantizeOptions,
    calibration: Calibration,
) -> Result<PackedMatrix, FormatError> {
    let element = format.element();
    let group_values = |index: usize| -> &[f32] {
        let len = group_len(&format, layout, rows, columns);
        values.get(index * len..(index + 1) * len).unwrap_or(&[])
    };
    let ideals = ideal_scales(values, rows, columns, &format, layout, options, calibration)
        .map_err(|(index, overflow)| overflow_error(&format, columns, index, overflow))?;
    let stored = StoredScales::new(
        &format,
        (rows, columns),
        layout,
        options.scale_rule,
        &ideals,
        |index| extent(element, group_values(index)),
    );
    let choices: Vec<u8> = ideals.iter().map(|ideal| ideal.choice).collect();
    let points: Vec<u8> = ideals.iter().map(|ideal| ideal.point).collect();
    let side = SideData {
        scales: &stored.scales,
        second: &stored.second,
        zeros: match layout.zero {
            ZeroKind::None => Zeros::None,
            ZeroKind::Integer => Zeros::Integer(&points),
            ZeroKind::Minimum => Zeros::Minimum(&stored.minima),
            ZeroKind::Choice => Zeros::Choice(&choices),
        },
        second_minima: &stored.second_minima,
    };
    let scaled = Side::new(&format, rows, columns, side)?;

    let coder = Coder::new(element, options.rounding, calibration);
    let mut codes = vec![0; values.len()];
    let len = format.group_len(columns).max(1);
    for_each_chunk_mut(&mut codes, columns, |row, codes| {
        let row_values = &values[row * columns..][..columns];
        for (group, (codes, values)) in codes
            .chunks_mut(len)
            .zip(row_values.chunks(len))
            .enumerate()
        {
            let place = if layout.granularity == Granularity::Tensor {
                0
            } else {
                row * format.groups(columns) + group
            };
            let scale = scaled.scale(&format, columns, place);
            let group_scale = GroupScale {
                scale,
                inverse: inverse(scale),
                zero: match layout.zero {
                    ZeroKind::None => GroupZero::None,
                    ZeroKind::Integer => GroupZero::Integer(scaled.zero_point(place) as u8),
                    ZeroKind::Minimum => {
                        GroupZero::Minimum(scaled.minimum(&format, columns, place))
                    }
                    ZeroKind::Choice => GroupZero::Choice(scaled.choice(place)),
                },
            };
            let first = (row * columns + group * len) as u64;
            for ((code, &value), index) in codes.iter_mut().zip(values).zip(first..) {
                *code = coder.code(&group_scale, value, index);
            }
        }
    });
    PackedMatrix::from_parts(format, rows, columns, &codes, side)
}

/// What a group's scale has to reach: the largest value of unsigned integers, of all others the largest
/// magnitude.
fn extent(element: ElementFormat, values: &[f32]) -> f32 {
    match element {
        ElementFormat::Affine(affine) if affine.encoding() == Encoding::Unsigned => {
            values.iter().fold(0.0, |max, &value| max.max(value))
        }
        _ => rule::absmax(values),
    }
}

/// 1 / scale; 0 for a scale that is 0 or subnormal, since GPUs may flush it.
fn inverse(scale: f32) -> f32 {
    if scale.abs() < f32::MIN_POSITIVE {
        0.0
    } else {
        1.0 / scale
    }
}

/// Values that share a scale.
fn group_len(format: &MatrixFormat, layout: ScaleLayout, rows: usize, columns: usize) -> usize {
    match layout.granularity {
        Granularity::Tensor => rows * columns,
        _ => format.group_len(columns),
    }
}

fn overflow_error(
    format: &MatrixFormat,
    columns: usize,
    index: usize,
    overflow: Overflowing,
) -> FormatError {
    let (row, group) = format.scale_position(index, columns);
    match overflow {
        Overflowing::Scale(value) => FormatError::ScaleOverflow { row, group, value },
        Overflowing::Minimum(value) => FormatError::MinimumOverflow { row, group, value },
    }
}

/// What a group's values ask for.
#[derive(Clone, Copy, Debug, Default)]
struct Ideal {
    scale: f32,
    point: u8,
    minimum: f32,
    choice: u8,
}

fn ideal_scales(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: &MatrixFormat,
    layout: ScaleLayout,
    options: &QuantizeOptions,
    calibration: Calibration,
) -> Result<Vec<Ideal>, (usize, Overflowing)> {
    let ideal =
        |values: &[f32]| ideal_scale(format.element(), layout, options, calibration, values);
    let len = group_len(format, layout, rows, columns);
    let ideals = if len == 0 {
        let count = format.scale_count(rows, columns);
        (0..count).map(|_| ideal(&[])).collect()
    } else {
        map_chunks(values, len, ideal)
    };
    ideals
        .into_iter()
        .enumerate()
        .map(|(index, ideal)| ideal.map_err(|overflow| (index, overflow)))
        .collect()
}

fn ideal_scale(
    element: ElementFormat,
    layout: ScaleLayout,
    options: &QuantizeOptions,
    calibration: Calibration,
    values: &[f32],
) -> Result<Ideal, Overflowing> {
    if let ElementFormat::Affine(affine) = element {
        // Minima of two levels cannot be positive: the range then reaches down to 0.
        let mut widened;
        let mut values = values;
        if layout.zero == ZeroKind::Minimum && layout.scale.second().is_some() {
            widened = values.to_vec();
            widened.push(0.0);
            values = &widened;
        }
        let group = rule::calibrate(affine, ScaleType::F32, layout.zero, calibration, values)?;
        return Ok(Ideal {
            scale: group.scale,
            point: group.zero.point(),
            minimum: group.zero.minimum(),
            choice: 0,
        });
    }
    if let ElementFormat::Codebook(codebook) = element {
        if codebook.choice().is_some() {
            let group = bitmod::choose(codebook, values);
            return Ok(Ideal {
                scale: group.scale,
                choice: group.choice,
                ..Ideal::default()
            });
        }
    }
    let absmax = rule::absmax(values);
    let full = absmax / element.max_magnitude(0);
    if calibration != Calibration::MeanSquareError {
        return Ok(Ideal {
            scale: full,
            ..Ideal::default()
        });
    }
    let coder = Coder::new(element, Rounding::NearestEven, calibration);
    let error = |scale: f32| -> f64 {
        let scale = match layout.scale {
            ScaleType::E8m0 => {
                let max = element.max_magnitude(0);
                e8m0_decode(options.scale_rule.e8m0(scale * max, max))
            }
            stored if stored.second().is_none() => stored.round(scale),
            _ => scale,
        };
        let group = GroupScale {
            scale,
            inverse: inverse(scale),
            zero: GroupZero::None,
        };
        values
            .iter()
            .map(|&value| {
                let decoded = coder.decode(&group, coder.code(&group, value, 0));
                let difference = f64::from(value) - f64::from(decoded);
                difference * difference
            })
            .sum()
    };
    let mut best = (f64::INFINITY, full);
    for step in (1..=CLIP_STEPS).rev() {
        let scale = full * (step as f32 / CLIP_STEPS as f32);
        let error = error(scale);
        if error < best.0 {
            best = (error, scale);
        }
    }
    Ok(Ideal {
        scale: best.1,
        ..Ideal::default()
    })
}

/// Scales and minima by their levels.
struct StoredScales {
    scales: Vec<f32>,
    second: Vec<f32>,
    minima: Vec<f32>,
    second_minima: Vec<f32>,
}

impl StoredScales {
    /// `extent` is [`extent`] of a group.
    fn new(
        format: &MatrixFormat,
        shape: (usize, usize),
        layout: ScaleLayout,
        scale_rule: super::ScaleRule,
        ideals: &[Ideal],
        extent: impl Fn(usize) -> f32,
    ) -> Self {
        let mut stored = Self {
            scales: ideals.iter().map(|ideal| ideal.scale).collect(),
            second: Vec::new(),
            minima: ideals.iter().map(|ideal| ideal.minimum).collect(),
            second_minima: Vec::new(),
        };
        let largest_first = match layout.scale {
            ScaleType::F32 | ScaleType::F16 => return stored,
            ScaleType::E8m0 => {
                let element = format.element();
                for (index, (scale, ideal)) in stored.scales.iter_mut().zip(ideals).enumerate() {
                    let choice = ideal.choice;
                    let max = element.max_magnitude(choice);
                    // The rule looks at the extent itself unless a clip moved it.
                    let full = extent(index);
                    let magnitude = if *scale == full / max {
                        full
                    } else {
                        *scale * max
                    };
                    *scale = e8m0_decode(scale_rule.e8m0(magnitude, max));
                }
                return stored;
            }
            ScaleType::E4m3 => crate::MinifloatFormat::E4M3.max_value(),
            ScaleType::Int8 | ScaleType::Super => 127.0,
        };
        (stored.second, stored.scales) =
            split(format, shape, layout, &stored.scales, largest_first);
        if layout.zero == ZeroKind::Minimum {
            (stored.second_minima, stored.minima) =
                split(format, shape, layout, &stored.minima, largest_first);
        }
        stored
    }
}

/// Second and first level of scales, or of minima, which are all of one sign.
fn split(
    format: &MatrixFormat,
    (rows, columns): (usize, usize),
    layout: ScaleLayout,
    ideals: &[f32],
    largest_first: f32,
) -> (Vec<f32>, Vec<f32>) {
    let Some(level) = layout.scale.second() else {
        return (Vec::new(), ideals.to_vec());
    };
    let places = |index: usize| format.second_index(index, columns);
    let count = format.second_count(rows, columns);
    let mut second = vec![0.0_f32; count];
    for (index, &ideal) in ideals.iter().enumerate() {
        if let Some(largest) = second.get_mut(places(index)) {
            if ideal.abs() > largest.abs() {
                *largest = ideal;
            }
        }
    }
    for entry in &mut second {
        *entry = level
            .float
            .decode(level.float.encode(*entry / largest_first));
    }
    let first = ideals.iter().enumerate().map(|(index, &ideal)| {
        let second = second.get(places(index)).copied().unwrap_or(0.0);
        let first = ideal * inverse(second);
        // A second level that was rounded down may leave more than the first can hold.
        layout
            .scale
            .round(first.clamp(-largest_first, largest_first))
    });
    let first = first.collect();
    (second, first)
}

/// Codes of one format with one rounding.
pub(crate) struct Coder {
    element: ElementFormat,
    rounding: Rounding,
    range: rule::CodeRange,
}

impl Coder {
    pub(crate) fn new(
        element: ElementFormat,
        rounding: Rounding,
        calibration: Calibration,
    ) -> Self {
        Self {
            element,
            rounding,
            range: rule::CodeRange::of(calibration),
        }
    }

    /// The code of a value. `index` counts the values of the matrix, for stochastic rounding.
    pub(crate) fn code(&self, group: &GroupScale, value: f32, index: u64) -> u8 {
        match self.element {
            // Floats have no codes.
            ElementFormat::Float(_) => 0,
            ElementFormat::Affine(affine) if self.rounding == Rounding::NearestEven => {
                rule::encode(affine, self.range, group, value)
            }
            ElementFormat::Affine(affine) => self.affine_code(affine, group, value, index),
            ElementFormat::Minifloat(minifloat) => minifloat.encode(
                value * group.inverse,
                self.rounding,
                Overflow::Saturate,
                index,
            ),
            ElementFormat::Codebook(codebook) => {
                codebook.encode(value * group.inverse, group.zero.choice())
            }
        }
    }

    /// As [`rule::encode`], with another rounding.
    fn affine_code(&self, affine: AffineFormat, group: &GroupScale, value: f32, index: u64) -> u8 {
        if affine == AffineFormat::BINARY {
            return rule::encode(affine, self.range, group, value);
        }
        let (a, b) = affine.coefficients();
        let scaled = (value - group.zero.minimum()) * group.inverse;
        let narrow = self.range == rule::CodeRange::Narrow
            && affine.encoding() == Encoding::TwosComplement
            && affine.bits() > 1;
        let low = if narrow { 1.0 } else { 0.0 };
        let zero = f32::from(group.zero.point()) - b as f32;
        let rounded = if a == 1 {
            // About their zero, so that truncation goes towards it.
            self.rounding.round(scaled, index) + zero
        } else {
            // Between odd integers, codes are what is rounded.
            self.rounding.round((scaled + zero) / a as f32, index)
        };
        rounded.clamp(low, f32::from(affine.max_code())) as u8
    }

    /// What a code stands for, before a minimum.
    fn decode(&self, group: &GroupScale, code: u8) -> f32 {
        let value = self
            .element
            .code_value_with(code, group.zero.choice())
            .unwrap_or(0.0);
        group.scale * (value - f32::from(group.zero.point()))
    }
}
