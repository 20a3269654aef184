//! Files of packed matrices: what is written is read, and what is damaged is refused.

use std::io::Cursor;

use anybit_formats::{
    CodebookFormat, ElementFormat, FORMATS, FormatError, Granularity, MatrixFormat, PackedMatrix,
    ScaleLayout, ScaleType, ZeroKind,
};
use anybit_import::safetensors::{
    Dtype, PackedFileWriter, PackedWriter, SafetensorsFile, WeightLayout,
};
use anybit_import::{ImportError, SaveError};

use crate::random::{all_formats, formats_of, matrix};
use crate::writer::Writer;

fn writer() -> PackedWriter<Cursor<Vec<u8>>> {
    PackedWriter::new(Cursor::new(Vec::new())).unwrap()
}

fn finish(writer: PackedWriter<Cursor<Vec<u8>>>) -> Vec<u8> {
    writer.finish().unwrap().into_inner()
}

fn file_of(matrix: &PackedMatrix) -> Vec<u8> {
    let mut writer = writer();
    writer.matrix("m", matrix).unwrap();
    finish(writer)
}

fn user_codebook() -> CodebookFormat {
    let values: Vec<f32> = (0..20).map(|i| (i as f32 - 9.0) * 0.75).collect();
    CodebookFormat::user("packedtest", &values).unwrap()
}

#[test]
fn every_format_comes_back() {
    for (rows, columns) in [(3, 64), (2, 256), (5, 37), (1, 1), (0, 32), (3, 0)] {
        let mut formats = all_formats(columns);
        formats.extend(formats_of(user_codebook().into(), columns));
        // One file of them all.
        let mut writer = writer();
        let matrices: Vec<PackedMatrix> = formats
            .iter()
            .zip(0..)
            .map(|(&format, seed)| matrix(format, rows, columns, seed))
            .collect();
        for matrix in &matrices {
            writer
                .matrix(&format!("layer.{}", matrix.format()), matrix)
                .unwrap();
        }
        let file = SafetensorsFile::from_bytes(finish(writer)).unwrap();
        assert!(file.is_packed());
        assert_eq!(file.weights().len(), matrices.len());
        for (matrix, weight) in matrices.iter().zip(file.weights()) {
            let name = format!("layer.{}", matrix.format());
            assert_eq!(weight.name(), name);
            assert_eq!(weight.layout(), WeightLayout::Packed(*matrix.format()));
            assert_eq!(weight.matrix_format(), Some(*matrix.format()));
            assert_eq!(weight.shape(), [rows as u64, columns as u64]);
            assert_eq!(&file.matrix(&name).expect(&name), matrix, "{name}");
            let values = file.values(&name).unwrap();
            let decoded = matrix.decode();
            assert!(
                values
                    .iter()
                    .map(|v| v.to_bits())
                    .eq(decoded.iter().map(|v| v.to_bits())),
                "{name}"
            );
            if rows * columns > 0 {
                assert_eq!(
                    file.rows(&name, &[rows - 1]).unwrap(),
                    decoded[(rows - 1) * columns..]
                );
            }
        }
    }
}

#[test]
fn ternary_codes_take_a_fifth_of_a_byte() {
    for columns in [640, 641, 644] {
        let ternary = matrix("trf".parse().unwrap(), 4, columns, 3);
        let file = SafetensorsFile::from_bytes(file_of(&ternary)).unwrap();
        assert!(file.tensor("m.codes.0").is_none());
        let codes = file.tensor("m.codes.ternary5").unwrap();
        assert_eq!(codes.byte_size(), 4 * columns.div_ceil(5) as u64);
        assert_eq!(file.matrix("m").unwrap(), ternary);
    }
}

#[test]
fn tensors_are_aligned_and_every_byte_is_of_one() {
    let mut writer = writer();
    for (name, bytes) in [("a", 1), ("b", 3), ("c", 8), ("d", 0), ("e", 5)] {
        writer
            .tensor(name, Dtype::U8, &[bytes], &vec![7; bytes as usize])
            .unwrap();
        writer
            .tensor(&format!("{name}.f"), Dtype::F32, &[1], &[1, 2, 3, 4])
            .unwrap();
    }
    let bytes = finish(writer);
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
    let file = SafetensorsFile::from_bytes(bytes).unwrap();
    for info in file.tensors() {
        if !info.name().starts_with("anybit.padding.") {
            assert_eq!(info.offset() % 8, 0, "{}", info.name());
        }
    }
    // What fills up is not shown as a weight.
    assert_eq!(file.weights().len(), 10);
    assert_eq!(file.tensor_bytes("e").unwrap(), [7; 5]);
    assert_eq!(file.tensor_bytes("e.f").unwrap(), [1, 2, 3, 4]);
}

