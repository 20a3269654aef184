//! From floats to packed codes.

use crate::packed::check_finite;
use crate::parallel::{for_each_chunk_mut, map_chunks};
use crate::{
    AffineFormat, ElementFormat, Encoding, FormatError, MatrixFormat, PackedMatrix, ScaleLayout,
    ScaleType, ZeroKind, Zeros,
};

pub mod bitmod;
mod group;
pub mod rounding;
pub mod rule;

pub use crate::format::scale_codes::ScaleRule;
use group::Coder;
pub use rounding::{Overflow, Rounding};
use rule::{CodeRange, GroupScale, GroupZero};

/// What [`quantize_with`] may be told. The default is what [`quantize`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QuantizeOptions {
    /// How scales are found; `None` for the format's own, [`Calibration::default_for`].
    pub calibration: Option<Calibration>,
    /// How values are rounded to integers and minifloats. Values of codebooks take the nearest
    /// entry.
    pub rounding: Rounding,
    /// How scales of [`ScaleType::E8m0`] are rounded to powers of two.
    pub scale_rule: ScaleRule,
}

/// What the GPU's row quantisers, and their twins in `anybit-reference`, may be told. The default is to nearest, ties to
/// even, with the floor rule, and saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct QuantizeRowsOptions {
    /// How values are rounded to integers and minifloats; [`Rounding::Stochastic`] takes random bits by a value's place in
    /// the matrix, row · columns + column. Values of codebooks take the nearest entry.
    pub rounding: Rounding,
    /// How scales of [`ScaleType::E8m0`] are rounded to powers of two.
    pub scale_rule: ScaleRule,
    /// What becomes of minifloats beyond the largest finite value. Integers and codebooks saturate.
    pub overflow: Overflow,
}

impl QuantizeRowsOptions {
    /// The same with another rounding.
    #[must_use]
    pub const fn with_rounding(mut self, rounding: Rounding) -> Self {
        self.rounding = rounding;
        self
    }

    /// The same with another rule for power-of-two scales.
    #[must_use]
    pub const fn with_scale_rule(mut self, scale_rule: ScaleRule) -> Self {
        self.scale_rule = scale_rule;
        self
    }

    /// The same with another overflow.
    #[must_use]
    pub const fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Whether an element can be rounded so.
    ///
    /// # Errors
    ///
    /// [`FormatError::Rounding`] for a rounding other than to nearest, ties to even, of an element that is no integer or
    /// minifloat.
    pub fn check(&self, element: ElementFormat) -> Result<(), FormatError> {
        let rounds = matches!(
            element,
            ElementFormat::Affine(_) | ElementFormat::Minifloat(_)
        );
        if self.rounding == Rounding::NearestEven || rounds {
            Ok(())
        } else {
            Err(FormatError::Rounding { element })
        }
    }
}

/// How the scale of a group is found from its values. [`rule::calibrate`] says each to the letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Calibration {
    /// The largest magnitude maps to the largest code. For formats without zeros; two's complement
    /// leaves its most negative code unused.
    AbsMax,
    /// The scale is the mean magnitude. For binary and ternary without zeros.
    AbsMean,
    /// The smallest and the largest value map to the ends of the codes. For formats with minima,
    /// and for unsigned codes with integer zero points.
    MinMax,
    /// The clip of least mean square error among 64 fractions of the full range. For every scaled
    /// format that one of the others serves.
    MeanSquareError,
}

impl Calibration {
    /// The calibration that [`quantize`] takes for a format when none is given:
    /// [`AbsMean`](Self::AbsMean) for binary and ternary without zeros, [`MinMax`](Self::MinMax)
    /// with zeros, else [`AbsMax`](Self::AbsMax). `None` for floats and bare codes, which have no
    /// scales.
    pub const fn default_for(format: &MatrixFormat) -> Option<Self> {
        let Some(layout) = format.scales() else {
            return None;
        };
        Some(match (layout.zero, format.element()) {
            (ZeroKind::Integer | ZeroKind::Minimum, _) => Self::MinMax,
            (ZeroKind::None, ElementFormat::Affine(affine))
                if has_mean_scale(affine) && !matches!(layout.scale, ScaleType::E8m0) =>
            {
                Self::AbsMean
            }
            (ZeroKind::None | ZeroKind::Choice, _) => Self::AbsMax,
        })
    }

