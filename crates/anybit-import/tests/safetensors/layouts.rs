//! What the layouts leave open, and parts that do not go together.

use anybit_formats::{FormatError, MatrixFormat};
use anybit_import::safetensors::{Dtype, QuantizationConfig, SafetensorsFile, WeightLayout};
use anybit_import::{ImportError, ScalePart};

use crate::golden::{self, with_own_config};
use crate::random::Random;
use crate::writer::Writer;

fn open(writer: &Writer) -> SafetensorsFile {
    SafetensorsFile::from_bytes(writer.build()).unwrap()
}

fn configured(writer: &Writer, config: &str) -> SafetensorsFile {
    let config = QuantizationConfig::from_json(config.as_bytes()).unwrap();
    open(writer).with_config(config).unwrap()
}

fn right(name: &str) -> Writer {
    Writer::read(&golden::named(name).bytes())
}

/// The error of reading the weight of a file.
fn refused(writer: &Writer) -> ImportError {
    let file = with_own_config(writer.build()).unwrap();
    let error = file
        .values("layer.weight")
        .expect_err("the weight is wrong");
    let also = file
        .permuted_matrix("layer.weight")
        .expect_err("the weight is wrong");
    assert_eq!(error.to_string(), also.to_string());
    error
}

macro_rules! assert_refused {
    ($writer:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = refused(&$writer);
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
    };
}

#[test]
fn every_part_of_every_layout_is_needed() {
    for layout in golden::LAYOUTS {
        let writer = right(layout.name);
        for tensor in writer.tensors.clone() {
            let optional = ["layer.bias", "expected"].contains(&tensor.name.as_str())
                || ["g_idx", "zero_point", "weight", "weight_packed", "qweight"]
                    .iter()
                    .any(|end| tensor.name.ends_with(end))
                // Without scales it is a plain tensor of these bytes, or another layout.
                || tensor.name.ends_with("weight_scale_inv")
                || tensor.name.contains("quant_state")
                || tensor.name.ends_with("_global_scale")
                || tensor.name.ends_with("_scale_2")
                || layout.name.starts_with("fp8") || layout.name.starts_with("mxfp8") || layout.name.starts_with("int8")
                || layout.name == "nvfp4_modelopt";
            if !optional {
                let error = refused(&writer.clone().without(&tensor.name));
                assert!(
                    matches!(&error, ImportError::MissingTensor { tensor: missing, .. } if *missing == tensor.name),
                    "{}: {error:?}",
                    layout.name
                );
            }
        }
    }
}

#[test]
fn parts_of_another_type_or_shape_are_refused() {
    for layout in golden::LAYOUTS {
        let writer = right(layout.name);
        for tensor in writer.tensors.clone() {
            let own = ["layer.bias", "expected"].contains(&tensor.name.as_str())
                || writer.tensors.len() == 2;
            if own {
                continue;
            }
            // Half of what there is along each dimension: shapes that do not go together, or codes of other sizes, but
            // never a panic, nor values of another shape than the file says.
            for (dimension, &size) in tensor.shape.iter().enumerate() {
                let half = size / 2;
                let changed = writer.clone().change(&tensor.name, |t| {
                    t.shape[dimension] = half;
                    let length = t.bytes.len() as u64 / size.max(1) * half;
                    t.bytes.truncate(length as usize);
                });
                read(&changed);
            }
            for dtype in ["F64", "U16", "I8", "U8", "F32", "F16", "I32", "F8_E4M3"] {
                let changed = writer.clone().change(&tensor.name, |t| {
                    let old = match t.dtype.as_str() {
                        "I64" => 8,
                        "F32" | "I32" => 4,
                        "F16" | "BF16" => 2,
                        _ => 1,
                    };
                    let new = match dtype {
                        "F64" => 8,
                        "F32" | "I32" => 4,
                        "U16" | "F16" => 2,
                        _ => 1,
                    };
                    t.dtype = dtype.to_owned();
                    t.bytes = t
                        .bytes
                        .chunks(old)
                        .flat_map(|bytes| {
                            let mut bytes = bytes.to_vec();
                            bytes.resize(new, 0);
                            bytes
                        })
                        .collect();
                });
                read(&changed);
            }
        }
    }
}

/// Reads the weight of a file that may be wrong.
fn read(writer: &Writer) {
    let Ok(file) = with_own_config(writer.build()) else {
        return;
    };
    for weight in file.weights() {
        let matrix = file.permuted_matrix(weight.name());
        if let Ok(values) = file.values(weight.name()) {
            assert_eq!(values.len() as u64, weight.elements());
            if let Ok(matrix) = matrix {
                let shape = [matrix.matrix.rows() as u64, matrix.matrix.columns() as u64];
                assert_eq!([weight.rows(), weight.columns()], shape);
            }
        } else {
            assert!(matrix.is_err(), "{}", weight.name());
        }
    }
}

