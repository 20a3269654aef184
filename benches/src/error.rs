//! What can go wrong, and what to do about it.

use std::path::PathBuf;

use anybit_formats::FormatError;
use anybit_import::ImportError;
use anybit_reference::ReferenceError;
use anybit_shaders::LinkError;

/// An error of this program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error(transparent)]
    Anybit(#[from] anybit::Error),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("cannot use the model {}", path.display())]
    Model {
        path: PathBuf,
        #[source]
        source: Box<ImportError>,
    },
    #[error(
        "the model {} has no matrix of block 0 that can be read ({} tensors, none named `blk.0.*` of a known type)",
        path.display(),
        tensors
    )]
    NoBlock { path: PathBuf, tensors: usize },
    #[error("the adapter went away while it was chosen; try again")]
    AdapterVanished,
    #[error("no contract matches `{glob}`; there are: {}", contracts.join(", "))]
    NoContract {
        glob: String,
        contracts: Vec<String>,
    },
    #[error(
        "no kernel that can do these problems matches `{glob}`; docs/kernels.md lists kernels, and --explain prints the ids of \
         all that can do a problem"
    )]
    NoKernel { glob: String },
    #[error(
        "no cache folder for the choices: neither the home folder nor its substitutes are set; name a file with --file or \
         ANYBIT_TUNING"
    )]
    NoTuningFile,
    #[error("{failed} of {rows} rows failed; see the table for the reasons")]
    Failed { failed: usize, rows: usize },
    #[error("the probe {name} does not link (a bug of anybit)")]
    Probe {
        name: &'static str,
        #[source]
        source: LinkError,
    },
    #[error("the driver rejected the probe {name}: {message}")]
    ProbeRejected { name: &'static str, message: String },
    #[error("kernel {kernel} does not link (a bug of anybit)")]
    Link {
        kernel: String,
        #[source]
        source: LinkError,
    },
    #[error(
        "there is no kernel `{id}`; {}",
        if known.is_empty() {
            "an id looks like `gemm_i8rf_u4g32hm_f32__dot4_64x64x32`, with the formats of activations, weights and \
             output (docs/kernels.md)".to_owned()
        } else {
            format!("this contract has:\n  {}", known.join("\n  "))
        }
    )]
    Kernel { id: String, known: Vec<String> },
    #[error("kernel {kernel} does not translate (a bug of anybit): {message}")]
    Spirv { kernel: String, message: String },
    #[error("cannot compile for {family}: {message}")]
    Compiler {
        family: &'static str,
        message: String,
    },
    #[error("{reason}")]
    Skipped { reason: String },
    #[error("{} kernels did not compile:\n  {}", failures.len(), failures.join("\n  "))]
    Uncompiled { failures: Vec<String> },
    #[error(
        "machine code differs from docs/isa.json; if that is meant, run `cargo xtask isa --update`:\n  {}",
        differences.join("\n  ")
    )]
    IsaDiffers { differences: Vec<String> },
    #[error("{what}; run `cargo xtask isa --update`")]
    IsaOutOfDate { what: String },
    #[error("the pipe to the report broke: {0}")]
    Pipe(#[from] std::io::Error),
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start {}", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} ended with {status}")]
    Ended {
        program: String,
        status: std::process::ExitStatus,
    },
    #[error("{program} wrote a line that is no result: {line}")]
    Line {
        program: String,
        line: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("no other library could be timed; the reasons stand above")]
    NoPeer,
    #[error("cannot draw {}: {message}", path.display())]
    Chart { path: PathBuf, message: String },
    #[error("{} is out of date; run `cargo xtask docs`", path.display())]
    DocsOutOfDate { path: PathBuf },
}
