//! What a safetensors file makes the reader allocate is bounded by the file's length, whatever the file announces.
//!
//! A test of its own: the allocator counts for the whole process.

use std::alloc::System;
use std::io::Cursor;
use std::sync::LazyLock;

use anybit_import::safetensors::{
    PackedFileWriter, PackedWriter, QuantizationConfig, SafetensorsFile,
};
use cap::Cap;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[path = "safetensors/random.rs"]
#[expect(dead_code, reason = "the other test uses all of it")]
mod random;
#[path = "safetensors/writer.rs"]
#[expect(dead_code, reason = "the other test uses all of it")]
mod writer;

use writer::{Writer, with_header};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes allocated for each byte of a file by opening it and reading all there is in it as matrices, freed ones
/// included. The most costly to open are descriptions of matrices that have no tensors: the names of all their parts are
/// looked for.
const FACTOR: usize = 64;

/// Bytes for each weight that is read besides, and be it for an error.
const WEIGHT: usize = 4 << 10;

/// The same for a large weight as a matrix. Its codes are first put in a byte each, and those of 1 bit have 8 in a byte
/// of the file.
const MATRIX_FACTOR: usize = 14;

/// Chunks that are read, and the texts of errors.
const FIXED: usize = 64 << 10;

/// Opens a file and reads all there is in it. Gives the bytes that were allocated on the way, and those that may be.
fn allocated_by_reading(file: Vec<u8>) -> (usize, usize) {
    let mut allowed = FIXED + FACTOR * file.len();
    let before = ALLOCATOR.total_allocated();
    if let Ok(file) = SafetensorsFile::from_bytes(file) {
        for weight in file.weights() {
            drop(file.permuted_matrix(weight.name()));
        }
        allowed += WEIGHT * file.weights().len();
    }
    (ALLOCATOR.total_allocated() - before, allowed)
}

fn golden() -> Vec<Vec<u8>> {
    let folder = format!("{}/tests/data/safetensors", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// One matrix of each format, without the room that the writer leaves in its header.
fn packed(formats: &[&str], columns: usize) -> Vec<u8> {
    let mut writer = PackedWriter::new(Cursor::new(Vec::new())).unwrap();
    for format in formats {
        let matrix = random::matrix(format.parse().unwrap(), 2, columns, 1);
        writer.matrix(format, &matrix).unwrap();
    }
    Writer::read(&writer.finish().unwrap().into_inner()).build()
}

static RIGHT_FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut files = golden();
    files.push(packed(
        &[
            "i4g32h",
            "u5g32sm",
            "tg32h",
            "bitmod4g32qc",
            "e2m1g16k",
            "f16",
            "f32",
        ],
        256,
    ));
    files
});

/// The shortest tensors there can be.
fn many_tensors() -> Vec<u8> {
    (0..2000)
        .fold(Writer::new(), |writer, index| {
            writer.tensor(&format!("{index:x}"), "U8", &[], [0])
        })
        .build()
}

/// The shortest entries of metadata.
fn many_entries() -> Vec<u8> {
    let entries = (0..4000).map(|index| (format!("{index:x}"), String::new()));
    let mut writer = Writer::new();
    writer.metadata = entries.collect();
    writer.build()
}

/// The shortest descriptions of matrices, which are of no tensors.
fn many_matrices() -> Vec<u8> {
    let mut writer = Writer::new().metadata("anybit.version", "1");
    writer.metadata.extend((0..2000).map(|index| {
        (
            format!("anybit.matrix.{index:x}"),
            "u5g32sm 9x256".to_owned(),
        )
    }));
    writer.build()
}

/// Names that make a quantised weight of nearly nothing.
fn many_weights() -> Vec<u8> {
    (0..500)
        .fold(Writer::new(), |writer, index| {
            writer
                .i32(&format!("{index}.qweight"), &[4, 32], &[0; 128])
                .i32(&format!("{index}.qzeros"), &[1, 4], &[0; 4])
                .tensor(&format!("{index}.scales"), "F16", &[1, 32], [0; 64])
        })
        .build()
}

