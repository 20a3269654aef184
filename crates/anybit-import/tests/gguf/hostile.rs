//! Files that are wrong in one way each, and the error that says so.

use anybit_formats::{FormatError, MatrixFormat};
use anybit_import::gguf::{GgufFile, ValueType};
use anybit_import::{ImportError, ScalePart};

use crate::ggml::{self, Q4_0, Q4_1, Q8_0};
use crate::golden;
use crate::writer::{Writer, array, string, value_type};

fn refused(file: &[u8]) -> ImportError {
    GgufFile::from_bytes(file.to_vec()).expect_err("the file is wrong")
}

/// Checks that building `$writer` is refused with an error that matches.
macro_rules! assert_refused {
    ($writer:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = refused(&$writer.build());
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
    };
}

fn small_file() -> Vec<u8> {
    let strings = [string("one"), string("two")].concat();
    Writer::new()
        .metadata("general.architecture", value_type::STRING, &string("llama"))
        .metadata(
            "words",
            value_type::ARRAY,
            &array(value_type::STRING, 2, &strings),
        )
        .metadata("number", value_type::F64, &1f64.to_le_bytes())
        .tensor("a", &[32, 2], Q4_0.id, ggml::random_tensor(Q4_0, 64, 1))
        .tensor(
            "b",
            &[8],
            ggml::F32.id,
            ggml::random_tensor(ggml::F32, 8, 1),
        )
        .tensor("c", &[256, 2], 14, golden::named("Q6_K").blocks(2))
        .tensor("d", &[256], 17, golden::named("IQ2_XS").blocks(1))
        .build()
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let file = small_file();
    GgufFile::from_bytes(file.clone()).expect("whole, it is right");
    for length in 0..file.len() {
        let error = refused(&file[..length]);
        assert!(
            matches!(
                error,
                ImportError::Truncated { .. }
                    | ImportError::CountTooLarge { .. }
                    | ImportError::TensorOutOfFile { .. }
            ),
            "{length} bytes: {error:?}"
        );
    }
}

#[test]
fn other_files_are_refused() {
    let error = refused(b"GGML and more that follows");
    assert!(
        matches!(error, ImportError::NotGguf { found } if &found == b"GGML"),
        "{error:?}"
    );
    for version in [0, 1, 4, 0x0203] {
        let mut writer = Writer::new();
        writer.version = version;
        assert_refused!(writer, ImportError::UnsupportedVersion { version: found } if *found == version);
    }
}

#[test]
fn big_endian_files_are_recognised() {
    let mut file = b"GGUF".to_vec();
    file.extend_from_slice(&3u32.to_be_bytes());
    file.extend_from_slice(&0u64.to_be_bytes());
    file.extend_from_slice(&0u64.to_be_bytes());
    let error = refused(&file);
    assert!(
        matches!(error, ImportError::BigEndian { version: 3 }),
        "{error:?}"
    );
}

#[test]
fn huge_counts_are_refused() {
    for count in [1, 2, 1 << 32, u64::MAX / 25, u64::MAX] {
        let mut writer = Writer::new();
        writer.tensor_count = Some(count);
        assert_refused!(writer, ImportError::CountTooLarge { count: found, limit: 0, .. } if *found == count);
        let mut writer = Writer::new();
        writer.metadata_count = Some(count);
        assert_refused!(writer, ImportError::CountTooLarge { count: found, limit: 0, .. } if *found == count);
    }
    // Bytes that an element of each type takes at least.
    let sizes = [1u64, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];
    for (element_type, size) in (0..).zip(sizes) {
        for count in [16 / size + 1, 1 << 40, u64::MAX / 8, u64::MAX] {
            let value = array(element_type, count, &[0; 16]);
            assert_refused!(
                Writer::new().metadata("k", value_type::ARRAY, &value),
                ImportError::CountTooLarge { count: found, limit, available: 16, .. }
                    if *found == count && *limit == 16 / size
            );
        }
    }
}

