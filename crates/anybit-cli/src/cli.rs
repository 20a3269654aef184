//! The command line.

mod language;

use std::path::PathBuf;

use anybit::formats::{Calibration, Granularity, Rounding, ScaleRule, ScaleType, ZeroKind};
use anybit::wgpu::Backends;
use anybit::{ContextOptions, Engine};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::codebook::CodebookArgument;

pub(crate) use self::language::{
    CacheArguments, ExtentArguments, GenerateArguments, InfoArguments, PerplexityArguments,
    PrecisionArguments, SweepArguments,
};

const FORMATS_HELP: &str = "\
Formats: a format is given as
  an element format   int1…int8 uint1…uint8 bipolar1…bipolar8 binary ternary, e4m3 e5m2 e2m1 …,
                      nf4 …, f32 f16 bf16. Weights then take one f16 scale per 32 columns,
                      activations one f32 scale a row. Where K is no multiple of 32, weights take
                      a group of 16 or one scale a row, and a note on stderr says so;
  a named format      mxfp4 nvfp4 mxfp8e4m3 q4_0 q4_k …, scaled as their standards say;
  a matrix format     i4g32h, u4g128fz, e4m3: the code, then, when scaled, r (a row) or gN (a group
                      of N columns), the scale type f h e k q s, and the zero z m c. Without scales
                      the codes are bare.
`anybit format` lists the names.

Values: every value must be finite, whatever the format. NaN and infinities are refused, with their
place; values beyond the range of bare codes take the last code.";

const LANGUAGE_MODEL_HELP: &str = "\
Formats: those of `anybit format`. Weights of a format with groups need columns that whole groups make.
Activations are quantised token by token on the GPU: f32, or codes with scales of f32 or E8M0.
docs/language-models.md tells which models and formats there are.";

/// Low-bit number formats, quantising, matrix products and language models on any GPU.
#[derive(Debug, Parser)]
#[command(name = "anybit", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// List the formats, or the codes of one
    ///
    /// Without a name, all names. With one: every code with its value, the largest and smallest
    /// numbers and the special codes; of named formats also the scales.
    Format(FormatArguments),

    /// Quantise two matrices and multiply them on the GPU: Y = X·Wᵀ
    ///
    /// X is M×K activations, W is N×K weights, Y is M×N, all in .npy files in C order; f32 (f64 and
    /// f16 inputs are rounded to f32). Quantising runs on the CPU, the product on the GPU.
    #[command(after_help = FORMATS_HELP)]
    Matmul(MatmulArguments),

    /// Round an array to a format and back
    ///
    /// The output has the shape of the input and the values that the quantised matrix decodes to.
    /// Groups run along the last axis; an array of one axis is one row.
    #[command(after_help = FORMATS_HELP)]
    Quantize(QuantizeArguments),

    /// Quantise the weights of a model into a safetensors file of packed matrices
    ///
    /// Every weight of two dimensions is quantised; all other tensors are kept as they are. Prints
    /// the bits and the error of each: the root mean square of the error over that of the weight,
    /// and the signal to quantisation noise ratio.
    #[command(after_help = FORMATS_HELP)]
    Pack(PackArguments),

    /// Generate text with a language model on the GPU
    ///
    /// Prints the text that follows the prompt as it comes, until the model ends it, --max-tokens are
    /// there, or the model's context is full. Ctrl-C ends it sooner, with the exit code 130.
    #[command(after_help = LANGUAGE_MODEL_HELP)]
    Generate(GenerateArguments),

    /// Tell how well a language model foretells a text
    ///
    /// The text is cut into contexts, each judged on its own. Prints e to the mean of −ln of the
    /// probabilities of its tokens, with its standard error; lower is better.
    #[command(after_help = LANGUAGE_MODEL_HELP)]
    Perplexity(PerplexityArguments),

    /// Compare formats: perplexity, size and speed of a language model in each
    ///
    /// Runs every format of weights with every format of activations. A pair that cannot run has its
    /// reason in the table.
    #[command(after_help = LANGUAGE_MODEL_HELP)]
    Sweep(SweepArguments),

    /// Tell what a language model is made of, and what it would take on a device
    ///
    /// Needs no GPU. Of an architecture that cannot be run, metadata and tensors are listed all the
    /// same.
    #[command(after_help = LANGUAGE_MODEL_HELP)]
    Info(InfoArguments),
}

