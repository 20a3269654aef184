//! Every type of blocks against golden values, bit for bit.

use anybit_formats::quantize::{Calibration, quantize};
use anybit_formats::{FormatError, MatrixFormat};
use anybit_import::gguf::{GgufFile, TensorType};
use anybit_import::{ImportError, ScalePart};

use crate::golden::{self, TYPES, Type};
use crate::writer::Writer;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A file with one tensor "t", `rows` rows of `blocks`.
fn file_of(tensor_type: Type, rows: usize, blocks: Vec<u8>) -> GgufFile {
    let elements = blocks.len() / tensor_type.block_bytes * tensor_type.block_elements;
    let dimensions = [(elements / rows) as u64, rows as u64];
    let file = Writer::new()
        .tensor("t", &dimensions, tensor_type.id, blocks)
        .build();
    GgufFile::from_bytes(file).expect("the file is right")
}

fn format(name: &str) -> MatrixFormat {
    name.parse().expect(name)
}

#[test]
fn values_are_the_golden_ones() {
    for tensor_type in TYPES {
        let (blocks, expected) = tensor_type.load();
        // Every row has several blocks, and blocks begin rows.
        let rows = 3;
        let file = file_of(*tensor_type, rows, blocks);
        let columns = expected.len() / rows;
        let values = file.values("t").expect(tensor_type.name);
        assert_eq!(bits(&values), bits(&expected), "{}", tensor_type.name);
        let chosen = file.rows("t", &[2, 0]).expect(tensor_type.name);
        let expected = [&expected[2 * columns..], &expected[..columns]].concat();
        assert_eq!(bits(&chosen), bits(&expected), "{}", tensor_type.name);
    }
}

#[test]
fn matrices_decode_to_the_golden_values() {
    for tensor_type in TYPES {
        let (blocks, expected) = tensor_type.load();
        let file = file_of(*tensor_type, 3, blocks);
        let info = file.tensor("t").expect("listed");
        assert_eq!(info.tensor_type().name(), Some(tensor_type.name));
        assert!(info.tensor_type().is_readable());
        let Some(format) = tensor_type.format else {
            assert!(!info.is_readable_matrix());
            let error = file.matrix("t").expect_err("no such format");
            assert!(
                matches!(&error, ImportError::NoMatrixFormat { tensor, tensor_type }
                    if tensor == "t" && *tensor_type == info.tensor_type()),
                "{error:?}"
            );
            assert!(error.to_string().contains("matrix_as"), "{error}");
            continue;
        };
        assert!(info.is_readable_matrix());
        let matrix = file.matrix("t").expect(tensor_type.name);
        assert_eq!((matrix.rows(), matrix.columns()), (3, expected.len() / 3));
        assert_eq!(matrix.format().to_string(), format);
        if let Some(named) = MatrixFormat::named(&tensor_type.name.to_lowercase()) {
            assert_eq!(*matrix.format(), named);
        }
        assert_eq!(
            bits(&matrix.decode()),
            bits(&expected),
            "{}",
            tensor_type.name
        );
    }
}

#[test]
fn tensors_of_many_chunks_are_read_whole() {
    // More than the bytes that are read at a time, in rows that end within a chunk.
    for tensor_type in TYPES {
        let (_, expected) = tensor_type.load();
        let (rows, row_blocks) = (7, (3 << 20) / (7 * tensor_type.block_bytes));
        let file = file_of(*tensor_type, rows, tensor_type.blocks(rows * row_blocks));
        let values = file.values("t").expect(tensor_type.name);
        let repeated = expected.iter().cycle().take(values.len());
        assert!(
            values
                .iter()
                .zip(repeated)
                .all(|(value, expected)| value.to_bits() == expected.to_bits()),
            "{}",
            tensor_type.name
        );
        if tensor_type.format.is_some() {
            let matrix = file.matrix("t").expect(tensor_type.name);
            assert!(matrix.decode() == values, "{}", tensor_type.name);
        }
    }
}

#[test]
fn wrong_row_lengths_are_refused() {
    for tensor_type in TYPES {
        let block = tensor_type.block_elements as u64;
        for columns in [1, block / 2, block + 16, 3 * block - 1] {
            if columns % block == 0 {
                continue;
            }
            let file = Writer::new().tensor("t", &[columns, 32], tensor_type.id, vec![0; 4096]);
            let error = GgufFile::from_bytes(file.build()).expect_err("not whole blocks");
            assert!(
                matches!(&error, ImportError::BlockDoesNotDivide { columns: found, block: size, .. }
                    if *found == columns && *size == block),
                "{}: {error:?}",
                tensor_type.name
            );
        }
    }
}

