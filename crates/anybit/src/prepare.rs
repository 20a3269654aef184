//! A plan bound to its operands: parameters, bind groups and grids, ready to be recorded any number of times.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anybit_formats::{
    AffineFormat, DeviceLayout, ElementFormat, Granularity, MatrixFormat, Memory, PieceLayout,
    Sections,
};
use bytemuck::{Pod, Zeroable};

use crate::bind_groups::{BoundGroup, BoundOperand, BoundResource, Key, Life};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::experts::ExpertOffsets;
use crate::kernel::Engine;
#[cfg(not(target_arch = "wasm32"))]
use crate::matrix::Values;
use crate::matrix::{Chunk, ChunkMemory, DeviceMatrix, OutputMatrix, PendingRead, STORAGE, TEXELS};
use crate::parts::{self, AddPartsParams, part_bytes};
use crate::pipeline::{Binding, Pipeline};
use crate::plan::{Plan, fold_grid};
use crate::problem::{OutputFormat, Problem};
use crate::self_check::Verdict;
use crate::specialize::{Specialization, centre};
use crate::stretches::{Cuts, Obstacle, Rows, Stretch, column_stretches};

/// `Operand` of core/operand.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(crate) struct OperandParams {
    pub(crate) pieces: [u32; 4],
    pub(crate) rows: u32,
    pub(crate) batch_rows: u32,
    pub(crate) row_words: u32,
    pub(crate) blocks: u32,
    pub(crate) scales: u32,
    pub(crate) zeros: u32,
    pub(crate) sums: u32,
    pub(crate) groups: u32,
    pub(crate) multiplier: i32,
    pub(crate) offset: i32,
    pub(crate) centre: i32,
    pub(crate) mantissa: u32,
    pub(crate) special: u32,
    pub(crate) infinite: u32,
    pub(crate) second: u32,
    pub(crate) second_minima: u32,
    pub(crate) second_groups: u32,
    pub(crate) table_words: u32,
    pub(crate) choice_code: u32,
    pub(crate) lift: f32,
    pub(crate) choices: [f32; 4],
    pub(crate) table: [f32; 16],
}

/// `GemmParams` of core/gemm.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
struct GemmParams {
    m: u32,
    n: u32,
    k: u32,
    tiles_m: u32,
    tiles_n: u32,
    grid_x: u32,
    output_offset: u32,
    output_row: u32,
    output_batch: u32,
    fold: f32,
    experts: u32,
    parts: u32,
    activation: OperandParams,
    weight: OperandParams,
}

/// Bytes of the GEMM family's parameters, for the test that compares them with the shader's.
pub const GEMM_PARAMS_BYTES: usize = size_of::<GemmParams>();

impl OperandParams {
    pub(crate) fn new(
        format: &MatrixFormat,
        layout: &DeviceLayout,
        columns: usize,
        chunk: &Chunk,
        batch_rows: usize,
        centre: impl Fn(AffineFormat) -> i32,
    ) -> Self {
        let sections = &chunk.sections;
        let mut pieces = [0; 4];
        for (piece, &offset) in pieces.iter_mut().zip(&sections.pieces) {
            *piece = offset;
        }
        // Planes have one distance, which is all that more than four of them need.
        if layout.pieces == PieceLayout::Planes {
            pieces = [pieces[0], plane_distance(sections), 0, 0];
        }
        let mut params = Self {
            pieces,
            rows: chunk.rows.len() as u32,
            batch_rows: batch_rows as u32,
            row_words: chunk.row_words,
            blocks: columns.div_ceil(anybit_formats::layout::BLOCK) as u32,
            scales: sections.scales,
            zeros: sections.zeros,
            second: sections.second,
            second_minima: sections.second_minima,
            second_groups: format.second_groups(columns) as u32,
            table_words: sections.table,
            sums: sections.sums,
            groups: match format.scales() {
                Some(scales) if scales.granularity != Granularity::Tensor => {
                    format.groups(columns) as u32
                }
                _ => 0,
            },
            multiplier: 1,
            ..Self::default()
        };
        params.element(format.element(), centre);
        params
    }

