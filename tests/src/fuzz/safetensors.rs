//! Safetensors files: quantised models, and files of packed matrices.

use std::ops::Range;
use std::path::PathBuf;

use anybit_formats::MatrixFormat;
use anybit_import::safetensors::{QuantizationConfig, SafetensorsFile, WeightLayout};
use anybit_import::{ImportError, ModelFile};

use super::model::{packed_file, use_model};
use super::{Target, Verdict, check_error};
use crate::operand::{Fill, operand};
use crate::random::Random;

pub(super) const TARGET: Target = Target {
    name: "safetensors",
    run,
    seeds,
    text: header,
    with_text: with_header,
    longest: 1 << 19,
    words: &[
        "__metadata__",
        "dtype",
        "shape",
        "data_offsets",
        "anybit.version",
        "anybit.matrix.m",
        "anybit.codebook.mine",
        "config",
        "F32",
        "F16",
        "BF16",
        "F8_E4M3",
        "I32",
        "U8",
        "qweight",
        "qzeros",
        "scales",
        "g_idx",
        "weight_scale",
        "weight_packed",
        "weight_shape",
        "absmax",
        "quant_map",
    ],
};

fn run(input: &[u8]) -> Verdict {
    match open(input.to_vec()) {
        Ok(file) => {
            use_tensors(&file);
            use_model(&ModelFile::Safetensors(file));
            Verdict::Accepted
        }
        Err(error) => {
            check_error(&error);
            Verdict::Refused
        }
    }
}

/// Opens a file with the configuration that its metadata may have, since there is no file beside it.
fn open(bytes: Vec<u8>) -> Result<SafetensorsFile, ImportError> {
    let file = SafetensorsFile::from_bytes(bytes)?;
    let config = file
        .metadata()
        .find(|(key, _)| *key == "config")
        .map(|(_, text)| text.to_owned());
    match config {
        Some(config) => file.with_config(QuantizationConfig::from_json(config.as_bytes())?),
        None => Ok(file),
    }
}

fn use_tensors(file: &SafetensorsFile) {
    for info in file.tensors() {
        let bytes = file.tensor_bytes(info.name()).expect("it is in the file");
        assert_eq!(bytes.len() as u64, info.byte_size());
        assert_eq!(file.tensor(info.name()), Some(info));
    }
    for weight in file.weights() {
        assert_eq!(file.weight(weight.name()), Some(weight));
        match file.permuted_matrix(weight.name()) {
            Ok(permuted) => {
                let matrix = &permuted.matrix;
                assert_eq!(matrix.rows() as u64, weight.rows());
                assert_eq!(matrix.columns() as u64, weight.columns());
                if !matches!(weight.layout(), WeightLayout::Plain(_)) {
                    file.values(weight.name()).expect("the matrix was read");
                }
            }
            Err(error) => check_error(&error),
        }
    }
}

/// Where the header is.
fn header(input: &[u8]) -> Option<Range<usize>> {
    let length = u64::from_le_bytes(*input.first_chunk()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    (end <= input.len()).then_some(8..end)
}

/// A file of a header and data.
fn with_header(header: &[u8], data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header, data].concat()
}

/// The golden files of the reader, and files of packed matrices.
fn seeds() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/anybit-import/tests/data/safetensors"
    ));
    let listed = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = listed
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    let mut files: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| std::fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}")))
        // The larger ones differ in nothing but size, and every byte makes the others rarer.
        .filter(|file| file.len() <= 12_000)
        .collect();
    for formats in [
        &["i4g32h", "u5g32sm", "tg32h"][..],
        &["e4m3g32e", "e2m1g16k", "bitmod4g32qc"],
        &["u8rfz", "i3f", "b1g128h"],
        &["f32", "bf16", "nf4g64f"],
    ] {
        files.push(packed(formats));
    }
    files
}

/// A file of one matrix of each format, without the room that the writer leaves in the header.
fn packed(formats: &[&str]) -> Vec<u8> {
    let mut random = Random::new(1);
    let matrices: Vec<_> = formats
        .iter()
        .map(|name| {
            let format: MatrixFormat = name.parse().unwrap_or_else(|error| panic!("{error}"));
            (*name, operand(&format, (2, 128), Fill::Random, &mut random))
        })
        .collect();
    let named: Vec<_> = matrices
        .iter()
        .map(|(name, matrix)| (*name, matrix))
        .collect();
    let file = packed_file(&named);
    let range = header(&file).expect("what was written is right");
    with_header(file[range.clone()].trim_ascii_end(), &file[range.end..])
}
