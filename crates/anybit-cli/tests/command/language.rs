//! What the tests of the subcommands that run language models share: the sample model, tiny models, and bad input.

use std::path::Path;

use crate::sample_file;
use crate::support::{Folder, Run, adapter_flags};
use crate::tiny::writer::Value;
use crate::tiny::{Damage, Tiny};

/// The sample model, or a note that `test` is skipped.
pub(crate) fn sample(test: &str) -> Option<String> {
    let path = sample_file::path(test)?;
    Some(path.to_str().expect("the path is text").to_owned())
}

/// The text that perplexity is taken of, and the figures of the reference.
pub(crate) fn library_data(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../anybit-llm/tests/data");
    let path = folder.join(name);
    path.to_str().expect("the path is text").to_owned()
}

/// A folder with files of tiny models, and the adapter to run them on.
pub(crate) struct Bench {
    pub(crate) folder: Folder,
    adapter: Vec<String>,
}

impl Bench {
    /// With a tiny llama as `tiny.gguf` and a text of some hundred tokens as `text.txt`. `None`, reported as a skip, without an
    /// adapter.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let adapter = adapter_flags(test)?;
        let folder = Folder::new();
        folder.write("tiny.gguf", &Tiny::llama().bytes());
        folder.write("text.txt", TEXT.as_bytes());
        Some(Self { folder, adapter })
    }

    /// Runs the command in the folder on the adapter.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        let adapter = self.adapter.iter().map(String::as_str);
        let arguments: Vec<&str> = arguments.iter().copied().chain(adapter).collect();
        self.folder.run(&arguments)
    }

    /// The same. Words are parted by spaces.
    pub(crate) fn line(&self, line: &str) -> Run {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn adapter(&self) -> &[String] {
        &self.adapter
    }
}

const TEXT: &str = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of \
foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light.";

/// The keys of a JSON object, in order.
pub(crate) fn keys(value: &serde_json::Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Models that cannot be run, and what the error says.
fn broken() -> Vec<(Tiny, &'static str)> {
    let key = |key: &str, value| Damage::Key(key.to_owned(), value);
    let text = |text: &str| Value::String(text.to_owned());
    let length = Tiny::llama().bytes().len();
    [
        (
            key("general.architecture", text("mamba")),
            "the model's architecture is \"mamba\"; known are llama,",
        ),
        (
            Damage::NoKey("general.architecture".into()),
            "the model's architecture is \"\"",
        ),
        (
            Damage::NoKey("llama.block_count".into()),
            "llama.block_count",
        ),
        (
            Damage::NoTensor("blk.1.ffn_up.weight".into()),
            "the model has no tensor blk.1.ffn_up.weight",
        ),
        (
            Damage::Shape("blk.2.attn_k.weight".into(), vec![64, 64]),
            "the tensor blk.2.attn_k.weight has the dimensions [64, 64]",
        ),
        (
            Damage::Vocabulary(Tiny::vocabulary() + 3),
            "the vocabulary has 308 tokens, but token_embd.weight has 305 rows",
        ),
        (
            Damage::Vocabulary(Tiny::vocabulary() - 3),
            "tokenizer.ggml.merges needs piece",
        ),
        (
            key("tokenizer.ggml.model", text("bert")),
            "tokeniser \"bert\"",
        ),
        (
            key("llama.rope.scaling.type", text("yarn")),
            "\"yarn\" is not supported",
        ),
        (Damage::Truncate(length / 2), "cut off"),
        (Damage::Truncate(100), "bytes left at offset 24"),
        (Damage::Truncate(3), "model.gguf"),
        (Damage::Truncate(0), "model.gguf"),
    ]
    .map(|(damage, problem)| (Tiny::llama().damaged(damage), problem))
    .into()
}

#[test]
fn models_that_cannot_be_run() {
    let Some(bench) = Bench::new("models_that_cannot_be_run") else {
        return;
    };
    for (tiny, problem) in broken() {
        bench.folder.write("model.gguf", &tiny.bytes());
        let before = bench.folder.files();
        for line in [
            "generate model.gguf prompt",
            "perplexity model.gguf text.txt --logits logits.npy",
            "sweep model.gguf text.txt --svg chart.svg",
        ] {
            let run = bench.line(line);
            assert_eq!(run.stdout, "", "{run:?}");
            let error = run.failed(1);
            assert!(error.contains("model.gguf"), "{line}: {error}");
            assert!(error.contains(problem), "{line}: {problem}: {error}");
            assert_eq!(bench.folder.files(), before, "{line}: {problem}");
        }
    }
}

#[test]
fn files_that_are_no_models() {
    let Some(bench) = Bench::new("files_that_are_no_models") else {
        return;
    };
    bench
        .folder
        .run(&[
            "pack",
            "tiny.gguf",
            "--weight-format",
            "int8",
            "--output",
            "packed.safetensors",
        ])
        .passed();
    for (model, problem) in [
        ("none.gguf", "cannot open"),
        ("text.txt", "text.txt"),
        ("packed.safetensors", "expected a GGUF file"),
    ] {
        let error = bench.run(&["generate", model, "prompt"]).failed(1);
        assert!(error.contains(problem), "{model}: {error}");
        let error = bench.run(&["perplexity", model, "text.txt"]).failed(1);
        assert!(error.contains(problem), "{model}: {error}");
    }
}

#[test]
fn formats_that_cannot_be_taken() {
    let Some(bench) = Bench::new("formats_that_cannot_be_taken") else {
        return;
    };
    for (flags, problem) in [
        ("--weight-format int9", "did you mean int8"),
        ("--head-format int9", "did you mean int8"),
        ("--activation-format nosuch", "activations: "),
        (
            "--activation-format f16",
            "take f32, or a format with codes",
        ),
        ("--activation-format u8rfz", "zero points"),
        // The feed-forward layer is 160 wide.
        (
            "--weight-format i4g64h",
            "160 columns do not make whole groups of 64",
        ),
    ] {
        let line = format!("generate tiny.gguf prompt --max-tokens 1 {flags}");
        let error = bench.line(&line).failed(1);
        assert!(error.contains(problem), "{flags}: {error}");
    }
    for flags in [
        "--kv-format int3",
        "--exact --kv-format f16",
        "--exact --activation-format int8",
        "--temperature warm",
        "--temperature -1",
        "--top-k -1",
        "--seed -1",
        "--max-tokens -1",
    ] {
        let line = format!("generate tiny.gguf prompt {flags}");
        bench.line(&line).failed(2);
    }
    for flags in [
        "--temperature inf",
        "--temperature NaN",
        "--top-p 1.5",
        "--top-p=-0.5",
    ] {
        let line = format!("generate tiny.gguf prompt {flags}");
        let error = bench.line(&line).failed(1);
        assert!(error.contains("it must be"), "{flags}: {error}");
    }
}