#[test]
fn metadata_and_other_tensors_pass_through() {
    let mut writer = writer();
    let text = "a \"quoted\" line\nand ü";
    writer.metadata("note", text).unwrap();
    writer
        .tensor("norm", Dtype::Bf16, &[2], &[0x80, 0x3f, 0, 0x40])
        .unwrap();
    writer
        .tensor("steps", Dtype::I64, &[], &[5, 0, 0, 0, 0, 0, 0, 0])
        .unwrap();
    writer
        .matrix("ü \"m\"", &matrix("i4g32h".parse().unwrap(), 2, 64, 1))
        .unwrap();
    let file = SafetensorsFile::from_bytes(finish(writer)).unwrap();
    assert!(file.metadata().any(|entry| entry == ("note", text)));
    assert!(
        file.metadata()
            .any(|entry| entry == ("anybit.version", "1"))
    );
    assert!(
        file.metadata()
            .any(|entry| entry == ("anybit.matrix.ü \"m\"", "i4g32h 2x64"))
    );
    assert_eq!(file.values("norm").unwrap(), [1.0, 2.0]);
    assert_eq!(
        file.weight("steps").unwrap().layout(),
        WeightLayout::Plain(Dtype::I64)
    );
    assert!(file.tensor("steps").unwrap().shape().is_empty());
    file.matrix("ü \"m\"").unwrap();
}

#[test]
fn more_tensors_than_the_header_has_room_for() {
    let mut writer = writer();
    let matrix = matrix("u4g32hz".parse().unwrap(), 1, 32, 1);
    for index in 0..900 {
        writer
            .matrix(
                &format!("model.layers.{index}.mlp.down_proj.weight"),
                &matrix,
            )
            .unwrap();
    }
    let bytes = finish(writer);
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(header > 128 << 10, "{header}");
    let file = SafetensorsFile::from_bytes(bytes).unwrap();
    for index in [0, 450, 899] {
        let name = format!("model.layers.{index}.mlp.down_proj.weight");
        assert_eq!(file.matrix(&name).unwrap(), matrix);
    }
}

#[test]
fn names_are_kept_apart() {
    let mut writer = writer();
    let m = matrix("u4g32hz".parse().unwrap(), 1, 32, 1);
    writer.matrix("m", &m).unwrap();
    let taken = |result: Result<(), SaveError>| {
        assert!(
            matches!(result, Err(SaveError::NameTaken { .. })),
            "{result:?}"
        );
    };
    taken(writer.matrix("m", &m));
    taken(writer.tensor("m", Dtype::U8, &[1], &[0]));
    taken(writer.tensor("m.scales", Dtype::U8, &[1], &[0]));
    taken(writer.tensor("anybit.codebook.x", Dtype::U8, &[1], &[0]));
    taken(writer.tensor("__metadata__", Dtype::U8, &[1], &[0]));
    taken(writer.matrix("anybit.m", &m));
    writer
        .tensor("n.zero_points", Dtype::U8, &[1], &[0])
        .unwrap();
    taken(writer.matrix("n", &m));

    writer.metadata("key", "value").unwrap();
    for key in ["key", "anybit.version", "anybit.matrix.x"] {
        assert!(
            matches!(writer.metadata(key, ""), Err(SaveError::KeyTaken { .. })),
            "{key}"
        );
    }
    let error = writer.tensor("short", Dtype::F16, &[2, 3], &[0; 11]);
    assert!(
        matches!(error, Err(SaveError::Length { found: 11, .. })),
        "{error:?}"
    );
    let error = writer.tensor("nibble", Dtype::F4, &[3], &[0; 2]);
    assert!(matches!(error, Err(SaveError::Length { .. })), "{error:?}");

    // What was refused has left no trace.
    let file = SafetensorsFile::from_bytes(finish(writer)).unwrap();
    let names: Vec<_> = file.weights().iter().map(|weight| weight.name()).collect();
    assert_eq!(names, ["m", "n.zero_points"]);
}

