//! A step prepared: all kernels that bring so many tokens through a model, ready to be recorded any number of times.

use std::collections::HashMap;
use std::time::Duration;

use anybit::formats::{DeviceLayout, MatrixFormat, QuantizeRowsOptions};
use anybit::{
    Attention, Context, DeviceMatrix, Epilogue, HeadNorm, KvCache, Operands, OutputFormat,
    OutputMatrix, Plan, Prepared, Rotary, RowSource, Sampling, Sequence,
};

use crate::error::{Error, Result};
use crate::linear::{ALIGNMENT, Activations, Linear, Part};
use crate::model::{Block, Inner};

/// Bytes of logits that are held at once, unless one row is more.
const LOGIT_BYTES: usize = 8 << 20;

/// Multiply-adds that one submission may ask for where nothing is said of how long it may take.
const SUBMISSION_WORK: u64 = 1 << 38;

/// Multiply-adds a second of a slow GPU, as those of dispatches are reckoned.
const SLOW: f64 = 1e11;

/// What a step ends with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// Nothing: there are more tokens of the prompt.
    Advance,
    /// The next token, drawn.
    Draw(Sampling),
    /// The logits of all its tokens, some rows at a time.
    Logits,
    /// The cross entropies of the tokens that follow, some rows at a time.
    CrossEntropy,
}

/// Work and what it costs.
#[derive(Debug)]
struct Work {
    prepared: Prepared,
    multiply_adds: u64,
}

/// A prepared step of `rows` tokens.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) rows: usize,
    work: Vec<Work>,
    /// Rows of logits, stretch by stretch, with what makes them and then their cross entropies.
    pub(crate) logits: Vec<LogitRows>,
    /// The cross entropies of all rows.
    pub(crate) cross_entropies: Option<OutputMatrix>,
    /// What counts the tokens as done, where that is not part of drawing.
    advance: Option<Prepared>,
    bytes: u64,
}

/// A stretch of a step's rows with their logits.
#[derive(Debug)]
pub(crate) struct LogitRows {
    pub(crate) work: Vec<Prepared>,
    pub(crate) output: OutputMatrix,
}

impl Step {
    /// Bytes of its buffers on the device, without parameters.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The work in stretches, each for one submission, and of the device's longest dispatch unless one piece of work is longer: so
    /// that no driver takes it for a hang.
    pub(crate) fn submissions(&self, longest: Option<Duration>) -> Vec<Vec<&Prepared>> {
        let most = match longest {
            Some(longest) => (longest.as_secs_f64() * SLOW) as u64,
            None => SUBMISSION_WORK,
        };
        let mut submissions = vec![Vec::new()];
        let mut total = 0_u64;
        for work in &self.work {
            if total.saturating_add(work.multiply_adds) > most && total > 0 {
                submissions.push(Vec::new());
                total = 0;
            }
            total += work.multiply_adds;
            if let Some(last) = submissions.last_mut() {
                last.push(&work.prepared);
            }
        }
        submissions
    }

    /// What ends the step, if drawing does not.
    pub(crate) fn advance(&self) -> Option<&Prepared> {
        self.advance.as_ref()
    }
}

/// An f32 matrix with room to bind any row or stretch of columns.
#[derive(Clone, Debug)]
struct Wide {
    whole: OutputMatrix,
    buffer: Option<anybit::wgpu::Buffer>,
}

/// Prepares a step.
pub(crate) struct StepBuilder<'a> {
    model: &'a Inner,
    /// Leaves pipelines for later.
    context: &'a Context,
    sequence: &'a Sequence,
    caches: &'a [KvCache],
    rows: usize,
    work: Vec<Work>,
    activations: HashMap<(usize, DeviceLayout), DeviceMatrix>,
    plans: HashMap<(usize, usize, usize, MatrixFormat, bool), Plan>,
    bytes: u64,
}

