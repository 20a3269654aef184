//! What a model is made of: its architecture and sizes, out of a file's metadata.

use std::collections::HashMap;
use std::str::FromStr;

use anybit::{Gate, Pairing};
use anybit_import::ModelFile;

use crate::error::{Error, Result};
use crate::tokenizer::shorten;

/// How a family of models differs from the others. All are decoder-only transformers with RMSNorm before attention and the gated
/// feed-forward layer, rotary position embedding and grouped-query attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Architecture {
    /// Its name in `general.architecture`.
    pub name: &'static str,
    /// Which channels rotary embedding takes together.
    pub pairing: Pairing,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether heads of queries and keys are normalised before they are rotated.
    pub head_norm: bool,
    /// Whether the outputs of attention and feed-forward layers are normalised before they are added.
    pub post_norm: bool,
    /// The gate of the feed-forward layer.
    pub gate: Gate,
    /// Whether embeddings are multiplied by the square root of their width.
    pub scaled_embedding: bool,
    /// The layers that see a window alone.
    pub local: Option<LocalLayers>,
}

/// Layers with a sliding window, among others without.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalLayers {
    /// Every so manyth layer sees all tokens.
    pub every: usize,
    /// The base of their rotary frequencies, unless the metadata have one.
    pub base: f64,
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    pairing: Pairing::Neighbours,
    qkv_bias: false,
    head_norm: false,
    post_norm: false,
    gate: Gate::Silu,
    scaled_embedding: false,
    local: None,
};

/// The architectures that can be run. Names and differences are those of llama.cpp's GGUF files.
pub const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture {
        name: "qwen2",
        pairing: Pairing::Halves,
        qkv_bias: true,
        ..LLAMA
    },
    Architecture {
        name: "qwen3",
        pairing: Pairing::Halves,
        head_norm: true,
        ..LLAMA
    },
    Architecture {
        name: "gemma3",
        pairing: Pairing::Halves,
        head_norm: true,
        post_norm: true,
        gate: Gate::GeluTanh,
        scaled_embedding: true,
        local: Some(LocalLayers {
            every: 6,
            base: 10_000.0,
        }),
        ..LLAMA
    },
];

/// The sizes and numbers of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// What it is.
    pub architecture: Architecture,
    /// Layers.
    pub blocks: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub feed_forward: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Channels of a head that are rotated.
    pub rotated: usize,
    /// Tokens of the vocabulary: rows of the embedding.
    pub vocabulary: usize,
    /// Tokens of the longest text that it was trained on.
    pub context: usize,
    /// What norms add to the mean square.
    pub epsilon: f32,
    /// The base of the rotary frequencies, and of local layers'.
    pub rotary_base: f64,
    /// The base of local layers' rotary frequencies.
    pub local_base: f64,
    /// What positions are divided by, in layers that see all tokens.
    pub rotary_factor: f64,
    /// Tokens that local layers see.
    pub window: Option<usize>,
    /// The soft cap of attention's scores.
    pub attention_cap: Option<f32>,
    /// The soft cap of the logits.
    pub logit_cap: Option<f32>,
}

/// A file's metadata, with what goes wrong in reading them.
struct Reader {
    values: HashMap<String, String>,
    prefix: &'static str,
}

impl Reader {
    fn optional<T: FromStr>(&self, key: &str) -> Result<Option<T>> {
        let key = format!("{}.{key}", self.prefix);
        let Some(text) = self.values.get(&key) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| Error::Metadata {
            problem: format!(
                "{:?} is no number of the kind that belongs there",
                shorten(text)
            ),
            key,
        })
    }

    fn required<T: FromStr>(&self, key: &str) -> Result<T> {
        self.optional(key)?.ok_or_else(|| Error::Metadata {
            key: format!("{}.{key}", self.prefix),
            problem: "it is missing, or a list, where one number is needed".into(),
        })
    }

    /// A positive size.
    fn size(&self, key: &str) -> Result<usize> {
        let value = self.required(key)?;
        self.positive(key, value)
    }

    fn positive(&self, key: &str, value: usize) -> Result<usize> {
        // Sizes are multiplied with each other further on.
        if (1..1 << 24).contains(&value) {
            return Ok(value);
        }
        Err(self.wrong(key, format!("{value} is not between 1 and 2^24")))
    }

    fn wrong(&self, key: &str, problem: String) -> Error {
        Error::Metadata {
            key: format!("{}.{key}", self.prefix),
            problem,
        }
    }

    fn number(&self, key: &str, value: Option<f64>, default: f64) -> Result<f64> {
        let value = value.unwrap_or(default);
        if value.is_finite() && value > 0.0 {
            return Ok(value);
        }
        Err(self.wrong(key, format!("{value} is not positive and finite")))
    }

    /// A soft cap; 0 stands for none.
    fn cap(&self, key: &str) -> Result<Option<f32>> {
        match self.optional::<f32>(key)? {
            None | Some(0.0) => Ok(None),
            Some(cap) if cap.is_finite() && cap > 0.0 => Ok(Some(cap)),
            Some(cap) => Err(self.wrong(key, format!("{cap} is not positive and finite"))),
        }
    }
}