    /// Where the planes of a nested matrix begin, and its units: the integers of its scales, which are those of the 8 stored
    /// bits, are 2^(8 − l) times as large as those of l bits.
    fn nest(&mut self, matrix: &DeviceMatrix, chunk: &Chunk, output: OutputFormat) {
        let Some((stored, _)) = matrix.nested else {
            return;
        };
        let bits = matrix.format.element().bits();
        let dropped = stored.element().bits() - bits;
        if matrix.layout.pieces == PieceLayout::Planes {
            let sections = &chunk.sections;
            let plane = |index: u32| sections.pieces.get(index as usize).copied().unwrap_or(0);
            let carry = sections
                .carries
                .iter()
                .find(|carry| u32::from(carry.bits) == bits)
                .map_or(0, |carry| carry.offset);
            self.pieces = [plane(dropped), plane_distance(sections), carry, 0];
        }
        if output != OutputFormat::I32 && stored.scales().is_some() {
            self.multiplier <<= dropped;
            self.offset <<= dropped;
        }
    }

    /// What the codes of an element stand for.
    fn element(&mut self, element: ElementFormat, centre: impl Fn(AffineFormat) -> i32) {
        match element {
            ElementFormat::Affine(affine) => {
                (self.multiplier, self.offset) = affine.coefficients();
                self.centre = centre(affine);
            }
            ElementFormat::Minifloat(minifloat) => {
                self.mantissa = u32::from(minifloat.mantissa_bits());
                let first = minifloat.infinity_code().or(minifloat.nan_code());
                self.special = first.map_or(u32::MAX, u32::from);
                self.infinite = u32::from(minifloat.infinity_code().is_some());
            }
            ElementFormat::Codebook(codebook) => {
                for (entry, &value) in self.table.iter_mut().zip(codebook.values()) {
                    *entry = value;
                }
                self.lift = element.lift_unit().map_or(0.0, f32::recip);
                if let Some(choice) = codebook.choice() {
                    self.choice_code = u32::from(choice.code);
                    for (entry, &value) in self.choices.iter_mut().zip(choice.values) {
                        *entry = value;
                    }
                    if let Some(entry) = self.table.get_mut(usize::from(choice.code)) {
                        *entry = CHOSEN;
                    }
                }
            }
            _ => {}
        }
    }
}

/// Words from one plane to the next.
fn plane_distance(sections: &Sections) -> u32 {
    match sections.pieces[..] {
        [first, second, ..] => second - first,
        _ => 0,
    }
}

/// `SCL_CHOSEN` of scale/affine.wgsl.
const CHOSEN: f32 = 3.0e38;

/// Parameters can be copied out, too: by who takes prepared work apart.
const PARAMETERS: wgpu::BufferUsages = wgpu::BufferUsages::UNIFORM
    .union(wgpu::BufferUsages::COPY_DST)
    .union(wgpu::BufferUsages::COPY_SRC);

/// What a plan's sums of lifted products are multiplied by.
fn fold(plan: &Plan) -> f32 {
    if plan.engine() != Engine::Dot4 {
        return 1.0;
    }
    let unit = |format: &MatrixFormat| format.element().lift_unit().unwrap_or(1.0);
    unit(&plan.problem().activation) * unit(&plan.problem().weight)
}

/// The operands of a GEMM.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// X: M×K, in the plan's activation layout.
    pub activation: &'a DeviceMatrix,
    /// W: N×K, in the plan's weight layout.
    pub weight: &'a DeviceMatrix,
    /// Y: M×N.
    pub output: &'a OutputMatrix,
}

/// What a GEMM does to its product before it writes it.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Epilogue<'a> {
    /// R of [`Problem::with_residual`](crate::Problem::with_residual): an f32 matrix of the output's shape and row stride, in
    /// another buffer.
    pub residual: Option<&'a OutputMatrix>,
}

impl<'a> Epilogue<'a> {
    /// Adds a residual.
    pub fn residual(residual: &'a OutputMatrix) -> Self {
        Self {
            residual: Some(residual),
        }
    }
}

/// One dispatch: pipeline, bind group, grid.
#[derive(Clone, Debug)]
pub(crate) struct Dispatch {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) group: BoundGroup,
    pub(crate) grid: [u32; 3],
    /// How long it takes on a slow device, by a guess on the safe side; zero for what is short anywhere.
    pub(crate) longest: Duration,
    /// It reads what the one before it left in memory that all operations share, so nothing may be submitted between them.
    pub(crate) joined: bool,
}

impl Dispatch {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        // It is compiled, or `Context::prepare_together` is not done and will return the error.
        let Ok(pipeline) = self.pipeline.compiled() else {
            return;
        };
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &self.group.bind_group, &[]);
        let [x, y, z] = self.grid;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Records dispatches with the ids of their work, in a compute pass for each.
