//! Decoder-only language models on any GPU, at any precision, on [`anybit`].
#![forbid(unsafe_code)]
