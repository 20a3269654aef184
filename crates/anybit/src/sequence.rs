//! A sequence of tokens on the device, and the kernels that read and extend it.

use anybit_formats::{DeviceLayout, MatrixFormat};
use anybit_shaders::Header;
use bytemuck::{Pod, Zeroable};

use crate::caps::Caps;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::matrix::{DeviceMatrix, OutputMatrix};
use crate::pipeline::{Binding, operand_bindings};
use crate::plan::fold_grid;
use crate::prepare::{OperandParams, Prepared};
use crate::problem::OutputFormat;
use crate::readback::PendingWords;
use crate::row_kernels::{WORKGROUP, decoding_specialization};
use crate::specialize::{ShaderKey, Specialization, log2};

/// `SEQUENCE_DRAWN` and `SEQUENCE_IDS` of core/sequence.wgsl.
const DRAWN: u64 = 1;
const IDS: u64 = 4;

/// Logits that one workgroup looks through for the largest.
const STRETCH: u32 = 1024;

/// Invocations of the kernel that draws a token, of which there is one workgroup.
const DRAW_WORKGROUP: u32 = 256;

/// `GatherParams` of kernel/gather.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct GatherParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    output_row: u32,
    first: u32,
    factor: f32,
    padding: [u32; 2],
    operand: OperandParams,
}

/// `CrossEntropyParams` of kernel/cross_entropy.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct CrossEntropyParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    input_row: u32,
    output_row: u32,
    first: u32,
    cap: f32,
    padding: u32,
}

/// `DrawParams` of kernel/draw.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct DrawParams {
    columns: u32,
    parts: u32,
    rows: u32,
    top_k: u32,
    top_p: u32,
    seed: u32,
    temperature: f32,
    cap: f32,
}

/// Token ids on the device, and how many of them are done: those whose keys and values are cached.
///
/// A *step* works on the next tokens, however many its kernels were prepared for; the kernel that ends it counts them as done. So
/// the same recorded work serves every step, and nothing is uploaded between two.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub(crate) buffer: wgpu::Buffer,
    capacity: usize,
}

impl Sequence {
    /// Tokens that it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that it takes on the device.
    pub fn bytes(&self) -> u64 {
        self.buffer.size()
    }

    /// Its words on the device, usage COPY_SRC and COPY_DST among others: how many tokens are done, the token drawn last, two
    /// of no use, and the ids of all tokens.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }
}

/// How a token is drawn from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// What logits are divided by; 0, and what is subnormal, takes the largest, of equal ones the first.
    pub temperature: f32,
    /// Only from so many likeliest tokens, and those that equal the last of them; 0: from all.
    pub top_k: usize,
    /// Only from the fewest likeliest tokens that hold this probability together, and those that equal the last; 1: from all.
    pub top_p: f32,
    /// Which random numbers. A token depends on it, on its place in the sequence and on the logits.
    pub seed: u32,
}

impl Sampling {
    /// The likeliest token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 0,
    };

    /// From all tokens at a temperature.
    pub fn temperature(temperature: f32, seed: u32) -> Self {
        Self {
            temperature,
            seed,
            ..Self::GREEDY
        }
    }

    /// Only from the `top_k` likeliest.
    #[must_use]
    pub fn with_top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// Only from the likeliest that hold the probability `top_p`.
    #[must_use]
    pub fn with_top_p(mut self, top_p: f32) -> Self {
        self.top_p = top_p;
        self
    }

    /// Whether the numbers can be used.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] for a temperature that is negative or not finite, or a `top_p` outside 0 to 1.
    pub fn check(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(Error::Parameter {
                what: "the temperature",
                value: self.temperature.to_string(),
                expected: "finite and at least 0".into(),
            });
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return Err(Error::Parameter {
                what: "top-p",
                value: self.top_p.to_string(),
                expected: "between 0 and 1".into(),
            });
        }
        Ok(())
    }

    /// `top_p` as a fraction of 2^32; the largest for all.
    pub(crate) fn top_p_bits(&self) -> u32 {
        if self.top_p >= 1.0 {
            return u32::MAX;
        }
        // Below 1, so the product is below 2^32, and u32::MAX stays free.
        ((f64::from(self.top_p) * 4_294_967_296.0) as u32).min(u32::MAX - 1)
    }
}

