//! Reading weights: as matrices, as values, as matrices quantised anew; and the bytes of tensors.

use std::io::SeekFrom;
use std::ops::Range;
use std::sync::PoisonError;

use anybit_formats::{MatrixFormat, PackedMatrix, QuantizeOptions, ScaleType};
use half::{bf16, f16};

use super::recognise::Kind;
use super::weight::{CodedWeight, Places};
use super::{Dtype, SafetensorsFile, TensorInfo, WeightInfo, WeightLayout};
use crate::convert::quantize_rows;
use crate::gguf::{reserve, shorten};
use crate::{ConvertedMatrix, ImportError, ScalePart};

/// How many bytes of a tensor are read at a time, about: bounds the memory that reading takes besides its result.
const CHUNK_BYTES: u64 = 1 << 20;

/// A matrix whose columns may stand in another order than the weight's.
#[derive(Clone, Debug, PartialEq)]
pub struct PermutedMatrix {
    /// The matrix.
    pub matrix: PackedMatrix,
    /// Where column j of the matrix is column `permutation[j]` of the weight: activations are to be gathered so, x[j] =
    /// original x[permutation[j]], before they are multiplied. `None` where the columns are in order.
    pub permutation: Option<Vec<u32>>,
}

impl SafetensorsFile {
    /// Reads the weight called `name` without loss: [`rows`](WeightInfo::rows) × [`columns`](WeightInfo::columns), one
    /// row if it has one dimension. The format is [`WeightInfo::matrix_format`]; codes and scales are those of the
    /// file.
    ///
    /// # Errors
    /// [`ImportError::UnknownTensor`], [`ImportError::NotAMatrix`] beyond two dimensions,
    /// [`ImportError::EmptyTensor`], [`ImportError::UnsupportedLayout`], [`ImportError::NotPackable`] for weights of
    /// which only [`values`](Self::values) can be read, [`ImportError::PermutedColumns`] where
    /// [`permuted_matrix`](Self::permuted_matrix) is to be called, [`ImportError::MissingTensor`],
    /// [`ImportError::WrongDtype`], [`ImportError::WrongShape`], [`ImportError::Undecided`] and
    /// [`ImportError::Setting`] for parts that do not go together, [`ImportError::NonFiniteScale`],
    /// [`ImportError::InvalidScale`] and [`ImportError::Matrix`] for damaged ones, and errors of reading.
    pub fn matrix(&self, name: &str) -> Result<PackedMatrix, ImportError> {
        let PermutedMatrix {
            matrix,
            permutation,
        } = self.permuted_matrix(name)?;
        match permutation {
            None => Ok(matrix),
            Some(_) => Err(ImportError::PermutedColumns {
                weight: shorten(name),
            }),
        }
    }

