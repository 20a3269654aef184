//! What holds of every decoder-only model, checked on the reference.

use anybit_import::gguf::GgufFile;

use crate::reference::{Pairing, Reference, Session, math};
use crate::tiny::{Random, Tiny};

fn load(tiny: &Tiny) -> Reference {
    Reference::load(&tiny.file()).expect("the tiny model is right")
}

fn forward(reference: &Reference, tokens: &[u32]) -> Vec<Vec<f64>> {
    let logits = reference
        .forward(tokens)
        .expect("the tokens are the model's");
    let rows = logits.chunks_exact(reference.vocabulary());
    rows.map(<[f64]>::to_vec).collect()
}

/// Every architecture, and llama with what no architecture has by default.
fn models() -> Vec<Tiny> {
    let mut models = Tiny::all().to_vec();
    models.push(Tiny {
        rope_factors: true,
        rope_scaling: Some(4.0),
        attention_cap: Some(5.0),
        logit_cap: Some(3.0),
        ..Tiny::llama()
    });
    models
}

#[test]
fn token_by_token_equals_all_at_once() {
    for tiny in models() {
        let reference = load(&tiny);
        let tokens = Tiny::text(20, 1);
        let whole = forward(&reference, &tokens);
        let mut session = Session::new(&reference);
        for (position, (&token, expected)) in tokens.iter().zip(&whole).enumerate() {
            let found = session.push(token).expect("the token is the model's");
            assert_eq!(&found, expected, "{} at {position}", tiny.architecture);
        }
        let mut session = Session::new(&reference);
        session
            .extend(&tokens[..7])
            .expect("the tokens are the model's");
        let rest = session
            .extend(&tokens[7..])
            .expect("the tokens are the model's");
        assert_eq!(
            reference.logits(&rest),
            whole[7..].concat(),
            "{}",
            tiny.architecture
        );
    }
}

#[test]
fn later_tokens_do_not_matter_and_earlier_ones_do() {
    for tiny in models() {
        let reference = load(&tiny);
        let tokens = Tiny::text(12, 2);
        let before = forward(&reference, &tokens);
        let mut changed = tokens.clone();
        changed[6] = if tokens[6] == 10 { 11 } else { 10 };
        let after = forward(&reference, &changed);
        for position in 0..tokens.len() {
            let same = before[position] == after[position];
            assert_eq!(same, position < 6, "{} at {position}", tiny.architecture);
        }
    }
}

#[test]
fn the_order_of_earlier_tokens_matters() {
    for tiny in models() {
        let reference = load(&tiny);
        let first = forward(&reference, &[20, 30, 40, 50]);
        let second = forward(&reference, &[30, 20, 40, 50]);
        assert_ne!(first[3], second[3], "{}", tiny.architecture);
    }
}

#[test]
fn a_window_ends_where_it_ends() {
    // One block, which has a window: a token is seen by itself and the three after it.
    let tiny = Tiny {
        blocks: 1,
        window: Some(4),
        ..Tiny::gemma3()
    };
    let reference = load(&tiny);
    let tokens = Tiny::text(12, 3);
    let mut changed = tokens.clone();
    changed[3] = if tokens[3] == 10 { 11 } else { 10 };
    let (before, after) = (forward(&reference, &tokens), forward(&reference, &changed));
    for position in 0..tokens.len() {
        let sees = (3..3 + 4).contains(&position);
        assert_eq!(before[position] != after[position], sees, "{position}");
    }

    // Windows pass things on from block to block: with five blocks of them 3 · 5 positions, and with the sixth, which
    // sees the whole text, all.
    let tokens = Tiny::text(40, 3);
    let mut changed = tokens.clone();
    changed[0] = if tokens[0] == 10 { 11 } else { 10 };
    for (blocks, last) in [(5, 15), (6, 39)] {
        let reference = load(&Tiny {
            blocks,
            ..tiny.clone()
        });
        let (before, after) = (forward(&reference, &tokens), forward(&reference, &changed));
        let differs = (0..tokens.len()).filter(|&place| before[place] != after[place]);
        assert_eq!(differs.max(), Some(last), "{blocks} blocks");
    }
}

