//! Files are untrusted: what is wrong with one ends in an error that says so, never in a panic. The same of formats and
//! tokens that a model does not take.

use anybit::{Context, KvFormat};
use anybit_import::ModelFile;
use anybit_import::gguf::GgufFile;
use anybit_llm::{Error, LoadOptions, Model, ModelConfig, Precision, Session, Tokenizer};

use crate::rig;
use crate::tiny::writer::{Value, integers};
use crate::tiny::{Damage, Tiny};

pub(crate) fn load(context: &Context, tiny: &Tiny, precision: Precision) -> Result<Model, Error> {
    let file = ModelFile::Gguf(tiny.file());
    Model::load(context, &file, &LoadOptions::new(precision), &mut |_| ())
}

/// The error of a damaged model.
fn refusal(context: &Context, tiny: &Tiny, damage: Damage) -> Error {
    let what = format!("{}: {damage:?}", tiny.architecture);
    match load(context, &tiny.clone().damaged(damage), Precision::exact()) {
        Ok(_) => panic!("{what} goes unnoticed"),
        Err(error) => error,
    }
}

fn tensors(tiny: &Tiny) -> Vec<(String, Vec<u64>)> {
    let file = tiny.file();
    let tensors = file.tensors().iter();
    tensors
        .map(|tensor| (tensor.name().to_owned(), tensor.dimensions().to_vec()))
        .collect()
}

#[test]
fn every_tensor_is_missed() {
    let Some(context) = rig::context("every_tensor_is_missed") else {
        return;
    };
    for tiny in Tiny::all() {
        for (name, dimensions) in tensors(&tiny) {
            // The embedding takes the place of an LM head.
            if name == "output.weight" {
                continue;
            }
            let error = refusal(context, &tiny, Damage::NoTensor(name.clone()));
            let Error::MissingTensor { name: found, shape } = error else {
                panic!("{name}: {error:?}");
            };
            assert_eq!(found, name);
            let columns = dimensions[0] as usize;
            assert_eq!(shape.1, columns, "{name}");
        }
    }
}

#[test]
fn every_tensor_has_its_shape() {
    let Some(context) = rig::context("every_tensor_has_its_shape") else {
        return;
    };
    for tiny in Tiny::all() {
        for (name, dimensions) in tensors(&tiny) {
            let mut longer = dimensions.clone();
            longer[0] += 32;
            let mut deeper = dimensions.clone();
            deeper.push(2);
            let mut wrong = vec![longer, deeper, vec![]];
            if let [columns, rows] = dimensions[..] {
                // The rows of the embedding are the vocabulary, whatever they are.
                if name != "token_embd.weight" {
                    wrong.push(vec![columns, rows + 1]);
                }
                wrong.push(vec![columns * rows]);
                wrong.push(vec![columns, 0]);
            }
            for shape in wrong {
                let error = refusal(context, &tiny, Damage::Shape(name.clone(), shape.clone()));
                let Error::TensorShape {
                    name: found,
                    actual,
                    ..
                } = error
                else {
                    panic!("{name} of {shape:?}: {error:?}");
                };
                assert_eq!(found, name);
                let outermost_first: Vec<u64> = shape.iter().rev().copied().collect();
                assert_eq!(actual, outermost_first, "{name}");
            }
        }
    }
    // Divisors of the frequencies need not be there, but are of one length if they are.
    let tiny = Tiny {
        rope_factors: true,
        ..Tiny::llama()
    };
    let error = refusal(
        context,
        &tiny,
        Damage::Shape("rope_freqs.weight".to_owned(), vec![9]),
    );
    assert!(matches!(error, Error::TensorShape { .. }), "{error:?}");
    // All of it zeros: no frequency is divided by 0.
    let error = refusal(
        context,
        &tiny,
        Damage::Shape("rope_freqs.weight".to_owned(), vec![8]),
    );
    assert!(
        matches!(error, Error::Gpu(_) | Error::Metadata { .. }),
        "{error:?}"
    );
}