#[derive(Debug, Args)]
pub(crate) struct FormatArguments {
    /// An element format (e4m3, int4, nf4), a named format (mxfp4, q4_0), a matrix format (i4g32h) or e8m0
    pub(crate) name: Option<String>,

    /// Print JSON: {"name", "bits", "codes": [{"code", "value"}, …]}; without a name, the list of names
    ///
    /// A value is a number or one of the strings "NaN", "inf", "-inf". Of f16 and bf16 all 65536
    /// codes are listed in JSON alone; those of f32 are too many and an error.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) codebooks: Codebooks,
}

#[derive(Debug, Args)]
pub(crate) struct MatmulArguments {
    /// X, M×K, a .npy file
    #[arg(long, value_name = "X.npy")]
    pub(crate) activations: PathBuf,

    /// W, N×K, a .npy file: a row an output channel
    #[arg(long, value_name = "W.npy")]
    pub(crate) weights: PathBuf,

    /// Format of W
    #[arg(long, value_name = "FORMAT")]
    pub(crate) weight_format: String,

    /// Format of X
    #[arg(long, value_name = "FORMAT")]
    pub(crate) activation_format: String,

    /// Where to write Y, M×N
    #[arg(long, value_name = "Y.npy")]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) weight_scales: ScaleArguments,

    #[command(flatten)]
    pub(crate) activation_scales: ActivationScaleArguments,

    #[command(flatten)]
    pub(crate) rounding: RoundingArguments,

    /// Multiply with this engine alone
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(Engine::ALL.map(Engine::name))
            .try_map(|name| engine(&name).ok_or("no such engine"))
    )]
    pub(crate) engine: Option<Engine>,

    #[command(flatten)]
    pub(crate) report: ReportArguments,

    #[command(flatten)]
    pub(crate) codebooks: Codebooks,

    #[command(flatten)]
    pub(crate) choice: AdapterChoice,
}

#[derive(Debug, Args)]
pub(crate) struct QuantizeArguments {
    /// A .npy file, f32 (or f64, f16)
    #[arg(value_name = "IN.npy")]
    pub(crate) input: PathBuf,

    /// The format; an element format is scaled as for weights
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: String,

    /// Where to write the rounded array
    #[arg(long, value_name = "OUT.npy")]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) scales: ScaleArguments,

    #[command(flatten)]
    pub(crate) rounding: RoundingArguments,

    #[command(flatten)]
    pub(crate) report: ReportArguments,

    #[command(flatten)]
    pub(crate) codebooks: Codebooks,
}

#[derive(Debug, Args)]
pub(crate) struct PackArguments {
    /// A GGUF or safetensors file, an index of several (model.safetensors.index.json), or a folder with one
    pub(crate) model: PathBuf,

    /// Format of the weights
    #[arg(long, value_name = "FORMAT")]
    pub(crate) weight_format: String,

    /// Where to write the packed model
    #[arg(long, value_name = "OUT.safetensors")]
    pub(crate) output: PathBuf,

    /// Write only tensors whose names match, such as 'blk.*.attn_?.weight' (* for any text, ? for any
    /// character); may be given several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,

    /// Leave out tensors whose names match, after --include
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,

    /// Keep weights whose names match as they are stored: packed without loss where a format can, else as floats
    #[arg(long, value_name = "GLOB")]
    pub(crate) keep: Vec<String>,

    #[command(flatten)]
    pub(crate) scales: ScaleArguments,

    #[command(flatten)]
    pub(crate) rounding: RoundingArguments,

    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) codebooks: Codebooks,
}

/// Changes of a format's scales. Of `matmul` these are the weights'.
#[derive(Debug, Default, Args)]
pub(crate) struct ScaleArguments {
    /// Columns of the weights that share a scale: 16 or a multiple of 32; or `row`, `tensor`
    #[arg(long, value_name = "N|row|tensor", value_parser = granularity)]
    pub(crate) group: Option<Granularity>,

