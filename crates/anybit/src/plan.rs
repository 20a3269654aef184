//! Which kernel does a problem on a device, in which pieces. Numbers in, numbers out: nothing here touches a GPU.

use std::fmt;
use std::time::Duration;

use anybit_formats::{
    DeviceLayout, ElementFormat, Encoding, LMul, MatrixFormat, Memory, Nesting, SumLayout, ZeroKind,
};

use crate::caps::{Caps, DeviceClass, Fragment, NoMatrix};
use crate::choices::Choices;
use crate::error::{Error, Result};
use crate::kernel::{Engine, KERNELS, KernelRow, Skeleton, Tile};
use crate::matrix::{DeviceMatrix, TEXTURE_WIDTH};
use crate::parts::{
    LEAST_STEPS, MOST_PARTS, NoSplit, add_parts_bindings, add_parts_specialization, check_split,
    part_name, part_step, part_steps, parts_of_id, splits,
};
use crate::pipeline::{Binding, gemm_bindings};
use crate::problem::{Batch, OutputFormat, Problem};
use crate::self_check::{Verdict, Verdicts};
use crate::specialize::{
    Multiply, Parts, Reduce, Specialization, WEIGHT_INTERLEAVE, carry_planes, group_of,
    has_whole_texels, is_held, is_integer_product, layouts, span, specialize, spill_of,
    table_lanes,
};

/// Plane products that an invocation may unroll: more makes drivers compile for seconds.
const UNROLL_LIMIT: u32 = 2048;

/// Operations of decoding, by [`decode_cost`], that an invocation may unroll, for the same reason: eight rows of a codebook
/// with one of minifloats.
const DECODE_LIMIT: f64 = 5200.0;

/// Invocations that share tables of looked-up sums: `LUT_CLUSTER` of core/lut.wgsl.
const TABLE_CLUSTER: u32 = 8;

/// The fewest products that are worth summing in 16 bits before the sums are parted.
const SWAR_LEAST_TERMS: u32 = 4;

/// Rows of X that the gemv kernels take at most.
const GEMV_ROWS: u32 = 8;

/// The widest weights that are looked up plane by plane.
const TABLE_BITS: u32 = 4;

/// What memory a kernel takes its operands from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memories {
    /// [`Memory::Buffers`] or [`Memory::TextureCodes`].
    pub activation: Memory,
    /// [`Memory::Buffers`] or [`Memory::Textures`].
    pub weight: Memory,
}

impl Memories {
    /// Both operands in buffers, as every device can have them.
    pub const BUFFERS: Self = Self {
        activation: Memory::Buffers,
        weight: Memory::Buffers,
    };

    /// What there is to choose from.
    const ALL: [Self; 4] = [
        Self::BUFFERS,
        Self {
            weight: Memory::Textures,
            ..Self::BUFFERS
        },
        Self {
            activation: Memory::TextureCodes,
            weight: Memory::Textures,
        },
        Self {
            activation: Memory::TextureCodes,
            ..Self::BUFFERS
        },
    ];

    /// What an id says of them.
    pub(crate) const fn name(self) -> &'static str {
        match (self.activation, self.weight) {
            (Memory::TextureCodes, Memory::Textures) => "_all_textures",
            (Memory::TextureCodes, _) => "_activation_textures",
            (_, Memory::Textures) => "_textures",
            _ => "",
        }
    }
}

/// Restrictions on a plan. The default leaves the choice to the planner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PlanOptions {
    /// Only this engine.
    pub engine: Option<Engine>,
    /// Only this skeleton.
    pub skeleton: Option<Skeleton>,
    /// Only kernels that read weights in this layout: that of a matrix on the device already.
    pub weight_layout: Option<DeviceLayout>,
    /// Only kernels that take weights from this memory. What is written on the device, as by
    /// [`Context::prepare_quantize`](crate::Context::prepare_quantize), lies in buffers.
    pub memory: Option<Memory>,
    /// Only kernels that read activations in this layout: that of a matrix on the device already.
    pub activation_layout: Option<DeviceLayout>,
    /// Only kernels that take activations from this memory.
    pub activation_memory: Option<Memory>,
    /// Both operands will be uploaded in the layouts that the plan names ([`Context::upload`](crate::Context::upload)), so that
    /// floats and activations of any format may lie in textures, where the device reads those faster. Otherwise floats are
    /// expected in buffers, such as another kernel's output, and so are activations of formats that kernels write in
    /// buffers alone.
    pub uploaded: bool,
    /// Only kernels that read the weights, whose format is then `int2` to `int7`, out of a matrix of `int8` on the device
    /// ([`DeviceMatrix::nested`]). Weights of `int8` are read as they are.
    pub nesting: Option<Nesting>,
    /// Only the kernel of this id.
    pub kernel: Option<String>,
    /// The multiplier of the kernels of [`Engine::LMul`], those asked for by id too; by default [`LMul::of`] the operands'
    /// elements. It asks for no engine by itself.
    pub l_mul: Option<LMul>,
    /// Only kernels that split K into so many parts: 1 for those that do not, up to 32. Each part is the work of other
    /// workgroups, and a second kernel adds them up in ascending order. By default the planner weighs both where outputs
    /// are too few for the device.
    pub parts: Option<u32>,
    /// The kernel for one row of X, whatever their number, so that on one adapter a row's result does not depend on what is
    /// computed with it.
    pub deterministic: bool,
    /// Also kernels that a device must have passed a [self-check](crate::Context::self_check) with, and has not yet: to
    /// check them. No context prepares such a plan before that.
    pub unchecked: bool,
    /// What self-checks found: kernels that failed are not taken. A [`Context`](crate::Context) adds what it found itself.
    pub verdicts: Verdicts,
}

impl PlanOptions {
    /// Only this engine.
    pub fn engine(engine: Engine) -> Self {
        Self {
            engine: Some(engine),
            ..Self::default()
        }
    }

    /// Only [`Engine::LMul`], with this multiplier.
    pub fn l_mul(l_mul: LMul) -> Self {
        Self {
            l_mul: Some(l_mul),
            ..Self::engine(Engine::LMul)
        }
    }

    /// Only the kernel of this id, as [`candidates`] lists them.
    pub fn kernel(id: impl Into<String>) -> Self {
        Self {
            kernel: Some(id.into()),
            ..Self::default()
        }
    }

    /// The same, only with kernels that split K into so many parts ([`parts`](Self::parts)).
    #[must_use]
    pub fn with_parts(mut self, parts: u32) -> Self {
        self.parts = Some(parts);
        self
    }

    /// The same with the kernel for one row of X, whatever their number ([`deterministic`](Self::deterministic)).
    #[must_use]
    pub fn with_deterministic(mut self, deterministic: bool) -> Self {
        self.deterministic = deterministic;
        self
    }

    /// The same, also with kernels that are yet to pass a self-check ([`unchecked`](Self::unchecked)).
    #[must_use]
    pub fn with_unchecked(mut self, unchecked: bool) -> Self {
        self.unchecked = unchecked;
        self
    }

    /// The same with what self-checks found ([`verdicts`](Self::verdicts)).
    #[must_use]
    pub fn with_verdicts(mut self, verdicts: Verdicts) -> Self {
        self.verdicts = verdicts;
        self
    }

    /// The same, only with kernels that read weights in this layout.
    #[must_use]
    pub fn with_weight_layout(mut self, layout: DeviceLayout) -> Self {
        self.weight_layout = Some(layout);
        self
    }

    /// The same, only with kernels that take weights from this memory.
    #[must_use]
    pub fn with_memory(mut self, memory: Memory) -> Self {
        self.memory = Some(memory);
        self
    }

    /// The same, only with kernels that take activations from this memory.
    #[must_use]
    pub fn with_activation_memory(mut self, memory: Memory) -> Self {
        self.activation_memory = Some(memory);
        self
    }

    /// The same, only with kernels that read these activations as they lie on the device. Their format is for the problem to
    /// say.
    #[must_use]
    pub fn with_activation(mut self, activation: &DeviceMatrix) -> Self {
        self.activation_layout = Some(DeviceLayout {
            sums: SumLayout::None,
            ..activation.layout()
        });
        self
    }

    /// The same for operands that are uploaded as the plan says ([`uploaded`](Self::uploaded)).
    #[must_use]
    pub fn with_uploaded(mut self, uploaded: bool) -> Self {
        self.uploaded = uploaded;
        self
    }

