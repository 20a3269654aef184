//! GGUF, the model files of llama.cpp: versions 2 and 3, little-endian.
//!
//! [`GgufFile`] reads the header of a file — metadata and the list of tensors — and checks all of it; tensors are read
//! when they are asked for. Quantised tensors are taken apart without loss: ggml's blocks become the separate streams
//! of a [`PackedMatrix`](anybit_formats::PackedMatrix), every code and every scale as it was, and the matrix decodes to
//! the same f32 values as ggml's, bit for bit.
//!
//! | type in the file | matrix format | bits an element |
//! |---|---|---|
//! | F32, F16, BF16 | `f32`, `f16`, `bf16` | 32, 16, 16 |
//! | Q4_0, Q5_0, Q8_0 | `i4g32h`, `i5g32h`, `i8g32h` | 4.5, 5.5, 8.5 |
//! | Q4_1, Q5_1 | `u4g32hm`, `u5g32hm` | 5, 6 |
//! | Q2_K | `u2g16sm` | 2.625 |
//! | Q4_K, Q5_K | `u4g32sm`, `u5g32sm` | 4.5, 5.5 |
//! | Q3_K, Q6_K | `i3g16s`, `i6g16s` | 3.4375, 6.5625 |
//! | Q8_K | `i8g256f` | 9.125 |
//! | Q1_0 | `b1g128h` | 1.125 |
//! | TQ1_0, TQ2_0 | `tg256h` | 1.6875, 2.0625 |
//! | MXFP4 | `e2m1g32e` | 4.25 |
//! | NVFP4 | `e2m1g16k` | 4.5 |
//! | IQ4_NL | `iq4nlg32h` | 4.5 |
//! | IQ4_XS | `iq4nlg32s` | 4.25 |
//! | IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S | none: values alone | 1.5625 to 3.4375 |
//!
//! The bits are counted in the file.
//!
//! The IQ1, IQ2 and IQ3 types store neighbouring elements together, as points of a grid, which no packed matrix can
//! keep. [`GgufFile::values`] decodes them, and every other type, exactly; [`GgufFile::matrix_as`] quantises the values
//! anew to a format of your choice, and says that it did. Tensors of yet other types are listed and refused on reading.
//!
//! GGUF lists dimensions fastest first, so a weight matrix of N output channels × K inputs has the dimensions `[K, N]`,
//! K = [`TensorInfo::columns`] and N = [`TensorInfo::rows`].
//!
//! # Where ggml and a format disagree
//!
//! - E2M1 has a −0 and quantisers write it, but ggml decodes it as 0. It becomes the code of 0 here, so that decoded
//!   zeros have ggml's sign.
//! - The scales of MXFP4 and NVFP4 have bytes that stand for NaN, and those of NVFP4 bytes for negative numbers, to
//!   which ggml gives some value. Here they are errors, and so is the code of TQ2_0 that is not ternary.
//!
//! # Files from strangers
//!
//! No file makes this module panic, loop for long or take memory beyond a multiple of the file's own length: lengths
//! and counts are checked against what is left of the file before anything is reserved for them. Opening a file takes at
//! most 16 times the length of its header, where that consists of the shortest entries there can be. A matrix takes at
//! most 10 times the length of its tensor, but for float tensors with rows shorter than 32 elements, which it pads to 32;
//! values take 4 bytes each, 29 times the tensor's length where that is Q1_0. A file is refused when its strings are not UTF-8, keys or tensor names occur twice, arrays nest
//! too deep, dimensions overflow or are no multiple of the type's block, or tensors are misaligned, overlap or reach
//! past the end. A value, scale or minimum that is infinite or not a number is an error when its tensor is read, and so
//! is a code or scale that its type does not have; the error names the place. Tensors may come in any order, with gaps
//! between them.
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

mod block;
mod metadata;
mod parallel;
mod read;
mod reader;
mod tensor;

use std::fmt;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::Mutex;

pub(crate) use self::metadata::{NameIndex, shorten};
use self::reader::FieldReader;
pub(crate) use self::reader::reserve;
use crate::ImportError;

pub use self::metadata::{Array, FromValue, Metadata, Value, ValueType};
pub(crate) use self::tensor::readable_types;
pub use self::tensor::{TensorInfo, TensorType};

/// What [`GgufFile::matrix_as`] gives.
pub type ConvertedMatrix = crate::ConvertedMatrix<TensorType>;

const MAGIC: [u8; 4] = *b"GGUF";

/// Alignment of files that name none.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Largest alignment that is read: well beyond any page or sector.
const ALIGNMENT_LIMIT: u64 = 1 << 20;

/// What a model file is read from.
pub(crate) trait ReadSeek: Read + Seek + Send {}
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
}
