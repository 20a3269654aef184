//! `anybit generate`.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anybit::{Context, Sampling};
use anybit_llm::{
    ChatTemplate, DecodeStream, GenerateStats, LoadOptions, MemoryUse, Message, Session, Specials,
};
use serde::Serialize;

use crate::cli::GenerateArguments;
use crate::error::Error;
use crate::language::{Formats, LanguageModel, read_text};
use crate::{gpu, interrupt, output};

pub(crate) fn run(arguments: &GenerateArguments) -> Result<(), Error> {
    let sampling = Sampling::temperature(arguments.temperature, arguments.seed)
        .with_top_k(arguments.top_k)
        .with_top_p(arguments.top_p);
    sampling.check()?;
    let formats = Formats::of(&arguments.precision)?;
    let text = prompt_text(&arguments.prompt)?;
    let interrupted = interrupt::watch();
    let model = LanguageModel::open(&arguments.model)?;
    let prompt = prompt_ids(&model, &text, arguments.chat)?;
    let room = Room::new(prompt.len(), arguments.max_tokens, model.config.context)?;

    let context = gpu::context(&arguments.choice)?;
    let options = LoadOptions::new(formats.precision)
        .with_context(prompt.len() + room.tokens)
        .with_deterministic(arguments.precision.cache.deterministic);
    let loaded = model.load(&context, &options)?;
    let mut session =
        Session::new(&loaded, prompt.len() + room.tokens).map_err(|error| model.failed(error))?;
    if interrupted.load(Ordering::Relaxed) {
        return Err(Error::Stopped);
    }
    session.stop_with(Some(Arc::clone(&interrupted)));

    let mut writer = Writer::new(&model, arguments);
    let stats = session
        .generate(&prompt, room.tokens, &sampling, &mut |token| {
            if interrupted.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            writer.take(token)
        })
        .map_err(|error| match error {
            anybit_llm::Error::Stopped { .. } => Error::Stopped,
            error => model.failed(error),
        })?;
    let written = writer.finish()?;
    if interrupted.load(Ordering::Relaxed) {
        return Err(Error::Stopped);
    }
    let stats = Stats::new(written.ids.len(), &stats, &session, &formats, &context);
    let report = Report {
        prompt_ids: prompt,
        stop: if written.ended {
            "end"
        } else if room.is_short {
            "context"
        } else {
            "length"
        },
        ids: written.ids,
        text: written.text,
        stats,
    };
    if arguments.stats {
        output::note(&report.lines());
    }
    if arguments.json {
        // Strings and numbers alone: it cannot fail.
        output::print(&(serde_json::to_string(&report).unwrap_or_default() + "\n"))?;
    }
    Ok(())
}

/// The prompt as it was given, or stdin without the line feed at its end.
fn prompt_text(prompt: &str) -> Result<String, Error> {
    let text = if prompt == "-" {
        let text = read_text(Path::new(prompt))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        line.strip_suffix('\r').unwrap_or(line).to_owned()
    } else {
        prompt.to_owned()
    };
    if text.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    Ok(text)
}

/// The ids of a prompt, with the one that the model wants texts to begin with.
fn prompt_ids(model: &LanguageModel, text: &str, chat: bool) -> Result<Vec<u32>, Error> {
    let mut ids = if chat {
        let failed = |source| Error::Chat {
            path: model.path.clone(),
            source: Box::new(source),
        };
        let template =
            ChatTemplate::from_gguf(model.gguf()?.metadata(), &model.tokenizer).map_err(failed)?;
        let message = Message::new("user", text);
        let prompt = template.render(&[message], true).map_err(failed)?;
        model.encode(&prompt, Specials::Parse)?
    } else {
        model.encode(text, Specials::AsText)?
    };
    // Templates often begin with it. What some models want texts to end with has no place before an answer.
    if let Some(first) = model.tokenizer.added_bos() {
        if ids.first() != Some(&first) {
            ids.insert(0, first);
        }
    }
    if ids.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    Ok(ids)
}

/// How many tokens may be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    tokens: usize,
    /// Whether the context has less room than was asked for.
    is_short: bool,
}

impl Room {
    fn new(prompt: usize, wanted: usize, context: usize) -> Result<Self, Error> {
        let left = context.checked_sub(prompt).ok_or(Error::PromptTooLong {
            tokens: prompt,
            context,
        })?;
        Ok(Self {
            tokens: wanted.min(left),
            is_short: wanted > left,
        })
    }
}

/// What was generated.
struct Written {
    ids: Vec<u32>,
    text: String,
    /// Whether the model ended the text.
    ended: bool,
}

/// Takes tokens as they come, and prints their text unless JSON is wanted.
struct Writer<'a> {
    model: &'a LanguageModel,
    stream: DecodeStream<'a>,
    prints: bool,
    written: Written,
    failure: Option<Error>,
}

impl<'a> Writer<'a> {
    fn new(model: &'a LanguageModel, arguments: &GenerateArguments) -> Self {
        // An answer is a text of its own; otherwise the text goes on from the prompt.
        let stream = if arguments.chat {
            model.tokenizer.stream()
        } else {
            model.tokenizer.stream_continuation()
        };
        Self {
            model,
            stream,
            prints: !arguments.json,
            written: Written {
                ids: Vec::new(),
                text: String::new(),
                ended: false,
            },
            failure: None,
        }
    }

