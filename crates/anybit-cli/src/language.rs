//! What the subcommands that run language models share: files, formats, loading.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anybit::formats::{FormatError, MatrixFormat};
use anybit::{Context, KvFormat};
use anybit_import::ModelFile;
use anybit_import::gguf::GgufFile;
use anybit_llm::{LoadOptions, Model, ModelConfig, Precision, Specials, Tokenizer};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{CacheArguments, PrecisionArguments};
use crate::codebook;
use crate::error::Error;

/// The name that leaves weights as the file has them.
pub(crate) const STORED: &str = "stored";

/// A model's file, with what can be told without a device.
#[derive(Debug)]
pub(crate) struct LanguageModel {
    pub(crate) path: PathBuf,
    pub(crate) file: ModelFile,
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer: Tokenizer,
}

impl LanguageModel {
    /// Opens a file of a known architecture, whose vocabulary and tensors fit it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = open(path)?;
        let config = ModelConfig::read(&file).map_err(|error| Error::model(path, error))?;
        let tokenizer = Tokenizer::from_gguf(gguf(path, &file)?.metadata())
            .map_err(|error| Error::tokenizer(path, error))?;
        check_vocabulary(path, &tokenizer, &config)?;
        config
            .check_tensors(&file)
            .map_err(|error| Error::model(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            config,
            tokenizer,
        })
    }

    pub(crate) fn gguf(&self) -> Result<&GgufFile, Error> {
        gguf(&self.path, &self.file)
    }

    /// The error with the file in front.
    pub(crate) fn failed(&self, error: anybit_llm::Error) -> Error {
        Error::model(&self.path, error)
    }

    /// The ids of a text, without those that begin or end a sequence.
    pub(crate) fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>, Error> {
        self.tokenizer
            .encode(text, specials)
            .map_err(|error| Error::tokenizer(&self.path, error))
    }

    /// Puts the model on a device, with a bar on stderr where that is a terminal.
    pub(crate) fn load(&self, context: &Context, options: &LoadOptions) -> Result<Model, Error> {
        let bar = bar("{bar:30} {bytes}/{total_bytes}, {eta} left  loading");
        let model = Model::load(context, &self.file, options, &mut |progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        });
        bar.finish_and_clear();
        model.map_err(|error| self.failed(error))
    }
}

/// Opens a GGUF file.
pub(crate) fn open(path: &Path) -> Result<ModelFile, Error> {
    let file = ModelFile::open(path).map_err(|source| Error::import(path, source))?;
    gguf(path, &file)?;
    Ok(file)
}

/// The file itself. Only GGUF carries a vocabulary.
pub(crate) fn gguf<'a>(path: &Path, file: &'a ModelFile) -> Result<&'a GgufFile, Error> {
    match file {
        ModelFile::Gguf(file) => Ok(file),
        _ => Err(Error::NotGguf {
            path: path.to_owned(),
        }),
    }
}

/// A vocabulary is as long as the embedding has rows: ids beyond either would mean nothing to the other.
pub(crate) fn check_vocabulary(
    path: &Path,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
) -> Result<(), Error> {
    let (pieces, rows) = (tokenizer.vocabulary_size(), config.vocabulary);
    if pieces == rows {
        return Ok(());
    }
    Err(Error::Vocabulary {
        path: path.to_owned(),
        pieces,
        rows,
    })
}

/// Formats, as they are computed with and as they were named.
#[derive(Clone, Debug)]
pub(crate) struct Formats {
    pub(crate) precision: Precision,
    pub(crate) weight: String,
    pub(crate) activation: String,
}

impl Formats {
    pub(crate) fn of(arguments: &PrecisionArguments) -> Result<Self, Error> {
        codebook::register(&arguments.cache.codebooks.codebook)?;
        let activation = if arguments.exact {
            "f32"
        } else {
            &arguments.activation_format
        };
        let mut formats = Self::new(&arguments.weight_format, activation, &arguments.cache)?;
        if arguments.exact {
            formats.precision = formats.precision.with_kv(KvFormat::F32);
        }
        Ok(formats)
    }

    /// The formats of these names. Codebooks must have been registered.
    pub(crate) fn new(
        weight: &str,
        activation: &str,
        cache: &CacheArguments,
    ) -> Result<Self, Error> {
        let wrong = |what| move |source: FormatError| Error::Operand { what, source };
        let mut precision = Precision::default()
            .with_activation(Precision::parse_activation(activation).map_err(wrong("activations"))?)
            .with_kv(cache.kv_format.into());
        if weight != STORED {
            let format = MatrixFormat::parse_weight(weight).map_err(wrong("weights"))?;
            precision = precision.with_weight(format);
        }
        match cache.head_format.as_deref() {
            None => {}
            Some(STORED) => precision.head = None,
            Some(name) => {
                let format = MatrixFormat::parse_weight(name).map_err(wrong("LM head"))?;
                precision = precision.with_head(format);
            }
        }
        Ok(Self {
            precision,
            weight: weight.to_owned(),
            activation: activation.to_owned(),
        })
    }

    pub(crate) fn kv(&self) -> &'static str {
        self.precision.kv.name()
    }
}

/// Reads a text in UTF-8 from a file or, of the name `-`, from stdin.
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// A bar on stderr, where that is a terminal; its length comes later.
pub(crate) fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