    /// Type of the weights' scales; `none` leaves bare codes
    #[arg(long, value_name = "TYPE", value_parser = scale_parser())]
    pub(crate) scale: Option<ScaleChoice>,

    /// What moves the zero of the weights
    #[arg(long)]
    pub(crate) zero: Option<Zero>,

    /// How the scales of the weights are found; the format's own way by default
    #[arg(long)]
    pub(crate) calibration: Option<CalibrationName>,
}

/// The same of the activations.
#[derive(Debug, Default, Args)]
pub(crate) struct ActivationScaleArguments {
    /// As --group, of the activations
    #[arg(long, value_name = "N|row|tensor", value_parser = granularity)]
    pub(crate) activation_group: Option<Granularity>,

    /// As --scale, of the activations
    #[arg(long, value_name = "TYPE", value_parser = scale_parser())]
    pub(crate) activation_scale: Option<ScaleChoice>,

    /// As --zero, of the activations
    #[arg(long)]
    pub(crate) activation_zero: Option<Zero>,

    /// As --calibration, of the activations
    #[arg(long)]
    pub(crate) activation_calibration: Option<CalibrationName>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct RoundingArguments {
    /// How values are rounded to integers and minifloats: nearest-even (the default), half-away,
    /// truncate, or stochastic[:SEED]
    ///
    /// Floats and the values of codebooks are always rounded to nearest. The seed is 0 by default.
    /// The activations of a product take the seed after it, and so does each further weight of a
    /// model, so that no two matrices share their random bits.
    #[arg(long, value_name = "RULE", value_parser = rounding)]
    pub(crate) rounding: Option<Rounding>,

    /// How E8M0 scales are rounded to powers of two; floor, as the MX standard has it, by default
    #[arg(long)]
    pub(crate) scale_rule: Option<ScaleRuleName>,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// Print the errors (largest, root mean square, SQNR in dB) and the bits an element
    #[arg(long)]
    pub(crate) report: bool,

    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Codebooks {
    /// Name a table of 2 to 256 values as a format; may be given several times
    ///
    /// FILE is a .npy array or a text with numbers between white space or commas (# begins a
    /// comment). The code c stands for the value c, in any order.
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) codebook: Vec<CodebookArgument>,
}

/// Which adapter to use.
#[derive(Debug, Default, Args)]
pub(crate) struct AdapterChoice {
    /// Use only adapters of this graphics API
    #[arg(long)]
    pub(crate) backend: Option<Backend>,

    /// Use the adapter whose name contains this text, upper and lower case alike
    #[arg(long, value_name = "SUBSTRING")]
    pub(crate) adapter: Option<String>,

