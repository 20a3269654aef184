//! `anybit info`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anybit_import::gguf::GgufFile;
use anybit_import::{ModelFile, ModelWeight};
use anybit_llm::{ChatTemplate, ModelConfig, Tokenizer};
use serde::Serialize;

use crate::cli::InfoArguments;
use crate::error::{self, Error};
use crate::language::{self, Formats};
use crate::{output, table};

/// Tokens of the KV cache that is told beside the whole one.
const CACHED: usize = 1024;

/// Characters of a metadata value that are listed.
const SHOWN: usize = 80;

pub(crate) fn run(arguments: &InfoArguments) -> Result<(), Error> {
    let formats = Formats::of(&arguments.precision)?;
    let path = &arguments.model;
    let file = language::open(path)?;
    let gguf = language::gguf(path, &file)?;
    let config = ModelConfig::read(&file).map_err(|error| Error::model(path, error));
    let tokenizer =
        Tokenizer::from_gguf(gguf.metadata()).map_err(|error| Error::tokenizer(path, error));
    let on_device = config
        .as_ref()
        .ok()
        .map(|config| OnDevice::new(path, &file, config, &formats));
    let fits = match (&config, &tokenizer) {
        (Ok(config), Ok(tokenizer)) => language::check_vocabulary(path, tokenizer, config).err(),
        _ => None,
    };
    let problems: Vec<String> = [
        config.as_ref().err(),
        tokenizer.as_ref().err(),
        on_device.as_ref().and_then(|found| found.as_ref().err()),
        fits.as_ref(),
    ]
    .into_iter()
    .flatten()
    .map(error::reason)
    .collect();
    let metadata: BTreeMap<String, String> = file.metadata().into_iter().collect();
    let report = Report {
        file: path.display().to_string(),
        architecture: metadata
            .get("general.architecture")
            .cloned()
            .unwrap_or_default(),
        runnable: problems.is_empty(),
        problems,
        config: config.as_ref().ok().map(Config::new),
        tokenizer: tokenizer
            .as_ref()
            .ok()
            .map(|tokenizer| Vocabulary::new(gguf, tokenizer)),
        on_device: on_device.and_then(Result::ok),
        tensor_types: tensor_types(&file.weights()),
        tensors: file.weights().into_iter().map(Tensor::new).collect(),
        metadata,
    };
    output::print(&if arguments.json {
        // Strings and numbers alone: it cannot fail.
        serde_json::to_string(&report).unwrap_or_default() + "\n"
    } else {
        report.text()
    })
}

