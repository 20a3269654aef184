//! The command line. `cargo xtask` forwards these flags as they are.

use std::path::PathBuf;

use anybit::wgpu::Backends;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::problem::Shape;

/// Benchmarks of anybit, and what needs a GPU or its kernel table besides.
#[derive(Debug, Parser)]
#[command(name = "anybit-benches", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Check every kernel's result against the CPU, then time it
    Bench(BenchArguments),

    /// Time the products of other libraries beside anybit's, on the same adapter
    Peers(PeersArguments),

    /// List the adapters, with what decides the choice of kernels
    Adapters(AdapterChoice),

    /// Regenerate docs/kernels.md
    Docs {
        /// Change nothing; fail if the file is out of date
        #[arg(long)]
        check: bool,
    },

    /// Print the linked WGSL of a kernel
    Shaders {
        /// The kernel's id, as the bench prints it
        #[arg(long, value_name = "ID")]
        print: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// Take the weights from this GGUF file
    #[arg(
        long,
        value_name = "FILE.gguf",
        conflicts_with = "synthetic",
        required_unless_present_any = ["synthetic", "shapes"]
    )]
    pub(crate) model: Option<PathBuf>,

    /// Use random matrices; needs no model
    #[arg(long)]
    pub(crate) synthetic: bool,

    /// Run only the contracts that match, such as 'gemm_i8rf_*' (the part of a kernel id left of `__`)
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub(crate) contract: Vec<String>,

    /// Count the rounding of activations: they are quantised on the device in each repetition
    #[arg(long)]
    pub(crate) quantize: bool,

    /// Shapes to run on random matrices: M rows of activations, N rows of weights, K columns of both
    #[arg(long, value_name = "MxNxK", value_delimiter = ',')]
    pub(crate) shapes: Vec<Shape>,

    /// Only the planner's choice of kernel for each problem, and fewer repetitions
    #[arg(long)]
    pub(crate) quick: bool,

    /// Write the results to this file as JSON lines, one object a row
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Draw the results into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) choice: AdapterChoice,

    /// Run on every adapter, one after the other
    #[arg(long, conflicts_with = "adapter")]
    pub(crate) all_adapters: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PeersArguments {
    /// Shapes to run on random matrices: M rows of activations, N rows of weights, K columns of both
    #[arg(long, value_name = "MxNxK", value_delimiter = ',')]
    pub(crate) shapes: Vec<Shape>,

    /// Only the planner's choice of kernel for each problem, and fewer repetitions
    #[arg(long)]
    pub(crate) quick: bool,

    /// Write the results to this file as JSON lines; rows of other libraries have a key `peer`
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// A Python that has onnxruntime's WebGPU package
    #[arg(long, value_name = "PYTHON", requires = "onnxruntime_script")]
    pub(crate) onnxruntime: Option<PathBuf>,

    /// The program of it that times onnxruntime
    #[arg(long, value_name = "FILE.py")]
    pub(crate) onnxruntime_script: Option<PathBuf>,

    /// SwiftShader's Vulkan manifest, for onnxruntime where the chosen adapter is a software one
    #[arg(long, value_name = "FILE.json")]
    pub(crate) swiftshader: Option<PathBuf>,

    /// The program that times web-rwkv
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) web_rwkv: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) choice: AdapterChoice,
}

/// Which adapters a task may use.
#[derive(Debug, Default, Args)]
pub(crate) struct AdapterChoice {
    /// Use only adapters of this graphics API
    #[arg(long)]
    pub(crate) backend: Option<Backend>,

    /// Use the adapter whose name contains this text, upper and lower case alike
    #[arg(long, value_name = "SUBSTRING")]
    pub(crate) adapter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Vulkan,
    Metal,
    Dx12,
    Gl,
}

impl Backend {
    pub(crate) const fn backends(self) -> Backends {
        match self {
            Self::Vulkan => Backends::VULKAN,
            Self::Metal => Backends::METAL,
            Self::Dx12 => Backends::DX12,
            Self::Gl => Backends::GL,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn rejection(line: &str) -> Option<ErrorKind> {
        Cli::try_parse_from(line.split(' '))
            .err()
            .map(|error| error.kind())
    }

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bench_needs_weights() {
        assert_eq!(
            rejection("anybit-benches bench"),
            Some(ErrorKind::MissingRequiredArgument)
        );
        assert_eq!(rejection("anybit-benches bench --synthetic"), None);
        assert_eq!(rejection("anybit-benches bench --model a.gguf"), None);
        assert_eq!(rejection("anybit-benches bench --shapes 1x2x3"), None);
        assert_eq!(
            rejection("anybit-benches bench --synthetic --model a.gguf"),
            Some(ErrorKind::ArgumentConflict)
        );
    }

    #[test]
    fn a_python_needs_its_program() {
        assert_eq!(
            rejection("anybit-benches peers --onnxruntime python3"),
            Some(ErrorKind::MissingRequiredArgument)
        );
        let line = "anybit-benches peers --onnxruntime python3 --onnxruntime-script a.py --quick";
        assert_eq!(rejection(line), None);
    }

    #[test]
    fn shapes_are_three_positive_sizes() {
        for shape in ["1x2", "1x2x3x4", "0x2x3", "1x-2x3", "axbxc", ""] {
            assert_eq!(
                rejection(&format!("anybit-benches bench --shapes {shape}")),
                Some(ErrorKind::ValueValidation),
                "{shape}"
            );
        }
    }
}
