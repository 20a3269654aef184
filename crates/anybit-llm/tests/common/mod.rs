//! What the tests share: the fixtures, the sample model, and GGUF files of changed metadata.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of this"
)]

mod sample_file;
#[path = "../model/tiny/writer.rs"]
mod writer;

use std::path::PathBuf;

use anybit_import::gguf::{Array, GgufFile, Value};
use anybit_llm::{Tokenizer, TokenizerError};
use proptest::prelude::*;

pub(crate) use self::writer::{integers, strings};

/// The sample model, or a note that `test` is skipped.
pub(crate) fn sample_model(test: &str) -> Option<GgufFile> {
    let path = sample_file::path(test)?;
    Some(GgufFile::open(path).expect("the sample model can be read"))
}

/// Byte-level pieces.
pub(crate) const BYTE_LEVEL: &str = "byte-level.gguf";
/// SentencePiece, with a space in front of texts.
pub(crate) const WITH_SPACE: &str = "spm-prefix.gguf";
/// SentencePiece without one, and with pieces defined by the user.
pub(crate) const PLAIN: &str = "spm-plain.gguf";

/// Texts that name pieces now and then.
pub(crate) fn texts() -> impl Strategy<Value = String> {
    let parts = prop_oneof![
        any::<String>(),
        "[ \n\ta-e']{0,12}",
        "[0-9 .,]{0,8}",
        proptest::sample::select(vec![
            "<|im_start|>",
            "<table>",
            "</s>",
            "\n\n",
            "   ",
            "<0x41>",
            "é",
            "你好",
            "👩‍👧"
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(parts, 0..8).prop_map(|parts| parts.concat())
}

pub(crate) fn data(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    folder.join("tests/data").join(name)
}

/// Metadata that a test changes.
#[derive(Clone, Debug)]
pub(crate) struct Fields(pub(crate) Vec<(String, Value)>);

impl Fields {
    /// The metadata of a fixture of the tokeniser's tests.
    pub(crate) fn of(name: &str) -> Self {
        let file = GgufFile::open(data("tokenizer").join(name)).expect("a fixture can be read");
        let entries = file.metadata().iter();
        Self(
            entries
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect(),
        )
    }

    fn position(&self, key: &str) -> Option<usize> {
        let key = format!("tokenizer.{key}");
        self.0.iter().position(|(name, _)| *name == key)
    }

    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self = self.without(key);
        self.0.push((format!("tokenizer.{key}"), value));
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        if let Some(position) = self.position(key) {
            self.0.remove(position);
        }
        self
    }

    /// With an array changed in place; without that array, unchanged.
    pub(crate) fn change(mut self, key: &str, change: impl FnOnce(&mut Array)) -> Self {
        if let Some(position) = self.position(key) {
            if let Value::Array(array) = &mut self.0[position].1 {
                change(array);
            }
        }
        self
    }

    pub(crate) fn get(&self, key: &str) -> &Value {
        let position = self.position(key).expect("the fixture has the key");
        &self.0[position].1
    }

    pub(crate) fn strings(&self, key: &str) -> Vec<String> {
        match self.get(key) {
            Value::Array(Array::String(strings)) => strings.clone(),
            other => panic!("{key} is {other:?}"),
        }
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        let file = GgufFile::from_bytes(self.bytes()).expect("the metadata is valid GGUF");
        Tokenizer::from_gguf(file.metadata())
    }

    /// A GGUF file of this metadata and no tensors.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        writer::write(&self.0, &[])
    }
}

pub(crate) fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}
