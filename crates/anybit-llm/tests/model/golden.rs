//! How well the sample model predicts a text: the figures of tests/data/perplexity.json, which tests of the library
//! are compared with.

use std::sync::OnceLock;

use serde_json::Value as Json;

use crate::reference::{Reference, math};
use crate::sample;

/// The figures are given to ten digits after the point.
const TOLERANCE: f64 = 1e-9;

/// Has the whole text scored, which takes some minutes.
pub(crate) const WHOLE_TEXT: &str = "ANYBIT_WHOLE_TEXT";

pub(crate) fn tokens() -> Vec<u32> {
    serde_json::from_str(include_str!("../data/text.ids.json")).expect("the file is JSON")
}

pub(crate) fn figures() -> Json {
    serde_json::from_str(include_str!("../data/perplexity.json")).expect("the file is JSON")
}

/// The reference's logits of the first 256 tokens, which take some seconds, once for all tests; or a note that `test` is
/// skipped.
pub(crate) fn logits(test: &str) -> Option<&'static [f64]> {
    static LOGITS: OnceLock<Vec<f64>> = OnceLock::new();
    let reference = sample::reference(test)?;
    let logits = LOGITS.get_or_init(|| {
        reference
            .forward(&tokens()[..256])
            .expect("the tokens are the model's")
    });
    Some(logits)
}

/// The mean of the negative log likelihoods of the text's tokens after the first, by the logits after each.
pub(crate) fn mean_loss(logits: &[f64], vocabulary: usize) -> f64 {
    let tokens = tokens();
    let rows = logits.chunks_exact(vocabulary).zip(&tokens[1..]);
    let losses = rows.map(|(row, &next)| math::log_sum_exp(row) - row[next as usize]);
    // After the last row comes a token of which there is no row.
    let count = logits.len() / vocabulary - 1;
    losses.take(count).sum::<f64>() / count as f64
}

/// Scores the text in contexts of the given length, each on its own: how many tokens were predicted, and the mean of
/// their negative log likelihoods.
fn score(reference: &Reference, tokens: &[u32], context: usize) -> (usize, f64) {
    let losses: Vec<f64> = tokens
        .chunks(context)
        .flat_map(|context| {
            reference
                .losses(context)
                .expect("the tokens are the model's")
        })
        .collect();
    (
        losses.len(),
        losses.iter().sum::<f64>() / losses.len() as f64,
    )
}

fn check(name: &str, found: (usize, f64)) {
    let expected = &figures()[name];
    let (predicted, mean) = found;
    assert_eq!(
        expected["predicted_tokens"].as_u64(),
        Some(predicted as u64),
        "{name}"
    );
    let expected = expected["mean_nll"].as_f64().expect("a number");
    assert!(
        (mean - expected).abs() <= TOLERANCE,
        "{name}: {mean:.10} instead of {expected}"
    );
    let perplexity = mean.exp();
    assert!((5.0..60.0).contains(&perplexity), "{name}: {perplexity}");
}

#[test]
fn the_text_is_as_likely_as_recorded() {
    const TEST: &str = "the_text_is_as_likely_as_recorded";
    let (Some(reference), Some(logits)) = (sample::reference(TEST), logits(TEST)) else {
        return;
    };
    let tokens = tokens();
    check(
        "first_256",
        (255, mean_loss(logits, reference.vocabulary())),
    );
    match sample::variable(WHOLE_TEXT) {
        Some(_) => check("whole", score(reference, &tokens, 512)),
        None => sample::skip(TEST, &format!("the whole text, unless {WHOLE_TEXT} is set")),
    }
}

#[test]
fn the_tokens_are_those_of_the_text() {
    let Some(file) = sample::open("the_tokens_are_those_of_the_text") else {
        return;
    };
    let vocabulary = file
        .metadata()
        .get_strings("tokenizer.ggml.tokens")
        .expect("the sample model has a vocabulary");
    let spelt: String = tokens()
        .iter()
        .map(|&token| vocabulary[token as usize].as_str())
        .collect();
    // The text is ASCII, of which only these two characters are written as others in a byte-level vocabulary.
    let spelt = spelt.replace('Ġ', " ").replace('Ċ', "\n");
    assert!(
        spelt == include_str!("../data/text.txt"),
        "the tokens spell {spelt:?}"
    );
}