    /// Whether the calibration applies to a format.
    pub const fn applies_to(self, format: &MatrixFormat) -> bool {
        let Some(layout) = format.scales() else {
            return false;
        };
        let ElementFormat::Affine(affine) = format.element() else {
            // A choice already is the one of least square error.
            return match self {
                Self::AbsMax => true,
                Self::MeanSquareError => matches!(layout.zero, ZeroKind::None),
                Self::AbsMean | Self::MinMax => false,
            };
        };
        match layout.zero {
            ZeroKind::Choice => false,
            ZeroKind::None => match self {
                Self::AbsMax | Self::MeanSquareError => true,
                Self::AbsMean => has_mean_scale(affine),
                Self::MinMax => false,
            },
            ZeroKind::Minimum => matches!(self, Self::MinMax | Self::MeanSquareError),
            ZeroKind::Integer => {
                matches!(affine.encoding(), Encoding::Unsigned)
                    && matches!(self, Self::MinMax | Self::MeanSquareError)
            }
        }
    }
}

const fn has_mean_scale(affine: AffineFormat) -> bool {
    matches!(
        (affine.encoding(), affine.bits()),
        (Encoding::Bipolar, 1) | (Encoding::Ternary, _)
    )
}

/// Quantises a matrix: [`quantize_with`] that calibration, rounding to nearest, ties to even, and
/// the floor rule for power-of-two scales.
///
/// # Errors
///
/// Those of [`quantize_with`].
pub fn quantize(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: MatrixFormat,
    calibration: Option<Calibration>,
) -> Result<PackedMatrix, FormatError> {
    let options = QuantizeOptions {
        calibration,
        ..QuantizeOptions::default()
    };
    quantize_with(values, rows, columns, format, &options)
}

/// Quantises a matrix.
///
/// `values` is `rows` × `columns`, row-major. Each group gets its scale by the calibration (`None`:
/// the format's own, [`Calibration::default_for`]), rounded to its stored type first; then each
/// value gets its code with one multiplication by the inverse scale and one rounding, by default to
/// nearest, ties to even. [`rule`] has the rule for one group of integers. Values beyond the range
/// of the codes take the last one.
///
/// Minifloats and codebooks take the largest magnitude over their largest value as the ideal scale
/// of a group. Scales of two levels: the second level is the largest ideal scale that it serves,
/// over the largest integer (or E4M3); the first is the ideal over the second, rounded to its type.
/// Codebooks with choices take, for every group, the choice of least square error
/// ([`bitmod::choose`]).
///
/// Floats are rounded to their format, to nearest, ties to even. Bare codes, without scales, are
/// the values rounded and clamped to the format's range. Both take no calibration.
///
/// # Errors
///
/// [`FormatError::Length`] and [`FormatError::NonFinite`] for wrong values;
/// [`FormatError::Calibration`] and [`FormatError::SignedZeroPoint`] for a calibration that does
/// not fit the format; [`FormatError::Rounding`] for a rounding other than to nearest, ties to even,
/// of a format that takes no other; [`FormatError::ScaleOverflow`], [`FormatError::MinimumOverflow`] and
/// [`FormatError::ElementOverflow`] where a stored type is too narrow for the data; and those of
/// [`MatrixFormat::check_shape`].
pub fn quantize_with(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: MatrixFormat,
    options: &QuantizeOptions,
) -> Result<PackedMatrix, FormatError> {
    let calibration = options.calibration;
    format.check_shape(rows, columns)?;
    if values.len() != rows * columns {
        return Err(FormatError::Length {
            what: "values",
            expected: rows * columns,
            found: values.len(),
        });
    }
    let element = format.element();
    let rounds = matches!(
        element,
        ElementFormat::Affine(_) | ElementFormat::Minifloat(_)
    );
    if options.rounding != Rounding::NearestEven && !rounds {
        return Err(FormatError::Rounding { element });
    }
    let Some(layout) = format.scales() else {
        if let Some(calibration) = calibration {
            return Err(FormatError::Calibration {
                calibration,
                format,
            });
        }
        return match element {
            ElementFormat::Float(float) => PackedMatrix::from_f32(float, rows, columns, values),
            _ => bare_codes(values, rows, columns, format, options.rounding),
        };
    };
    if let ElementFormat::Affine(affine) = element {
        if layout.zero == ZeroKind::Integer && affine.encoding() != Encoding::Unsigned {
            return Err(FormatError::SignedZeroPoint { format });
        }
    }
    let calibration = match calibration {
        Some(calibration) if !calibration.applies_to(&format) => {
            return Err(FormatError::Calibration {
                calibration,
                format,
            });
        }
        Some(calibration) => calibration,
        None => Calibration::default_for(&format).unwrap_or(Calibration::AbsMax),
    };
    check_finite(values, columns)?;
    let affine = match element {
        ElementFormat::Affine(affine)
            if matches!(layout.scale, ScaleType::F32 | ScaleType::F16)
                && options.rounding == Rounding::NearestEven =>
        {
            affine
        }
        _ => {
            return group::quantize_groups(
                values,
                rows,
                columns,
                format,
                layout,
                options,
                calibration,
            );
        }
    };

    let groups = calibrate_groups(values, rows, columns, &format, affine, layout, calibration)?;
    let range = CodeRange::of(calibration);
    let mut codes = vec![0; values.len()];
    if layout.granularity == crate::Granularity::Tensor {
        if let Some(group) = groups.first() {
            for_each_chunk_mut(&mut codes, columns, |row, codes| {
                rule::encode_group(
                    affine,
                    range,
                    group,
                    &values[row * columns..][..columns],
                    codes,
                );
            });
        }
    } else {
        let len = format.group_len(columns);
        for_each_chunk_mut(&mut codes, len, |index, codes| {
            rule::encode_group(
                affine,
                range,
                &groups[index],
                &values[index * len..][..len],
                codes,
            );
        });
    }

    let scales: Vec<f32> = groups.iter().map(|group| group.scale).collect();
    let points: Vec<u8>;
    let minima: Vec<f32>;
    let zeros = match layout.zero {
        ZeroKind::None | ZeroKind::Choice => Zeros::None,
        ZeroKind::Integer => {
            points = groups.iter().map(|group| group.zero.point()).collect();
            Zeros::Integer(&points)
        }
        ZeroKind::Minimum => {
            minima = groups.iter().map(|group| group.zero.minimum()).collect();
            Zeros::Minimum(&minima)
        }
    };
    PackedMatrix::from_codes(format, rows, columns, &codes, &scales, zeros)
}