/// Damages block 1 of row 2 by `damage` and checks that reading says so in an error that `is_right` accepts, and that
/// the other rows can be read.
fn check_damage(
    tensor_type: Type,
    damage: impl Fn(&mut [u8]),
    is_right: impl Fn(&ImportError) -> bool,
) {
    let (rows, row_blocks) = (3, 2);
    let mut blocks = tensor_type.blocks(rows * row_blocks);
    damage(&mut blocks[5 * tensor_type.block_bytes..]);
    let file = file_of(tensor_type, rows, blocks);
    let mut errors = vec![
        file.values("t").expect_err(tensor_type.name),
        file.rows("t", &[2]).expect_err(tensor_type.name),
        file.matrix_as("t", format("i8rf"), None)
            .expect_err(tensor_type.name),
    ];
    if tensor_type.format.is_some() {
        errors.push(file.matrix("t").expect_err(tensor_type.name));
    }
    for error in errors {
        assert!(is_right(&error), "{}: {error:?}", tensor_type.name);
    }
    file.rows("t", &[0, 1]).expect("the other rows are right");
}

#[test]
fn scales_that_are_not_finite_are_named() {
    let check = |tensor_type: Type, part, damage: &dyn Fn(&mut [u8])| {
        check_damage(tensor_type, damage, |error| {
            matches!(error, ImportError::NonFiniteScale { row: 2, block: 1, part: found, value, .. }
                if *found == part && !value.is_finite())
        });
    };
    // Infinite, negative infinite, not a number.
    for wrong in [0x7C00u16, 0xFC00, 0x7C01, 0xFFFF] {
        for &tensor_type in TYPES {
            for (&at, part) in tensor_type
                .halves
                .iter()
                .zip([ScalePart::Scale, ScalePart::Minimum])
            {
                check(tensor_type, part, &|block| {
                    block[at..at + 2].copy_from_slice(&wrong.to_le_bytes());
                });
            }
        }
        // Its scale is in the top of four words, the lowest bits first.
        check(golden::named("IQ1_M"), ScalePart::Scale, &|block| {
            for word in 0..4 {
                let top = (wrong >> (4 * word) & 0x0F) as u8;
                let byte = &mut block[49 + 2 * word];
                *byte = *byte & 0x0F | top << 4;
            }
        });
    }
    for wrong in [0x7F80_0000u32, 0xFF80_0000, 0x7FC0_0000] {
        check(golden::named("Q8_K"), ScalePart::Scale, &|block| {
            block[..4].copy_from_slice(&wrong.to_le_bytes());
        });
    }
}

#[test]
fn bytes_that_are_no_scale_are_named() {
    let check = |tensor_type, at: usize, wrong: u8| {
        check_damage(
            tensor_type,
            |block| block[at] = wrong,
            |error| {
                matches!(error, ImportError::InvalidScale { row: 2, block: 1, byte, .. }
                    if *byte == wrong)
            },
        );
    };
    check(golden::named("MXFP4"), 0, 0xFF);
    for at in 0..4 {
        for wrong in [0x7F, 0x80, 0xFE, 0xFF] {
            check(golden::named("NVFP4"), at, wrong);
        }
    }
}

#[test]
fn codes_that_are_not_ternary_are_named() {
    for at in [0, 63] {
        for shift in [0, 2, 4, 6] {
            check_damage(
                golden::named("TQ2_0"),
                |block| block[at] |= 3 << shift,
                |error| {
                    matches!(
                        error,
                        ImportError::InvalidCode {
                            row: 2,
                            block: 1,
                            code: 3,
                            limit: 2,
                            ..
                        }
                    )
                },
            );
        }
    }
}

#[test]
fn every_byte_of_five_ternary_digits_is_read() {
    // From the definition: the byte is q · 256 / 243, rounded up, and the first digit of q the highest.
    let tensor_type = golden::named("TQ1_0");
    for q in 0..243usize {
        let mut block = vec![0; tensor_type.block_bytes];
        block[0] = (q * 256).div_ceil(243) as u8;
        block[52..].copy_from_slice(&0x3C00u16.to_le_bytes());
        let values = file_of(tensor_type, 1, block).values("t").expect("right");
        let digits: Vec<f32> = [81, 27, 9, 3, 1]
            .map(|power| (q / power % 3) as f32 - 1.0)
            .to_vec();
        let found: Vec<f32> = values.iter().step_by(32).take(5).copied().collect();
        assert_eq!(found, digits, "{q}");
    }
}

