//! Decoder-only models in f64 on the CPU, written for reading: what the library's results are compared with.
//!
//! It reads the model file on its own, decodes every weight exactly, and computes every sum in f64, so that its logits
//! are those of the file's weights but for rounding errors around 1e-13. Sources: the papers of RMSNorm
//! (arXiv:1910.07467), rotary embeddings (arXiv:2104.09864), grouped queries (arXiv:2305.13245), gated feed-forward
//! parts (arXiv:2002.05202) and Gemma 3 (arXiv:2503.19786), and, for names and conventions, llama.cpp.

mod cache;
mod config;
pub(crate) mod math;
mod session;
mod weights;

use std::collections::HashMap;

use anybit::formats::{MatrixFormat, quantize};
use anybit_import::gguf::GgufFile;

pub(crate) use self::cache::Kept;
pub(crate) use self::config::{Config, Pairing};
pub(crate) use self::session::Session;
use self::weights::Weights;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// How many positions have their logits computed at once where only a score is wanted: bounds the memory they take.
const SCORED_AT_ONCE: usize = 32;

/// A model: its configuration and its weights.
pub(crate) struct Reference {
    pub(crate) config: Config,
    weights: Weights,
    /// How keys and values are kept.
    pub(crate) kept: Kept,
    /// What the activations of matrices are quantised to; nothing, if there is none.
    pub(crate) activation: Option<MatrixFormat>,
}

impl Reference {
    /// Reads a model of the architecture llama, qwen2, qwen3 or gemma3.
    ///
    /// It fails where a tensor is missing or has another shape than the metadata says, and where the file has a tensor
    /// that would go unused, since the result would then not be the model's.
    pub(crate) fn load(file: &GgufFile) -> Result<Self, Error> {
        Self::load_with(file, HashMap::new())
    }

    /// The same, with other values for some of the tensors, by name.
    pub(crate) fn load_with(
        file: &GgufFile,
        values: HashMap<String, Vec<f32>>,
    ) -> Result<Self, Error> {
        let config = Config::read(file)?;
        let weights = Weights::read(file, &config, values)?;
        Ok(Self {
            config,
            weights,
            kept: Kept::Exact,
            activation: None,
        })
    }

    /// How many tokens the model knows.
    pub(crate) fn vocabulary(&self) -> usize {
        self.weights.embedding.rows
    }

    /// The logits after each of the tokens of a text: tokens × vocabulary.
    pub(crate) fn forward(&self, tokens: &[u32]) -> Result<Vec<f64>, Error> {
        let states = Session::new(self).extend(tokens)?;
        Ok(self.logits(&states))
    }

    /// The logits of final states: rows × hidden in, rows × vocabulary out.
    pub(crate) fn logits(&self, states: &[f64]) -> Vec<f64> {
        let head = self
            .weights
            .output
            .as_ref()
            .unwrap_or(&self.weights.embedding);
        let states = self.activations(states.to_vec(), self.config.hidden);
        let mut logits = math::product(&states, head);
        if let Some(cap) = self.config.logit_cap {
            logits
                .iter_mut()
                .for_each(|logit| *logit = math::soft_cap(*logit, cap));
        }
        logits
    }

    /// Rows of activations as the matrix that they go to finds them.
    fn activations(&self, rows: Vec<f64>, columns: usize) -> Vec<f64> {
        let Some(format) = self.activation else {
            return rows;
        };
        let values: Vec<f32> = rows.iter().map(|&value| value as f32).collect();
        let rows = rows.len() / columns;
        let packed = quantize(&values, rows, columns, format, None);
        let packed = packed.expect("the format is one that the library takes for activations");
        packed.decode().into_iter().map(f64::from).collect()
    }

    /// The `count` tokens that follow `prompt`, each the most likely one; of equals, the first.
    pub(crate) fn greedy(&self, prompt: &[u32], count: usize) -> Result<Vec<u32>, Error> {
        let mut session = Session::new(self);
        let states = session.extend(prompt)?;
        let last = states
            .chunks_exact(self.config.hidden)
            .last()
            .ok_or("greedy generation needs a prompt of a token at least")?;
        let mut logits = self.logits(last);
        let mut tokens = Vec::new();
        while tokens.len() < count {
            let token = u32::try_from(math::argmax(&logits))?;
            tokens.push(token);
            if tokens.len() < count {
                logits = session.push(token)?;
            }
        }
        Ok(tokens)
    }

    /// The negative log likelihood, in nats, of each token but the first, given those before it.
    pub(crate) fn losses(&self, tokens: &[u32]) -> Result<Vec<f64>, Error> {
        let states = Session::new(self).extend(tokens)?;
        let states = states.chunks(self.config.hidden * SCORED_AT_ONCE);
        let mut losses = Vec::new();
        for (states, targets) in
            states.zip(tokens.get(1..).unwrap_or_default().chunks(SCORED_AT_ONCE))
        {
            let logits = self.logits(states);
            for (logits, &target) in logits.chunks_exact(self.vocabulary()).zip(targets) {
                losses.push(math::log_sum_exp(logits) - logits[target as usize]);
            }
        }
        Ok(losses)
    }

    /// The mean of [`losses`](Self::losses). Its exponential is the perplexity.
    pub(crate) fn cross_entropy(&self, tokens: &[u32]) -> Result<f64, Error> {
        let losses = self.losses(tokens)?;
        if losses.is_empty() {
            return Err(format!(
                "the cross entropy of {} tokens has nothing to predict",
                tokens.len()
            )
            .into());
        }
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    }
}
