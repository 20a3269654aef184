//! What the reference refuses.

use anybit_formats::{FormatError, MatrixFormat};

/// Why a product, a bound or a check was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Both operands need the same number of columns, K.
    #[error(
        "the activations have {activation} columns and the weights {weight}; both must have K of them"
    )]
    Columns {
        /// Columns of the activations.
        activation: usize,
        /// Columns of the weights.
        weight: usize,
    },
    /// The rows of an operand do not make whole batches.
    #[error(
        "{rows} rows do not make {batches} batches of equal size; stack whole batches, or broadcast the operand"
    )]
    Batches {
        /// Rows of the operand.
        rows: usize,
        /// Batches asked for.
        batches: usize,
    },
    /// There are more outputs than can be addressed.
    #[error("{batches} batches of {m}x{n} outputs are too many to address; split the problem")]
    TooLarge {
        /// Batches.
        batches: usize,
        /// Rows of the activations in a batch.
        m: usize,
        /// Rows of the weights in a batch.
        n: usize,
    },
    /// An integer product needs integers behind the codes.
    #[error(
        "the format {format} has no integers behind its codes; integer products need them on both sides"
    )]
    NotCodes {
        /// The format.
        format: MatrixFormat,
    },
    /// Integer engines have no term for a minimum of the activations.
    #[error(
        "activations of the format {format} have minima, which no integer kernel takes; use an integer zero point or none"
    )]
    ActivationMinimum {
        /// The format.
        format: MatrixFormat,
    },
    /// Scales or zero points that change along K ask for grouped accumulation and a float output.
    #[error(
        "the format {format} is scaled in groups along K, so integers cannot be added over all of K; accumulate by groups, with a float output"
    )]
    Grouped {
        /// The format.
        format: MatrixFormat,
    },
    /// A header constant has a value that the kernel does not take.
    #[error("{what} is {found}; it must be {expected}")]
    Constant {
        /// The constant.
        what: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What was given.
        found: usize,
    },
    /// The quantising kernels do not make the format.
    #[error("the row quantisers do not serve {format}: {reason}")]
    Quantizer {
        /// The format asked for.
        format: MatrixFormat,
        /// What it asks for that they have not.
        reason: &'static str,
    },
    /// A slice has the wrong length.
    #[error("expected {expected} {what}, found {found}")]
    Length {
        /// What the slice holds.
        what: &'static str,
        /// The length the shape asks for.
        expected: usize,
        /// The length given.
        found: usize,
    },
    /// The formats crate refused a matrix.
    #[error(transparent)]
    Format(#[from] FormatError),
}
