//! Values into matrices of a chosen format, some rows at a time.

use std::ops::Range;

use anybit_formats::{
    FormatError, Granularity, MatrixFormat, PackedMatrix, QuantizeOptions, Rounding, ScaleType,
    quantize_with,
};

use crate::ImportError;
use crate::gguf::shorten;

/// How many values are decoded at a time, about, on the way to another format.
const SLAB_VALUES: usize = 1 << 22;

/// A weight as a matrix of the format asked for. `S` says how a file stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvertedMatrix<S> {
    /// The matrix, in the format asked for.
    pub matrix: PackedMatrix,
    /// `None` if the matrix has exactly the values of the file. Else how they are stored there and were quantised
    /// from, which for all but float types means that they were rounded a second time.
    pub requantised_from: Option<S>,
}

/// Quantises a weight, whose rows `read` appends to a list of values.
pub(crate) fn quantize_rows(
    name: &str,
    rows: usize,
    columns: usize,
    format: MatrixFormat,
    options: &QuantizeOptions,
    mut read: impl FnMut(Range<usize>, &mut Vec<f32>) -> Result<(), ImportError>,
) -> Result<PackedMatrix, ImportError> {
    let failed = |source| ImportError::Matrix {
        tensor: shorten(name),
        source,
    };
    format.check_shape(rows, columns).map_err(failed)?;
    let slab_rows = if needs_all(&format, options) {
        rows
    } else {
        (SLAB_VALUES / columns.max(1)).max(1)
    };
    let mut parts = Vec::new();
    let mut start = 0;
    while start < rows {
        let end = rows.min(start.saturating_add(slab_rows));
        let mut values = Vec::new();
        read(start..end, &mut values)?;
        let part = quantize_with(&values, end - start, columns, format, options);
        parts.push(part.map_err(|source| failed(in_row(source, start)))?);
        start = end;
    }
    match <[PackedMatrix; 1]>::try_from(parts) {
        Ok([whole]) => Ok(whole),
        Err(parts) => PackedMatrix::concat_rows(format, columns, &parts).map_err(failed),
    }
}

/// Whether the values must come all at once: each part would have another scale, or the random bits of the first.
fn needs_all(format: &MatrixFormat, options: &QuantizeOptions) -> bool {
    let one_scale = format.scales().is_some_and(|layout| {
        layout.granularity == Granularity::Tensor || layout.scale == ScaleType::E4m3
    });
    one_scale || matches!(options.rounding, Rounding::Stochastic { .. })
}

/// An error about a place in rows from `start` on, as one about a place in the whole matrix.
fn in_row(mut error: FormatError, start: usize) -> FormatError {
    if let FormatError::NonFinite { row, .. }
    | FormatError::ElementOverflow { row, .. }
    | FormatError::ScaleOverflow { row, .. }
    | FormatError::MinimumOverflow { row, .. } = &mut error
    {
        *row += start;
    }
    error
}