/// Weights of every kind that a name makes one, with long names.
fn long_names() -> Vec<u8> {
    let name = "x".repeat(20_000);
    Writer::new()
        .tensor(&format!("{name}.plain"), "F32", &[1], [0; 4])
        .tensor(&format!("{name}.fp8"), "F8_E4M3", &[1, 1], [0])
        .tensor(&format!("{name}.qweight"), "I32", &[1, 1], [0; 4])
        .tensor(&format!("{name}.weight_packed"), "U8", &[1, 1], [0])
        .tensor(
            &format!("{name}.nf4.quant_state.bitsandbytes__nf4"),
            "U8",
            &[1],
            [0],
        )
        .tensor(&format!("{name}.nf4"), "U8", &[1], [0])
        .build()
}

/// The same of packed matrices.
fn long_names_of_matrices() -> Vec<u8> {
    let name = "x".repeat(20_000);
    Writer::new()
        .metadata("anybit.version", "1")
        .metadata(&format!("anybit.matrix.{name}"), "u5g32sm 9x256")
        .build()
}

fn long_header(text: &str) -> Vec<u8> {
    with_header(text, &[])
}

/// What a weight of many codes takes, as a matrix and as values, 4 bytes an element.
fn check_weights() {
    let (rows, columns) = (64u64, 32768u64);
    let zeros = |count: u64| vec![0; count as usize];
    let packed_integers = |bits: u64| {
        Writer::new()
            .tensor(
                "weight_packed",
                "I32",
                &[rows, columns * bits / 32],
                zeros(rows * columns * bits / 8),
            )
            .tensor(
                "weight_scale",
                "BF16",
                &[rows, columns / 32],
                zeros(rows * columns / 16),
            )
            .tensor(
                "weight_shape",
                "I64",
                &[2],
                [rows, columns].map(u64::to_le_bytes).concat(),
            )
    };
    let gptq = |bits: u64| {
        Writer::new()
            .tensor(
                "qweight",
                "I32",
                &[columns * bits / 32, rows],
                zeros(rows * columns * bits / 8),
            )
            .tensor(
                "qzeros",
                "I32",
                &[columns / 32, rows * bits / 32],
                zeros(rows * columns * bits / 256),
            )
            .tensor(
                "scales",
                "F16",
                &[columns / 32, rows],
                zeros(rows * columns / 16),
            )
            .tensor(
                "g_idx",
                "I32",
                &[columns],
                (0..columns as u32)
                    .flat_map(|k| (k / 32).to_le_bytes())
                    .collect::<Vec<_>>(),
            )
    };
    let state = format!(
        r#"{{"blocksize":64,"shape":[{rows},{columns}],"nested_blocksize":256,"nested_offset":1.0}}"#
    );
    let nf4 = anybit_formats::CodebookFormat::NF4.values();
    let blocks = rows * columns / 64;
    let bitsandbytes = Writer::new()
        .tensor(
            "weight",
            "U8",
            &[rows * columns / 2, 1],
            zeros(rows * columns / 2),
        )
        .tensor("weight.absmax", "U8", &[blocks], zeros(blocks))
        .tensor(
            "weight.nested_absmax",
            "F32",
            &[blocks / 256],
            zeros(blocks / 64),
        )
        .tensor("weight.nested_quant_map", "F32", &[256], zeros(1024))
        .f32("weight.quant_map", &[16], nf4)
        .tensor(
            "weight.quant_state.bitsandbytes__nf4",
            "U8",
            &[state.len() as u64],
            state.as_bytes(),
        );
    let float4 = Writer::new()
        .tensor(
            "weight_packed",
            "U8",
            &[rows, columns / 2],
            zeros(rows * columns / 2),
        )
        .tensor(
            "weight_scale",
            "F8_E4M3",
            &[rows, columns / 16],
            zeros(rows * columns / 16),
        )
        .f32("weight_global_scale", &[1], &[2.0]);
    let float8 = Writer::new()
        .tensor("weight", "F8_E4M3", &[rows, columns], zeros(rows * columns))
        .tensor(
            "weight_scale_inv",
            "F32",
            &[1, columns / 128],
            zeros(columns / 32),
        );
    let plain = Writer::new().tensor("weight", "F16", &[rows, columns], zeros(2 * rows * columns));
    let config = || QuantizationConfig::from_json(b"{}").unwrap();
    for (name, writer) in [
        ("1 bit", packed_integers(1)),
        ("3 bits", packed_integers(3)),
        ("8 bits", packed_integers(8)),
        ("GPTQ of 2 bits", gptq(2)),
        ("GPTQ of 4 bits", gptq(4)),
        ("bitsandbytes", bitsandbytes),
        ("NVFP4", float4),
        ("FP8", float8),
        ("F16", plain),
    ] {
        let bytes = writer.build();
        let length = bytes.len();
        let file = SafetensorsFile::from_bytes(bytes)
            .unwrap()
            .with_config(config())
            .unwrap();
        let before = ALLOCATOR.total_allocated();
        let matrix = file.matrix("weight");
        assert!(matrix.is_ok(), "{name}: {matrix:?}");
        drop(matrix);
        let after = ALLOCATOR.total_allocated();
        drop(file.values("weight").unwrap());
        let (matrix, values) = (after - before, ALLOCATOR.total_allocated() - after);
        assert!(
            matrix <= FIXED + (1 << 20) + MATRIX_FACTOR * length,
            "{name}: {matrix} bytes for {length}"
        );
        // What is read, the codes, and the values.
        let elements = (rows * columns) as usize;
        assert!(
            values <= FIXED + (1 << 20) + 2 * length + 5 * elements,
            "{name}: {values} bytes for {length}"
        );
    }
}

