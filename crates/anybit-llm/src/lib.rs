//! Decoder-only language models on any GPU, at any precision, on [`anybit`].
#![forbid(unsafe_code)]

pub mod chat;
pub mod tokenizer;

pub use chat::{ChatError, ChatTemplate, Message};
pub use tokenizer::{DecodeStream, PieceKind, Specials, Tokenizer, TokenizerError};
