//! The twin of `kernel/gather.wgsl`.

use anybit_formats::PackedMatrix;

use super::decode;

/// The rows of a matrix that ids name, as f32 and multiplied by `factor`, into as many rows of `output`. An id past the matrix
/// leaves its row as it is.
pub fn gather(matrix: &PackedMatrix, ids: &[u32], factor: f32, output: &mut [f32]) {
    let columns = matrix.columns();
    if columns == 0 {
        return;
    }
    let values = decode(matrix);
    for (&id, output) in ids.iter().zip(output.chunks_mut(columns)) {
        let row = (id as usize).saturating_mul(columns);
        if let Some(values) = values.get(row..row.saturating_add(columns)) {
            for (output, &value) in output.iter_mut().zip(values) {
                *output = value * factor;
            }
        }
    }
}
