//! From a kernel row and a problem to one linked shader: slots, header constants and id.

use anybit_formats::{
    AffineFormat, DeviceLayout, ElementFormat, Encoding, FloatFormat, Granularity, LMul,
    LMulReading, MatrixFormat, Memory, Nesting, PieceLayout, ScaleType, SpecialValues, SumLayout,
    ZeroKind, layout::piece_widths,
};
use anybit_shaders::{Header, LinkError, LinkRequest, Linked, Modules};

use crate::caps::{Fragment, MATRIX_FEATURES};
use crate::kernel::{Engine, KernelRow, Skeleton, Tile};
use crate::parts::{output_module, part_format, part_name, part_step};
use crate::pipeline::{OUTPUT_BINDING, experts_binding};
use crate::plan::Memories;
use crate::problem::{OutputFormat, Problem};

/// Rows of packed weights that alternate in memory, so that a vec4 brings whole units of four rows.
pub(crate) const WEIGHT_INTERLEAVE: u32 = 4;

/// What decides a shader's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ShaderKey {
    pub(crate) root: &'static str,
    pub(crate) slots: Vec<(&'static str, &'static str)>,
    pub(crate) header: Header,
}

/// One shader, and what it needs of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Specialization {
    /// The kernel's id: `gemm_i8rf_u4g32hm_f32__dot4_32x128x32_subgroup`.
    pub id: String,
    pub(crate) key: ShaderKey,
    /// Invocations a workgroup.
    pub workgroup: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Whether the shader needs the subgroup feature.
    pub subgroup: bool,
}

impl Specialization {
    /// The linked WGSL.
    ///
    /// # Errors
    ///
    /// A [`LinkError`] is a bug of anybit.
    pub fn link(&self) -> Result<Linked, LinkError> {
        anybit_shaders::link(&self.request())
    }

    /// As [`link`](Self::link), from another set of modules: for tests that change one.
    ///
    /// # Errors
    ///
    /// Those of the linker.
    pub fn link_from(&self, modules: &Modules<'_>) -> Result<Linked, LinkError> {
        modules.link(&self.request())
    }

    /// Whether the shader multiplies cooperative matrices. They need features of their own
    /// ([`features`](Self::features)), and exist in SPIR-V and Metal's language alone: naga panics where it is to write such a
    /// shader for Direct3D or OpenGL.
    pub fn has_cooperative_matrices(&self) -> bool {
        // The slot of what a subgroup multiplies at once.
        self.key.slots.iter().any(|(slot, _)| *slot == "fragment")
    }

    /// The optional features of wgpu that the shader needs.
    pub fn features(&self) -> wgpu::Features {
        match (self.has_cooperative_matrices(), self.subgroup) {
            (true, _) => MATRIX_FEATURES,
            (false, true) => wgpu::Features::SUBGROUP,
            (false, false) => wgpu::Features::empty(),
        }
    }

    fn request(&self) -> LinkRequest<'_> {
        LinkRequest {
            root: self.key.root,
            slots: &self.key.slots,
            header: &self.key.header,
        }
    }
}

/// Whether the codes of each block of an operand are whole texels, which one invocation can write.
pub(crate) fn has_whole_texels(element: ElementFormat, layout: &DeviceLayout) -> bool {
    element.has_codes() && matches!(piece_widths(element, layout.pieces), [4] | [8])
}

/// The layouts that a kernel reads, with operands in some memory.
pub(crate) fn layouts(
    row: &KernelRow,
    problem: &Problem,
    memories: Memories,
) -> (DeviceLayout, DeviceLayout) {
    let layout = |format: &MatrixFormat, interleave, memory| DeviceLayout {
        pieces: match (row.engine, format.element()) {
            (Engine::Bitplane | Engine::Lut | Engine::Lut8, ElementFormat::Affine(_)) => {
                PieceLayout::Planes
            }
            _ => PieceLayout::Pieces,
        },
        interleave: if format.element().has_codes() {
            interleave
        } else {
            1
        },
        sums: SumLayout::None,
        memory,
    };
    let activation_interleave = match (row.engine, row.skeleton) {
        (Engine::Bitplane, Skeleton::Tiled) => WEIGHT_INTERLEAVE,
        _ => 1,
    };
    (
        layout(
            &problem.activation,
            activation_interleave,
            memories.activation,
        ),
        layout(&problem.weight, WEIGHT_INTERLEAVE, memories.weight),
    )
}

