//! The twin of `kernel/quantize_rows.wgsl`.

use anybit_formats::{MatrixFormat, QuantizeRowsOptions};

use super::reduce::butterfly;
use crate::ReferenceError;
use crate::integers::is_grouped;
use crate::quantize::{Quantized, Rule, assemble, check_values, vector};

/// f32 rows to codes with one scale a row. `workgroup`, a power of two, is the number of invocations that share a row
/// (`WORKGROUP`); it changes the order in which magnitudes are added where the scale is their mean.
///
/// # Errors
///
/// [`ReferenceError::Quantizer`] for a format that the quantising kernels do not make, or one of groups;
/// [`ReferenceError::Constant`] for a workgroup that is no power of two; [`ReferenceError::Length`] and
/// [`ReferenceError::Format`] for wrong values.
pub fn quantize_rows(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: &MatrixFormat,
    workgroup: usize,
) -> Result<Quantized, ReferenceError> {
    let options = QuantizeRowsOptions::default();
    quantize_rows_with(values, rows, columns, format, workgroup, &options)
}

/// [`quantize_rows`] with options.
///
/// # Errors
///
/// Those of [`quantize_rows`]; [`ReferenceError::Format`] for a rounding that the element does not take, and for values that
/// become infinite or NaN, which no matrix holds.
pub fn quantize_rows_with(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: &MatrixFormat,
    workgroup: usize,
    options: &QuantizeRowsOptions,
) -> Result<Quantized, ReferenceError> {
    let rule = Rule::new(format, options)?;
    if format.scales().is_none() || is_grouped(format) {
        return Err(ReferenceError::Quantizer {
            format: *format,
            reason: "quantize_rows makes one scale a row",
        });
    }
    check_values(values, rows, columns)?;
    if !workgroup.is_power_of_two() {
        return Err(ReferenceError::Constant {
            what: "WORKGROUP",
            expected: "a power of two",
            found: workgroup,
        });
    }
    let scales: Vec<(f32, f32)> = (0..rows)
        .map(|row| {
            let row = &values[row * columns..][..columns];
            let mut lanes = vec![0.0; workgroup];
            for index in 0..columns.div_ceil(4) {
                let lane = &mut lanes[index % workgroup];
                *lane = rule.statistic(*lane, vector(row, index));
            }
            let statistic = butterfly(lanes, |a, b| rule.join(a, b)).unwrap_or_default();
            rule.scale_and_inverse(statistic, columns)
        })
        .collect();
    assemble(values, rows, columns, format, options, &scales)
}
