//! Reading tensors: as matrices, as values, as matrices quantised anew.

use std::io::SeekFrom;
use std::ops::Range;
use std::sync::PoisonError;

use anybit_formats::{
    Calibration, FloatFormat, FormatError, MatrixFormat, PackedMatrix, QuantizeOptions, ScaleType,
    SideData, Zeros,
};
use half::{bf16, f16};

use super::block::{self, Decoder, Fault, FaultAt, Parts, ReadCodes, ReadValues, Shape};
use super::metadata::shorten;
use super::reader::reserve;
use super::tensor::Becomes;
use super::{GgufFile, TensorInfo, TensorType};
use crate::ImportError;
use crate::convert::{ConvertedMatrix, quantize_rows};

/// How many bytes of a tensor are read at a time, about: bounds the memory that reading takes besides its result.
const CHUNK_BYTES: usize = 1 << 20;

impl GgufFile {
    /// Reads the tensor called `name` without loss: [`rows`](TensorInfo::rows) × [`columns`](TensorInfo::columns), one
    /// row if it has one dimension. The format is [`TensorType::matrix_format`]; codes and scales are those of the
    /// file. The memory it takes besides the result is one byte an element (floats: 2 or 4).
    ///
    /// # Errors
    /// [`ImportError::UnknownTensor`], [`ImportError::NotAMatrix`] beyond two dimensions,
    /// [`ImportError::EmptyTensor`], [`ImportError::UnsupportedTensorType`], [`ImportError::NoMatrixFormat`] for types
    /// of which only [`values`](Self::values) can be read, [`ImportError::NonFiniteScale`],
    /// [`ImportError::InvalidScale`] and [`ImportError::InvalidCode`] for damaged blocks, [`ImportError::Matrix`] where
    /// the values make no valid matrix, and errors of reading.
    pub fn matrix(&self, name: &str) -> Result<PackedMatrix, ImportError> {
        let info = self.readable_matrix(name)?;
        match Stored::of(info)? {
            Stored::Floats(format) => self.float_matrix(info, format),
            Stored::Codes(format, shape, read) => self.code_matrix(info, format, shape, read),
            Stored::Values(..) => Err(ImportError::NoMatrixFormat {
                tensor: shorten(name),
                tensor_type: info.tensor_type(),
            }),
        }
    }

    /// Reads the tensor called `name` as a matrix of `format`: [`matrix_with`](Self::matrix_with), rounding to nearest,
    /// with the calibration given or by default
    /// [`Calibration::default_for`](anybit_formats::Calibration::default_for) the format.
    ///
    /// # Errors
    /// As [`matrix_with`](Self::matrix_with).
    pub fn matrix_as(
        &self,
        name: &str,
        format: MatrixFormat,
        calibration: Option<Calibration>,
    ) -> Result<ConvertedMatrix<TensorType>, ImportError> {
        let options = QuantizeOptions {
            calibration,
            ..QuantizeOptions::default()
        };
        self.matrix_with(name, format, &options)
    }

    /// Reads the tensor called `name` as a matrix of `format`: as [`matrix`](Self::matrix) does if that is the format
    /// it has there, else by decoding the values and quantising them anew.
    /// [`ConvertedMatrix::requantised_from`] tells which.
    ///
    /// This is the way to matrices from the IQ1, IQ2 and IQ3 types. Values are decoded some rows at a time, but all at
    /// once for a format with one scale for the whole matrix and for stochastic rounding.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix) but for [`ImportError::NoMatrixFormat`], and as
    /// [`quantize_with`](anybit_formats::quantize_with), in [`ImportError::Matrix`].
    pub fn matrix_with(
        &self,
        name: &str,
        format: MatrixFormat,
        options: &QuantizeOptions,
    ) -> Result<ConvertedMatrix<TensorType>, ImportError> {
        let info = self.readable_matrix(name)?;
        let tensor_type = info.tensor_type();
        if tensor_type.matrix_format() == Some(format) {
            return Ok(ConvertedMatrix {
                matrix: self.matrix(name)?,
                requantised_from: None,
            });
        }
        let stored = Stored::of(info)?;
        let (rows, columns) = shape_of(info)?;
        let matrix = quantize_rows(name, rows, columns, format, options, |rows, values| {
            self.read_values(info, &stored, rows.start as u64..rows.end as u64, values)
        })?;
        Ok(ConvertedMatrix {
            matrix,
            requantised_from: (format != MatrixFormat::F32).then_some(tensor_type),
        })
    }

