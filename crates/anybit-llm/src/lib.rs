//! Decoder-only language models on any GPU, at any precision, on [`anybit`].
//!
//! A model comes from a GGUF file, its weights as they are stored or in another format; activations are f32 or quantised for each
//! token; keys and values are kept in f32, f16 or 2 to 8 bits. Everything between the ids of a prompt and the id of the next
//! token happens on the device.
//!
//! 1. [`Model::load`] puts a model on the device of a [`Context`](anybit::Context);
//! 2. a [`Session`] holds a text: [`Session::generate`] draws tokens after a prompt, [`Session::cross_entropies`] and
//!    [`perplexity()`] judge a text, [`Session::logits`] gives the logits themselves.
//!
//! Architectures are rows of [`ARCHITECTURES`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod chat;
mod config;
mod error;
mod estimate;
mod linear;
mod model;
mod perplexity;
mod precision;
mod session;
mod step;
pub mod tokenizer;
mod weights;

pub use chat::{ChatError, ChatTemplate, Message};
pub use config::{ARCHITECTURES, Architecture, LocalLayers, ModelConfig};
pub use error::{Error, Result};
pub use estimate::WeightEstimate;
pub use model::{LoadOptions, Model};
pub use perplexity::{Perplexity, perplexity, perplexity_with_logits};
pub use precision::Precision;
pub use session::{GenerateStats, MemoryUse, Session};
pub use tokenizer::{DecodeStream, PieceKind, Specials, Tokenizer, TokenizerError};
pub use weights::Progress;