/// The shader that gathers rows of a format and layout.
pub(crate) fn gather_specialization(
    format: &MatrixFormat,
    layout: &DeviceLayout,
) -> Specialization {
    decoding_specialization("gather", "kernel/gather", format, layout)
}

pub(crate) fn cross_entropy_specialization(caps: &Caps, capped: bool) -> Specialization {
    let (join, variant) = join_module(caps);
    let cap = if capped { "_capped" } else { "" };
    Specialization {
        id: format!("cross_entropy_f32_f32{cap}__{WORKGROUP}{variant}"),
        key: ShaderKey {
            root: "kernel/cross_entropy",
            slots: vec![("join", join)],
            header: Header::new()
                .constant_u32("WORKGROUP", WORKGROUP)
                .constant_u32("WORKGROUP_LOG2", log2(WORKGROUP))
                .constant_bool("SOFT_CAP", capped),
        },
        workgroup: WORKGROUP,
        workgroup_memory: 16 * WORKGROUP,
        subgroup: caps.subgroup.is_some(),
    }
}

/// How numbers are joined over a workgroup, and the end of a kernel's id.
pub(crate) fn join_module(caps: &Caps) -> (&'static str, &'static str) {
    match caps.subgroup {
        Some(_) => ("join/subgroup", "_subgroup"),
        None => ("join/workgroup", ""),
    }
}

pub(crate) fn largest_specialization() -> Specialization {
    Specialization {
        id: format!("largest_f32__{STRETCH}"),
        key: ShaderKey {
            root: "kernel/largest",
            slots: Vec::new(),
            header: Header::new()
                .constant_u32("WORKGROUP", WORKGROUP)
                .constant_u32("WORKGROUP_LOG2", log2(WORKGROUP))
                .constant_u32("STRETCH", STRETCH),
        },
        workgroup: WORKGROUP,
        workgroup_memory: 8 * WORKGROUP,
        subgroup: false,
    }
}

pub(crate) fn draw_specialization() -> Specialization {
    Specialization {
        id: format!("draw_f32__{DRAW_WORKGROUP}"),
        key: ShaderKey {
            root: "kernel/draw",
            slots: Vec::new(),
            header: Header::new()
                .constant_u32("WORKGROUP", DRAW_WORKGROUP)
                .constant_u32("WORKGROUP_LOG2", log2(DRAW_WORKGROUP))
                .constant_u32("ROUNDING", 3),
        },
        workgroup: DRAW_WORKGROUP,
        // Two bins of a word and a pair a invocation, and one vector.
        workgroup_memory: 8 * 256 + 8 * DRAW_WORKGROUP + 16,
        subgroup: false,
    }
}

pub(crate) fn advance_specialization() -> Specialization {
    Specialization {
        id: "advance__1".into(),
        key: ShaderKey {
            root: "kernel/advance",
            slots: Vec::new(),
            header: Header::new(),
        },
        workgroup: 1,
        workgroup_memory: 0,
        subgroup: false,
    }
}

impl Context {
    /// An empty sequence with room for so many tokens.
    ///
    /// # Errors
    ///
    /// [`Error::BindingTooLarge`]; [`Error::OutOfMemory`].
    pub fn sequence(&self, capacity: usize) -> Result<Sequence> {
        let bytes = (capacity as u64).saturating_add(IDS).saturating_mul(4);
        let limit = self.inner.caps.max_binding;
        if bytes > limit {
            return Err(Error::BindingTooLarge {
                what: "a sequence",
                bytes,
                limit,
            });
        }
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        Ok(Sequence {
            buffer: self.buffer("a sequence", bytes, usage)?,
            capacity,
        })
    }

