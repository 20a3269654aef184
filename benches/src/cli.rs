//! The command line. `cargo xtask` forwards these flags as they are.

use std::path::PathBuf;

use anybit::wgpu::Backends;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::isa::{self, Family};
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

    /// Measure every kernel for each contract and class of shapes, and keep which were fastest
    Tune(TuneArguments),
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

    /// Compile the kernels for Radeon GPUs, without one, and read the machine code
    Isa(IsaArguments),

    /// Compile the shaders on standard input; `isa` starts it for itself
    #[command(name = isa::TASK, hide = true)]
    IsaCompiler,
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

    /// Run the kernels whose id matches, such as '*__dot4_1x*', in place of the planner's choice; the f32 baseline runs as ever
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub(crate) kernel: Vec<String>,

    /// Count the rounding of activations: they are quantised on the device in each repetition
    #[arg(long)]
    pub(crate) quantize: bool,

    /// Shapes to run on random matrices: M rows of activations, N rows of weights, K columns of both
    #[arg(long, value_name = "MxNxK", value_delimiter = ',')]
    pub(crate) shapes: Vec<Shape>,

    /// Take the shapes for mixtures of so many experts: N rows of W for each, and for each of the M rows of X an expert at random
    #[arg(long, value_name = "E", requires = "shapes", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) experts: Option<u32>,

    /// Only the planner's choice of kernel for each problem, and fewer repetitions
    #[arg(long)]
    pub(crate) quick: bool,

    /// Run every kernel that can do a problem, and print each with the planner's estimate and its time, which is chosen and
    /// why, and why others are refused
    #[arg(long)]
    pub(crate) explain: bool,

    /// Plan by the cost model alone, as if the machine had never been tuned
    #[arg(long)]
    pub(crate) untuned: bool,

    /// Write the results to this file as JSON lines, one object a row
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Draw the results into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Draw the results under the adapter's ceilings into this SVG file: speed against operations a byte loaded
    #[arg(long, value_name = "FILE")]
    pub(crate) roofline: Option<PathBuf>,

    /// Also run integer weights of 1 to 8 bits by f32 and by 8- and 4-bit activations, and draw their speed into this SVG
    /// file
    #[arg(long, value_name = "FILE")]
    pub(crate) bits: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) choice: AdapterChoice,

    /// Run on every adapter, one after the other
    #[arg(long, conflicts_with = "adapter")]
    pub(crate) all_adapters: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TuneArguments {
    /// Tune only the contracts that match, such as 'gemm_i8rf_*' (the part of a kernel id left of `__`)
    #[arg(long, value_name = "GLOB")]
    pub(crate) contract: Option<String>,

    /// Shapes to tune for, each of which stands for its class; those of the bench by default
    #[arg(long, value_name = "MxNxK", value_delimiter = ',')]
    pub(crate) shapes: Vec<Shape>,

    /// Seconds for all of it, which the problems share
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,

    /// Keep the choices in this file, not in that of ANYBIT_TUNING or the user's cache folder
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) choice: AdapterChoice,
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

#[derive(Debug, Args)]
pub(crate) struct IsaArguments {
    /// Only the contracts that match, such as 'gemm_i8rf_*' (the part of a kernel id left of `__`)
    #[arg(long, value_name = "GLOB")]
    pub(crate) contract: Option<String>,

    /// The families of GPUs to compile for
    #[arg(long, value_name = "FAMILY", value_delimiter = ',')]
    pub(crate) family: Vec<Family>,

    /// Write the figures to this file as JSON lines, one object a kernel and family
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Print the disassembly of this kernel
    #[arg(long, value_name = "ID", conflicts_with_all = ["contract", "json"])]
    pub(crate) print: Option<String>,

    /// Compare with docs/isa.json and fail if a figure has moved
    #[arg(long, conflicts_with_all = ["contract", "family", "json", "print", "update"])]
    pub(crate) check: bool,

    /// Write docs/isa.json and the table of docs/isa.md anew
    #[arg(long, conflicts_with_all = ["contract", "family", "json", "print"])]
    pub(crate) update: bool,
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
    fn experts_need_shapes() {
        let line = "anybit-benches bench --shapes 8x16x32 --experts";
        assert_eq!(rejection(&format!("{line} 4")), None);
        assert_eq!(
            rejection(&format!("{line} 0")),
            Some(ErrorKind::ValueValidation)
        );
        assert_eq!(
            rejection("anybit-benches bench --synthetic --experts 4"),
            Some(ErrorKind::MissingRequiredArgument)
        );
    }

    #[test]
    fn a_tuning_needs_nothing() {
        assert_eq!(rejection("anybit-benches tune"), None);
        let all = "anybit-benches tune --backend gl --adapter a --contract gemm_* --shapes 1x2x3,4x5x6 --seconds 9 --file f";
        let Ok(Task::Tune(arguments)) = Cli::try_parse_from(all.split(' ')).map(|cli| cli.task)
        else {
            panic!("a tuning");
        };
        assert_eq!((arguments.seconds, arguments.shapes.len()), (9, 2));
        for wrong in ["--seconds 0", "--seconds x", "--shapes 1x2", "--quick"] {
            assert!(
                rejection(&format!("anybit-benches tune {wrong}")).is_some(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn families_are_known_ones() {
        use ErrorKind::{ArgumentConflict, InvalidValue};
        let isa = |flags: &str| rejection(&format!("anybit-benches isa {flags}"));
        assert_eq!(isa("--family gfx1100,navi21"), None);
        for wrong in ["tesla", "gfx1100,", "GFX1100"] {
            assert_eq!(
                isa(&format!("--family {wrong}")),
                Some(InvalidValue),
                "{wrong}"
            );
        }
        assert_eq!(isa("--check --contract gemm_*"), Some(ArgumentConflict));
        for family in Family::value_variants() {
            let value = family.to_possible_value().expect("no variant is hidden");
            assert_eq!(value.get_name(), family.name());
        }
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
