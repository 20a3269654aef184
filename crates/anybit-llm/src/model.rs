//! A model on the device.

use std::sync::Arc;

use anybit::formats::PackedMatrix;
use anybit::{Context, DeviceMatrix, PlanOptions, RotaryTable};
use anybit_import::ModelFile;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::linear::Linear;
use crate::precision::Precision;
use crate::weights::{EMBEDDING, HEAD, Progress, ROTARY_DIVISORS, Tensors};

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// The formats that it computes in.
    pub precision: Precision,
    /// Tokens of a text, at most, with all that is generated after it; the model's own context, if there is none. What rotary
    /// tables and KV caches are made for.
    pub context: Option<usize>,
    /// One kernel for every number of tokens, so that on one adapter a text gives the same numbers to the bit, whether its tokens
    /// are worked on in one step or in many. Prompts then take as long as if each token were generated.
    pub deterministic: bool,
}

impl LoadOptions {
    /// With these formats.
    pub fn new(precision: Precision) -> Self {
        Self {
            precision,
            ..Self::default()
        }
    }

    /// For so many tokens.
    #[must_use]
    pub fn with_context(mut self, context: usize) -> Self {
        self.context = Some(context);
        self
    }

    /// One kernel for every number of tokens, or the fastest.
    #[must_use]
    pub fn with_deterministic(mut self, deterministic: bool) -> Self {
        self.deterministic = deterministic;
        self
    }
}

/// A layer: attention and the gated feed-forward layer, with their norms.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attention_norm: DeviceMatrix,
    pub(crate) qkv: Linear,
    pub(crate) bias: Option<DeviceMatrix>,
    /// Norms of the heads of queries and of keys.
    pub(crate) head_norms: Option<[DeviceMatrix; 2]>,
    pub(crate) attention_output: Linear,
    pub(crate) attention_post_norm: Option<DeviceMatrix>,
    pub(crate) feed_forward_norm: DeviceMatrix,
    pub(crate) gate_up: Linear,
    pub(crate) down: Linear,
    pub(crate) feed_forward_post_norm: Option<DeviceMatrix>,
    pub(crate) is_local: bool,
}

/// A model on a device, ready for any number of [`Session`](crate::Session)s. Cheap to clone: clones share the weights.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) context: Context,
    pub(crate) config: ModelConfig,
    pub(crate) options: LoadOptions,
    pub(crate) plan_options: PlanOptions,
    /// Tokens that tables cover.
    pub(crate) capacity: usize,
    pub(crate) embedding: DeviceMatrix,
    pub(crate) head: Linear,
    pub(crate) output_norm: DeviceMatrix,
    pub(crate) blocks: Vec<Block>,
    pub(crate) rotary: RotaryTable,
    pub(crate) local_rotary: Option<RotaryTable>,
    weight_bytes: u64,
    bits_per_weight: f64,
}

impl Model {
    /// Loads a model from a file onto a device. `report` is called as tensors are read.
    ///
    /// Everything is checked before anything is read: the architecture, the metadata, and each tensor's name and shape.
    ///
    /// # Errors
    ///
    /// Those of [`ModelConfig::read`]; [`Error::MissingTensor`](crate::Error::MissingTensor),
    /// [`Error::TensorShape`](crate::Error::TensorShape), [`Error::Import`](crate::Error::Import) for tensors;
    /// [`Error::ActivationFormat`](crate::Error::ActivationFormat); [`Error::Context`](crate::Error::Context) for a context
    /// beyond the model's; [`Error::DeviceTooSmall`](crate::Error::DeviceTooSmall) and [`Error::Gpu`](crate::Error::Gpu) for
    /// the device.
    pub fn load(
        context: &Context,
        file: &ModelFile,
        options: &LoadOptions,
        report: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let config = ModelConfig::read(file)?;
        options.precision.check()?;
        let capacity = options.context.unwrap_or(config.context).max(1);
        if capacity > config.context {
            return Err(crate::Error::Context {
                needed: capacity,
                limit: config.context,
            });
        }
        let tensors = Tensors::new(file, report);
        tensors.check_all(&config)?;
        let mut loader = Loader {
            context,
            config: &config,
            options,
            plan_options: PlanOptions::default().with_deterministic(options.deterministic),
            tensors,
            bytes: 0,
        };
        let (embedding, head) = loader.embedding()?;
        let output_norm = loader.vector("output_norm.weight", config.hidden)?;
        let mut blocks = Vec::new();
        for index in 0..config.blocks {
            blocks.push(loader.block(index)?);
        }
        let divisors = loader
            .tensors
            .optional_vector(ROTARY_DIVISORS, config.rotated / 2)?;
        let table = |local| {
            let frequencies = config.rotary_frequencies(local, divisors.as_deref());
            context.rotary_table(&frequencies, capacity)
        };
        let rotary = table(false)?;
        let has_local = (0..config.blocks).any(|block| config.is_local(block));
        let local_rotary = has_local.then(|| table(true)).transpose()?;
        let Loader {
            plan_options,
            tensors,
            bytes,
            ..
        } = loader;
        let bits_per_weight = tensors.bits as f64 / tensors.values.max(1) as f64;
        Ok(Self {
            inner: Arc::new(Inner {
                context: context.clone(),
                weight_bytes: bytes,
                bits_per_weight,
                options: options.clone(),
                plan_options,
                capacity,
                embedding,
                head,
                output_norm,
                blocks,
                rotary,
                local_rotary,
                config,
            }),
        })
    }

    /// The model's sizes and numbers.
    pub fn config(&self) -> &ModelConfig {
        &self.inner.config
    }

    /// The device.
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// The formats that it computes in.
    pub fn precision(&self) -> Precision {
        self.inner.options.precision
    }

