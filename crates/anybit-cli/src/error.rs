//! What can go wrong, as the command prints it.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use anybit::formats::FormatError;
use anybit::{Engine, KERNELS, Reason, Refusal};
use anybit_import::npy::NpyError;
use anybit_import::{ImportError, SaveError};

/// An error that ends the command with the exit code 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot print: {0}")]
    Print(io::Error),
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: expected the name of a file in a folder that exists", path = path.display())]
    OutputPath { path: PathBuf },
    #[error("{path}: {source}", path = path.display())]
    Npy { path: PathBuf, source: NpyError },
    #[error("{path}: {source}", path = path.display())]
    Import {
        path: PathBuf,
        source: Box<ImportError>,
    },
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error("tensor {tensor:?}: {source}")]
    Tensor { tensor: String, source: FormatError },
    #[error("{what}: {source}")]
    Operand {
        what: &'static str,
        source: FormatError,
    },
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Gpu(#[from] anybit::Error),
    #[error(transparent)]
    Reference(#[from] anybit_reference::ReferenceError),
    #[error("{}", refused(contract, adapter, refusals, wanted, able))]
    NoKernel {
        contract: String,
        adapter: String,
        refusals: Vec<Refusal>,
        /// The engine asked for.
        wanted: Option<Engine>,
        /// Engines that could do it if they were asked for.
        able: Vec<Engine>,
    },
    #[error(
        "the activations are {activations:?} and the weights {weights:?}; expected M x K and N x K with the same K, found K = {k_activations} and K = {k_weights}",
        k_activations = activations.1,
        k_weights = weights.1
    )]
    Columns {
        activations: (usize, usize),
        weights: (usize, usize),
    },
    #[error("codebook {path}: {problem}", path = path.display())]
    Codebook { path: PathBuf, problem: String },
    #[error("{path}: {source}", path = path.display())]
    Model {
        path: PathBuf,
        source: Box<anybit_llm::Error>,
    },
    #[error("{path}: {source}", path = path.display())]
    Tokenizer {
        path: PathBuf,
        source: Box<anybit_llm::TokenizerError>,
    },
    #[error("{path}: {source}", path = path.display())]
    Chat {
        path: PathBuf,
        source: Box<anybit_llm::ChatError>,
    },
    #[error(
        "{path}: expected a GGUF file, which carries its vocabulary; packed and safetensors models have none",
        path = path.display()
    )]
    NotGguf { path: PathBuf },
    #[error(
        "{path}: the vocabulary has {pieces} tokens, but token_embd.weight has {rows} rows; expected as many: convert the model to GGUF again",
        path = path.display()
    )]
    Vocabulary {
        path: PathBuf,
        pieces: usize,
        rows: usize,
    },
    #[error(
        "the prompt has {tokens} tokens, and the model's context is {context}; shorten the prompt"
    )]
    PromptTooLong { tokens: usize, context: usize },
    #[error("the prompt is empty; expected a text to go on from")]
    EmptyPrompt,
    #[error("the chart cannot be drawn: {0}")]
    Chart(String),
    #[error("none of the {0} pairs of formats could be run")]
    NothingRan(usize),
    #[error("interrupted; nothing was written")]
    Interrupted,
    #[error("interrupted")]
    Stopped,
    #[error("{0}")]
    Usage(String),
}

impl Error {
    pub(crate) fn npy(path: &Path, source: NpyError) -> Self {
        let path = path.to_owned();
        match source {
            NpyError::Open { source, .. } => Self::Read { path, source },
            source => Self::Npy { path, source },
        }
    }

    pub(crate) fn import(path: &Path, source: ImportError) -> Self {
        Self::Import {
            path: path.to_owned(),
            source: Box::new(source),
        }
    }

    pub(crate) fn model(path: &Path, source: anybit_llm::Error) -> Self {
        Self::Model {
            path: path.to_owned(),
            source: Box::new(source),
        }
    }

    pub(crate) fn tokenizer(path: &Path, source: anybit_llm::TokenizerError) -> Self {
        Self::Tokenizer {
            path: path.to_owned(),
            source: Box::new(source),
        }
    }
}

/// The error and its causes, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            let _ = write!(text, ": {message}");
        }
        cause = error.source();
    }
    text
}

/// The same where the model's file is known anyhow.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::Model { source, .. } => chain(source),
        Error::Tokenizer { source, .. } => chain(source),
        other => chain(other),
    }
}

/// Which engine a refused kernel belongs to.
fn engine_of(refusal: &Refusal) -> Option<Engine> {
    KERNELS
        .iter()
        .find(|row| refusal.stem == row.stem)
        .map(|row| row.engine)
}

/// One line an engine, with its reasons.
fn refused(
    contract: &str,
    adapter: &str,
    refusals: &[Refusal],
    wanted: &Option<Engine>,
    able: &[Engine],
) -> String {
    let mut text = format!("no kernel for {contract} on {adapter}; engines tried:");
    for engine in Engine::ALL {
        let of_engine = refusals
            .iter()
            .filter(|refusal| engine_of(refusal) == Some(engine));
        let mut reasons: Vec<String> = Vec::new();
        for refusal in of_engine {
            let reason = match (&refusal.reason, wanted) {
                (Reason::Options, Some(wanted)) if *wanted != engine => {
                    format!("ruled out by --engine {wanted}")
                }
                (reason, _) => reason.to_string(),
            };
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        if !reasons.is_empty() {
            let _ = write!(text, "\n  {engine}: {}", reasons.join("; "));
        }
    }
    if !able.is_empty() {
        let able: Vec<&str> = able.iter().map(|engine| engine.name()).collect();
        let _ = write!(text, "\nwithout --engine, or with it: {}", able.join(", "));
    }
    text
}