#[test]
fn unknown_architectures() {
    let Some(context) = rig::context("unknown_architectures") else {
        return;
    };
    let key = || "general.architecture".to_owned();
    for (damage, expected) in [
        (
            Damage::Key(key(), Value::String("mamba".to_owned())),
            "mamba",
        ),
        (
            Damage::Key(key(), Value::String("Llama".to_owned())),
            "Llama",
        ),
        (Damage::Key(key(), Value::U32(7)), "7"),
        (Damage::NoKey(key()), ""),
    ] {
        let error = refusal(context, &Tiny::llama(), damage);
        let Error::Architecture { found, known } = error else {
            panic!("{error:?}");
        };
        assert_eq!(found, expected);
        assert!(known.contains(&"llama"), "{known:?}");
    }
}

/// What messages quote of a file is bounded.
#[test]
fn long_values_are_shown_in_part() {
    let Some(context) = rig::context("long_values_are_shown_in_part") else {
        return;
    };
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.rope.scaling.type",
    ] {
        let long = Value::String("x".repeat(10_000));
        let error = refusal(context, &Tiny::llama(), Damage::Key(key.to_owned(), long));
        let message = error.to_string();
        assert!(message.len() < 500 && message.contains("xxx"), "{message}");
    }
}

/// Keys without which, and values with which, no model is loaded.
fn wrong_metadata() -> Vec<(&'static str, Option<Value>)> {
    let text = |text: &str| Some(Value::String(text.to_owned()));
    let list = || Some(integers([1, 2]));
    let mut wrong = Vec::new();
    for key in [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
    ] {
        wrong.push((key, None));
        wrong.push((key, Some(Value::U32(0))));
        wrong.push((key, Some(Value::U32(u32::MAX))));
        wrong.push((key, Some(Value::F32(2.5))));
        wrong.push((key, Some(Value::F32(-4.0))));
        wrong.push((key, text("many")));
        wrong.push((key, list()));
    }
    wrong.extend([
        ("attention.head_count", Some(Value::U32(3))),
        ("attention.head_count", Some(Value::U32(64))),
        ("attention.head_count_kv", Some(Value::U32(0))),
        ("attention.head_count_kv", Some(Value::U32(3))),
        ("attention.head_count_kv", Some(Value::U32(u32::MAX))),
        ("attention.key_length", Some(Value::U32(0))),
        ("attention.key_length", Some(Value::U32(12))),
        ("attention.key_length", Some(Value::U32(264))),
        ("attention.key_length", Some(Value::U32(u32::MAX))),
        ("attention.value_length", Some(Value::U32(8))),
        ("rope.dimension_count", Some(Value::U32(0))),
        ("rope.dimension_count", Some(Value::U32(6))),
        ("rope.dimension_count", Some(Value::U32(32))),
        ("rope.freq_base", Some(Value::F32(0.0))),
        ("rope.freq_base", Some(Value::F32(-1.0))),
        ("rope.freq_base", Some(Value::F32(f32::NAN))),
        ("rope.freq_base", Some(Value::F32(f32::INFINITY))),
        ("attention.layer_norm_rms_epsilon", None),
        (
            "attention.layer_norm_rms_epsilon",
            Some(Value::F32(f32::NAN)),
        ),
        ("attention.layer_norm_rms_epsilon", Some(Value::F32(-1.0))),
        ("attention.layer_norm_rms_epsilon", text("small")),
        ("attn_logit_softcapping", Some(Value::F32(-5.0))),
        ("attn_logit_softcapping", Some(Value::F32(f32::NAN))),
        ("final_logit_softcapping", Some(Value::F32(f32::INFINITY))),
        ("rope.scaling.type", text("yarn")),
    ]);
    wrong
}