#[test]
fn strings_longer_than_the_file_are_refused() {
    for length in [6u64, 1 << 33, u64::MAX] {
        let mut value = length.to_le_bytes().to_vec();
        value.extend_from_slice(b"llama");
        assert_refused!(
            Writer::new().metadata("k", value_type::STRING, &value),
            ImportError::Truncated { needed, available: 5, .. } if *needed == length
        );
    }
}

#[test]
fn names_are_bounded() {
    let long = "k".repeat(65_536);
    let value = [0];
    for (name, length) in [("", 0), (long.as_str(), 65_536)] {
        // A second entry keeps the counts from being refused first.
        assert_refused!(
            Writer::new()
                .metadata(name, value_type::U8, &value)
                .metadata("another", value_type::U8, &value),
            ImportError::NameLength { what: "a metadata key", length: found, limit: 65_535, .. } if *found == length
        );
        assert_refused!(
            Writer::new()
                .tensor(name, &[1], ggml::F32.id, vec![0; 4])
                .tensor("t", &[1], ggml::F32.id, vec![0; 4]),
            ImportError::NameLength { what: "a tensor name", length: found, .. } if *found == length
        );
    }
    let longest = &long[1..];
    GgufFile::from_bytes(
        Writer::new()
            .metadata(longest, value_type::U8, &value)
            .build(),
    )
    .expect("65535 bytes are allowed");

    // Messages stay short whatever the file calls its things.
    let twice = Writer::new()
        .metadata(longest, value_type::U8, &value)
        .metadata(longest, value_type::U8, &value);
    let message = refused(&twice.build()).to_string();
    assert!(message.len() < 300, "{} bytes", message.len());
}

#[test]
fn names_in_messages_are_escaped() {
    let writer = Writer::new().tensor("\u{1b}[2Jclear", &[3], 99, vec![]);
    let file = GgufFile::from_bytes(writer.build()).expect("the file is right");
    let error = file.matrix("\u{1b}[2Jclear").expect_err("unknown type");
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}

#[test]
fn strings_must_be_utf8() {
    let wrong = [b'a', 0xFF];
    assert_refused!(
        Writer::new().metadata(wrong, value_type::U8, &[0]),
        ImportError::InvalidUtf8 {
            what: "a metadata key",
            offset: 32,
            ..
        }
    );
    assert_refused!(
        Writer::new().metadata("k", value_type::STRING, &string(wrong)),
        ImportError::InvalidUtf8 {
            what: "a metadata string",
            ..
        }
    );
    assert_refused!(
        Writer::new().metadata(
            "k",
            value_type::ARRAY,
            &array(value_type::STRING, 1, &string(wrong))
        ),
        ImportError::InvalidUtf8 { .. }
    );
    assert_refused!(
        Writer::new().tensor(wrong, &[1], ggml::F32.id, vec![0; 4]),
        ImportError::InvalidUtf8 {
            what: "a tensor name",
            ..
        }
    );
}

#[test]
fn values_of_unknown_or_wrong_form_are_refused() {
    assert_refused!(
        Writer::new().metadata("k", 13, &[0; 8]),
        ImportError::UnknownValueType { key, id: 13 } if key == "k"
    );
    assert_refused!(
        Writer::new().metadata("k", value_type::ARRAY, &array(u32::MAX, 1, &[0; 8])),
        ImportError::UnknownValueType { id: u32::MAX, .. }
    );
    assert_refused!(
        Writer::new().metadata("k", value_type::BOOL, &[2]),
        ImportError::InvalidBool {
            value: 2,
            offset: 37
        }
    );
    assert_refused!(
        Writer::new().metadata(
            "k",
            value_type::ARRAY,
            &array(value_type::BOOL, 2, &[1, 255])
        ),
        ImportError::InvalidBool { value: 255, .. }
    );
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| {
        let mut value = array(value_type::U8, 1, &[7]);
        for _ in 1..depth {
            value = array(value_type::ARRAY, 1, &value);
        }
        Writer::new().metadata("k", value_type::ARRAY, &value)
    };
    GgufFile::from_bytes(nested(8).build()).expect("8 deep is allowed");
    assert_refused!(nested(9), ImportError::ArrayTooDeep { key, limit: 8 } if key == "k");
    assert_refused!(nested(100_000), ImportError::ArrayTooDeep { .. });
    // A message shows the beginning of a key.
    let key = "\u{1}".repeat(65_535);
    let file = Writer::new().metadata(
        key,
        value_type::ARRAY,
        &array(value_type::ARRAY, 1, &[]).repeat(9),
    );
    let error = GgufFile::from_bytes(file.build()).expect_err("too deep");
    assert!(
        matches!(error, ImportError::ArrayTooDeep { .. }),
        "{error:.200}"
    );
    assert!(error.to_string().len() < 2000, "{error:.200}");
}

