//! Weights of floats, each a tensor that stands for itself.

use std::ops::Range;

use anybit_formats::{FloatFormat, FormatError, PackedMatrix};

use super::read::{bf16_from, f16_from, f32_from, index, u16_from};
use super::recognise::{Kind, float_format};
use super::{SafetensorsFile, TensorInfo, WeightInfo};
use crate::ImportError;
use crate::gguf::{reserve, shorten};

const VALUES: &str = "the values of a tensor";

impl SafetensorsFile {
    /// The tensor of a weight of floats.
    fn floats(&self, weight: &WeightInfo) -> Result<(&TensorInfo, FloatFormat), ImportError> {
        let unsupported = || ImportError::UnsupportedLayout {
            weight: shorten(weight.name()),
            layout: weight.layout(),
        };
        let Kind::Plain(position) = weight.kind else {
            return Err(unsupported());
        };
        let info = self.tensors.get(position).ok_or_else(unsupported)?;
        let format = float_format(info.dtype()).ok_or_else(unsupported)?;
        Ok((info, format))
    }

    pub(super) fn float_matrix(&self, weight: &WeightInfo) -> Result<PackedMatrix, ImportError> {
        let (info, format) = self.floats(weight)?;
        let rows = index(weight.rows(), "the rows of a tensor")?;
        let columns = index(weight.columns(), "the columns of a tensor")?;
        if format == FloatFormat::F32 {
            let mut values = Vec::new();
            reserve(&mut values, info.elements(), VALUES)?;
            self.read_chunks(info, 0..info.byte_size(), |bytes| {
                values.extend(bytes.chunks_exact(4).map(f32_from));
            })?;
            PackedMatrix::from_f32(format, rows, columns, &values)
        } else {
            let mut values = Vec::new();
            reserve(&mut values, info.elements(), VALUES)?;
            self.read_chunks(info, 0..info.byte_size(), |bytes| {
                values.extend(bytes.chunks_exact(2).map(u16_from));
            })?;
            PackedMatrix::from_float_bits16(format, rows, columns, &values)
        }
        .map_err(|source| ImportError::Matrix {
            tensor: shorten(info.name()),
            source,
        })
    }

    /// Appends rows of a weight of floats.
    pub(super) fn float_values(
        &self,
        weight: &WeightInfo,
        rows: Range<usize>,
        values: &mut Vec<f32>,
    ) -> Result<(), ImportError> {
        let (info, format) = self.floats(weight)?;
        let columns = weight.columns();
        // No overflow: the rows lie within the file.
        let (first, end) = (rows.start as u64 * columns, rows.end as u64 * columns);
        reserve(values, end - first, VALUES)?;
        let start = values.len();
        let bytes = u64::from(format.bits() / 8);
        self.read_chunks(info, first * bytes..end * bytes, |bytes| match format {
            FloatFormat::F32 => values.extend(bytes.chunks_exact(4).map(f32_from)),
            FloatFormat::F16 => values.extend(bytes.chunks_exact(2).map(f16_from)),
            FloatFormat::Bf16 => values.extend(bytes.chunks_exact(2).map(bf16_from)),
        })?;
        let new = values.get(start..).unwrap_or_default();
        match (first..).zip(new).find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((element, &value)) => Err(ImportError::Matrix {
                tensor: shorten(info.name()),
                source: FormatError::NonFinite {
                    row: index(element / columns, "the rows of a tensor")?,
                    column: index(element % columns, "the columns of a tensor")?,
                    value,
                },
            }),
        }
    }
}
