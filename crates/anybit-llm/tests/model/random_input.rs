//! Files with random faults: loaded or refused, never a panic.

use anybit_import::ModelFile;
use anybit_import::gguf::GgufFile;
use anybit_llm::{LoadOptions, Model, Precision, Session};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::bad_input::load;
use crate::rig;
use crate::tiny::writer::{Value, integers, strings};
use crate::tiny::{Damage, Tiny};

/// A value of any kind for a key of the metadata.
fn values() -> impl Strategy<Value = Value> {
    let edges = vec![
        0,
        1,
        2,
        3,
        7,
        8,
        16,
        31,
        63,
        64,
        65,
        127,
        256,
        1 << 16,
        (1 << 24) - 1,
        1 << 24,
        i32::MAX as u32,
        u32::MAX,
    ];
    let floats = vec![
        0.0,
        -0.0,
        1.0,
        1e-45,
        1e-38,
        3e38,
        0.5,
        -1.0,
        1e-5,
        1e6,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];
    let texts = vec![
        "", "0", "-1", "64", "linear", "none", "yarn", "llama", "gemma3", "true", "1e400", "nan",
    ];
    prop_oneof![
        3 => select(edges).prop_map(Value::U32),
        1 => any::<u32>().prop_map(Value::U32),
        3 => select(floats).prop_map(Value::F32),
        1 => any::<f32>().prop_map(Value::F32),
        1 => any::<bool>().prop_map(Value::Bool),
        2 => select(texts).prop_map(|text| Value::String(text.to_owned())),
        1 => any::<String>().prop_map(Value::String),
        1 => proptest::collection::vec(any::<i32>(), 0..4).prop_map(integers),
        1 => Just(strings::<String>([])),
    ]
}

const KEYS: [&str; 16] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scaling.type",
    "rope.scaling.factor",
    "attn_logit_softcapping",
];

/// Small models, as loading one is all there is to do.
fn small() -> Vec<Tiny> {
    let small = |tiny: Tiny| Tiny { blocks: 1, ..tiny };
    vec![
        small(Tiny::llama()),
        small(Tiny::qwen3()),
        Tiny {
            blocks: 6,
            ..Tiny::gemma3()
        },
    ]
}

#[test]
fn no_metadata_make_a_panic() {
    let Some(context) = rig::context("no_metadata_make_a_panic") else {
        return;
    };
    let inputs = (select(small()), select(&KEYS[..]), values(), any::<bool>());
    let mut runner = TestRunner::new(Config {
        cases: 256,
        ..Config::default()
    });
    let result = runner.run(&inputs, |(tiny, key, value, scaled)| {
        let key = format!("{}.{key}", tiny.architecture);
        let rope_scaling = scaled.then_some(2.0);
        let tiny = Tiny {
            rope_scaling,
            ..tiny
        }
        .damaged(Damage::Key(key, value));
        let Ok(model) = load(context, &tiny, Precision::exact()) else {
            return Ok(());
        };
        // What is loaded can be worked with, or says why not.
        let capacity = model.capacity().min(40);
        let Ok(mut session) = Session::new(&model, capacity) else {
            return Ok(());
        };
        let text = Tiny::text(3.min(capacity), 51);
        let mut rows = 0;
        if session.logits(&text, &mut |_| rows += 1).is_ok() {
            prop_assert_eq!(rows, text.len());
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn no_damaged_byte_makes_a_panic() {
    let Some(context) = rig::context("no_damaged_byte_makes_a_panic") else {
        return;
    };
    let tiny = Tiny {
        blocks: 1,
        ..Tiny::llama()
    };
    let bytes = tiny.bytes();
    let vocabulary = bytes
        .windows(9)
        .position(|window| window == b"tokenizer")
        .expect("a vocabulary");
    let tensors = bytes
        .windows(10)
        .rposition(|window| window == b"output_nor")
        .expect("an output norm");
    // The metadata of the model, and the tensors' names, shapes, types and places.
    let places = prop_oneof![4..vocabulary, tensors.saturating_sub(600)..tensors + 60];
    let mut runner = TestRunner::new(Config {
        cases: 256,
        ..Config::default()
    });
    let result = runner.run(&(places, any::<u8>()), |(place, byte)| {
        let mut bytes = bytes.clone();
        bytes[place] = byte;
        let Ok(file) = GgufFile::from_bytes(bytes) else {
            return Ok(());
        };
        // Either it is refused, or the byte makes no difference that could be told.
        let _ = Model::load(
            context,
            &ModelFile::Gguf(file),
            &LoadOptions::new(Precision::exact()),
            &mut |_| (),
        );
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