    /// The same, only with kernels that read the weights out of a matrix of `int8`, in this way.
    #[must_use]
    pub fn with_nesting(mut self, nesting: Nesting) -> Self {
        self.nesting = Some(nesting);
        self
    }

    /// The same, only with kernels that read these weights as they lie on the device, [nested](DeviceMatrix::nested) ones
    /// included. Their format is for the problem to say.
    #[must_use]
    pub fn with_weight(mut self, weight: &DeviceMatrix) -> Self {
        self.nesting = weight.nesting();
        // Sums are extra: no kernel reads them.
        self.with_weight_layout(DeviceLayout {
            sums: SumLayout::None,
            ..weight.layout()
        })
    }
}

/// Why a kernel was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kernel's stem, as in [`KernelRow::stem`].
    pub stem: &'static str,
    /// The reason.
    pub reason: Reason,
    /// Tile, parts of K and memories of a product's kernel. Planning refuses hundreds, of which few are ever named.
    variant: Option<(Tile, u32, Memories)>,
}

impl Refusal {
    /// Of a kernel that comes in one kind alone.
    pub(crate) const fn of(stem: &'static str, reason: Reason) -> Self {
        Self {
            stem,
            reason,
            variant: None,
        }
    }

    /// The kernel's stem, tile, parts and memory: `gemm_tiled_fma_64x64x16_textures`.
    pub fn kernel(&self) -> String {
        let stem = self.stem;
        self.variant.map_or_else(
            || stem.to_owned(),
            |(Tile { m, n, k, .. }, parts, memories)| {
                let (parts, memories) = (part_name(parts), memories.name());
                format!("{stem}_{m}x{n}x{k}{parts}{memories}")
            },
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kernel(), self.reason)
    }
}

/// Reasons against a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The options rule it out.
    Options,
    /// It does not take such activations.
    Activation(MatrixFormat),
    /// It does not take such weights.
    Weight(MatrixFormat),
    /// It does not read such weights out of wider ones.
    Nested(MatrixFormat),
    /// It does not make such output from these operands.
    Output(OutputFormat),
    /// It is for fewer rows of X; with experts, for fewer an expert.
    Rows {
        /// The rows it takes at most.
        limit: u32,
    },
    /// It needs subgroups of so many lanes.
    Subgroup {
        /// The lanes needed.
        lanes: u32,
    },
    /// Its workgroups are too large for the device.
    Invocations {
        /// Invocations needed.
        needed: u32,
        /// The device's limit.
        limit: u32,
    },
    /// It needs more workgroup memory than the device has.
    WorkgroupMemory {
        /// Bytes needed.
        needed: u32,
        /// The device's limit.
        limit: u32,
    },
    /// It does not split K as the options ask.
    Split(NoSplit),
    /// It takes codebooks only where K is a multiple of 32, since what lies past K need not stand for 0.
    Columns(usize),
    /// Integers are exact in the other engines. It takes them if asked for by engine or id.
    Integers,
    /// It emulates another multiplication than f32's. It takes operands if asked for by engine or id.
    Emulation,
    /// The cost model does not weigh tables against multiply-adds yet. It takes the problem if asked for by engine or id.
    Tables,
    /// Its tables are rounded, so that it is taken only if asked for by engine or id.
    RoundedTables,
    /// Its sums of 16 bits hold only so many products of codes of these widths.
    Terms {
        /// The products that a sum holds.
        terms: u32,
    },
    /// The tile would unroll into too much code for such operands.
    Unroll,
    /// Batches of such a number of rows do not start on whole groups of four rows.
    BatchRows(usize),
    /// It multiplies cooperative matrices, and the device lacks something for that.
    Matrix(NoMatrix),
    /// Its workgroups are not whole subgroups of the device, as cooperative matrices demand.
    WholeSubgroups {
        /// Lanes of the device's largest subgroups.
        lanes: u32,
        /// Invocations of its workgroups.
        invocations: u32,
    },
    /// It has to pass a self-check on the device before it is taken: [`Context::self_check`](crate::Context::self_check).
    Unchecked,
    /// It failed a self-check on the device.
    Denied,
    /// The matrices of experts of such a number of rows do not start on whole groups of four rows.
    ExpertRows(usize),
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options => write!(formatter, "ruled out by the options"),
            Self::Activation(format) => write!(formatter, "does not take {format} activations"),
            Self::Weight(format) => write!(formatter, "does not take {format} weights"),
            Self::Nested(format) => {
                write!(
                    formatter,
                    "does not read {format} weights out of int8 ones; that takes int2 to int7 and dot4 or bitplane"
                )
            }
            Self::Output(output) => {
                write!(formatter, "does not make {output} output of these operands")
            }
            Self::Rows { limit } => write!(formatter, "is for up to {limit} rows of X"),
            Self::Subgroup { lanes } => {
                write!(formatter, "needs subgroups of {lanes} lanes or more")
            }
            Self::Invocations { needed, limit } => {
                write!(
                    formatter,
                    "needs {needed} invocations a workgroup, the device has {limit}"
                )
            }
            Self::WorkgroupMemory { needed, limit } => write!(
                formatter,
                "needs {needed} bytes of workgroup memory, the device has {limit}"
            ),
            Self::Split(reason) => reason.fmt(formatter),
            Self::Columns(k) => {
                write!(
                    formatter,
                    "takes codebooks of a multiple of 32 columns, not {k}"
                )
            }
            Self::Integers => write!(
                formatter,
                "leaves integers to the engines that are exact, unless it is asked for"
            ),
            Self::Emulation => write!(
                formatter,
                "emulates another multiplication, which it does only if asked for by engine or id"
            ),
            Self::Tables => write!(
                formatter,
                "leaves such products to multiply-adds on this device, unless it is asked for"
            ),
            Self::RoundedTables => {
                write!(formatter, "rounds its tables, so it must be asked for")
            }
            Self::Matrix(missing) => {
                write!(formatter, "multiplies cooperative matrices; {missing}")
            }
            Self::WholeSubgroups { lanes, invocations } => write!(
                formatter,
                "has workgroups of {invocations} invocations, which are no whole subgroups of {lanes} lanes"
            ),
            Self::Unchecked => write!(
                formatter,
                "must pass a self-check on this device first: Context::self_check"
            ),
            Self::Denied => write!(formatter, "failed a self-check on this device"),
            Self::Terms { terms } => write!(
                formatter,
                "sums products in 16 bits, which hold {terms} of these formats and must hold {SWAR_LEAST_TERMS}"
            ),
            Self::Unroll => write!(formatter, "unrolls into too much code for these formats"),
            Self::BatchRows(rows) => {
                write!(
                    formatter,
                    "takes batches of a multiple of 4 rows, not {rows}"
                )
            }
            Self::ExpertRows(rows) => {
                write!(
                    formatter,
                    "takes experts of a multiple of 4 rows of W, not {rows}"
                )
            }
        }
    }
}

/// A kernel that can do a problem.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its shader.
    pub specialization: Specialization,
    /// How it multiplies.
    pub engine: Engine,
    /// How it shares the work out.
    pub skeleton: Skeleton,
    /// Its sizes.
    pub tile: Tile,
    /// What it reads operands from.
    pub memories: Memories,
    /// Parts that it splits K into, which a second kernel adds up; 1 if it does not.
    pub parts: u32,
    /// The cost model's estimate, in arbitrary units.
    pub cost: f64,
    /// Rows of X that the cost is of: all, or one where the plan is to be the same for every number of rows.
    planned_rows: usize,
    l_mul: LMul,
    activation_layout: DeviceLayout,
    weight_layout: DeviceLayout,
    nesting: Option<Nesting>,
}

/// How a problem is done on a device: one kernel, and the layouts it reads.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) problem: Problem,
    pub(crate) candidate: Candidate,
    pub(crate) max_workgroups: u32,
}

impl Plan {
    /// The kernel's id.
    pub fn id(&self) -> &str {
        &self.candidate.specialization.id
    }

    /// What is computed.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The kernel's shader.
    pub fn specialization(&self) -> &Specialization {
        &self.candidate.specialization
    }

    /// How the kernel multiplies.
    pub fn engine(&self) -> Engine {
        self.candidate.engine
    }

    /// How the kernel shares the work out.
    pub fn skeleton(&self) -> Skeleton {
        self.candidate.skeleton
    }