#[test]
fn tensors_that_do_not_go_together() {
    use ImportError as E;
    assert_refused!(
        right("gptq4").change("layer.qweight", |t| t.dtype = "U32".to_owned()),
        E::WrongDtype { .. }
    );
    assert_refused!(
        right("gptq4").change("layer.qzeros", |t| t.shape = vec![4, 3]),
        E::WrongShape { .. }
    );
    assert_refused!(
        right("gptq4").change("layer.scales", |t| t.shape = vec![96]),
        E::WrongShape { .. }
    );
    assert_refused!(
        right("gptq4").change("layer.qweight", |t| t.shape = vec![24, 16]),
        E::WrongShape { .. }
    );
    assert_refused!(
        right("gptq4").change("layer.g_idx", |t| {
            t.shape = vec![95];
            t.bytes.truncate(380);
        }),
        E::WrongShape { .. }
    );
    assert_refused!(
        right("gptq4").change("layer.g_idx", |t| t.bytes[4 * 7] = 3),
        E::GroupOutOfRange {
            column: 7,
            group: 3,
            groups: 3,
            ..
        }
    );
    assert_refused!(
        right("gptq4").change("layer.g_idx", |t| t.bytes[4 * 7..4 * 8].fill(0xFF)),
        E::GroupOutOfRange {
            column: 7,
            group: -1,
            ..
        }
    );
    assert_refused!(
        right("gptq4").change("layer.scales", |t| t.bytes[2 * 33 + 1] = 0x7C),
        E::NonFiniteScale {
            row: 1,
            block: 1,
            part: ScalePart::Scale,
            ..
        }
    );
    assert_refused!(
        right("nf4").change("layer.weight", |t| {
            t.shape[0] -= 1;
            t.bytes.pop();
        }),
        E::WrongShape { .. }
    );
    assert_refused!(
        right("nf4").change("layer.weight.quant_map", |t| t.bytes[0] ^= 1),
        E::Setting {
            setting: "quant_map",
            ..
        }
    );
    assert_refused!(
        right("nf4")
            .change("layer.weight.absmax", |t| t.bytes[7] = 0x7F)
            .change("layer.weight.absmax", |t| t.bytes[6] = 0x80),
        E::NonFiniteScale { .. }
    );
    assert_refused!(
        right("nvfp4").change("layer.weight_global_scale", |t| t.bytes.fill(0)),
        E::NonFiniteScale { .. }
    );
    assert_refused!(
        right("nvfp4").change("layer.weight_scale", |t| t.bytes[0] = 0x7F),
        E::NonFiniteScale { .. }
    );
    assert_refused!(
        right("mxfp4").change("layer.weight_scale", |t| t.bytes[4] = 0xFF),
        E::InvalidScale {
            row: 1,
            block: 1,
            byte: 0xFF,
            ..
        }
    );
    assert_refused!(
        right("fp8_rows").change("layer.weight", |t| t.bytes[97] = 0x7F),
        E::Matrix {
            source: FormatError::NonFiniteCode {
                row: 1,
                column: 1,
                code: 0x7F,
                ..
            },
            ..
        }
    );
    assert_refused!(
        right("pack4_rows").change("layer.weight_shape", |t| t.bytes[0] = 23),
        E::WrongShape { .. }
    );
    assert_refused!(
        right("pack4_rows").change("layer.weight_shape", |t| t.bytes[8] = 95 - 8),
        E::Setting { .. }
    );
    assert_refused!(
        right("pack4_rows").change("layer.weight_shape", |t| t.bytes[15] = 0x80),
        E::WrongShape { .. }
    );
}

fn state(writer: Writer, json: &str) -> Writer {
    writer.change("layer.weight.quant_state.bitsandbytes__nf4", |t| {
        t.bytes = json.as_bytes().to_vec();
        t.shape = vec![t.bytes.len() as u64];
    })
}

