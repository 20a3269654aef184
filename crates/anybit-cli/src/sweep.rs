//! `anybit sweep`.

mod chart;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anybit::{Context, Sampling};
use anybit_llm::{GenerateStats, LoadOptions, Perplexity, Session};
use serde::Serialize;

use crate::cli::SweepArguments;
use crate::error::{self, Error};
use crate::language::{Formats, LanguageModel, read_text};
use crate::perplexity::{Judge, JudgedText};
use crate::report::special_number;
use crate::{codebook, gpu, interrupt, output, table};

/// Tokens of the text before those that are generated to see how fast that is.
const PROMPT: usize = 64;

/// Tokens that are generated for it.
const GENERATED: usize = 16;

pub(crate) fn run(arguments: &SweepArguments) -> Result<(), Error> {
    if let Some(path) = &arguments.svg {
        output::check_folder(path)?;
    }
    codebook::register(&arguments.cache.codebooks.codebook)?;
    let interrupted = interrupt::watch();
    let model = LanguageModel::open(&arguments.model)?;
    let text = JudgedText::read(&model, &read_text(&arguments.text)?, &arguments.extent)?;
    let context = gpu::context(&arguments.choice)?;
    let sweep = Sweep {
        arguments,
        model: &model,
        text: &text,
        context: &context,
        interrupted: &interrupted,
    };
    let rows = sweep.rows()?;
    let caps = context.caps();
    let report = Report {
        adapter: caps.name.clone(),
        backend: caps.backend.to_string(),
        context: text.context,
        rows,
    };
    let ran = report.rows.iter().any(|row| row.reason.is_none());
    if let Some(path) = arguments.svg.as_ref().filter(|_| ran) {
        let svg = chart::draw(&report.rows).map_err(Error::Chart)?;
        output::write_file(path, |writer| writer.write_all(svg.as_bytes()))?;
    }
    output::print(&if arguments.json {
        // Strings and numbers alone: it cannot fail.
        serde_json::to_string(&report).unwrap_or_default() + "\n"
    } else {
        report.text(arguments.markdown)
    })?;
    if !ran {
        return Err(Error::NothingRan(report.rows.len()));
    }
    Ok(())
}

/// All that the pairs have in common.
struct Sweep<'a> {
    arguments: &'a SweepArguments,
    model: &'a LanguageModel,
    text: &'a JudgedText,
    context: &'a Context,
    interrupted: &'a AtomicBool,
}

