//! Operands as integers in spans along K, with what scales each span.

use anybit_formats::{
    ElementFormat, FloatFormat, Granularity, MatrixFormat, PackedMatrix, ScaleType,
};

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

pub(crate) fn check_codes(matrix: &PackedMatrix) -> Result<(), ReferenceError> {
    match matrix.format().element() {
        ElementFormat::Affine(_) => Ok(()),
        _ => Err(ReferenceError::NotCodes {
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

/// The float type of a format's scales.
pub(crate) fn scale_float(format: &MatrixFormat) -> FloatFormat {
    match format.scales() {
        Some(layout) if layout.scale == ScaleType::F16 => FloatFormat::F16,
        _ => FloatFormat::F32,
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

/// The integers a·u + b − z of some rows, and the scales of their spans.
pub(crate) struct Integers {
    values: Vec<i16>,
    columns: usize,
    scales: Vec<SpanScale>,
    span: usize,
}

impl Integers {
    pub(crate) fn new(matrix: &PackedMatrix, span: usize) -> Result<Self, ReferenceError> {
        let format = *matrix.format();
        // From −255 − 255 (bipolar, zero point) to 255.
        let values: Vec<i16> = matrix
            .integer_values()
            .ok_or(ReferenceError::NotCodes { format })?
            .into_iter()
            .map(|value| value as i16)
            .collect();
        let columns = matrix.columns();
        let group_len = format.group_len(columns).max(1);
        let stored = scale_float(&format);
        let mut scales = Vec::with_capacity(matrix.rows() * columns.div_ceil(span));
        for row in 0..matrix.rows() {
            for (index, values) in values[row * columns..][..columns].chunks(span).enumerate() {
                let group = index * span / group_len;
                let (scale, minimum) = (matrix.scale(row, group), matrix.minimum(row, group));
                scales.push(SpanScale {
                    columns: values.len() as f64,
                    integers: values.iter().map(|&value| f64::from(value)).sum(),
                    scale: f64::from(scale),
                    minimum: f64::from(minimum),
                    scale_lost: lost(scale, stored),
                    minimum_lost: lost(minimum, stored),
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
