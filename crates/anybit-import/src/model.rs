//! One model file, whatever its kind.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anybit_formats::{MatrixFormat, PackedMatrix, QuantizeOptions};

use crate::gguf::{GgufFile, TensorType, Value};
use crate::safetensors::{Dtype, SafetensorsFile, WeightLayout};
use crate::{ConvertedMatrix, ImportError};

/// A model file of any kind that is read here.
///
/// What they have in common is offered by name: weights, their shapes and how they are stored, matrices and values. For
/// the rest, match.
#[derive(Debug)]
#[non_exhaustive]
pub enum ModelFile {
    /// GGUF.
    Gguf(GgufFile),
    /// Safetensors: floats, quantised weights, or packed matrices.
    Safetensors(SafetensorsFile),
}

/// A weight of a [`ModelFile`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelWeight {
    /// Its name.
    pub name: String,
    /// Its dimensions, outermost first: N × K for a matrix of N output channels and K inputs.
    pub shape: Vec<u64>,
    /// How it is stored: the name of a GGUF type, a safetensors type or a quantiser's layout.
    pub stored_as: String,
    /// The format that [`ModelFile::matrix`] gives it, or `None` if no packed matrix keeps it without loss.
    pub matrix_format: Option<MatrixFormat>,
    /// Bytes that it takes in the file, or `None` if its type is not known here.
    pub byte_size: Option<u64>,
}

impl ModelWeight {
    /// Whether it is a matrix to multiply by: two dimensions, neither of them 0.
    pub fn is_matrix(&self) -> bool {
        matches!(*self.shape, [rows, columns] if rows > 0 && columns > 0)
    }
}

/// A tensor as it is stored, for those that are no matrices.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlainTensor {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Its elements, little-endian, those along the last dimension adjacent.
    pub bytes: Vec<u8>,
}