#[test]
fn keys_and_names_must_be_unique() {
    assert_refused!(
        Writer::new()
            .metadata("k", value_type::U8, &[0])
            .metadata("other", value_type::U8, &[0])
            .metadata("k", value_type::U8, &[0]),
        ImportError::DuplicateKey { key } if key == "k"
    );
    assert_refused!(
        Writer::new()
            .tensor("t", &[1], ggml::F32.id, vec![0; 4])
            .tensor("other", &[1], ggml::F32.id, vec![0; 4])
            .tensor("t", &[1], ggml::F32.id, vec![0; 4]),
        ImportError::DuplicateTensor { name } if name == "t"
    );
}

#[test]
fn alignment_must_be_a_bounded_power_of_two() {
    for value in [0u32, 3, 33, 48, 1 << 21, u32::MAX] {
        assert_refused!(
            Writer::new().metadata("general.alignment", value_type::U32, &value.to_le_bytes()),
            ImportError::InvalidAlignment { value: found, .. } if *found == u64::from(value)
        );
    }
    assert_refused!(
        Writer::new().metadata("general.alignment", value_type::STRING, &string("32")),
        ImportError::WrongValueType {
            found: ValueType::String,
            ..
        }
    );
    assert_refused!(
        Writer::new().metadata(
            "general.alignment",
            value_type::I32,
            &(-32i32).to_le_bytes()
        ),
        ImportError::ValueOutOfRange { value: -32, .. }
    );
}

#[test]
fn dimensions_must_multiply() {
    let tensor = |dimensions: &[u64], tensor_type| {
        Writer::new().tensor("t", dimensions, tensor_type, vec![0; 64])
    };
    assert_refused!(
        tensor(&[1; 5], 0),
        ImportError::TooManyDimensions {
            count: 5,
            limit: 4,
            ..
        }
    );
    for dimensions in [
        &[u64::MAX, 2][..],
        &[1 << 32, 1 << 32],
        &[1 << 20, 1 << 20, 1 << 20, 1 << 20],
        // The elements can be counted, their bytes not.
        &[1 << 62],
        &[u64::MAX],
    ] {
        assert_refused!(
            tensor(dimensions, 0),
            ImportError::DimensionsOverflow { dimensions: found, .. } if found == dimensions
        );
    }
    for (tensor_type, block) in [(Q4_0.id, 32), (Q8_0.id, 32), (12, 256)] {
        for columns in [1, 31, 33, block + 16] {
            assert_refused!(
                tensor(&[columns, 32], tensor_type),
                ImportError::BlockDoesNotDivide { columns: found, block: size, .. }
                    if *found == columns && *size == block
            );
        }
    }
}

#[test]
fn tensors_must_lie_in_the_file() {
    for (offset, columns) in [
        (0, 17),
        (32, 9),
        (64, 1),
        (1 << 40, 1),
        (u64::MAX - 31, 1),
        (0, 1 << 61),
    ] {
        let writer = Writer::new().tensor_at(offset, "t", &[columns], ggml::F32.id, vec![0; 64]);
        assert_refused!(writer, ImportError::TensorOutOfFile { available: 64, .. });
    }
    // The size of an unknown type is unknown; its beginning is not.
    let unknown = |offset| Writer::new().tensor_at(offset, "t", &[5], 99, vec![0; 64]);
    GgufFile::from_bytes(unknown(64).build()).expect("begins within the file");
    assert_refused!(unknown(96), ImportError::TensorOutOfFile { .. });
}