/// The signed byte 0 of dot4 stands for this activation code: the code of the integer 0 where there is one and it leaves
/// all bytes in range, else the middle.
pub(crate) fn centre(engine: Engine, activation: AffineFormat) -> i32 {
    if engine != Engine::Dot4 {
        return 0;
    }
    let middle = 1 << (activation.bits() - 1);
    match activation.encoding() {
        _ if activation.bits() == 8 => 128,
        Encoding::Unsigned => 0,
        Encoding::Ternary => 1,
        Encoding::TwosComplement | Encoding::Bipolar => middle,
    }
}

/// Bits of the codebooks whose tables fit the parameters.
pub(crate) const SMALL_CODEBOOK_BITS: u8 = 4;

/// `(multiplier, offset)` of an operand's integers: of a lifted one, the bytes are the integers.
pub(crate) fn coefficients(element: ElementFormat) -> (i32, i32) {
    element.affine().map_or((1, 0), AffineFormat::coefficients)
}

/// Whether planes of both operands stand for 1 and -1, so that products are agreements.
fn bipolar(engine: Engine, activation: &MatrixFormat, weight: &MatrixFormat) -> bool {
    let signs = |format: &MatrixFormat| {
        let encoding = format.element().affine().map(AffineFormat::encoding);
        encoding == Some(Encoding::Bipolar) && format.zero_kind() != ZeroKind::Integer
    };
    engine == Engine::Bitplane && signs(activation) && signs(weight)
}

/// Whether a product of codes lacks sums of the weights: activations have an offset or integer zero points.
fn weight_sums(engine: Engine, activation: &MatrixFormat) -> bool {
    let element = activation.element();
    let (multiplier, offset) = coefficients(element);
    let centre = element.affine().map_or(0, |affine| centre(engine, affine));
    activation.zero_kind() == ZeroKind::Integer || multiplier * centre + offset != 0
}

/// Whether a product of codes lacks sums of the activations: weights have an offset or integer zero points, or their bytes
/// are less than their codes.
fn activation_sums(engine: Engine, weight: &MatrixFormat) -> bool {
    let element = weight.element();
    let shifted = engine == Engine::Dot4 && element.affine().is_some() && element.bits() == 8;
    coefficients(element).1 != 0 || shifted || weight.zero_kind() == ZeroKind::Integer
}

/// Whether a product of codes is to be multiplied: by powers of two.
fn multiplied(activation: &MatrixFormat, weight: &MatrixFormat, nesting: Option<Nesting>) -> bool {
    let multiplier = |format: &MatrixFormat| coefficients(format.element()).0;
    multiplier(activation) * multiplier(weight) != 1 || nesting.is_some()
}

pub(crate) fn group_of(format: &MatrixFormat) -> u32 {
    match format.scales() {
        Some(scales) => match scales.granularity {
            Granularity::Group(group) => group,
            Granularity::Tensor | Granularity::Row => 0,
        },
        None => 0,
    }
}

pub(crate) const fn log2(value: u32) -> u32 {
    value.trailing_zeros()
}

/// The modules that read an operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperandModules {
    /// Where codes lie.
    pub(crate) codes: &'static str,
    /// What codes stand for.
    pub(crate) format: &'static str,
    /// How they are read four at a time.
    ahead: &'static str,
    /// What scales them.
    pub(crate) scale: &'static str,
    /// How dot4 makes signed bytes of weights, and of activations.
    lifts: Option<[&'static str; 2]>,
}

