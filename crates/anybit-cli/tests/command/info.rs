//! `anybit info`.

use serde_json::Value as Json;

use crate::language::sample;
use crate::support::{Folder, anybit};
use crate::tiny::writer::Value;
use crate::tiny::{Damage, Storage, Tiny};

fn info(tiny: &Tiny, flags: &str) -> Json {
    let folder = Folder::new();
    folder.write("model.gguf", &tiny.bytes());
    folder
        .anybit(&format!("info model.gguf --json {flags}"))
        .json()
}

#[test]
fn every_architecture() {
    for tiny in Tiny::all() {
        let tiny = tiny.stored(Storage::Q4_1);
        let report = info(&tiny, "");
        assert_eq!(report["architecture"], tiny.architecture);
        assert_eq!(report["runnable"], true, "{report}");
        assert_eq!(report["problems"], Json::Array(Vec::new()));
        let config = &report["config"];
        assert_eq!(config["blocks"], tiny.blocks);
        assert_eq!(config["vocabulary"], Tiny::vocabulary());
        assert_eq!(report["tokenizer"]["pieces"], Tiny::vocabulary());
        assert_eq!(report["tokenizer"]["chat_template"], false);
        let types = report["tensor_types"].as_array().expect("a list");
        let names: Vec<&str> = types
            .iter()
            .filter_map(|found| found["type"].as_str())
            .collect();
        for name in ["Q4_1", "Q8_0", "F32"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let tensors = report["tensors"].as_array().expect("a list");
        let counted: u64 = types
            .iter()
            .filter_map(|found| found["tensors"].as_u64())
            .sum();
        assert_eq!(tensors.len() as u64, counted);
        assert_eq!(tensors[0]["name"], "token_embd.weight");
        assert_eq!(
            tensors[0]["shape"],
            serde_json::json!([Tiny::vocabulary(), tiny.hidden])
        );
    }
}

#[test]
fn what_goes_onto_a_device() {
    let tiny = Tiny::llama().stored(Storage::Q4_1);
    let bytes = |flags: &str, key: &str| {
        let report = info(&tiny, flags);
        report["on_device"][key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key} in {report}"))
    };
    let (hidden, feed_forward, keys) = (64, 160, 32);
    let blocks = 3 * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * feed_forward);
    let embedding = Tiny::vocabulary() as u64 * hidden;
    let norms = 4 * 7 * hidden;
    // Q4_1 takes 5 bits a value, Q8_0 8.5.
    assert_eq!(
        bytes("", "weights"),
        blocks * 5 / 8 + embedding * 17 / 16 + norms
    );
    assert_eq!(
        bytes("--weight-format f32", "weights"),
        4 * (blocks + embedding) + norms
    );
    // 3 layers, keys and values of 32 channels.
    assert_eq!(
        bytes("--kv-format f16", "kv_cache_of_1024_tokens"),
        3 * 2 * 32 * 2 * 1024
    );
    assert_eq!(
        bytes("--exact", "kv_cache_of_context"),
        3 * 2 * 32 * 4 * 128
    );
}

#[test]
fn models_that_cannot_be_run_are_described() {
    for (damage, problem) in [
        (
            Damage::Key("general.architecture".into(), Value::String("mamba".into())),
            "the model's architecture is \"mamba\"",
        ),
        (
            Damage::NoTensor("blk.1.ffn_up.weight".into()),
            "blk.1.ffn_up.weight",
        ),
        (
            Damage::Vocabulary(Tiny::vocabulary() + 1),
            "the vocabulary has 306 tokens",
        ),
        (
            Damage::Key("tokenizer.ggml.model".into(), Value::String("bert".into())),
            "tokeniser \"bert\"",
        ),
    ] {
        let folder = Folder::new();
        folder.write("model.gguf", &Tiny::llama().damaged(damage).bytes());
        let report = folder.anybit("info model.gguf --json").json();
        assert_eq!(report["runnable"], false);
        let problems = report["problems"].to_string();
        assert!(problems.replace('\\', "").contains(problem), "{problems}");
        assert!(
            report["tensors"]
                .as_array()
                .is_some_and(|tensors| tensors.len() > 20)
        );
        assert!(report["metadata"]["general.architecture"].is_string());
        let text = folder.anybit("info model.gguf").passed().stdout;
        assert!(text.contains("cannot be run  "), "{text}");
        assert!(text.contains(problem), "{text}");
        assert!(text.contains("blk.0.attn_q.weight"), "{text}");
    }
}

#[test]
fn files_that_cannot_be_read() {
    let folder = Folder::new();
    let length = Tiny::llama().bytes().len();
    for kept in [0, 3, 100, length / 2, length - 64] {
        let tiny = Tiny::llama().damaged(Damage::Truncate(kept));
        folder.write("model.gguf", &tiny.bytes());
        let error = folder.anybit("info model.gguf").failed(1);
        assert!(error.contains("model.gguf"), "{kept}: {error}");
    }
    folder.anybit("info none.gguf").failed(1);
    folder.write("model.gguf", &Tiny::llama().bytes());
    let error = folder
        .anybit("info model.gguf --weight-format int9")
        .failed(1);
    assert!(error.contains("did you mean int8"), "{error}");
    // A format that the model cannot take is a problem of the two together.
    let report = folder
        .anybit("info model.gguf --weight-format i4g64h --json")
        .json();
    assert_eq!(report["runnable"], false);
    assert!(report["on_device"].is_null());
}

#[test]
fn the_sample_model() {
    let Some(model) = sample("the_sample_model") else {
        return;
    };
    let text = anybit(&["info", &model]).passed().stdout;
    for line in [
        "architecture   llama",
        "layers         30, 576 wide, feed-forward 1536",
        "heads          9 of 64 channels, 3 of keys and values",
        "tokeniser      gpt2 (smollm), 49152 pieces, with a chat template",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}
