//! Files that are wrong in one way each, and the error that says so.

use anybit_import::ImportError;
use anybit_import::safetensors::SafetensorsFile;

use crate::golden;
use crate::random::matrix;
use crate::writer::{Writer, with_header};

fn refused(file: &[u8]) -> ImportError {
    SafetensorsFile::from_bytes(file.to_vec()).expect_err("the file is wrong")
}

/// Checks that a header before so many bytes of data is refused with an error that matches.
macro_rules! assert_refused {
    ($header:expr, $data:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = refused(&with_header($header, &[0; $data]));
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
    };
}

/// A file of packed matrices and other tensors, and one of every layout.
fn files() -> Vec<Vec<u8>> {
    let mut files: Vec<_> = golden::LAYOUTS
        .iter()
        .filter(|layout| {
            ["gptq3", "nf4_nested", "pack4_zeros", "nvfp4", "bf16"].contains(&layout.name)
        })
        .map(golden::Layout::bytes)
        .collect();
    let packed = Writer::read(&crate::fuzz::packed_file(&[
        "tg32h",
        "u5g32sm",
        "bitmod4g32qc",
        "f16",
    ]));
    files.push(packed.build());
    files
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    for file in files() {
        SafetensorsFile::from_bytes(file.clone()).expect("whole, it is right");
        for length in 0..file.len() {
            let error = refused(&file[..length]);
            assert!(
                matches!(
                    error,
                    ImportError::Truncated { .. } | ImportError::TensorOutOfFile { .. }
                ),
                "{length} bytes: {error:?}"
            );
        }
    }
}

#[test]
fn a_file_with_more_after_it_is_refused() {
    for mut file in files() {
        file.push(0);
        let error = refused(&file);
        assert!(matches!(error, ImportError::Hole { .. }), "{error:?}");
    }
}

#[test]
fn lengths_of_the_header() {
    let error = refused(&[]);
    assert!(
        matches!(
            error,
            ImportError::Truncated {
                needed: 8,
                available: 0,
                ..
            }
        ),
        "{error:?}"
    );
    let error = refused(&[0; 8]);
    assert!(matches!(error, ImportError::Truncated { .. }), "{error:?}");
    for length in [3u64, 1 << 20, 100_000_000] {
        let mut file = length.to_le_bytes().to_vec();
        file.extend_from_slice(b"{}");
        let error = refused(&file);
        assert!(
            matches!(error, ImportError::Truncated { needed, available: 2, .. } if needed == length),
            "{error:?}"
        );
    }
    for length in [100_000_001u64, 1 << 40, u64::MAX - 7, u64::MAX] {
        let mut file = length.to_le_bytes().to_vec();
        file.extend_from_slice(b"{}");
        let error = refused(&file);
        assert!(
            matches!(error, ImportError::TooLong { length: found, .. } if found == length),
            "{error:?}"
        );
    }
    let error = refused(b"\x02\0\0\0\0\0\0\0[]");
    assert!(
        matches!(error, ImportError::NotSafetensors { found: b'[' }),
        "{error:?}"
    );
    let error = refused(b"GGUF\x03\0\0\0 and more");
    assert!(
        matches!(error, ImportError::NotSafetensors { found: b' ' }),
        "{error:?}"
    );
    SafetensorsFile::from_bytes(b"\x02\0\0\0\0\0\0\0{}".to_vec())
        .expect("no tensors are as good as any");
}

#[test]
fn headers_that_are_not_what_they_should_be() {
    for header in [
        "{",
        "{}x",
        "{} {}",
        "{\"a\":1}",
        "{\"a\":{}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
        "{\"__metadata__\":{\"a\":1}}",
        "{\"__metadata__\":{},\"__metadata__\":{}}",
        "{\"__metadata__\":[]}",
        "{\"\u{0}",
    ] {
        assert_refused!(header, 4, ImportError::InvalidJson { .. });
    }
    let error = refused(&with_header_bytes(
        b"{\"\xFF\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        4,
    ));
    assert!(
        matches!(error, ImportError::InvalidJson { .. }),
        "{error:?}"
    );
    let deep = format!("{{\"a\":{}", "{\"a\":".repeat(100_000));
    assert_refused!(&deep, 4, ImportError::InvalidJson { .. });
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    assert_refused!(&deep, 4, ImportError::InvalidJson { .. });
    // What is quoted of the file is bounded, and nothing that a terminal acts on; the place is told all the same.
    for text in [
        "x".repeat(100_000),
        "\\u001b[31m".repeat(1000),
        "\u{1b}".to_owned(),
    ] {
        let quoted = refused(&with_header(&format!("{{\"a\":\"{text}\"}}"), &[]));
        let source = std::error::Error::source(&quoted).unwrap().to_string();
        assert!(source.len() < 4000 && source.contains("column"), "{source}");
        assert!(!source.contains(char::is_control), "{source:?}");
    }
    // The error says where.
    let error = refused(&with_header("{\"a\":1}", &[]));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("column"), "{source}");
}

fn with_header_bytes(header: &[u8], data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + data, 0);
    file
}

fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!("{name:?}:{{\"dtype\":{dtype:?},\"shape\":[{shape}],\"data_offsets\":[{begin},{end}]}}")
}