/// The modules of an operand, and the header constants that they read.
pub(crate) fn operand(
    header: Header,
    prefix: &str,
    format: &MatrixFormat,
    layout: &DeviceLayout,
) -> (Header, OperandModules) {
    let name = |name: &str| format!("{prefix}{name}");
    let group = group_of(format);
    let mut header = header
        .constant_u32(name("INTERLEAVE"), layout.interleave)
        .constant_u32(name("GROUP"), group)
        .constant_u32(
            name("GROUP_LENGTH"),
            if group == 0 { u32::MAX } else { group },
        )
        .constant_u32(
            name("ZERO"),
            match format.zero_kind() {
                ZeroKind::None => 0,
                ZeroKind::Integer => 1,
                ZeroKind::Minimum => 2,
                ZeroKind::Choice => 3,
            },
        )
        .constant_u32(name("BITS"), format.element().bits());
    let scale = match format.scales() {
        None => "scale/none",
        Some(scales) => {
            header = header.constant_u32(
                name("SCALE"),
                match scales.scale {
                    ScaleType::F32 => 0,
                    ScaleType::F16 => 1,
                    ScaleType::E8m0 => 2,
                    ScaleType::E4m3 => 3,
                    ScaleType::Int8 => 4,
                    ScaleType::Super => 5,
                },
            );
            "scale/affine"
        }
    };
    let codes = match (format.element(), layout.pieces) {
        (ElementFormat::Float(_), _) => "codes/words",
        (_, PieceLayout::Planes) => "codes/planes",
        (element, PieceLayout::Pieces) => {
            header = piece_constants(header, prefix, element);
            "codes/pieces"
        }
    };
    let (module, lifts) = match format.element() {
        ElementFormat::Float(FloatFormat::F32) => ("format/f32", None),
        ElementFormat::Float(FloatFormat::F16) => ("format/f16", None),
        ElementFormat::Float(FloatFormat::Bf16) => ("format/bf16", None),
        ElementFormat::Minifloat(minifloat) => {
            let special = minifloat.special() != SpecialValues::Finite;
            header = header.constant_bool(name("SPECIAL"), special);
            ("format/minifloat", Some(["lift/minifloat"; 2]))
        }
        ElementFormat::Codebook(codebook) if codebook.bits() > SMALL_CODEBOOK_BITS => {
            ("format/codebook_large", None)
        }
        ElementFormat::Codebook(_) => ("format/codebook", Some(["lift/codebook"; 2])),
        _ => (
            "format/affine",
            Some(["lift/affine_weight", "lift/affine_activation"]),
        ),
    };
    let modules = OperandModules {
        codes,
        format: module,
        ahead: if format.element().has_codes() {
            "ahead/block"
        } else {
            "ahead/nothing"
        },
        scale,
        lifts,
    };
    (header, modules)
}

/// The same with a codebook's table in the lanes of a subgroup, if it has one that they hold.
fn held(
    header: Header,
    prefix: &str,
    format: &MatrixFormat,
    modules: OperandModules,
    table_lanes: u32,
) -> (Header, OperandModules) {
    if table_lanes == 0 || !is_held(format.element()) {
        return (header, modules);
    }
    let header = header.constant_u32(format!("{prefix}TABLE_LANES"), table_lanes);
    let modules = OperandModules {
        format: "format/codebook_lanes",
        ..modules
    };
    (header, modules)
}

pub(crate) fn piece_constants(header: Header, prefix: &str, element: ElementFormat) -> Header {
    let widths = piece_widths(element, PieceLayout::Pieces);
    (0..3).fold(header, |header, piece| {
        let width = widths.get(piece).copied().unwrap_or(0);
        header.constant_u32(format!("{prefix}P{piece}"), width)
    })
}

/// How a team's sums are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reduce {
    Subgroup,
    Workgroup,
}

/// Codes of a span: the stretch of K over which integers are summed before scales apply.
pub(crate) fn span(problem: &Problem) -> u32 {
    let grouped_by_16 = |format| group_of(format) == 16;
    match problem.weight.element() {
        ElementFormat::Float(FloatFormat::F32) => 4,
        ElementFormat::Float(_) => 8,
        _ if grouped_by_16(&problem.weight) || grouped_by_16(&problem.activation) => 16,
        _ => 32,
    }
}

/// What no sum of integers in a fragment may pass: f32 holds every integer up to it.
const EXACT_SUMS: u64 = 1 << 24;

/// Columns after which fragments of integers are spilled at the latest, so that a self-check can go as far as any sum.
const LONGEST_SPILL: u32 = 4096;

