//! The twin of `kernel/quantize_groups.wgsl`.

use anybit_formats::MatrixFormat;

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
    let rule = Rule::new(format)?;
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
    assemble(values, rows, columns, format, &scales)
}
