//! Bounds of attention.

use std::ops::Range;

use anybit_formats::FloatFormat;
use rayon::prelude::*;

use super::softmax::VANISHED;
use super::{Bounded, ErrorModel, FLUSH};
use crate::cache::{BLOCK, Cache, Side};
use crate::integers::lost;
use crate::kernel::Attention;

impl ErrorModel {
    /// The attention of consecutive positions from `done` on, whose keys and values the cache holds, and how far a kernel's may
    /// be from it: rows of query heads, as the queries lie.
    ///
    /// With p the exact weights, o the exact output, r the relative errors of weights and g = γ(tokens + 2), the sums of weights
    /// and of weighted values share the r, so that an output is off by at most Σ p·(r·|v − o| + (1 + r)·g·(|v| + |o|) + …) over
    /// 1 − Σ p·((1 + r)(1 + g) − 1).
    pub fn attention(
        self,
        attention: &Attention,
        queries: &[f32],
        query_heads: usize,
        cache: &Cache,
        done: usize,
    ) -> Vec<Bounded> {
        let head_dim = cache.shape().head_dim;
        let group = query_heads / cache.shape().heads;
        let rows = queries.len() / (query_heads * head_dim).max(1);
        let mut output = vec![Bounded::default(); queries.len()];
        let mut first = 0;
        while first < rows {
            // Rows of one block read the same tokens as codes.
            let end = rows.min(first + BLOCK - (done + first) % BLOCK);
            let seen = attention.seen(done + first).start..done + end;
            let read: Vec<Decoded> = (0..cache.shape().heads)
                .into_par_iter()
                .map(|head| self.decoded(cache, head, seen.clone(), done + first))
                .collect();
            let width = query_heads * head_dim;
            let outputs = output[first * width..end * width].par_chunks_mut(head_dim);
            let queries = queries[first * width..end * width].par_chunks(head_dim);
            outputs
                .zip(queries)
                .enumerate()
                .for_each(|(index, (output, query))| {
                    let position = done + first + index / query_heads;
                    let decoded = &read[index % query_heads / group];
                    self.attend(attention, query, decoded, position, output);
                });
            first = end;
        }
        output
    }

    fn decoded(self, cache: &Cache, head: usize, tokens: Range<usize>, position: usize) -> Decoded {
        let older = cache.shape().older(position);
        let side = |side| {
            let channels = 0..cache.shape().head_dim;
            let places = tokens
                .clone()
                .flat_map(|token| channels.clone().map(move |channel| (head, token, channel)));
            places
                .map(|place| cache.read(side, place, older, self.gamma(2)))
                .collect()
        };
        Decoded {
            first: tokens.start,
            keys: side(Side::Key),
            values: side(Side::Value),
        }
    }

    /// q · k · scale: a product with the scale, products, and additions in any order.
    fn score(self, query: &[f32], scale: f32, keys: &[Bounded]) -> Bounded {
        let scale = f64::from(scale);
        let (mut value, mut size, mut apart, mut flushed) = (0.0, 0.0, 0.0, 0.0);
        for (&query, key) in query.iter().zip(keys) {
            let scaled = f64::from(query) * scale;
            let largest = key.value.abs() + key.bound;
            value += scaled * key.value;
            size += scaled.abs() * largest;
            apart += scaled.abs() * key.bound;
            let input = lost(query, FloatFormat::F32) * scale.abs();
            flushed += (input + FLUSH) * largest + 3.0 * FLUSH * (1.0 + scale.abs());
        }
        let gamma = self.gamma(query.len() + 1);
        Bounded {
            value,
            bound: (gamma + 1e3 * f64::EPSILON) * size + (1.0 + gamma) * (apart + flushed),
        }
    }

    fn attend(
        self,
        attention: &Attention,
        query: &[f32],
        decoded: &Decoded,
        position: usize,
        output: &mut [Bounded],
    ) {
        let head_dim = query.len();
        let seen = attention.seen(position);
        let (begin, end) = (seen.start - decoded.first, seen.end - decoded.first);
        let part = begin * head_dim..end * head_dim;
        let keys = decoded.keys[part.clone()].chunks(head_dim);
        let scores: Vec<Bounded> = keys
            .map(|keys| self.maybe_capped(self.score(query, attention.scale, keys), attention.cap))
            .collect();
        let weights = self.weights(&scores);
        let count = scores.len() as f64;
        let gamma = self.gamma(scores.len() + 2);
        let off: f64 = weights
            .iter()
            .map(|&(p, r)| p * ((1.0 + r) * (1.0 + gamma) - 1.0))
            .sum();
        let divisor = 1.0 - off - count * VANISHED;
        let values = &decoded.values[part];
        for (channel, output) in output.iter_mut().enumerate() {
            let value_of = |index: usize| values[index * head_dim + channel];
            let pairs = || {
                weights
                    .iter()
                    .enumerate()
                    .map(|(index, &w)| (w, value_of(index)))
            };
            let exact: f64 = pairs().map(|((p, _), value)| p * value.value).sum();
            let mut error = 0.0;
            let mut largest = 0.0_f64;
            for ((p, r), value) in pairs() {
                let size = value.value.abs() + exact.abs();
                largest = largest.max(size + value.bound);
                error += p
                    * (r * (value.value - exact).abs()
                        + (1.0 + r) * (gamma * size + (1.0 + gamma) * value.bound));
            }
            error = (error + count * VANISHED * (1.0 + largest)) / divisor;
            error += (exact.abs() + error) * (self.division() + 1e3 * f64::EPSILON) + FLUSH;
            *output = Bounded {
                value: exact,
                bound: if divisor > 0.0 && error.is_finite() {
                    error
                } else {
                    f64::INFINITY
                },
            };
        }
    }
}

/// Keys and values of a head as a device decodes them, token by token.
struct Decoded {
    first: usize,
    keys: Vec<Bounded>,
    values: Vec<Bounded>,
}