#[test]
fn quant_states_are_checked() {
    use ImportError as E;
    let with = |json: &str| state(right("nf4"), json);
    assert_refused!(with(""), E::InvalidJson { .. });
    assert_refused!(with("{}"), E::InvalidJson { .. });
    assert_refused!(
        with(r#"{"blocksize":64,"shape":[4,-128]}"#),
        E::InvalidJson { .. }
    );
    assert_refused!(
        with(r#"{"blocksize":0,"shape":[4,128]}"#),
        E::Setting {
            setting: "blocksize",
            ..
        }
    );
    assert_refused!(
        with(r#"{"blocksize":64,"shape":[4,129]}"#),
        E::WrongShape { .. }
    );
    assert_refused!(
        with(r#"{"blocksize":64,"shape":[0,128]}"#),
        E::WrongShape { .. }
    );
    assert_refused!(
        with(r#"{"blocksize":64,"shape":[4294967296,4294967296]}"#),
        E::WrongShape { .. }
    );
    assert_refused!(
        with(r#"{"blocksize":32,"shape":[4,128]}"#),
        E::WrongShape { .. }
    );
    // Messages list the dimensions, so they are few.
    let long = format!(r#"{{"blocksize":64,"shape":[{}0]}}"#, "0,".repeat(20_000));
    assert_refused!(with(&long), E::InvalidJson { .. });
    assert_refused!(
        with(r#"{"blocksize":64,"shape":[2,2,128]}"#),
        E::NotAMatrix { .. }
    );
    let nested = |json: &str| state(right("nf4_nested"), json);
    assert_refused!(
        nested(r#"{"blocksize":64,"shape":[8,128]}"#),
        E::Setting {
            setting: "nested_blocksize",
            ..
        }
    );
    assert_refused!(
        nested(r#"{"blocksize":64,"shape":[8,128],"nested_blocksize":16}"#),
        E::WrongShape { .. }
    );
    assert_refused!(
        nested(r#"{"blocksize":64,"shape":[8,128],"nested_blocksize":8,"nested_offset":1e39}"#),
        E::NonFiniteScale { .. }
    );
    let long = format!(
        r#"{{"blocksize":64,"shape":[4,128],"x":"{}"}}"#,
        "x".repeat(1 << 16)
    );
    assert_refused!(with(&long), E::TooLong { .. });
    // A block longer than the matrix.
    let writer = state(
        right("nf4"),
        r#"{"blocksize":18446744073709551615,"shape":[4,128]}"#,
    )
    .change("layer.weight.absmax", |t| {
        t.shape = vec![1];
        t.bytes.truncate(4);
    });
    assert_eq!(
        open(&writer)
            .matrix("layer.weight")
            .unwrap()
            .format()
            .to_string(),
        "nf4rf"
    );
}

/// A stored zero point of all ones means one more.
#[test]
fn zero_points_of_gptq_do_not_wrap() {
    let file = golden::named("gptq4").open();
    let matrix = file.matrix("layer.weight").unwrap();
    assert_eq!((matrix.zero_point(0, 0), matrix.zero_point(1, 0)), (16, 1));

    let writer = right("gptq8").change("layer.qzeros", |t| t.bytes[0] = 0xFF);
    let file = with_own_config(writer.build()).unwrap();
    let error = file.matrix("layer.weight").unwrap_err();
    assert!(
        matches!(error, ImportError::NotPackable { .. }),
        "{error:?}"
    );
    let (values, expected) = (
        file.values("layer.weight").unwrap(),
        file.values("expected").unwrap(),
    );
    // Output 0 has the scale 0 in its first group, and 256 − 255 more to subtract.
    assert_eq!(
        values.iter().map(|v| v.abs()).collect::<Vec<_>>(),
        expected.iter().map(|v| v.abs()).collect::<Vec<_>>()
    );
}

#[test]
fn the_configuration_tells_the_version_of_gptq() {
    let writer = right("gptq4_v2");
    let config =
        |format: &str| format!(r#"{{"bits":4,"group_size":32,"checkpoint_format":"{format}"}}"#);
    let zero = |file: SafetensorsFile| file.matrix("layer.weight").unwrap().zero_point(0, 0);
    assert_eq!(zero(configured(&writer, &config("gptq_v2"))), 15);
    assert_eq!(zero(configured(&writer, &config("gptq"))), 16);
    assert_eq!(zero(configured(&writer, "{}")), 16);
    let error = configured(&writer, &config("marlin"))
        .matrix("layer.weight")
        .unwrap_err();
    assert!(
        matches!(
            error,
            ImportError::Setting {
                setting: "checkpoint_format",
                ..
            }
        ),
        "{error:?}"
    );
    let error = configured(&writer, r#"{"bits":3}"#)
        .matrix("layer.weight")
        .unwrap_err();
    assert!(
        matches!(
            error,
            ImportError::Setting {
                setting: "bits",
                ..
            }
        ),
        "{error:?}"
    );
    let error = configured(&right("awq"), r#"{"w_bit":4,"version":"GEMV"}"#)
        .matrix("layer.weight")
        .unwrap_err();
    assert!(
        matches!(
            error,
            ImportError::Setting {
                setting: "version",
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn configurations_are_read() {
    let read = |text: &str| QuantizationConfig::from_json(text.as_bytes());
    assert_eq!(read("{}").unwrap(), QuantizationConfig::default());
    // A model's own version and sizes are none of quantisation.
    assert_eq!(
        read(r#"{"version":7,"format":3,"hidden_size":5}"#).unwrap(),
        QuantizationConfig::default()
    );
    let config = read(r#"{"model_type":"x","quantization_config":{"quant_method":"fp8","weight_block_size":[128,64]}}"#).unwrap();
    assert_eq!(config.method.as_deref(), Some("fp8"));
    assert_eq!(config.weight_block_size, Some([128, 64]));
    let groups = |a: u32, b: u32| {
        format!(
            r#"{{"quantization_config":{{"config_groups":{{"a":{{"weights":{{"num_bits":{a}}}}},"b":{{"weights":{{"num_bits":{b}}}}}}}}}}}"#
        )
    };
    assert_eq!(read(&groups(4, 4)).unwrap().bits, Some(4));
    assert_eq!(read(&groups(4, 8)).unwrap().bits, None);
    // One of another kind than text says nothing, and groups without weights have no part.
    for version in ["7", "-7.5", "true", "null", "[[1]]", r#"{"a":{}}"#] {
        let config = read(&format!(r#"{{"w_bit":4,"version":{version}}}"#)).unwrap();
        assert_eq!((config.bits, config.version), (Some(4), None), "{version}");
    }
    let config = read(r#"{"version":"GEMM","q_group_size":64,"w_bit":4}"#).unwrap();
    assert_eq!(config.version.as_deref(), Some("gemm"));
    assert_eq!((config.bits, config.group_size), (Some(4), Some(64)));
    let some =
        r#"{"bits":2,"config_groups":{"a":{},"b":{"weights":{"num_bits":4,"group_size":32}}}}"#;
    let config = read(some).unwrap();
    assert_eq!((config.bits, config.group_size), (Some(2), Some(32)));
    let none = r#"{"quantization_config":null,"bits":4}"#;
    assert_eq!(read(none).unwrap(), QuantizationConfig::default());
    let long = format!(r#"{{"bits":4{}}}"#, " ".repeat(1 << 20));
    assert!(
        matches!(
            read(&long),
            Err(ImportError::TooLong {
                limit: 0x10_0000,
                ..
            })
        ),
        "a configuration of more than 1 MiB"
    );
    for text in [
        "",
        "[",
        "[]",
        r#"{"bits":4,"bits":4}"#,
        r#"{"bits":"four"}"#,
        r#"{"bits":-1}"#,
        r#"{"quantization_config":5}"#,
    ] {
        assert!(
            matches!(read(text), Err(ImportError::InvalidJson { .. })),
            "{text}"
        );
    }
}

#[test]
fn bits_of_packed_integers_follow_from_their_words() {
    let mut writer = right("pack4_rows");
    writer.metadata.clear();
    assert_eq!(
        open(&writer)
            .matrix("layer.weight")
            .unwrap()
            .format()
            .to_string(),
        "i4rf"
    );
    // 7 columns of 1 to 4 bits fill one word.
    let small = Writer::new()
        .i32("weight_packed", &[1, 1], &[0])
        .f32("weight_scale", &[1, 1], &[1.0])
        .i32("weight_shape", &[2], &[1, 7]);
    let error = open(&small).values("weight").unwrap_err();
    assert!(matches!(error, ImportError::Undecided { .. }), "{error:?}");
    let config = r#"{"bits":4}"#;
    assert_eq!(
        configured(&small, config).values("weight").unwrap(),
        [-8.0; 7]
    );
    let error = configured(&small, r#"{"bits":5}"#)
        .values("weight")
        .unwrap_err();
    assert!(matches!(error, ImportError::Setting { .. }), "{error:?}");
}

/// Blocks of 128 rows by 128 columns, as DeepSeek-V3 has them, without a configuration.
#[test]
fn blocks_of_128_by_128() {
    let (rows, columns) = (130, 192);
    let mut random = Random(4);
    let codes: Vec<u8> = (0..rows * columns)
        .map(|_| (random.below(0x7F)) as u8)
        .collect();
    let scales = [0.5, 0.25, 3.0, 0.125];
    let writer = Writer::new()
        .tensor(
            "w.weight",
            "F8_E4M3",
            &[rows as u64, columns as u64],
            codes.clone(),
        )
        .f32("w.weight_scale_inv", &[2, 2], &scales);
    let file = open(&writer);
    let matrix = file.matrix("w.weight").unwrap();
    // 64 is the largest group that ends where blocks and rows do.
    assert_eq!(matrix.format().to_string(), "e4m3g64f");
    assert_eq!(matrix.unpack_codes(), codes);
    let decoded = matrix.decode();
    assert_eq!(file.values("w.weight").unwrap(), decoded);
    let bare = open(&writer.clone().without("w.weight_scale_inv"))
        .values("w.weight")
        .unwrap();
    for row in 0..rows {
        for column in 0..columns {
            let scale = scales[row / 128 * 2 + column / 128];
            let index = row * columns + column;
            assert_eq!(decoded[index], bare[index] * scale, "{row} {column}");
        }
    }
    // Scales that are of no such blocks.
    let wrong = writer.change("w.weight_scale_inv", |t| t.shape = vec![4, 1]);
    let error = open(&wrong).matrix("w.weight").unwrap_err();
    assert!(matches!(error, ImportError::WrongShape { .. }), "{error:?}");
}

#[test]
fn plain_tensors_of_other_types_are_listed_and_refused() {
    let file = Writer::new()
        .tensor("bytes", "U8", &[2, 2], [1, 2, 3, 4])
        .tensor("signed", "I8", &[2, 2], [1, 2, 3, 4])
        .tensor("long", "I64", &[1], [0; 8])
        .tensor("empty", "F32", &[0, 3], [])
        .tensor("deep", "BF16", &[2, 2, 2], [0; 16])
        .tensor("scalar", "F16", &[], [0, 0x3C])
        .tensor("infinite", "F16", &[1, 2], [0, 0x3C, 0, 0x7C]);
    let file = open(&file);
    for name in ["bytes", "signed", "long"] {
        assert_eq!(file.weight(name).unwrap().matrix_format(), None);
        assert!(matches!(
            file.matrix(name),
            Err(ImportError::UnsupportedLayout { .. })
        ));
        assert!(matches!(
            file.values(name),
            Err(ImportError::UnsupportedLayout { .. })
        ));
    }
    assert_eq!(
        file.weight("long").unwrap().layout(),
        WeightLayout::Plain(Dtype::I64)
    );
    assert!(matches!(
        file.values("empty"),
        Err(ImportError::EmptyTensor { .. })
    ));
    assert!(matches!(
        file.matrix("deep"),
        Err(ImportError::NotAMatrix { .. })
    ));
    assert_eq!(file.values("deep").unwrap().len(), 8);
    assert_eq!(file.rows("deep", &[3]).unwrap().len(), 2);
    assert_eq!(file.values("scalar").unwrap(), [1.0]);
    assert!(matches!(
        file.rows("deep", &[4]),
        Err(ImportError::RowOutOfRange {
            row: 4,
            rows: 4,
            ..
        })
    ));
    assert!(matches!(
        file.matrix("none"),
        Err(ImportError::UnknownTensor { .. })
    ));
    for result in [
        file.values("infinite").map(drop),
        file.matrix("infinite").map(drop),
    ] {
        assert!(matches!(
            result,
            Err(ImportError::Matrix {
                source: FormatError::NonFinite {
                    row: 0,
                    column: 1,
                    ..
                },
                ..
            })
        ));
    }
}

#[test]
fn a_weight_that_is_there_twice_is_refused() {
    let writer = right("gptq4").tensor("layer.weight", "F32", &[1], [0; 4]);
    let error = SafetensorsFile::from_bytes(writer.build()).unwrap_err();
    assert!(matches!(error, ImportError::DuplicateTensor { name } if name == "layer.weight"));
}

#[test]
fn columns_in_groups_of_other_sizes_have_values_alone() {
    // Column 0 moves to the last group, so that one has 31 columns and one 33.
    let writer = right("gptq4").change("layer.g_idx", |t| t.bytes[0] = 2);
    let file = with_own_config(writer.build()).unwrap();
    let error = file.permuted_matrix("layer.weight").unwrap_err();
    assert!(
        matches!(error, ImportError::NotPackable { .. }),
        "{error:?}"
    );
    let (values, expected) = (
        file.values("layer.weight").unwrap(),
        file.values("expected").unwrap(),
    );
    let differ = values
        .iter()
        .zip(&expected)
        .enumerate()
        .filter(|(_, (a, b))| a != b);
    let columns: Vec<usize> = differ.map(|(index, _)| index % 96).collect();
    assert!(!columns.is_empty() && columns.iter().all(|&column| column == 0));
    let format: MatrixFormat = "i4g32h".parse().unwrap();
    file.matrix_as("layer.weight", format, &Default::default())
        .unwrap();
}
