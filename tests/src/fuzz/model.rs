//! Using a model file as a program would: every weight is read in every way.

use std::io::Cursor;

use anybit_formats::{MatrixFormat, PackedMatrix, QuantizeOptions};
use anybit_import::ModelFile;
use anybit_import::safetensors::{PackedWriter, SafetensorsFile};

use super::check_error;

/// What a weight is converted to.
const FORMAT: &str = "i4g32h";

/// Reads all there is.
///
/// # Panics
///
/// If two ways of reading disagree.
pub(super) fn use_model(file: &ModelFile) {
    assert!(!format!("{file:?}").is_empty());
    for (key, value) in file.metadata() {
        assert!(key.len() + value.len() < usize::MAX / 2);
    }
    let format: MatrixFormat = FORMAT.parse().expect("a format");
    let options = QuantizeOptions::default();
    for weight in file.weights() {
        let name = &weight.name;
        let matrix = file.matrix(name);
        let values = file.values(name);
        if let Ok(values) = &values {
            let elements: u64 = weight.shape.iter().product();
            assert_eq!(values.len() as u64, elements, "{name:?}");
        }
        match &matrix {
            Ok(matrix) => {
                assert_eq!(Some(*matrix.format()), weight.matrix_format, "{name:?}");
                let values = values.as_ref().unwrap_or_else(|error| {
                    panic!("{name:?} is a matrix, but has no values: {error}")
                });
                let decoded = matrix.decode();
                assert!(same_bits(&decoded, values), "{name:?} has two values");
                check_packing(name, matrix);
            }
            Err(error) => check_error(error),
        }
        match &values {
            Ok(values) => {
                let rows = rows_of(&weight.shape, values.len());
                if let Some(last) = rows.checked_sub(1) {
                    let columns = values.len() / rows;
                    let found = file.rows(name, &[last, 0]).expect("all values were read");
                    let expected = [&values[last * columns..], &values[..columns]].concat();
                    assert!(same_bits(&found, &expected), "{name:?} has other rows");
                }
                if let Err(error) = file.rows(name, &[rows]) {
                    check_error(&error);
                } else {
                    panic!("{name:?} gives row {rows} of {rows}");
                }
            }
            Err(error) => check_error(error),
        }
        match file.plain(name) {
            Ok(plain) => assert_eq!(
                plain.dtype.byte_size(&plain.shape),
                Some(plain.bytes.len() as u64)
            ),
            Err(error) => check_error(&error),
        }
        match file.matrix_as(name, format, &options) {
            Ok(converted) => assert_eq!(*converted.matrix.format(), format, "{name:?}"),
            Err(error) => check_error(&error),
        }
    }
    let unknown = file.matrix("a tensor of this name there is not");
    check_error(&unknown.expect_err("there is no such tensor"));
}

/// Rows of a shape with so many elements: of all dimensions but the last.
fn rows_of(shape: &[u64], elements: usize) -> usize {
    match shape.split_last() {
        None => elements,
        Some((0, outer)) => outer.iter().product::<u64>() as usize,
        Some((&columns, _)) => elements / columns as usize,
    }
}

fn same_bits(one: &[f32], other: &[f32]) -> bool {
    let bits = |values: &[f32]| {
        values
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    };
    bits(one) == bits(other)
}

/// The matrix in a file of packed matrices, and read again.
pub(super) fn check_packing(name: &str, matrix: &PackedMatrix) {
    // Names of a model may be ones that such a file needs itself.
    let name = format!("fuzz {name}");
    let file = packed_file(&[(&name, matrix)]);
    let file = SafetensorsFile::from_bytes(file).expect("what was written is right");
    assert_eq!(file.matrix(&name).expect("as it was written"), *matrix);
}

/// A file of packed matrices.
pub(super) fn packed_file(matrices: &[(&str, &PackedMatrix)]) -> Vec<u8> {
    let mut writer = PackedWriter::new(Cursor::new(Vec::new())).expect("writes into memory");
    for (name, matrix) in matrices {
        writer.matrix(name, matrix).expect("writes into memory");
    }
    writer.finish().expect("writes into memory").into_inner()
}