#[test]
fn tensors_must_be_aligned() {
    for offset in [1, 16, 31, 33] {
        assert_refused!(
            Writer::new().tensor_at(offset, "t", &[1], ggml::F32.id, vec![0; 64]),
            ImportError::MisalignedTensor { offset: found, alignment: 32, .. } if *found == offset
        );
    }
}

#[test]
fn tensors_must_not_overlap() {
    let two = |first, second| {
        Writer::new()
            .tensor_at(first, "a", &[16], ggml::F32.id, vec![0; 64])
            .tensor_at(second, "b", &[16], ggml::F32.id, vec![0; 64])
    };
    GgufFile::from_bytes(two(0, 64).build()).expect("they touch");
    GgufFile::from_bytes(two(64, 0).build()).expect("order is free");
    assert_refused!(
        two(0, 32),
        ImportError::OverlappingTensors { first, second, end: 64, start: 32 } if first == "a" && second == "b"
    );
    assert_refused!(
        two(64, 32),
        ImportError::OverlappingTensors { first, second, .. } if first == "b" && second == "a"
    );
    assert_refused!(two(0, 0), ImportError::OverlappingTensors { .. });
    assert_refused!(
        Writer::new()
            .tensor("a", &[16], ggml::F32.id, vec![0; 64])
            .tensor_at(32, "unknown", &[16], 99, vec![]),
        ImportError::OverlappingTensors { second, .. } if second == "unknown"
    );
}

#[test]
fn types_that_are_not_read_are_listed_and_refused() {
    let file = Writer::new()
        .tensor("sums", &[32], 9, vec![0; 36])
        .tensor("integers", &[8], 26, vec![0; 32])
        .tensor("unknown", &[7, 3], 99, vec![0; 32])
        .build();
    let file = GgufFile::from_bytes(file).expect("the file is right");
    for (name, shown, size) in [
        ("sums", "Q8_1", Some(36)),
        ("integers", "I32", Some(32)),
        ("unknown", "type 99", None),
    ] {
        let info = file.tensor(name).expect("listed");
        assert_eq!(info.tensor_type().to_string(), shown);
        assert_eq!(info.byte_size(), size);
        assert!(!info.is_readable_matrix());
        assert!(!info.tensor_type().is_readable());
        for error in [
            file.matrix(name).expect_err("not read"),
            file.matrix_as(name, MatrixFormat::F32, None)
                .expect_err("not read"),
            file.values(name).expect_err("not read"),
            file.rows(name, &[0]).expect_err("not read"),
        ] {
            assert!(
                matches!(&error, ImportError::UnsupportedTensorType { tensor, .. } if tensor == name),
                "{error:?}"
            );
            assert!(error.to_string().contains("Q4_K"), "{error}");
        }
    }
}

#[test]
fn tensors_and_rows_that_are_not_there_are_named() {
    let file = GgufFile::from_bytes(small_file()).expect("the file is right");
    for error in [
        file.matrix("z").expect_err("no such tensor"),
        file.matrix_as("z", MatrixFormat::F32, None)
            .expect_err("no such tensor"),
        file.values("z").expect_err("no such tensor"),
        file.rows("z", &[]).expect_err("no such tensor"),
    ] {
        assert!(
            matches!(&error, ImportError::UnknownTensor { name } if name == "z"),
            "{error:?}"
        );
    }
    for row in [2, usize::MAX] {
        let error = file.rows("a", &[0, row]).expect_err("no such row");
        assert!(
            matches!(&error, ImportError::RowOutOfRange { row: found, rows: 2, .. } if *found == row),
            "{error:?}"
        );
    }
}