/// One [`GroupScale`] for each scale of the matrix.
fn calibrate_groups(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: &MatrixFormat,
    affine: AffineFormat,
    layout: ScaleLayout,
    calibration: Calibration,
) -> Result<Vec<GroupScale>, FormatError> {
    let calibrate =
        |values: &[f32]| rule::calibrate(affine, layout.scale, layout.zero, calibration, values);
    let count = format.scale_count(rows, columns);
    let results = if layout.granularity == crate::Granularity::Tensor {
        vec![calibrate(values)]
    } else if columns == 0 {
        // Rows without columns still have their scales.
        (0..count).map(|_| calibrate(&[])).collect()
    } else {
        map_chunks(values, format.group_len(columns), calibrate)
    };
    let with_position = |(index, result): (usize, Result<GroupScale, rule::Overflow>)| {
        result.map_err(|overflow| {
            let (row, group) = format.scale_position(index, columns);
            match overflow {
                rule::Overflow::Scale(value) => FormatError::ScaleOverflow { row, group, value },
                rule::Overflow::Minimum(value) => {
                    FormatError::MinimumOverflow { row, group, value }
                }
            }
        })
    };
    results.into_iter().enumerate().map(with_position).collect()
}

/// Values rounded and clamped to the range of the codes.
fn bare_codes(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: MatrixFormat,
    rounding: Rounding,
) -> Result<PackedMatrix, FormatError> {
    check_finite(values, columns)?;
    let unit = GroupScale {
        scale: 1.0,
        inverse: 1.0,
        zero: GroupZero::None,
    };
    // Any calibration but AbsMax leaves all codes to be used.
    let coder = Coder::new(format.element(), rounding, Calibration::MinMax);
    let mut codes = vec![0; values.len()];
    for_each_chunk_mut(&mut codes, columns, |row, codes| {
        let start = row * columns;
        for ((code, &value), index) in codes.iter_mut().zip(&values[start..]).zip(start as u64..) {
            *code = coder.code(&unit, value, index);
        }
    });
    PackedMatrix::from_codes(format, rows, columns, &codes, &[], Zeros::None)
}
