//! What a model takes on a device, told from its file alone.

use anybit::{KvCache, KvFormat, KvShape};
use anybit_import::{ImportError, ModelFile};

use crate::config::ModelConfig;
use crate::error::Result;
use crate::precision::Precision;
use crate::session::CHUNK;
use crate::weights::{EMBEDDING, HEAD, Tensors, needed};

/// What weights take on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeightEstimate {
    /// Bytes, but for the padding of the device's layouts and the rotary tables.
    pub bytes: u64,
    /// As [`Model::bits_per_weight`](crate::Model::bits_per_weight), without the padding of rows.
    pub bits_per_weight: f64,
}

impl ModelConfig {
    /// Checks that a file has all tensors that a model of this configuration needs, with their shapes.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`](crate::Error::MissingTensor) and [`Error::TensorShape`](crate::Error::TensorShape).
    pub fn check_tensors(&self, file: &ModelFile) -> Result<()> {
        Tensors::new(file, &mut |_| ()).check_all(self)
    }

    /// Checks a model's tensors and formats as loading does, and adds up what its weights would take. Nothing is read but the
    /// file's header.
    ///
    /// # Errors
    ///
    /// Those of [`Model::load`](crate::Model::load) that do not come from a device.
    pub fn estimate_weights(
        &self,
        file: &ModelFile,
        precision: &Precision,
    ) -> Result<WeightEstimate> {
        precision.check()?;
        let mut ignored = |_| ();
        let tensors = Tensors::new(file, &mut ignored);
        tensors.check_all(self)?;
        let (mut bytes, mut matrix_bits, mut matrix_values) = (0, 0.0, 0.0);
        for (name, (rows, columns)) in needed(self, tensors.has(HEAD)) {
            let values = rows as f64 * columns as f64;
            if is_vector(&name) {
                bytes += 4 * (rows * columns) as u64;
                continue;
            }
            let chosen = match name.as_str() {
                EMBEDDING | HEAD => precision.head,
                _ => precision.weight,
            };
            let format = match chosen.or_else(|| tensors.stored_format(&name)) {
                Some(format) => format,
                // Whatever is not packed without loss is refused, and says why.
                None => *file.matrix(&name)?.format(),
            };
            format
                .check_shape(rows, columns)
                .map_err(|source| ImportError::Matrix {
                    tensor: name,
                    source,
                })?;
            let bits = format.bits_per_element(rows, columns) * values;
            bytes += (bits / 8.0).ceil() as u64;
            matrix_bits += bits;
            matrix_values += values;
        }
        Ok(WeightEstimate {
            bytes,
            bits_per_weight: matrix_bits / f64::max(matrix_values, 1.0),
        })
    }

    /// Bytes of the keys and values of all layers in a [`Session`](crate::Session) with room for so many tokens; `None` if they
    /// are past counting.
    pub fn kv_cache_bytes(&self, format: KvFormat, capacity: usize) -> Option<u64> {
        let capacity = capacity.max(1);
        let shape = KvShape {
            heads: self.kv_heads,
            head_dim: self.head_dim,
            capacity,
            step: CHUNK.min(capacity),
        };
        KvCache::bytes_of(format, shape)?.checked_mul(self.blocks as u64)
    }
}

fn is_vector(name: &str) -> bool {
    name.ends_with("norm.weight") || name.ends_with(".bias")
}
