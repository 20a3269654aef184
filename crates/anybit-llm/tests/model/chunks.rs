//! In the deterministic mode a text gives the same numbers to the bit, whether its tokens are worked on in one step or in
//! many, and whatever the session held before.

use anybit::{Context, KvFormat};
use anybit_llm::{LoadOptions, Model, Precision, Session};

use crate::rig;
use crate::tiny::{Storage, Tiny};

const TOKENS: usize = 100;

/// Tokens that are drawn.
const DRAWN: usize = 8;

const ROOM: usize = TOKENS + DRAWN;

/// Tokens of a step; the last takes the whole text.
const CHUNKS: [usize; 5] = [1, 7, 32, 64, ROOM];

fn load(context: &Context, tiny: &Tiny, precision: Precision) -> Model {
    let options = LoadOptions::new(precision).with_deterministic(true);
    rig::load(context, tiny, &options)
}

fn session(model: &Model, chunk: usize) -> Session {
    Session::with_chunk(model, ROOM, chunk).expect("a session")
}

fn bits(session: &mut Session, tokens: &[u32]) -> Vec<u32> {
    let logits = rig::raw_logits(session, tokens);
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// Names the first place where two texts' logits part.
fn assert_same(found: &[u32], expected: &[u32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let columns = Tiny::vocabulary();
    if let Some(place) = (0..found.len()).find(|&place| found[place] != expected[place]) {
        let value = |bits: &[u32]| f32::from_bits(bits[place]);
        panic!(
            "{what}: logit {} of token {} is {} instead of {}",
            place % columns,
            place / columns,
            value(found),
            value(expected)
        );
    }
}

/// The same logits and tokens for every size of chunk.
fn check(context: &Context, tiny: &Tiny, precision: Precision) {
    let what = format!(
        "{}, {}, KV {}",
        tiny.architecture, precision.activation, precision.kv
    );
    let model = load(context, tiny, precision);
    let tokens = Tiny::text(TOKENS, 21);
    let mut whole = None;
    for chunk in CHUNKS {
        let mut session = session(&model, chunk);
        let logits = bits(&mut session, &tokens[..TOKENS - 1]);
        let drawn = rig::greedy(&mut session, &tokens[TOKENS - 1..], DRAWN);
        let (logits_before, drawn_before) =
            whole.get_or_insert_with(|| (logits.clone(), drawn.clone()));
        assert_same(
            &logits,
            logits_before,
            &format!("{what}, chunks of {chunk}"),
        );
        assert_eq!(&drawn, drawn_before, "{what}, chunks of {chunk}");
    }
    // The end of a prompt is a chunk that draws.
    let drawn = rig::greedy(&mut session(&model, 32), &tokens, DRAWN);
    assert_eq!(Some(drawn), whole.map(|(_, drawn)| drawn), "{what}");
}

fn check_all_caches(test: &str, tiny: &Tiny) {
    let Some(context) = rig::context(test) else {
        return;
    };
    let index = Tiny::all()
        .iter()
        .position(|other| other.architecture == tiny.architecture);
    let index = index.expect("one of all");
    for (place, kv) in KvFormat::ALL.into_iter().enumerate() {
        // Llama meets each, the others every second one, not all the same.
        if index > 0 && !(index + place).is_multiple_of(2) && !rig::full() {
            continue;
        }
        // int2 packs channels in sixteens.
        if kv == KvFormat::Int2 && !tiny.head_dim.is_multiple_of(16) {
            continue;
        }
        check(context, tiny, Precision::exact().with_kv(kv));
    }
    let stored = tiny.clone().stored(Storage::Q4_1);
    check(context, &stored, Precision::default());
}

#[test]
fn chunks_of_llama() {
    check_all_caches("chunks_of_llama", &Tiny::llama());
}

#[test]
fn chunks_of_qwen2() {
    check_all_caches("chunks_of_qwen2", &Tiny::qwen2());
}

#[test]
fn chunks_of_qwen3() {
    check_all_caches("chunks_of_qwen3", &Tiny::qwen3());
}

#[test]
fn chunks_of_gemma3() {
    check_all_caches("chunks_of_gemma3", &Tiny::gemma3());
}

/// Where attention is split, as contexts are long.
#[test]
fn chunks_of_a_long_text() {
    let Some(context) = rig::context("chunks_of_a_long_text") else {
        return;
    };
    let tiny = Tiny {
        blocks: 2,
        context: 640,
        ..Tiny::llama()
    };
    for kv in [KvFormat::F32, KvFormat::Int4] {
        let model = load(context, &tiny, Precision::exact().with_kv(kv));
        let tokens = Tiny::text(560, 22);
        let mut last = None;
        for chunk in [50, 128, 560] {
            let mut session = Session::with_chunk(&model, 640, chunk).expect("a session");
            session.feed(&tokens[..540]).expect("the tokens fit");
            let logits = bits(&mut session, &tokens[540..]);
            let before = last.get_or_insert_with(|| logits.clone());
            assert_same(&logits, before, &format!("KV {kv}, chunks of {chunk}"));
        }
    }
}

/// Every format of activations has one kernel for every number of tokens.
#[test]
fn chunks_of_quantised_activations() {
    let Some(context) = rig::context("chunks_of_quantised_activations") else {
        return;
    };
    for name in ["int4", "e4m3", "mxfp8e4m3"] {
        let tiny = Tiny::llama().stored(Storage::Q4_1);
        check(
            context,
            &tiny,
            Precision::exact().with_activation(rig::activation(name)),
        );
    }
}

#[test]
fn a_forgotten_text_leaves_nothing() {
    let Some(context) = rig::context("a_forgotten_text_leaves_nothing") else {
        return;
    };
    for tiny in Tiny::all() {
        for kv in [KvFormat::F32, KvFormat::Int8] {
            let what = format!("{} with KV {kv}", tiny.architecture);
            let model = load(context, &tiny, Precision::exact().with_kv(kv));
            let (first, second) = (Tiny::text(100, 23), Tiny::text(75, 24));
            let fresh = bits(&mut session(&model, 32), &second);
            let mut used = session(&model, 32);
            used.feed(&first).expect("the tokens fit");
            rig::greedy(&mut used, &[5], 3);
            used.truncate(0).expect("a text can be forgotten");
            assert!(used.is_empty());
            assert_same(&bits(&mut used, &second), &fresh, &what);
        }
    }
}

#[test]
fn a_text_can_go_on_from_any_earlier_place() {
    let Some(context) = rig::context("a_text_can_go_on_from_any_earlier_place") else {
        return;
    };
    for kv in [KvFormat::F32, KvFormat::F16] {
        for tiny in [Tiny::llama(), Tiny::gemma3()] {
            let model = load(context, &tiny, Precision::exact().with_kv(kv));
            let text = Tiny::text(90, 25);
            let whole = bits(&mut session(&model, 32), &text);
            let mut other = session(&model, 32);
            other.feed(&text[..20]).expect("the tokens fit");
            other.feed(&Tiny::text(80, 26)).expect("the tokens fit");
            other.truncate(20).expect("floats stay where they are");
            let rest = bits(&mut other, &text[20..]);
            let what = format!("{} with KV {kv}", tiny.architecture);
            assert_same(&rest, &whole[20 * Tiny::vocabulary()..], &what);
        }
    }
}

#[test]
fn generating_after_feeding_is_generating_after_all() {
    let Some(context) = rig::context("generating_after_feeding_is_generating_after_all") else {
        return;
    };
    for tiny in Tiny::all() {
        for kv in [KvFormat::F32, KvFormat::Int8] {
            let model = load(context, &tiny, Precision::exact().with_kv(kv));
            let text = Tiny::text(TOKENS, 27);
            let whole = rig::greedy(&mut session(&model, 32), &text, DRAWN);
            for fed in [1, 32, 99] {
                let mut session = session(&model, 32);
                session.feed(&text[..fed]).expect("the tokens fit");
                assert_eq!(session.len(), fed);
                let drawn = rig::greedy(&mut session, &text[fed..], DRAWN);
                assert_eq!(
                    drawn, whole,
                    "{} with KV {kv}, {fed} fed",
                    tiny.architecture
                );
            }
        }
    }
}