    /// Decodes the tensor called `name`: [`rows`](TensorInfo::rows) × [`columns`](TensorInfo::columns) values, row
    /// after row, of every type that is read and exactly as ggml decodes them. Where the type has a matrix format, they
    /// equal [`matrix`](Self::matrix) decoded, bit for bit. Of a tensor with more than two dimensions, rows count
    /// through all dimensions but the first.
    ///
    /// # Errors
    /// [`ImportError::UnknownTensor`], [`ImportError::EmptyTensor`], [`ImportError::UnsupportedTensorType`],
    /// [`ImportError::NonFiniteScale`], [`ImportError::InvalidScale`] and [`ImportError::InvalidCode`] for damaged
    /// blocks, [`ImportError::Matrix`] where a float is not finite, and errors of reading.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, ImportError> {
        let info = self.readable(name)?;
        let mut values = Vec::new();
        self.read_values(info, &Stored::of(info)?, 0..info.rows(), &mut values)?;
        Ok(values)
    }

    /// Decodes chosen rows of the tensor called `name`, such as the embeddings of some tokens, without reading the
    /// others: those rows of [`values`](Self::values), `rows.len()` × [`columns`](TensorInfo::columns). Rows may repeat
    /// and come in any order.
    ///
    /// # Errors
    /// As [`values`](Self::values), and [`ImportError::RowOutOfRange`].
    pub fn rows(&self, name: &str, rows: &[usize]) -> Result<Vec<f32>, ImportError> {
        let info = self.readable(name)?;
        let stored = Stored::of(info)?;
        if let Some(&row) = rows.iter().find(|&&row| row as u64 >= info.rows()) {
            return Err(ImportError::RowOutOfRange {
                tensor: shorten(name),
                row,
                rows: index(info.rows(), "the rows of a tensor")?,
            });
        }
        let mut values = Vec::new();
        let count = info.columns().saturating_mul(rows.len() as u64);
        reserve(&mut values, count, VALUES)?;
        for &row in rows {
            let row = row as u64;
            self.read_values(info, &stored, row..row + 1, &mut values)?;
        }
        Ok(values)
    }

    fn readable(&self, name: &str) -> Result<&TensorInfo, ImportError> {
        let info = self
            .tensor(name)
            .ok_or_else(|| ImportError::UnknownTensor {
                name: shorten(name),
            })?;
        if info.elements() == 0 {
            return Err(ImportError::EmptyTensor {
                tensor: shorten(name),
                dimensions: info.dimensions().to_vec(),
            });
        }
        Ok(info)
    }

    fn readable_matrix(&self, name: &str) -> Result<&TensorInfo, ImportError> {
        let info = self.readable(name)?;
        if info.is_matrix() {
            Ok(info)
        } else {
            Err(ImportError::NotAMatrix {
                tensor: shorten(name),
                dimensions: info.dimensions().to_vec(),
            })
        }
    }

    fn float_matrix(
        &self,
        info: &TensorInfo,
        format: FloatFormat,
    ) -> Result<PackedMatrix, ImportError> {
        let (rows, columns) = shape_of(info)?;
        let all = 0..info.rows();
        if format == FloatFormat::F32 {
            let mut values = Vec::new();
            reserve(&mut values, info.elements(), VALUES)?;
            self.read_rows(info, 1, 4, all, |_, bytes| {
                values.extend(bytes.chunks_exact(4).map(f32_from));
                Ok(())
            })?;
            PackedMatrix::from_f32(format, rows, columns, &values)
        } else {
            let mut values = Vec::new();
            reserve(&mut values, info.elements(), VALUES)?;
            self.read_rows(info, 1, 2, all, |_, bytes| {
                values.extend(bytes.chunks_exact(2).map(u16_from));
                Ok(())
            })?;
            PackedMatrix::from_float_bits16(format, rows, columns, &values)
        }
        .map_err(|source| ImportError::Matrix {
            tensor: shorten(info.name()),
            source,
        })
    }

    fn code_matrix(
        &self,
        info: &TensorInfo,
        format: MatrixFormat,
        shape: Shape,
        read: ReadCodes,
    ) -> Result<PackedMatrix, ImportError> {
        let (rows, columns) = shape_of(info)?;
        let blocks = info.elements() / shape.elements as u64;
        let mut codes = zeroed(blocks, shape.elements, "the codes of a tensor")?;
        let mut scales = zeroed(blocks, shape.scales, SCALES)?;
        let mut minima = zeroed(blocks, shape.minima, "the minima of a tensor")?;
        let mut second = zeroed(blocks, shape.second, SCALES)?;
        let mut second_minima = zeroed(blocks, shape.second_minima, SCALES)?;

        let mut rest = Parts {
            codes: &mut codes,
            scales: &mut scales,
            minima: &mut minima,
            second: &mut second,
            second_minima: &mut second_minima,
        };
        self.read_rows(
            info,
            shape.elements,
            shape.bytes,
            0..info.rows(),
            |first, bytes| {
                let (parts, others) =
                    std::mem::take(&mut rest).split_at(&shape, bytes.len() / shape.bytes);
                rest = others;
                block::separate(&shape, read, bytes, parts).map_err(|fault| at(info, first, fault))
            },
        )?;

        // ggml has no factor of the whole matrix.
        if format
            .scales()
            .is_some_and(|layout| layout.scale == ScaleType::E4m3)
        {
            second = vec![1.0];
        }
        let side = SideData {
            scales: &scales,
            second: &second,
            zeros: if shape.minima > 0 {
                Zeros::Minimum(&minima)
            } else {
                Zeros::None
            },
            second_minima: &second_minima,
        };
        PackedMatrix::from_parts(format, rows, columns, &codes, side).map_err(|source| {
            ImportError::Matrix {
                tensor: shorten(info.name()),
                source,
            }
        })
    }

    /// Decodes the rows of a range and appends their values.
    fn read_values(
        &self,
        info: &TensorInfo,
        stored: &Stored,
        rows: Range<u64>,
        values: &mut Vec<f32>,
    ) -> Result<(), ImportError> {
        let count = (rows.end - rows.start).saturating_mul(info.columns());
        reserve(values, count, VALUES)?;
        match *stored {
            Stored::Floats(format) => {
                let bytes_each = format.bits() as usize / 8;
                self.read_rows(info, 1, bytes_each, rows, |first, bytes| {
                    let start = values.len();
                    let elements = bytes.chunks_exact(bytes_each);
                    match format {
                        FloatFormat::F32 => values.extend(elements.map(f32_from)),
                        FloatFormat::F16 => values
                            .extend(elements.map(|bytes| f16::from_bits(u16_from(bytes)).to_f32())),
                        FloatFormat::Bf16 => values.extend(
                            elements.map(|bytes| bf16::from_bits(u16_from(bytes)).to_f32()),
                        ),
                    }
                    check_finite(info, first, values.get(start..).unwrap_or_default())
                })
            }
            Stored::Codes(format, shape, read) => {
                let decoder = Decoder::new(shape, read, &format);
                let read = |block: &[u8], values: &mut [f32]| decoder.decode(block, values);
                self.decode_rows(info, shape.elements, shape.bytes, &read, rows, values)
            }
            Stored::Values(elements, bytes, read) => {
                self.decode_rows(info, elements, bytes, &read, rows, values)
            }
        }
    }

    fn decode_rows(
        &self,
        info: &TensorInfo,
        elements: usize,
        block_bytes: usize,
        read: &(impl Fn(&[u8], &mut [f32]) -> Result<(), Fault> + Sync),
        rows: Range<u64>,
        values: &mut Vec<f32>,
    ) -> Result<(), ImportError> {
        self.read_rows(info, elements, block_bytes, rows, |first, bytes| {
            let start = values.len();
            // Memory for it has been reserved.
            values.resize(start + bytes.len() / block_bytes * elements, 0.0);
            let new = values.get_mut(start..).unwrap_or_default();
            block::decode(block_bytes, elements, read, bytes, new)
                .map_err(|fault| at(info, first, fault))
        })
    }

    /// Reads rows in chunks of whole blocks and shows each to `visit`, with the number of its first block in the
    /// tensor. Floats are blocks of one element.
    fn read_rows(
        &self,
        info: &TensorInfo,
        elements: usize,
        block_bytes: usize,
        rows: Range<u64>,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        // No overflow: the header was refused unless the whole tensor lies within the file.
        let blocks_in_row = info.columns() / elements as u64;
        let (mut next, end) = (rows.start * blocks_in_row, rows.end * blocks_in_row);
        let data = self.data_start + info.offset();
        let blocks_in_chunk = (CHUNK_BYTES / block_bytes) as u64;

        let mut chunk = Vec::new();
        while next < end {
            let count = blocks_in_chunk.min(end - next);
            // Fits: at most `CHUNK_BYTES`.
            chunk.resize(count as usize * block_bytes, 0);
            self.read_at(data + next * block_bytes as u64, &mut chunk)?;
            visit(next, &chunk)?;
            next += count;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ImportError> {
        // A thread that panicked while reading leaves nothing behind: every read seeks first.
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
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
const SCALES: &str = "the scales of a tensor";

/// How a tensor that can be read is stored.
enum Stored {
    Floats(FloatFormat),
    Codes(MatrixFormat, Shape, ReadCodes),
    /// Elements and bytes of a block.
    Values(usize, usize, ReadValues),
}

impl Stored {
    fn of(info: &TensorInfo) -> Result<Self, ImportError> {
        let tensor_type = info.tensor_type();
        let unsupported = || ImportError::UnsupportedTensorType {
            tensor: shorten(info.name()),
            tensor_type,
        };
        let size = |count: Option<u64>| {
            count
                .and_then(|count| usize::try_from(count).ok())
                .ok_or_else(unsupported)
        };
        let elements = size(tensor_type.block_elements())?;
        let bytes = size(tensor_type.block_bytes())?;
        Ok(match tensor_type.becomes() {
            Becomes::Floats(format) => Self::Floats(format),
            Becomes::Codes(_, read) => {
                let format = tensor_type.matrix_format().ok_or_else(unsupported)?;
                Self::Codes(format, Shape::of(bytes, elements, &format), read)
            }
            Becomes::Values(read) => Self::Values(elements, bytes, read),
            Becomes::Nothing => return Err(unsupported()),
        })
    }
}

/// The error for a fault in a block, counted from block `first` of the tensor.
fn at(info: &TensorInfo, first: u64, (position, fault): FaultAt) -> ImportError {
    let block = first + position as u64;
    let elements = info.tensor_type().block_elements().unwrap_or(1);
    // Not 0: the row has the block.
    let blocks_in_row = (info.columns() / elements).max(1);
    let tensor = shorten(info.name());
    let (row, block) = (block / blocks_in_row, block % blocks_in_row);
    match fault {
        Fault::NonFinite(part, value) => ImportError::NonFiniteScale {
            tensor,
            row,
            block,
            part,
            value,
        },
        Fault::ScaleByte { byte, expected } => ImportError::InvalidScale {
            tensor,
            row,
            block,
            byte,
            expected,
        },
        Fault::Code { code, limit } => ImportError::InvalidCode {
            tensor,
            row,
            block,
            code,
            limit,
        },
    }
}

/// Checks floats, of which the first is element `first` of the tensor.
fn check_finite(info: &TensorInfo, first: u64, values: &[f32]) -> Result<(), ImportError> {
    let wrong = (first..).zip(values).find(|(_, value)| !value.is_finite());
    match wrong {
        None => Ok(()),
        Some((element, &value)) => Err(ImportError::Matrix {
            tensor: shorten(info.name()),
            source: FormatError::NonFinite {
                row: index(element / info.columns(), "the rows of a tensor")?,
                column: index(element % info.columns(), "the columns of a tensor")?,
                value,
            },
        }),
    }
}

/// Rows and columns.
fn shape_of(info: &TensorInfo) -> Result<(usize, usize), ImportError> {
    Ok((
        index(info.rows(), "the rows of a tensor")?,
        index(info.columns(), "the columns of a tensor")?,
    ))
}

fn zeroed<T: Clone + Default>(
    blocks: u64,
    each: usize,
    what: &'static str,
) -> Result<Vec<T>, ImportError> {
    let mut values = Vec::new();
    let count = reserve(&mut values, blocks.saturating_mul(each as u64), what)?;
    values.resize(count, T::default());
    Ok(values)
}

fn f32_from(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn u16_from(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn index(count: u64, what: &'static str) -> Result<usize, ImportError> {
    usize::try_from(count).map_err(|_| ImportError::OutOfMemory { what, bytes: count })
}