#[test]
fn files_appear_whole_or_not_at_all() {
    let directory = std::env::temp_dir().join(format!("anybit-packed-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("model.safetensors");
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let m = matrix("i8rf".parse().unwrap(), 2, 33, 1);

    std::fs::write(&path, b"what was there before").unwrap();
    let mut writer = PackedFileWriter::create(&path).unwrap();
    writer.matrix("m", &m).unwrap();
    assert_eq!(names().len(), 2);
    drop(writer);
    assert_eq!(names(), ["model.safetensors"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"what was there before");

    let mut writer = PackedFileWriter::create(&path).unwrap();
    // Another at the same time takes another name.
    let other = PackedFileWriter::create(&path).unwrap();
    writer.metadata("key", "value").unwrap();
    writer.matrix("m", &m).unwrap();
    writer.tensor("t", Dtype::U8, &[1], &[9]).unwrap();
    writer.finish().unwrap();
    drop(other);
    assert_eq!(names(), ["model.safetensors"]);
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.matrix("m").unwrap(), m);
    drop(file);

    let error = PackedFileWriter::create(directory.join("missing").join("model.safetensors"));
    assert!(matches!(error, Err(SaveError::Create { .. })), "{error:?}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_write_that_fails_makes_no_file() {
    /// Takes so many bytes.
    #[derive(Debug)]
    struct Full(Cursor<Vec<u8>>, u64);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.position() + bytes.len() as u64 > self.1 {
                return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
            }
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl std::io::Read for Full {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(bytes)
        }
    }
    impl std::io::Seek for Full {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let mut writer = PackedWriter::new(Full(Cursor::new(Vec::new()), 140_000)).unwrap();
    let m = matrix("u8rf".parse().unwrap(), 8, 8192, 1);
    assert!(matches!(
        writer.matrix("m", &m),
        Err(SaveError::Write { .. })
    ));
    assert!(matches!(writer.finish(), Err(SaveError::Write { .. })));
}

/// Checks that changing a file of one matrix is refused with an error that matches.
macro_rules! assert_refused {
    ($format:literal, $change:expr, $pattern:pat $(if $guard:expr)?) => {
        let right = Writer::read(&file_of(&matrix($format.parse().unwrap(), 2, 64, 5)));
        assert_eq!(
            SafetensorsFile::from_bytes(right.build()).unwrap().matrix("m").unwrap(),
            matrix($format.parse().unwrap(), 2, 64, 5)
        );
        #[expect(clippy::redundant_closure_call, reason = "the type of the change is known so")]
        let wrong: Writer = ($change as fn(Writer) -> Writer)(right);
        let error = SafetensorsFile::from_bytes(wrong.build())
            .and_then(|file| file.matrix("m"))
            .expect_err("the file is wrong");
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
    };
}

fn entry(writer: Writer, key: &str, value: &str) -> Writer {
    let mut writer = writer;
    let entry = writer
        .metadata
        .iter_mut()
        .find(|(other, _)| other == key)
        .expect(key);
    value.clone_into(&mut entry.1);
    writer
}

#[test]
fn damaged_files_are_refused() {
    use ImportError as E;
    assert_refused!("i4g32h", |w| entry(w, "anybit.version", "2"),
        E::UnsupportedPackedVersion { version, supported: 1 } if version == "2");
    assert_refused!(
        "i4g32h",
        |w| entry(w, "anybit.version", "one"),
        E::UnsupportedPackedVersion { .. }
    );
    for text in [
        "",
        "i4g32h",
        "i4g32h 2",
        "i4g32h 2x",
        "i4g32h 2x064",
        "i4g32h 2x64 ternary5",
        "i4g32h 2x64 more",
        "i4g32h  2x64",
        "i4g32h -2x64",
        "i4g32h 2x64x1",
        "i4g32h 99999999999999999999x1",
    ] {
        let right = Writer::read(&file_of(&matrix("i4g32h".parse().unwrap(), 2, 64, 5)));
        let error =
            SafetensorsFile::from_bytes(entry(right, "anybit.matrix.m", text).build()).unwrap_err();
        assert!(
            matches!(error, E::InvalidMatrixEntry { .. } | E::PackedFormat { .. }),
            "{text:?}: {error:?}"
        );
    }
    assert_refused!(
        "i4g32h",
        |w| entry(w, "anybit.matrix.m", "i9g32h 2x64"),
        E::PackedFormat {
            source: FormatError::UnknownMatrixFormat { .. },
            ..
        }
    );
    assert_refused!(
        "i4g32h",
        |w| entry(w, "anybit.matrix.m", "i4g48h 2x64"),
        E::PackedFormat {
            source: FormatError::GroupSize { group: 48 },
            ..
        }
    );
    assert_refused!(
        "i4g32h",
        |w| entry(w, "anybit.matrix.m", "i4g32h 2x65"),
        E::PackedFormat {
            source: FormatError::GroupDoesNotDivide { .. },
            ..
        }
    );
    assert_refused!(
        "i4g32h",
        |w| entry(w, "anybit.matrix.m", "i4g32h 4294967296x4294967296"),
        E::PackedFormat {
            source: FormatError::TooLarge { .. },
            ..
        }
    );
    // Another format or shape than that of the parts.
    assert_refused!(
        "i4g32h",
        |w| entry(w, "anybit.matrix.m", "i4g32h 3x64"),
        E::WrongShape { .. }
    );
    assert_refused!(
        "i4g32h",
        |w| entry(w, "anybit.matrix.m", "i8g32h 2x64"),
        E::WrongShape { .. }
    );
    assert_refused!(
        "i4g32h",
        |w| entry(w, "anybit.matrix.m", "i4g32f 2x64"),
        E::WrongDtype { .. }
    );
    assert_refused!(
        "i4g32h",
        |w| entry(w, "anybit.matrix.m", "u4g32hz 2x64"),
        E::MissingTensor { .. }
    );
    assert_refused!(
        "i4g32h",
        |w| entry(w, "anybit.matrix.m", "i4g32h 4294967295x0"),
        E::WrongShape { .. }
    );

    assert_refused!("u5g32sm", |w| w.without("m.codes.1"), E::MissingTensor { tensor, .. } if tensor == "m.codes.1");
    assert_refused!(
        "u5g32sm",
        |w| w.without("m.second_minima"),
        E::MissingTensor { .. }
    );
    assert_refused!(
        "u5g32sm",
        |w| w.change("m.minima", |t| t.dtype = "U8".to_owned()),
        E::WrongDtype { .. }
    );
    assert_refused!(
        "u5g32sm",
        |w| w.change("m.scales", |t| {
            t.shape = vec![4];
        }),
        E::WrongShape { .. }
    );
    assert_refused!(
        "u5g32sm",
        |w| w.change("m.codes.0", |t| {
            t.shape[1] -= 1;
            t.bytes.truncate(2 * 7 * 4);
        }),
        E::WrongShape { .. }
    );

    // Codes, scales and choices that the format has not.
    assert_refused!(
        "tg32h",
        |w| w.change("m.codes.ternary5", |t| t.bytes[3] = 1),
        E::Matrix {
            source: FormatError::TernaryByte { index: 3, byte: 1 },
            ..
        }
    );
    assert_refused!(
        "tg32h",
        |w| w.change("m.codes.ternary5", |t| t.bytes[12] = 255),
        E::Matrix {
            source: FormatError::TernaryByte {
                index: 12,
                byte: 255
            },
            ..
        }
    );
    assert_refused!(
        "e4m3g32e",
        |w| w.change("m.codes.0", |t| t.bytes[5] = 0xFF),
        E::Matrix {
            source: FormatError::NonFiniteCode { row: 0, .. },
            ..
        }
    );
    assert_refused!(
        "e4m3g32e",
        |w| w.change("m.scales", |t| t.bytes[2] = 0xFF),
        E::Matrix {
            source: FormatError::ScaleOverflow {
                row: 1,
                group: 0,
                ..
            },
            ..
        }
    );
    assert_refused!(
        "power3g32h",
        |w| w
            .change("m.codes.0", |t| t.bytes[0] |= 3)
            .change("m.codes.1", |t| t.bytes[0] |= 1),
        E::Matrix {
            source: FormatError::CodeTooLarge { code: 7, .. },
            ..
        }
    );
    assert_refused!(
        "bitmod4g32qc",
        |w| w.change("m.choices", |t| t.bytes[1] = 4),
        E::Matrix {
            source: FormatError::ChoiceTooLarge { choice: 4, .. },
            ..
        }
    );
    assert_refused!(
        "i4g32h",
        |w| w.change("m.scales", |t| t.bytes[1] = 0x7C),
        E::Matrix {
            source: FormatError::ScaleOverflow { .. },
            ..
        }
    );
    assert_refused!(
        "f16",
        |w| w.change("m", |t| t.bytes[1] = 0x7C),
        E::Matrix {
            source: FormatError::NonFinite { .. },
            ..
        }
    );
}

#[test]
fn ternary_codes_may_be_stored_as_pieces() {
    let ternary = matrix("tg32h".parse().unwrap(), 2, 64, 5);
    let words: Vec<u8> = ternary
        .pieces()
        .flatten()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let writer = Writer::read(&file_of(&ternary))
        .without("m.codes.ternary5")
        .tensor("m.codes.0", "U32", &[2, 4], words);
    let file = SafetensorsFile::from_bytes(entry(writer, "anybit.matrix.m", "tg32h 2x64").build())
        .unwrap();
    assert_eq!(file.matrix("m").unwrap(), ternary);
}

#[test]
fn codes_after_the_last_column_are_refused() {
    let m = matrix("u4rf".parse().unwrap(), 2, 40, 5);
    let writer =
        Writer::read(&file_of(&m)).change("m.codes.0", |t| *t.bytes.last_mut().unwrap() = 0x10);
    let error = SafetensorsFile::from_bytes(writer.build())
        .unwrap()
        .matrix("m")
        .unwrap_err();
    assert!(
        matches!(
            error,
            ImportError::Matrix {
                source: FormatError::Padding {
                    row: 1,
                    columns: 40
                },
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn codebooks_of_a_file_are_checked() {
    let format = MatrixFormat::new(
        ElementFormat::Codebook(user_codebook()),
        Some(ScaleLayout {
            granularity: Granularity::Group(32),
            scale: ScaleType::F16,
            zero: ZeroKind::None,
        }),
    )
    .unwrap();
    let m = matrix(format, 2, 64, 5);
    let writer = Writer::read(&file_of(&m));
    let refused = |writer: Writer| SafetensorsFile::from_bytes(writer.build()).unwrap_err();
    let table = "anybit.codebook.packedtest";

    // A name that is another table's here.
    let error = refused(writer.clone().change(table, |t| t.bytes[0] ^= 1));
    assert!(
        matches!(
            error,
            ImportError::PackedFormat {
                source: FormatError::CodebookNameTaken { .. },
                ..
            }
        ),
        "{error:?}"
    );
    let error = refused(
        writer
            .clone()
            .change(table, |t| t.name = "anybit.codebook.nf4".to_owned()),
    );
    assert!(
        matches!(error, ImportError::PackedFormat { .. }),
        "{error:?}"
    );
    let error = refused(writer.clone().change(table, |t| t.dtype = "I32".to_owned()));
    assert!(matches!(error, ImportError::WrongDtype { .. }), "{error:?}");
    let error = refused(writer.clone().change(table, |t| t.shape = vec![2, 10]));
    assert!(matches!(error, ImportError::WrongShape { .. }), "{error:?}");
    let error = refused(
        writer
            .clone()
            .change(table, |t| t.bytes[3] = 0x7F)
            .change(table, |t| t.bytes[2] = 0xFF),
    );
    assert!(
        matches!(error, ImportError::PackedFormat { .. }),
        "{error:?}"
    );
    let many = (0..65).fold(writer, |writer, index| {
        writer.f32(&format!("anybit.codebook.many{index}"), &[2], &[0.0, 1.0])
    });
    let error = refused(many);
    assert!(
        matches!(
            error,
            ImportError::TooManyCodebooks {
                count: 66,
                limit: 64
            }
        ),
        "{error:?}"
    );
}

/// The table of a user's codebook goes with the file: a process that does not know it reads it all the same.
#[test]
fn codebooks_go_with_the_file() {
    let name = "onlyinafile";
    assert_eq!(CodebookFormat::find(name), None);
    let file = Writer::new()
        .metadata("anybit.version", "1")
        .metadata("anybit.matrix.m", &format!("{name} 1x32"))
        .f32(
            &format!("anybit.codebook.{name}"),
            &[4],
            &[-2.0, -0.5, 0.5, 3.0],
        )
        .tensor("m.codes.0", "U32", &[1, 2], [0b1110_0100; 8]);
    let file = SafetensorsFile::from_bytes(file.build()).unwrap();
    let values = file.values("m").unwrap();
    assert_eq!(values.len(), 32);
    // Four neighbouring codes stand in four bytes.
    assert_eq!(
        values[..8],
        [-2.0, -2.0, -2.0, -2.0, -0.5, -0.5, -0.5, -0.5]
    );
    assert_eq!(values[8..16], [0.5, 0.5, 0.5, 0.5, 3.0, 3.0, 3.0, 3.0]);
    assert!(CodebookFormat::find(name).is_some());
}

#[test]
fn the_formats_tested_are_all_there_are() {
    // Every element is in some format of the round trip.
    let formats = all_formats(64);
    for row in FORMATS {
        assert!(
            formats.iter().any(|format| format.element() == row.element),
            "{}",
            row.name
        );
    }
    assert!(formats.len() > 1000, "{}", formats.len());
}
