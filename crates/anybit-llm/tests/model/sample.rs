//! The sample model, SmolLM2-135M-Instruct, where it is.

use std::collections::HashMap;
use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anybit_import::gguf::GgufFile;

use crate::reference::Reference;

/// The file in the cache folder, and its length, by which it is told from other models.
const NAME: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const BYTES: u64 = 98_362_432;

/// The model that `ANYBIT_MODEL` names, else the one in the cache folder. `None`, and a note of the skip of `test`, if
/// there is none, or if it is another model.
///
/// # Panics
/// If `ANYBIT_MODEL` names what is not there, or the file cannot be read.
pub(crate) fn open(test: &str) -> Option<GgufFile> {
    let path = match variable("ANYBIT_MODEL").map(PathBuf::from) {
        Some(named) => {
            assert!(
                named.is_file(),
                "ANYBIT_MODEL names {}, which is not a file",
                named.display()
            );
            named
        }
        None => match cache_folder().map(|folder| folder.join(NAME)) {
            Some(cached) if cached.is_file() => cached,
            _ => {
                skip(
                    test,
                    "the sample model is not there; `cargo xtask setup` gets it",
                );
                return None;
            }
        },
    };
    let length = path.metadata().expect("the file has just been there").len();
    if length != BYTES {
        skip(test, &format!("{} is not the sample model", path.display()));
        return None;
    }
    Some(GgufFile::open(&path).expect("the sample model can be read"))
}

/// The reference's sample model, which takes half a gigabyte, once for all tests; or a note that `test` is skipped.
pub(crate) fn reference(test: &str) -> Option<&'static Reference> {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    let file = open(test)?;
    let load = || Reference::load(&file).expect("the sample model can be loaded");
    Some(REFERENCE.get_or_init(load))
}

/// Notes on stderr, past the capturing of test output, that a test or a part of one did not run.
pub(crate) fn skip(test: &str, reason: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // Written at once, so that other tests' output does not come in between. A closed stderr is no reason to fail.
    let line = format!("SKIP {count}: {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The value of an environment variable, unless it is empty.
pub(crate) fn variable(name: &str) -> Option<std::ffi::OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Where `cargo xtask setup` puts models.
fn cache_folder() -> Option<PathBuf> {
    let home = || variable("HOME").map(PathBuf::from);
    let base = match env::consts::OS {
        "windows" => variable("LOCALAPPDATA").map(PathBuf::from),
        "macos" => home().map(|home| home.join("Library/Caches")),
        _ => variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute())
            .or_else(|| home().map(|home| home.join(".cache"))),
    };
    base.map(|base| base.join("anybit/models"))
}

/// Cuts a text into the longest tokens of the vocabulary, from the left. For short sentences of common words, that is
/// what the model's own tokeniser does.
fn longest_tokens(file: &GgufFile, text: &str) -> Vec<u32> {
    let vocabulary = file
        .metadata()
        .get_strings("tokenizer.ggml.tokens")
        .expect("the sample model has a vocabulary");
    let ids: HashMap<&str, u32> = vocabulary.iter().map(String::as_str).zip(0..).collect();
    let text = text.replace(' ', "Ġ");
    let mut rest = text.as_str();
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let (length, &id) = (1..=rest.len())
            .rev()
            .find_map(|length| Some((length, ids.get(rest.get(..length)?)?)))
            .expect("the vocabulary has every letter");
        tokens.push(id);
        rest = &rest[length..];
    }
    tokens
}

#[test]
fn the_capital_of_france() {
    const TEST: &str = "the_capital_of_france";
    let (Some(file), Some(reference)) = (open(TEST), reference(TEST)) else {
        return;
    };
    let prompt = longest_tokens(&file, "The capital of France is");
    assert_eq!(prompt.len(), 5);
    let paris = longest_tokens(&file, " Paris");
    assert_eq!(paris.len(), 1);
    let continuation = reference
        .greedy(&prompt, 4)
        .expect("the tokens are the model's");
    assert_eq!(continuation[..1], paris, "{continuation:?}");
}