impl ModelConfig {
    /// Reads the configuration of a model out of a file: GGUF, or packed matrices made of one.
    ///
    /// # Errors
    ///
    /// [`Error::Architecture`]; [`Error::Metadata`] for values that are missing or do not fit each other;
    /// [`Error::MissingTensor`] and [`Error::TensorShape`] for the embedding.
    pub fn read(file: &ModelFile) -> Result<Self> {
        let values: HashMap<String, String> = file.metadata().into_iter().collect();
        let found = values
            .get("general.architecture")
            .cloned()
            .unwrap_or_default();
        let architecture = *ARCHITECTURES
            .iter()
            .find(|architecture| architecture.name == found)
            .ok_or_else(|| Error::Architecture {
                found: shorten(&found),
                known: ARCHITECTURES
                    .iter()
                    .map(|architecture| architecture.name)
                    .collect(),
            })?;
        let reader = Reader {
            values,
            prefix: architecture.name,
        };
        let hidden = reader.size("embedding_length")?;
        let heads = reader.size("attention.head_count")?;
        let kv_heads = match reader.optional("attention.head_count_kv")? {
            Some(heads) => reader.positive("attention.head_count_kv", heads)?,
            None => heads,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(reader.wrong(
                "attention.head_count_kv",
                format!("{heads} query heads cannot share {kv_heads} heads of keys evenly"),
            ));
        }
        let head_dim = match reader.optional("attention.key_length")? {
            Some(length) => reader.positive("attention.key_length", length)?,
            None => hidden / heads,
        };
        let value_length = reader.optional("attention.value_length")?;
        if value_length.is_some_and(|length: usize| length != head_dim) {
            return Err(reader.wrong(
                "attention.value_length",
                format!("it must be the length of keys, {head_dim}"),
            ));
        }
        if head_dim == 0 || !head_dim.is_multiple_of(8) || head_dim > 256 {
            return Err(reader.wrong(
                "attention.key_length",
                format!("heads of {head_dim} channels: a multiple of 8 up to 256 is needed"),
            ));
        }
        let rotated = reader.optional("rope.dimension_count")?.unwrap_or(head_dim);
        if rotated == 0 || rotated > head_dim || !rotated.is_multiple_of(4) {
            return Err(reader.wrong(
                "rope.dimension_count",
                format!("{rotated} of {head_dim} channels: a multiple of 4 is needed"),
            ));
        }
        let rotary_base = reader.number(
            "rope.freq_base",
            reader.optional("rope.freq_base")?,
            10_000.0,
        )?;
        let local = architecture.local;
        let window = match local {
            Some(_) => reader.optional("attention.sliding_window")?,
            None => None,
        };
        if window == Some(0) {
            return Err(reader.wrong("attention.sliding_window", "0 tokens".into()));
        }
        Ok(Self {
            architecture,
            blocks: reader.size("block_count")?,
            hidden,
            feed_forward: reader.size("feed_forward_length")?,
            heads,
            kv_heads,
            head_dim,
            rotated,
            vocabulary: embedding_rows(file, hidden)?,
            context: reader.size("context_length")?,
            epsilon: reader.number(
                "attention.layer_norm_rms_epsilon",
                Some(reader.required("attention.layer_norm_rms_epsilon")?),
                0.0,
            )? as f32,
            rotary_base,
            local_base: reader.number(
                "rope.freq_base_swa",
                reader.optional("rope.freq_base_swa")?,
                local.map_or(rotary_base, |local| local.base),
            )?,
            rotary_factor: rotary_factor(&reader)?,
            window,
            attention_cap: reader.cap("attn_logit_softcapping")?,
            logit_cap: reader.cap("final_logit_softcapping")?,
        })
    }

    /// Whether a layer sees a window alone.
    pub fn is_local(&self, block: usize) -> bool {
        self.window.is_some()
            && self
                .architecture
                .local
                .is_some_and(|local| !(block + 1).is_multiple_of(local.every))
    }

    /// Columns of the queries, and of the keys or values.
    pub fn attention_columns(&self) -> (usize, usize) {
        (self.heads * self.head_dim, self.kv_heads * self.head_dim)
    }

    /// The rotary frequencies of a layer, an entry for each pair of channels; `divisors` are those of Llama 3's scaling.
    pub fn rotary_frequencies(&self, local: bool, divisors: Option<&[f32]>) -> Vec<f64> {
        let (base, factor) = if local {
            (self.local_base, 1.0)
        } else {
            (self.rotary_base, self.rotary_factor)
        };
        (0..self.rotated / 2)
            .map(|pair| {
                let divisor = divisors.and_then(|divisors| divisors.get(pair)).copied();
                let exponent = -2.0 * pair as f64 / self.rotated as f64;
                base.powf(exponent) / factor / f64::from(divisor.unwrap_or(1.0))
            })
            .collect()
    }
}

fn embedding_rows(file: &ModelFile, hidden: usize) -> Result<usize> {
    let weights = file.weights();
    let embedding = weights
        .iter()
        .find(|weight| weight.name == crate::weights::EMBEDDING)
        .ok_or_else(|| Error::MissingTensor {
            name: crate::weights::EMBEDDING.into(),
            shape: (0, hidden),
        })?;
    match *embedding.shape {
        [rows, columns] if columns == hidden as u64 && (1..1 << 24).contains(&rows) => {
            Ok(rows as usize)
        }
        _ => Err(Error::TensorShape {
            name: embedding.name.clone(),
            expected: (
                embedding.shape.first().copied().unwrap_or(0) as usize,
                hidden,
            ),
            actual: embedding.shape.clone(),
        }),
    }
}

/// Linear scaling of positions.
fn rotary_factor(reader: &Reader) -> Result<f64> {
    let kind: Option<String> = reader.optional("rope.scaling.type")?;
    match kind.as_deref() {
        None | Some("none") => Ok(1.0),
        Some("linear") => {
            let factor = reader.optional("rope.scaling.factor")?;
            reader.number("rope.scaling.factor", factor, 1.0)
        }
        Some(other) => Err(reader.wrong(
            "rope.scaling.type",
            format!("{:?} is not supported; none and linear are", shorten(other)),
        )),
    }
}