    /// Tokens of a text, at most.
    pub fn capacity(&self) -> usize {
        self.inner.capacity
    }

    /// Bytes of weights on the device, with the norms' and the rotary tables.
    pub fn weight_bytes(&self) -> u64 {
        let local = self.inner.local_rotary.as_ref();
        self.inner.weight_bytes + self.inner.rotary.bytes() + local.map_or(0, RotaryTable::bytes)
    }

    /// Bits of the matrices, scales included, for each of their values; a matrix that is both embedding and LM head counts once.
    pub fn bits_per_weight(&self) -> f64 {
        self.inner.bits_per_weight
    }
}

struct Loader<'a> {
    context: &'a Context,
    config: &'a ModelConfig,
    options: &'a LoadOptions,
    plan_options: PlanOptions,
    tensors: Tensors<'a>,
    bytes: u64,
}

impl Loader<'_> {
    fn vector(&mut self, name: &str, columns: usize) -> Result<DeviceMatrix> {
        let values = self.tensors.vector(name, columns)?;
        self.upload_vector(&values)
    }

    fn upload_vector(&mut self, values: &[f32]) -> Result<DeviceMatrix> {
        let matrix = self.context.upload_f32(values, 1, values.len())?;
        self.bytes += matrix.bytes();
        Ok(matrix)
    }

    fn linear(&mut self, matrices: Vec<PackedMatrix>) -> Result<Linear> {
        let activation = self.options.precision.activation;
        let linear = Linear::upload(self.context, matrices, activation, &self.plan_options)?;
        self.bytes += linear.bytes();
        Ok(linear)
    }

    /// Matrices of a block that read the same activations: names and rows.
    fn matrices(
        &mut self,
        block: usize,
        names: &[(&str, usize)],
        columns: usize,
    ) -> Result<Linear> {
        let format = self.options.precision.weight;
        let mut matrices = Vec::new();
        for (name, rows) in names {
            let name = format!("blk.{block}.{name}.weight");
            matrices.push(self.tensors.matrix(&name, (*rows, columns), format)?);
        }
        self.linear(matrices)
    }

    /// The embedding and the LM head, which may be one matrix.
    fn embedding(&mut self) -> Result<(DeviceMatrix, Linear)> {
        let shape = (self.config.vocabulary, self.config.hidden);
        let format = self.options.precision.head;
        let embedding = self.tensors.matrix(EMBEDDING, shape, format)?;
        if !self.tensors.has(HEAD) {
            let head = self.linear(vec![embedding])?;
            // The layout that the product reads is as good to gather rows from.
            let matrix = head.parts.first().map(|part| part.matrix.clone());
            return match matrix {
                Some(matrix) => Ok((matrix, head)),
                None => Err(crate::Error::MissingTensor {
                    name: EMBEDDING.into(),
                    shape,
                }),
            };
        }
        let matrix = self
            .context
            .upload(&embedding, &anybit::formats::DeviceLayout::ROW_MAJOR)?;
        self.bytes += matrix.bytes();
        let head = self.tensors.matrix(HEAD, shape, format)?;
        Ok((matrix, self.linear(vec![head])?))
    }

    fn block(&mut self, index: usize) -> Result<Block> {
        let config = self.config;
        let architecture = config.architecture;
        let (queries, keys) = config.attention_columns();
        let named = |name: &str| format!("blk.{index}.{name}.weight");
        let qkv = self.matrices(
            index,
            &[("attn_q", queries), ("attn_k", keys), ("attn_v", keys)],
            config.hidden,
        )?;
        let bias = if architecture.qkv_bias {
            Some(self.bias(index, &qkv, [queries, keys, keys])?)
        } else {
            None
        };
        let head_norms = if architecture.head_norm {
            Some([
                self.vector(&named("attn_q_norm"), config.head_dim)?,
                self.vector(&named("attn_k_norm"), config.head_dim)?,
            ])
        } else {
            None
        };
        let post_norm = |loader: &mut Self, name: &str| -> Result<Option<DeviceMatrix>> {
            if !architecture.post_norm {
                return Ok(None);
            }
            loader.vector(&named(name), config.hidden).map(Some)
        };
        Ok(Block {
            attention_norm: self.vector(&named("attn_norm"), config.hidden)?,
            qkv,
            bias,
            head_norms,
            attention_output: self.matrices(index, &[("attn_output", config.hidden)], queries)?,
            attention_post_norm: post_norm(self, "post_attention_norm")?,
            feed_forward_norm: self.vector(&named("ffn_norm"), config.hidden)?,
            gate_up: self.matrices(
                index,
                &[
                    ("ffn_gate", config.feed_forward),
                    ("ffn_up", config.feed_forward),
                ],
                config.hidden,
            )?,
            down: self.matrices(index, &[("ffn_down", config.hidden)], config.feed_forward)?,
            feed_forward_post_norm: post_norm(self, "post_ffw_norm")?,
            is_local: config.is_local(index),
        })
    }

    /// The biases of queries, keys and values, where their outputs lie.
    fn bias(&mut self, block: usize, qkv: &Linear, columns: [usize; 3]) -> Result<DeviceMatrix> {
        let mut row = vec![0.0; qkv.width];
        for ((name, columns), &start) in ["attn_q", "attn_k", "attn_v"]
            .iter()
            .zip(columns)
            .zip(&qkv.starts)
        {
            let name = format!("blk.{block}.{name}.bias");
            let values = self.tensors.vector(&name, columns)?;
            for (target, value) in row.iter_mut().skip(start).zip(values) {
                *target = value;
            }
        }
        self.upload_vector(&row)
    }
}