/// Columns that fragments of the engine `matrix` add up before they are spilled: as far as scales stay the same and, of
/// integers, no sum can pass 2^24. Unbounded, for floats under one scale.
pub(crate) fn spill_of(problem: &Problem, tile_k: u32) -> u32 {
    let groups = match (group_of(&problem.activation), group_of(&problem.weight)) {
        (0, 0) => None,
        (0, group) | (group, 0) => Some(group),
        (a, w) => Some(greatest_common_divisor(a, w)),
    };
    let limit = exact_columns(problem).map(|columns| columns.min(LONGEST_SPILL));
    match (groups, limit) {
        (None, None) => UNBOUNDED_SPILL,
        (None, Some(limit)) => (limit / tile_k * tile_k).max(tile_k),
        (Some(group), None) => group,
        // The longest stretch of whole steps that divides the group.
        (Some(group), Some(limit)) => {
            let mut spill = group;
            while spill > limit && spill.is_multiple_of(2 * tile_k) {
                spill /= 2;
            }
            if spill > limit { tile_k } else { spill }
        }
    }
}

/// A multiple of every tile that no K reaches.
const UNBOUNDED_SPILL: u32 = 1 << 31;

/// Columns whose integer products cannot pass 2^24 together; `None` where an operand has no integers.
fn exact_columns(problem: &Problem) -> Option<u32> {
    let magnitude = |format: &MatrixFormat| {
        let affine = format.element().affine()?;
        let largest = affine.min_value().abs().max(affine.max_value().abs());
        let zero = if format.zero_kind() == ZeroKind::Integer {
            255
        } else {
            0
        };
        Some(u64::from(largest.unsigned_abs()) + zero)
    };
    let product = magnitude(&problem.activation)? * magnitude(&problem.weight)?;
    // At most 2^24, so that it fits.
    Some((EXACT_SUMS / product.max(1)) as u32)
}

pub(crate) const fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// Whether both operands are integers, so that the engine `matrix` adds them up exactly.
pub(crate) fn is_integer_product(problem: &Problem) -> bool {
    let affine = |format: &MatrixFormat| format.element().affine().is_some();
    affine(&problem.activation) && affine(&problem.weight)
}

/// Planes that the bitplane engine reads beside those of the codes.
pub(crate) fn carry_planes(engine: Engine, nesting: Option<Nesting>) -> u32 {
    u32::from(engine == Engine::Bitplane && nesting == Some(Nesting::DoubleRounding))
}

/// What a kernel's id says of weights that are read out of wider ones; nothing where the shader is that of weights as they
/// are stored.
fn nesting_name(engine: Engine, nesting: Option<Nesting>) -> &'static str {
    match (engine, nesting) {
        (Engine::Bitplane, Some(Nesting::DoubleRounding)) => "_carry",
        (Engine::Dot4, Some(Nesting::DoubleRounding)) => "_rounded",
        (Engine::Bitplane | Engine::Dot4, Some(Nesting::Truncation)) => "_truncated",
        _ => "",
    }
}

/// The modules that read a matrix's codes and its side data.
pub(crate) const fn memory_modules(memory: Memory) -> [&'static str; 2] {
    match memory {
        Memory::Buffers => ["memory/buffer_codes", "memory/buffer_side"],
        Memory::Textures => ["memory/texture_codes", "memory/texture_side"],
        Memory::TextureCodes => ["memory/texture_codes", "memory/buffer_side"],
    }
}

/// What the id of a kernel of one matrix says of the memory that it lies in.
pub(crate) const fn memory_name(memory: Memory) -> &'static str {
    match memory {
        Memory::Buffers => "",
        Memory::Textures => "_textures",
        Memory::TextureCodes => "_texture_codes",
    }
}

/// How an engine that multiplies codes as they are does so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Multiply {
    /// The module of the slot `multiply`.
    module: &'static str,
    /// Rows of X a word.
    pub(crate) rows: u32,
    /// Products of codes of the widths that a row's part of a word holds the sum of.
    pub(crate) terms: u32,
}

/// Sums of fewer products are parted so often that two rows a float are slower than one.
const F32_LEAST_TERMS: u32 = 8;