    /// Run a small product of each kernel first, and take the next kernel if it is wrong here
    #[arg(long)]
    pub(crate) self_check: bool,
}

impl AdapterChoice {
    pub(crate) fn options(&self) -> ContextOptions {
        let mut options = ContextOptions::default();
        if let Some(backend) = self.backend {
            options = options.with_backends(match backend {
                Backend::Vulkan => Backends::VULKAN,
                Backend::Metal => Backends::METAL,
                Backend::Dx12 => Backends::DX12,
                Backend::Gl => Backends::GL,
            });
        }
        if let Some(adapter) = &self.adapter {
            options = options.with_adapter(adapter);
        }
        options
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Vulkan,
    Metal,
    Dx12,
    Gl,
}

/// A scale type, or bare codes.
pub(crate) type ScaleChoice = Option<ScaleType>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Zero {
    /// The format's values as they are
    None,
    /// An integer zero point from 0 to 255 for each scale, of unsigned codes
    Integer,
    /// A float minimum for each scale, of integers
    Minimum,
}

impl From<Zero> for ZeroKind {
    fn from(zero: Zero) -> Self {
        match zero {
            Zero::None => Self::None,
            Zero::Integer => Self::Integer,
            Zero::Minimum => Self::Minimum,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CalibrationName {
    /// The largest magnitude maps to the largest code
    #[value(alias = "absmax")]
    AbsMax,
    /// The scale is the mean magnitude: binary and ternary
    #[value(alias = "absmean")]
    AbsMean,
    /// The smallest and the largest value map to the ends of the codes: with zeros
    #[value(alias = "minmax")]
    MinMax,
    /// The clip of least mean square error
    #[value(alias = "mse")]
    MeanSquareError,
}

impl From<CalibrationName> for Calibration {
    fn from(name: CalibrationName) -> Self {
        match name {
            CalibrationName::AbsMax => Self::AbsMax,
            CalibrationName::AbsMean => Self::AbsMean,
            CalibrationName::MinMax => Self::MinMax,
            CalibrationName::MeanSquareError => Self::MeanSquareError,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScaleRuleName {
    /// As the MX standard has it; the largest values may saturate
    Floor,
    /// Up, so that nothing saturates
    Ceil,
    /// To the nearest power of two
    Nearest,
}

impl From<ScaleRuleName> for ScaleRule {
    fn from(name: ScaleRuleName) -> Self {
        match name {
            ScaleRuleName::Floor => Self::Floor,
            ScaleRuleName::Ceil => Self::Ceil,
            ScaleRuleName::Nearest => Self::Nearest,
        }
    }
}

fn engine(name: &str) -> Option<Engine> {
    Engine::ALL.into_iter().find(|engine| engine.name() == name)
}

fn scale_parser() -> impl TypedValueParser<Value = ScaleChoice> {
    let names = std::iter::once("none").chain(ScaleType::ALL.map(ScaleType::name));
    PossibleValuesParser::new(names).map(|name| name.parse().ok())
}

fn granularity(text: &str) -> Result<Granularity, String> {
    match text {
        "row" => Ok(Granularity::Row),
        "tensor" => Ok(Granularity::Tensor),
        // Which sizes a group may have is for the format to say.
        _ => text
            .parse()
            .map(Granularity::Group)
            .map_err(|_| "expected a number of columns, `row` or `tensor`".to_owned()),
    }
}

fn rounding(text: &str) -> Result<Rounding, String> {
    match text.split_once(':') {
        None => match text {
            "nearest-even" => Ok(Rounding::NearestEven),
            "half-away" => Ok(Rounding::HalfAway),
            "truncate" => Ok(Rounding::Truncate),
            "stochastic" => Ok(Rounding::Stochastic { seed: 0 }),
            _ => Err(
                "expected nearest-even, half-away, truncate, stochastic or stochastic:SEED"
                    .to_owned(),
            ),
        },
        Some(("stochastic", seed)) => seed
            .parse()
            .map(|seed| Rounding::Stochastic { seed })
            .map_err(|error| format!("the seed {seed:?}: {error}")),
        Some(_) => Err("only stochastic takes a seed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn scales_are_the_library_s() {
        let parsed = |scale: &str| {
            let line = [
                "anybit", "quantize", "a", "--format", "int4", "--output", "b",
            ];
            match Cli::try_parse_from(line.iter().chain(&["--scale", scale])) {
                Ok(Cli {
                    task: Task::Quantize(arguments),
                }) => arguments.scales.scale,
                _ => None,
            }
        };
        for scale in ScaleType::ALL {
            assert_eq!(parsed(scale.name()), Some(Some(scale)));
        }
        assert_eq!(parsed("none"), Some(None));
        assert_eq!(parsed("f64"), None);
    }

    #[test]
    fn roundings() {
        assert_eq!(rounding("nearest-even"), Ok(Rounding::NearestEven));
        assert_eq!(rounding("half-away"), Ok(Rounding::HalfAway));
        assert_eq!(rounding("truncate"), Ok(Rounding::Truncate));
        assert_eq!(rounding("stochastic"), Ok(Rounding::Stochastic { seed: 0 }));
        assert_eq!(
            rounding("stochastic:7"),
            Ok(Rounding::Stochastic { seed: 7 })
        );
        for wrong in ["", "stochastic:", "stochastic:-1", "truncate:1", "up"] {
            assert!(rounding(wrong).is_err(), "{wrong}");
        }
    }
}