    /// The kernel's sizes.
    pub fn tile(&self) -> Tile {
        self.candidate.tile
    }

    /// The multiplier of a kernel of [`Engine::LMul`]; `None` of other engines.
    pub fn l_mul(&self) -> Option<LMul> {
        (self.engine() == Engine::LMul).then_some(self.candidate.l_mul)
    }

    /// The parts that K is split into: 1 if it is not. Part p begins at step p·S / parts, rounded down, of the S steps of
    /// [`part_step`](Self::part_step) columns that K has.
    pub fn parts(&self) -> u32 {
        let steps = part_steps(self.skeleton(), &self.candidate.tile, self.problem.k);
        // A kernel that splits may find no step: then it has a part without columns.
        u64::from(self.candidate.parts).min(steps.max(1)) as u32
    }

    /// Columns that parts of K are multiples of, but for the last part.
    pub fn part_step(&self) -> u32 {
        part_step(self.skeleton(), &self.candidate.tile)
    }

    /// The kernel that adds parts up, and what it binds.
    pub(crate) fn add_parts(&self) -> (Specialization, Vec<Binding>) {
        let Problem {
            output, residual, ..
        } = self.problem;
        (
            add_parts_specialization(output, residual),
            add_parts_bindings(residual),
        )
    }

    /// Whether its kernel stores parts, for a second kernel to add up.
    pub(crate) fn is_split(&self) -> bool {
        self.candidate.parts > 1
    }

    /// The layout in which the kernel reads activations.
    pub fn activation_layout(&self) -> DeviceLayout {
        self.candidate.activation_layout
    }

    /// The layout in which the kernel reads weights.
    pub fn weight_layout(&self) -> DeviceLayout {
        self.candidate.weight_layout
    }

    /// Whether the device must have passed a self-check with the kernel before it is used.
    pub fn needs_self_check(&self) -> bool {
        needs_self_check(self.engine())
    }

    /// How the kernel reads weights at fewer bits than the 8 that they are stored in, if it does.
    pub fn nesting(&self) -> Option<Nesting> {
        self.candidate.nesting
    }

    /// What its kernel binds.
    pub(crate) fn bindings(&self) -> Vec<Binding> {
        let Memories { activation, weight } = self.candidate.memories;
        // The residual is for the kernel that adds parts up.
        let whole = Problem {
            residual: self.problem.residual && !self.is_split(),
            ..self.problem.clone()
        };
        gemm_bindings(activation, weight, &whole)
    }

    /// Workgroups for `batches` products of M rows of X and N rows of W: (tiles along M, tiles along N, grid).
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if even a folded grid does not hold them.
    pub(crate) fn grid(&self, batches: usize, m: usize, n: usize) -> Result<(u32, u32, [u32; 3])> {
        let tile = self.candidate.tile;
        let tiles_m = match self.problem.experts {
            None => (m as u64).div_ceil(u64::from(tile.m)),
            // As rows/experts.wgsl counts them.
            Some(experts) => {
                let rows = m as u64;
                (rows / u64::from(tile.m) + experts as u64).min(rows)
            }
        };
        let tiles_n = (n as u64).div_ceil(u64::from(tile.n));
        let [x, y] = fold_grid(tiles_m.saturating_mul(tiles_n), self.max_workgroups)?;
        let layers = (batches as u64).saturating_mul(self.parts().into());
        if layers > u64::from(self.max_workgroups) {
            return Err(Error::TooLarge {
                what: match self.is_split() {
                    false => "the number of batches",
                    true => "the number of batches times that of parts",
                },
                value: layers,
                limit: u64::from(self.max_workgroups),
            });
        }
        // fold_grid saw that the product fits, so each factor does.
        Ok((tiles_m as u32, tiles_n as u32, [x, y, layers as u32]))
    }

    /// The most batches of a dispatch.
    pub(crate) fn most_batches(&self) -> usize {
        (self.max_workgroups / self.parts().max(1)) as usize
    }