fn encode_passes(encoder: &mut wgpu::CommandEncoder, dispatches: &[(&str, &Dispatch)]) {
    for work in dispatches.chunk_by(|(one, _), (next, _)| one == next) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: work.first().map(|(id, _)| *id),
            timestamp_writes: None,
        });
        for (_, dispatch) in work {
            dispatch.encode(&mut pass);
        }
    }
}

/// A dispatch of prepared work, taken apart: all that it takes to record it without wgpu, on the same words.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Recorded<'a> {
    /// The shader. Its bindings are those of group 0.
    pub specialization: &'a Specialization,
    /// What is bound, by number. Parameters are binding 0.
    pub bindings: &'a [BoundResource],
    /// Workgroups in each dimension.
    pub workgroups: [u32; 3],
}

/// Work that is ready to be recorded. It owns its parameters and bind groups; recording only sets and dispatches.
#[derive(Clone, Debug)]
pub struct Prepared {
    id: String,
    pub(crate) dispatches: Vec<Dispatch>,
}

impl Prepared {
    pub(crate) fn new(id: impl Into<String>, dispatches: Vec<Dispatch>) -> Self {
        Self {
            id: id.into(),
            dispatches,
        }
    }

    /// The kernel's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How many dispatches it records.
    pub fn dispatches(&self) -> usize {
        self.dispatches.len()
    }

    /// The bind group of each dispatch. Where those of two are equal, they are one and the same.
    pub fn bind_groups(&self) -> impl ExactSizeIterator<Item = &wgpu::BindGroup> {
        let dispatches = self.dispatches.iter();
        dispatches.map(|dispatch| &dispatch.group.bind_group)
    }

    /// What it records, dispatch by dispatch, each after the one before: for who runs or looks at the same work by other means.
    /// Buffers with [`wgpu::BufferUsages::COPY_SRC`] hold what the dispatches read; others are scratch, which they write first.
    pub fn recorded(&self) -> impl ExactSizeIterator<Item = Recorded<'_>> {
        self.dispatches.iter().map(|dispatch| Recorded {
            specialization: dispatch.pipeline.specialization(),
            bindings: &dispatch.group.resources,
            workgroups: dispatch.grid,
        })
    }

    /// Records the work in a pass of the caller. Nothing is submitted.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        for dispatch in &self.dispatches {
            dispatch.encode(pass);
        }
    }

    /// Records the work in a compute pass of its own.
    pub fn encode_pass(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(&self.id),
            timestamp_writes: None,
        });
        self.encode(&mut pass);
    }
}

impl Context {
    /// Binds a plan to its operands and makes its pipeline if it is new. Shapes, formats, layouts and aliasing are
    /// checked here, so that recording cannot fail.
    ///
    /// Parameters and bind groups are kept as long as the matrices: the same plan with the same operands again makes nothing
    /// on the device.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`], [`Error::FormatMismatch`], [`Error::LayoutMismatch`], [`Error::OutputMismatch`] for
    /// [`Error::NestingMismatch`] and [`Error::Nested`] for operands that are not the plan's; [`Error::Aliased`] if the output is also an input;
    /// [`Error::BindingTooLarge`] and [`Error::TooLarge`] for what is over the device's limits and cannot be cut: 32 rows of an
    /// operand or of the output, or batches of which no binding can begin at one; [`Error::Unchecked`] for a kernel that is yet
    /// to pass a self-check; [`Error::Pipeline`].
    ///
    /// Operands and outputs over the binding limit are otherwise cut by rows, as are products that a slow device would work at
    /// for longer than a driver's watchdog waits ([`with_longest_dispatch`](Self::with_longest_dispatch)): the work is then
    /// several dispatches, and every number the same.
    pub fn prepare(&self, plan: &Plan, operands: Operands<'_>) -> Result<Prepared> {
        self.prepare_with(plan, operands, &Epilogue::default())
    }