impl Multiply {
    /// Of the engines [`Swar`](Engine::Swar) and [`IntegerFma`](Engine::IntegerFma).
    pub(crate) fn of(engine: Engine, activation: ElementFormat, weight: ElementFormat) -> Self {
        let largest = |element: ElementFormat| (1_u32 << element.bits().min(8)) - 1;
        let terms = |sum: u32| sum / (largest(activation) * largest(weight)).max(1);
        match engine {
            Engine::IntegerFma if terms(0xfff) >= F32_LEAST_TERMS => Self {
                module: "multiply/f32_pairs",
                rows: 2,
                terms: terms(0xfff),
            },
            Engine::IntegerFma => Self {
                module: "multiply/f32_singles",
                rows: 1,
                // f32 holds every integer up to 2^24.
                terms: terms(1 << 24),
            },
            _ => Self {
                module: "multiply/u32_pairs",
                rows: 2,
                terms: terms(u32::from(u16::MAX)),
            },
        }
    }

    /// Products that are summed before the sums are parted: the largest power of two, so that whole steps make a span.
    pub(crate) fn step(self, span: u32) -> u32 {
        1 << self.terms.min(span).max(1).ilog2()
    }
}

/// The constants of core/l_mul.wgsl.
pub(crate) fn l_mul_constants(header: Header, l_mul: LMul) -> Header {
    header
        .constant_u32("L_MUL_MANTISSA", u32::from(l_mul.mantissa_bits()))
        .constant_u32("L_MUL_OFFSET", u32::from(l_mul.offset_exponent()))
        .constant_bool("L_MUL_FORMULA", l_mul.reading() == LMulReading::Formula)
}

/// What a row is specialised by beside the problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) reduce: Reduce,
    pub(crate) memories: Memories,
    pub(crate) nesting: Option<Nesting>,
    /// For the rows of that engine.
    pub(crate) l_mul: LMul,
    /// For the rows of the engine `matrix`.
    pub(crate) fragment: Fragment,
    /// Parts that K is split into; 1 for none.
    pub(crate) split: u32,
    /// Lanes of a subgroup that hold a codebook's table, 8 or 16; 0 where codes pick their values by selects.
    pub(crate) table_lanes: u32,
    /// Lanes of a subgroup that bring rows of X for all of it, 4 or 8; of the subgroup skeleton.
    pub(crate) feed_lanes: u32,
}

/// Lanes of a subgroup that hold the tables of a problem's codebooks, 8 or 16 and no more than the smallest subgroup or a
/// workgroup has; 0 where the kernel or the device has no subgroups, or no operand a table worth it.
pub(crate) fn table_lanes(
    row: &KernelRow,
    tile: &Tile,
    reduce: Reduce,
    problem: &Problem,
    smallest_subgroup: u32,
) -> u32 {
    let subgroups = match row.skeleton {
        Skeleton::Tiled => false,
        Skeleton::Subgroup => true,
        Skeleton::Gemv => reduce == Reduce::Subgroup,
    };
    let tables = is_held(problem.activation.element()) || is_held(problem.weight.element());
    if !(row.engine.is_float() && subgroups && tables) {
        return 0;
    }
    match smallest_subgroup.min(tile.workgroup) {
        16.. => 16,
        8.. => 8,
        _ => 0,
    }
}

/// Whether lanes may hold the values of such codes. Of two bits, three selects are no more than a shuffle.
pub(crate) fn is_held(element: ElementFormat) -> bool {
    let codebook = element.codebook();
    codebook.is_some_and(|codebook| (3..=SMALL_CODEBOOK_BITS).contains(&codebook.bits()))
}