impl Sweep<'_> {
    /// Runs every pair, a line on stderr for each.
    fn rows(&self) -> Result<Vec<Row>, Error> {
        let weights = &self.arguments.weight_format;
        let activations = &self.arguments.activation_format;
        let count = weights.len() * activations.len();
        let mut rows = Vec::new();
        for weight in weights {
            for activation in activations {
                let row = self.row(weight, activation)?;
                output::note(&format!("{}/{count} {}", rows.len() + 1, row.line()));
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// The row of a pair, whether it runs or not. Only an interrupt ends the sweep.
    fn row(&self, weight: &str, activation: &str) -> Result<Row, Error> {
        let row = Row {
            weight_format: weight.to_owned(),
            activation_format: activation.to_owned(),
            kv_format: anybit::KvFormat::from(self.arguments.cache.kv_format).name(),
            ..Row::default()
        };
        match self.figures(weight, activation) {
            Ok(figures) => Ok(figures.into_row(row)),
            Err(error @ (Error::Stopped | Error::Interrupted)) => Err(error),
            Err(error) => Ok(Row {
                reason: Some(error::reason(&error)),
                ..row
            }),
        }
    }

    fn figures(&self, weight: &str, activation: &str) -> Result<Figures, Error> {
        let formats = Formats::new(weight, activation, &self.arguments.cache)?;
        let (prompt, generated) = self.speed_tokens();
        let capacity = self.text.longest().max(prompt.len() + generated);
        let options = LoadOptions::new(formats.precision)
            .with_context(capacity)
            .with_deterministic(self.arguments.cache.deterministic);
        let loaded = self.model.load(self.context, &options)?;
        let failed = |error| self.model.failed(error);
        let mut session = Session::new(&loaded, capacity).map_err(failed)?;
        let judge = Judge {
            model: self.model,
            text: self.text,
            interrupted: self.interrupted,
        };
        let perplexity = judge.perplexity(&mut session)?;
        // Drivers compile on first use, which is not to be timed.
        self.generate(&mut session, prompt, generated.min(2))?;
        let stats = self.generate(&mut session, prompt, generated)?;
        Ok(Figures {
            perplexity,
            stats,
            bits_per_weight: loaded.bits_per_weight(),
        })
    }

    /// The prompt from which, and the number of tokens up to which, speed is measured.
    fn speed_tokens(&self) -> (&[u32], usize) {
        let context = self.model.config.context;
        let prompt = PROMPT.min(self.text.ids.len()).min(context.div_ceil(2));
        let generated = GENERATED.min(context - prompt.min(context));
        let ids = self.text.ids.get(..prompt).unwrap_or_default();
        (ids, generated)
    }

    fn generate(
        &self,
        session: &mut Session,
        prompt: &[u32],
        tokens: usize,
    ) -> Result<GenerateStats, Error> {
        session
            .truncate(0)
            .and_then(|()| {
                session.generate(prompt, tokens, &Sampling::GREEDY, &mut |_| {
                    if self.interrupted.load(Ordering::Relaxed) {
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                })
            })
            .map_err(|error| self.model.failed(error))
            .and_then(|stats| {
                if self.interrupted.load(Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                Ok(stats)
            })
    }
}

/// What was found of a pair.
struct Figures {
    perplexity: Perplexity,
    stats: GenerateStats,
    bits_per_weight: f64,
}

impl Figures {
    fn into_row(self, row: Row) -> Row {
        Row {
            perplexity: Some(self.perplexity.value()),
            error: Some(self.perplexity.error()),
            tokens: Some(self.perplexity.tokens),
            bits_per_weight: Some(self.bits_per_weight),
            prompt_tokens_per_second: Some(self.stats.prompt_rate()),
            generated_tokens_per_second: Some(self.stats.generation_rate()),
            ..row
        }
    }
}

/// A pair of formats; without figures where it could not run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    weight_format: String,
    activation_format: String,
    kv_format: &'static str,
    #[serde(serialize_with = "special_number")]
    perplexity: Option<f64>,
    #[serde(serialize_with = "special_number")]
    error: Option<f64>,
    tokens: Option<usize>,
    bits_per_weight: Option<f64>,
    prompt_tokens_per_second: Option<f64>,
    generated_tokens_per_second: Option<f64>,
    /// Why it could not run.
    reason: Option<String>,
}

impl Row {
    /// What is printed when the pair is done.
    fn line(&self) -> String {
        let pair = format!("{} x {}", self.weight_format, self.activation_format);
        match (&self.reason, self.perplexity) {
            (Some(reason), _) => format!("{pair}: {reason}"),
            (None, Some(perplexity)) => format!("{pair}: perplexity {perplexity:.4}"),
            (None, None) => pair,
        }
    }

    fn cells(&self) -> [String; 7] {
        let number = |number: Option<f64>, digits: usize| {
            number.map_or_else(String::new, |number| format!("{number:.digits$}"))
        };
        let perplexity = match (&self.reason, self.perplexity, self.error) {
            (Some(reason), ..) => reason.clone(),
            (None, Some(perplexity), Some(error)) => format!("{perplexity:.3} ± {error:.3}"),
            (None, ..) => String::new(),
        };
        [
            self.weight_format.clone(),
            self.activation_format.clone(),
            self.kv_format.to_owned(),
            number(self.bits_per_weight, 3),
            number(self.prompt_tokens_per_second, 1),
            number(self.generated_tokens_per_second, 1),
            perplexity,
        ]
    }
}

#[derive(Debug, Serialize)]
struct Report {
    adapter: String,
    backend: String,
    context: usize,
    rows: Vec<Row>,
}

impl Report {
    fn text(&self, markdown: bool) -> String {
        // Reasons are long: what they stand for comes last.
        let head = [
            "weights",
            "activations",
            "KV cache",
            "bits/weight",
            "prompt tokens/s",
            "generated tokens/s",
            "perplexity",
        ];
        let rows: Vec<[String; 7]> = self.rows.iter().map(Row::cells).collect();
        if markdown {
            table::markdown(&head, &rows, &[0, 1, 2])
        } else {
            table::aligned(&head, &rows)
        }
    }
}