#[test]
fn metadata_are_checked() {
    let Some(context) = rig::context("metadata_are_checked") else {
        return;
    };
    for (key, value) in wrong_metadata() {
        let key = format!("llama.{key}");
        let damage = match value {
            None => Damage::NoKey(key.clone()),
            Some(value) => Damage::Key(key.clone(), value),
        };
        let error = refusal(context, &Tiny::llama(), damage.clone());
        let Error::Metadata {
            key: found,
            problem,
        } = error
        else {
            panic!("{damage:?}: {error:?}");
        };
        // The number of heads is wrong where it leaves none of a length that can be had, or shares none evenly.
        let related = [
            "llama.attention.head_count",
            "llama.attention.head_count_kv",
            "llama.attention.key_length",
        ];
        assert!(
            found == key || related.contains(&&*found) && related.contains(&&*key),
            "{damage:?}: {found}"
        );
        assert!(!problem.is_empty());
    }
    let window = Damage::Key("gemma3.attention.sliding_window".to_owned(), Value::U32(0));
    let error = refusal(context, &Tiny::gemma3(), window);
    assert!(matches!(error, Error::Metadata { .. }), "{error:?}");
    let scaled = Tiny {
        rope_scaling: Some(0.0),
        ..Tiny::llama()
    };
    let error =
        load(context, &scaled, Precision::exact()).expect_err("positions cannot be divided by 0");
    assert!(matches!(error, Error::Metadata { .. }), "{error:?}");
}

/// Sizes that are right by themselves do not fit the tensors.
#[test]
fn metadata_and_tensors_belong_together() {
    let Some(context) = rig::context("metadata_and_tensors_belong_together") else {
        return;
    };
    for (key, value) in [
        ("embedding_length", 128),
        ("feed_forward_length", 96),
        ("attention.head_count", 8),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 64),
    ] {
        let damages = [Damage::Key(format!("llama.{key}"), Value::U32(value))];
        for damage in damages {
            let error = refusal(context, &Tiny::llama(), damage.clone());
            assert!(
                matches!(error, Error::TensorShape { .. } | Error::Metadata { .. }),
                "{damage:?}: {error:?}"
            );
        }
    }
    // Without the number of key heads each query head has its own.
    let error = refusal(
        context,
        &Tiny::llama(),
        Damage::NoKey("llama.attention.head_count_kv".to_owned()),
    );
    assert!(matches!(error, Error::TensorShape { .. }), "{error:?}");
    for blocks in [4, (1 << 24) - 1] {
        let damage = Damage::Key("llama.block_count".to_owned(), Value::U32(blocks));
        let error = refusal(context, &Tiny::llama(), damage);
        let Error::MissingTensor { name, .. } = error else {
            panic!("{error:?}");
        };
        assert!(name.starts_with("blk.3."), "{name}");
    }
}

/// The number of blocks is looked for one by one, not made room for.
#[test]
fn more_blocks_than_memory_has_room_for() {
    let file = ModelFile::Gguf(Tiny::llama().file());
    let config = ModelConfig::read(&file).expect("the metadata are right");
    let config = ModelConfig {
        blocks: usize::MAX,
        ..config
    };
    let errors = [
        config.check_tensors(&file).err(),
        (config.estimate_weights(&file, &Precision::exact())).err(),
    ];
    for error in errors {
        let Some(Error::MissingTensor { name, .. }) = error else {
            panic!("{error:?}");
        };
        assert!(name.starts_with("blk.3."), "{name}");
    }
}

#[test]
fn files_that_are_cut_off() {
    let length = Tiny::llama().bytes().len();
    for kept in (0..200).chain([length / 4, length / 2, length - 33, length - 1]) {
        let bytes = Tiny::llama().damaged(Damage::Truncate(kept)).bytes();
        let result = GgufFile::from_bytes(bytes).map_err(Error::from);
        assert!(
            matches!(result, Err(Error::Import(_))),
            "{kept} of {length}: {result:?}"
        );
    }
}

