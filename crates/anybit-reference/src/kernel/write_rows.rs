//! The twin of `kernel/write_rows.wgsl`.

use crate::{ReferenceError, Source};

/// Rows of a source (RMSNorm, a gated product), a residual added if there is one: in f64, since sums and functions are bounded
/// and not exact. The result has the rows' number and the [source's columns](Source::columns).
///
/// # Errors
///
/// [`ReferenceError::Length`] for operands that do not fit the rows.
pub fn write_rows(
    values: &[f32],
    rows: usize,
    columns: usize,
    source: &Source<'_>,
    residual: Option<&[f32]>,
) -> Result<Vec<f64>, ReferenceError> {
    let width = source.columns(columns)?;
    let check = |what, expected: usize, found: usize| {
        if expected == found {
            Ok(())
        } else {
            Err(ReferenceError::Length {
                what,
                expected,
                found,
            })
        }
    };
    check("values", rows.saturating_mul(columns), values.len())?;
    let residual_count = rows.saturating_mul(width);
    check(
        "values of the residual",
        residual_count,
        residual.map_or(residual_count, <[f32]>::len),
    )?;
    let mut written = Vec::with_capacity(residual_count);
    for row in values.chunks(columns.max(1)) {
        written.extend(source.values(row)?);
    }
    if let Some(residual) = residual {
        for (written, &residual) in written.iter_mut().zip(residual) {
            *written += f64::from(residual);
        }
    }
    Ok(written)
}
