//! Weights in every layout and their values according to numpy; `tests/data/make_safetensors_golden.py` made them and
//! describes the files.

use anybit_formats::{MatrixFormat, QuantizeOptions};
use anybit_import::ImportError;
use anybit_import::safetensors::{QuantizationConfig, SafetensorsFile};

/// A file, how its weight is stored and the matrix format that it has, if it has one.
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    stored_as: &'static str,
    format: Option<&'static str>,
    /// Whether the columns of the matrix are in another order.
    permuted: bool,
}

const fn layout(
    name: &'static str,
    stored_as: &'static str,
    format: Option<&'static str>,
) -> Layout {
    Layout {
        name,
        stored_as,
        format,
        permuted: false,
    }
}

const fn permuted(name: &'static str, stored_as: &'static str, format: &'static str) -> Layout {
    Layout {
        name,
        stored_as,
        format: Some(format),
        permuted: true,
    }
}

#[rustfmt::skip]
pub(crate) const LAYOUTS: &[Layout] = &[
    layout("f32", "F32", Some("f32")),
    layout("f16", "F16", Some("f16")),
    layout("bf16", "BF16", Some("bf16")),
    layout("gptq2", "GPTQ", Some("u2g32hz")),
    layout("gptq3", "GPTQ", Some("u3g32hz")),
    layout("gptq4", "GPTQ", Some("u4g32hz")),
    layout("gptq8", "GPTQ", Some("u8g32hz")),
    layout("gptq4_v2", "GPTQ", Some("u4g32hz")),
    permuted("gptq4_act_order", "GPTQ", "u4g32hz"),
    permuted("gptq3_act_order", "GPTQ", "u3g32hz"),
    layout("gptq4_one_group", "GPTQ", Some("u4rhz")),
    layout("awq", "AWQ", Some("u4g32hz")),
    layout("nf4", "bitsandbytes NF4", Some("nf4g64f")),
    layout("nf4_nested", "bitsandbytes NF4", Some("nf4g64f")),
    layout("fp4", "bitsandbytes FP4", Some("fp4bnbrf")),
    layout("nf4_shared", "bitsandbytes NF4", Some("nf4g16f")),
    layout("nf4_straddling", "bitsandbytes NF4", None),
    layout("pack4_bf16", "pack-quantized", Some("i4g32f")),
    layout("pack4_zeros", "pack-quantized", Some("u4g32hz")),
    layout("pack4_rows", "pack-quantized", Some("i4rf")),
    permuted("pack4_act_order", "pack-quantized", "i4g32f"),
    layout("pack8", "pack-quantized", Some("u8rhz")),
    layout("pack3", "pack-quantized", Some("u3g32fz")),
    layout("int8", "int-quantized", Some("i8rf")),
    layout("int8_zeros", "int-quantized", Some("u8rfz")),
    layout("int8_one", "int-quantized", Some("i8f")),
    layout("fp8_bare", "F8_E4M3", Some("e4m3")),
    layout("fp8_one", "F8_E4M3", Some("e4m3f")),
    layout("fp8_rows", "F8_E5M2", Some("e5m2rf")),
    layout("fp8_blocks", "F8_E4M3", Some("e4m3g32f")),
    layout("mxfp8", "F8_E4M3", Some("e4m3g32e")),
    layout("nvfp4", "NVFP4", Some("e2m1g16k")),
    layout("nvfp4_modelopt", "NVFP4", Some("e2m1g16k")),
    layout("mxfp4", "MXFP4", Some("e2m1g32e")),
];

impl Layout {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let path = format!(
            "{}/tests/data/safetensors/{}.safetensors",
            env!("CARGO_MANIFEST_DIR"),
            self.name
        );
        std::fs::read(&path).expect(&path)
    }

    pub(crate) fn open(&self) -> SafetensorsFile {
        with_own_config(self.bytes()).expect(self.name)
    }
}

