//! What the tests share: the fixtures, the sample model, and GGUF files of changed metadata.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anybit_import::gguf::{Array, GgufFile, Value};
use anybit_llm::{Tokenizer, TokenizerError};
use proptest::prelude::*;

/// The variable that names a model to be used instead of the sample.
const MODEL_VARIABLE: &str = "ANYBIT_MODEL";

const SAMPLE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The sample model; where it is absent, says so and returns nothing, and the test is skipped.
pub(crate) fn sample_model(test: &str) -> Option<GgufFile> {
    let path = env::var_os(MODEL_VARIABLE)
        .map(PathBuf::from)
        .or_else(|| Some(cache_folder()?.join("models").join(SAMPLE)));
    let Some(path) = path.filter(|path| path.is_file()) else {
        skip(
            test,
            "there is no sample model: `cargo xtask setup` fetches it, or ANYBIT_MODEL names one",
        );
        return None;
    };
    Some(GgufFile::open(path).expect("the sample model can be read"))
}

/// Says that a test is skipped, and counts it; past the capture of the test runner, which hides what passing tests print.
pub(crate) fn skip(test: &str, reason: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let _ = writeln!(std::io::stderr(), "SKIP {count}: {test}: {reason}");
}

fn cache_folder() -> Option<PathBuf> {
    let folder = |name| env::var_os(name).map(PathBuf::from);
    let home = || folder("HOME");
    let base = match env::consts::OS {
        "windows" => folder("LOCALAPPDATA"),
        "macos" => home().map(|home| home.join("Library/Caches")),
        _ => folder("XDG_CACHE_HOME")
            // A relative path is invalid by the XDG standard, and to be ignored.
            .filter(|folder| folder.is_absolute())
            .or_else(|| home().map(|home| home.join(".cache"))),
    };
    base.map(|base| base.join("anybit"))
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
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend((self.0.len() as u64).to_le_bytes());
        for (key, value) in &self.0 {
            put_string(&mut bytes, key);
            put_value(&mut bytes, value);
        }
        bytes
    }
}

pub(crate) fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

pub(crate) fn strings<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Value {
    Value::Array(Array::String(texts.into_iter().map(Into::into).collect()))
}

pub(crate) fn integers(numbers: impl IntoIterator<Item = i32>) -> Value {
    Value::Array(Array::I32(numbers.into_iter().collect()))
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    let (id, content): (u32, Vec<u8>) = match value {
        Value::U32(number) => (4, number.to_le_bytes().to_vec()),
        Value::I32(number) => (5, number.to_le_bytes().to_vec()),
        Value::F32(number) => (6, number.to_le_bytes().to_vec()),
        Value::Bool(truth) => (7, vec![u8::from(*truth)]),
        Value::String(text) => {
            let mut content = Vec::new();
            put_string(&mut content, text);
            (8, content)
        }
        Value::Array(array) => (9, array_bytes(array)),
        other => panic!("no fixture has {other:?}"),
    };
    bytes.extend(id.to_le_bytes());
    bytes.extend(content);
}

fn array_bytes(array: &Array) -> Vec<u8> {
    let (id, content): (u32, Vec<u8>) = match array {
        Array::I32(numbers) => (
            5,
            numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
        ),
        Array::F32(numbers) => (
            6,
            numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
        ),
        Array::String(texts) => {
            let mut content = Vec::new();
            texts.iter().for_each(|text| put_string(&mut content, text));
            (8, content)
        }
        other => panic!("no fixture has {other:?}"),
    };
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend((array.len() as u64).to_le_bytes());
    bytes.extend(content);
    bytes
}