    /// How long the product takes on a device that is among the slowest of its class: a guess on the safe side, which watchdogs
    /// are reckoned with by.
    pub(crate) fn longest(&self, class: DeviceClass) -> Duration {
        let rows = match self.problem.experts {
            // Deterministic plans are made for one row.
            None if self.candidate.planned_rows < self.problem.m => {
                self.problem.m as f64 / self.candidate.planned_rows.max(1) as f64
            }
            _ => 1.0,
        };
        let seconds = self.candidate.cost * rows / slowest(class);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Multiply-adds of f32 a second, as [`cost`] counts, on devices that are among the slowest: small integrated GPUs, and
/// software adapters with two threads.
const fn slowest(class: DeviceClass) -> f64 {
    match class {
        DeviceClass::Gpu => 1.0e11,
        DeviceClass::Software => 1.0e10,
    }
}

/// Whether kernels of an engine are taken only after a self-check: no specification promises that cooperative matrices add up
/// in full f32.
const fn needs_self_check(engine: Engine) -> bool {
    matches!(engine, Engine::Matrix)
}

/// A line of workgroups as a near-square plane, since a dimension holds only so many.
///
/// # Errors
///
/// [`Error::TooLarge`] beyond the square of the limit.
pub(crate) fn fold_grid(count: u64, limit: u32) -> Result<[u32; 2]> {
    let limit = u64::from(limit.max(1));
    if count <= limit {
        return Ok([count as u32, 1]);
    }
    let rows = count.div_ceil(limit);
    if rows > limit || count > u64::from(u32::MAX) {
        return Err(Error::TooLarge {
            what: "the number of workgroups",
            value: count,
            limit: (limit * limit).min(u64::from(u32::MAX)),
        });
    }
    Ok([count.div_ceil(rows) as u32, rows as u32])
}

/// The largest K at which the exact product of two formats cannot pass an i32: of the integers behind the codes, or of
/// the values in the units in which `dot4` takes them. `None` where a format has no integers.
///
/// Sums that overflow on the way wrap and come back, so only the result counts.
pub fn max_k(activation: ElementFormat, weight: ElementFormat, zeros: bool) -> Option<usize> {
    let magnitude = |element: ElementFormat| -> Option<u64> {
        let (low, high) = element.integer_range()?;
        let largest = i64::from(low.abs().max(high.abs()));
        // A zero point moves a value by up to the largest code.
        Some((largest + if zeros { 255 } else { 0 }).unsigned_abs())
    };
    let product = (magnitude(activation)? * magnitude(weight)?).max(1);
    Some((i32::MAX as u64 / product) as usize)
}

/// Every kernel that can do the problem, cheapest first, and every refusal.
///
/// # Errors
///
/// Those of [`plan`], without [`Error::Unsupported`].
pub fn candidates(
    problem: &Problem,
    caps: &Caps,
    options: &PlanOptions,
) -> Result<(Vec<Candidate>, Vec<Refusal>)> {
    check_sizes(problem)?;
    check_parts(options)?;
    let one_row;
    let problem = if options.deterministic && problem.m > 1 {
        one_row = Problem {
            m: 1,
            ..problem.clone()
        };
        &one_row
    } else {
        problem
    };
    let mut accepted = Vec::new();
    let mut refused = Vec::new();
    for &row in KERNELS {
        for tile in row.tiles {
            // Teams, or the clusters that share tables, lie inside subgroups.
            let lanes = if row.engine.has_tables() {
                TABLE_CLUSTER
            } else {
                tile.lanes
            };
            let reduce = match caps.subgroup {
                Some((smallest, _)) if smallest >= lanes => Reduce::Subgroup,
                _ => Reduce::Workgroup,
            };
            for split in splits_of(row, tile, problem, caps, options) {
                for memories in memories(row, problem, caps, options) {
                    let considered =
                        consider(row, tile, reduce, memories, split, problem, caps, options);
                    match considered {
                        Ok(candidate) => accepted.push(candidate),
                        Err(reason) => refused.push(Refusal {
                            stem: row.stem,
                            reason,
                            variant: Some((*tile, split, memories)),
                        }),
                    }
                }
            }
        }
    }
    accepted.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    Ok((accepted, refused))
}

/// The numbers of parts that K may be split into: those that the options say, else 1 and, where workgroups are too few to fill
/// a GPU and K is long, powers of two until they fill it.
fn splits_of(
    row: &KernelRow,
    tile: &Tile,
    problem: &Problem,
    caps: &Caps,
    options: &PlanOptions,
) -> Vec<u32> {
    if let Some(parts) = options.parts {
        return vec![parts];
    }
    if let Some(id) = &options.kernel {
        return vec![parts_of_id(id).clamp(1, MOST_PARTS)];
    }
    let mut all = vec![1];
    // Up to eight rows are for kernels whose teams split K.
    let offered = caps.class == DeviceClass::Gpu
        && splits(row)
        && problem.experts.is_none()
        && !options.deterministic
        && problem.segment() > GEMV_ROWS as usize;
    if offered {
        let invocations = tiles(problem, tile) * f64::from(tile.workgroup);
        let wanted = rates(caps).invocations;
        let steps = part_steps(row.skeleton, tile, problem.k);
        let mut parts = 2;
        while parts <= MOST_PARTS
            && invocations * f64::from(parts / 2) < wanted
            && steps >= LEAST_STEPS * u64::from(parts)
            && problem.batch.count as u64 * u64::from(parts) <= u64::from(caps.max_workgroups)
        {
            all.push(parts);
            parts *= 2;
        }
    }
    all
}

/// The kinds of memory that operands may lie in. Textures are for devices that read them faster than buffers, and for who asks.
fn memories(
    row: &KernelRow,
    problem: &Problem,
    caps: &Caps,
    options: &PlanOptions,
) -> impl Iterator<Item = Memories> {
    let textures =
        !matches!(row.engine, Engine::LMul | Engine::Matrix) && caps.max_texture >= TEXTURE_WIDTH;
    let offered = |expected: bool| {
        options.kernel.is_some() || (caps.class == DeviceClass::Software && expected)
    };
    let asked = |memory: Option<Memory>, layout: Option<DeviceLayout>| {
        memory.or(layout.map(|layout| layout.memory))
    };
    let weight = asked(options.memory, options.weight_layout);
    let weight_expected = options.uploaded || problem.weight.element().has_codes();
    let activation = asked(options.activation_memory, options.activation_layout);
    let (layout, _) = layouts(row, problem, Memories::BUFFERS);
    let written = has_whole_texels(problem.activation.element(), &layout);
    let activation_expected = options.uploaded || written;
    let takes = move |memory, asked: Option<Memory>, offered| match asked {
        Some(asked) => asked == memory,
        None => memory == Memory::Buffers || (textures && offered),
    };
    let weight_offered = offered(weight_expected);
    let activation_offered = offered(activation_expected);
    Memories::ALL.into_iter().filter(move |memories| {
        // Activations go into textures where weights do, or where they are asked to.
        let alone = memories.activation != Memory::Buffers && memories.weight == Memory::Buffers;
        let in_buffers = *memories == Memories::BUFFERS;
        (textures || in_buffers)
            && (!alone || activation.is_some() || options.kernel.is_some())
            && takes(memories.weight, weight, weight_offered)
            && takes(memories.activation, activation, activation_offered)
    })
}

/// The kernel for a problem on a device, by the cost model.
///
/// # Errors
///
/// [`Error::Unsupported`] with every refusal if no kernel can do it; [`Error::AccumulatorOverflow`] if K is so large that
/// integers could overflow; [`Error::Format`] if a group does not divide K; [`Error::TooLarge`] for sizes past u32.
pub fn plan(problem: &Problem, caps: &Caps, options: &PlanOptions) -> Result<Plan> {
    plan_with(problem, caps, options, &Choices::none())
}

/// The kernel for a problem on a device: of those that the options leave, the one that was measured to be the fastest,
/// else by the cost model.
///
/// # Errors
///
/// Those of [`plan`]; never one because of the choices.
pub fn plan_with(
    problem: &Problem,
    caps: &Caps,
    options: &PlanOptions,
    choices: &Choices,
) -> Result<Plan> {
    let (accepted, refusals) = candidates(problem, caps, options)?;
    if let Some(choice) = choices.choose(problem, caps, options, &accepted) {
        return Ok(choice.plan);
    }
    let candidate = accepted
        .into_iter()
        .next()
        .ok_or_else(|| Error::Unsupported {
            contract: problem.contract(),
            refusals,
        })?;
    plan_of(problem, caps, candidate)
}

/// The plan with one candidate.
///
/// # Errors
///
/// Those of [`plan`] but [`Error::Unsupported`].
pub(crate) fn plan_of(problem: &Problem, caps: &Caps, candidate: Candidate) -> Result<Plan> {
    if candidate.engine.is_integer() || candidate.engine == Engine::Matrix {
        check_accumulator(problem, candidate.nesting)?;
    }
    let plan = Plan {
        problem: problem.clone(),
        candidate,
        max_workgroups: caps.max_workgroups,
    };
    check_grid(&plan)?;
    Ok(plan)
}

/// Refuses what has more tiles than even a folded grid. More batches than a grid has layers are several dispatches.
fn check_grid(plan: &Plan) -> Result<()> {
    let Problem { m, n, batch, .. } = plan.problem;
    plan.grid(batch.count.min(plan.most_batches().max(1)), m, n)
        .map(drop)
}

fn check_parts(options: &PlanOptions) -> Result<()> {
    match options.parts {
        Some(parts) if !(1..=MOST_PARTS).contains(&parts) => Err(Error::Parameter {
            what: "the number of parts of K",
            value: parts.to_string(),
            expected: format!("1 to {MOST_PARTS}"),
        }),
        _ => Ok(()),
    }
}

fn check_sizes(problem: &Problem) -> Result<()> {
    let experts = |what, value: usize, expected: &str| {
        Err(Error::Parameter {
            what,
            value: value.to_string(),
            expected: expected.to_owned(),
        })
    };
    if problem.experts == Some(0) {
        return experts("the number of experts", 0, "1 or more");
    }
    if problem.experts.is_some() && problem.batch.count != 1 {
        let expected = "1 for a problem with experts";
        return experts("the number of batches", problem.batch.count, expected);
    }
    problem
        .activation
        .check_shape(problem.activation_rows(), problem.k)?;
    problem
        .weight
        .check_shape(problem.weight_rows(), problem.k)?;
    let limit = u64::from(u32::MAX / 2);
    let sizes = [
        ("M", problem.m as u64),
        ("N", problem.n as u64),
        ("K", problem.k as u64),
        (
            "the rows of all batches of X",
            (problem.m as u64).saturating_mul(problem.batch.count as u64),
        ),
        (
            "the rows of all batches of W",
            (problem.n as u64).saturating_mul(problem.batch.count as u64),
        ),
        (
            "the rows of all experts of W",
            (problem.n as u64).saturating_mul(problem.experts.unwrap_or(1) as u64),
        ),
        ("the number of experts", problem.experts.unwrap_or(1) as u64),
        (
            "the number of outputs",
            (problem.m as u64)
                .saturating_mul(problem.n as u64)
                .saturating_mul(problem.batch.count as u64),
        ),
    ];
    for (what, value) in sizes {
        if value > limit {
            return Err(Error::TooLarge { what, value, limit });
        }
    }
    Ok(())
}

fn check_accumulator(problem: &Problem, nesting: Option<Nesting>) -> Result<()> {
    let zeros = problem.activation.zero_kind() == ZeroKind::Integer
        || problem.weight.zero_kind() == ZeroKind::Integer;
    let (activation, mut weight) = (problem.activation.element(), problem.weight.element());
    // Under scales, nested integers are in units of the stored ones, and as large.
    if nesting.is_some() && problem.output != OutputFormat::I32 && problem.weight.scales().is_some()
    {
        weight = ElementFormat::INT8;
    }
    let Some(max_k) = max_k(activation, weight, zeros) else {
        return Ok(());
    };
    // Scale groups bound the integers; without them they run along all of K.
    let length = match (group_of(&problem.activation), group_of(&problem.weight)) {
        (0, 0) => problem.k,
        _ => span(problem) as usize,
    };
    if length > max_k {
        return Err(Error::AccumulatorOverflow {
            k: problem.k,
            max_k,
            activation,
            weight,
        });
    }
    Ok(())
}

#[expect(
    clippy::too_many_arguments,
    reason = "all that a candidate is made of, and what it is for"
)]
fn consider(
    row: &'static KernelRow,
    tile: &Tile,
    reduce: Reduce,
    memories: Memories,
    split: u32,
    problem: &Problem,
    caps: &Caps,
    options: &PlanOptions,
) -> Result<Candidate, Reason> {
    if options.engine.is_some_and(|engine| engine != row.engine)
        || options
            .skeleton
            .is_some_and(|skeleton| skeleton != row.skeleton)
    {
        return Err(Reason::Options);
    }
    // Weights of 8 bits are read as they are stored.
    let nesting = options
        .nesting
        .filter(|_| problem.weight.element() != ElementFormat::INT8);
    supports(row, tile, problem, options, nesting)?;
    let limit = caps.max_binding.min(caps.max_buffer);
    check_split(row, tile, problem, options, split, limit).map_err(Reason::Split)?;

    let (activation_layout, weight_layout) = layouts(row, problem, memories);
    if options
        .weight_layout
        .is_some_and(|layout| layout != weight_layout)
    {
        return Err(Reason::Options);
    }
    let other = |asked: Option<Memory>, memory| asked.is_some_and(|asked| asked != memory);
    if options
        .activation_layout
        .is_some_and(|layout| layout != activation_layout)
        || other(options.memory, memories.weight)
        || other(options.activation_memory, memories.activation)
    {
        return Err(Reason::Options);
    }
    let smallest_subgroup = caps.subgroup.map_or(0, |(smallest, _)| smallest);
    let feed_lanes = match smallest_subgroup {
        8.. => 8,
        4.. => 4,
        _ if row.skeleton == Skeleton::Subgroup => return Err(Reason::Subgroup { lanes: 4 }),
        _ => 0,
    };
    // What the shader's text is without such matrices does not matter: the candidate is refused here.
    let fragment = match (row.engine, caps.matrix) {
        (Engine::Matrix, Err(missing)) => return Err(Reason::Matrix(missing)),
        (_, fragment) => fragment.unwrap_or(Fragment::Sixteen),
    };
    if row.engine == Engine::Matrix {
        let lanes = caps.subgroup.map_or(0, |(_, largest)| largest);
        if lanes == 0 || !tile.workgroup.is_multiple_of(lanes) {
            return Err(Reason::WholeSubgroups {
                lanes,
                invocations: tile.workgroup,
            });
        }
    }
    if tile.workgroup > caps.max_invocations {
        return Err(Reason::Invocations {
            needed: tile.workgroup,
            limit: caps.max_invocations,
        });
    }
    let l_mul = options
        .l_mul
        .unwrap_or_else(|| LMul::of(problem.activation.element(), problem.weight.element()));
    let parts = Parts {
        reduce,
        memories,
        nesting,
        l_mul,
        fragment,
        split,
        table_lanes: table_lanes(row, tile, reduce, problem, smallest_subgroup),
        feed_lanes,
    };
    let specialization = specialize(row, tile, problem, parts);
    if options
        .kernel
        .as_ref()
        .is_some_and(|id| *id != specialization.id)
    {
        return Err(Reason::Options);
    }
    if specialization.workgroup_memory > caps.max_workgroup_memory {
        return Err(Reason::WorkgroupMemory {
            needed: specialization.workgroup_memory,
            limit: caps.max_workgroup_memory,
        });
    }
    match options.verdicts.get(&specialization.id) {
        Some(Verdict::Passed) => {}
        Some(_) => return Err(Reason::Denied),
        None if needs_self_check(row.engine) && !options.unchecked => {
            return Err(Reason::Unchecked);
        }
        None => {}
    }
    let cost = match row.engine {
        Engine::Matrix => matrix_cost(tile, problem, caps),
        _ if split > 1 => {
            // Parts are as batches, each as long as the longest of them.
            let step = part_step(row.skeleton, tile);
            let steps = part_steps(row.skeleton, tile, problem.k).div_ceil(u64::from(split));
            let part = Problem {
                k: (steps as usize).saturating_mul(step as usize),
                batch: Batch {
                    count: problem.batch.count.saturating_mul(split as usize),
                    ..problem.batch
                },
                ..problem.clone()
            };
            cost(row, tile, &part, &parts, caps) + add_cost(problem, split, caps)
        }
        _ => cost(row, tile, problem, &parts, caps),
    };
    Ok(Candidate {
        cost,
        planned_rows: problem.m,
        specialization,
        engine: row.engine,
        skeleton: row.skeleton,
        tile: *tile,
        memories,
        parts: split,
        l_mul,
        activation_layout,
        weight_layout,
        nesting,
    })
}

