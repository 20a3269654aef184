//! Safetensors: models of floats, quantised models in the layouts of the usual quantisers, and files of packed
//! matrices.
//!
//! [`SafetensorsFile`] reads the header of a file — or of all files of a model — and checks all of it; tensors are read
//! when they are asked for. A quantised weight is several tensors there: codes, scales, zero points. They are taken
//! together as one weight, under the name that the weight had before (`model.layers.0.mlp.up_proj.weight`, where the
//! file has `….qweight`, `….qzeros` and `….scales`), and [`matrix`](SafetensorsFile::matrix) gives it as a
//! [`PackedMatrix`](anybit_formats::PackedMatrix) of N output channels × K inputs, every code and every scale as it
//! was.
//!
//! | layout | matrix format | source of the definition |
//! |---|---|---|
//! | F32, F16, BF16 | `f32`, `f16`, `bf16` | |
//! | F8_E4M3, F8_E5M2 with `_scale` or `_scale_inv`: one, per row, per group, per block | `e4m3f`, `e4m3rf`, `e4m3g128f` | DeepSeek-V3, compressed-tensors `float-quantized`, `mxfp8-quantized` |
//! | F8_E4M3, F8_E5M2 alone | `e4m3`, `e5m2` | |
//! | GPTQ of 2, 3, 4 and 8 bits, `gptq` and `gptq_v2` | `u4g128hz` | AutoGPTQ, GPTQModel |
//! | AWQ of 4 bits, `gemm` | `u4g128hz` | AutoAWQ |
//! | NF4 and FP4 of bitsandbytes, with and without double quantisation | `nf4g64f`, `fp4bnbg64f` | bitsandbytes |
//! | `pack-quantized` of 1 to 8 bits | `i4g128f`, `u4g128fz` | compressed-tensors |
//! | `int-quantized` | `i8rf`, `u8rfz` | compressed-tensors |
//! | `nvfp4-pack-quantized`, `mxfp4-pack-quantized` | `e2m1g16k`, `e2m1g32e` | compressed-tensors |
//! | NVFP4 with `weight_scale_2` | `e2m1g16k` | ModelOpt |
//! | packed matrices of anybit | all | [`PackedFileWriter`] |
//!
//! The group sizes and scale types are those of the file: f16 scales stay f16 (`h`), f32 and bfloat16 become f32 (`f`),
//! which holds them exactly.
//!
//! [`values`](SafetensorsFile::values) decodes a weight of any of these layouts to f32: `scale · (q − zero)`, where the
//! quantisers' own code goes on to round to the type of the model. Where a weight has a matrix format, the values equal
//! the matrix decoded, bit for bit. [`matrix_as`](SafetensorsFile::matrix_as) quantises them anew to a format of your
//! choice, and says that it did.
//!
//! # What is where
//!
//! - GPTQ stores zero points less one, `gptq_v2` as they are; `checkpoint_format` in the configuration tells. A stored
//!   15 means 16, as AutoGPTQ computes it, not 0. Of 8 bits, 256 is possible, which no matrix keeps.
//! - GPTQ with `desc_act` lists the group of each column in `g_idx`. Then [`matrix`](SafetensorsFile::matrix) refuses,
//!   and [`permuted_matrix`](SafetensorsFile::permuted_matrix) gives the matrix with its columns sorted by group, and
//!   the order in which activations are to be gathered.
//! - The blocks of bitsandbytes and of FP8 weights need not end where rows do. Where a common divisor of block and row
//!   is a group that matrices have, scales are repeated for it; else the weight has values alone.
//! - Doubly quantised scales of bitsandbytes become f32 as bitsandbytes computes them: table entry times its scale,
//!   rounded to f32, plus the offset, rounded again.
//! - compressed-tensors divides the scales of NVFP4 by `weight_global_scale`; here they are multiplied by its reciprocal,
//!   rounded to f32. The two may differ in the last bit of f32.
//!
//! # Files of packed matrices
//!
//! The metadata has `anybit.version` and, for each matrix, `anybit.matrix.NAME` with its format and shape. A matrix of
//! floats is the tensor NAME. One of codes is these tensors, of which it has those that its format has:
//!
//! | tensor | type | shape |
//! |---|---|---|
//! | `NAME.codes.0`, `NAME.codes.1`, … | U32 | rows × words a row: the pieces of the codes, low bits first |
//! | `NAME.codes.ternary5` | U8 | rows × ⌈columns / 5⌉: ternary codes, five a byte, instead of pieces |
//! | `NAME.scales` | that of the scales | 1, or rows × groups |
//! | `NAME.second_scales` | F32 or F16 | 1, or rows × entries a row |
//! | `NAME.zero_points`, `NAME.choices` | U8 | as the scales |
//! | `NAME.minima` | that of the scales | as the scales |
//! | `NAME.second_minima` | F16 | as the second scales |
//!
//! 8-bit scales are F8_E4M3, exponents in U8 or integers in I8. The table of a user's codebook is the F32 tensor
//! `anybit.codebook.NAME`. Tensors `anybit.padding.N` keep the others aligned and mean nothing.
//!
//! # Files from strangers
//!
//! As of GGUF files ([`gguf`](crate::gguf)): nothing makes this module panic, loop for long or take memory beyond a
//! small multiple of the files' own length. Opening a file takes at most 32 times the length of its header, where it
//! consists of the shortest entries there can be, and a matrix 14 times the length of its tensors, 40 times it for values
//! of 1-bit codes. An index and a configuration take their own length, and at most 16 MiB beyond it. A file is refused
//! when its header is no such JSON, names occur twice, a tensor's place has another length than its shape, tensors
//! overlap, or bytes belong to none. The index of a model in several files may only name files beside it.
//!
//! # Why a parser of our own
//!
//! The `safetensors` crate (0.8 was read) checks lengths, places and overflows well, but it accepts two entries of the
//! same name and keeps one of them, and it takes the whole file in memory, not a reader. The header is JSON, which
//! `serde_json` parses; the checks beyond it are what is added here.

