//! The twin of `kernel/decode.wgsl`.

use anybit_formats::{PackedMatrix, ZeroKind};

/// The values of a matrix, row-major: `scl_apply(fmt_values(…))` with its operations, each rounded to nearest.
pub fn decode(matrix: &PackedMatrix) -> Vec<f32> {
    let format = matrix.format();
    let element = format.element();
    if !element.has_codes() {
        // Floats are read as they are.
        return matrix.decode();
    }
    let columns = matrix.columns();
    let group_len = format.group_len(columns).max(1);
    let codes = matrix.unpack_codes();
    let mut values = Vec::with_capacity(codes.len());
    for (row, codes) in codes.chunks(columns.max(1)).enumerate() {
        for (group, codes) in codes.chunks(group_len).enumerate() {
            let scale = matrix.scale(row, group);
            let zero = matrix.zero_point(row, group) as f32;
            let minimum = matrix.minimum(row, group);
            let choice = matrix.choice(row, group);
            values.extend(codes.iter().map(|&code| {
                let value = element.code_value_with(code, choice).unwrap_or(0.0);
                let value = (value - zero) * scale;
                if format.zero_kind() == ZeroKind::Minimum {
                    value + minimum
                } else {
                    value
                }
            }));
        }
    }
    values
}