impl ModelFile {
    /// Opens a model: a GGUF file, a safetensors file, the index of a safetensors model in several files, or a directory
    /// with one of the latter. The first bytes of a file tell which it is, not its name.
    ///
    /// # Errors
    /// [`ImportError::Open`], [`ImportError::UnknownFile`], and those of [`GgufFile::open`] and
    /// [`SafetensorsFile::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImportError> {
        let path = path.as_ref();
        let is_index = path
            .extension()
            .is_some_and(|extension| extension == "json");
        if path.is_dir() || is_index {
            return SafetensorsFile::open(path).map(Self::Safetensors);
        }
        let mut first = Vec::new();
        File::open(path)
            .and_then(|file| file.take(9).read_to_end(&mut first))
            .map_err(|source| ImportError::Open {
                path: path.to_owned(),
                source,
            })?;
        if first.starts_with(b"GGUF") {
            return GgufFile::open(path).map(Self::Gguf);
        }
        if first.get(8) == Some(&b'{') {
            return SafetensorsFile::open(path).map(Self::Safetensors);
        }
        Err(ImportError::UnknownFile {
            path: path.to_owned(),
            found: first,
        })
    }

    /// All weights, in the order of the file.
    pub fn weights(&self) -> Vec<ModelWeight> {
        match self {
            Self::Gguf(file) => file
                .tensors()
                .iter()
                .map(|info| ModelWeight {
                    name: info.name().to_owned(),
                    shape: info.dimensions().iter().rev().copied().collect(),
                    stored_as: info.tensor_type().to_string(),
                    matrix_format: info.tensor_type().matrix_format(),
                    byte_size: info.byte_size(),
                })
                .collect(),
            Self::Safetensors(file) => file
                .weights()
                .iter()
                .map(|info| ModelWeight {
                    name: info.name().to_owned(),
                    shape: info.shape().to_vec(),
                    stored_as: info.layout().to_string(),
                    matrix_format: info.matrix_format(),
                    byte_size: Some(info.byte_size()),
                })
                .collect(),
        }
    }

    /// Whether the file holds packed matrices of anybit, so that nothing need be quantised again.
    pub fn is_packed(&self) -> bool {
        matches!(self, Self::Safetensors(file) if file.is_packed())
    }

    /// The metadata that are short texts: keys and values, numbers and truth values written out. Lists are left out.
    pub fn metadata(&self) -> Vec<(String, String)> {
        match self {
            Self::Gguf(file) => file
                .metadata()
                .iter()
                .filter_map(|(key, value)| Some((key.to_owned(), text_of(value)?)))
                .collect(),
            Self::Safetensors(file) => file
                .metadata()
                .filter(|(key, _)| !key.starts_with("anybit."))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    /// Reads a weight without loss.
    ///
    /// # Errors
    /// Those of [`GgufFile::matrix`] and [`SafetensorsFile::matrix`].
    pub fn matrix(&self, name: &str) -> Result<PackedMatrix, ImportError> {
        match self {
            Self::Gguf(file) => file.matrix(name),
            Self::Safetensors(file) => file.matrix(name),
        }
    }

    /// Reads a weight as a matrix of a format, quantising its values anew unless it has that format in the file.
    ///
    /// # Errors
    /// Those of [`GgufFile::matrix_with`] and [`SafetensorsFile::matrix_as`].
    pub fn matrix_as(
        &self,
        name: &str,
        format: MatrixFormat,
        options: &QuantizeOptions,
    ) -> Result<ConvertedMatrix<String>, ImportError> {
        let (matrix, requantised_from) = match self {
            Self::Gguf(file) => {
                let converted = file.matrix_with(name, format, options)?;
                let from = converted.requantised_from.as_ref();
                (converted.matrix, from.map(TensorType::to_string))
            }
            Self::Safetensors(file) => {
                let converted = file.matrix_as(name, format, options)?;
                let from = converted.requantised_from.as_ref();
                (converted.matrix, from.map(WeightLayout::to_string))
            }
        };
        Ok(ConvertedMatrix {
            matrix,
            requantised_from,
        })
    }

    /// Decodes a weight, row after row.
    ///
    /// # Errors
    /// Those of [`GgufFile::values`] and [`SafetensorsFile::values`].
    pub fn values(&self, name: &str) -> Result<Vec<f32>, ImportError> {
        match self {
            Self::Gguf(file) => file.values(name),
            Self::Safetensors(file) => file.values(name),
        }
    }

    /// Decodes chosen rows of a weight.
    ///
    /// # Errors
    /// Those of [`GgufFile::rows`] and [`SafetensorsFile::rows`].
    pub fn rows(&self, name: &str, rows: &[usize]) -> Result<Vec<f32>, ImportError> {
        match self {
            Self::Gguf(file) => file.rows(name, rows),
            Self::Safetensors(file) => file.rows(name, rows),
        }
    }

    /// Reads a tensor to be kept as it is, such as the weights of a norm: of safetensors the bytes of the file, whatever
    /// their type; of GGUF and of quantised weights the values in F32.
    ///
    /// # Errors
    /// Those of [`values`](Self::values).
    pub fn plain(&self, name: &str) -> Result<PlainTensor, ImportError> {
        if let Self::Safetensors(file) = self {
            let plain = file
                .weight(name)
                .is_some_and(|info| matches!(info.layout(), WeightLayout::Plain(_)));
            if let Some(info) = file.tensor(name).filter(|_| plain) {
                return Ok(PlainTensor {
                    dtype: info.dtype(),
                    shape: info.shape().to_vec(),
                    bytes: file.tensor_bytes(name)?,
                });
            }
        }
        let shape = match self {
            Self::Gguf(file) => file
                .tensor(name)
                .map(|info| info.dimensions().iter().rev().copied().collect()),
            Self::Safetensors(file) => file.weight(name).map(|info| info.shape().to_vec()),
        };
        let values = self.values(name)?;
        Ok(PlainTensor {
            dtype: Dtype::F32,
            shape: shape.unwrap_or_default(),
            bytes: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        })
    }
}

/// A single value as text; `None` for lists.
fn text_of(value: &Value) -> Option<String> {
    Some(match value {
        Value::Array(_) => return None,
        Value::String(text) => text.clone(),
        Value::Bool(truth) => truth.to_string(),
        Value::F32(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
        Value::U8(number) => number.to_string(),
        Value::I8(number) => number.to_string(),
        Value::U16(number) => number.to_string(),
        Value::I16(number) => number.to_string(),
        Value::U32(number) => number.to_string(),
        Value::I32(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
    })
}
