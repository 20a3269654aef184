//! Every type against an independent decoder of ggml's definitions.

use std::io::Cursor;
use std::sync::Arc;

use anybit_formats::MatrixFormat;
use anybit_import::ImportError;
use anybit_import::gguf::GgufFile;

use crate::ggml::{self, Type};
use crate::writer::Writer;

const ROWS: usize = 5;
const COLUMNS: usize = 96;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A file with one `ROWS` × `COLUMNS` tensor of each type, named after it, and the bytes of each.
fn file_of_all_types() -> (GgufFile, Vec<(Type, Vec<u8>)>) {
    let mut writer = Writer::new();
    let mut tensors = Vec::new();
    for tensor_type in ggml::ALL {
        let bytes = ggml::random_tensor(tensor_type, ROWS * COLUMNS, u64::from(tensor_type.id));
        let dimensions = [COLUMNS as u64, ROWS as u64];
        writer = writer.tensor(tensor_type.name, &dimensions, tensor_type.id, bytes.clone());
        tensors.push((tensor_type, bytes));
    }
    let file = GgufFile::from_bytes(writer.build()).expect("the file is right");
    (file, tensors)
}

#[test]
fn every_type_decodes_as_ggml_does() {
    let (file, tensors) = file_of_all_types();
    for (tensor_type, bytes) in tensors {
        let matrix = file.matrix(tensor_type.name).expect(tensor_type.name);
        assert_eq!((matrix.rows(), matrix.columns()), (ROWS, COLUMNS));
        assert_eq!(matrix.format().to_string(), tensor_type.format);
        let expected = ggml::decode(tensor_type, &bytes);
        assert_eq!(
            bits(&matrix.decode()),
            bits(&expected),
            "{}",
            tensor_type.name
        );
    }
}

#[test]
fn codes_and_scales_are_those_of_the_file() {
    let (file, tensors) = file_of_all_types();
    for (tensor_type, bytes) in tensors {
        if tensor_type.block_elements == 1 {
            continue;
        }
        let matrix = file.matrix(tensor_type.name).expect(tensor_type.name);
        let integers = matrix.integer_values().expect("quantised types have codes");
        let groups = COLUMNS / 32;
        for (position, block) in bytes.chunks(tensor_type.block_bytes).enumerate() {
            let (row, group) = (position / groups, position % groups);
            let context = format!("{} row {row} group {group}", tensor_type.name);
            assert_eq!(
                integers[position * 32..][..32],
                ggml::integers(tensor_type, block),
                "{context}"
            );
            assert_eq!(
                matrix.scale(row, group).to_bits(),
                ggml::half(block).to_bits(),
                "{context}"
            );
            if tensor_type.halves.len() == 2 {
                assert_eq!(
                    matrix.minimum(row, group).to_bits(),
                    ggml::half(&block[2..]).to_bits(),
                    "{context}"
                );
            }
        }
    }
}

#[test]
fn chosen_rows_equal_those_of_the_decoded_matrix() {
    let (file, tensors) = file_of_all_types();
    let chosen = [4, 0, 4, 2];
    for (tensor_type, _) in tensors {
        let all = file.matrix(tensor_type.name).expect("readable").decode();
        let rows = file.rows(tensor_type.name, &chosen).expect("readable");
        let expected: Vec<f32> = chosen
            .iter()
            .flat_map(|&row| &all[row * COLUMNS..][..COLUMNS])
            .copied()
            .collect();
        assert_eq!(bits(&rows), bits(&expected), "{}", tensor_type.name);
        let none = file.rows(tensor_type.name, &[]).expect("no rows");
        assert!(none.is_empty());
    }
}

#[test]
fn tensors_are_listed_as_the_file_has_them() {
    let (file, tensors) = file_of_all_types();
    assert_eq!(file.version(), 3);
    assert_eq!(file.alignment(), 32);
    assert_eq!(file.tensors().len(), tensors.len());
    for (info, (tensor_type, bytes)) in file.tensors().iter().zip(&tensors) {
        assert_eq!(info.name(), tensor_type.name);
        assert_eq!(info.dimensions(), [COLUMNS as u64, ROWS as u64]);
        assert_eq!((info.rows(), info.columns()), (ROWS as u64, COLUMNS as u64));
        assert_eq!(info.elements(), (ROWS * COLUMNS) as u64);
        assert_eq!(info.byte_size(), Some(bytes.len() as u64));
        assert_eq!(info.tensor_type().id(), tensor_type.id);
        assert_eq!(info.tensor_type().to_string(), tensor_type.name);
        assert!(info.is_readable_matrix());
        let format = info.tensor_type().matrix_format().expect("readable");
        assert_eq!(format.to_string(), tensor_type.format);
        assert_eq!(file.tensor(tensor_type.name), Some(info));
    }
    assert!(file.tensor("absent").is_none());
}