/// Whether the weights can be read out of a matrix of `int8`.
fn nests(weight: &MatrixFormat) -> bool {
    let narrower = |bits| matches!(bits, 2..=7);
    weight.zero_kind() != ZeroKind::Integer
        && weight.element().affine().is_some_and(|affine| {
            affine.encoding() == Encoding::TwosComplement && narrower(affine.bits())
        })
}

/// Whether a row's arithmetic can do the problem at all.
fn supports(
    row: &KernelRow,
    tile: &Tile,
    problem: &Problem,
    options: &PlanOptions,
    nesting: Option<Nesting>,
) -> Result<(), Reason> {
    let reads_nested = matches!(row.engine, Engine::Dot4 | Engine::Bitplane);
    if nesting.is_some() && !(reads_nested && nests(&problem.weight)) {
        return Err(Reason::Nested(problem.weight));
    }
    let (activation, weight) = (problem.activation.element(), problem.weight.element());
    let affine = activation.affine().is_some() && weight.affine().is_some();
    let asked = options.engine.is_some() || options.kernel.is_some();
    if row.engine == Engine::LMul && !asked {
        return Err(Reason::Emulation);
    }
    if problem.residual && problem.output != OutputFormat::F32 {
        return Err(Reason::Output(problem.output));
    }
    if row.engine.is_float() {
        if problem.output == OutputFormat::I32 {
            return Err(Reason::Output(problem.output));
        }
        let exact = affine && problem.activation.zero_kind() != ZeroKind::Minimum;
        if exact && !asked {
            return Err(Reason::Integers);
        }
    } else if row.engine.has_tables() {
        supports_tables(row.engine, problem)?;
        if options.engine.is_none() && options.kernel.is_none() {
            return Err(match row.engine {
                Engine::Lut8 => Reason::RoundedTables,
                _ => Reason::Tables,
            });
        }
    } else if row.engine == Engine::Matrix {
        supports_matrix(problem)?;
    } else {
        let takes = |element: ElementFormat| match row.engine {
            Engine::Dot4 => element.lift_unit().is_some(),
            _ => element.affine().is_some(),
        };
        let grouped_weight = group_of(&problem.weight) != 0;
        if !takes(activation)
            || matches!(
                problem.activation.zero_kind(),
                ZeroKind::Minimum | ZeroKind::Choice
            )
        {
            return Err(Reason::Activation(problem.activation));
        }
        if !takes(weight) || (weight.has_choices() && !grouped_weight) {
            return Err(Reason::Weight(problem.weight));
        }
        if row.engine == Engine::Swar {
            let Multiply { terms, .. } = Multiply::of(row.engine, activation, weight);
            if terms < SWAR_LEAST_TERMS {
                return Err(Reason::Terms { terms });
            }
        }
        let codebook = activation.codebook().is_some() || weight.codebook().is_some();
        if codebook && !problem.k.is_multiple_of(32) {
            return Err(Reason::Columns(problem.k));
        }
        let grouped = group_of(&problem.activation) != 0 || grouped_weight;
        let minimum = problem.weight.zero_kind() == ZeroKind::Minimum;
        if problem.output == OutputFormat::I32 && (grouped || minimum) {
            return Err(Reason::Output(problem.output));
        }
        let weight_planes = weight.bits() + carry_planes(row.engine, nesting);
        let products = activation.bits() * weight_planes * (32 / span(problem));
        if row.engine == Engine::Bitplane && tile.thread_m * tile.thread_n * products > UNROLL_LIMIT
        {
            return Err(Reason::Unroll);
        }
    }
    let (rows, columns) = match row.skeleton {
        // The workgroup shares the tiles out.
        Skeleton::Tiled => {
            let each = |rows: u32| f64::from(rows * tile.k) / f64::from(32 * tile.workgroup);
            // Loops of the engine `matrix` that decode are not unrolled.
            match row.engine {
                Engine::Matrix => (0.0, 0.0),
                _ => (each(tile.m), each(tile.n)),
            }
        }
        Skeleton::Subgroup => (f64::from(tile.thread_m) / 8.0, f64::from(tile.thread_n)),
        Skeleton::Gemv => (f64::from(tile.thread_m), f64::from(tile.thread_n)),
    };
    let decoding =
        rows * decode_cost(row.engine, activation) + columns * decode_cost(row.engine, weight);
    if decoding > DECODE_LIMIT {
        return Err(Reason::Unroll);
    }
    // Decoding beside so many sums takes drivers many seconds to compile, for little gain.
    let decodes = row.engine.is_float() && (weight.has_codes() || activation.has_codes());
    if decodes && row.skeleton == Skeleton::Subgroup && tile.thread_m * tile.thread_n > 128 {
        return Err(Reason::Unroll);
    }
    if row.skeleton == Skeleton::Gemv && problem.segment() > GEMV_ROWS as usize {
        return Err(Reason::Rows { limit: GEMV_ROWS });
    }
    if weight.has_codes() {
        check_batch_rows(problem.n, problem.batch, problem.batch.broadcast_weight)?;
        if problem.experts.is_some_and(|experts| experts > 1)
            && !problem.n.is_multiple_of(WEIGHT_INTERLEAVE as usize)
        {
            return Err(Reason::ExpertRows(problem.n));
        }
    }
    if row.engine == Engine::Bitplane && row.skeleton == Skeleton::Tiled {
        check_batch_rows(problem.m, problem.batch, problem.batch.broadcast_activation)?;
    }
    Ok(())
}

