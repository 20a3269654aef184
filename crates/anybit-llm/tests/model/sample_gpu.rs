//! The sample model on the device: its logits, what it writes, and how well it foretells a text in every format.

use std::sync::OnceLock;

use anybit::{Context, KvFormat, Sampling};
use anybit_import::ModelFile;
use anybit_llm::{LoadOptions, Model, Precision, Session, Specials, Tokenizer, perplexity};

use crate::{golden, rig, sample};

/// Tokens of a test that runs each time.
const TOKENS: usize = 256;

/// The sample model, read once.
struct Sample {
    context: &'static Context,
    file: ModelFile,
    tokenizer: Tokenizer,
    /// With f32 activations and KV caches.
    exact: Model,
}

fn sample(test: &str) -> Option<&'static Sample> {
    static SAMPLE: OnceLock<Option<Sample>> = OnceLock::new();
    // Each test has its own note of what is missing.
    let (context, file) = (rig::context(test)?, sample::open(test)?);
    let sample = SAMPLE.get_or_init(|| {
        let tokenizer = Tokenizer::from_gguf(file.metadata()).expect("the tokeniser can be made");
        let file = ModelFile::Gguf(file);
        let exact = load(context, &file, Precision::exact());
        Some(Sample {
            context,
            file,
            tokenizer,
            exact,
        })
    });
    sample.as_ref()
}

fn load(context: &Context, file: &ModelFile, precision: Precision) -> Model {
    let options = LoadOptions::new(precision).with_context(1024);
    Model::load(context, file, &options, &mut |_| ()).expect("the sample model loads")
}

#[test]
fn the_tokens_are_the_tokenisers() {
    const TEST: &str = "the_tokens_are_the_tokenisers";
    let Some(file) = sample::open(TEST) else {
        return;
    };
    let tokenizer = Tokenizer::from_gguf(file.metadata()).expect("the tokeniser can be made");
    let text = include_str!("../data/text.txt");
    let found = tokenizer
        .encode(text, Specials::AsText)
        .expect("the text can be cut");
    assert_eq!(found, golden::tokens());
}

/// The library's logits of the first tokens of the text, with f32 activations and KV cache, once for all tests.
fn exact_logits(sample: &Sample) -> &'static [f64] {
    static LOGITS: OnceLock<Vec<f64>> = OnceLock::new();
    LOGITS.get_or_init(|| {
        let mut session = Session::new(&sample.exact, TOKENS).expect("a session");
        rig::logits(&mut session, &golden::tokens()[..TOKENS])
    })
}

#[test]
fn logits_of_the_sample() {
    const TEST: &str = "logits_of_the_sample";
    let (Some(sample), Some(expected)) = (sample(TEST), golden::logits(TEST)) else {
        return;
    };
    let found = exact_logits(sample);
    let error = rig::worst_row(found, expected, sample.exact.config().vocabulary);
    eprintln!("logits of the sample: {error:.1e}");
    assert!(error <= 1e-3, "{error:e}");
}

#[test]
fn the_sample_knows_the_capital_of_france() {
    const TEST: &str = "the_sample_knows_the_capital_of_france";
    let (Some(sample), Some(reference)) = (sample(TEST), sample::reference(TEST)) else {
        return;
    };
    let prompt = sample
        .tokenizer
        .encode("The capital of France is", Specials::AsText)
        .expect("the prompt can be cut");
    let most = if rig::full() { 64 } else { 24 };
    let mut session = Session::new(&sample.exact, 128).expect("a session");
    let drawn = rig::generate(&mut session, &prompt, most, &Sampling::GREEDY);
    let text = sample
        .tokenizer
        .decode(&drawn)
        .expect("the tokens are the model's");
    assert!(text.trim_start().starts_with("Paris"), "{text:?}");
    let expected = reference
        .greedy(&prompt, most)
        .expect("the tokens are the model's");
    assert_eq!(drawn, expected, "{text:?}");
}

/// The mean loss of the first tokens of the text.
fn mean(sample: &Sample, precision: Precision) -> f64 {
    let model = load(sample.context, &sample.file, precision);
    let mut session = Session::new(&model, TOKENS).expect("a session");
    let losses = session
        .cross_entropies(&golden::tokens()[..TOKENS])
        .expect("the text fits");
    losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64
}

/// How much more perplex, in percent.
fn percent(mean: f64, than: f64) -> f64 {
    100.0 * ((mean - than).exp() - 1.0)
}

#[test]
fn perplexity_by_format() {
    let Some(sample) = sample("perplexity_by_format") else {
        return;
    };
    let expected = golden::figures()["first_256"]["mean_nll"]
        .as_f64()
        .expect("a number");
    let vocabulary = sample.exact.config().vocabulary;
    let exact = golden::mean_loss(exact_logits(sample), vocabulary);
    eprintln!(
        "f32: perplexity {:.4}, {:+.4} %",
        exact.exp(),
        percent(exact, expected)
    );
    assert!(
        percent(exact, expected).abs() <= 0.5,
        "{exact} instead of {expected}"
    );
    let kv = |format| Precision::exact().with_kv(format);
    let mut formats = vec![
        ("the default", Precision::default(), 1.0),
        ("KV int8", kv(KvFormat::Int8), 0.5),
        ("KV int4", kv(KvFormat::Int4), 3.0),
    ];
    if sample::variable(golden::WHOLE_TEXT).is_some() {
        formats.extend([
            ("f32", Precision::exact(), 0.01),
            (
                "int8 activations",
                Precision::exact().with_activation(rig::activation("int8")),
                1.0,
            ),
            ("KV f16", kv(KvFormat::F16), 0.1),
            // No more than that it is not nonsense.
            ("KV int2", kv(KvFormat::Int2), 100.0),
        ]);
    }
    let mut wrong = Vec::new();
    for (name, precision, bound) in formats {
        let found = percent(mean(sample, precision), exact);
        eprintln!("{name}: {found:+.3} %");
        if found.abs() > bound {
            wrong.push(format!("{name}: {found:+.3} %, more than {bound} %"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("; "));
}

/// The whole text, in contexts of 512.
#[test]
fn perplexity_of_the_whole_text() {
    const TEST: &str = "perplexity_of_the_whole_text";
    if sample::variable(golden::WHOLE_TEXT).is_none() {
        sample::skip(TEST, &format!("{} is not set", golden::WHOLE_TEXT));
        return;
    }
    let Some(sample) = sample(TEST) else {
        return;
    };
    let expected = golden::figures()["whole"]["mean_nll"]
        .as_f64()
        .expect("a number");
    let tokens = golden::tokens();
    let mean = |precision| {
        let model = load(sample.context, &sample.file, precision);
        let mut session = Session::new(&model, 512).expect("a session");
        let found = perplexity(&mut session, &tokens, 512, None, &mut |_| {
            std::ops::ControlFlow::Continue(())
        });
        found.expect("the contexts fit").mean
    };
    let exact = mean(Precision::exact());
    assert!(
        percent(exact, expected).abs() <= 0.5,
        "{exact} instead of {expected}"
    );
    for (name, precision, bound) in [
        ("the default", Precision::default(), 1.0),
        ("KV int8", Precision::exact().with_kv(KvFormat::Int8), 0.5),
        ("KV int4", Precision::exact().with_kv(KvFormat::Int4), 3.0),
    ] {
        let found = percent(mean(precision), exact);
        eprintln!("{name}, the whole text: {found:+.3} %");
        assert!(found.abs() <= bound, "{name}: {found:+.3} %");
    }
}
