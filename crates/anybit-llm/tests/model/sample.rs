//! The sample model, SmolLM2-135M-Instruct, where it is.

use std::collections::HashMap;
use std::sync::OnceLock;

use anybit_import::gguf::GgufFile;

use crate::reference::Reference;

#[path = "../common/sample_file.rs"]
mod sample_file;

pub(crate) use self::sample_file::{skip, variable};

/// The sample model, or a note that `test` is skipped.
pub(crate) fn open(test: &str) -> Option<GgufFile> {
    let path = sample_file::path(test)?;
    Some(GgufFile::open(path).expect("the sample model can be read"))
}

/// The reference's sample model, which takes half a gigabyte, once for all tests; or a note that `test` is skipped.
pub(crate) fn reference(test: &str) -> Option<&'static Reference> {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    let file = open(test)?;
    let load = || Reference::load(&file).expect("the sample model can be loaded");
    Some(REFERENCE.get_or_init(load))
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
