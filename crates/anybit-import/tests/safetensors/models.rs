//! Models on disk: several files, directories, configurations beside them, and files of any kind.

use std::path::PathBuf;

use anybit_formats::{MatrixFormat, QuantizeOptions};
use anybit_import::safetensors::{Dtype, PackedFileWriter, SafetensorsFile};
use anybit_import::{ImportError, ModelFile};

use crate::golden;
use crate::writer::Writer;

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("anybit-models-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn shards() -> [Writer; 2] {
    // The parts of one weight may be in two files.
    let whole = Writer::read(&golden::named("gptq4").bytes());
    let (mut first, mut second) = (Writer::new(), Writer::new());
    first.metadata = vec![("format".to_owned(), "pt".to_owned())];
    second.metadata.clone_from(&first.metadata);
    for (index, tensor) in whole.tensors.into_iter().enumerate() {
        if index % 2 == 0 {
            &mut first
        } else {
            &mut second
        }
        .tensors
        .push(tensor);
    }
    [first, second]
}

fn index(shards: &[Writer; 2]) -> String {
    let mut map = Vec::new();
    for (shard, name) in shards.iter().zip(["one.safetensors", "two.safetensors"]) {
        map.extend(
            shard
                .tensors
                .iter()
                .map(|tensor| format!("{:?}:{name:?}", tensor.name)),
        );
    }
    format!(
        r#"{{"metadata":{{"total_size":1}},"weight_map":{{{}}}}}"#,
        map.join(",")
    )
}

#[test]
fn models_in_several_files() {
    let directory = Directory::new("several");
    let shards = shards();
    directory.file("one.safetensors", shards[0].build());
    directory.file("two.safetensors", shards[1].build());
    let path = directory.file("model.safetensors.index.json", index(&shards));
    directory.file(
        "quantize_config.json",
        r#"{"bits":4,"group_size":32,"checkpoint_format":"gptq"}"#,
    );

    let whole = golden::named("gptq4").open();
    for path in [&path, &directory.0] {
        let file = SafetensorsFile::open(path).unwrap();
        assert_eq!(
            file.matrix("layer.weight").unwrap(),
            whole.matrix("layer.weight").unwrap()
        );
        assert_eq!(file.metadata().collect::<Vec<_>>(), [("format", "pt")]);
        assert_eq!(file.config().bits, Some(4));
    }
    // Alone, a file lacks parts.
    let file = SafetensorsFile::open(directory.0.join("one.safetensors")).unwrap();
    assert!(matches!(
        file.matrix("layer.weight"),
        Err(ImportError::MissingTensor { .. })
    ));
}