#[test]
fn names_that_occur_twice() {
    let header = format!(
        "{{{},{}}}",
        entry("a", "U8", "2", 0, 2),
        entry("a", "U8", "2", 2, 4)
    );
    assert_refused!(&header, 4, ImportError::DuplicateTensor { name } if name == "a");
    let header = "{\"__metadata__\":{\"k\":\"1\",\"l\":\"\",\"k\":\"1\"}}";
    assert_refused!(header, 0, ImportError::DuplicateKey { key } if key == "k");
    // Written in another way, it is the same name.
    let header = format!(
        "{{{},\"\\u0061\":{}",
        entry("a", "U8", "2", 0, 2),
        &entry("x", "U8", "2", 2, 4)[4..]
    ) + "}";
    assert_refused!(&header, 4, ImportError::DuplicateTensor { .. });
}

#[test]
fn places_and_sizes() {
    let one = |dtype, shape, begin, end| format!("{{{}}}", entry("a", dtype, shape, begin, end));
    assert_refused!(&one("F31", "1", 0, 4), 4, ImportError::UnknownDtype { dtype, .. } if dtype == "F31");
    assert_refused!(
        &one("F32", "1", 0, 5),
        5,
        ImportError::TensorSize {
            expected: Some(4),
            end: 5,
            ..
        }
    );
    assert_refused!(
        &one("F32", "2", 0, 4),
        4,
        ImportError::TensorSize {
            expected: Some(8),
            ..
        }
    );
    assert_refused!(&one("F32", "1", 4, 0), 4, ImportError::TensorSize { .. });
    assert_refused!(
        &one("F4", "3", 0, 1),
        1,
        ImportError::TensorSize { expected: None, .. }
    );
    for shape in [
        "18446744073709551615,2",
        "4294967296,4294967296",
        "4611686018427387904",
    ] {
        assert_refused!(
            &one("F32", shape, 0, 4),
            4,
            ImportError::TensorSize { expected: None, .. }
        );
    }
    assert_refused!(
        &one("U8", "18446744073709551615", 0, u64::MAX),
        4,
        ImportError::TensorSize { expected: None, .. }
    );
    assert_refused!(
        &one("U8", "1099511627776", 0, 1 << 40),
        4,
        ImportError::TensorOutOfFile { available: 4, .. }
    );
    assert_refused!(
        &one("U8", "0", 5, 5),
        4,
        ImportError::TensorOutOfFile { .. }
    );
    assert_refused!(
        &one("U8", "3", 1, 4),
        4,
        ImportError::Hole { begin: 0, end: 1 }
    );
    assert_refused!(
        &one("U8", "3", 0, 3),
        4,
        ImportError::Hole { begin: 3, end: 4 }
    );
    // With a zero, no dimension is too large.
    let header = one("U8", "18446744073709551615,18446744073709551615,0", 0, 0);
    SafetensorsFile::from_bytes(with_header(&header, &[])).expect("it has no elements");

    let two = |(a, b), (c, d)| {
        let size = |begin: u64, end: u64| (end - begin).to_string();
        format!(
            "{{{},{}}}",
            entry("a", "U8", &size(a, b), a, b),
            entry("b", "U8", &size(c, d), c, d)
        )
    };
    assert_refused!(&two((0, 3), (2, 4)), 4, ImportError::OverlappingTensors { first, second, end: 3, start: 2 }
        if first == "a" && second == "b");
    assert_refused!(
        &two((0, 4), (0, 4)),
        4,
        ImportError::OverlappingTensors { .. }
    );
    assert_refused!(
        &two((1, 2), (0, 4)),
        4,
        ImportError::OverlappingTensors { .. } | ImportError::Hole { .. }
    );
    assert_refused!(
        &two((0, 1), (2, 4)),
        4,
        ImportError::Hole { begin: 1, end: 2 }
    );
    SafetensorsFile::from_bytes(with_header(&two((2, 4), (0, 2)), &[0; 4])).expect("in any order");
}

#[test]
fn messages_are_short_and_escaped() {
    let name = "\u{1b}[31m".to_owned() + &"x".repeat(100_000);
    let escaped = serde_json::to_string(&name).unwrap();
    let header = format!("{{{escaped}:{{\"dtype\":\"?\",\"shape\":[],\"data_offsets\":[0,0]}}}}");
    let message = refused(&with_header(&header, &[])).to_string();
    assert!(
        message.len() < 1000 && !message.contains('\u{1b}'),
        "{message}"
    );
}

/// Codes of matrices with rows but without columns take no bytes, however many rows there are.
#[test]
fn many_rows_of_nothing_take_no_time() {
    let file = Writer::new()
        .metadata("anybit.version", "1")
        .metadata("anybit.matrix.m", "e4m3g32h 4294967295x0")
        .tensor("m.codes.0", "U32", &[4_294_967_295, 0], [])
        .tensor("m.scales", "F16", &[4_294_967_295, 0], []);
    let file = SafetensorsFile::from_bytes(file.build()).unwrap();
    let m = file.matrix("m").unwrap();
    assert_eq!((m.rows(), m.columns()), (4_294_967_295, 0));
    assert!(file.values("m").unwrap().is_empty());
}

/// Every beginning of a format's name is compared with the names there are.
#[test]
fn a_long_format_is_refused_at_once() {
    let file = Writer::new()
        .metadata("anybit.version", "1")
        .metadata("anybit.matrix.m", &"i".repeat(10_000_000));
    let error = refused(&file.build());
    assert!(
        matches!(error, ImportError::InvalidMatrixEntry { .. }),
        "{error:?}"
    );
    assert!(error.to_string().len() < 1000);
}

#[test]
fn right_files_of_this_test_are_right() {
    let file = SafetensorsFile::from_bytes(crate::fuzz::packed_file(&["i4g32h"])).unwrap();
    assert_eq!(
        file.matrix("i4g32h").unwrap(),
        matrix("i4g32h".parse().unwrap(), 2, 64, 1)
    );
}
