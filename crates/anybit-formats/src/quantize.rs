//! From floats to packed codes.

use crate::packed::check_finite;
use crate::parallel::{for_each_chunk_mut, map_chunks};
use crate::{
    AffineFormat, ElementFormat, Encoding, FormatError, MatrixFormat, PackedMatrix, ScaleLayout,
    ZeroKind, Zeros,
};

pub mod rounding;
pub mod rule;

use rule::{CodeRange, GroupScale, GroupZero, Overflow};

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
        let (ElementFormat::Affine(affine), Some(layout)) = (format.element(), format.scales())
        else {
            return None;
        };
        Some(match layout.zero {
            ZeroKind::Integer | ZeroKind::Minimum => Self::MinMax,
            ZeroKind::None if has_mean_scale(affine) => Self::AbsMean,
            ZeroKind::None => Self::AbsMax,
        })
    }

    /// Whether the calibration applies to a format.
    pub const fn applies_to(self, format: &MatrixFormat) -> bool {
        let (ElementFormat::Affine(affine), Some(layout)) = (format.element(), format.scales())
        else {
            return false;
        };
        match layout.zero {
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

/// Quantises a matrix.
///
/// `values` is `rows` × `columns`, row-major. Each group gets its scale by the calibration (`None`:
/// the format's own, [`Calibration::default_for`]), rounded to its stored type first; then each
/// value gets its code with one multiplication by the inverse scale and one rounding to nearest,
/// ties to even. [`rule`] has the rule for one group.
///
/// Floats are rounded to their format. Bare codes, without scales, are the values rounded and
/// clamped to the format's range. Both take no calibration.
///
/// # Errors
///
/// [`FormatError::Length`] and [`FormatError::NonFinite`] for wrong values;
/// [`FormatError::Calibration`] and [`FormatError::SignedZeroPoint`] for a calibration that does
/// not fit the format; [`FormatError::ScaleOverflow`], [`FormatError::MinimumOverflow`] and
/// [`FormatError::ElementOverflow`] where a stored type is too narrow for the data; and those of
/// [`MatrixFormat::check_shape`].
pub fn quantize(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: MatrixFormat,
    calibration: Option<Calibration>,
) -> Result<PackedMatrix, FormatError> {
    format.check_shape(rows, columns)?;
    if values.len() != rows * columns {
        return Err(FormatError::Length {
            what: "values",
            expected: rows * columns,
            found: values.len(),
        });
    }
    let (affine, layout) = match (format.element(), format.scales()) {
        (ElementFormat::Affine(affine), Some(layout)) => (affine, layout),
        (element, _) => {
            if let Some(calibration) = calibration {
                return Err(FormatError::Calibration {
                    calibration,
                    format,
                });
            }
            return match element {
                ElementFormat::Float(float) => PackedMatrix::from_f32(float, rows, columns, values),
                ElementFormat::Affine(affine) => bare_codes(values, rows, columns, format, affine),
            };
        }
    };
    if layout.zero == ZeroKind::Integer && affine.encoding() != Encoding::Unsigned {
        return Err(FormatError::SignedZeroPoint { format });
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
        ZeroKind::None => Zeros::None,
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
    let with_position = |(index, result): (usize, Result<GroupScale, Overflow>)| {
        result.map_err(|overflow| {
            let (row, group) = format.scale_position(index, columns);
            match overflow {
                Overflow::Scale(value) => FormatError::ScaleOverflow { row, group, value },
                Overflow::Minimum(value) => FormatError::MinimumOverflow { row, group, value },
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
    affine: AffineFormat,
) -> Result<PackedMatrix, FormatError> {
    check_finite(values, columns)?;
    let unit = GroupScale {
        scale: 1.0,
        inverse: 1.0,
        zero: GroupZero::None,
    };
    let mut codes = vec![0; values.len()];
    for_each_chunk_mut(&mut codes, columns, |row, codes| {
        rule::encode_group(
            affine,
            CodeRange::Full,
            &unit,
            &values[row * columns..][..columns],
            codes,
        );
    });
    PackedMatrix::from_codes(format, rows, columns, &codes, &[], Zeros::None)
}
