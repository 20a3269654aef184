//! A text in progress: the keys and values of the tokens so far.

use rayon::prelude::*;

use super::cache::Cache;
use super::weights::Block;
use super::{Error, Reference, math};

/// A text in progress. Tokens may come one by one or many at a time, to the same effect.
#[derive(Clone)]
pub(crate) struct Session<'a> {
    model: &'a Reference,
    caches: Vec<Cache>,
    /// How many tokens there are so far.
    length: usize,
}

impl<'a> Session<'a> {
    pub(crate) fn new(model: &'a Reference) -> Self {
        Self {
            model,
            caches: vec![
                Cache::new(model.kept, model.config.kv_heads, model.config.head_dim);
                model.config.blocks
            ],
            length: 0,
        }
    }

    /// Adds a token and returns the logits of the next one.
    pub(crate) fn push(&mut self, token: u32) -> Result<Vec<f64>, Error> {
        let state = self.extend(&[token])?;
        Ok(self.model.logits(&state))
    }

    /// Adds tokens and returns their final states, after the last norm: tokens × hidden.
    pub(crate) fn extend(&mut self, tokens: &[u32]) -> Result<Vec<f64>, Error> {
        let model = self.model;
        let mut x = self.embed(tokens)?;
        for (index, block) in model.weights.blocks.iter().enumerate() {
            let attended = self.attention(index, block, &x);
            add(&mut x, &attended);
            let fed = self.feed_forward(block, &x);
            add(&mut x, &fed);
        }
        self.length += tokens.len();
        Ok(math::rms_norm(
            &x,
            &model.weights.output_norm,
            model.config.epsilon,
        ))
    }

    fn embed(&self, tokens: &[u32]) -> Result<Vec<f64>, Error> {
        let (config, embedding) = (&self.model.config, &self.model.weights.embedding);
        let scale = match config.traits.scaled_embedding {
            true => (config.hidden as f64).sqrt(),
            false => 1.0,
        };
        let mut x = Vec::new();
        for &token in tokens {
            let row = embedding
                .values
                .chunks_exact(config.hidden)
                .nth(token as usize)
                .ok_or_else(|| {
                    format!(
                        "there is no token {token} in a vocabulary of {}",
                        embedding.rows
                    )
                })?;
            x.extend(row.iter().map(|&value| f64::from(value) * scale));
        }
        Ok(x)
    }

    /// What attention adds to the states `x`.
    fn attention(&mut self, index: usize, block: &Block, x: &[f64]) -> Vec<f64> {
        let config = &self.model.config;
        let h = math::rms_norm(x, &block.attention_norm, config.epsilon);
        let h = self.model.activations(h, config.hidden);
        let mut queries = math::linear(&h, &block.query);
        let mut keys = math::linear(&h, &block.key);
        let values = math::linear(&h, &block.value);
        if let Some(norm) = &block.query_norm {
            queries = math::rms_norm(&queries, norm, config.epsilon);
        }
        if let Some(norm) = &block.key_norm {
            keys = math::rms_norm(&keys, norm, config.epsilon);
        }
        self.rotate(index, &mut queries, config.heads);
        self.rotate(index, &mut keys, config.kv_heads);
        self.caches[index].extend(keys, values);

        let mixed = self.mix(index, &queries);
        let mixed = self
            .model
            .activations(mixed, config.heads * config.head_dim);
        let output = math::linear(&mixed, &block.attention_output);
        match &block.attention_post_norm {
            Some(norm) => math::rms_norm(&output, norm, config.epsilon),
            None => output,
        }
    }

    /// Turns the heads of new tokens by their positions.
    fn rotate(&self, index: usize, x: &mut [f64], heads: usize) {
        let config = &self.model.config;
        let factors = self.model.weights.rope_factors.as_deref();
        for (row, x) in x.chunks_exact_mut(heads * config.head_dim).enumerate() {
            let position = self.length + row;
            let angles = math::angles(position, config.rope_dim, config.rope(index), factors);
            for head in x.chunks_exact_mut(config.head_dim) {
                math::rotate(head, &angles, config.traits.pairing);
            }
        }
    }

    /// For each query the mean of the values it sees, weighted by how well their keys meet it.
    fn mix(&self, index: usize, queries: &[f64]) -> Vec<f64> {
        let config = &self.model.config;
        let width = config.heads * config.head_dim;
        let mut output = vec![0.0; queries.len()];
        output
            .par_chunks_exact_mut(width)
            .zip(queries.par_chunks_exact(width))
            .enumerate()
            .for_each(|(row, (output, queries))| {
                let heads = queries.chunks_exact(config.head_dim);
                let outputs = output.chunks_exact_mut(config.head_dim);
                for (head, (query, output)) in heads.zip(outputs).enumerate() {
                    self.mix_head(index, head, self.length + row, query, output);
                }
            });
        output
    }

    fn mix_head(
        &self,
        index: usize,
        head: usize,
        position: usize,
        query: &[f64],
        output: &mut [f64],
    ) {
        let config = &self.model.config;
        // Neighbouring query heads share a key head.
        let kv_head = head / (config.heads / config.kv_heads);
        let channels = kv_head * config.head_dim..(kv_head + 1) * config.head_dim;
        let cache = &self.caches[index];
        let first = config
            .window(index)
            .map_or(0, |window| (position + 1).saturating_sub(window));
        let mut weights: Vec<f64> = (first..=position)
            .map(|seen| {
                let score = math::dot(query, &cache.read(seen, position).0[channels.clone()])
                    * config.attention_scale;
                config
                    .attention_cap
                    .map_or(score, |cap| math::soft_cap(score, cap))
            })
            .collect();
        math::softmax(&mut weights);
        for (seen, weight) in (first..=position).zip(weights) {
            for (output, value) in output
                .iter_mut()
                .zip(&cache.read(seen, position).1[channels.clone()])
            {
                *output += weight * value;
            }
        }
    }

    /// What the feed-forward part adds to the states `x`.
    fn feed_forward(&self, block: &Block, x: &[f64]) -> Vec<f64> {
        let config = &self.model.config;
        let h = math::rms_norm(x, &block.feed_forward_norm, config.epsilon);
        let h = self.model.activations(h, config.hidden);
        let mut gated = math::product(&h, &block.gate);
        let up = math::product(&h, &block.up);
        for (gate, up) in gated.iter_mut().zip(up) {
            *gate = math::activate(*gate, config.traits.activation) * up;
        }
        let gated = self.model.activations(gated, config.feed_forward);
        let output = math::product(&gated, &block.down);
        match &block.feed_forward_post_norm {
            Some(norm) => math::rms_norm(&output, norm, config.epsilon),
            None => output,
        }
    }
}

fn add(x: &mut [f64], y: &[f64]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