    /// Reads the weight called `name` without loss, as [`matrix`](Self::matrix) does, but with its columns in another
    /// order where the quantiser chose one (`desc_act` of GPTQ).
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix), but for [`ImportError::PermutedColumns`].
    pub fn permuted_matrix(&self, name: &str) -> Result<PermutedMatrix, ImportError> {
        let weight = self.readable_matrix(name)?;
        let in_order = |matrix| PermutedMatrix {
            matrix,
            permutation: None,
        };
        match &weight.kind {
            Kind::Plain(_) => self.float_matrix(weight).map(in_order),
            Kind::Packed(entry) => self.packed_matrix(weight, entry).map(in_order),
            _ => {
                let (matrix, permutation) = self.coded(weight)?.matrix(name, weight.layout())?;
                Ok(PermutedMatrix {
                    matrix,
                    permutation,
                })
            }
        }
    }

    /// Reads the weight called `name` as a matrix of `format`: as [`matrix`](Self::matrix) does if that is the format
    /// it has there, else by decoding the values and quantising them anew. Columns are in the weight's own order.
    /// [`ConvertedMatrix::requantised_from`] tells which.
    ///
    /// Values are decoded some rows at a time, but all at once for a format with one scale for the whole matrix and for
    /// stochastic rounding.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix) but for [`ImportError::NotPackable`] and [`ImportError::PermutedColumns`], and as
    /// [`quantize_with`](anybit_formats::quantize_with), in [`ImportError::Matrix`].
    pub fn matrix_as(
        &self,
        name: &str,
        format: MatrixFormat,
        options: &QuantizeOptions,
    ) -> Result<ConvertedMatrix<WeightLayout>, ImportError> {
        let weight = self.readable_matrix(name)?;
        let requantised_from = (format != MatrixFormat::F32).then_some(weight.layout());
        let columns = index(weight.columns(), "the columns of a tensor")?;
        let rows = index(weight.rows(), "the rows of a tensor")?;
        if weight.matrix_format() == Some(format) {
            match self.matrix(name) {
                Err(ImportError::PermutedColumns { .. } | ImportError::NotPackable { .. }) => {}
                matrix => {
                    return Ok(ConvertedMatrix {
                        matrix: matrix?,
                        requantised_from: None,
                    });
                }
            }
        }
        let source = self.source(weight)?;
        let matrix = quantize_rows(name, rows, columns, format, options, |rows, values| {
            self.read_values(weight, &source, rows, values)
        })?;
        Ok(ConvertedMatrix {
            matrix,
            requantised_from,
        })
    }

    /// Decodes the weight called `name`: [`rows`](WeightInfo::rows) × [`columns`](WeightInfo::columns) values, row
    /// after row. Where the weight has a matrix format, they equal [`matrix`](Self::matrix) decoded, bit for bit. Of a
    /// weight with more than two dimensions, rows count through all dimensions but the last.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix), but for [`ImportError::NotAMatrix`], [`ImportError::NotPackable`] and
    /// [`ImportError::PermutedColumns`].
    pub fn values(&self, name: &str) -> Result<Vec<f32>, ImportError> {
        let weight = self.readable(name)?;
        let rows = index(weight.rows(), "the rows of a tensor")?;
        let mut values = Vec::new();
        self.read_values(weight, &self.source(weight)?, 0..rows, &mut values)?;
        Ok(values)
    }

    /// Decodes chosen rows of the weight called `name`, such as the embeddings of some tokens: those rows of
    /// [`values`](Self::values). Of floats the others are not read; quantised weights are read whole. Rows may repeat
    /// and come in any order.
    ///
    /// # Errors
    /// As [`values`](Self::values), and [`ImportError::RowOutOfRange`].
    pub fn rows(&self, name: &str, rows: &[usize]) -> Result<Vec<f32>, ImportError> {
        let weight = self.readable(name)?;
        if let Some(&row) = rows.iter().find(|&&row| row as u64 >= weight.rows()) {
            return Err(ImportError::RowOutOfRange {
                tensor: shorten(name),
                row,
                rows: index(weight.rows(), "the rows of a tensor")?,
            });
        }
        let mut values = Vec::new();
        let count = weight.columns().saturating_mul(rows.len() as u64);
        reserve(&mut values, count, VALUES)?;
        let source = self.source(weight)?;
        for &row in rows {
            self.read_values(weight, &source, row..row + 1, &mut values)?;
        }
        Ok(values)
    }

    /// The bytes of the tensor called `name`, as the file has them.
    ///
    /// # Errors
    /// [`ImportError::UnknownTensor`] and errors of reading.
    pub fn tensor_bytes(&self, name: &str) -> Result<Vec<u8>, ImportError> {
        let info = self
            .tensor(name)
            .ok_or_else(|| ImportError::UnknownTensor {
                name: shorten(name),
            })?;
        self.bytes(info)
    }

    fn readable(&self, name: &str) -> Result<&WeightInfo, ImportError> {
        let weight = self
            .weight(name)
            .ok_or_else(|| ImportError::UnknownTensor {
                name: shorten(name),
            })?;
        if weight.elements() == 0 && !matches!(weight.kind, Kind::Packed(_)) {
            return Err(ImportError::EmptyTensor {
                tensor: shorten(name),
                dimensions: weight.shape().to_vec(),
            });
        }
        Ok(weight)
    }

    fn readable_matrix(&self, name: &str) -> Result<&WeightInfo, ImportError> {
        let weight = self.readable(name)?;
        if weight.is_matrix() {
            Ok(weight)
        } else {
            Err(ImportError::NotAMatrix {
                tensor: shorten(name),
                dimensions: weight.shape().to_vec(),
            })
        }
    }

    /// What the values of a weight come from.
    fn source(&self, weight: &WeightInfo) -> Result<Source, ImportError> {
        Ok(match &weight.kind {
            Kind::Plain(_) => Source::Floats,
            Kind::Packed(entry) => Source::Matrix(self.packed_matrix(weight, entry)?),
            _ => Source::Coded(self.coded(weight)?),
        })
    }

    /// Appends the values of rows that the weight has.
    fn read_values(
        &self,
        weight: &WeightInfo,
        source: &Source,
        rows: Range<usize>,
        values: &mut Vec<f32>,
    ) -> Result<(), ImportError> {
        match source {
            Source::Floats => self.float_values(weight, rows, values),
            Source::Coded(coded) => coded.values(rows, values),
            Source::Matrix(matrix) => {
                let part = matrix
                    .row_range(rows)
                    .map_err(|source| ImportError::Matrix {
                        tensor: shorten(weight.name()),
                        source,
                    })?;
                values.extend(part.decode());
                Ok(())
            }
        }
    }

    /// A part of a weight.
    pub(super) fn part(&self, weight: &WeightInfo, name: &str) -> Result<&TensorInfo, ImportError> {
        self.tensor(name).ok_or_else(|| ImportError::MissingTensor {
            weight: shorten(weight.name()),
            layout: weight.layout(),
            tensor: shorten(name),
        })
    }

    /// The bytes of a tensor.
    pub(super) fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>, ImportError> {
        let mut bytes = Vec::new();
        let count = reserve(&mut bytes, info.byte_size(), "the bytes of a tensor")?;
        bytes.resize(count, 0);
        self.read_at(info, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The 32-bit words of a tensor.
    pub(super) fn words(&self, info: &TensorInfo) -> Result<Vec<u32>, ImportError> {
        let mut words = Vec::new();
        reserve(&mut words, info.byte_size() / 4, "the words of a tensor")?;
        self.read_chunks(info, 0..info.byte_size(), |bytes| {
            words.extend(bytes.chunks_exact(4).map(u32_from));
        })?;
        Ok(words)
    }

    /// The numbers of a tensor as f32: floats of 16 and 32 bits, E4M3, and bytes that are exponents.
    pub(super) fn scales(&self, info: &TensorInfo) -> Result<Vec<f32>, ImportError> {
        let mut values = Vec::new();
        reserve(&mut values, info.elements(), "the scales of a tensor")?;
        let scale_type = match info.dtype() {
            Dtype::F8E4m3 => ScaleType::E4m3,
            _ => ScaleType::E8m0,
        };
        self.read_chunks(info, 0..info.byte_size(), |bytes| match info.dtype() {
            Dtype::F32 => values.extend(bytes.chunks_exact(4).map(f32_from)),
            Dtype::F16 => values.extend(bytes.chunks_exact(2).map(f16_from)),
            Dtype::Bf16 => values.extend(bytes.chunks_exact(2).map(bf16_from)),
            _ => values.extend(bytes.iter().map(|&byte| scale_type.decode(u32::from(byte)))),
        })?;
        Ok(values)
    }

    /// Reads bytes of a tensor in chunks of a multiple of 8 but the last, and shows each to `visit`.
    pub(super) fn read_chunks(
        &self,
        info: &TensorInfo,
        range: Range<u64>,
        mut visit: impl FnMut(&[u8]),
    ) -> Result<(), ImportError> {
        let (mut next, end) = (range.start, range.end);
        let mut chunk = Vec::new();
        while next < end {
            let count = CHUNK_BYTES.min(end - next);
            // Fits: at most `CHUNK_BYTES`.
            chunk.resize(count as usize, 0);
            self.read_at(info, next, &mut chunk)?;
            visit(&chunk);
            next += count;
        }
        Ok(())
    }

    fn read_at(&self, info: &TensorInfo, start: u64, bytes: &mut [u8]) -> Result<(), ImportError> {
        let Some(file) = self.files.get(info.file()) else {
            return Ok(());
        };
        // No overflow: the tensor lies within the file.
        let offset = file.data_start + info.offset() + start;
        // A thread that panicked while reading leaves nothing behind: every read seeks first.
        let mut source = file.source.lock().unwrap_or_else(PoisonError::into_inner);
        source
            .seek(SeekFrom::Start(offset))
            .and_then(|_| source.read_exact(bytes))
            .map_err(|source| ImportError::Read {
                offset,
                length: bytes.len() as u64,
                source,
            })
    }
}

const VALUES: &str = "the values of a tensor";

/// What values are decoded from.
enum Source {
    Floats,
    Coded(CodedWeight),
    Matrix(PackedMatrix),
}

/// The factor of all scales, which must be one finite number.
pub(super) fn single_scale(file: &SafetensorsFile, info: &TensorInfo) -> Result<f32, ImportError> {
    if info.elements() != 1 {
        return Err(wrong_shape(info, "a single number"));
    }
    if info.dtype() != Dtype::F32 {
        return Err(wrong_dtype(info, "F32"));
    }
    let scale = file.scales(info)?.first().copied().unwrap_or(f32::NAN);
    if scale.is_finite() {
        Ok(scale)
    } else {
        Err(non_finite(info, scale))
    }
}

/// The error for a factor of all scales.
pub(super) fn non_finite(info: &TensorInfo, value: f32) -> ImportError {
    ImportError::NonFiniteScale {
        tensor: shorten(info.name()),
        row: 0,
        block: 0,
        part: ScalePart::Scale,
        value,
    }
}

/// The type that keeps the scales of a tensor exactly.
pub(super) fn scale_type(info: &TensorInfo) -> Result<ScaleType, ImportError> {
    match info.dtype() {
        Dtype::F16 => Ok(ScaleType::F16),
        Dtype::F32 | Dtype::Bf16 => Ok(ScaleType::F32),
        Dtype::F8E8m0 | Dtype::U8 => Ok(ScaleType::E8m0),
        _ => Err(wrong_dtype(
            info,
            "F32, F16, BF16, or exponents in F8_E8M0 or U8",
        )),
    }
}

/// Which elements the scales of a tensor serve: one, one a row, some a row, or blocks of the matrix.
pub(super) fn scale_places(
    info: &TensorInfo,
    rows: usize,
    columns: usize,
    block: Option<[u64; 2]>,
) -> Result<Places, ImportError> {
    const DEFAULT_BLOCK: [u64; 2] = [128, 128];
    if info.elements() == 1 {
        return Ok(Places::Tensor);
    }
    let across = match *info.shape() {
        [down] if down == rows as u64 => return Ok(Places::Rows),
        [down, across] => {
            let fits = |[block_rows, block_columns]: [u64; 2]| {
                block_rows > 0
                    && block_columns > 0
                    && down == (rows as u64).div_ceil(block_rows)
                    && across == (columns as u64).div_ceil(block_columns)
            };
            let blocks = match block {
                Some(block) => Some(block).filter(|&block| fits(block)),
                None => Some(DEFAULT_BLOCK).filter(|&block| down != rows as u64 && fits(block)),
            };
            if let Some([block_rows, block_columns]) = blocks {
                return Ok(Places::Blocks {
                    rows: index(block_rows, "a block").unwrap_or(usize::MAX),
                    columns: index(block_columns, "a block").unwrap_or(usize::MAX),
                });
            }
            (down == rows as u64).then_some(across)
        }
        _ => None,
    };
    match across {
        Some(1) => Some(Places::Rows),
        Some(groups) => groups_of(columns, groups).map(Places::Groups),
        None => None,
    }
    .ok_or_else(|| {
        wrong_shape(
            info,
            format!("one scale, one for each of {rows} rows, some for each, or blocks of 128 by 128 ({columns} columns)"),
        )
    })
}

/// Columns a group where so many columns make so many groups; the last may be shorter.
pub(super) fn groups_of(columns: usize, groups: u64) -> Option<usize> {
    let groups = usize::try_from(groups).ok().filter(|&groups| groups > 0)?;
    let group = columns.div_ceil(groups);
    (group > 0 && columns.div_ceil(group) == groups).then_some(group)
}

/// Rows and columns of a tensor of two dimensions, neither of them 0.
pub(super) fn two_dimensions(info: &TensorInfo) -> Result<(usize, usize), ImportError> {
    match *info.shape() {
        [rows, columns] if rows > 0 && columns > 0 => Ok((
            index(rows, "the rows of a tensor")?,
            index(columns, "the columns of a tensor")?,
        )),
        _ => Err(wrong_shape(info, "two dimensions")),
    }
}

/// Checks the shape of a tensor.
pub(super) fn check_shape(info: &TensorInfo, expected: &[u64]) -> Result<(), ImportError> {
    if info.shape() == expected {
        Ok(())
    } else {
        Err(wrong_shape(info, format!("{expected:?}")))
    }
}

/// Checks the type of a tensor.
pub(super) fn check_dtype(info: &TensorInfo, expected: Dtype) -> Result<(), ImportError> {
    if info.dtype() == expected {
        Ok(())
    } else {
        Err(wrong_dtype(info, expected.name()))
    }
}

pub(super) fn wrong_shape(info: &TensorInfo, expected: impl Into<String>) -> ImportError {
    ImportError::WrongShape {
        tensor: shorten(info.name()),
        found: info.shape().to_vec(),
        expected: expected.into(),
    }
}

pub(super) fn wrong_dtype(info: &TensorInfo, expected: &'static str) -> ImportError {
    ImportError::WrongDtype {
        tensor: shorten(info.name()),
        found: info.dtype(),
        expected,
    }
}

pub(super) fn u32_from(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

pub(super) fn u16_from(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

pub(super) fn f32_from(bytes: &[u8]) -> f32 {
    f32::from_bits(u32_from(bytes))
}

pub(super) fn f16_from(bytes: &[u8]) -> f32 {
    f16::from_bits(u16_from(bytes)).to_f32()
}

pub(super) fn bf16_from(bytes: &[u8]) -> f32 {
    bf16::from_bits(u16_from(bytes)).to_f32()
}

pub(super) fn index(count: u64, what: &'static str) -> Result<usize, ImportError> {
    usize::try_from(count).map_err(|_| ImportError::OutOfMemory { what, bytes: count })
}