    /// Writes token ids from a place of the sequence on, before what is submitted next.
    ///
    /// Ids must be below the rows of the matrix that [`prepare_gather`](Self::prepare_gather) reads; others gather nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if they run past its capacity; [`Error::DeviceLost`].
    pub fn write_tokens(&self, sequence: &Sequence, first: usize, ids: &[u32]) -> Result<()> {
        self.write_sequence(
            sequence,
            first.saturating_add(ids.len()),
            IDS.saturating_add(first as u64),
            ids,
        )
    }

    /// Says how many of the sequence's tokens are done, before what is submitted next: 0 to begin anew.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if they are more than its capacity; [`Error::DeviceLost`].
    pub fn write_done(&self, sequence: &Sequence, done: usize) -> Result<()> {
        self.write_sequence(sequence, done, 0, &[done as u32])
    }

    fn write_sequence(
        &self,
        sequence: &Sequence,
        end: usize,
        word: u64,
        words: &[u32],
    ) -> Result<()> {
        if end > sequence.capacity {
            return Err(Error::TooLarge {
                what: "the length of the sequence",
                value: end as u64,
                limit: sequence.capacity as u64,
            });
        }
        if words.is_empty() {
            return Ok(());
        }
        self.write(&sequence.buffer, 4 * word, words)
    }

    /// Records a copy of the token drawn last to the host: four bytes. Submit the encoder, then read.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`]; [`Error::DeviceLost`].
    pub fn encode_read_drawn(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        sequence: &Sequence,
    ) -> Result<PendingToken> {
        let word = 4 * DRAWN;
        Ok(PendingToken(self.copy_out(
            encoder,
            &sequence.buffer,
            word..word + 4,
        )?))
    }

    /// Prepares `gather`: the rows of a matrix of any format and layout that the sequence's next tokens name, one for each row of
    /// the output, as f32 and multiplied by `factor`.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] unless the output has the matrix's columns; [`Error::TooLarge`] for more rows than the sequence
    /// has room for; [`Error::OutputMismatch`]; [`Error::Aliased`]; [`Error::Nested`].
    pub fn prepare_gather(
        &self,
        matrix: &DeviceMatrix,
        factor: f32,
        sequence: &Sequence,
        output: &OutputMatrix,
    ) -> Result<Prepared> {
        matrix.check_stored("the matrix to gather from")?;
        let specialization = gather_specialization(&matrix.format, &matrix.layout);
        if output.columns != matrix.columns {
            return Err(Error::ShapeMismatch {
                what: "the gathered rows",
                expected: (output.rows, matrix.columns),
                actual: (output.rows, output.columns),
            });
        }
        check_output(output)?;
        sequence.check_rows(output.rows)?;
        let Some(target) = output.binding() else {
            return Ok(Prepared::new(specialization.id, Vec::new()));
        };
        if matrix.is_in(target.buffer) {
            return Err(Error::Aliased { what: "the matrix" });
        }
        let [codes, side] = operand_bindings(matrix.layout.memory);
        let layout = [Binding::Uniform, codes, side, Binding::Read, Binding::Write];
        let pipeline = self.pipeline(&specialization, &layout)?;
        let vectors = output.columns.div_ceil(4) as u64;
        let workgroups = (output.rows as u64 * vectors).div_ceil(u64::from(WORKGROUP));
        let [x, y] = fold_grid(workgroups, self.inner.caps.max_workgroups)?;
        let mut dispatches = Vec::new();
        for chunk in &matrix.chunks {
            let params = GatherParams {
                rows: output.rows as u32,
                columns: output.columns as u32,
                grid_x: x,
                output_row: output.row_stride,
                first: chunk.rows.start as u32,
                factor,
                padding: [0; 2],
                operand: OperandParams::new(
                    &matrix.format,
                    &matrix.layout,
                    matrix.columns,
                    chunk,
                    0,
                    |_| 0,
                ),
            };
            let [codes, side] = chunk.resources();
            dispatches.push(self.dispatch_resources(
                &pipeline,
                &specialization,
                &layout,
                bytemuck::bytes_of(&params),
                &[
                    codes,
                    side,
                    sequence.buffer.as_entire_binding(),
                    wgpu::BindingResource::Buffer(target.clone()),
                ],
                [x, y, 1],
            )?);
        }
        Ok(Prepared::new(specialization.id, dispatches))
    }