#[test]
fn wrong_indices() {
    let directory = Directory::new("indices");
    let shards = shards();
    directory.file("one.safetensors", shards[0].build());
    directory.file("two.safetensors", shards[1].build());
    let refused = |index: &str| {
        let path = directory.file("x.index.json", index);
        SafetensorsFile::open(path).unwrap_err()
    };
    for name in [
        "../one.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "",
        ".",
        "..",
        "a\\b",
        "./one.safetensors",
    ] {
        let error = refused(&format!(r#"{{"weight_map":{{"a":{name:?}}}}}"#));
        assert!(
            matches!(error, ImportError::FileOutsideDirectory { .. }),
            "{name}: {error:?}"
        );
    }
    let error = refused(r#"{"weight_map":{"a":"three.safetensors"}}"#);
    assert!(matches!(error, ImportError::Open { .. }), "{error:?}");
    let error = refused(
        r#"{"weight_map":{"layer.qweight":"two.safetensors","layer.bias":"one.safetensors"}}"#,
    );
    assert!(matches!(error, ImportError::NotInFile { .. }), "{error:?}");
    let error = refused(r#"{"weight_map":{"another":"one.safetensors"}}"#);
    assert!(matches!(error, ImportError::NotInFile { .. }), "{error:?}");
    for text in [
        "",
        "{}",
        "[]",
        r#"{"weight_map":[]}"#,
        r#"{"weight_map":{"a":1}}"#,
    ] {
        let error = refused(text);
        assert!(
            matches!(error, ImportError::InvalidJson { .. }),
            "{text}: {error:?}"
        );
    }
    // The same tensor in both files.
    directory.file("two.safetensors", shards[0].build());
    let error = refused(
        r#"{"weight_map":{"layer.qweight":"one.safetensors","layer.scales":"two.safetensors"}}"#,
    );
    assert!(
        matches!(error, ImportError::DuplicateTensor { .. }),
        "{error:?}"
    );
}

#[test]
fn directories() {
    let directory = Directory::new("directories");
    let error = SafetensorsFile::open(&directory.0).unwrap_err();
    assert!(
        matches!(error, ImportError::NoModelInDirectory { count: 0, .. }),
        "{error:?}"
    );
    let f32 = golden::named("f32").bytes();
    directory.file("a.safetensors", &f32);
    SafetensorsFile::open(&directory.0).unwrap();
    directory.file("b.safetensors", &f32);
    let error = SafetensorsFile::open(&directory.0).unwrap_err();
    assert!(
        matches!(error, ImportError::NoModelInDirectory { count: 2, .. }),
        "{error:?}"
    );
    directory.file("model.safetensors", &f32);
    SafetensorsFile::open(&directory.0).unwrap();
    directory.file("config.json", "not JSON");
    let error = SafetensorsFile::open(&directory.0).unwrap_err();
    assert!(
        matches!(error, ImportError::InvalidJson { .. }),
        "{error:?}"
    );
}

#[test]
fn the_configuration_of_a_model_is_found() {
    let directory = Directory::new("configuration");
    directory.file("model.safetensors", golden::named("gptq4_v2").bytes());
    let config = r#"{"architectures":["X"],"quantization_config":{"quant_method":"gptq","bits":4,"checkpoint_format":"gptq_v2"}}"#;
    directory.file("config.json", config);
    let file = SafetensorsFile::open(&directory.0).unwrap();
    assert_eq!(
        file.values("layer.weight").unwrap(),
        file.values("expected").unwrap()
    );
}

#[test]
fn one_opener_for_all_files() {
    let directory = Directory::new("opener");
    // The least GGUF there is: version 3, no tensors, no metadata.
    let mut gguf = b"GGUF\x03\0\0\0".to_vec();
    gguf.extend_from_slice(&[0; 16]);
    let path = directory.file("misnamed.safetensors", gguf);
    assert!(matches!(ModelFile::open(path), Ok(ModelFile::Gguf(_))));

    let path = directory.file("misnamed.gguf", golden::named("f16").bytes());
    let model = ModelFile::open(path).unwrap();
    assert!(!model.is_packed());
    let weights = model.weights();
    assert_eq!(
        (weights[0].name.as_str(), weights[0].stored_as.as_str()),
        ("layer.weight", "F16")
    );
    assert!(weights[0].is_matrix());
    assert_eq!(weights[0].matrix_format, Some(MatrixFormat::F16));
    assert_eq!(
        model.values("layer.weight").unwrap(),
        model.values("expected").unwrap()
    );
    assert_eq!(model.rows("layer.weight", &[1]).unwrap().len(), 50);
    assert_eq!(model.metadata()[0].0, "config");

    for bytes in [
        b"".as_slice(),
        b"PK\x03\x04",
        b"\x01\0\0\0\0\0\0\0[",
        b"GGU",
    ] {
        let path = directory.file("other", bytes);
        let error = ModelFile::open(path).unwrap_err();
        assert!(
            matches!(error, ImportError::UnknownFile { .. }),
            "{error:?}"
        );
    }
    let error = ModelFile::open(directory.0.join("none")).unwrap_err();
    assert!(matches!(error, ImportError::Open { .. }), "{error:?}");
}

/// What a tool that packs a model does.
#[test]
fn a_model_is_packed_and_read_again() {
    let directory = Directory::new("packs");
    let mut writer = Writer::read(&golden::named("bf16").bytes());
    writer = writer.tensor("norm", "BF16", &[2], [0x80, 0x3F, 0, 0x40]);
    let path = directory.file("model.safetensors", writer.build());
    let model = ModelFile::open(path).unwrap();
    let format: MatrixFormat = "u4rhm".parse().unwrap();
    let target = directory.0.join("packed.safetensors");
    let mut writer = PackedFileWriter::create(&target).unwrap();
    for (key, value) in model.metadata() {
        writer.metadata(&key, &value).unwrap();
    }
    for weight in model.weights() {
        if weight.is_matrix() {
            let converted = model
                .matrix_as(&weight.name, format, &QuantizeOptions::default())
                .unwrap();
            let from = if weight.name == "expected" {
                "F32"
            } else {
                "BF16"
            };
            assert_eq!(converted.requantised_from.as_deref(), Some(from));
            writer.matrix(&weight.name, &converted.matrix).unwrap();
        } else {
            let tensor = model.plain(&weight.name).unwrap();
            assert_eq!(tensor.dtype, Dtype::Bf16);
            writer
                .tensor(&weight.name, tensor.dtype, &tensor.shape, &tensor.bytes)
                .unwrap();
        }
    }
    writer.finish().unwrap();

    let packed = ModelFile::open(&target).unwrap();
    assert!(packed.is_packed());
    assert_eq!(packed.metadata(), model.metadata());
    assert_eq!(packed.values("norm").unwrap(), [1.0, 2.0]);
    assert_eq!(packed.weights()[0].stored_as, "packed u4rhm");
    let converted = packed
        .matrix_as("layer.weight", format, &QuantizeOptions::default())
        .unwrap();
    assert_eq!(converted.requantised_from, None);
    let direct = model
        .matrix_as("layer.weight", format, &QuantizeOptions::default())
        .unwrap();
    assert_eq!(converted.matrix, direct.matrix);
    // A quantised weight as a plain tensor is its values.
    let tensor = packed.plain("layer.weight").unwrap();
    assert_eq!(
        (tensor.dtype, tensor.shape.as_slice()),
        (Dtype::F32, [3, 50].as_slice())
    );
}
