//! GGUF, the model files of llama.cpp: versions 2 and 3, little-endian.
//!
//! [`GgufFile`] reads the header of a file — metadata and the list of tensors — and checks all of it; tensors are read
//! when they are asked for. Quantised tensors are taken apart without loss: the 18- to 34-byte blocks of ggml become
//! the separate streams of a [`PackedMatrix`], every code and every scale as it was.
//!
//! | type in the file | matrix format |
//! |---|---|
//! | F32, F16, BF16 | `f32`, `f16`, `bf16` |
//! | Q4_0 | `i4g32h` |
//! | Q4_1 | `u4g32hm` |
//! | Q5_0 | `i5g32h` |
//! | Q5_1 | `u5g32hm` |
//! | Q8_0 | `i8g32h` |
//!
//! Tensors of other types are listed and refused on reading. GGUF lists dimensions fastest first, so a weight matrix
//! of N output channels × K inputs has the dimensions `[K, N]`, K = [`TensorInfo::columns`] and
//! N = [`TensorInfo::rows`].
//!
//! # Files from strangers
//!
//! No file makes this module panic, loop for long or take memory beyond a multiple of the file's own length: lengths
//! and counts are checked against what is left of the file before anything is reserved for them. (The multiple is
//! small but for float tensors with rows shorter than 32 elements, which a matrix pads to 32.) A file is refused when
//! its strings are not UTF-8, keys or tensor names occur twice, arrays nest too deep, dimensions overflow or are no
//! multiple of the type's block, or tensors are misaligned, overlap or reach past the end. A value, scale or minimum
//! that is infinite or not a number is an error when its tensor is read, and named with its place. Tensors may come in
//! any order, with gaps between them.
//!
//! # Why a parser of our own
//!
//! Four crates were read for this purpose in their versions of the time, and none holds against hostile files.
//! `ggus` 0.5 reserves memory for whatever count the header names, adds offsets unchecked and meets an unknown tensor
//! type with `todo!`. `gguf-rs` 0.1 reserves up to 1 GiB for a string whatever the file's length, keeps the last of two
//! like keys, computes wrong sizes for some types and meets type 40 with `unreachable!`. `gguf` 0.1 knows neither
//! alignment nor today's types. candle-core's reader is careful with lengths but divides by an alignment of 0,
//! multiplies dimensions unchecked, keeps the last of two like names, does not see overlaps, and comes with a machine
//! learning framework. What is needed is a few hundred lines.

mod blocks;
mod metadata;
mod reader;
mod tensor;

use std::fmt;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use anybit_formats::{FloatFormat, FormatError, MatrixFormat, PackedMatrix, Zeros};
use half::{bf16, f16};

use self::blocks::{Block, BlockLayout, CODES};
use self::metadata::{NameIndex, shorten};
use self::reader::{FieldReader, reserve};
use crate::ImportError;

pub use self::metadata::{Array, FromValue, Metadata, Value, ValueType};
pub use self::tensor::{TensorInfo, TensorType};

const MAGIC: [u8; 4] = *b"GGUF";

/// Alignment of files that name none.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Largest alignment that is read: well beyond any page or sector.
const ALIGNMENT_LIMIT: u64 = 1 << 20;

/// How many bytes of a tensor are read at a time, about: bounds the memory that reading takes besides its result.
const CHUNK_BYTES: usize = 1 << 20;

trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// A GGUF file, its header read and checked.
///
/// Tensors are read on demand, through a lock, so that one `GgufFile` may serve several threads; the work on what was
/// read is done outside the lock.
pub struct GgufFile {
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: NameIndex,
    /// Where the tensor data begins, in bytes from the start of the file.
    data_start: u64,
    source: Mutex<Box<dyn ReadSeek>>,
}

