//! Model files into anybit matrices.
//!
//! Model files come from strangers, so every byte read here is untrusted: this crate alone handles them. It
//! turns what a file holds into [`PackedMatrix`](anybit_formats::PackedMatrix), without loss, or says in an
//! [`ImportError`] what is wrong with the file. It does no GPU work.
//!
//! [`gguf`] reads GGUF, the file format of llama.cpp:
//!
//! ```no_run
//! use anybit_import::gguf::GgufFile;
//!
//! # fn main() -> Result<(), anybit_import::ImportError> {
//! let file = GgufFile::open("model.gguf")?;
//! let blocks = file.metadata().get_u32("llama.block_count")?;
//! let weights = file.matrix("blk.0.attn_q.weight")?;
//! println!("{blocks} blocks; queries are {} x {}", weights.rows(), weights.columns());
//!
//! // For types that no packed matrix keeps, or if you want a format of your own:
//! let format = "i4g32h".parse().expect("a format");
//! let converted = file.matrix_as("blk.0.ffn_down.weight", format, None)?;
//! if let Some(stored) = converted.requantised_from {
//!     println!("quantised anew from {stored}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`safetensors`] reads safetensors: floats, the layouts of GPTQ, AWQ, bitsandbytes, compressed-tensors and FP8 models,
//! and the files of packed matrices that it also writes. [`ModelFile`] opens a file of either kind:
//!
//! ```no_run
//! use anybit_formats::QuantizeOptions;
//! use anybit_import::ModelFile;
//! use anybit_import::safetensors::PackedFileWriter;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = ModelFile::open("model.safetensors")?;
//! let mut packed = PackedFileWriter::create("packed.safetensors")?;
//! for weight in model.weights() {
//!     if weight.is_matrix() {
//!         let converted = model.matrix_as(&weight.name, "u4g32hm".parse()?, &QuantizeOptions::default())?;
//!         packed.matrix(&weight.name, &converted.matrix)?;
//!     } else {
//!         let tensor = model.plain(&weight.name)?;
//!         packed.tensor(&weight.name, tensor.dtype, &tensor.shape, &tensor.bytes)?;
//!     }
//! }
//! packed.finish()?;
//! # Ok(())
//! # }
//! ```
//!
//! [`npy`] reads and writes NumPy's arrays.

#![warn(missing_docs)]

mod convert;
mod error;
pub mod gguf;
#[cfg(not(target_arch = "wasm32"))]
mod model;
pub mod npy;
mod parallel;
pub mod safetensors;

pub use convert::ConvertedMatrix;
pub use error::{ImportError, JsonError, SaveError, ScalePart};
#[cfg(not(target_arch = "wasm32"))]
pub use model::{ModelFile, ModelWeight, PlainTensor};
