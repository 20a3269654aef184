//! Models of every architecture on the device, against the reference: with f32 activations and KV caches to f32's
//! precision, with others as close as their formats allow.

use std::collections::HashMap;

use anybit::{Context, KvFormat};
use anybit_llm::{LoadOptions, Precision, Session};

use crate::reference::Reference;
use crate::rig;
use crate::tiny::writer::Value;
use crate::tiny::{Damage, Storage, Tiny};

/// Sums of up to 160 products in f32 have errors of a few 2⁻²⁴ relative to their terms, about 1e-6 after a layer. A layer
/// adds its errors and passes on those before it, up to ten times as large: worst seen is 1e-5. The smallest fault that
/// could be made, an attention that drops one token of seventy, changes rows by 1e-2 and more.
const EXACT: f64 = 1e-4;

/// More than two blocks of 32, so that the first is read as codes from a quantised cache, and than a window.
const TOKENS: usize = 100;

/// Tokens that are drawn.
const DRAWN: usize = 24;

/// What no architecture has by default, and shapes that kernels treat apart.
fn special() -> Vec<(&'static str, Tiny)> {
    let partial = Damage::Key("llama.rope.dimension_count".to_owned(), Value::U32(8));
    vec![
        (
            "scaled positions",
            Tiny {
                rope_scaling: Some(4.0),
                ..Tiny::llama()
            },
        ),
        (
            "divided frequencies",
            Tiny {
                rope_factors: true,
                ..Tiny::llama()
            },
        ),
        ("half of each head rotated", Tiny::llama().damaged(partial)),
        (
            "caps",
            Tiny {
                attention_cap: Some(5.0),
                logit_cap: Some(3.0),
                ..Tiny::llama()
            },
        ),
        (
            "caps and windows",
            Tiny {
                attention_cap: Some(5.0),
                logit_cap: Some(3.0),
                window: Some(40),
                rope_scaling: Some(8.0),
                ..Tiny::gemma3()
            },
        ),
        (
            "biases and scaled positions",
            Tiny {
                rope_scaling: Some(2.0),
                output: false,
                ..Tiny::qwen2()
            },
        ),
        (
            "a head of keys for each of queries",
            Tiny {
                kv_heads: 4,
                ..Tiny::llama()
            },
        ),
        (
            "one head of keys",
            Tiny {
                heads: 8,
                kv_heads: 1,
                head_dim: 8,
                ..Tiny::llama()
            },
        ),
        (
            "seven heads to one of keys",
            Tiny {
                heads: 14,
                kv_heads: 2,
                head_dim: 16,
                ..Tiny::llama()
            },
        ),
        (
            "the widest heads",
            Tiny {
                heads: 2,
                kv_heads: 1,
                head_dim: 256,
                blocks: 1,
                ..Tiny::qwen3()
            },
        ),
        (
            "an own head",
            Tiny {
                output: true,
                ..Tiny::llama()
            },
        ),
    ]
}

/// The worst row of the library's logits of a text, and the tokens that it draws after it; and the reference's.
fn compare(context: &Context, tiny: &Tiny, precision: Precision) -> (f64, [Vec<u32>; 2]) {
    let model = rig::load(context, tiny, &LoadOptions::new(precision));
    let reference = rig::reference(tiny);
    let tokens = Tiny::text(TOKENS, 11);
    let mut session = Session::new(&model, TOKENS + DRAWN).expect("a session");
    let expected = reference
        .forward(&tokens)
        .expect("the tokens are the model's");
    let found = rig::logits(&mut session, &tokens);
    session.truncate(0).expect("a text can be forgotten");
    let error = rig::worst_row(&found, &expected, reference.vocabulary());
    let drawn = rig::greedy(&mut session, &tokens[..40], DRAWN);
    let right = reference
        .greedy(&tokens[..40], DRAWN)
        .expect("the tokens are the model's");
    (error, [drawn, right])
}

fn check_exact(context: &Context, name: &str, tiny: &Tiny) -> f64 {
    let (error, [drawn, right]) = compare(context, tiny, Precision::exact());
    eprintln!("{name}: {error:.1e}");
    assert!(error <= EXACT, "{name}: {error:e}");
    assert_eq!(drawn, right, "{name}");
    error
}

#[test]
fn every_architecture_in_every_storage() {
    let Some(context) = rig::context("every_architecture_in_every_storage") else {
        return;
    };
    for (index, tiny) in Tiny::all().into_iter().enumerate() {
        // Llama meets each; the others f32 and one more each, not all the same.
        let taken = |storage| {
            index == 0
                || storage == Storage::F32
                || storage == Storage::ALL[1 + index]
                || rig::full()
        };
        for storage in Storage::ALL.into_iter().filter(|&storage| taken(storage)) {
            let name = format!("{} {storage:?}", tiny.architecture);
            check_exact(context, &name, &tiny.clone().stored(storage));
        }
    }
}

#[test]
fn what_no_architecture_has_by_default() {
    let Some(context) = rig::context("what_no_architecture_has_by_default") else {
        return;
    };
    for (name, tiny) in special() {
        check_exact(context, name, &tiny);
    }
}

