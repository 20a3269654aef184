//! A text on the device: its tokens, keys and values, and the steps that extend it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anybit::{DeviceClass, KvCache, KvShape, Prepared, Sampling, Sequence};

use crate::error::{Error, Result};
use crate::model::Model;
use crate::step::{End, Step, StepBuilder};

/// Tokens of a step, at most, while a prompt is worked on.
pub(crate) const CHUNK: usize = 128;

/// Bytes on the device, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Weights, with norms and rotary tables.
    pub weights: u64,
    /// Keys and values.
    pub kv_cache: u64,
    /// Activations and logits of the steps that are prepared now, and the tokens.
    pub activations: u64,
}

impl MemoryUse {
    /// All together.
    pub fn total(&self) -> u64 {
        self.weights + self.kv_cache + self.activations
    }
}

/// What generating took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GenerateStats {
    /// Tokens of the prompt that were worked on.
    pub prompt_tokens: usize,
    /// Tokens drawn.
    pub generated_tokens: usize,
    /// From the first submission to the first token drawn, which ends the prompt. Preparing is not part of it.
    pub first_token: Duration,
    /// From the first token drawn to the last.
    pub generation: Duration,
    /// Submissions after the prompt: one a token.
    pub submissions: usize,
    /// Bytes read back after the prompt: four a token.
    pub read_bytes: u64,
}

impl GenerateStats {
    /// Tokens of the prompt a second, its first drawn token included in the time.
    pub fn prompt_rate(&self) -> f64 {
        rate(self.prompt_tokens, self.first_token)
    }

    /// Tokens drawn a second, after the first.
    pub fn generation_rate(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.generation)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    tokens as f64 / time.as_secs_f64()
}

/// A text that a model works on, with its keys and values.
///
/// The steps of generating are prepared once and recorded again for each token; a token costs one submission and four bytes read
/// back.
#[derive(Debug)]
pub struct Session {
    model: Model,
    sequence: Sequence,
    caches: Vec<KvCache>,
    capacity: usize,
    chunk: usize,
    /// Tokens whose keys and values are cached.
    done: usize,
    /// Whether the next step is submitted before a drawn token is read.
    look_ahead: bool,
    /// Set to make it stop, if anyone can.
    stop: Option<Arc<AtomicBool>>,
    decode: Option<(End, Step)>,
    chunk_step: Option<(End, Step)>,
}

impl Session {
    /// An empty text with room for so many tokens, those to be generated included.
    ///
    /// # Errors
    ///
    /// [`Error::Context`] for more than the model was loaded for; [`Error::DeviceTooSmall`] and [`Error::Gpu`] for its memory.
    pub fn new(model: &Model, capacity: usize) -> Result<Self> {
        Self::with_chunk(model, capacity, CHUNK)
    }

