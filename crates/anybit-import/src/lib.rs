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

#![warn(missing_docs)]

mod convert;
mod error;
pub mod gguf;
#[cfg(not(target_arch = "wasm32"))]
mod model;
pub mod safetensors;

pub use convert::ConvertedMatrix;
pub use error::{ImportError, SaveError, ScalePart};
#[cfg(not(target_arch = "wasm32"))]
pub use model::{ModelFile, ModelWeight, PlainTensor};
