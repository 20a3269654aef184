//! The weights of a model, decoded to f32, which holds them exactly.

use std::collections::{HashMap, HashSet};

use anybit_import::gguf::GgufFile;

use super::{Config, Error};

/// A weight matrix: output channels × input channels, row after row.
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<f32>,
}

/// A linear map: what it multiplies by and, in some models, adds.
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

/// A block. The norms that only some architectures have are `None` in the others.
pub(crate) struct Block {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) query_norm: Option<Vec<f32>>,
    pub(crate) key_norm: Option<Vec<f32>>,
    pub(crate) attention_output: Linear,
    pub(crate) attention_post_norm: Option<Vec<f32>>,
    pub(crate) feed_forward_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
    pub(crate) feed_forward_post_norm: Option<Vec<f32>>,
}

pub(crate) struct Weights {
    /// Vocabulary × hidden.
    pub(crate) embedding: Matrix,
    pub(crate) blocks: Vec<Block>,
    pub(crate) output_norm: Vec<f32>,
    /// Vocabulary × hidden; `None`: the embedding serves.
    pub(crate) output: Option<Matrix>,
    /// Divides the angle of each pair.
    pub(crate) rope_factors: Option<Vec<f32>>,
}

impl Weights {
    pub(super) fn read(
        file: &GgufFile,
        config: &Config,
        others: HashMap<String, Vec<f32>>,
    ) -> Result<Self, Error> {
        let mut reader = Reader {
            file,
            others,
            used: HashSet::new(),
        };
        let vocabulary = file
            .tensor("token_embd.weight")
            .ok_or("there is no tensor token_embd.weight")?
            .rows();
        let vocabulary = usize::try_from(vocabulary)?;
        let weights = Self {
            embedding: reader.matrix("token_embd.weight", vocabulary, config.hidden)?,
            blocks: (0..config.blocks)
                .map(|block| reader.block(block, config))
                .collect::<Result<_, _>>()?,
            output_norm: reader.vector("output_norm.weight", config.hidden)?,
            output: match file.tensor("output.weight") {
                Some(_) => Some(reader.matrix("output.weight", vocabulary, config.hidden)?),
                None => None,
            },
            rope_factors: reader.optional_vector("rope_freqs.weight", config.rope_dim / 2)?,
        };
        reader.check_all_used()?;
        Ok(weights)
    }
}

struct Reader<'a> {
    file: &'a GgufFile,
    /// Values to be taken instead of the file's, each once.
    others: HashMap<String, Vec<f32>>,
    used: HashSet<String>,
}

impl Reader<'_> {
    fn block(&mut self, block: usize, config: &Config) -> Result<Block, Error> {
        let name = |part: &str| format!("blk.{block}.{part}");
        let hidden = config.hidden;
        let queries = config.heads * config.head_dim;
        let keys = config.kv_heads * config.head_dim;
        let feed_forward = config.feed_forward;
        let mut norm = |present: bool, part: &str, length| match present {
            true => self.vector(&name(part), length).map(Some),
            false => Ok(None),
        };
        let (heads, post) = (config.traits.head_norms, config.traits.post_norms);
        let query_norm = norm(heads, "attn_q_norm.weight", config.head_dim)?;
        let key_norm = norm(heads, "attn_k_norm.weight", config.head_dim)?;
        let attention_post_norm = norm(post, "post_attention_norm.weight", hidden)?;
        let feed_forward_post_norm = norm(post, "post_ffw_norm.weight", hidden)?;
        Ok(Block {
            attention_norm: self.vector(&name("attn_norm.weight"), hidden)?,
            query: self.linear(&name("attn_q"), queries, hidden)?,
            key: self.linear(&name("attn_k"), keys, hidden)?,
            value: self.linear(&name("attn_v"), keys, hidden)?,
            query_norm,
            key_norm,
            attention_output: self.linear(&name("attn_output"), hidden, queries)?,
            attention_post_norm,
            feed_forward_norm: self.vector(&name("ffn_norm.weight"), hidden)?,
            gate: self.matrix(&name("ffn_gate.weight"), feed_forward, hidden)?,
            up: self.matrix(&name("ffn_up.weight"), feed_forward, hidden)?,
            down: self.matrix(&name("ffn_down.weight"), hidden, feed_forward)?,
            feed_forward_post_norm,
        })
    }

    fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear, Error> {
        Ok(Linear {
            matrix: self.matrix(&format!("{name}.weight"), rows, columns)?,
            bias: self.optional_vector(&format!("{name}.bias"), rows)?,
        })
    }

    fn optional_vector(&mut self, name: &str, length: usize) -> Result<Option<Vec<f32>>, Error> {
        match self.file.tensor(name) {
            Some(_) => self.vector(name, length).map(Some),
            None => Ok(None),
        }
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, Error> {
        self.values(name, &[length as u64])
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, Error> {
        Ok(Matrix {
            rows,
            columns,
            values: self.values(name, &[columns as u64, rows as u64])?,
        })
    }

    fn values(&mut self, name: &str, expected: &[u64]) -> Result<Vec<f32>, Error> {
        let found = self
            .file
            .tensor(name)
            .ok_or_else(|| format!("there is no tensor {name}"))?
            .dimensions();
        if found != expected {
            return Err(
                format!("the dimensions of {name} are {found:?} instead of {expected:?}").into(),
            );
        }
        self.used.insert(name.to_owned());
        let Some(values) = self.others.remove(name) else {
            return Ok(self.file.values(name)?);
        };
        if values.len() as u64 != expected.iter().product::<u64>() {
            return Err(
                format!("{} values are given for {name}, {expected:?}", values.len()).into(),
            );
        }
        Ok(values)
    }

    fn check_all_used(&self) -> Result<(), Error> {
        if let Some(name) = self.others.keys().next() {
            return Err(
                format!("values are given for {name}, which the reference does not read").into(),
            );
        }
        let unused = self
            .file
            .tensors()
            .iter()
            .find(|tensor| !self.used.contains(tensor.name()));
        match unused {
            Some(tensor) => {
                Err(format!("the reference has no use for the tensor {}", tensor.name()).into())
            }
            None => Ok(()),
        }
    }
}
