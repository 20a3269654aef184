//! A file's tensors, checked and brought to the formats in which they are computed with.

use std::collections::HashMap;

use anybit::formats::{MatrixFormat, PackedMatrix, QuantizeOptions};
use anybit_import::{ModelFile, ModelWeight};

use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// The embedding, which is the LM head too unless there is one.
pub(crate) const EMBEDDING: &str = "token_embd.weight";
/// The LM head.
pub(crate) const HEAD: &str = "output.weight";
/// What Llama 3 divides rotary frequencies by.
pub(crate) const ROTARY_DIVISORS: &str = "rope_freqs.weight";

/// What a model has loaded so far, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the file that were read.
    pub done: u64,
    /// Bytes of all tensors.
    pub total: u64,
}

/// The tensors of a file by name.
pub(crate) struct Tensors<'a> {
    file: &'a ModelFile,
    by_name: HashMap<String, ModelWeight>,
    report: &'a mut dyn FnMut(Progress),
    progress: Progress,
    /// Values of all matrices, and the bits that they take.
    pub(crate) values: u64,
    pub(crate) bits: u64,
}

impl<'a> Tensors<'a> {
    pub(crate) fn new(file: &'a ModelFile, report: &'a mut dyn FnMut(Progress)) -> Self {
        let by_name: HashMap<_, _> = file
            .weights()
            .into_iter()
            .map(|weight| (weight.name.clone(), weight))
            .collect();
        let total = by_name.values().filter_map(|weight| weight.byte_size).sum();
        Self {
            file,
            by_name,
            report,
            progress: Progress { done: 0, total },
            values: 0,
            bits: 0,
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The format that a tensor can be packed in without loss, if it is there and has one.
    pub(crate) fn stored_format(&self, name: &str) -> Option<MatrixFormat> {
        self.by_name.get(name)?.matrix_format
    }

    /// Checks that a tensor is there, with this shape. Vectors are of one row.
    fn check(&self, name: &str, shape: (usize, usize)) -> Result<u64> {
        let weight = self.by_name.get(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
            shape,
        })?;
        let matches = match *weight.shape {
            [columns] => (1, columns as usize) == shape,
            [rows, columns] => (rows as usize, columns as usize) == shape,
            _ => false,
        };
        if !matches {
            return Err(Error::TensorShape {
                name: name.to_owned(),
                expected: shape,
                actual: weight.shape.clone(),
            });
        }
        Ok(weight.byte_size.unwrap_or(0))
    }

    /// Checks that all tensors of a model are there, with their shapes, before any is read.
    pub(crate) fn check_all(&self, config: &ModelConfig) -> Result<()> {
        for (name, shape) in needed(config, self.has(HEAD)) {
            self.check(&name, shape)?;
        }
        Ok(())
    }

    fn advance(&mut self, bytes: u64) {
        self.progress.done += bytes;
        (self.report)(self.progress);
    }

    /// A matrix as stored or, if a format is given, in that.
    pub(crate) fn matrix(
        &mut self,
        name: &str,
        shape: (usize, usize),
        format: Option<MatrixFormat>,
    ) -> Result<PackedMatrix> {
        let bytes = self.check(name, shape)?;
        let matrix = match format {
            None => self.file.matrix(name)?,
            Some(format) => {
                let converted = self
                    .file
                    .matrix_as(name, format, &QuantizeOptions::default())?;
                converted.matrix
            }
        };
        self.values += (shape.0 * shape.1) as u64;
        self.bits += matrix.storage_bits();
        self.advance(bytes);
        Ok(matrix)
    }

    /// A vector of f32.
    pub(crate) fn vector(&mut self, name: &str, columns: usize) -> Result<Vec<f32>> {
        let bytes = self.check(name, (1, columns))?;
        let values = self.file.values(name)?;
        self.advance(bytes);
        Ok(values)
    }

    /// A vector that need not be there.
    pub(crate) fn optional_vector(
        &mut self,
        name: &str,
        columns: usize,
    ) -> Result<Option<Vec<f32>>> {
        if self.has(name) {
            self.vector(name, columns).map(Some)
        } else {
            Ok(None)
        }
    }
}

/// The tensors of a model with their rows and columns; vectors are of one row. `head`: whether the LM head is a matrix of its
/// own. They are named one by one, since the number of blocks is whatever a file says.
pub(crate) fn needed(
    config: &ModelConfig,
    head: bool,
) -> impl Iterator<Item = (String, (usize, usize))> {
    let (queries, keys) = config.attention_columns();
    let (hidden, feed_forward) = (config.hidden, config.feed_forward);
    let embedding = (config.vocabulary, hidden);
    let around = [
        Some((EMBEDDING, embedding)),
        head.then_some((HEAD, embedding)),
        Some(("output_norm.weight", (1, hidden))),
    ];
    let mut names = vec![
        ("attn_norm.weight", (1, hidden)),
        ("attn_q.weight", (queries, hidden)),
        ("attn_k.weight", (keys, hidden)),
        ("attn_v.weight", (keys, hidden)),
        ("attn_output.weight", (hidden, queries)),
        ("ffn_norm.weight", (1, hidden)),
        ("ffn_gate.weight", (feed_forward, hidden)),
        ("ffn_up.weight", (feed_forward, hidden)),
        ("ffn_down.weight", (hidden, feed_forward)),
    ];
    if config.architecture.qkv_bias {
        names.extend([
            ("attn_q.bias", (1, queries)),
            ("attn_k.bias", (1, keys)),
            ("attn_v.bias", (1, keys)),
        ]);
    }
    if config.architecture.head_norm {
        names.extend([
            ("attn_q_norm.weight", (1, config.head_dim)),
            ("attn_k_norm.weight", (1, config.head_dim)),
        ]);
    }
    if config.architecture.post_norm {
        names.extend([
            ("post_attention_norm.weight", (1, hidden)),
            ("post_ffw_norm.weight", (1, hidden)),
        ]);
    }
    let of_blocks = (0..config.blocks).flat_map(move |block| {
        let of_block = names.clone().into_iter();
        of_block.map(move |(name, shape)| (format!("blk.{block}.{name}"), shape))
    });
    let around = around.into_iter().flatten();
    around
        .map(|(name, shape)| (name.to_owned(), shape))
        .chain(of_blocks)
}
