//! Perplexities of texts that are cut into contexts, of any length, with and without a first token.

use std::ops::ControlFlow;

use anybit_llm::{Error, LoadOptions, Perplexity, Precision, Session, perplexity};

use crate::reference::Reference;
use crate::rig;
use crate::tiny::Tiny;

/// The losses of a text's tokens, by the reference: each context of its own, a last one of a single token left out.
fn losses(reference: &Reference, tokens: &[u32], context: usize, first: Option<u32>) -> Vec<f64> {
    let mut losses = Vec::new();
    for window in tokens.chunks(context - usize::from(first.is_some())) {
        let text: Vec<u32> = first.into_iter().chain(window.iter().copied()).collect();
        losses.extend(reference.losses(&text).expect("the tokens are the model's"));
    }
    losses
}

fn judge(session: &mut Session, tokens: &[u32], context: usize, first: Option<u32>) -> Perplexity {
    perplexity(session, tokens, context, first, &mut |_| {
        ControlFlow::Continue(())
    })
    .expect("the contexts fit")
}

#[test]
fn perplexities_are_the_references() {
    let Some(context) = rig::context("perplexities_are_the_references") else {
        return;
    };
    let tiny = Tiny::llama();
    let model = rig::load(context, &tiny, &LoadOptions::new(Precision::exact()));
    let reference = rig::reference(&tiny);
    let mut session = Session::with_chunk(&model, 40, 16).expect("a session");
    // Whole contexts, a shorter last one, one of a single token, one as long as the room, pairs, and less than a context.
    for (length, context) in [
        (60, 20),
        (65, 20),
        (61, 20),
        (41, 40),
        (9, 2),
        (8, 2),
        (2, 2),
        (12, 30),
    ] {
        let text = Tiny::text(length, 41);
        for first in [None, Some(1)] {
            let what = format!("{length} tokens in contexts of {context}, first {first:?}");
            let expected = losses(&reference, &text, context, first);
            let found = judge(&mut session, &text, context, first);
            assert_eq!(
                (found.tokens, found.total),
                (expected.len(), expected.len()),
                "{what}"
            );
            let count = expected.len() as f64;
            let mean = expected.iter().sum::<f64>() / count;
            assert!(
                (found.mean - mean).abs() <= 1e-4,
                "{what}: {} for {mean}",
                found.mean
            );
            assert!((found.value() / mean.exp() - 1.0).abs() <= 1e-3, "{what}");
            let squares: f64 = expected.iter().map(|loss| (loss - mean).powi(2)).sum();
            let error = match expected.len() {
                1 => 0.0,
                _ => mean.exp() * (squares / (count - 1.0) / count).sqrt(),
            };
            assert!(
                (found.error() - error).abs() <= 1e-3 * (1.0 + error),
                "{what}: {}",
                found.error()
            );
        }
    }
}

#[test]
fn judging_can_be_broken_off() {
    let Some(context) = rig::context("judging_can_be_broken_off") else {
        return;
    };
    let tiny = Tiny::llama();
    let model = rig::load(context, &tiny, &LoadOptions::new(Precision::exact()));
    let mut session = Session::new(&model, 40).expect("a session");
    let text = Tiny::text(65, 42);
    let mut seen = Vec::new();
    perplexity(&mut session, &text, 20, None, &mut |so_far| {
        seen.push((so_far.tokens, so_far.total));
        ControlFlow::Continue(())
    })
    .expect("the contexts fit");
    assert_eq!(seen, [(19, 61), (38, 61), (57, 61), (61, 61)]);
    let broken = perplexity(&mut session, &text, 20, None, &mut |_| {
        ControlFlow::Break(())
    });
    let broken = broken.expect("the contexts fit");
    assert_eq!((broken.tokens, broken.total), (19, 61));
    assert_eq!(broken.mean, judge(&mut session, &text[..20], 20, None).mean);
}

#[test]
fn what_cannot_be_judged() {
    let Some(context) = rig::context("what_cannot_be_judged") else {
        return;
    };
    let model = rig::load(
        context,
        &Tiny::llama(),
        &LoadOptions::new(Precision::exact()),
    );
    let mut session = Session::new(&model, 40).expect("a session");
    let text = Tiny::text(10, 43);
    let mut judge = |tokens: &[u32], context, first| {
        perplexity(&mut session, tokens, context, first, &mut |_| {
            ControlFlow::Continue(())
        })
    };
    for (tokens, context, first) in [
        (&text[..], 1, None),
        (&text[..], 0, None),
        (&text[..], 1, Some(1)),
        (&text[..1], 20, None),
        (&text[..0], 20, None),
        (&text[..0], 20, Some(1)),
    ] {
        let result = judge(tokens, context, first);
        assert!(
            matches!(result, Err(Error::TooFewTokens { .. })),
            "{context}, {first:?}: {result:?}"
        );
    }
    let result = judge(&text, 41, None);
    assert!(
        matches!(
            result,
            Err(Error::Context {
                needed: 41,
                limit: 40
            })
        ),
        "{result:?}"
    );
    let outside = Tiny::vocabulary() as u32;
    for (tokens, first) in [(&[5, outside][..], None), (&text[..], Some(outside))] {
        let result = judge(tokens, 20, first);
        assert!(
            matches!(result, Err(Error::Token { id, .. }) if id == outside),
            "{result:?}"
        );
    }
}
