//! The twin of `kernel/quantize_groups.wgsl`.

use anybit_formats::{AffineFormat, Calibration, Granularity};

use crate::ReferenceError;
use crate::quantize::{Quantized, Rule, assemble, check_values, vector};

/// f32 rows to codes with one scale every `group` columns, 16 or a multiple of 32 that divides `columns`.
///
/// # Errors
///
/// [`ReferenceError::Quantizer`] for a calibration other than [`Calibration::AbsMax`] and, for binary and ternary,
/// [`Calibration::AbsMean`]; [`ReferenceError::Length`] and [`ReferenceError::Format`] for wrong values or a wrong
/// group.
pub fn quantize_groups(
    values: &[f32],
    rows: usize,
    columns: usize,
    element: AffineFormat,
    calibration: Calibration,
    group: u32,
) -> Result<Quantized, ReferenceError> {
    let rule = Rule::new(element, calibration)?;
    check_values(values, rows, columns)?;
    let scales: Vec<(f32, f32)> = values
        .chunks((group as usize).max(1))
        .map(|values| {
            let statistic = (0..values.len().div_ceil(4)).fold(0.0, |statistic, index| {
                rule.statistic(statistic, vector(values, index))
            });
            rule.scale_and_inverse(statistic, values.len())
        })
        .collect();
    let granularity = Granularity::Group(group);
    assemble(values, rows, columns, element, granularity, &scales)
}