/// A row of the table as the shader for one problem's formats. The problem must be one that the row supports.
pub(crate) fn specialize(
    row: &'static KernelRow,
    tile: &Tile,
    problem: &Problem,
    parts: Parts,
) -> Specialization {
    let Parts {
        reduce,
        memories,
        nesting,
        l_mul,
        fragment,
        split,
        table_lanes,
        feed_lanes,
    } = parts;
    let (activation_layout, weight_layout) = layouts(row, problem, memories);
    let multiply = Multiply::of(
        row.engine,
        problem.activation.element(),
        problem.weight.element(),
    );
    let header = Header::new();
    let (header, activation) = operand(header, "A_", &problem.activation, &activation_layout);
    let (header, weight) = match (row.engine, nesting) {
        (Engine::Dot4, Some(nesting)) => {
            // The codes lie as those of 8 bits do, since they are.
            let stored = MatrixFormat::new(ElementFormat::INT8, problem.weight.scales());
            let stored = stored.unwrap_or(problem.weight);
            let (header, mut weight) = operand(header, "W_", &stored, &weight_layout);
            weight.lifts = Some(["lift/nested_weight"; 2]);
            let header = header
                .constant_u32("W_KEPT", problem.weight.element().bits())
                .constant_bool("W_ROUND", nesting == Nesting::DoubleRounding);
            (header, weight)
        }
        _ => operand(header, "W_", &problem.weight, &weight_layout),
    };
    let header = match row.engine {
        Engine::Bitplane | Engine::Lut | Engine::Lut8 => {
            header.constant_u32("W_CARRY", carry_planes(row.engine, nesting))
        }
        Engine::Swar | Engine::IntegerFma => header
            .constant_u32("WORD_ROWS", multiply.rows)
            .constant_u32("SUM_TERMS", multiply.step(span(problem))),
        _ => header,
    };

    let (header, activation) = held(header, "A_", &problem.activation, activation, table_lanes);
    let (header, weight) = held(header, "W_", &problem.weight, weight, table_lanes);

    let grouped = group_of(&problem.weight) != 0 || group_of(&problem.activation) != 0;
    let span = span(problem);
    let bipolar = bipolar(row.engine, &problem.activation, &problem.weight);
    let weight_sums = !bipolar && weight_sums(row.engine, &problem.activation);
    let activation_sums =
        !bipolar && (nesting.is_some() || activation_sums(row.engine, &problem.weight));
    let multiplied = multiplied(&problem.activation, &problem.weight, nesting);
    let mut header = header
        .constant_bool("GROUPED", grouped)
        .constant_bool("BIPOLAR", bipolar)
        .constant_bool("WEIGHT_SUMS", weight_sums)
        .constant_bool("ACTIVATION_SUMS", activation_sums)
        .constant_bool("MULTIPLIED", multiplied)
        .constant_u32("SPAN", span)
        .constant_u32("TILE_M", tile.m)
        .constant_u32("OUT_BINDING", OUTPUT_BINDING);
    if problem.experts.is_some() {
        header = header.constant_u32("ROWS_BINDING", experts_binding(problem) as u32);
    }

    let (output, part_module) = if split > 1 {
        header = header.constant_u32("PART_STEP", part_step(row.skeleton, tile));
        let output = output_module(part_format(problem.output), false);
        (output, "parts/split")
    } else {
        let output = output_module(problem.output, problem.residual);
        (output, "parts/whole")
    };
    let activation_bindings = match memories.activation {
        Memory::TextureCodes => "memory/activation_texture_codes",
        Memory::Buffers | Memory::Textures => "memory/activation_buffers",
    };
    let weight_bindings = match memories.weight {
        Memory::Textures => "memory/weight_textures",
        Memory::Buffers | Memory::TextureCodes => "memory/weight_buffers",
    };
    let [activation_codes_memory, activation_side_memory] = memory_modules(memories.activation);
    let [weight_codes_memory, weight_side_memory] = memory_modules(memories.weight);
    let in_memory = memories.name();
    let mut slots = vec![
        ("activation_codes_memory", activation_codes_memory),
        ("activation_side_memory", activation_side_memory),
        ("activation_bindings", activation_bindings),
        ("weight_codes_memory", weight_codes_memory),
        ("weight_side_memory", weight_side_memory),
        ("weight_bindings", weight_bindings),
        (
            "rows",
            match problem.experts {
                None => "rows/plain",
                Some(_) => "rows/experts",
            },
        ),
        ("parts", part_module),
        ("weight_scale", weight.scale),
        ("output", output),
    ];
    if row.engine != Engine::Bitplane && !row.engine.has_tables() {
        slots.push(("weight_codes", weight.codes));
    }
    if !(row.engine == Engine::Bitplane && row.skeleton == Skeleton::Tiled) {
        slots.push(("activation_codes", activation.codes));
    }
    if !row.engine.has_tables() {
        slots.push(("activation_scale", activation.scale));
    }
    match row.engine {
        Engine::Fma | Engine::LMul => {
            let product = match row.engine {
                Engine::LMul => "product/l_mul",
                _ => "product/fma",
            };
            slots.push(("product", product));
            slots.push(("weight_format", weight.format));
            slots.push(("activation_format", activation.format));
            slots.push(("activation_ahead", activation.ahead));
        }
        Engine::Dot4 => {
            let [weight_lift, _] = weight.lifts.unwrap_or_default();
            let [_, activation_lift] = activation.lifts.unwrap_or_default();
            slots.push(("weight_lift", weight_lift));
            slots.push(("activation_lift", activation_lift));
        }
        Engine::Matrix => {
            slots.push(("weight_format", weight.format));
            slots.push(("activation_format", activation.format));
            slots.push(("activation_ahead", activation.ahead));
            slots.push((
                "fragment",
                match fragment {
                    Fragment::Eight => "fragment/eight",
                    Fragment::Sixteen => "fragment/sixteen",
                },
            ));
            let whole = is_integer_product(problem) && !grouped;
            slots.push((
                "spill",
                match (problem.output, whole) {
                    (OutputFormat::I32, _) => "spill/whole_i32",
                    (OutputFormat::F32 | OutputFormat::F16, true) => "spill/whole_f32",
                    (OutputFormat::F32 | OutputFormat::F16, false) => "spill/scaled",
                },
            ));
        }
        Engine::Swar | Engine::IntegerFma => slots.push(("multiply", multiply.module)),
        Engine::Bitplane => {}
        Engine::Lut | Engine::Lut8 => {
            slots.push(("activation_format", activation.format));
            slots.push(("activation_ahead", activation.ahead));
        }
    }
    if row.engine.is_integer() {
        slots.push((
            "accumulate",
            match (problem.output, grouped) {
                (OutputFormat::I32, _) => "accumulate/whole_i32",
                (OutputFormat::F32 | OutputFormat::F16, true) => "accumulate/grouped",
                (OutputFormat::F32 | OutputFormat::F16, false) => "accumulate/whole_f32",
            },
        ));
    }

    let mut workgroup_memory = 0;
    let mut variant = "";
    let engine = row.engine.name();
    let shape = match row.skeleton {
        Skeleton::Tiled => {
            header = header
                .constant_u32("TILE_N", tile.n)
                .constant_u32("TILE_K", tile.k)
                .constant_u32("THREAD_M", tile.thread_m)
                .constant_u32("THREAD_N", tile.thread_n);
            let mut shape = format!("{}x{}x{}", tile.m, tile.n, tile.k);
            if row.engine == Engine::Matrix {
                let spill = spill_of(problem, tile.k);
                header = header
                    .constant_u32("WORKGROUP", tile.workgroup)
                    .constant_u32("SPILL", spill)
                    .constant_u32("STEP", spill.min(tile.k));
                variant = match fragment {
                    Fragment::Eight => "_fragment8",
                    Fragment::Sixteen => "_fragment16",
                };
                workgroup_memory = matrix_memory(tile);
                shape = format!("{shape}_w{}", tile.workgroup);
            } else {
                header = header.constant_u32("BUFFERS", tile.buffers);
                if tile.buffers > 1 {
                    shape = format!("{shape}_buffers{}", tile.buffers);
                }
                let carry = carry_planes(row.engine, nesting);
                workgroup_memory = tiled_memory(row.engine, tile, span, problem, carry);
            }
            shape
        }
        Skeleton::Subgroup => {
            header = header
                .constant_u32("TILE_N", tile.thread_n)
                .constant_u32("FEED_LANES", feed_lanes)
                .constant_u32("WORKGROUP", tile.workgroup);
            variant = "_subgroup";
            let rows = match tile.thread_n {
                4 => String::new(),
                rows => format!("_t{rows}"),
            };
            let feed = match feed_lanes {
                8 => String::new(),
                lanes => format!("_feed{lanes}"),
            };
            format!("{}x{}x{span}{rows}{feed}", tile.m, tile.n)
        }
        Skeleton::Gemv => {
            header = header
                .constant_u32("TILE_N", tile.thread_n)
                .constant_u32("WORKGROUP", tile.workgroup)
                .constant_u32("LANES", tile.lanes)
                .constant_u32("LANES_LOG2", log2(tile.lanes));
            if row.engine.has_tables() {
                let cells = table_cells(row.engine, tile, reduce);
                header = header.constant_u32("CELLS", cells);
                workgroup_memory = 4 * cells;
                slots.push((
                    "table",
                    match reduce {
                        Reduce::Subgroup => "table/subgroup",
                        Reduce::Workgroup => "table/workgroup",
                    },
                ));
            } else {
                slots.push((
                    "reduce",
                    match reduce {
                        Reduce::Subgroup => "reduce/subgroup",
                        Reduce::Workgroup => "reduce/workgroup",
                    },
                ));
            }
            if row.engine.is_float() {
                slots.push((
                    "turns",
                    match table_lanes {
                        0 => "turns/apart",
                        _ => "turns/together",
                    },
                ));
            }
            if row.engine.is_integer() {
                slots.push((
                    "team_sum",
                    if grouped && problem.output != OutputFormat::I32 {
                        "reduce/team_f32"
                    } else {
                        "reduce/team_i32"
                    },
                ));
            }
            if reduce == Reduce::Subgroup {
                variant = "_subgroup";
            } else if !row.engine.has_tables() {
                workgroup_memory = 8 * tile.workgroup;
            }
            format!(
                "{}x{}x{}_t{}",
                tile.m,
                tile.n,
                tile.lanes * span,
                tile.thread_n
            )
        }
    };
    let mut id = format!(
        "{}__{engine}_{shape}{}{variant}{}{}{in_memory}",
        problem.contract(),
        nesting_name(row.engine, nesting),
        match table_lanes {
            0 => String::new(),
            lanes => format!("_table{lanes}"),
        },
        part_name(split)
    );
    if row.engine == Engine::LMul {
        header = l_mul_constants(header, l_mul);
        id = format!("{id}_{l_mul}");
    }
    Specialization {
        id,
        key: ShaderKey {
            root: row.module,
            slots,
            header,
        },
        workgroup: tile.workgroup,
        workgroup_memory,
        subgroup: !variant.is_empty(),
    }
}