/// Writing a matrix takes some chunks of memory, not the matrix once more; of ternary ones the codes, a byte each.
fn check_writing() {
    let path = std::env::temp_dir().join(format!("anybit-writing-{}", std::process::id()));
    let (rows, columns) = (64, 1 << 17);
    for (format, bytes_each) in [("u8rf", 0), ("trf", 1)] {
        let matrix = random::matrix(format.parse().unwrap(), rows, columns, 1);
        let mut writer = PackedFileWriter::create(&path).unwrap();
        let before = ALLOCATOR.total_allocated();
        writer.matrix("m", &matrix).unwrap();
        let allocated = ALLOCATOR.total_allocated() - before;
        // Lists that grow to a chunk take twice that on the way, and rows of five codes a byte as much again.
        let allowed = (5 << 20) + bytes_each * rows * columns;
        assert!(allocated <= allowed, "{format}: {allocated} bytes");
        writer.finish().unwrap();
        assert!(SafetensorsFile::open(&path).unwrap().matrix("m").unwrap() == matrix);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn allocation_is_bounded() {
    check_weights();
    check_writing();
    let mut files = RIGHT_FILES.clone();
    files.extend([
        many_tensors(),
        many_entries(),
        many_matrices(),
        many_weights(),
        long_names(),
        long_names_of_matrices(),
    ]);
    let zeros = "0,".repeat(50_000);
    files.extend([
        long_header(&format!(
            "{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{zeros}0],\"data_offsets\":[0,0]}}}}"
        )),
        long_header(&format!(
            "{{\"__metadata__\":{{\"a\":\"{}\"}}}}",
            "\\u0000".repeat(10_000)
        )),
        long_header(&format!("{{\"a\":{}", "[".repeat(100_000))),
    ]);
    for file in files {
        let length = file.len();
        let start = String::from_utf8_lossy(&file[8..80.min(length)]).into_owned();
        let (allocated, allowed) = allocated_by_reading(file);
        assert!(
            allocated <= allowed,
            "{allocated} bytes for {length}: {start}"
        );
    }

    let numbers = prop_oneof![
        any::<u64>(),
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u64..64).prop_map(|below| u64::MAX - below),
        0u64..4096,
    ];
    let damage = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        numbers,
        any::<bool>(),
    );
    let mut runner = TestRunner::new(Config {
        cases: 4000,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&damage, |(which, position, number, header)| {
        let mut file = which.get(&RIGHT_FILES).clone();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        if header {
            // A number of the header becomes another.
            let text = String::from_utf8(file[8..8 + length].to_vec()).unwrap();
            let starts: Vec<usize> = text
                .match_indices(['[', ',', ' ', 'x'])
                .map(|(index, _)| index + 1)
                .filter(|&index| text[index..].starts_with(|c: char| c.is_ascii_digit()))
                .collect();
            let start = *position.get(&starts);
            let end = start + text[start..].find(|c: char| !c.is_ascii_digit()).unwrap();
            let text = format!("{}{number}{}", &text[..start], &text[end..]);
            file = with_header(&text, &file[8 + length..]);
        } else {
            let position = position.index(file.len() - 8);
            file[position..position + 8].copy_from_slice(&number.to_le_bytes());
        }
        let length = file.len();
        let (allocated, allowed) = allocated_by_reading(file);
        prop_assert!(allocated <= allowed, "{} bytes for {}", allocated, length);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