#[test]
fn vocabularies_that_do_not_fit() {
    for length in [
        Tiny::vocabulary() - 3,
        Tiny::vocabulary(),
        Tiny::vocabulary() + 3,
    ] {
        let file = Tiny::qwen2().damaged(Damage::Vocabulary(length)).file();
        let tokenizer = Tokenizer::from_gguf(file.metadata());
        let config = ModelConfig::read(&ModelFile::Gguf(file)).expect("the metadata are right");
        assert_eq!(config.vocabulary, Tiny::vocabulary());
        // A vocabulary that lacks tokens of its own merges is no tokeniser at all.
        match tokenizer {
            Ok(tokenizer) => assert_eq!(tokenizer.vocabulary_size(), length),
            Err(error) => assert!(length < Tiny::vocabulary(), "{error}"),
        }
    }
}

#[test]
fn tokens_outside_the_vocabulary() {
    let Some(context) = rig::context("tokens_outside_the_vocabulary") else {
        return;
    };
    let model = load(context, &Tiny::llama(), Precision::exact()).expect("the model is right");
    let mut session = Session::new(&model, 32).expect("a session");
    let size = Tiny::vocabulary();
    for outside in [size as u32, u32::MAX] {
        let text = [5, 6, outside, 7];
        let results = [
            session.feed(&text),
            session.logits(&text, &mut |_| ()),
            session.cross_entropies(&text).map(|_| ()),
            session
                .generate(&text, 4, &anybit::Sampling::GREEDY, &mut |_| {
                    std::ops::ControlFlow::Continue(())
                })
                .map(|_| ()),
        ];
        for result in results {
            let Err(Error::Token { id, vocabulary }) = result else {
                panic!("{result:?}");
            };
            assert_eq!((id, vocabulary), (outside, size));
        }
        assert!(session.is_empty());
    }
    session
        .feed(&[size as u32 - 1])
        .expect("the last token is one");
}

#[test]
fn activations_that_cannot_be_had() {
    let Some(context) = rig::context("activations_that_cannot_be_had") else {
        return;
    };
    for name in [
        "f16", "bf16", "nvfp4", "u8rfz", "u4g32fm", "q4_1", "q8_0", "i8", "bitmod3",
    ] {
        let precision = Precision::exact().with_activation(rig::activation(name));
        let result = load(context, &Tiny::llama(), precision);
        let Err(Error::ActivationFormat { reason, .. }) = result else {
            panic!("{name}: {result:?}");
        };
        assert!(!reason.is_empty());
    }
    // 64 columns have no groups of 128, and 160 none of 64.
    for name in ["i8g128f", "i8g64f"] {
        let precision = Precision::exact().with_activation(rig::activation(name));
        let error = load(context, &Tiny::llama(), precision).expect_err("there are no such groups");
        // What the columns have to do with it stands in the source of an error of the file.
        assert!(
            format!("{error:?}").contains("GroupDoesNotDivide"),
            "{name}: {error:?}"
        );
    }
    for name in ["i4g128h", "i4g64h"] {
        let precision = Precision::exact().with_weight(rig::weight(name));
        let error = load(context, &Tiny::llama(), precision).expect_err("there are no such groups");
        // What the columns have to do with it stands in the source of an error of the file.
        assert!(
            format!("{error:?}").contains("GroupDoesNotDivide"),
            "{name}: {error:?}"
        );
    }
    // int2 caches need heads of a multiple of 16 channels; those of qwen3 have 24.
    let model = load(
        context,
        &Tiny::qwen3(),
        Precision::exact().with_kv(KvFormat::Int2),
    )
    .expect("the model is right");
    let error = Session::new(&model, 32).expect_err("24 channels are no multiple of 16");
    assert!(matches!(error, Error::Gpu(_)), "{error:?}");
    assert!(error.to_string().contains("multiple of 16"), "{error}");
}
