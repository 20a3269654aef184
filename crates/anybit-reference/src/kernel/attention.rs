//! The twin of `kernel/attention.wgsl`.

use std::ops::Range;

use crate::cache::{Cache, Side};

/// How attention weighs tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// What scores are multiplied by.
    pub scale: f32,
    /// Tokens that a query sees, its own included; all before it, if there is none.
    pub window: Option<usize>,
    /// cap · tanh(score / cap).
    pub cap: Option<f32>,
}

impl Attention {
    /// The tokens that a query at a position sees.
    pub fn seen(&self, position: usize) -> Range<usize> {
        let back = self
            .window
            .map_or(position, |window| position.min(window - 1));
        position - back..position + 1
    }
}

/// What a stretch of tokens adds to a query's output: values and weights before they are divided, in units of 2^`exponent`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionPart {
    /// The weighted sum of values, channel by channel.
    pub values: Vec<f64>,
    /// The sum of weights.
    pub sum: f64,
    /// The exponent of both.
    pub exponent: f64,
}

/// A logit or score under a soft cap.
pub fn soft_cap(x: f64, cap: Option<f32>) -> f64 {
    match cap {
        None => x,
        Some(cap) => f64::from(cap) * (x / f64::from(cap)).tanh(),
    }
}

/// The part of a query's attention that those of `tokens` add that it sees, in f64: from what the cache holds of a head of keys
/// and values, older tokens as codes.
pub fn attention(
    attention: &Attention,
    query: &[f32],
    cache: &Cache,
    head: usize,
    position: usize,
    tokens: Range<usize>,
) -> AttentionPart {
    let older = cache.shape().older(position);
    let seen = attention.seen(position);
    let tokens = tokens.start.max(seen.start)..tokens.end.min(seen.end);
    let read = |side, token, channel| cache.read(side, (head, token, channel), older, 0.0).value;
    let scores: Vec<f64> = tokens
        .clone()
        .map(|token| {
            let products = query.iter().enumerate().map(|(channel, &query)| {
                f64::from(query) * f64::from(attention.scale) * read(Side::Key, token, channel)
            });
            soft_cap(products.sum(), attention.cap) * std::f64::consts::LOG2_E
        })
        .collect();
    let exponent = scores
        .iter()
        .map(|score| score.round())
        .fold(f64::NEG_INFINITY, f64::max);
    let mut part = AttentionPart {
        values: vec![0.0; query.len()],
        sum: 0.0,
        exponent,
    };
    for (token, score) in tokens.zip(scores) {
        let weight = (score - exponent).exp2();
        part.sum += weight;
        for (channel, value) in part.values.iter_mut().enumerate() {
            *value += weight * read(Side::Value, token, channel);
        }
    }
    part
}