    /// Prepares `advance`: the end of a step of `rows` tokens that draws none.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for more rows than the sequence has room for.
    pub fn prepare_advance(&self, sequence: &Sequence, rows: usize) -> Result<Prepared> {
        sequence.check_rows(rows)?;
        self.kernel(
            advance_specialization(),
            &[Binding::Uniform, Binding::Write],
            bytemuck::bytes_of(&[rows as u32, 0, 0, 0]),
            &[sequence.buffer.as_entire_buffer_binding()],
            [1, 1, 1],
        )
    }

    /// Prepares `cross_entropy`: −ln of the probability that each row of logits gives to the sequence's token that follows, one
    /// value a row. Row 0 of the logits is that of the next token but `first`. Logits are capped at `cap`, if there is one.
    ///
    /// Softmax follows arXiv:2001.04438: exponentials are kept as mantissa and exponent, so that logits of any size neither
    /// overflow nor vanish.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] unless the output has one column and the rows of the logits; [`Error::TooLarge`] for more rows
    /// than the sequence has room for; [`Error::Parameter`] for a cap that is not positive and finite;
    /// [`Error::OutputMismatch`]; [`Error::Aliased`].
    pub fn prepare_cross_entropy(
        &self,
        logits: &OutputMatrix,
        cap: Option<f32>,
        sequence: &Sequence,
        first: usize,
        output: &OutputMatrix,
    ) -> Result<Prepared> {
        let cap = check_cap(cap)?;
        let specialization = cross_entropy_specialization(&self.inner.caps, cap != 0.0);
        check_output(logits)?;
        check_output(output)?;
        if (output.rows, output.columns) != (logits.rows, 1) {
            return Err(Error::ShapeMismatch {
                what: "the cross entropies",
                expected: (logits.rows, 1),
                actual: (output.rows, output.columns),
            });
        }
        sequence.check_rows(first.saturating_add(logits.rows))?;
        let (Some(source), Some(target)) = (logits.binding(), output.binding()) else {
            return Ok(Prepared::new(specialization.id, Vec::new()));
        };
        if logits.buffer == output.buffer {
            return Err(Error::Aliased { what: "the logits" });
        }
        let [x, y] = fold_grid(logits.rows as u64, self.inner.caps.max_workgroups)?;
        let params = CrossEntropyParams {
            rows: logits.rows as u32,
            columns: logits.columns as u32,
            grid_x: x,
            input_row: logits.row_stride,
            output_row: output.row_stride,
            first: first as u32,
            cap,
            padding: 0,
        };
        self.kernel(
            specialization,
            &[
                Binding::Uniform,
                Binding::Read,
                Binding::Read,
                Binding::Write,
            ],
            bytemuck::bytes_of(&params),
            &[source, sequence.buffer.as_entire_buffer_binding(), target],
            [x, y, 1],
        )
    }

