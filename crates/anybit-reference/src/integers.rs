//! Operands as integers in spans along K, with what scales each span.

use anybit_formats::{FloatFormat, Granularity, MatrixFormat, PackedMatrix, ScaleType};

use crate::ReferenceError;

/// Whether scales change along K.
pub(crate) fn is_grouped(format: &MatrixFormat) -> bool {
    group_of(format).is_some()
}

fn group_of(format: &MatrixFormat) -> Option<u32> {
    match format.scales()?.granularity {
        Granularity::Group(group) => Some(group),
        _ => None,
    }
}

/// Columns whose products an integer kernel adds before it scales them: 16 where a scale group is 16, else 32.
pub(crate) fn span_of(x: &MatrixFormat, w: &MatrixFormat) -> usize {
    if group_of(x) == Some(16) || group_of(w) == Some(16) {
        16
    } else {
        32
    }
}

/// Refuses formats without integers: floats, and what dot4 cannot lift.
pub(crate) fn check_codes(matrix: &PackedMatrix) -> Result<(), ReferenceError> {
    match matrix.format().element().lift_unit() {
        Some(_) => Ok(()),
        None => Err(ReferenceError::NotCodes {
            format: *matrix.format(),
        }),
    }
}

/// The magnitude of a stored float that a GPU may read as 0 because it is subnormal in its type; 0 for any other.
pub(crate) fn lost(value: f32, stored: FloatFormat) -> f64 {
    let smallest_normal = match stored {
        FloatFormat::F16 => 1.0 / 16384.0,
        FloatFormat::F32 | FloatFormat::Bf16 => f32::MIN_POSITIVE,
    };
    if value.abs() < smallest_normal {
        f64::from(value.abs())
    } else {
        0.0
    }
}

/// What flushing subnormals may take from a scale or minimum of these levels: all of it, if a stored float or the product
/// of both levels is subnormal.
pub(crate) fn level_lost(format: &MatrixFormat, [first, second]: [f32; 2]) -> f64 {
    let Some(layout) = format.scales() else {
        return 0.0;
    };
    let first_float = match layout.scale {
        ScaleType::F16 => FloatFormat::F16,
        // Codes of 8 bits are decoded without subnormals, but 2⁻¹²⁷ is one.
        _ => FloatFormat::F32,
    };
    let second_float = layout
        .scale
        .second()
        .map_or(FloatFormat::F32, |level| level.float);
    let product = first * second;
    if [
        lost(first, first_float),
        lost(second, second_float),
        lost(product, FloatFormat::F32),
    ]
    .iter()
    .any(|&lost| lost > 0.0)
    {
        f64::from(product.abs())
    } else {
        0.0
    }
}

/// Sum of products. The slices are spans or at most [`EXACT_I32`] long, so that it fits.
pub(crate) fn dot(x: &[i16], w: &[i16]) -> i32 {
    x.iter()
        .zip(w)
        .map(|(&x, &w)| i32::from(x) * i32::from(w))
        .sum()
}

/// So many products of integers, each at most 510 · 510 in magnitude, add up in an i32.
pub(crate) const EXACT_I32: usize = 8192;

/// What scales a span of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpanScale {
    /// Columns in the span.
    pub(crate) columns: f64,
    /// Sum of the integers.
    pub(crate) integers: f64,
    pub(crate) scale: f64,
    pub(crate) minimum: f64,
    /// What flushing subnormals may take from the scale and the minimum.
    pub(crate) scale_lost: f64,
    pub(crate) minimum_lost: f64,
}

/// The integers of some rows, a·u + b − z or lifted values, and the scales of their spans, which include what an integer is
/// worth.
pub(crate) struct Integers {
    values: Vec<i16>,
    columns: usize,
    scales: Vec<SpanScale>,
    span: usize,
}

impl Integers {
    pub(crate) fn new(matrix: &PackedMatrix, span: usize) -> Result<Self, ReferenceError> {
        let format = *matrix.format();
        let not_codes = ReferenceError::NotCodes { format };
        let unit = match format.element().lift_unit() {
            Some(unit) => f64::from(unit),
            None => return Err(not_codes),
        };
        // From −255 − 255 (bipolar, zero point) to 255.
        let values: Vec<i16> = matrix
            .lifted_values()
            .ok_or(not_codes)?
            .into_iter()
            .map(|value| value as i16)
            .collect();
        let columns = matrix.columns();
        let group_len = format.group_len(columns).max(1);
        let mut scales = Vec::with_capacity(matrix.rows() * columns.div_ceil(span));
        for row in 0..matrix.rows() {
            for (index, values) in values[row * columns..][..columns].chunks(span).enumerate() {
                let group = index * span / group_len;
                let (scale, minimum) = (matrix.scale(row, group), matrix.minimum(row, group));
                scales.push(SpanScale {
                    columns: values.len() as f64,
                    integers: values.iter().map(|&value| f64::from(value)).sum(),
                    scale: unit * f64::from(scale),
                    minimum: f64::from(minimum),
                    scale_lost: unit * level_lost(&format, matrix.scale_levels(row, group)),
                    minimum_lost: level_lost(&format, matrix.minimum_levels(row, group)),
                });
            }
        }
        Ok(Self {
            values,
            columns,
            scales,
            span,
        })
    }

    pub(crate) fn row(&self, row: usize) -> &[i16] {
        &self.values[row * self.columns..][..self.columns]
    }

    pub(crate) fn scales(&self, row: usize) -> &[SpanScale] {
        let spans = self.columns.div_ceil(self.span);
        &self.scales[row * spans..][..spans]
    }

    /// The spans of row `row` of `self` against those of row `other_row` of `other`: the integer product, and the
    /// scales of both.
    pub(crate) fn spans<'a>(
        &'a self,
        row: usize,
        other: &'a Self,
        other_row: usize,
    ) -> impl Iterator<Item = (f64, &'a SpanScale, &'a SpanScale)> {
        let products = self
            .row(row)
            .chunks(self.span)
            .zip(other.row(other_row).chunks(self.span))
            .map(|(x, w)| f64::from(dot(x, w)));
        products
            .zip(self.scales(row))
            .zip(other.scales(other_row))
            .map(|((product, x), w)| (product, x, w))
    }
}
