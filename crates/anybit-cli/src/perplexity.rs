//! `anybit perplexity`.

use std::cell::RefCell;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anybit_import::npy;
use anybit_llm::{LoadOptions, Perplexity, Session, Specials};
use serde::Serialize;

use crate::cli::{ExtentArguments, PerplexityArguments};
use crate::error::Error;
use crate::language::{Formats, LanguageModel, bar, read_text};
use crate::report::number;
use crate::{gpu, interrupt, output};

pub(crate) fn run(arguments: &PerplexityArguments) -> Result<(), Error> {
    if let Some(path) = &arguments.logits {
        output::check_folder(path)?;
    }
    let formats = Formats::of(&arguments.precision)?;
    let interrupted = interrupt::watch();
    let model = LanguageModel::open(&arguments.model)?;
    let text = JudgedText::read(&model, &read_text(&arguments.text)?, &arguments.extent)?;

    let context = gpu::context(&arguments.choice)?;
    let options = LoadOptions::new(formats.precision)
        .with_context(text.longest())
        .with_deterministic(arguments.precision.cache.deterministic);
    let loaded = model.load(&context, &options)?;
    let mut session = Session::new(&loaded, text.longest()).map_err(|error| model.failed(error))?;
    let judge = Judge {
        model: &model,
        text: &text,
        interrupted: &interrupted,
    };
    let started = Instant::now();
    let found = match &arguments.logits {
        None => judge.perplexity(&mut session)?,
        Some(path) => {
            output::write_file_with(path, |writer| judge.with_logits(&mut session, path, writer))?
        }
    };
    let report = Report {
        perplexity: found.value(),
        error: found.error(),
        mean_nll: found.mean,
        tokens: found.tokens,
        context: text.context,
        bits_per_weight: loaded.bits_per_weight(),
        weight_format: formats.weight.clone(),
        activation_format: formats.activation.clone(),
        kv_format: formats.kv(),
        tokens_per_second: found.tokens as f64 / started.elapsed().as_secs_f64(),
    };
    output::print(&if arguments.json {
        // Strings and numbers alone: it cannot fail.
        serde_json::to_string(&report).unwrap_or_default() + "\n"
    } else {
        format!(
            "perplexity {:.4} ± {:.4} ({} tokens, contexts of {})\n",
            report.perplexity, report.error, report.tokens, report.context
        )
    })
}

/// A text as it is judged.
#[derive(Debug)]
pub(crate) struct JudgedText {
    pub(crate) ids: Vec<u32>,
    /// What every context begins with.
    pub(crate) first: Option<u32>,
    /// Tokens of a context, `first` included.
    pub(crate) context: usize,
}

impl JudgedText {
    pub(crate) fn read(
        model: &LanguageModel,
        text: &str,
        extent: &ExtentArguments,
    ) -> Result<Self, Error> {
        let mut ids = model.encode(text, Specials::AsText)?;
        if let Some(tokens) = extent.tokens {
            ids.truncate(tokens);
        }
        let first = model.tokenizer.added_bos();
        let given = usize::from(first.is_some());
        let context = extent.context.min(model.config.context);
        for (what, actual) in [
            ("the context", context),
            ("the text whose perplexity is taken", ids.len() + given),
        ] {
            if actual < 2 {
                return Err(model.failed(anybit_llm::Error::TooFewTokens {
                    what,
                    least: 2,
                    actual,
                }));
            }
        }
        Ok(Self {
            ids,
            first,
            context,
        })
    }

    /// Tokens of the longest context.
    pub(crate) fn longest(&self) -> usize {
        self.context
            .min(self.ids.len() + usize::from(self.first.is_some()))
    }

    /// Tokens of all contexts but those of one token, which foretell nothing.
    fn rows(&self) -> usize {
        let given = usize::from(self.first.is_some());
        self.ids
            .chunks(self.context - given)
            .map(|window| window.len() + given)
            .filter(|&length| length > 1)
            .sum()
    }
}

/// Judges a text, with a bar on stderr where that is a terminal.
pub(crate) struct Judge<'a> {
    pub(crate) model: &'a LanguageModel,
    pub(crate) text: &'a JudgedText,
    pub(crate) interrupted: &'a AtomicBool,
}

impl Judge<'_> {
    pub(crate) fn perplexity(&self, session: &mut Session) -> Result<Perplexity, Error> {
        let JudgedText { ids, first, .. } = self.text;
        let context = self.text.longest();
        let bar = bar(BAR);
        let found = anybit_llm::perplexity(session, ids, context, *first, &mut |so_far| {
            self.each(&bar, so_far)
        });
        bar.finish_and_clear();
        self.whole(found)
    }

    /// The same, with the logits in a .npy file.
    fn with_logits(
        &self,
        session: &mut Session,
        path: &Path,
        writer: &mut dyn Write,
    ) -> Result<Perplexity, Error> {
        let JudgedText { ids, first, .. } = self.text;
        let context = self.text.longest();
        let bar = bar(BAR);
        let shape = [self.text.rows(), self.model.config.vocabulary];
        let written = RefCell::new(npy::write_header(writer, &shape));
        let found = anybit_llm::perplexity_with_logits(
            session,
            ids,
            context,
            *first,
            &mut |row| {
                let mut written = written.borrow_mut();
                if written.is_ok() {
                    *written = npy::write_values(writer, row);
                }
            },
            &mut |so_far| match *written.borrow() {
                Ok(()) => self.each(&bar, so_far),
                Err(_) => ControlFlow::Break(()),
            },
        );
        bar.finish_and_clear();
        written.into_inner().map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })?;
        self.whole(found)
    }

    fn each(&self, bar: &indicatif::ProgressBar, so_far: &Perplexity) -> ControlFlow<()> {
        bar.set_length(so_far.total as u64);
        bar.set_position(so_far.tokens as u64);
        bar.set_message(format!("perplexity {:.3}", so_far.value()));
        if self.interrupted.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn whole(&self, found: anybit_llm::Result<Perplexity>) -> Result<Perplexity, Error> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        found.map_err(|error| self.model.failed(error))
    }
}

const BAR: &str = "{bar:30} {pos}/{len} tokens, {eta} left  {wide_msg}";

#[derive(Debug, Serialize)]
struct Report {
    #[serde(serialize_with = "number")]
    perplexity: f64,
    #[serde(serialize_with = "number")]
    error: f64,
    #[serde(serialize_with = "number")]
    mean_nll: f64,
    /// Tokens that were foretold.
    tokens: usize,
    context: usize,
    bits_per_weight: f64,
    weight_format: String,
    activation_format: String,
    kv_format: &'static str,
    tokens_per_second: f64,
}