#[test]
fn conversion_says_what_it_did() {
    for &tensor_type in TYPES {
        let (blocks, expected) = tensor_type.load();
        let (rows, columns) = (2, expected.len() / 2);
        let file = file_of(tensor_type, rows, blocks);
        let stored = file.tensor("t").expect("listed").tensor_type();

        // To a format of its own: quantised, unless it is what the file has.
        let converted = file
            .matrix_as("t", format("i8g16f"), Some(Calibration::AbsMax))
            .expect(tensor_type.name);
        assert_eq!(converted.requantised_from, Some(stored));
        let direct = quantize(
            &expected,
            rows,
            columns,
            format("i8g16f"),
            Some(Calibration::AbsMax),
        );
        assert_eq!(converted.matrix, direct.expect("right"));

        // f32 holds every value.
        let converted = file.matrix_as("t", MatrixFormat::F32, None).expect("right");
        assert_eq!(converted.requantised_from, None);
        assert_eq!(bits(&converted.matrix.decode()), bits(&expected));

        if let Some(name) = tensor_type.format {
            let converted = file.matrix_as("t", format(name), None).expect("right");
            assert_eq!(converted.requantised_from, None);
            assert_eq!(converted.matrix, file.matrix("t").expect("right"));
        }
    }
}

#[test]
fn conversion_in_parts_is_conversion_at_once() {
    let tensor_type = golden::named("IQ2_XS");
    let (rows, columns) = (1100, 4096);
    let file = file_of(tensor_type, rows, tensor_type.blocks(rows * columns / 256));
    let values = file.values("t").expect("right");
    for name in [
        "u4g32fm",
        "i4rf",
        "i4f",
        "u8g32fz",
        "nf4g64f",
        "e2m1g32e",
        "e2m1g16k",
        "i6g16s",
        "bitmod4g128qc",
    ] {
        let format = format(name);
        let expected = quantize(&values, rows, columns, format, None).expect(name);
        let converted = file.matrix_as("t", format, None).expect(name);
        assert!(converted.matrix == expected, "{name}");
        assert_eq!(converted.requantised_from, Some(TensorType::IQ2_XS));
    }
}

#[test]
fn values_that_a_format_cannot_hold_are_named_by_their_row() {
    // The last row is beyond the first part that is converted.
    let (rows, columns) = (1100, 4096);
    let mut bytes = vec![0; rows * columns * 4];
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&1e30f32.to_le_bytes());
    let file = Writer::new()
        .tensor("t", &[columns as u64, rows as u64], 0, bytes)
        .build();
    let file = GgufFile::from_bytes(file).expect("the file is right");
    let error = file
        .matrix_as("t", format("i4g32h"), None)
        .expect_err("no f16 is as large");
    assert!(
        matches!(
            &error,
            ImportError::Matrix {
                source: FormatError::ScaleOverflow {
                    row: 1099,
                    group: 127,
                    ..
                },
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn products_beyond_f32_are_infinite_as_in_ggml() {
    // 2^127 · 6, in the last of 32.
    let tensor_type = golden::named("MXFP4");
    let mut block = vec![0; tensor_type.block_bytes];
    (block[0], block[16]) = (254, 0x70);
    let file = file_of(tensor_type, 1, block);
    let values = file.values("t").expect("the scale is finite");
    assert_eq!(values[31], f32::INFINITY);
    assert_eq!(file.matrix("t").expect("finite parts").decode(), values);
    let error = file
        .matrix_as("t", format("i4g32f"), None)
        .expect_err("not finite");
    assert!(
        matches!(
            &error,
            ImportError::Matrix {
                source: FormatError::NonFinite {
                    row: 0,
                    column: 31,
                    ..
                },
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn conversions_that_make_no_sense_are_refused() {
    let tensor_type = golden::named("IQ3_S");
    let file = file_of(tensor_type, 3, tensor_type.blocks(3));
    let error = file
        .matrix_as("t", format("i4g96f"), None)
        .expect_err("96 does not divide 256");
    assert!(
        matches!(
            &error,
            ImportError::Matrix {
                source: FormatError::GroupDoesNotDivide { .. },
                ..
            }
        ),
        "{error:?}"
    );
    let error = file
        .matrix_as("t", format("i4g32f"), Some(Calibration::AbsMean))
        .expect_err("for ternary alone");
    assert!(
        matches!(
            &error,
            ImportError::Matrix {
                source: FormatError::Calibration { .. },
                ..
            }
        ),
        "{error:?}"
    );
}