impl<'a> StepBuilder<'a> {
    pub(crate) fn new(
        model: &'a Inner,
        context: &'a Context,
        sequence: &'a Sequence,
        caches: &'a [KvCache],
        rows: usize,
    ) -> Self {
        Self {
            model,
            context,
            sequence,
            caches,
            rows,
            work: Vec::new(),
            activations: HashMap::new(),
            plans: HashMap::new(),
            bytes: 0,
        }
    }

    pub(crate) fn build(mut self, end: End) -> Result<Step> {
        let model = self.model;
        let config = &model.config;
        let (queries, _) = config.attention_columns();
        let mut scratch = Scratch {
            hidden: [self.wide(config.hidden)?, self.wide(config.hidden)?],
            normed: self.wide(config.hidden)?,
            qkv: None,
            queries: self.wide(queries)?,
            attended: self.wide(queries)?,
            gate_up: None,
            gated: None,
        };
        let factor = if config.architecture.scaled_embedding {
            (config.hidden as f32).sqrt()
        } else {
            1.0
        };
        let first = self.context.prepare_gather(
            &model.embedding,
            factor,
            self.sequence,
            &scratch.hidden[0].whole,
        )?;
        self.push(first, 0);
        for (block, cache) in model.blocks.iter().zip(self.caches) {
            self.attention(block, cache, &mut scratch)?;
            self.feed_forward(block, &mut scratch)?;
        }
        self.end(end, &scratch)
    }

    fn push(&mut self, prepared: Prepared, multiply_adds: u64) {
        self.work.push(Work {
            prepared,
            multiply_adds,
        });
    }

    /// An f32 matrix of the step's rows.
    fn wide(&mut self, columns: usize) -> Result<Wide> {
        Wide::new(self, self.rows, columns)
    }

    fn attention(&mut self, block: &Block, cache: &KvCache, scratch: &mut Scratch) -> Result<()> {
        let model = self.model;
        let config = &model.config;
        let input = scratch.hidden[0].clone();
        let activations = self.normalise(&input, &block.attention_norm, &block.qkv, scratch)?;
        let qkv = match &scratch.qkv {
            Some(qkv) if qkv.whole.columns() == block.qkv.width => qkv.clone(),
            _ => self.wide(block.qkv.width)?,
        };
        scratch.qkv = Some(qkv.clone());
        self.multiply(&block.qkv, &activations, &qkv, None)?;

        let local = block.is_local.then_some(model.local_rotary.as_ref());
        let rotary = Rotary {
            table: local.flatten().unwrap_or(&model.rotary),
            pairing: config.architecture.pairing,
            query_heads: config.heads,
            columns: [
                block.qkv.starts.get(1).copied().unwrap_or(0),
                block.qkv.starts.get(2).copied().unwrap_or(0),
            ],
            bias: block.bias.as_ref(),
            norm: block.head_norms.as_ref().map(|[query, key]| HeadNorm {
                query,
                key,
                epsilon: config.epsilon,
            }),
        };
        let context = self.context;
        let rotate = context.prepare_rotate(
            &rotary,
            &qkv.whole,
            self.sequence,
            &scratch.queries.whole,
            cache,
        )?;
        self.push(rotate, 0);
        let quantize = context.prepare_quantize_cache(cache, self.sequence, self.rows)?;
        self.push(quantize, 0);
        let attention = Attention::new(1.0 / (config.head_dim as f32).sqrt())
            .with_window(config.window.filter(|_| block.is_local))
            .with_cap(config.attention_cap)
            .with_deterministic(model.options.deterministic);
        let attend = context.prepare_attention(
            &attention,
            &scratch.queries.whole,
            cache,
            self.sequence,
            &scratch.attended.whole,
        )?;
        let scores = self.rows * cache.shape().capacity * config.heads * config.head_dim;
        self.push(attend, 2 * scores as u64);

        let attended = scratch.attended.clone();
        let output = &block.attention_output;
        let activations = self.activate(&attended, &RowSource::Rows, output, None)?;
        self.add(
            output,
            &activations,
            block.attention_post_norm.as_ref(),
            scratch,
        )
    }