    /// [`prepare`](Self::prepare) with what the plan's problem has beside its operands.
    ///
    /// # Errors
    ///
    /// Those of [`prepare`](Self::prepare); [`Error::Experts`] for a problem with experts
    /// ([`prepare_experts`](Self::prepare_experts)); [`Error::Residual`] if there is a residual and the problem has none, or the
    /// reverse; [`Error::ShapeMismatch`], [`Error::OutputMismatch`], [`Error::Aliased`] and [`Error::Buffer`] for a residual
    /// that does not lie as the output does, in another buffer.
    pub fn prepare_with(
        &self,
        plan: &Plan,
        operands: Operands<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<Prepared> {
        self.check_passed(plan)?;
        self.prepare_unchecked(plan, operands, epilogue, None)
    }

    /// Refuses a plan that has to pass a self-check and has not.
    pub(crate) fn check_passed(&self, plan: &Plan) -> Result<()> {
        if plan.needs_self_check() && self.inner.verdicts().get(plan.id()) != Some(&Verdict::Passed)
        {
            return Err(Error::Unchecked {
                kernel: plan.id().to_string(),
            });
        }
        Ok(())
    }

    /// [`prepare_with`](Self::prepare_with) whatever self-checks have found: to run one.
    pub(crate) fn prepare_unchecked(
        &self,
        plan: &Plan,
        operands: Operands<'_>,
        epilogue: &Epilogue<'_>,
        offsets: Option<&ExpertOffsets>,
    ) -> Result<Prepared> {
        let problem = plan.problem();
        let Operands {
            activation,
            weight,
            output,
        } = operands;
        check_matrix(
            "the activations",
            activation,
            (problem.activation_rows(), problem.k),
            &problem.activation,
            plan.activation_layout(),
        )?;
        check_matrix(
            "the weights",
            weight,
            (problem.weight_rows(), problem.k),
            &problem.weight,
            plan.weight_layout(),
        )?;
        activation.check_stored("the activations")?;
        if weight.nesting() != plan.nesting() {
            return Err(Error::NestingMismatch {
                expected: plan.nesting(),
                actual: weight.nesting(),
            });
        }
        let expected = (problem.output_rows(), problem.n);
        if (output.rows, output.columns) != expected {
            return Err(Error::ShapeMismatch {
                what: "the output",
                expected,
                actual: (output.rows, output.columns),
            });
        }
        if output.format != problem.output {
            return Err(Error::OutputMismatch {
                expected: problem.output,
                actual: output.format,
            });
        }
        check_residual(problem, output, epilogue.residual)?;
        let experts = offsets.map(ExpertOffsets::experts);
        if problem.experts != experts {
            return Err(Error::Experts {
                expected: problem.experts,
                actual: experts,
            });
        }
        let Some(output_buffer) = &output.buffer else {
            return Ok(Prepared::new(plan.id(), Vec::new()));
        };
        for (what, matrix) in [("the activations", activation), ("the weights", weight)] {
            if matrix.is_in(output_buffer) {
                return Err(Error::Aliased { what });
            }
        }
        if offsets.is_some_and(|offsets| offsets.buffer() == output_buffer) {
            return Err(Error::Aliased {
                what: "the offsets of the experts",
            });
        }
        // With K = 0 no operand has a buffer. The kernel still runs, over zeros, since the output must become zeros.
        let empty;
        let (activation_chunks, weight_chunks) = if problem.k == 0 {
            empty = [
                self.empty_chunk(problem.n, activation.layout.memory)?,
                self.empty_chunk(problem.n, weight.layout.memory)?,
            ];
            (&empty[..1], &empty[1..])
        } else {
            (&activation.chunks[..], &weight.chunks[..])
        };
        if activation_chunks.is_empty() {
            return Ok(Prepared::new(plan.id(), Vec::new()));
        }
        let stretches = self.stretches(plan, operands, [activation_chunks, weight_chunks])?;

        // A split product goes by way of its parts, which lie as an output of whole vectors a row would.
        let size = part_bytes(problem, plan.parts());
        let scratch = match plan.is_split() {
            true => Some(self.scratch("parts of K", size)?),
            false => None,
        };
        let parts = scratch.as_ref().map(|(buffer, life)| {
            let binding = wgpu::BufferBinding {
                buffer,
                offset: 0,
                size: wgpu::BufferSize::new(size),
            };
            (wgpu::BindingResource::Buffer(binding), [0, size], life)
        });
        let output_row = match &parts {
            None => output.row_stride,
            Some(_) => (problem.n as u32).next_multiple_of(4),
        };

        let pipeline = self.pipeline(plan.specialization(), &plan.bindings())?;
        let centre = |element| centre(plan.engine(), element);
        let batch_rows = |rows: usize, broadcast: bool| if broadcast { 0 } else { rows };
        let batch = problem.batch;
        let [activation_rows, weight_rows] = [
            batch_rows(problem.m, batch.broadcast_activation),
            batch_rows(problem.n, batch.broadcast_weight),
        ];
        // With experts, rows of W of all of them are bound, whichever a row of X meets.
        let experts = problem.experts.unwrap_or(1);
        let limit = self.inner.caps.max_binding;
        let whole = plan.longest(self.inner.caps.class);
        let outputs = problem.batch.count as f64 * problem.m as f64 * problem.n as f64;
        let mut dispatches = Vec::new();
        let mut following = stretches.iter().peekable();
        let mut before: Option<&Stretch> = None;
        while let Some(stretch) = following.next() {
            let Stretch { batches, m, n } = stretch;
            let x_rows = stretch.rows(activation_rows);
            let w_rows = match problem.experts {
                None => stretch.columns(weight_rows),
                Some(_) => n.start..problem.n * experts,
            };
            // Every stretch was cut so that a binding may begin there.
            let cannot_begin = |what, matrix: &DeviceMatrix| Error::BindingTooLarge {
                what,
                bytes: matrix.bytes(),
                limit,
            };
            let activation_chunk = rows_of(activation, activation_chunks, x_rows)
                .ok_or_else(|| cannot_begin("the activations", activation))?;
            let weight_chunk = rows_of(weight, weight_chunks, w_rows)
                .ok_or_else(|| cannot_begin("the weights", weight))?;
            let (tiles_m, tiles_n, grid) = plan.grid(batches.len(), m.len(), n.len())?;
            let mut weight_params = OperandParams::new(
                &problem.weight,
                &weight.layout,
                problem.k,
                &weight_chunk,
                weight_rows,
                centre,
            );
            weight_params.nest(weight, &weight_chunk, problem.output);
            let params = GemmParams {
                m: m.len() as u32,
                n: n.len() as u32,
                k: problem.k as u32,
                tiles_m,
                tiles_n,
                grid_x: grid[0],
                output_offset: n.start as u32,
                output_row,
                output_batch: (m.len() as u32).wrapping_mul(output_row),
                fold: fold(plan),
                experts: problem.experts.unwrap_or(0) as u32,
                parts: plan.parts(),
                activation: OperandParams::new(
                    &problem.activation,
                    &activation.layout,
                    problem.k,
                    &activation_chunk,
                    activation_rows,
                    centre,
                ),
                weight: weight_params,
            };
            let mut operands = Vec::with_capacity(7);
            for chunk in [&activation_chunk, &weight_chunk] {
                let places = chunk.places();
                let resources = chunk.resources().into_iter().zip(places);
                operands.extend(resources.map(|(resource, place)| (resource, place, &chunk.life)));
            }
            let outputs_of = stretch.rows(problem.m);
            let bound: Vec<BoundOperand<'_>> = [Some(output), epilogue.residual]
                .into_iter()
                .flatten()
                .filter_map(|output| {
                    let binding = output.rows_binding(outputs_of.clone())?;
                    let size = binding.size.map_or(0, wgpu::BufferSize::get);
                    let place = [binding.offset, size];
                    Some((wgpu::BindingResource::Buffer(binding), place, &output.life))
                })
                .collect();
            match &parts {
                None => operands.extend(bound.iter().cloned()),
                Some(parts) => operands.push(parts.clone()),
            }
            operands.extend(offsets.map(|offsets| {
                let binding = offsets.binding();
                let size = binding.size.map_or(0, wgpu::BufferSize::get);
                let place = [binding.offset, size];
                (
                    wgpu::BindingResource::Buffer(binding),
                    place,
                    offsets.life(),
                )
            }));
            let share = (batches.len() * m.len()) as f64 * n.len() as f64 / outputs;
            dispatches.push(Dispatch {
                pipeline: Arc::clone(&pipeline),
                group: self.kept_bind_group(
                    &pipeline,
                    plan.specialization(),
                    bytemuck::bytes_of(&params),
                    &operands,
                )?,
                grid,
                longest: whole.mul_f64(share.clamp(0.0, 1.0)),
                // Parts of some rows wait for those of other columns.
                joined: parts.is_some()
                    && before.is_some_and(|before| (&before.batches, &before.m) == (batches, m)),
            });
            before = Some(stretch);
            // The parts of some rows are added up before those of others take their place.
            let last = following
                .peek()
                .is_none_or(|next| (&next.batches, &next.m) != (batches, m));
            if let Some(parts) = parts.as_ref().filter(|_| last) {
                let operands: Vec<_> = std::iter::once(parts.clone()).chain(bound).collect();
                let sums = self.add_parts(plan, stretch, output.row_stride, &operands)?;
                dispatches.push(sums);
            }
        }
        Ok(Prepared::new(plan.id(), dispatches))
    }

    /// How the product is cut into dispatches.
    fn stretches(
        &self,
        plan: &Plan,
        Operands {
            activation,
            weight,
            output,
        }: Operands<'_>,
        [activation_chunks, weight_chunks]: [&[Chunk]; 2],
    ) -> Result<Vec<Stretch>> {
        let problem = plan.problem();
        let batch = problem.batch;
        let limit = self.inner.caps.max_binding;
        let one_piece = problem.experts.is_some();
        let rows = |chunks: &[Chunk]| -> Vec<Range<usize>> {
            chunks.iter().map(|chunk| chunk.rows.clone()).collect()
        };
        let mut x = rows(activation_chunks);
        let mut w = rows(weight_chunks);
        let mut of_batch = [
            if batch.broadcast_activation {
                0
            } else {
                problem.m
            },
            if batch.broadcast_weight { 0 } else { problem.n },
        ];
        if problem.k == 0 {
            // Every row is the same empty one.
            [x, w] = [problem.m, problem.n].map(|rows| std::iter::once(0..rows).collect());
            of_batch = [0, 0];
        }
        let longest = match self.longest_dispatch() {
            // Parts of K are for few outputs.
            Some(longest) if !plan.is_split() => longest.as_secs_f64(),
            _ => f64::INFINITY,
        };
        let outputs = batch.count as f64 * problem.m as f64 * problem.n as f64;
        let whole = plan.longest(self.inner.caps.class).as_secs_f64();
        let most_outputs = match whole > 0.0 {
            true => longest / whole * outputs,
            false => f64::INFINITY,
        };
        let too_large = |obstacle| {
            let (what, bytes) = match obstacle {
                Obstacle::Activation => ("the activations", activation.bytes()),
                Obstacle::Weight if one_piece => ("the weights of all experts", weight.bytes()),
                Obstacle::Weight if batch.count > 1 => ("the batched weights", weight.bytes()),
                Obstacle::Weight => ("the weights", weight.bytes()),
                Obstacle::Output => {
                    let bytes = output.bytes();
                    ("the output", bytes.end - bytes.start)
                }
                Obstacle::Batches => {
                    return Error::TooLarge {
                        what: "the number of batches",
                        value: batch.count as u64,
                        limit: plan.most_batches() as u64,
                    };
                }
            };
            Error::BindingTooLarge { what, bytes, limit }
        };
        if one_piece {
            let obstacles = [
                (
                    Obstacle::Activation,
                    x.len() > 1 || activation.most_rows(limit) < problem.m,
                ),
                (
                    Obstacle::Weight,
                    w.len() > 1 || weight.most_rows(limit) < weight.rows,
                ),
                (Obstacle::Output, output.most_rows(limit) < problem.m),
            ];
            return match obstacles.into_iter().find(|(_, stands)| *stands) {
                Some((obstacle, _)) => Err(too_large(obstacle)),
                // Which rows of X are whose is known on the device alone, so they stay together.
                None => Ok(column_stretches(problem.m, problem.n, most_outputs)
                    .into_iter()
                    .map(|n| Stretch {
                        batches: 0..1,
                        m: 0..problem.m,
                        n,
                    })
                    .collect()),
            };
        }
        let cuts = Cuts {
            activation: Rows {
                chunks: &x,
                of_batch: of_batch[0],
                most: activation.most_rows(limit),
            },
            weight: Rows {
                chunks: &w,
                of_batch: of_batch[1],
                most: weight.most_rows(limit),
            },
            output_rows: output.most_rows(limit),
            batches: plan.most_batches(),
            outputs: most_outputs,
        };
        cuts.stretches(batch.count, problem.m, problem.n)
            .map_err(too_large)
    }

    /// The dispatch that adds the parts of a split product up.
    fn add_parts(
        &self,
        plan: &Plan,
        stretch: &Stretch,
        output_row: u32,
        operands: &[BoundOperand<'_>],
    ) -> Result<Dispatch> {
        let problem = plan.problem();
        let rows = stretch.m.len();
        let (specialization, bindings) = plan.add_parts();
        let pipeline = self.pipeline(&specialization, &bindings)?;
        let vectors = problem.n.div_ceil(4);
        let workgroups = (rows as u64 * vectors as u64).div_ceil(parts::WORKGROUP.into());
        let [x, y] = fold_grid(workgroups, self.inner.caps.max_workgroups)?;
        let params = AddPartsParams {
            rows: rows as u32,
            columns: problem.n as u32,
            parts: plan.parts(),
            vectors: vectors as u32,
            grid_x: x,
            output_row,
            padding: [0; 2],
        };
        let params = bytemuck::bytes_of(&params);
        Ok(Dispatch {
            group: self.kept_bind_group(&pipeline, &specialization, params, operands)?,
            pipeline,
            grid: [x, y, stretch.batches.len() as u32],
            longest: Duration::ZERO,
            joined: true,
        })
    }

    /// Zeros to bind where a matrix without columns has no buffer.
    fn empty_chunk(&self, rows: usize, memory: Memory) -> Result<Chunk> {
        let buffer = || self.buffer("an empty matrix", 512, STORAGE);
        let texture = || self.texture("an empty matrix", 64, TEXELS);
        Ok(Chunk {
            rows: 0..rows,
            memory: match memory {
                Memory::Buffers => ChunkMemory::Buffer(buffer()?),
                Memory::Textures => ChunkMemory::Textures(Box::new([texture()?, texture()?])),
                Memory::TextureCodes => {
                    ChunkMemory::TextureCodes(Box::new((texture()?, buffer()?)))
                }
            },
            sections: Sections {
                codes_words: 64,
                side_words: 64,
                ..Default::default()
            },
            codes: 0..256,
            side: 256..512,
            row_words: 0,
            life: Life::new(),
        })
    }

    /// A dispatch with its parameters in a uniform buffer of its own.
    pub(crate) fn dispatch(
        &self,
        pipeline: &Arc<Pipeline>,
        specialization: &Specialization,
        layout: &[Binding],
        params: &[u8],
        bindings: &[wgpu::BufferBinding<'_>],
        grid: [u32; 3],
    ) -> Result<Dispatch> {
        let bindings: Vec<_> = bindings
            .iter()
            .cloned()
            .map(wgpu::BindingResource::Buffer)
            .collect();
        self.dispatch_resources(pipeline, specialization, layout, params, &bindings, grid)
    }

    /// [`dispatch`](Self::dispatch) with textures among what is bound.
    pub(crate) fn dispatch_resources(
        &self,
        pipeline: &Arc<Pipeline>,
        specialization: &Specialization,
        layout: &[Binding],
        params: &[u8],
        bindings: &[wgpu::BindingResource<'_>],
        grid: [u32; 3],
    ) -> Result<Dispatch> {
        debug_assert_eq!(layout.len(), bindings.len() + 1);
        Ok(Dispatch {
            pipeline: Arc::clone(pipeline),
            group: self.bind_group(pipeline, specialization, params, bindings)?,
            grid,
            longest: Duration::ZERO,
            joined: false,
        })
    }

    /// A bind group as it was made before, if it is of the same matrices and parameters; else a new one, kept as long as the
    /// matrices are there.
    fn kept_bind_group(
        &self,
        pipeline: &Pipeline,
        specialization: &Specialization,
        params: &[u8],
        operands: &[BoundOperand<'_>],
    ) -> Result<BoundGroup> {
        let kept = &self.inner.bind_groups;
        let key = Key::new(&pipeline.layout.bind_group, params, operands);
        if let Some(group) = kept.get(&key) {
            return Ok(group);
        }
        let bindings: Vec<_> = operands
            .iter()
            .map(|(resource, ..)| resource.clone())
            .collect();
        let group = self.bind_group(pipeline, specialization, params, &bindings)?;
        kept.keep(key, &group, operands.iter().map(|(.., life)| *life));
        Ok(group)
    }

    /// A bind group with its parameters in a uniform buffer of its own.
    fn bind_group(
        &self,
        pipeline: &Pipeline,
        specialization: &Specialization,
        params: &[u8],
        bindings: &[wgpu::BindingResource<'_>],
    ) -> Result<BoundGroup> {
        let limit = self.inner.caps.max_binding;
        let sizes = bindings.iter().filter_map(|binding| match binding {
            wgpu::BindingResource::Buffer(binding) => binding.size.map(wgpu::BufferSize::get),
            _ => None,
        });
        if let Some(bytes) = sizes.max().filter(|&bytes| bytes > limit) {
            return Err(Error::BindingTooLarge {
                what: "an operand",
                bytes,
                limit,
            });
        }
        let buffer = self.buffer("parameters", params.len() as u64, PARAMETERS)?;
        self.guard_memory("parameters", params.len() as u64, |_| {
            self.inner.queue.write_buffer(&buffer, 0, params);
        })?;
        let entries: Vec<_> = std::iter::once(buffer.as_entire_binding())
            .chain(bindings.iter().cloned())
            .zip(0..)
            .map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        let bind_group = self.guard(|device| {
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&specialization.id),
                layout: &pipeline.layout.bind_group,
                entries: &entries,
            })
        })?;
        Ok(BoundGroup::new(bind_group, &entries))
    }

    /// Records the work, submits it, and reads the output back.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`]; [`Error::OutOfMemory`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, prepared: &Prepared, output: &OutputMatrix) -> Result<Values> {
        self.submit_and_read(&[prepared], output)?.read_blocking()
    }

    /// Records several pieces of work in order, submits them, and leaves the output to be read.
    ///
    /// What takes long is several submissions: see [`with_longest_dispatch`](Self::with_longest_dispatch).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`]; [`Error::DeviceLost`].
    pub fn submit_and_read(
        &self,
        prepared: &[&Prepared],
        output: &OutputMatrix,
    ) -> Result<PendingRead> {
        let mut waiting = Vec::new();
        let mut total = Duration::ZERO;
        for &work in prepared {
            for dispatch in &work.dispatches {
                let long = self
                    .longest_dispatch()
                    .is_some_and(|longest| total + dispatch.longest > longest);
                if long && total > Duration::ZERO && !dispatch.joined {
                    self.submit(|encoder| {
                        encode_passes(encoder, &waiting);
                        Ok(())
                    })?;
                    waiting.clear();
                    total = Duration::ZERO;
                }
                total = total.saturating_add(dispatch.longest);
                waiting.push((work.id(), dispatch));
            }
        }
        self.submit(|encoder| {
            encode_passes(encoder, &waiting);
            self.encode_read(encoder, output)
        })
    }

    /// Records something and submits it.
    ///
    /// # Errors
    ///
    /// Those of `record`; [`Error::DeviceLost`].
    pub fn submit<T>(
        &self,
        record: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<T>,
    ) -> Result<T> {
        self.guard(|device| {
            let mut encoder = device.create_command_encoder(&Default::default());
            let output = record(&mut encoder)?;
            self.inner.queue.submit([encoder.finish()]);
            Ok(output)
        })?
    }
}

/// Rows of an operand: those of its own chunks, or of the one that stands for an operand without columns, whose rows are alike.
fn rows_of<'a>(
    matrix: &'a DeviceMatrix,
    chunks: &'a [Chunk],
    rows: Range<usize>,
) -> Option<Cow<'a, Chunk>> {
    match (matrix.columns, chunks) {
        (0, [empty]) => Some(Cow::Borrowed(empty)),
        _ => matrix.stretch(rows),
    }
}

fn check_residual(
    problem: &Problem,
    output: &OutputMatrix,
    residual: Option<&OutputMatrix>,
) -> Result<()> {
    if problem.residual != residual.is_some() {
        return Err(Error::Residual {
            expected: problem.residual,
        });
    }
    match residual {
        None => Ok(()),
        Some(residual) => output.check_like("the residual", residual),
    }
}

fn check_matrix(
    what: &'static str,
    matrix: &DeviceMatrix,
    shape: (usize, usize),
    format: &MatrixFormat,
    layout: DeviceLayout,
) -> Result<()> {
    if matrix.format != *format {
        return Err(Error::FormatMismatch {
            what,
            expected: *format,
            actual: matrix.format,
        });
    }
    if (matrix.rows, matrix.columns) != shape {
        return Err(Error::ShapeMismatch {
            what,
            expected: shape,
            actual: (matrix.rows, matrix.columns),
        });
    }
    // Sums are extra: a kernel that does not read them takes a matrix that has them.
    let same = DeviceLayout {
        sums: layout.sums,
        ..matrix.layout
    } == layout;
    if !same {
        return Err(Error::LayoutMismatch {
            what,
            expected: layout,
            actual: matrix.layout,
        });
    }
    Ok(())
}