    /// Prepares the end of a step of `rows` tokens that draws the next from one row of logits: `largest`, then `draw`, which
    /// appends it to the sequence. Logits are capped at `cap`, if there is one.
    ///
    /// Probabilities are summed as integers, in units of 2^−31 of the largest, so a draw does not depend on an order of
    /// additions. [`encode_read_drawn`](Self::encode_read_drawn) brings the token to the host.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] for numbers that [`Sampling::check`] or the cap refuse; [`Error::ShapeMismatch`] unless there is one
    /// row of logits, with columns; [`Error::TooLarge`] for more rows than the sequence has room for; [`Error::OutputMismatch`].
    pub fn prepare_draw(
        &self,
        logits: &OutputMatrix,
        cap: Option<f32>,
        sampling: &Sampling,
        sequence: &Sequence,
        rows: usize,
    ) -> Result<Prepared> {
        sampling.check()?;
        let cap = check_cap(cap)?;
        check_output(logits)?;
        sequence.check_rows(rows.saturating_add(1))?;
        let Some(source) = logits.binding().filter(|_| logits.rows == 1) else {
            return Err(Error::ShapeMismatch {
                what: "the logits",
                expected: (1, logits.columns.max(1)),
                actual: (logits.rows, logits.columns),
            });
        };
        let columns = logits.columns as u32;
        let stretches = columns.div_ceil(STRETCH);
        let parts = self.buffer(
            "the largest logits",
            8 * u64::from(stretches),
            wgpu::BufferUsages::STORAGE,
        )?;
        let [x, y] = fold_grid(u64::from(stretches), self.inner.caps.max_workgroups)?;
        let largest = self.kernel(
            largest_specialization(),
            &[Binding::Uniform, Binding::Read, Binding::Write],
            bytemuck::bytes_of(&[columns, x, 0, 0]),
            &[source.clone(), parts.as_entire_buffer_binding()],
            [x, y, 1],
        )?;
        let params = DrawParams {
            columns,
            parts: stretches,
            rows: rows as u32,
            top_k: u32::try_from(sampling.top_k).unwrap_or(0),
            top_p: sampling.top_p_bits(),
            seed: sampling.seed,
            // A device may take a subnormal for 0, which does not divide.
            temperature: match sampling.temperature {
                temperature if temperature.is_normal() => temperature,
                _ => 0.0,
            },
            cap,
        };
        let draw = self.kernel(
            draw_specialization(),
            &[
                Binding::Uniform,
                Binding::Read,
                Binding::Read,
                Binding::Write,
            ],
            bytemuck::bytes_of(&params),
            &[
                source,
                parts.as_entire_buffer_binding(),
                sequence.buffer.as_entire_buffer_binding(),
            ],
            [1, 1, 1],
        )?;
        let id = draw.id().to_owned();
        Ok(Prepared::new(
            id,
            [largest.dispatches, draw.dispatches].concat(),
        ))
    }
}

impl Sequence {
    pub(crate) fn check_rows(&self, rows: usize) -> Result<()> {
        if rows <= self.capacity {
            return Ok(());
        }
        Err(Error::TooLarge {
            what: "the number of a step's tokens",
            value: rows as u64,
            limit: self.capacity as u64,
        })
    }
}

pub(crate) fn check_output(output: &OutputMatrix) -> Result<()> {
    match output.format {
        OutputFormat::F32 => Ok(()),
        actual => Err(Error::OutputMismatch {
            expected: OutputFormat::F32,
            actual,
        }),
    }
}

/// A soft cap as kernels take it: 0 for none.
pub(crate) fn check_cap(cap: Option<f32>) -> Result<f32> {
    match cap {
        None => Ok(0.0),
        Some(cap) if cap.is_finite() && cap > 0.0 => Ok(cap),
        Some(cap) => Err(Error::Parameter {
            what: "the soft cap",
            value: cap.to_string(),
            expected: "positive and finite".into(),
        }),
    }
}

/// A drawn token on its way to the host.
#[derive(Debug)]
#[must_use = "the token is lost unless it is read"]
pub struct PendingToken(PendingWords);

impl PendingToken {
    /// The token's id, once the submit that holds the copy is done.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`].
    pub async fn read(self) -> Result<u32> {
        self.0
            .read()
            .await?
            .first()
            .copied()
            .ok_or_else(|| Error::DeviceLost {
                reason: "a read gave no word".into(),
            })
    }

    /// As [`read`](Self::read), waiting for it.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking(self) -> Result<u32> {
        pollster::block_on(self.read())
    }
}