mod bitsandbytes;
mod compressed;
mod config;
mod float8;
mod gptq;
mod header;
#[cfg(not(target_arch = "wasm32"))]
mod index;
mod packed;
mod plain;
mod read;
mod recognise;
mod weight;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::io::{Cursor, Read, Seek};
use std::sync::Mutex;

use self::header::Header;
use crate::ImportError;
#[cfg(not(target_arch = "wasm32"))]
use crate::gguf::reserve;
use crate::gguf::{NameIndex, ReadSeek, shorten};

pub use self::config::QuantizationConfig;
pub use self::header::{Dtype, TensorInfo};
pub use self::read::PermutedMatrix;
pub use self::recognise::{WeightInfo, WeightLayout};
#[cfg(not(target_arch = "wasm32"))]
pub use self::write::PackedFileWriter;
pub use self::write::PackedWriter;

/// The longest index that is read: that of a model of 91 000 tensors has 9 MB.
#[cfg(not(target_arch = "wasm32"))]
const INDEX_LIMIT: u64 = 1 << 26;

/// Most files of a model. Models of a terabyte have some hundred.
#[cfg(not(target_arch = "wasm32"))]
const FILES_LIMIT: usize = 1 << 14;

/// Bytes of a file's name: the most that file systems have.
#[cfg(not(target_arch = "wasm32"))]
const FILE_NAME_LIMIT: usize = 255;

/// A safetensors model: one file or several, their headers read and checked.
///
/// Tensors are read on demand, through a lock for each file, so that one `SafetensorsFile` may serve several threads;
/// the work on what was read is done outside the lock.
pub struct SafetensorsFile {
    files: Vec<DataFile>,
    metadata: Vec<(String, String)>,
    tensors: Vec<TensorInfo>,
    index: NameIndex,
    config: QuantizationConfig,
    weights: Vec<WeightInfo>,
    weight_index: NameIndex,
}

struct DataFile {
    source: Mutex<Box<dyn ReadSeek>>,
    /// Where the tensor data begins, in bytes from the start of the file.
    data_start: u64,
}

impl fmt::Debug for SafetensorsFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SafetensorsFile")
            .field("files", &self.files.len())
            .field("metadata", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .field("weights", &self.weights.len())
            .finish_non_exhaustive()
    }
}