/// Opens a file with the configuration in its metadata.
pub(crate) fn with_own_config(bytes: Vec<u8>) -> Result<SafetensorsFile, ImportError> {
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

/// The file called `name`.
pub(crate) fn named(name: &str) -> &'static Layout {
    LAYOUTS
        .iter()
        .find(|layout| layout.name == name)
        .expect(name)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_file_is_tested() {
    let folder = format!("{}/tests/data/safetensors", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let mut names: Vec<_> = LAYOUTS
        .iter()
        .map(|layout| layout.name.to_owned())
        .collect();
    files.sort();
    names.sort();
    assert_eq!(files, names);
}

#[test]
fn values_are_those_of_numpy() {
    for layout in LAYOUTS {
        let file = layout.open();
        let expected = file.values("expected").unwrap();
        let values = file.values("layer.weight").expect(layout.name);
        assert_eq!(bits(&values), bits(&expected), "{}", layout.name);

        let weight = file.weight("layer.weight").unwrap();
        assert_eq!(weight.layout().to_string(), layout.stored_as);
        assert_eq!(weight.shape(), file.tensor("expected").unwrap().shape());
        let columns = weight.columns() as usize;
        let rows = file.rows("layer.weight", &[2, 0, 2]).unwrap();
        let chosen: Vec<f32> = [2, 0, 2]
            .iter()
            .flat_map(|row| expected[row * columns..][..columns].iter().copied())
            .collect();
        assert_eq!(bits(&rows), bits(&chosen), "{}", layout.name);
    }
}

#[test]
fn matrices_have_the_values_of_the_file() {
    for layout in LAYOUTS {
        let file = layout.open();
        let expected = file.values("expected").unwrap();
        let weight = file.weight("layer.weight").unwrap();
        let format: Option<MatrixFormat> = layout.format.map(|format| format.parse().unwrap());
        assert_eq!(weight.matrix_format(), format, "{}", layout.name);
        let matrix = file.matrix("layer.weight");
        if format.is_none() {
            assert!(
                matches!(matrix, Err(ImportError::NotPackable { .. })),
                "{}",
                layout.name
            );
            continue;
        }
        if layout.permuted {
            assert!(
                matches!(matrix, Err(ImportError::PermutedColumns { .. })),
                "{}",
                layout.name
            );
        }
        let permuted = file.permuted_matrix("layer.weight").expect(layout.name);
        assert_eq!(
            permuted.permutation.is_some(),
            layout.permuted,
            "{}",
            layout.name
        );
        let matrix = permuted.matrix;
        assert_eq!(Some(*matrix.format()), format, "{}", layout.name);
        let (rows, columns) = (matrix.rows(), matrix.columns());
        assert_eq!(weight.shape(), [rows as u64, columns as u64]);

        // Column j of the matrix is column permutation[j] of the weight.
        let decoded = matrix.decode();
        let order = permuted
            .permutation
            .unwrap_or_else(|| (0..columns as u32).collect());
        let mut seen = vec![false; columns];
        for (j, &column) in order.iter().enumerate() {
            assert!(!std::mem::replace(&mut seen[column as usize], true));
            for row in 0..rows {
                let (found, expected) = (
                    decoded[row * columns + j],
                    expected[row * columns + column as usize],
                );
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "{} {row} {j}",
                    layout.name
                );
            }
        }
    }
}

#[test]
fn requantising_says_so() {
    let options = QuantizeOptions::default();
    let format: MatrixFormat = "i8rf".parse().unwrap();
    for layout in LAYOUTS {
        let file = layout.open();
        let converted = file
            .matrix_as("layer.weight", format, &options)
            .expect(layout.name);
        let same = layout.format == Some("i8rf");
        assert_eq!(
            converted.requantised_from.is_none(),
            same,
            "{}",
            layout.name
        );
        if !same {
            let from = converted.requantised_from.unwrap();
            assert_eq!(from.to_string(), layout.stored_as);
        }
        assert_eq!(*converted.matrix.format(), format);

        let own = file.weight("layer.weight").unwrap().matrix_format();
        if let Some(own) = own.filter(|own| {
            own.scales().is_none() || own.zero_kind() == anybit_formats::ZeroKind::None
        }) {
            let converted = file.matrix_as("layer.weight", own, &options).unwrap();
            assert_eq!(
                converted.requantised_from.is_some(),
                layout.permuted,
                "{}",
                layout.name
            );
        }
        let exact = file
            .matrix_as("layer.weight", MatrixFormat::F32, &options)
            .unwrap();
        assert_eq!(exact.requantised_from, None);
        assert_eq!(
            bits(&exact.matrix.decode()),
            bits(&file.values("expected").unwrap())
        );
    }
}

#[test]
fn other_tensors_are_listed_as_they_are() {
    let file = named("gptq4").open();
    let names: Vec<_> = file.weights().iter().map(|weight| weight.name()).collect();
    assert_eq!(names, ["layer.weight", "layer.bias", "expected"]);
    let bias = file.weight("layer.bias").unwrap();
    assert_eq!(
        (bias.shape(), bias.layout().to_string().as_str()),
        ([32].as_slice(), "F16")
    );
    assert_eq!(bias.byte_size(), 64);
    assert_eq!(file.matrix("layer.bias").unwrap().rows(), 1);
    // 96 · 32 codes of 4 bits, 3 · 32 zero points, as many scales of 16 bits, 96 indices.
    let weight = file.weight("layer.weight").unwrap();
    assert_eq!(weight.byte_size(), 1536 + 48 + 192 + 384);
}