#[test]
fn tensors_larger_than_a_chunk_are_read_whole() {
    for tensor_type in [ggml::Q4_0, ggml::Q5_1, ggml::F32] {
        let (rows, columns) = (417, 4096);
        let bytes = ggml::random_tensor(tensor_type, rows * columns, 7);
        let file = Writer::new()
            .tensor(
                "t",
                &[columns as u64, rows as u64],
                tensor_type.id,
                bytes.clone(),
            )
            .build();
        let file = GgufFile::from_bytes(file).expect("the file is right");
        let expected = ggml::decode(tensor_type, &bytes);
        assert!(file.matrix("t").expect("readable").decode() == expected);
        let last = file.rows("t", &[rows - 1]).expect("readable");
        assert!(last == expected[(rows - 1) * columns..]);
    }
}

#[test]
fn one_dimension_is_one_row() {
    let bytes = ggml::random_tensor(ggml::F32, 33, 1);
    let file = Writer::new()
        .tensor("vector", &[33], ggml::F32.id, bytes.clone())
        .tensor("scalar", &[], ggml::F32.id, bytes[..4].to_vec())
        .tensor("padded", &[33, 1, 1, 1], ggml::F32.id, bytes.clone())
        .build();
    let file = GgufFile::from_bytes(file).expect("the file is right");
    for (name, columns) in [("vector", 33), ("scalar", 1), ("padded", 33)] {
        let matrix = file.matrix(name).expect(name);
        assert_eq!((matrix.rows(), matrix.columns()), (1, columns));
        assert_eq!(matrix.decode(), ggml::decode(ggml::F32, &bytes)[..columns]);
    }
}

#[test]
fn three_dimensions_are_rows_but_no_matrix() {
    let bytes = ggml::random_tensor(ggml::Q8_0, 32 * 2 * 3, 1);
    let file = Writer::new()
        .tensor("experts", &[32, 2, 3], ggml::Q8_0.id, bytes.clone())
        .build();
    let file = GgufFile::from_bytes(file).expect("the file is right");
    let info = file.tensor("experts").expect("listed");
    assert_eq!((info.rows(), info.columns()), (6, 32));
    assert!(!info.is_readable_matrix());
    let error = file.matrix("experts").expect_err("three dimensions");
    assert!(
        matches!(&error, ImportError::NotAMatrix { dimensions, .. } if dimensions == &[32, 2, 3]),
        "{error:?}"
    );
    let error = file
        .matrix_as("experts", MatrixFormat::F32, None)
        .expect_err("three dimensions");
    assert!(matches!(error, ImportError::NotAMatrix { .. }), "{error:?}");
    let expected = ggml::decode(ggml::Q8_0, &bytes);
    assert_eq!(file.values("experts").expect("readable"), expected);
    let rows = file.rows("experts", &[5]).expect("readable");
    assert_eq!(rows, expected[5 * 32..]);
}

#[test]
fn version_2_and_other_alignments_are_read() {
    for alignment in [1u32, 8, 64, 4096] {
        let bytes = ggml::random_tensor(ggml::Q4_1, 64, 3);
        let mut writer = Writer::new()
            .metadata(
                "general.alignment",
                crate::writer::value_type::U32,
                &alignment.to_le_bytes(),
            )
            .tensor("a", &[64], ggml::Q4_1.id, bytes.clone())
            .tensor("b", &[64], ggml::Q4_1.id, bytes.clone());
        writer.version = 2;
        writer.alignment = alignment.into();
        let file = GgufFile::from_bytes(writer.build()).expect("the file is right");
        assert_eq!((file.version(), file.alignment()), (2, alignment.into()));
        for name in ["a", "b"] {
            let decoded = file.matrix(name).expect(name).decode();
            assert_eq!(bits(&decoded), bits(&ggml::decode(ggml::Q4_1, &bytes)));
        }
    }
}

#[test]
fn every_source_gives_the_same() {
    let bytes = ggml::random_tensor(ggml::F16, 8, 3);
    let file = Writer::new()
        .tensor("t", &[8], ggml::F16.id, bytes.clone())
        .build();
    let path = std::env::temp_dir().join(format!("anybit-import-{}.gguf", std::process::id()));
    std::fs::write(&path, &file).expect("the temporary folder can be written");
    let sources = [
        GgufFile::open(&path),
        GgufFile::from_bytes(Arc::<[u8]>::from(file.clone())),
        GgufFile::from_reader(Cursor::new(file)),
    ];
    std::fs::remove_file(&path).expect("the file was written");
    for source in sources {
        let source = source.expect("the file is right");
        // A model is shared between threads.
        let values = std::thread::scope(|scope| {
            let reader = scope.spawn(|| source.rows("t", &[0]));
            reader.join().expect("no panic")
        });
        assert_eq!(values.expect("readable"), ggml::decode(ggml::F16, &bytes));
    }
}
