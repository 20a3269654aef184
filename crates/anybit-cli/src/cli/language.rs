//! The flags of the subcommands that run language models.

use std::path::PathBuf;

use anybit::KvFormat;
use clap::{Args, ValueEnum};

use super::{AdapterChoice, Codebooks};

#[derive(Debug, Args)]
pub(crate) struct GenerateArguments {
    /// A language model, a GGUF file
    #[arg(value_name = "MODEL.gguf")]
    pub(crate) model: PathBuf,

    /// The text to go on from; `-` reads it from stdin
    pub(crate) prompt: String,

    /// Stop after so many tokens
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) max_tokens: usize,

    /// Draw by chance: logits are divided by T; 0 takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub(crate) temperature: f32,

    /// Draw from the K likeliest tokens alone; 0 draws from all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) top_k: usize,

    /// Draw from the fewest likeliest tokens that hold the probability P together
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub(crate) top_p: f32,

    /// Which random numbers; the same seed gives the same text
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u32,

    /// Put the prompt as a user's message into the model's chat template, and generate the answer
    #[arg(long)]
    pub(crate) chat: bool,

    #[command(flatten)]
    pub(crate) precision: PrecisionArguments,

    /// Print tokens, times and memory to stderr
    #[arg(long)]
    pub(crate) stats: bool,

    /// Print one JSON object instead of the text: ids, text, times and memory
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) choice: AdapterChoice,
}

#[derive(Debug, Args)]
pub(crate) struct PerplexityArguments {
    /// A language model, a GGUF file
    #[arg(value_name = "MODEL.gguf")]
    pub(crate) model: PathBuf,

    /// The text, a file in UTF-8; `-` reads it from stdin
    pub(crate) text: PathBuf,

    #[command(flatten)]
    pub(crate) extent: ExtentArguments,

    /// Write the logits, tokens x vocabulary in f32, context after context
    #[arg(long, value_name = "FILE.npy")]
    pub(crate) logits: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) precision: PrecisionArguments,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) choice: AdapterChoice,
}

#[derive(Debug, Args)]
pub(crate) struct SweepArguments {
    /// A language model, a GGUF file
    #[arg(value_name = "MODEL.gguf")]
    pub(crate) model: PathBuf,

    /// The text, a file in UTF-8; `-` reads it from stdin
    pub(crate) text: PathBuf,

    /// Formats of the weights, parted by commas; `stored` for those of the file
    #[arg(
        long,
        value_name = "FORMATS",
        value_delimiter = ',',
        default_value = "stored"
    )]
    pub(crate) weight_format: Vec<String>,

    /// Formats of the activations, parted by commas: f32, int8 …
    #[arg(
        long,
        value_name = "FORMATS",
        value_delimiter = ',',
        default_value = "int8"
    )]
    pub(crate) activation_format: Vec<String>,

    #[command(flatten)]
    pub(crate) cache: CacheArguments,

    #[command(flatten)]
    pub(crate) extent: ExtentArguments,

    /// Draw perplexity against bits per weight
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) svg: Option<PathBuf>,

    /// Print the table in Markdown
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,

    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) choice: AdapterChoice,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArguments {
    /// A language model, a GGUF file
    #[arg(value_name = "MODEL.gguf")]
    pub(crate) model: PathBuf,

    #[command(flatten)]
    pub(crate) precision: PrecisionArguments,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How much of a text is judged, and in what stretches.
#[derive(Debug, Args)]
pub(crate) struct ExtentArguments {
    /// Cut the text into contexts of so many tokens; the model's own context, if that is shorter
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) context: usize,

    /// Take only the first N tokens of the text
    #[arg(long, value_name = "N")]
    pub(crate) tokens: Option<usize>,
}

/// In which formats a model computes.
#[derive(Debug, Args)]
pub(crate) struct PrecisionArguments {
    /// Format of the layers' weights; `stored` for that of the file
    #[arg(long, value_name = "FORMAT", default_value = "stored")]
    pub(crate) weight_format: String,

    /// Format of the activations, quantised token by token on the GPU; f32 for none
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "int8",
        conflicts_with = "exact"
    )]
    pub(crate) activation_format: String,

    /// Activations, keys and values in f32
    #[arg(long, conflicts_with = "kv_format")]
    pub(crate) exact: bool,

    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

/// Formats and rules that are one for all runs.
#[derive(Debug, Args)]
pub(crate) struct CacheArguments {
    /// Format of the keys and values
    #[arg(long, value_name = "FORMAT", default_value = "f16")]
    pub(crate) kv_format: KvName,

    /// Format of the embedding and the LM head; `stored` for that of the file, which is the default
    /// unless the weights are floats
    #[arg(long, value_name = "FORMAT")]
    pub(crate) head_format: Option<String>,

    /// One kernel for every number of tokens: the same numbers to the bit, however a text is cut, but
    /// slower prompts
    #[arg(long)]
    pub(crate) deterministic: bool,

    #[command(flatten)]
    pub(crate) codebooks: Codebooks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvName {
    F32,
    F16,
    Int8,
    Int4,
    Int2,
}

impl From<KvName> for KvFormat {
    fn from(name: KvName) -> Self {
        match name {
            KvName::F32 => Self::F32,
            KvName::F16 => Self::F16,
            KvName::Int8 => Self::Int8,
            KvName::Int4 => Self::Int4,
            KvName::Int2 => Self::Int2,
        }
    }
}