/// Contexts beyond 256 tokens are attended to in parts where a step has one row; 600 tokens are three parts, and the
/// rotary table's second level.
#[test]
fn long_texts() {
    let Some(context) = rig::context("long_texts") else {
        return;
    };
    for (name, tiny) in [
        (
            "llama",
            Tiny {
                blocks: 2,
                context: 700,
                ..Tiny::llama()
            },
        ),
        (
            "gemma3",
            Tiny {
                context: 700,
                window: Some(300),
                ..Tiny::gemma3()
            },
        ),
    ] {
        let model = rig::load(context, &tiny, &LoadOptions::new(Precision::exact()));
        let reference = rig::reference(&tiny);
        let tokens = Tiny::text(600, 12);
        let mut session = Session::new(&model, 700).expect("a session");
        let expected = reference
            .forward(&tokens)
            .expect("the tokens are the model's");
        let found = rig::logits(&mut session, &tokens[..590]);
        let columns = reference.vocabulary();
        let chunked = rig::worst_row(&found, &expected[..590 * columns], columns);
        // Each of the last ten in a step of its own.
        let mut singly = 0.0_f64;
        for place in 590..600 {
            let found = rig::logits(&mut session, &tokens[place..=place]);
            let expected = &expected[place * columns..(place + 1) * columns];
            singly = singly.max(rig::relative_rms(&found, expected));
        }
        eprintln!("{name}: {chunked:.1e} in chunks, {singly:.1e} singly");
        assert!(
            chunked.max(singly) <= EXACT,
            "{name}: {chunked:e}, {singly:e}"
        );
        session.truncate(0).expect("a text can be forgotten");
        let drawn = rig::greedy(&mut session, &tokens[..500], DRAWN);
        assert_eq!(
            drawn,
            reference
                .greedy(&tokens[..500], DRAWN)
                .expect("known tokens"),
            "{name}"
        );
    }
}

fn check_rounded(context: &Context, tiny: &Tiny, precision: Precision) {
    let name = format!(
        "{} {:?}, {}, KV {}",
        tiny.architecture, tiny.storage, precision.activation, precision.kv
    );
    let reference = rig::rounded(rig::reference(tiny), precision);
    let model = rig::load(context, tiny, &LoadOptions::new(precision));
    let tokens = Tiny::text(TOKENS, 11);
    let mut session = Session::new(&model, TOKENS).expect("a session");
    let found = rig::logits(&mut session, &tokens);
    let expected = reference
        .forward(&tokens)
        .expect("the tokens are the model's");
    rig::check_rounded(&name, &found, &expected);
}

#[test]
fn kv_caches_of_fewer_bits() {
    let Some(context) = rig::context("kv_caches_of_fewer_bits") else {
        return;
    };
    for (index, tiny) in Tiny::all().into_iter().enumerate() {
        let formats = [
            KvFormat::F16,
            KvFormat::Int8,
            KvFormat::Int4,
            KvFormat::Int2,
        ];
        for (place, kv) in formats.into_iter().enumerate() {
            // Llama meets each, the others two each.
            let taken = index == 0 || (index + place).is_multiple_of(2) || rig::full();
            // int2 packs channels in sixteens.
            if taken && (kv != KvFormat::Int2 || tiny.head_dim.is_multiple_of(16)) {
                check_rounded(context, &tiny, Precision::exact().with_kv(kv));
            }
        }
    }
}

#[test]
fn int8_activations() {
    let Some(context) = rig::context("int8_activations") else {
        return;
    };
    for (index, tiny) in Tiny::all().into_iter().enumerate() {
        for storage in [Storage::F32, Storage::Q8_0, Storage::Q4_1] {
            // The others meet their own kernels below, with one storage.
            if index > 0 && !rig::full() {
                continue;
            }
            let precision = Precision::exact().with_activation(rig::activation("int8"));
            check_rounded(context, &tiny.clone().stored(storage), precision);
        }
        check_rounded(context, &tiny.stored(Storage::Q4_1), Precision::default());
    }
}

/// What the bounds above must not let pass: faults that a kernel could have, made in the reference.
#[test]
fn faults_exceed_the_bounds() {
    for tiny in Tiny::all() {
        let right = rig::reference(&tiny);
        let tokens = Tiny::text(TOKENS, 11);
        let columns = right.vocabulary();
        let expected = right.forward(&tokens).expect("the tokens are the model's");
        // The first block of 32 tokens is another's.
        let mut other = Tiny::text(32, 13);
        other.extend(&tokens[32..]);
        let found = right.forward(&other).expect("the tokens are the model's");
        let late = 64 * columns..;
        let block = rig::relative_rms(&found[late.clone()], &expected[late]);
        // One group of 32 weights has twice its scale.
        let file = tiny.file();
        let name = "blk.0.ffn_down.weight";
        let mut values = file.values(name).expect("the tensor is there");
        values[..32].iter_mut().for_each(|value| *value *= 2.0);
        let wrong = HashMap::from([(name.to_owned(), values)]);
        let wrong = Reference::load_with(&file, wrong).expect("the tiny model is right");
        let found = wrong.forward(&tokens).expect("the tokens are the model's");
        let group = rig::worst_row(&found, &expected, columns);
        eprintln!(
            "{}: a block's fault {block:.2}, a group's {group:.2}",
            tiny.architecture
        );
        assert!(
            block > 0.1 && group > 0.05,
            "{}: {block}, {group}",
            tiny.architecture
        );
    }
}