    fn feed_forward(&mut self, block: &Block, scratch: &mut Scratch) -> Result<()> {
        let config = &self.model.config;
        let input = scratch.hidden[0].clone();
        let norm = &block.feed_forward_norm;
        let activations = self.normalise(&input, norm, &block.gate_up, scratch)?;
        let gate_up = match &scratch.gate_up {
            Some(gate_up) if gate_up.whole.columns() == block.gate_up.width => gate_up.clone(),
            _ => self.wide(block.gate_up.width)?,
        };
        scratch.gate_up = Some(gate_up.clone());
        self.multiply(&block.gate_up, &activations, &gate_up, None)?;
        let source = RowSource::Gated {
            gate: config.architecture.gate,
            columns: config.feed_forward,
            up: block.gate_up.starts.get(1).copied().unwrap_or(0),
        };
        let gated = if self.quantizes() {
            None
        } else {
            let gated = match scratch.gated.take() {
                Some(gated) => gated,
                None => self.wide(config.feed_forward)?,
            };
            scratch.gated = Some(gated.clone());
            Some(gated)
        };
        let activations = self.activate(&gate_up, &source, &block.down, gated.as_ref())?;
        self.add(
            &block.down,
            &activations,
            block.feed_forward_post_norm.as_ref(),
            scratch,
        )
    }

    fn quantizes(&self) -> bool {
        self.model.options.precision.quantizes()
    }

    /// RMSNorm, as activations of a layer.
    fn normalise(
        &mut self,
        input: &Wide,
        weight: &DeviceMatrix,
        layer: &Linear,
        scratch: &Scratch,
    ) -> Result<Activations> {
        let source = RowSource::RmsNorm {
            weight,
            epsilon: self.model.config.epsilon,
        };
        self.activate(input, &source, layer, Some(&scratch.normed))
    }

    /// What a source makes of rows, as activations of a layer: quantised, or f32 in `plain`.
    fn activate(
        &mut self,
        input: &Wide,
        source: &RowSource<'_>,
        layer: &Linear,
        plain: Option<&Wide>,
    ) -> Result<Activations> {
        let context = self.context;
        let rows = input.whole.rows();
        let mut input = input.activation()?;
        let mut source = *source;
        if let (false, Some(plain)) = (self.quantizes(), plain)
            && !matches!(source, RowSource::Rows)
        {
            let write = context.prepare_rows(&input, &source, None, &plain.whole)?;
            self.push(write, 0);
            input = plain.activation()?;
            source = RowSource::Rows;
        }
        let mut activations = Activations::default();
        for part in &layer.parts {
            let layout = self.plan(part, rows, false)?.activation_layout();
            if activations.get(layout).is_some() {
                continue;
            }
            if !self.quantizes() {
                activations.insert(layout, input.clone());
                continue;
            }
            let columns = part.matrix.columns();
            let target = self.quantized(rows, columns, layout)?;
            let quantize = self.context.prepare_quantize_source(
                &input,
                &source,
                &target,
                &QuantizeRowsOptions::default(),
            )?;
            self.push(quantize.work, 0);
            activations.insert(layout, target);
        }
        Ok(activations)
    }

    /// A matrix of codes, shared by all that need one of its kind: work is done in order.
    fn quantized(
        &mut self,
        rows: usize,
        columns: usize,
        layout: DeviceLayout,
    ) -> Result<DeviceMatrix> {
        if let Some(matrix) = self.activations.get(&(columns, layout))
            && matrix.rows() == rows
        {
            return Ok(matrix.clone());
        }
        let format = self.model.options.precision.activation;
        let matrix = self.context.allocate(format, rows, columns, &layout)?;
        self.bytes += matrix.bytes();
        self.activations.insert((columns, layout), matrix.clone());
        Ok(matrix)
    }