    fn take(&mut self, token: u32) -> ControlFlow<()> {
        if self.model.tokenizer.is_end(token) {
            self.written.ended = true;
            return ControlFlow::Break(());
        }
        self.written.ids.push(token);
        match self.stream.push(token) {
            Some(piece) => self.put(&piece),
            None => ControlFlow::Continue(()),
        }
    }

    fn put(&mut self, piece: &str) -> ControlFlow<()> {
        self.written.text.push_str(piece);
        if !self.prints {
            return ControlFlow::Continue(());
        }
        match output::print(piece) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failure = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Ends the text with what is left of it and, where it is printed, a line feed.
    fn finish(mut self) -> Result<Written, Error> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let rest = self.stream.finish().unwrap_or_default();
        self.written.text.push_str(&rest);
        if self.prints {
            output::print(&(rest + "\n"))?;
        }
        Ok(self.written)
    }
}

#[derive(Debug, Serialize)]
struct Report {
    prompt_ids: Vec<u32>,
    /// Without the token that ended the text.
    ids: Vec<u32>,
    text: String,
    stop: &'static str,
    #[serde(flatten)]
    stats: Stats,
}

/// Times and memory. What was not there to be measured is `None`.
#[derive(Debug, Serialize)]
struct Stats {
    prompt_tokens: usize,
    /// Without the token that ended the text, which rates count.
    generated_tokens: usize,
    prompt_tokens_per_second: Option<f64>,
    generated_tokens_per_second: Option<f64>,
    time_to_first_token_seconds: Option<f64>,
    submissions_per_token: Option<f64>,
    readback_bytes_per_token: Option<f64>,
    memory: Memory,
    bits_per_weight: f64,
    adapter: String,
    backend: String,
    weight_format: String,
    activation_format: String,
    kv_format: &'static str,
}

/// Bytes on the device.
#[derive(Debug, Serialize)]
struct Memory {
    weights: u64,
    kv_cache: u64,
    activations: u64,
    total: u64,
}

impl From<MemoryUse> for Memory {
    fn from(memory: MemoryUse) -> Self {
        Self {
            weights: memory.weights,
            kv_cache: memory.kv_cache,
            activations: memory.activations,
            total: memory.total(),
        }
    }
}

impl Stats {
    fn new(
        generated_tokens: usize,
        stats: &GenerateStats,
        session: &Session,
        formats: &Formats,
        context: &Context,
    ) -> Self {
        let drawn = stats.generated_tokens;
        // The first token ends the prompt, whose submissions are its own.
        let further = drawn.saturating_sub(1);
        let per_token = |amount: f64| (further > 0).then(|| amount / further as f64);
        let caps = context.caps();
        Self {
            prompt_tokens: stats.prompt_tokens,
            generated_tokens,
            prompt_tokens_per_second: (drawn > 0).then(|| stats.prompt_rate()),
            generated_tokens_per_second: (further > 0).then(|| stats.generation_rate()),
            time_to_first_token_seconds: (drawn > 0).then_some(stats.first_token.as_secs_f64()),
            submissions_per_token: per_token(stats.submissions as f64),
            readback_bytes_per_token: per_token(stats.read_bytes as f64),
            memory: session.memory().into(),
            bits_per_weight: session.model().bits_per_weight(),
            adapter: caps.name.clone(),
            backend: caps.backend.to_string(),
            weight_format: formats.weight.clone(),
            activation_format: formats.activation.clone(),
            kv_format: formats.kv(),
        }
    }
}

impl Report {
    fn lines(&self) -> String {
        let stats = &self.stats;
        let rate = |rate: Option<f64>| match rate {
            Some(rate) => format!("{rate:.2} tokens/s"),
            None => "not measured".to_owned(),
        };
        let number = |number: Option<f64>, unit: &str| match number {
            Some(number) => format!("{number:.3} {unit}"),
            None => "not measured".to_owned(),
        };
        let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        format!(
            "prompt        {} tokens, {}\n\
             generated     {} tokens, {}, stopped by {}\n\
             first token   {}\n\
             each token    {}, {}\n\
             memory        {}: weights {}, KV cache {}, activations {}\n\
             weights       {}, {:.4} bits each\n\
             activations   {}\n\
             KV cache      {}\n\
             adapter       {} ({})",
            stats.prompt_tokens,
            rate(stats.prompt_tokens_per_second),
            stats.generated_tokens,
            rate(stats.generated_tokens_per_second),
            match self.stop {
                "end" => "the model",
                "context" => "the model's context",
                _ => "--max-tokens",
            },
            number(stats.time_to_first_token_seconds, "s"),
            number(stats.submissions_per_token, "submissions"),
            number(stats.readback_bytes_per_token, "bytes read back"),
            megabytes(stats.memory.total),
            megabytes(stats.memory.weights),
            megabytes(stats.memory.kv_cache),
            megabytes(stats.memory.activations),
            stats.weight_format,
            stats.bits_per_weight,
            stats.activation_format,
            stats.kv_format,
            stats.adapter,
            stats.backend,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms() {
        let room = |prompt, wanted| Room::new(prompt, wanted, 100).ok();
        let of = |tokens, is_short| Some(Room { tokens, is_short });
        assert_eq!(room(10, 90), of(90, false));
        assert_eq!(room(10, 91), of(90, true));
        assert_eq!(room(100, 0), of(0, false));
        assert_eq!(room(100, 5), of(0, true));
        assert_eq!(room(101, 0), None);
        assert_eq!(room(1, usize::MAX), of(99, true));
    }
}