impl fmt::Debug for GgufFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GgufFile")
            .field("version", &self.version)
            .field("alignment", &self.alignment)
            .field("metadata", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

impl GgufFile {
    /// Opens the file at `path` and reads its header. The file stays open for its tensors.
    ///
    /// # Errors
    /// [`ImportError::Open`] if it cannot be opened, and whatever is wrong with the header.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, ImportError> {
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(|source| ImportError::Open {
            path: path.to_owned(),
            source,
        })?;
        Self::from_reader(file)
    }

    /// Reads a file that is in memory: a `Vec<u8>`, an `Arc<[u8]>`, a `&'static [u8]`, a memory map.
    ///
    /// # Errors
    /// Whatever is wrong with the header.
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Result<Self, ImportError> {
        Self::from_reader(Cursor::new(bytes))
    }

    /// Reads a file from anything that can be read and sought; the file begins at its position 0 and takes all of it.
    ///
    /// # Errors
    /// Whatever is wrong with the header.
    pub fn from_reader(mut source: impl Read + Seek + Send + 'static) -> Result<Self, ImportError> {
        let length = source
            .seek(SeekFrom::End(0))
            .and_then(|length| source.rewind().map(|()| length))
            .map_err(|source| ImportError::Read {
                offset: 0,
                length: 0,
                source,
            })?;
        let mut reader = FieldReader::new(&mut source, length);

        let magic = reader.array("the file's first bytes")?;
        if magic != MAGIC {
            return Err(ImportError::NotGguf { found: magic });
        }
        let version = reader.u32("the version")?;
        match version {
            2 | 3 => {}
            // Versions are small: one with an empty low half is one in the other byte order.
            _ if version != 0 && version & 0xFFFF == 0 => {
                return Err(ImportError::BigEndian {
                    version: version.swap_bytes(),
                });
            }
            _ => return Err(ImportError::UnsupportedVersion { version }),
        }
        let tensor_count = reader.u64("the number of tensors")?;
        let metadata_count = reader.u64("the number of metadata entries")?;
        let metadata = Metadata::read(&mut reader, metadata_count)?;
        let alignment = match metadata.optional::<u64>("general.alignment")? {
            None => DEFAULT_ALIGNMENT,
            Some(value) if value.is_power_of_two() && value <= ALIGNMENT_LIMIT => value,
            Some(value) => {
                return Err(ImportError::InvalidAlignment {
                    value,
                    limit: ALIGNMENT_LIMIT,
                });
            }
        };

        reader.check_count(tensor_count, tensor::SMALLEST_TENSOR, "tensors")?;
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(TensorInfo::read(&mut reader)?);
        }
        let index = NameIndex::new(&tensors, TensorInfo::name).map_err(|name| {
            ImportError::DuplicateTensor {
                name: shorten(name),
            }
        })?;

        // Neither can overflow: the header lies within the file, and the alignment is small.
        let data_start = reader.position().next_multiple_of(alignment);
        let available = length.saturating_sub(data_start);
        tensor::check_places(&tensors, alignment, available)?;
        Ok(Self {
            version,
            alignment,
            metadata,
            tensors,
            index,
            data_start,
            source: Mutex::new(Box::new(source)),
        })
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The alignment of the tensors in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.find(&self.tensors, TensorInfo::name, name)
    }

    /// Reads the tensor called `name`: [`rows`](TensorInfo::rows) × [`columns`](TensorInfo::columns), one row if it
    /// has one dimension. The format is [`TensorType::matrix_format`]; codes and scales are exactly those of the file.
    ///
    /// # Errors
    /// [`ImportError::UnknownTensor`], [`ImportError::NotAMatrix`] beyond two dimensions,
    /// [`ImportError::EmptyTensor`], [`ImportError::UnsupportedTensorType`], [`ImportError::NonFiniteScale`],
    /// [`ImportError::Matrix`] where the values make no valid matrix, and errors of reading.
    pub fn matrix(&self, name: &str) -> Result<PackedMatrix, ImportError> {
        let info = self.readable(name)?;
        if !info.is_matrix() {
            return Err(ImportError::NotAMatrix {
                tensor: shorten(name),
                dimensions: info.dimensions().to_vec(),
            });
        }
        let stored = Stored::of(info)?;
        let all = 0..info.rows();
        let (rows, columns) = (
            index(info.rows(), "the rows of a tensor")?,
            index(info.columns(), "the columns of a tensor")?,
        );
        const VALUES: &str = "the values of a tensor";
        match stored {
            Stored::Float(FloatFormat::F32) => {
                let mut values = Vec::new();
                reserve(&mut values, info.elements(), VALUES)?;
                self.visit_rows(info, stored, all, |_, bytes| {
                    values.push(f32_from(bytes));
                    Ok(())
                })?;
                PackedMatrix::from_f32(FloatFormat::F32, rows, columns, &values)
            }
            Stored::Float(format) => {
                let mut values = Vec::new();
                reserve(&mut values, info.elements(), VALUES)?;
                self.visit_rows(info, stored, all, |_, bytes| {
                    values.push(u16_from(bytes));
                    Ok(())
                })?;
                PackedMatrix::from_float_bits16(format, rows, columns, &values)
            }
            Stored::Blocks(layout, format) => {
                let blocks = info.elements() / CODES as u64;
                let (mut codes, mut scales, mut minima) = (Vec::new(), Vec::new(), Vec::new());
                reserve(&mut codes, info.elements(), "the codes of a tensor")?;
                reserve(&mut scales, blocks, "the scales of a tensor")?;
                if layout.has_minimum() {
                    reserve(&mut minima, blocks, "the minima of a tensor")?;
                }
                self.visit_rows(info, stored, all, |place, bytes| {
                    let block = read_block(layout, bytes, info, place)?;
                    codes.extend_from_slice(&block.codes);
                    scales.push(block.scale);
                    if layout.has_minimum() {
                        minima.push(block.minimum);
                    }
                    Ok(())
                })?;
                let zeros = if layout.has_minimum() {
                    Zeros::Minimum(&minima)
                } else {
                    Zeros::None
                };
                PackedMatrix::from_codes(format, rows, columns, &codes, &scales, zeros)
            }
        }
        .map_err(|source| ImportError::Matrix {
            tensor: shorten(name),
            source,
        })
    }

    /// Decodes chosen rows of the tensor called `name`, such as the embeddings of some tokens, without reading the
    /// others: `rows.len()` × [`columns`](TensorInfo::columns) values, row after row, equal bit for bit to those
    /// rows of [`matrix`](Self::matrix) decoded. Rows may repeat and come in any order. Of a tensor with more than two
    /// dimensions, rows count through all dimensions but the first.
    ///
    /// # Errors
    /// [`ImportError::UnknownTensor`], [`ImportError::EmptyTensor`], [`ImportError::UnsupportedTensorType`],
    /// [`ImportError::RowOutOfRange`], [`ImportError::NonFiniteScale`], [`ImportError::Matrix`] where a value is not
    /// finite, and errors of reading.
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
        reserve(&mut values, count, "the rows of a tensor")?;
        for &row in rows {
            let row = row as u64;
            self.visit_rows(info, stored, row..row + 1, |place, bytes| {
                let value = match stored {
                    Stored::Blocks(layout, _) => {
                        let block = read_block(layout, bytes, info, place)?;
                        values.extend_from_slice(&layout.decode(&block));
                        return Ok(());
                    }
                    Stored::Float(FloatFormat::F32) => f32_from(bytes),
                    Stored::Float(FloatFormat::F16) => f16::from_bits(u16_from(bytes)).to_f32(),
                    Stored::Float(FloatFormat::Bf16) => bf16::from_bits(u16_from(bytes)).to_f32(),
                };
                if !value.is_finite() {
                    return Err(ImportError::Matrix {
                        tensor: shorten(name),
                        source: FormatError::NonFinite {
                            row: index(place.row, "the rows of a tensor")?,
                            column: index(place.unit, "the columns of a tensor")?,
                            value,
                        },
                    });
                }
                values.push(value);
                Ok(())
            })?;
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

    /// Reads rows in chunks and shows each unit of storage, an element of floats or a block of codes, to `visit`, with
    /// its place.
    fn visit_rows(
        &self,
        info: &TensorInfo,
        stored: Stored,
        rows: Range<u64>,
        mut visit: impl FnMut(Place, &[u8]) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        // No overflow: the header was refused unless the whole tensor lies within the file.
        let (unit_elements, unit_bytes) = stored.unit();
        let units_in_row = info.columns() / unit_elements;
        let units = (rows.end - rows.start) * units_in_row;
        let start = self.data_start + info.offset() + rows.start * units_in_row * unit_bytes as u64;
        let units_in_chunk = (CHUNK_BYTES / unit_bytes) as u64;

        let mut chunk = Vec::new();
        let mut done = 0;
        while done < units {
            let count = units_in_chunk.min(units - done);
            // Fits: at most `CHUNK_BYTES`.
            chunk.resize(count as usize * unit_bytes, 0);
            self.read_at(start + done * unit_bytes as u64, &mut chunk)?;
            for (unit, bytes) in (done..).zip(chunk.chunks_exact(unit_bytes)) {
                let place = Place {
                    row: rows.start + unit / units_in_row,
                    unit: unit % units_in_row,
                };
                visit(place, bytes)?;
            }
            done += count;
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

/// A unit of storage within a tensor.
#[derive(Clone, Copy)]
struct Place {
    row: u64,
    /// Position within the row, in units.
    unit: u64,
}

/// How a tensor that can be read is stored.
#[derive(Clone, Copy)]
enum Stored {
    Float(FloatFormat),
    Blocks(BlockLayout, MatrixFormat),
}

impl Stored {
    fn of(info: &TensorInfo) -> Result<Self, ImportError> {
        let tensor_type = info.tensor_type();
        let stored = match tensor_type {
            TensorType::F32 => Some(Self::Float(FloatFormat::F32)),
            TensorType::F16 => Some(Self::Float(FloatFormat::F16)),
            TensorType::BF16 => Some(Self::Float(FloatFormat::Bf16)),
            _ => BlockLayout::of(tensor_type)
                .zip(tensor_type.matrix_format())
                .map(|(layout, format)| Self::Blocks(layout, format)),
        };
        stored.ok_or_else(|| ImportError::UnsupportedTensorType {
            tensor: shorten(info.name()),
            tensor_type,
        })
    }

    /// Elements and bytes of a unit of storage.
    fn unit(self) -> (u64, usize) {
        match self {
            Self::Float(FloatFormat::F32) => (1, 4),
            Self::Float(FloatFormat::F16 | FloatFormat::Bf16) => (1, 2),
            Self::Blocks(layout, _) => (CODES as u64, layout.bytes()),
        }
    }
}

fn f32_from(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn u16_from(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn read_block(
    layout: BlockLayout,
    bytes: &[u8],
    info: &TensorInfo,
    place: Place,
) -> Result<Block, ImportError> {
    layout
        .read(bytes)
        .map_err(|(part, value)| ImportError::NonFiniteScale {
            tensor: shorten(info.name()),
            row: place.row,
            block: place.unit,
            part,
            value,
        })
}

fn index(count: u64, what: &'static str) -> Result<usize, ImportError> {
    usize::try_from(count).map_err(|_| ImportError::OutOfMemory { what, bytes: count })
}