    fn plan(&mut self, part: &Part, rows: usize, residual: bool) -> Result<Plan> {
        let matrix = &part.matrix;
        let key = (
            rows,
            matrix.rows(),
            matrix.columns(),
            *matrix.format(),
            residual,
        );
        if let Some(plan) = self.plans.get(&key) {
            return Ok(plan.clone());
        }
        let plan = part.plan(
            self.context,
            rows,
            self.model.options.precision.activation,
            residual,
            &self.model.plan_options,
        )?;
        self.plans.insert(key, plan.clone());
        Ok(plan)
    }

    /// The products of a layer, side by side in the output.
    fn multiply(
        &mut self,
        layer: &Linear,
        activations: &Activations,
        output: &Wide,
        residual: Option<&Wide>,
    ) -> Result<()> {
        let rows = output.whole.rows();
        for part in &layer.parts {
            let plan = self.plan(part, rows, residual.is_some())?;
            let activation = activations
                .get(plan.activation_layout())
                .ok_or(Error::Internal {
                    what: "a product reads activations in a layout that nothing has made",
                })?;
            let target = output.columns(part.columns.start, part.columns.len())?;
            let added = residual
                .map(|residual| residual.columns(part.columns.start, part.columns.len()))
                .transpose()?;
            let epilogue = added
                .as_ref()
                .map_or_else(Epilogue::default, Epilogue::residual);
            let product = self.context.prepare_with(
                &plan,
                Operands {
                    activation,
                    weight: &part.matrix,
                    output: &target,
                },
                &epilogue,
            )?;
            let work = rows as u64 * (part.matrix.rows() * part.matrix.columns()) as u64;
            self.push(product, work);
        }
        Ok(())
    }

    /// A layer's output added to the residual stream, which changes its buffer: none is read and written at once.
    fn add(
        &mut self,
        layer: &Linear,
        activations: &Activations,
        post_norm: Option<&DeviceMatrix>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let [stream, next] = scratch.hidden.clone();
        match post_norm {
            None => self.multiply(layer, activations, &next, Some(&stream))?,
            Some(weight) => {
                self.multiply(layer, activations, &scratch.normed.clone(), None)?;
                let source = RowSource::RmsNorm {
                    weight,
                    epsilon: self.model.config.epsilon,
                };
                let add = self.context.prepare_rows(
                    &scratch.normed.activation()?,
                    &source,
                    Some(&stream.whole),
                    &next.whole,
                )?;
                self.push(add, 0);
            }
        }
        scratch.hidden = [next, stream];
        Ok(())
    }

    fn end(mut self, end: End, scratch: &Scratch) -> Result<Step> {
        let model = self.model;
        let mut logits = Vec::new();
        let mut cross_entropies = None;
        let mut advance = None;
        match end {
            End::Advance => {
                advance = Some(self.context.prepare_advance(self.sequence, self.rows)?);
            }
            End::Draw(sampling) => {
                let last = scratch.hidden[0].rows(self.rows - 1, 1)?;
                let output = self.logits(&last, 1)?;
                let draw = self.context.prepare_draw(
                    &output.whole,
                    model.config.logit_cap,
                    &sampling,
                    self.sequence,
                    self.rows,
                )?;
                self.push(draw, 0);
            }
            End::Logits | End::CrossEntropy => {
                let row_bytes = 4 * model.config.vocabulary.next_multiple_of(ALIGNMENT);
                let most = (LOGIT_BYTES / row_bytes).clamp(1, self.rows);
                let output = Wide::new(&mut self, most, model.config.vocabulary)?;
                let entropies = if end == End::CrossEntropy {
                    Some(self.wide(1)?)
                } else {
                    None
                };
                let whole = std::mem::take(&mut self.work);
                let mut first = 0;
                while first < self.rows {
                    let count = most.min(self.rows - first);
                    let part = output.rows(0, count)?;
                    self.logits_into(&scratch.hidden[0].rows(first, count)?, &part)?;
                    if let Some(entropies) = &entropies {
                        let entropy = self.context.prepare_cross_entropy(
                            &part.whole,
                            model.config.logit_cap,
                            self.sequence,
                            first,
                            &entropies.rows(first, count)?.whole,
                        )?;
                        self.push(entropy, 0);
                    }
                    let work = std::mem::take(&mut self.work);
                    logits.push(LogitRows {
                        work: work.into_iter().map(|work| work.prepared).collect(),
                        output: part.whole,
                    });
                    first += count;
                }
                self.work = whole;
                cross_entropies = entropies.map(|entropies| entropies.whole);
                advance = Some(self.context.prepare_advance(self.sequence, self.rows)?);
            }
        }
        Ok(Step {
            rows: self.rows,
            work: self.work,
            logits,
            cross_entropies,
            advance,
            bytes: self.bytes,
        })
    }