#[derive(Debug, Serialize)]
struct Report {
    file: String,
    architecture: String,
    /// Whether `generate` and the others would take it, with these formats, on a device that is large enough.
    runnable: bool,
    /// Why not.
    problems: Vec<String>,
    config: Option<Config>,
    tokenizer: Option<Vocabulary>,
    on_device: Option<OnDevice>,
    tensor_types: Vec<TensorType>,
    tensors: Vec<Tensor>,
    /// What is no list.
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Config {
    blocks: usize,
    hidden: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rotated: usize,
    vocabulary: usize,
    context: usize,
    window: Option<usize>,
    rotary_base: f64,
    rotary_factor: f64,
}

impl Config {
    fn new(config: &ModelConfig) -> Self {
        Self {
            blocks: config.blocks,
            hidden: config.hidden,
            feed_forward: config.feed_forward,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            rotated: config.rotated,
            vocabulary: config.vocabulary,
            context: config.context,
            window: config.window,
            rotary_base: config.rotary_base,
            rotary_factor: config.rotary_factor,
        }
    }
}

#[derive(Debug, Serialize)]
struct Vocabulary {
    /// `gpt2` or `llama`: byte-level or SentencePiece.
    model: String,
    pre_tokenizer: Option<String>,
    pieces: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    adds_bos: bool,
    chat_template: bool,
}

impl Vocabulary {
    fn new(file: &GgufFile, tokenizer: &Tokenizer) -> Self {
        let text = |key| file.metadata().get_str(key).ok().map(str::to_owned);
        Self {
            model: text("tokenizer.ggml.model").unwrap_or_default(),
            pre_tokenizer: text("tokenizer.ggml.pre"),
            pieces: tokenizer.vocabulary_size(),
            bos: tokenizer.bos(),
            eos: tokenizer.eos(),
            adds_bos: tokenizer.added_bos().is_some(),
            chat_template: ChatTemplate::from_gguf(file.metadata(), tokenizer).is_ok(),
        }
    }
}

/// Bytes on a device, but for padding and activations.
#[derive(Debug, Serialize)]
struct OnDevice {
    weight_format: String,
    activation_format: String,
    kv_format: &'static str,
    bits_per_weight: f64,
    weights: u64,
    kv_cache_of_1024_tokens: Option<u64>,
    kv_cache_of_context: Option<u64>,
}

impl OnDevice {
    fn new(
        path: &Path,
        file: &ModelFile,
        config: &ModelConfig,
        formats: &Formats,
    ) -> Result<Self, Error> {
        let weights = config
            .estimate_weights(file, &formats.precision)
            .map_err(|error| Error::model(path, error))?;
        let cache = |tokens| config.kv_cache_bytes(formats.precision.kv, tokens);
        Ok(Self {
            weight_format: formats.weight.clone(),
            activation_format: formats.activation.clone(),
            kv_format: formats.kv(),
            bits_per_weight: weights.bits_per_weight,
            weights: weights.bytes,
            kv_cache_of_1024_tokens: cache(CACHED),
            kv_cache_of_context: cache(config.context),
        })
    }
}

#[derive(Debug, Serialize)]
struct TensorType {
    #[serde(rename = "type")]
    name: String,
    tensors: usize,
    bytes: u64,
}

/// The types in the order in which they come first.
fn tensor_types(weights: &[ModelWeight]) -> Vec<TensorType> {
    let mut types: Vec<TensorType> = Vec::new();
    for weight in weights {
        let bytes = weight.byte_size.unwrap_or(0);
        match types
            .iter_mut()
            .find(|found| found.name == weight.stored_as)
        {
            Some(found) => {
                found.tensors += 1;
                found.bytes += bytes;
            }
            None => types.push(TensorType {
                name: weight.stored_as.clone(),
                tensors: 1,
                bytes,
            }),
        }
    }
    types
}

#[derive(Debug, Serialize)]
struct Tensor {
    name: String,
    /// Outermost first.
    shape: Vec<u64>,
    #[serde(rename = "type")]
    stored_as: String,
    bytes: Option<u64>,
}

impl Tensor {
    fn new(weight: ModelWeight) -> Self {
        Self {
            name: weight.name,
            shape: weight.shape,
            stored_as: weight.stored_as,
            bytes: weight.byte_size,
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!("file           {}\n", self.file);
        let _ = writeln!(text, "architecture   {}", self.architecture);
        for problem in &self.problems {
            let _ = writeln!(text, "cannot be run  {problem}");
        }
        if let Some(config) = &self.config {
            text.push_str(&config.lines());
        }
        if let Some(tokenizer) = &self.tokenizer {
            text.push_str(&tokenizer.lines());
        }
        if let Some(on_device) = &self.on_device {
            text.push_str(&on_device.lines());
        }
        if self.config.is_none() {
            text.push_str("\nmetadata\n");
            for (key, value) in &self.metadata {
                let mut value = value.escape_debug().to_string();
                if let Some((end, _)) = value.char_indices().nth(SHOWN) {
                    value.truncate(end);
                    value.push('…');
                }
                let _ = writeln!(text, "  {key}  {value}");
            }
        }
        let types: Vec<[String; 3]> = self
            .tensor_types
            .iter()
            .map(|found| {
                let (count, bytes) = (found.tensors, found.bytes);
                [found.name.clone(), count.to_string(), bytes.to_string()]
            })
            .collect();
        let _ = writeln!(
            text,
            "\n{}",
            table::aligned(&["type", "tensors", "bytes"], &types)
        );
        let tensors: Vec<[String; 4]> = self.tensors.iter().map(Tensor::cells).collect();
        text + &table::aligned(&["tensor", "shape", "type", "bytes"], &tensors)
    }
}

impl Config {
    fn lines(&self) -> String {
        let window = match self.window {
            Some(window) => format!(", local layers see {window} tokens"),
            None => String::new(),
        };
        format!(
            "layers         {}, {} wide, feed-forward {}\n\
             heads          {} of {} channels, {} of keys and values\n\
             context        {} tokens{window}\n\
             vocabulary     {} tokens\n",
            self.blocks,
            self.hidden,
            self.feed_forward,
            self.heads,
            self.head_dim,
            self.kv_heads,
            self.context,
            self.vocabulary,
        )
    }
}

impl Vocabulary {
    fn lines(&self) -> String {
        let pre = match &self.pre_tokenizer {
            Some(pre) => format!(" ({pre})"),
            None => String::new(),
        };
        format!(
            "tokeniser      {}{pre}, {} pieces, {}\n",
            self.model,
            self.pieces,
            if self.chat_template {
                "with a chat template"
            } else {
                "without a chat template"
            }
        )
    }
}

impl OnDevice {
    fn lines(&self) -> String {
        let megabytes = |bytes: Option<u64>| match bytes {
            Some(bytes) => format!("{:.1} MB", bytes as f64 / 1e6),
            None => "past counting".to_owned(),
        };
        format!(
            "on a device    weights {} ({}, {:.4} bits each), activations {}\n\
             KV cache       {}: {} for {CACHED} tokens, {} for the whole context\n",
            megabytes(Some(self.weights)),
            self.weight_format,
            self.bits_per_weight,
            self.activation_format,
            self.kv_format,
            megabytes(self.kv_cache_of_1024_tokens),
            megabytes(self.kv_cache_of_context),
        )
    }
}

impl Tensor {
    fn cells(&self) -> [String; 4] {
        let axes: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        [
            self.name.escape_debug().to_string(),
            axes.join("x"),
            self.stored_as.clone(),
            self.bytes
                .map_or_else(String::new, |bytes| bytes.to_string()),
        ]
    }
}