    /// The same, working on prompts so many tokens at a time.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub fn with_chunk(model: &Model, capacity: usize, chunk: usize) -> Result<Self> {
        if capacity > model.capacity() {
            return Err(Error::Context {
                needed: capacity,
                limit: model.capacity(),
            });
        }
        let capacity = capacity.max(1);
        let chunk = chunk.clamp(1, capacity);
        let config = model.config();
        let shape = KvShape {
            heads: config.kv_heads,
            head_dim: config.head_dim,
            capacity,
            step: chunk,
        };
        let context = model.context();
        let caches = (0..config.blocks)
            .map(|_| Ok(context.kv_cache(model.precision().kv, shape)?))
            .collect::<Result<_>>()?;
        Ok(Self {
            model: model.clone(),
            // A drawn token is written before it is worked on.
            sequence: context.sequence(capacity + 1)?,
            caches,
            capacity,
            chunk,
            done: 0,
            look_ahead: context.caps().class == DeviceClass::Gpu,
            stop: None,
            decode: None,
            chunk_step: None,
        })
    }

    /// Whether generating submits the next step before the host has read the token that it works on; one step too many is then
    /// worked on where the text ends early. By default on GPUs, which need not wait for the host; a driver that runs on the host
    /// gains nothing. The tokens are the same.
    pub fn set_look_ahead(&mut self, look_ahead: bool) {
        self.look_ahead = look_ahead;
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Tokens whose keys and values are cached.
    pub fn len(&self) -> usize {
        self.done
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.done == 0
    }

    /// Tokens that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes on the device, as things stand.
    pub fn memory(&self) -> MemoryUse {
        let steps = [&self.decode, &self.chunk_step];
        let steps = steps.into_iter().flatten().map(|(_, step)| step.bytes());
        MemoryUse {
            weights: self.model.weight_bytes(),
            kv_cache: self.caches.iter().map(KvCache::bytes).sum(),
            activations: steps.sum::<u64>() + self.sequence.bytes(),
        }
    }

    /// Forgets the text, or all of it from a token on.
    ///
    /// # Errors
    ///
    /// [`Error::Context`] for more tokens than are cached; [`Error::Gpu`]. With a quantised KV cache only 0 is safe, as the
    /// recent tokens of an earlier place are gone: other lengths are [`Error::Context`] too.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        let quantised = self.model.precision().kv.code_bits().is_some();
        let limit = if quantised { 0 } else { self.done };
        if tokens > limit && tokens != self.done {
            return Err(Error::Context {
                needed: tokens,
                limit,
            });
        }
        self.model.context().write_done(&self.sequence, tokens)?;
        self.done = tokens;
        Ok(())
    }

    /// Works on tokens and caches their keys and values, without drawing any.
    ///
    /// # Errors
    ///
    /// [`Error::Token`]; [`Error::Context`] if they do not fit; [`Error::Stopped`]; [`Error::Gpu`].
    pub fn feed(&mut self, tokens: &[u32]) -> Result<()> {
        self.write(tokens)?;
        self.advance_to(self.done + tokens.len())
    }

    /// Generates tokens after the text and the prompt, of one token at least, until `each` breaks or so many are drawn. `each` gets
    /// every token as it comes; the last one drawn is not cached yet.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewTokens`] without a prompt; [`Error::Token`]; [`Error::Context`] if prompt and new tokens do not fit;
    /// [`Error::Stopped`] within the prompt, by [`stop_with`](Self::stop_with); [`Error::Gpu`].
    pub fn generate(
        &mut self,
        prompt: &[u32],
        most: usize,
        sampling: &Sampling,
        each: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<GenerateStats> {
        sampling.check()?;
        if prompt.is_empty() {
            return Err(Error::TooFewTokens {
                what: "the prompt",
                least: 1,
                actual: 0,
            });
        }
        let needed = (self.done + prompt.len()).saturating_add(most.saturating_sub(1));
        if needed > self.capacity {
            return Err(Error::Context {
                needed,
                limit: self.capacity,
            });
        }
        let mut stats = GenerateStats {
            prompt_tokens: prompt.len(),
            ..GenerateStats::default()
        };
        if most == 0 {
            self.feed(prompt)?;
            return Ok(stats);
        }
        self.write(prompt)?;
        let end = End::Draw(*sampling);
        self.prepare_decode(end)?;
        let last = self.done + prompt.len();
        let rows = (prompt.len() - 1) % self.chunk + 1;
        if rows < prompt.len() {
            self.chunk_step(self.chunk, End::Advance)?;
        }
        let last_step = if rows == 1 {
            None
        } else {
            Some(self.step(rows, end)?)
        };
        let started = Instant::now();
        self.advance_to(last - rows)?;
        self.check_stop()?;
        let mut pending = match last_step {
            None => self.draw()?,
            Some(step) => {
                let pending = self.submit_draw(&step)?;
                self.done += rows;
                pending
            }
        };
        loop {
            let more = stats.generated_tokens + 1 < most && self.done < self.capacity;
            let next = if self.look_ahead && more {
                Some(self.draw()?)
            } else {
                None
            };
            let token = pending.read_blocking()?;
            stats.generated_tokens += 1;
            if stats.generated_tokens == 1 {
                stats.first_token = started.elapsed();
            } else {
                stats.generation = started.elapsed() - stats.first_token;
                stats.submissions += 1;
                stats.read_bytes += 4;
            }
            let stop = each(token).is_break() || self.is_stopped();
            if stop || !more {
                if let Some(next) = next {
                    // Its token was never asked for.
                    next.read_blocking()?;
                    self.take_back()?;
                }
                break;
            }
            pending = match next {
                Some(next) => next,
                None => self.draw()?,
            };
        }
        Ok(stats)
    }

    /// The logits of tokens after the text, row by row, before any soft cap. The tokens are cached.
    ///
    /// # Errors
    ///
    /// [`Error::Token`]; [`Error::Context`] if they do not fit; [`Error::Stopped`]; [`Error::Gpu`].
    pub fn logits(&mut self, tokens: &[u32], each: &mut dyn FnMut(&[f32])) -> Result<()> {
        let end = self.done + tokens.len();
        if end > self.capacity {
            return Err(Error::Context {
                needed: end,
                limit: self.capacity,
            });
        }
        self.write(tokens)?;
        while self.done < end {
            self.check_stop()?;
            let rows = self.chunk.min(end - self.done);
            self.run_logits(rows, each)?;
        }
        Ok(())
    }

    /// −ln of the probability of each token after the first, given those before it: one less than there are tokens. The text
    /// is forgotten first.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewTokens`] for less than two; [`Error::Token`]; [`Error::Context`] if they do not fit; [`Error::Stopped`];
    /// [`Error::Gpu`].
    pub fn cross_entropies(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        if tokens.len() < 2 {
            return Err(Error::TooFewTokens {
                what: "a text whose perplexity is taken",
                least: 2,
                actual: tokens.len(),
            });
        }
        self.truncate(0)?;
        self.write(tokens)?;
        let end = tokens.len() - 1;
        let mut values = Vec::with_capacity(end);
        while self.done < end {
            self.check_stop()?;
            let rows = self.chunk.min(end - self.done);
            values.extend(self.run_cross_entropies(rows)?);
        }
        Ok(values)
    }

    /// Writes tokens after those that are done.
    fn write(&mut self, tokens: &[u32]) -> Result<()> {
        let vocabulary = self.model.config().vocabulary;
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::Token { id, vocabulary });
        }
        // A text whose cross entropies are taken ends with a token that is not worked on.
        let needed = self.done + tokens.len();
        if needed > self.capacity + 1 {
            return Err(Error::Context {
                needed,
                limit: self.capacity,
            });
        }
        let context = self.model.context();
        context.write_tokens(&self.sequence, self.done, tokens)?;
        Ok(())
    }

    /// Lets another thread stop work on long texts: once the flag is set, [`feed`](Self::feed), [`generate`](Self::generate),
    /// [`logits`](Self::logits) and [`cross_entropies`](Self::cross_entropies) return [`Error::Stopped`] before their next chunk
    /// of tokens. What is done stays, and after the flag is cleared the text can go on from there. Once it has new tokens,
    /// [`generate`](Self::generate) ends with those it has instead, as if what it calls for each had said so.
    ///
    /// With a flag, one chunk at a time is handed to the device, so that it does not work on long after it was told to stop;
    /// `None` takes the flag away.
    pub fn stop_with(&mut self, flag: Option<Arc<AtomicBool>>) {
        self.stop = flag;
    }

    fn is_stopped(&self) -> bool {
        let flag = self.stop.as_ref();
        flag.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Ends the work if it was told to stop.
    fn check_stop(&self) -> Result<()> {
        match self.is_stopped() {
            true => Err(Error::Stopped { done: self.done }),
            false => Ok(()),
        }
    }

    /// Waits until the device has done what was submitted.
    fn wait(&self) -> Result<()> {
        let context = self.model.context();
        let pending =
            context.submit(|encoder| context.encode_read_drawn(encoder, &self.sequence))?;
        pending.read_blocking()?;
        Ok(())
    }

    fn step(&self, rows: usize, end: End) -> Result<Step> {
        let model = &self.model.inner;
        model.context.prepare_together(|context| {
            StepBuilder::new(model, context, &self.sequence, &self.caches, rows).build(end)
        })
    }

    /// The step for a chunk, prepared anew unless the last one was alike.
    fn chunk_step(&mut self, rows: usize, end: End) -> Result<()> {
        let kept = |kept: &(End, Step)| kept.0 == end && kept.1.rows == rows;
        if !self.chunk_step.as_ref().is_some_and(kept) {
            // The old one's buffers go first.
            self.chunk_step = None;
            self.chunk_step = Some((end, self.step(rows, end)?));
        }
        Ok(())
    }

    /// Works on the tokens before `end` that are not done, in chunks.
    fn advance_to(&mut self, end: usize) -> Result<()> {
        if end > self.capacity {
            return Err(Error::Context {
                needed: end,
                limit: self.capacity,
            });
        }
        while self.done < end {
            self.check_stop()?;
            let rows = self.chunk.min(end - self.done);
            self.chunk_step(rows, End::Advance)?;
            if let Some((_, step)) = &self.chunk_step {
                self.submit(step, step.advance())?;
            }
            self.done += rows;
            if self.stop.is_some() {
                self.wait()?;
            }
        }
        Ok(())
    }

    /// Submits a step's work, and what ends it.
    fn submit(&self, step: &Step, last: Option<&Prepared>) -> Result<()> {
        let context = self.model.context();
        let submissions = step.submissions(context.longest_dispatch());
        let count = submissions.len();
        for (index, mut work) in submissions.into_iter().enumerate() {
            if index + 1 == count {
                work.extend(last);
            }
            context.submit(|encoder| {
                encode(encoder, &work);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn prepare_decode(&mut self, end: End) -> Result<()> {
        if self.decode.as_ref().is_none_or(|(kept, _)| *kept != end) {
            self.decode = None;
            self.decode = Some((end, self.step(1, end)?));
        }
        Ok(())
    }

    /// Submits the step for one token, which draws the next.
    fn draw(&mut self) -> Result<anybit::PendingToken> {
        let Some((_, step)) = &self.decode else {
            return Err(Error::Internal {
                what: "a token is drawn by a step that was not prepared",
            });
        };
        let pending = self.submit_draw(step)?;
        self.done += 1;
        Ok(pending)
    }

    fn submit_draw(&self, step: &Step) -> Result<anybit::PendingToken> {
        let context = self.model.context();
        let mut submissions = step.submissions(context.longest_dispatch());
        let last = submissions.pop().unwrap_or_default();
        for work in submissions {
            context.submit(|encoder| {
                encode(encoder, &work);
                Ok(())
            })?;
        }
        Ok(context.submit(|encoder| {
            encode(encoder, &last);
            context.encode_read_drawn(encoder, &self.sequence)
        })?)
    }

    /// Forgets the step that was submitted ahead of need.
    fn take_back(&mut self) -> Result<()> {
        self.done -= 1;
        Ok(self.model.context().write_done(&self.sequence, self.done)?)
    }

    fn run_logits(&mut self, rows: usize, each: &mut dyn FnMut(&[f32])) -> Result<()> {
        self.chunk_step(rows, End::Logits)?;
        let Some((_, step)) = &self.chunk_step else {
            return Ok(());
        };
        self.submit(step, None)?;
        let context = self.model.context();
        for part in &step.logits {
            let work: Vec<&Prepared> = part.work.iter().collect();
            let pending = context.submit_and_read(&work, &part.output)?;
            let values = pending.read_blocking()?.into_f32().unwrap_or_default();
            for row in values.chunks_exact(part.output.columns().max(1)) {
                each(row);
            }
        }
        self.finish(rows)
    }

    /// Counts a step's tokens as done whose own work has been submitted.
    fn finish(&mut self, rows: usize) -> Result<()> {
        if let Some((_, step)) = &self.chunk_step {
            let work: Vec<&Prepared> = step.advance().into_iter().collect();
            self.model.context().submit(|encoder| {
                encode(encoder, &work);
                Ok(())
            })?;
        }
        self.done += rows;
        Ok(())
    }

    fn run_cross_entropies(&mut self, rows: usize) -> Result<Vec<f32>> {
        self.chunk_step(rows, End::CrossEntropy)?;
        let Some((_, step)) = &self.chunk_step else {
            return Ok(Vec::new());
        };
        self.submit(step, None)?;
        let work: Vec<&Prepared> = step.logits.iter().flat_map(|part| &part.work).collect();
        let Some(output) = &step.cross_entropies else {
            return Ok(Vec::new());
        };
        let values = self
            .model
            .context()
            .submit_and_read(&work, output)?
            .read_blocking()?
            .into_f32()
            .unwrap_or_default();
        self.finish(rows)?;
        Ok(values)
    }
}

fn encode(encoder: &mut anybit::wgpu::CommandEncoder, work: &[&Prepared]) {
    let mut pass = encoder.begin_compute_pass(&anybit::wgpu::ComputePassDescriptor {
        label: Some("a step"),
        timestamp_writes: None,
    });
    for prepared in work {
        prepared.encode(&mut pass);
    }
}
