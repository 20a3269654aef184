//! A model out of a file of packed matrices, as `anybit pack` makes it of a GGUF file.

use anybit_import::ModelFile;
use anybit_import::safetensors::PackedFileWriter;
use anybit_llm::{LoadOptions, Model, ModelConfig, Precision, Session};

use crate::rig;
use crate::tiny::Tiny;

const TOKENS: usize = 24;

#[test]
fn packed_files_give_the_same_logits() {
    let Some(context) = rig::context("packed_files_give_the_same_logits") else {
        return;
    };
    for tiny in Tiny::all() {
        let gguf = ModelFile::Gguf(tiny.file());
        let folder = std::env::temp_dir().join(format!("anybit-packed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let path = folder.join(format!("{}.safetensors", tiny.architecture));
        let mut writer = PackedFileWriter::create(&path).expect("a file can be made");
        for (key, value) in gguf.metadata() {
            writer.metadata(&key, &value).expect("short metadata");
        }
        for weight in gguf.weights() {
            if weight.is_matrix() {
                let matrix = gguf.matrix(&weight.name).expect("the matrix can be read");
                writer.matrix(&weight.name, &matrix).expect("it is written");
            } else {
                let tensor = gguf.plain(&weight.name).expect("the vector can be read");
                writer
                    .tensor(&weight.name, tensor.dtype, &tensor.shape, &tensor.bytes)
                    .expect("it is written");
            }
        }
        writer.finish().expect("the file is whole");

        let packed = ModelFile::open(&path).expect("the packed file can be read");
        assert!(packed.is_packed());
        assert_eq!(
            ModelConfig::read(&packed).expect("its metadata are those of the model"),
            ModelConfig::read(&gguf).expect("the tiny model is right"),
        );
        let logits = |file: &ModelFile| {
            let options = LoadOptions::new(Precision::exact());
            let model = Model::load(context, file, &options, &mut |_| ())
                .unwrap_or_else(|error| panic!("{}: {error}", tiny.architecture));
            let mut session = Session::new(&model, TOKENS).expect("a session");
            rig::raw_logits(&mut session, &Tiny::text(TOKENS, 5))
        };
        let (expected, found) = (logits(&gguf), logits(&packed));
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
        assert!(expected.iter().any(|&logit| logit != 0.0));
        assert_eq!(found, expected, "{}", tiny.architecture);
    }
}