/// Bytes of workgroup memory of a kernel of cooperative matrices.
fn matrix_memory(tile: &Tile) -> u32 {
    let rows = tile.m + tile.n;
    let blocks = tile.m * tile.n / (tile.thread_m * tile.thread_n);
    // Rows of f16, eight apart; 256 sums of each block; sums and scales of X, scales and minima of W.
    2 * rows * (tile.k + 8) + 4 * blocks * 256 + 8 * rows
}

/// Words of workgroup memory of a kernel with tables: those of the tables, where registers do not hold them, and of the
/// sums that are joined after them.
fn table_cells(engine: Engine, tile: &Tile, reduce: Reduce) -> u32 {
    let entries = match (engine, reduce) {
        (_, Reduce::Subgroup) => 0,
        // An entry of eight tables for each row of X.
        (Engine::Lut8, _) => 2 * tile.thread_m,
        _ => 8 * tile.thread_m,
    };
    tile.workgroup * entries.max(tile.thread_m * tile.thread_n)
}

/// Bytes of workgroup memory of a tiled kernel.
fn tiled_memory(
    engine: Engine,
    tile: &Tile,
    span: u32,
    problem: &Problem,
    carry_planes: u32,
) -> u32 {
    let bits = |format: &MatrixFormat| format.element().bits();
    // Of each row and span four words: a Span, or a scale and a sum.
    let beside = (tile.k / span) * 16 * (tile.m + tile.n);
    let buffer = match engine {
        Engine::Fma | Engine::LMul => 4 * tile.k * (tile.m + tile.n),
        Engine::Dot4 => tile.k * (tile.m + tile.n) + beside,
        Engine::Swar | Engine::IntegerFma => {
            let (activation, weight) = (problem.activation.element(), problem.weight.element());
            let rows = Multiply::of(engine, activation, weight).rows;
            tile.k * (4 * tile.m / rows + tile.n) + beside
        }
        Engine::Lut | Engine::Lut8 | Engine::Matrix => 0,
        Engine::Bitplane => {
            let weight_planes = bits(&problem.weight) + carry_planes;
            (tile.k / 8) * (bits(&problem.activation) * tile.m + weight_planes * tile.n) + beside
        }
    };
    tile.buffers * buffer
}