#[test]
fn rotation_keeps_lengths_and_knows_only_distances() {
    let mut random = Random(5);
    let mut head = || -> Vec<f64> { (0..16).map(|_| f64::from(random.deviate())).collect() };
    let (query, key) = (head(), head());
    let reference = load(&Tiny::llama());
    let rope = reference.config.rope(0);
    for pairing in [Pairing::Adjacent, Pairing::Halves] {
        let turned = |head: &[f64], position| {
            let mut head = head.to_vec();
            math::rotate(&mut head, &math::angles(position, 16, rope, None), pairing);
            head
        };
        let length = math::dot(&query, &query);
        let score = |at: usize| math::dot(&turned(&query, at + 9), &turned(&key, at));
        for position in [0, 1, 7, 100, 5000] {
            let turned = turned(&query, position);
            assert_eq!(turned == query, position == 0);
            assert!((math::dot(&turned, &turned) - length).abs() < 1e-12);
            assert!(
                (score(position) - score(0)).abs() < 1e-10,
                "{pairing:?} at {position}"
            );
        }
        let elsewhere = math::dot(&turned(&query, 10), &turned(&key, 0));
        assert!((elsewhere - score(0)).abs() > 1e-3, "{pairing:?}");
    }
}

#[test]
fn generation_takes_the_likeliest_token_each_time() {
    for tiny in Tiny::all() {
        let reference = load(&tiny);
        let mut tokens = Tiny::text(5, 6);
        let generated = reference
            .greedy(&tokens, 8)
            .expect("the tokens are the model's");
        assert_eq!(generated.len(), 8);
        tokens.extend(&generated);
        let logits = forward(&reference, &tokens);
        for (row, &token) in logits[4..].iter().zip(&generated) {
            let chosen = row[token as usize];
            assert!(
                row.iter().all(|&logit| logit <= chosen),
                "{}",
                tiny.architecture
            );
        }
    }
}

#[test]
fn losses_are_those_of_the_logits() {
    for tiny in models() {
        let reference = load(&tiny);
        let tokens = Tiny::text(70, 7);
        let losses = reference
            .losses(&tokens)
            .expect("the tokens are the model's");
        let logits = forward(&reference, &tokens);
        assert_eq!(losses.len(), tokens.len() - 1);
        let mut sum = 0.0;
        for ((loss, logits), &next) in losses.iter().zip(&logits).zip(&tokens[1..]) {
            let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
            let expected = -(logits[next as usize].exp() / total).ln();
            assert!((loss - expected).abs() < 1e-10, "{}", tiny.architecture);
            sum += expected;
        }
        let mean = reference
            .cross_entropy(&tokens)
            .expect("the tokens are the model's");
        assert!((mean - sum / losses.len() as f64).abs() < 1e-10);
    }
}

#[test]
fn caps_bound_the_logits() {
    let capped = load(&Tiny {
        logit_cap: Some(3.0),
        ..Tiny::llama()
    });
    let free = load(&Tiny::llama());
    let tokens = Tiny::text(8, 8);
    let pairs = capped.forward(&tokens).expect("the tokens are the model's");
    let pairs = pairs
        .into_iter()
        .zip(free.forward(&tokens).expect("the tokens are the model's"));
    let mut largest = 0.0f64;
    for (capped, free) in pairs {
        assert!((capped - 3.0 * (free / 3.0).tanh()).abs() < 1e-14);
        largest = largest.max(free.abs());
    }
    assert!(largest > 3.0, "the cap has nothing to do: {largest}");
}

#[test]
fn what_cannot_be_computed_is_an_error() {
    let reference = load(&Tiny::llama());
    let outside = reference.vocabulary() as u32;
    assert!(reference.forward(&[1, outside]).is_err());
    assert!(reference.greedy(&[], 1).is_err());
    assert!(reference.cross_entropy(&[1]).is_err());
    assert!(GgufFile::from_bytes(Vec::new()).is_err());
}