/// Whether sums of the activations can be looked up by the planes of the weights.
fn supports_tables(engine: Engine, problem: &Problem) -> Result<(), Reason> {
    debug_assert!(engine.has_tables());
    if problem.output == OutputFormat::I32 {
        return Err(Reason::Output(problem.output));
    }
    if !matches!(problem.activation.element(), ElementFormat::Float(_)) {
        return Err(Reason::Activation(problem.activation));
    }
    let weight = problem.weight.element();
    if weight.affine().is_none() || weight.bits() > TABLE_BITS {
        return Err(Reason::Weight(problem.weight));
    }
    Ok(())
}

/// Whether cooperative matrices can hold the operands: elements that are exact in f16, less their zero points.
fn supports_matrix(problem: &Problem) -> Result<(), Reason> {
    let (activation, weight) = (&problem.activation, &problem.weight);
    if !activation.element().fits_f16()
        || matches!(activation.zero_kind(), ZeroKind::Minimum | ZeroKind::Choice)
    {
        return Err(Reason::Activation(*activation));
    }
    let grouped_weight = group_of(weight) != 0;
    if !weight.element().fits_f16() || (weight.element().has_choices() && !grouped_weight) {
        return Err(Reason::Weight(*weight));
    }
    let whole = group_of(activation) == 0 && !grouped_weight;
    let minimum = weight.zero_kind() == ZeroKind::Minimum;
    if problem.output == OutputFormat::I32 && !(is_integer_product(problem) && whole && !minimum) {
        return Err(Reason::Output(problem.output));
    }
    Ok(())
}

/// Kernels that read four rows at once need batches to start on such four.
fn check_batch_rows(rows: usize, batch: Batch, broadcast: bool) -> Result<(), Reason> {
    if batch.count > 1 && !broadcast && !rows.is_multiple_of(WEIGHT_INTERLEAVE as usize) {
        return Err(Reason::BatchRows(rows));
    }
    Ok(())
}

/// What a device's loads cost against its arithmetic: in multiply-adds of one invocation, for one 32-bit word.
struct Rates {
    load: f64,
    texture_load: f64,
    /// How much dearer a load is whose neighbours go to other rows.
    scattered: f64,
    workgroup_load: f64,
    barrier: f64,
    multiply_add: f64,
    dot4: f64,
    plane: f64,
    /// A multiply-add of a cooperative matrix.
    matrix: f64,
    /// Two products of codes, and their sums.
    swar: f64,
    /// A multiply-add of words of codes: one product, or two.
    integer_fma: f64,
    /// Parting a word's sum, for each of its rows.
    part: f64,
    shuffle: f64,
    /// A word that a lane of a subgroup hands to all.
    broadcast: f64,
    /// Accumulators that an invocation's registers hold beside all else.
    accumulators: f64,
    /// Invocations that the device wants in flight.
    invocations: f64,
    /// What a dispatch that waits for another costs, of each of those.
    dispatch: f64,
}

/// Measured on lavapipe: a load costs as much as dozens of multiply-adds, wherever it goes.
const LAVAPIPE: Rates = Rates {
    load: 40.0,
    texture_load: 5.0,
    scattered: 1.0,
    workgroup_load: 40.0,
    barrier: 60.0,
    multiply_add: 1.0,
    dot4: 4.0,
    plane: 3.0,
    matrix: 1.0,
    swar: 0.55,
    integer_fma: 0.45,
    part: 1.0,
    shuffle: 5.0,
    // Part of what loads cost there.
    broadcast: 0.0,
    // Vectors are kept in memory that caches hold, as all else is.
    accumulators: f64::INFINITY,
    invocations: 64.0,
    dispatch: 40_000.0,
};

const fn rates(caps: &Caps) -> Rates {
    match caps.class {
        // Measured on SwiftShader, whose vectors are of four lanes: a packed dot product takes ten times a multiply-add, and a
        // multiply of words of two rows two thirds of one. What loads cost is such that the fastest kernels come first.
        DeviceClass::Software if !matches!(caps.subgroup, Some((8.., _))) => Rates {
            load: 12.0,
            workgroup_load: 12.0,
            dot4: 10.0,
            swar: 0.65,
            integer_fma: 1.0,
            ..LAVAPIPE
        },
        DeviceClass::Software => LAVAPIPE,
        DeviceClass::Gpu => Rates {
            load: 8.0,
            texture_load: 12.0,
            scattered: 2.0,
            workgroup_load: 1.0,
            barrier: 20.0,
            multiply_add: 1.0,
            dot4: 1.2,
            plane: 3.0,
            // By data sheets, not measured.
            matrix: 0.125,
            // A multiply of 32 bits takes four times that of an f32.
            swar: 5.0,
            integer_fma: 1.0,
            part: 3.0,
            shuffle: 4.0,
            broadcast: 4.0,
            // Of 255 registers that NVIDIA's invocations have; on an H200 128 accumulators run well, and 256 or more, which spill,
            // tens of times as slow.
            accumulators: 128.0,
            invocations: 16384.0,
            // Two or three microseconds.
            dispatch: 4000.0,
        },
    }
}

/// Operations that find an entry of a table and add it, besides the look-up itself.
const LOOK_UP_OPERATIONS: f64 = 5.0;

/// What tiles that take turns are taken to cost in place of one. They save barriers and leave room for fewer workgroups; on
/// lavapipe they gain nothing, and no GPU was measured. So they come after the others, until a tuning finds them faster.
const BUFFERED: f64 = 1.1;

/// How much dearer products are whose sums do not fit in registers: each is loaded and stored again.
const SPILLED: f64 = 16.0;

/// How much dearer bit counts are on software adapters where few rows share what they cost to set up: on lavapipe W2A8 takes 1.6
/// times as long as by `dot4`, and both were estimated alike.
const FEW_ROWS: f64 = 1.25;

/// Places that a processor fetches ahead from at a time.
const STREAMS: f64 = 16.0;

/// Operations that make values of 32 codes of a codebook whose table lanes hold.
const HELD_DECODE: f64 = 160.0;

/// Operations that make 32 codes ready for an engine.
fn decode_cost(engine: Engine, element: ElementFormat) -> f64 {
    match (engine, element) {
        (Engine::Bitplane | Engine::Lut | Engine::Lut8, _) | (_, ElementFormat::Float(_)) => 0.0,
        (Engine::Fma | Engine::LMul | Engine::Matrix, ElementFormat::Minifloat(_)) => 320.0,
        (Engine::Fma | Engine::LMul | Engine::Matrix, ElementFormat::Codebook(_)) => 600.0,
        (Engine::Fma | Engine::LMul | Engine::Matrix, _)
        | (Engine::Swar | Engine::IntegerFma, _) => 64.0,
        (Engine::Dot4, ElementFormat::Minifloat(_)) => 144.0,
        (Engine::Dot4, ElementFormat::Codebook(_)) => 400.0,
        (Engine::Dot4, _) => 16.0,
    }
}

