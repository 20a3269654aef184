//! The twin of `kernel/quantize_groups.wgsl`.

use anybit_formats::{MatrixFormat, QuantizeRowsOptions};

use crate::ReferenceError;
use crate::quantize::{Quantized, Rule, assemble, check_values, vector};

/// f32 rows to codes with one scale a group, or bare codes.
///
/// # Errors
///
/// [`ReferenceError::Quantizer`] for a format that the quantising kernels do not make; [`ReferenceError::Length`] and
/// [`ReferenceError::Format`] for wrong values or a group that does not divide the columns.
pub fn quantize_groups(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: &MatrixFormat,
) -> Result<Quantized, ReferenceError> {
    quantize_groups_with(
        values,
        rows,
        columns,
        format,
        &QuantizeRowsOptions::default(),
    )
}

/// [`quantize_groups`] with options.
///
/// # Errors
///
/// Those of [`quantize_groups`]; [`ReferenceError::Format`] for a rounding that the element does not take, and for values
/// that become infinite or NaN, which no matrix holds.
pub fn quantize_groups_with(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: &MatrixFormat,
    options: &QuantizeRowsOptions,
) -> Result<Quantized, ReferenceError> {
    let rule = Rule::new(format, options)?;
    check_values(values, rows, columns)?;
    format.check_shape(rows, columns)?;
    let scales: Vec<(f32, f32)> = values
        .chunks(format.group_len(columns).max(1))
        .map(|values| {
            let statistic = (0..values.len().div_ceil(4)).fold(0.0, |statistic, index| {
                rule.statistic(statistic, vector(values, index))
            });
            rule.scale_and_inverse(statistic, values.len())
        })
        .collect();
    assemble(values, rows, columns, format, options, &scales)
}