impl SafetensorsFile {
    /// Opens a model: a `.safetensors` file, the index of a model in several files (`model.safetensors.index.json`), or
    /// a directory with one of them. A `quantize_config.json` or `config.json` beside it is read for its
    /// [`QuantizationConfig`]. The files stay open for their tensors.
    ///
    /// # Errors
    /// [`ImportError::Open`] if a file cannot be opened, [`ImportError::NoModelInDirectory`], and whatever is wrong with
    /// the index, the configuration or a header.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, ImportError> {
        let path = path.as_ref();
        let chosen;
        let path = if path.is_dir() {
            chosen = model_in(path)?;
            &chosen
        } else {
            path
        };
        let directory = path.parent().unwrap_or(std::path::Path::new(""));
        let is_index = path
            .extension()
            .is_some_and(|extension| extension == "json");
        let mut parts = Parts::default();
        if is_index {
            let index = Index::read(path)?;
            for file in &index.files {
                parts.add(open_file(&directory.join(file))?)?;
            }
            let parts = parts.finish()?;
            index.check(&parts)?;
            return parts.with_config_of(directory);
        }
        parts.add(open_file(path)?)?;
        parts.finish()?.with_config_of(directory)
    }

    /// Reads a model of one file that is in memory: a `Vec<u8>`, an `Arc<[u8]>`, a `&'static [u8]`, a memory map.
    ///
    /// # Errors
    /// Whatever is wrong with the header.
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Result<Self, ImportError> {
        Self::from_reader(Cursor::new(bytes))
    }

    /// Reads a model of one file from anything that can be read and sought; the file begins at its position 0 and takes
    /// all of it.
    ///
    /// # Errors
    /// Whatever is wrong with the header.
    pub fn from_reader(source: impl Read + Seek + Send + 'static) -> Result<Self, ImportError> {
        let mut parts = Parts::default();
        parts.add(source)?;
        parts.finish()
    }

    /// The same model with a configuration, for layouts that their tensors alone do not tell. [`open`](Self::open)
    /// reads the one beside the model.
    ///
    /// # Errors
    /// [`ImportError::PackedFormat`] and others for damaged descriptions of packed matrices, as on opening.
    pub fn with_config(mut self, config: QuantizationConfig) -> Result<Self, ImportError> {
        self.config = config;
        self.recognise()
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn with_config_of(self, directory: &std::path::Path) -> Result<Self, ImportError> {
        for name in ["quantize_config.json", "config.json"] {
            let path = directory.join(name);
            if path.is_file() {
                let text = read_json(&path, "the configuration", config::CONFIG_LIMIT)?;
                let config = QuantizationConfig::from_json(&text)?;
                if config != QuantizationConfig::default() {
                    return self.with_config(config);
                }
            }
        }
        Ok(self)
    }

    /// The configuration that weights are read by.
    pub fn config(&self) -> &QuantizationConfig {
        &self.config
    }

    /// The metadata, in the order of the files. Keys that begin with `anybit.` describe packed matrices.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// All tensors as they are stored, in the order of the files.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.find(&self.tensors, TensorInfo::name, name)
    }

    /// All weights: tensors that stand for themselves, and those that are stored as several tensors, once each, in the
    /// order of the files.
    pub fn weights(&self) -> &[WeightInfo] {
        &self.weights
    }

    /// The weight called `name`.
    pub fn weight(&self, name: &str) -> Option<&WeightInfo> {
        self.weight_index
            .find(&self.weights, WeightInfo::name, name)
    }

    /// Whether the file was written by [`PackedFileWriter`]: its matrices are as their user wants them.
    pub fn is_packed(&self) -> bool {
        self.metadata
            .iter()
            .any(|(key, _)| key == packed::VERSION_KEY)
    }
}

/// The files of a model as they are opened.
#[derive(Default)]
struct Parts {
    files: Vec<DataFile>,
    metadata: Vec<(String, String)>,
    tensors: Vec<TensorInfo>,
}

impl Parts {
    fn add(&mut self, mut source: impl Read + Seek + Send + 'static) -> Result<(), ImportError> {
        let header = Header::read(&mut source, self.files.len())?;
        self.files.push(DataFile {
            source: Mutex::new(Box::new(source)),
            data_start: header.data_start,
        });
        // Every file of a model says the same of its format and version.
        let known: BTreeSet<_> = self.metadata.iter().collect();
        let new: Vec<_> = header
            .metadata
            .into_iter()
            .filter(|entry| !known.contains(entry))
            .collect();
        self.metadata.extend(new);
        self.tensors.extend(header.tensors);
        Ok(())
    }