/// Workgroups that have work. Experts that have rows are taken to have as many; workgroups without rows cost next to nothing.
fn tiles(problem: &Problem, tile: &Tile) -> f64 {
    let segments = (problem.m as f64 / problem.segment().max(1) as f64).ceil();
    segments
        * (problem.segment() as f64 / f64::from(tile.m)).ceil()
        * (problem.n as f64 / f64::from(tile.n)).ceil()
        * problem.batch.count as f64
}

/// The estimate: arithmetic and loads of all invocations, and the penalty of too few of them. Only its order matters.
fn cost(row: &KernelRow, tile: &Tile, problem: &Problem, parts: &Parts, caps: &Caps) -> f64 {
    let &Parts {
        reduce,
        memories,
        nesting,
        table_lanes,
        feed_lanes,
        ..
    } = parts;
    let rates = rates(caps);
    let load = |memory| match memory {
        Memory::Buffers => rates.load,
        Memory::Textures | Memory::TextureCodes => rates.texture_load,
    };
    let (activation_load, weight_load) = (load(memories.activation), load(memories.weight));
    let bits = |format: &MatrixFormat| f64::from(format.element().bits());
    let activation_bits = bits(&problem.activation);
    let weight_bits = match (row.engine, nesting) {
        // All of the stored bytes.
        (Engine::Dot4, Some(_)) => 8.0,
        _ => bits(&problem.weight) + f64::from(carry_planes(row.engine, nesting)),
    };
    let blocks = (problem.k as f64 / 32.0).max(1.0);
    let (thread_m, thread_n) = (f64::from(tile.thread_m), f64::from(tile.thread_n));

    let multiply = Multiply::of(
        row.engine,
        problem.activation.element(),
        problem.weight.element(),
    );
    let word_rows = f64::from(multiply.rows);
    let terms = f64::from(multiply.step(span(problem)));

    // Per block of 32 codes and invocation.
    let product = match row.engine {
        Engine::Fma => 32.0 * rates.multiply_add,
        // About twelve integer operations a product, and the sum.
        Engine::LMul => 32.0 * 13.0 * rates.multiply_add,
        Engine::Dot4 => 8.0 * rates.dot4,
        Engine::Bitplane if row.skeleton == Skeleton::Gemv && caps.class != DeviceClass::Gpu => {
            activation_bits * weight_bits * rates.plane * FEW_ROWS
        }
        Engine::Bitplane => activation_bits * weight_bits * rates.plane,
        Engine::Swar => 16.0 * rates.swar + 32.0 / terms * rates.part,
        Engine::IntegerFma => 32.0 / word_rows * rates.integer_fma + 32.0 / terms * rates.part,
        Engine::Lut | Engine::Lut8 => {
            // Eight lookups a plane, and an entry of each of eight tables for all rows of W of an invocation.
            let look_up = match reduce {
                Reduce::Subgroup => rates.shuffle,
                Reduce::Workgroup => rates.workgroup_load,
            };
            8.0 * weight_bits * (look_up + LOOK_UP_OPERATIONS * rates.multiply_add)
                + 64.0 * rates.multiply_add / thread_n
        }
        // It has a cost of its own.
        Engine::Matrix => 0.0,
    };
    let decode_cost = |element| match table_lanes {
        1.. if is_held(element) => HELD_DECODE,
        _ => decode_cost(row.engine, element),
    };
    let mut decode = decode_cost(problem.weight.element());
    if row.engine == Engine::Dot4 && nesting == Some(Nesting::DoubleRounding) {
        // Some ten operations for four codes.
        decode += 80.0;
    }
    let activation_decode = decode_cost(problem.activation.element());
    let scales = if group_of(&problem.weight) == 0 {
        0.0
    } else {
        1.0
    };
    let mut arithmetic = thread_m * thread_n * (product + 4.0 * scales);
    let loads = match row.skeleton {
        Skeleton::Tiled => {
            let workgroup = f64::from(tile.workgroup);
            // Of a row of X and of W.
            let (activation_words, weight_words) = match row.engine {
                Engine::Fma | Engine::LMul => (32.0, 32.0),
                Engine::Dot4 => (8.0, 8.0),
                Engine::Bitplane => {
                    let planes = activation_bits.max(weight_bits);
                    (planes, planes)
                }
                Engine::Swar | Engine::IntegerFma => (32.0 / word_rows, 8.0),
                Engine::Lut | Engine::Lut8 | Engine::Matrix => (0.0, 0.0),
            };
            arithmetic += activation_decode * f64::from(tile.m) / workgroup;
            arithmetic += match row.engine {
                // Every invocation unpacks the bytes.
                Engine::Swar | Engine::IntegerFma => decode * thread_n,
                _ => decode * f64::from(tile.n) / workgroup,
            };
            let global = (f64::from(tile.m) * activation_bits * activation_load
                + f64::from(tile.n) * (weight_bits + scales) * weight_load)
                / workgroup;
            let local = activation_words * (thread_m + 2.0 * f64::from(tile.m) / workgroup)
                + weight_words * (thread_n + 2.0 * f64::from(tile.n) / workgroup);
            global + local * rates.workgroup_load + rates.barrier * 64.0 / f64::from(tile.k)
        }
        Skeleton::Subgroup => {
            let fed = thread_m / f64::from(feed_lanes);
            arithmetic += decode * thread_n + activation_decode * fed;
            let words = match row.engine {
                Engine::Dot4 => 8.0,
                Engine::Bitplane => activation_bits,
                Engine::Swar | Engine::IntegerFma => 32.0 / word_rows,
                Engine::Fma | Engine::LMul | Engine::Lut | Engine::Lut8 | Engine::Matrix => 32.0,
            };
            arithmetic += thread_m * words * rates.broadcast;
            (fed * activation_bits * activation_load
                + thread_n * (weight_bits + scales) * weight_load)
                * rates.scattered
        }
        Skeleton::Gemv => {
            arithmetic += decode * thread_n + activation_decode * thread_m;
            thread_m * activation_bits * activation_load
                + thread_n * (weight_bits + scales) * weight_load * spread(row, tile, problem, caps)
        }
    };
    // A team's lanes take turns by what one load of the weights brings: a span of floats, or a block of codes.
    let turn = match problem.weight.element() {
        ElementFormat::Float(_) => f64::from(span(problem)) / 32.0,
        _ => 1.0,
    };
    let steps = (blocks / turn / f64::from(tile.lanes)).ceil() * turn;
    let mut each = (arithmetic + loads) * steps;
    if tile.buffers > 1 {
        each *= BUFFERED;
    }
    if thread_m * thread_n > rates.accumulators {
        each *= SPILLED;
    }
    if row.skeleton == Skeleton::Gemv {
        let joins = thread_m * thread_n * f64::from(tile.lanes).log2();
        each += joins
            * match reduce {
                Reduce::Subgroup => 4.0 * rates.multiply_add,
                Reduce::Workgroup => 2.0 * rates.workgroup_load + 2.0 * rates.barrier,
            };
    }
    let invocations = tiles(problem, tile) * f64::from(tile.workgroup);
    each * invocations.max(rates.invocations)
}

/// How much dearer loads of weights are that come from many places at once: a processor fetches a few streams ahead. On
/// lavapipe, f32 rows in 32 streams take twice as long as in 16, and codes in 48 a third longer than in six.
fn spread(row: &KernelRow, tile: &Tile, problem: &Problem, caps: &Caps) -> f64 {
    if caps.class == DeviceClass::Gpu {
        return 1.0;
    }
    // Rows of codes alternate in fours, and so do their scales. Each plane or piece of the codes is a place of its own.
    let (alternating, sections) = if problem.weight.element().has_codes() {
        let bits = problem.weight.element().bits();
        let codes = match row.engine {
            Engine::Bitplane | Engine::Lut | Engine::Lut8 => bits,
            _ => bits.count_ones(),
        };
        let grouped = u32::from(group_of(&problem.weight) != 0);
        let zeros = u32::from(problem.weight.zero_kind() != ZeroKind::None);
        (WEIGHT_INTERLEAVE, codes + grouped * (1 + zeros))
    } else {
        (1, 1)
    };
    let lanes = caps.subgroup.map_or(1, |(smallest, _)| smallest);
    let teams = (lanes / tile.lanes).max(1);
    let streams = tile.thread_n.div_ceil(alternating) * sections * teams;
    1.0 + (f64::from(streams) - STREAMS).max(0.0) / 24.0
}