    /// The logits of rows of the residual stream.
    fn logits(&mut self, input: &Wide, rows: usize) -> Result<Wide> {
        let output = Wide::new(self, rows, self.model.config.vocabulary)?;
        self.logits_into(input, &output)?;
        Ok(output)
    }

    fn logits_into(&mut self, input: &Wide, output: &Wide) -> Result<()> {
        let model = self.model;
        let normed = Wide::new(self, input.whole.rows(), model.config.hidden)?;
        let source = RowSource::RmsNorm {
            weight: &model.output_norm,
            epsilon: model.config.epsilon,
        };
        let activations = self.activate(input, &source, &model.head, Some(&normed))?;
        self.multiply(&model.head, &activations, output, None)
    }
}

/// The buffers of a step, which its layers share.
struct Scratch {
    /// The residual stream as it is, and where the next sum goes.
    hidden: [Wide; 2],
    normed: Wide,
    qkv: Option<Wide>,
    queries: Wide,
    attended: Wide,
    gate_up: Option<Wide>,
    gated: Option<Wide>,
}

impl Wide {
    fn new(builder: &mut StepBuilder<'_>, rows: usize, columns: usize) -> Result<Self> {
        let stride = columns.next_multiple_of(ALIGNMENT);
        // A row more than there are, so that a stretch of columns may be bound with whole rows.
        let room = builder
            .context
            .output(OutputFormat::F32, rows + 1, stride)?;
        let buffer = room.buffer().cloned();
        builder.bytes += buffer.as_ref().map_or(0, anybit::wgpu::Buffer::size);
        let whole = match &buffer {
            Some(buffer) => {
                OutputMatrix::from_buffer(buffer, 0, OutputFormat::F32, (rows, columns), stride)?
            }
            None => room,
        };
        Ok(Self { whole, buffer })
    }

    fn activation(&self) -> Result<DeviceMatrix> {
        self.whole.as_activation().ok_or(Error::Internal {
            what: "an output of integers stands where activations should",
        })
    }

    fn part(&self, first: u64, rows: usize, columns: usize) -> Result<OutputMatrix> {
        match &self.buffer {
            Some(buffer) => Ok(OutputMatrix::from_buffer(
                buffer,
                4 * first,
                OutputFormat::F32,
                (rows, columns),
                self.whole.row_stride(),
            )?),
            None => Ok(self.whole.clone()),
        }
    }

    /// A stretch of columns of all rows; it begins at a multiple of [`ALIGNMENT`].
    fn columns(&self, first: usize, count: usize) -> Result<OutputMatrix> {
        self.part(first as u64, self.whole.rows(), count)
    }

    /// Some rows.
    fn rows(&self, first: usize, count: usize) -> Result<Self> {
        let offset = first as u64 * self.whole.row_stride() as u64;
        Ok(Self {
            whole: self.part(offset, count, self.whole.columns())?,
            buffer: self.buffer.clone(),
        })
    }
}
