//! What can go wrong with a model, and what to do about it.

use anybit_import::ImportError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is damaged, or a tensor cannot be read.
    #[error(transparent)]
    Import(Box<ImportError>),
    /// The device, or a plan on it.
    #[error(transparent)]
    Gpu(Box<anybit::Error>),
    /// An architecture that is not known here.
    #[error("the model's architecture is {found:?}; known are {}", known.join(", "))]
    Architecture {
        /// What the file says; empty if it says nothing.
        found: String,
        /// Architectures that can be run.
        known: Vec<&'static str>,
    },
    /// The metadata lack a value, or it is of no use.
    #[error("the model's metadata: {key}: {problem}")]
    Metadata {
        /// The key.
        key: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// The model lacks a tensor.
    #[error(
        "the model has no tensor {name}, which its architecture needs ({} x {} values)", shape.0, shape.1
    )]
    MissingTensor {
        /// The tensor's name.
        name: String,
        /// Rows and columns that it should have.
        shape: (usize, usize),
    },
    /// A tensor does not have the shape that the metadata ask for.
    #[error(
        "the tensor {name} has the dimensions {actual:?} (outermost first); the metadata make it {} x {}",
        expected.0, expected.1
    )]
    TensorShape {
        /// The tensor's name.
        name: String,
        /// Rows and columns by the metadata.
        expected: (usize, usize),
        /// Its dimensions, outermost first.
        actual: Vec<u64>,
    },
    /// A format that the activations cannot have.
    #[error("activations of the format {format}: {reason}")]
    ActivationFormat {
        /// The format.
        format: String,
        /// Why not, and what can be taken.
        reason: String,
    },
    /// The tokens do not fit the context.
    #[error(
        "{needed} tokens do not fit the context of {limit}; shorten the text or ask for fewer new tokens"
    )]
    Context {
        /// Tokens that were to be held.
        needed: usize,
        /// Tokens that there is room for.
        limit: usize,
    },
    /// Work that was told to stop: see [`Session::stop_with`](crate::Session::stop_with).
    #[error("stopped after {done} tokens of the text")]
    Stopped {
        /// Tokens of the text that are worked on, which the session holds.
        done: usize,
    },
    /// A token that the model does not know.
    #[error("token {id} is not in the vocabulary of {vocabulary}")]
    Token {
        /// The token.
        id: u32,
        /// Tokens of the vocabulary.
        vocabulary: usize,
    },
    /// Too few tokens to work on.
    #[error("{what}: {actual} tokens are too few, {least} are needed")]
    TooFewTokens {
        /// What they are for.
        what: &'static str,
        /// Tokens needed.
        least: usize,
        /// Tokens there.
        actual: usize,
    },
    /// A bug of anybit. Please report it.
    #[error("a bug of anybit, please report it: {what}")]
    Internal {
        /// What should not have been.
        what: &'static str,
    },
    /// The model does not fit the device.
    #[error(
        "{what} takes {needed} bytes on the device, which has {available} for it; choose a narrower format, a shorter context or another adapter"
    )]
    DeviceTooSmall {
        /// What does not fit.
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
}

impl From<ImportError> for Error {
    fn from(error: ImportError) -> Self {
        Self::Import(Box::new(error))
    }
}

impl From<anybit::Error> for Error {
    fn from(error: anybit::Error) -> Self {
        match error {
            anybit::Error::BindingTooLarge { what, bytes, limit } => Self::DeviceTooSmall {
                what,
                needed: bytes,
                available: limit,
            },
            other => Self::Gpu(Box::new(other)),
        }
    }
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