/// What splitting K costs besides, in the units of [`cost`]: parts that are stored and loaded again, and a second dispatch.
fn add_cost(problem: &Problem, parts: u32, caps: &Caps) -> f64 {
    let rates = rates(caps);
    let vectors = problem.output_rows() as f64 * (problem.n as f64 / 4.0).ceil();
    let each = 8.0 * f64::from(parts) * rates.load;
    each * vectors.max(rates.invocations) + rates.dispatch * rates.invocations
}

/// The estimate for cooperative matrices, in the units of [`cost`]: fragments and what stages them, and the spills, which
/// narrow scale groups make many of.
fn matrix_cost(tile: &Tile, problem: &Problem, caps: &Caps) -> f64 {
    let rates = rates(caps);
    let workgroup = f64::from(tile.workgroup);
    let (m, n) = (f64::from(tile.m), f64::from(tile.n));
    let outputs = m * n / workgroup;
    let blocks = (tile.m / tile.thread_m) * (tile.n / tile.thread_n);
    let lanes = caps.subgroup.map_or(1, |(_, largest)| largest);
    let subgroups = (tile.workgroup / lanes).max(1);
    // Too few subgroups take turns; too many repeat what others do.
    let turns = f64::from(blocks.div_ceil(subgroups));
    let repeats = f64::from(subgroups.max(blocks)) / f64::from(blocks);

    // Per block of 32 codes and invocation.
    let bits = |format: &MatrixFormat| f64::from(format.element().bits());
    let decode = |format: &MatrixFormat| decode_cost(Engine::Matrix, format.element());
    let staged = (m * decode(&problem.activation) + n * decode(&problem.weight)) / workgroup
        + (m * bits(&problem.activation) + n * bits(&problem.weight)) * rates.load / workgroup
        + 32.0 * (m + n) * rates.workgroup_load / workgroup;
    // A block spills 256 outputs at once.
    let rounds = f64::from(tile.thread_m * tile.thread_n) / 256.0;
    let spills = 32.0 / f64::from(spill_of(problem, tile.k));
    let spilled = spills
        * (outputs * (2.0 * rates.workgroup_load + 4.0 * rates.multiply_add)
            + 2.0 * rounds * rates.barrier);
    let products = outputs * repeats * 32.0 * rates.matrix;
    let barriers = rates.barrier * 64.0 / f64::from(tile.k);
    let steps = (problem.k as f64 / 32.0).max(1.0).ceil();
    let each = (products + staged + spilled + barriers) * turns * steps;
    each * (tiles(problem, tile) * workgroup).max(rates.invocations)
}

#[cfg(test)]
mod tests {
    use anybit_formats::FormatError;

    use super::*;

    fn format(name: &str) -> MatrixFormat {
        name.parse().expect("a format of the tests")
    }

    fn problem(m: usize, n: usize, k: usize, activation: &str, weight: &str) -> Problem {
        Problem::new((m, n, k), format(activation), format(weight))
    }

    /// A GPU as most are.
    fn gpu() -> Caps {
        Caps {
            class: DeviceClass::Gpu,
            subgroup: Some((32, 32)),
            ..Caps::floor()
        }
    }

    #[test]
    fn grids_fold_within_the_limit() {
        for limit in [1, 4, 7, 65_535] {
            for count in [0, 1, 3, 4, 5, 15, 16] {
                match fold_grid(count, limit) {
                    Ok([x, y]) => {
                        assert!(x <= limit && y <= limit, "{count} in {limit}: {x} x {y}");
                        assert!(u64::from(x) * u64::from(y) >= count);
                        assert!(u64::from(x) * u64::from(y) < count + u64::from(x.max(1)));
                    }
                    Err(error) => {
                        assert!(count > u64::from(limit) * u64::from(limit), "{error}");
                    }
                }
            }
        }
        assert!(fold_grid(17, 4).is_err());
        assert_eq!(fold_grid(65_536, 65_535).ok(), Some([32_768, 2]));
    }

    #[test]
    fn every_pair_of_widths_has_a_kernel_on_the_floor() {
        let caps = Caps::floor();
        for a in 1..=8 {
            for w in 1..=8 {
                for engine in [Engine::Dot4, Engine::Bitplane] {
                    for m in [1, 5, 64] {
                        let problem = problem(m, 96, 64, &format!("i{a}rf"), &format!("u{w}g32hm"));
                        let plan = plan(&problem, &caps, &PlanOptions::engine(engine))
                            .expect("a kernel for every pair");
                        assert!(!plan.specialization().subgroup, "{}", plan.id());
                    }
                }
            }
        }
    }

    #[test]
    fn one_row_is_a_gemv() {
        let caps = Caps::floor();
        let plan = plan(
            &problem(1, 4096, 4096, "i8rf", "i4g32h"),
            &caps,
            &PlanOptions::default(),
        )
        .expect("a plan");
        assert_eq!(plan.skeleton(), Skeleton::Gemv);
        assert!(
            plan.id().starts_with("gemv_i8rf_i4g32h_f32__"),
            "{}",
            plan.id()
        );
    }

    /// On an H200 the kernels that are best on lavapipe ran at a fiftieth of the tiled ones' speed.
    #[test]
    fn sums_fit_in_the_registers_of_a_gpu() {
        let formats = [
            ("f32", "f32"),
            ("f16", "f16"),
            ("f32", "u4g32hm"),
            ("i8rf", "i8g32h"),
            ("i4rf", "u4g32hm"),
            ("b1rf", "b1g32h"),
            ("e4m3rf", "e4m3g32h"),
        ];
        for (x, w) in formats {
            for (m, n, k) in [(64, 576, 576), (1024, 1024, 1024), (4096, 4096, 4096)] {
                let plan = plan(&problem(m, n, k, x, w), &gpu(), &PlanOptions::default())
                    .expect("every pair has kernels");
                let tile = plan.tile();
                assert!(tile.thread_m * tile.thread_n <= 128, "{}", plan.id());
            }
        }
        let floats = problem(1024, 1024, 1024, "f32", "f32");
        let plan = plan(&floats, &gpu(), &PlanOptions::default()).expect("a kernel");
        assert_eq!(plan.skeleton(), Skeleton::Tiled, "{}", plan.id());
    }

    #[test]
    fn refusals_say_why() {
        let caps = Caps::floor();
        let problem = problem(4, 4, 32, "u8rfm", "i4g32h");
        let Err(Error::Unsupported { refusals, contract }) =
            plan(&problem, &caps, &PlanOptions::engine(Engine::Dot4))
        else {
            panic!("dot4 does not take activations with minima");
        };
        assert_eq!(contract, "gemm_u8rfm_i4g32h_f32");
        assert!(
            refusals
                .iter()
                .all(|refusal| matches!(refusal.reason, Reason::Activation(_) | Reason::Options)),
            "{refusals:?}"
        );
    }

    #[test]
    fn overflow_is_refused_at_the_edge() {
        let caps = Caps::floor();
        let edge = max_k(format("u8").element(), format("u8").element(), false).expect("integers");
        assert_eq!(edge, 33_025);
        let at = |k| {
            plan(
                &problem(4, 4, k, "u8", "u8").with_output(OutputFormat::I32),
                &caps,
                &PlanOptions::default(),
            )
        };
        assert!(at(edge).is_ok());
        assert!(matches!(
            at(edge + 1),
            Err(Error::AccumulatorOverflow { max_k: 33_025, .. })
        ));
    }

    #[test]
    fn a_group_that_does_not_divide_is_refused() {
        let result = plan(
            &problem(4, 4, 40, "i8rf", "i4g32h"),
            &Caps::floor(),
            &PlanOptions::default(),
        );
        assert!(matches!(
            result,
            Err(Error::Format(FormatError::GroupDoesNotDivide { .. }))
        ));
    }

    #[test]
    fn small_devices_get_small_tiles() {
        let caps = Caps {
            max_invocations: 64,
            max_workgroup_memory: 8192,
            ..Caps::floor()
        };
        let plan = plan(
            &problem(256, 256, 256, "f32", "f32"),
            &caps,
            &PlanOptions::default(),
        )
        .expect("a plan");
        assert!(plan.specialization().workgroup <= 64);
        assert!(plan.specialization().workgroup_memory <= 8192);
    }
}