#[test]
fn empty_tensors_are_listed_and_refused() {
    for dimensions in [
        &[0][..],
        &[0, 1 << 60],
        &[1 << 60, 0],
        &[u64::MAX, 0, u64::MAX],
        &[1 << 60, 1 << 60, 0],
    ] {
        let file = Writer::new().tensor("t", dimensions, 0, vec![]).build();
        let file = GgufFile::from_bytes(file).expect("the file is right");
        assert_eq!(file.tensor("t").expect("listed").rows(), 0);
        for error in [
            file.matrix("t").expect_err("empty"),
            file.matrix_as("t", MatrixFormat::F32, None)
                .expect_err("empty"),
            file.values("t").expect_err("empty"),
            file.rows("t", &[]).expect_err("empty"),
        ] {
            assert!(
                matches!(error, ImportError::EmptyTensor { .. }),
                "{error:?}"
            );
        }
    }
}

#[test]
fn infinite_scales_and_minima_are_named() {
    let infinite = [0x00, 0x7C];
    let not_a_number = [0x01, 0xFC];
    for (tensor_type, at, part, wrong) in [
        (Q4_0, 0, ScalePart::Scale, infinite),
        (Q8_0, 0, ScalePart::Scale, not_a_number),
        (Q4_1, 0, ScalePart::Scale, not_a_number),
        (Q4_1, 2, ScalePart::Minimum, infinite),
    ] {
        let mut bytes = ggml::random_tensor(tensor_type, 3 * 64, 5);
        // Row 2, its block 1.
        bytes[5 * tensor_type.block_bytes + at..][..2].copy_from_slice(&wrong);
        let file = Writer::new()
            .tensor("t", &[64, 3], tensor_type.id, bytes)
            .build();
        let file = GgufFile::from_bytes(file).expect("the header is right");
        for error in [
            file.matrix("t").expect_err("a wrong scale"),
            file.values("t").expect_err("a wrong scale"),
            file.rows("t", &[2]).expect_err("a wrong scale"),
        ] {
            assert!(
                matches!(&error, ImportError::NonFiniteScale { row: 2, block: 1, part: found, value, .. }
                    if *found == part && !value.is_finite()),
                "{error:?}"
            );
        }
        file.rows("t", &[0, 1]).expect("the other rows are right");
    }
}

#[test]
fn infinite_values_are_named() {
    for (tensor_type, infinite) in [
        (ggml::F32, &[0x00, 0x00, 0x80, 0x7F][..]),
        (ggml::F16, &[0x00, 0xFC]),
        (ggml::BF16, &[0xC0, 0x7F]),
    ] {
        let mut bytes = vec![0; 3 * 10 * tensor_type.block_bytes];
        bytes[27 * tensor_type.block_bytes..][..infinite.len()].copy_from_slice(infinite);
        let file = Writer::new()
            .tensor("t", &[10, 3], tensor_type.id, bytes)
            .build();
        let file = GgufFile::from_bytes(file).expect("the header is right");
        for error in [
            file.matrix("t").expect_err("a wrong value"),
            file.values("t").expect_err("a wrong value"),
            file.rows("t", &[0, 2]).expect_err("a wrong value"),
        ] {
            assert!(
                matches!(
                    &error,
                    ImportError::Matrix {
                        source: FormatError::NonFinite {
                            row: 2,
                            column: 7,
                            ..
                        },
                        ..
                    }
                ),
                "{error:?}"
            );
        }
        assert_eq!(
            file.rows("t", &[0, 1]).expect("the other rows are right"),
            [0.0; 20]
        );
    }
}

#[test]
fn a_file_that_shrinks_after_its_header_is_an_error() {
    let path =
        std::env::temp_dir().join(format!("anybit-import-shrinks-{}.gguf", std::process::id()));
    std::fs::write(&path, small_file()).expect("the temporary folder can be written");
    let file = GgufFile::open(&path).expect("the file is right");
    std::fs::write(&path, b"GGUF").expect("the temporary folder can be written");
    let result = file.matrix("a");
    std::fs::remove_file(&path).expect("the file was written");
    let error = result.expect_err("nothing is left");
    assert!(matches!(error, ImportError::Read { .. }), "{error:?}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let path = std::env::temp_dir().join("anybit-import-no-such-file.gguf");
    let error = GgufFile::open(&path).expect_err("there is no such file");
    assert!(
        matches!(&error, ImportError::Open { path: found, .. } if *found == path),
        "{error:?}"
    );
    assert!(error.to_string().contains("no-such-file"));
}