    fn finish(self) -> Result<SafetensorsFile, ImportError> {
        let index = NameIndex::new(&self.tensors, TensorInfo::name).map_err(|name| {
            ImportError::DuplicateTensor {
                name: shorten(name),
            }
        })?;
        let file = SafetensorsFile {
            files: self.files,
            metadata: self.metadata,
            tensors: self.tensors,
            index,
            config: QuantizationConfig::default(),
            weights: Vec::new(),
            weight_index: NameIndex::default(),
        };
        file.recognise()
    }
}

impl SafetensorsFile {
    /// Finds the weights among the tensors.
    fn recognise(mut self) -> Result<Self, ImportError> {
        self.weights = recognise::weights(&self)?;
        self.weight_index = NameIndex::new(&self.weights, WeightInfo::name).map_err(|name| {
            ImportError::DuplicateTensor {
                name: shorten(name),
            }
        })?;
        Ok(self)
    }
}

/// The index of a model in several files: which tensor is in which.
#[cfg(not(target_arch = "wasm32"))]
struct Index {
    /// Its text, which is read twice: a list of all entries would take many times as much.
    text: Vec<u8>,
    /// The names of the files, once each.
    files: BTreeSet<String>,
}

#[cfg(not(target_arch = "wasm32"))]
impl Index {
    fn read(path: &std::path::Path) -> Result<Self, ImportError> {
        let text = read_json(path, index::WHAT, INDEX_LIMIT)?;
        let mut files = BTreeSet::new();
        index::each(&text, |_, file| {
            if files.contains(file) {
                return Ok(());
            }
            if file.len() > FILE_NAME_LIMIT {
                return Err(ImportError::TooLong {
                    what: "a file's name in the index",
                    length: file.len() as u64,
                    limit: FILE_NAME_LIMIT as u64,
                });
            }
            let mut components = std::path::Path::new(file).components();
            let simple = matches!(
                (components.next(), components.next()),
                (Some(std::path::Component::Normal(name)), None) if name == file
            );
            if !simple || file.contains('\\') {
                return Err(ImportError::FileOutsideDirectory {
                    file: shorten(file),
                });
            }
            if files.len() == FILES_LIMIT {
                return Err(ImportError::TooManyFiles { limit: FILES_LIMIT });
            }
            files.insert(file.to_owned());
            Ok(())
        })?;
        Ok(Self { text, files })
    }

    /// Checks that the tensors are where the index says.
    fn check(&self, model: &SafetensorsFile) -> Result<(), ImportError> {
        let files: Vec<&str> = self.files.iter().map(String::as_str).collect();
        index::each(&self.text, |tensor, file| {
            let found = model.tensor(tensor).and_then(|info| files.get(info.file()));
            match found {
                Some(found) if *found == file => Ok(()),
                _ => Err(ImportError::NotInFile {
                    tensor: shorten(tensor),
                    file: shorten(file),
                }),
            }
        })
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn open_file(path: &std::path::Path) -> Result<std::fs::File, ImportError> {
    std::fs::File::open(path).map_err(|source| ImportError::Open {
        path: path.to_owned(),
        source,
    })
}

/// A text beside a model, of `limit` bytes at most.
#[cfg(not(target_arch = "wasm32"))]
fn read_json(
    path: &std::path::Path,
    what: &'static str,
    limit: u64,
) -> Result<Vec<u8>, ImportError> {
    let file = open_file(path)?;
    let failed = |source| ImportError::Read {
        offset: 0,
        length: 0,
        source,
    };
    let too_long = |length| ImportError::TooLong {
        what,
        length,
        limit,
    };
    let length = file.metadata().map_err(failed)?.len();
    if length > limit {
        return Err(too_long(length));
    }
    let mut text = Vec::new();
    reserve(&mut text, length, what)?;
    let length = file
        .take(limit + 1)
        .read_to_end(&mut text)
        .map_err(failed)? as u64;
    if length > limit {
        return Err(too_long(length));
    }
    Ok(text)
}

/// The file of a directory that is its model.
#[cfg(not(target_arch = "wasm32"))]
fn model_in(directory: &std::path::Path) -> Result<std::path::PathBuf, ImportError> {
    for name in ["model.safetensors.index.json", "model.safetensors"] {
        let path = directory.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let failed = |source| ImportError::Open {
        path: directory.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            found.push(path);
        }
    }
    let count = found.len();
    match <[std::path::PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(_) => Err(ImportError::NoModelInDirectory {
            path: directory.to_owned(),
            count,
        }),
    }
}
