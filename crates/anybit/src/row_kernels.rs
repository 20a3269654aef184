//! Kernels that work row by row: quantising activations, decoding packed matrices, L-Mul element by element.

use anybit_formats::{
    AffineFormat, DeviceLayout, ElementFormat, Encoding, Granularity, LMul, MatrixFormat, Memory,
    Overflow, PieceLayout, QuantizeRowsOptions, Rounding, ScaleRule, ScaleType, SpecialValues,
    SumLayout, ZeroKind, layout::sum_block, quantize::rule::TERNARY_MIN_SCALE,
};
use anybit_shaders::Header;
use bytemuck::{Pod, Zeroable};

use crate::caps::{Caps, DeviceClass};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::matrix::{Chunk, DeviceMatrix, OutputMatrix, STORAGE};
use crate::pipeline::{Binding, ELEMENTWISE_BINDINGS, decode_bindings, quantize_bindings};
use crate::plan::{Reason, Refusal, fold_grid};
use crate::prepare::{OperandParams, Prepared};
use crate::problem::OutputFormat;
use crate::row_source::{RowSource, SourceKind};
use crate::specialize::{
    SMALL_CODEBOOK_BITS, ShaderKey, Specialization, group_of, has_whole_texels, l_mul_constants,
    memory_modules, memory_name, operand, piece_constants,
};
use crate::stretches::row_stretches;

pub(crate) const WORKGROUP: u32 = 64;

/// `ROW_STRANDS` of core/row_join.wgsl.
const ROW_STRANDS: u32 = 64;

/// Invocations of a workgroup that joins what it finds along a row. Software adapters pay for each barrier by invocations, so
/// they get as few as the join takes.
pub(crate) fn row_workgroup(caps: &Caps) -> u32 {
    match caps.class {
        DeviceClass::Software => 8,
        DeviceClass::Gpu => ROW_STRANDS,
    }
}

/// Bytes of workgroup memory of such a workgroup: two numbers a strand.
pub(crate) const ROW_MEMORY: u32 = 8 * ROW_STRANDS;

/// `QUANTIZE_NONE` of core/quantize.wgsl.
const SCALE_NONE: u32 = 9;

/// `QuantizeParams` of core/quantize.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct QuantizeParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    input_offset: u32,
    input_row: u32,
    statistic: u32,
    sign: u32,
    max_code: u32,
    divisor: f32,
    smallest: f32,
    add: f32,
    factor: f32,
    low: f32,
    high: f32,
    offset: f32,
    nan_code: u32,
    ends: [f32; 16],
    order: [u32; 4],
    seed: u32,
    up: u32,
    epsilon: f32,
    rows_before: u32,
    output: OperandParams,
}

/// `DecodeParams` of kernel/decode.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct DecodeParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    output_offset: u32,
    output_row: u32,
    padding: [u32; 3],
    operand: OperandParams,
}

/// `LMulParams` of kernel/l_mul.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct LMulParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    x_row: u32,
    y_row: u32,
    output_row: u32,
    padding: [u32; 2],
}

/// What a scale is made from.
#[derive(Clone, Copy)]
enum Statistic {
    LargestMagnitude = 0,
    Largest = 1,
    MeanMagnitude = 2,
}

/// The rule of a format, as the shader's numbers; the same as `anybit_formats::quantize` has.
struct Rule {
    statistic: Statistic,
    divisor: f32,
    smallest: f32,
    sign: bool,
    add: f32,
    factor: f32,
    low: f32,
    high: f32,
    offset: f32,
    max_code: u8,
    nan_code: u8,
    ends: [f32; 16],
    order: [u32; 4],
}

impl Rule {
    fn new(format: &MatrixFormat) -> Self {
        let element = format.element();
        let mut rule = Self {
            statistic: Statistic::LargestMagnitude,
            divisor: element.max_magnitude(0),
            smallest: 0.0,
            sign: false,
            add: 0.0,
            factor: 1.0,
            low: 0.0,
            high: 0.0,
            offset: 0.0,
            max_code: 0,
            nan_code: 0,
            ends: [f32::MAX; 16],
            order: [0; 4],
        };
        match element {
            ElementFormat::Affine(affine) => rule.affine(affine, format),
            ElementFormat::Minifloat(minifloat) => {
                rule.max_code = minifloat.max_finite_code();
                rule.nan_code = minifloat.nan_code().unwrap_or(0);
            }
            ElementFormat::Codebook(codebook) => {
                let (codes, ends) = codebook.search(0);
                for (place, &code) in codes.iter().enumerate().take(16) {
                    rule.order[place / 8] |= u32::from(code) << (4 * (place % 8));
                }
                for (entry, &end) in rule.ends.iter_mut().zip(ends) {
                    // Zero without a sign, since the shader compares bits.
                    *entry = end + 0.0;
                }
            }
            _ => {}
        }
        rule
    }

    fn affine(&mut self, element: AffineFormat, format: &MatrixFormat) {
        let (multiplier, offset) = element.coefficients();
        self.low = element.min_value() as f32;
        self.high = element.max_value() as f32;
        self.offset = -offset as f32;
        let scale = format.scales().map(|scales| scales.scale);
        let mean = scale == Some(ScaleType::F32);
        match element.encoding() {
            Encoding::Unsigned => self.statistic = Statistic::Largest,
            // The narrow range, as the largest magnitude is mapped to both ends.
            Encoding::TwosComplement if element.bits() >= 2 && scale.is_some() => self.low += 1.0,
            Encoding::TwosComplement => {}
            Encoding::Bipolar if element.bits() == 1 => {
                self.sign = true;
                if mean {
                    self.statistic = Statistic::MeanMagnitude;
                }
            }
            Encoding::Bipolar => {}
            Encoding::Ternary if mean => {
                self.statistic = Statistic::MeanMagnitude;
                self.smallest = TERNARY_MIN_SCALE;
            }
            Encoding::Ternary => {}
        }
        if multiplier == 2 {
            self.add = -offset as f32;
            self.factor = 0.5;
            self.low = 0.0;
            self.high = f32::from(element.max_code());
            self.offset = 0.0;
        }
    }
}

/// Which of the two quantising kernels, and its constants.
pub(crate) struct QuantizePlan {
    pub(crate) specialization: Specialization,
    /// Columns that an invocation takes; `None` if a workgroup takes a row.
    unit: Option<u32>,
}

impl QuantizePlan {
    /// Workgroups for a matrix of this shape.
    fn workgroups(&self, rows: usize, columns: usize) -> u64 {
        match self.unit {
            None => rows as u64,
            Some(unit) => (rows as u64)
                .saturating_mul(columns.div_ceil(unit as usize) as u64)
                .div_ceil(self.specialization.workgroup.into()),
        }
    }
}

/// The shader that quantises rows of f32 into a format and layout, as a device gets it.
///
/// # Errors
///
/// [`Error::Unsupported`] for formats that the GPU does not quantise into: floats, codebooks of more than 4 bits, scales of
/// other types than f32 and E8M0, tensor scales, and zeros; [`Error::InTextures`] for memory that it does not write, which is
/// [`Memory::Textures`] and, but for pieces of 4 or 8 bits, [`Memory::TextureCodes`].
pub fn quantize_specialization(
    caps: &Caps,
    format: &MatrixFormat,
    layout: &DeviceLayout,
) -> Result<Specialization> {
    quantize_specialization_with(caps, format, layout, &QuantizeRowsOptions::default())
}

/// [`quantize_specialization`] with options.
///
/// # Errors
///
/// Those of [`quantize_specialization`]; [`Error::Format`] for a rounding that the element does not take.
pub fn quantize_specialization_with(
    caps: &Caps,
    format: &MatrixFormat,
    layout: &DeviceLayout,
    options: &QuantizeRowsOptions,
) -> Result<Specialization> {
    Ok(quantize_plan(caps, format, layout, options, SourceKind::Rows)?.specialization)
}

/// What options change in the shader: `ROUNDING`, `SCALE_RULE` and `SPECIAL`, where the format knows them, and the end of the
/// id.
struct Variant {
    rounding: u32,
    scale_rule: u32,
    special: bool,
    name: String,
}

impl Variant {
    fn new(format: &MatrixFormat, options: &QuantizeRowsOptions) -> Self {
        let sign = format.element() == ElementFormat::Affine(AffineFormat::BINARY);
        let (rounding, rounding_name) = match options.rounding {
            Rounding::HalfAway if !sign => (1, "_away"),
            Rounding::Truncate if !sign => (2, "_truncate"),
            Rounding::Stochastic { .. } if !sign => (3, "_stochastic"),
            _ => (0, ""),
        };
        let powers = format
            .scales()
            .is_some_and(|scales| scales.scale == ScaleType::E8m0);
        let (scale_rule, rule_name) = match options.scale_rule {
            ScaleRule::Ceil if powers => (1, "_ceil"),
            ScaleRule::Nearest if powers => (2, "_nearest"),
            _ => (0, ""),
        };
        let special = options.overflow == Overflow::Special
            && format
                .element()
                .minifloat()
                .is_some_and(|minifloat| minifloat.special() != SpecialValues::Finite);
        let special_name = if special { "_special" } else { "" };
        Self {
            rounding,
            scale_rule,
            special,
            name: format!("{rounding_name}{rule_name}{special_name}"),
        }
    }
}

/// The shader that decodes a format and layout.
pub fn decode_specialization(format: &MatrixFormat, layout: &DeviceLayout) -> Specialization {
    decoding_specialization("decode", "kernel/decode", format, layout)
}

/// The shader of an operation that reads the values of a packed matrix (core/decode.wgsl).
pub(crate) fn decoding_specialization(
    op: &str,
    root: &'static str,
    format: &MatrixFormat,
    layout: &DeviceLayout,
) -> Specialization {
    let header = Header::new().constant_u32("WORKGROUP", WORKGROUP);
    let (header, modules) = operand(header, "W_", format, layout);
    let variant = match layout.pieces {
        PieceLayout::Planes if format.element().has_codes() => "_planes",
        _ => "",
    };
    let [codes_memory, side_memory] = memory_modules(layout.memory);
    let bindings = match layout.memory {
        Memory::Buffers => "memory/decoded_buffers",
        Memory::Textures => "memory/decoded_textures",
        Memory::TextureCodes => "memory/decoded_texture_codes",
    };
    let in_memory = memory_name(layout.memory);
    Specialization {
        id: format!(
            "{op}_{format}_f32__{WORKGROUP}{variant}_r{}{in_memory}",
            layout.interleave
        ),
        key: ShaderKey {
            root,
            slots: vec![
                ("codes_memory", codes_memory),
                ("side_memory", side_memory),
                ("bindings", bindings),
                ("codes", modules.codes),
                ("format", modules.format),
                ("scale", modules.scale),
            ],
            header,
        },
        workgroup: WORKGROUP,
        workgroup_memory: 0,
        subgroup: false,
    }
}

/// The shader that multiplies f32 matrices element by element by L-Mul.
pub fn l_mul_specialization(l_mul: LMul) -> Specialization {
    let header = Header::new().constant_u32("WORKGROUP", WORKGROUP);
    Specialization {
        id: format!("l_mul_f32_f32_f32__{WORKGROUP}_{l_mul}"),
        key: ShaderKey {
            root: "kernel/l_mul",
            slots: Vec::new(),
            header: l_mul_constants(header, l_mul),
        },
        workgroup: WORKGROUP,
        workgroup_memory: 0,
        subgroup: false,
    }
}

pub(crate) fn quantize_plan(
    caps: &Caps,
    format: &MatrixFormat,
    layout: &DeviceLayout,
    options: &QuantizeRowsOptions,
    source: SourceKind,
) -> Result<QuantizePlan> {
    let refuse = || Error::Unsupported {
        contract: format!("quantize_rows_f32_{format}"),
        refusals: vec![Refusal::of(
            "quantize_rows",
            Reason::Output(OutputFormat::F32),
        )],
    };
    let element = format.element();
    let encode = match element {
        ElementFormat::Affine(_) => "encode/affine",
        ElementFormat::Minifloat(_) => "encode/minifloat",
        ElementFormat::Codebook(codebook) if codebook.bits() <= SMALL_CODEBOOK_BITS => {
            "encode/codebook"
        }
        _ => return Err(refuse()),
    };
    let scale = match format.scales() {
        None => SCALE_NONE,
        Some(scales) => {
            if scales.zero != ZeroKind::None || scales.granularity == Granularity::Tensor {
                return Err(refuse());
            }
            match (scales.scale, scales.granularity) {
                (ScaleType::F32, _) => 0,
                (ScaleType::E8m0, Granularity::Group(_)) => 2,
                _ => return Err(refuse()),
            }
        }
    };
    if element.has_choices() || layout.sums == SumLayout::Groups {
        return Err(refuse());
    }
    let planes = layout.pieces == PieceLayout::Planes;
    let store = match layout.memory {
        Memory::Buffers if planes => "store/planes",
        Memory::Buffers => "store/pieces",
        Memory::TextureCodes if has_whole_texels(element, layout) => "store/texels",
        Memory::Textures | Memory::TextureCodes => {
            return Err(Error::InTextures {
                what: "the quantised matrix",
            });
        }
    };
    options.check(element)?;
    let variant = Variant::new(format, options);
    // Bare codes go block by block, as groups of 32 without a scale.
    let group = match scale {
        SCALE_NONE => 32,
        _ => group_of(format),
    };
    let joins = group == 0 || source == SourceKind::RmsNorm;
    let workgroup = if joins {
        row_workgroup(caps)
    } else {
        WORKGROUP
    };
    let header = Header::new()
        .constant_u32("WORKGROUP", workgroup)
        .constant_u32("BITS", element.bits())
        .constant_u32("SCALE", scale)
        .constant_u32("INTERLEAVE", layout.interleave)
        .constant_u32("GROUP", group)
        .constant_u32("SPAN", if group == 16 { 16 } else { 32 })
        .constant_bool("SUMS", layout.sums == SumLayout::Blocks)
        .constant_u32("SUM_BLOCK", sum_block(format) as u32)
        .constant_u32("ROUNDING", variant.rounding)
        .constant_u32("SCALE_RULE", variant.scale_rule)
        .constant_bool("SPECIAL", variant.special);
    let header = piece_constants(header, "", element);
    let header = source.constants(header, quantize_bindings(layout.memory).len() as u32);
    let (root, stem, unit) = if group == 0 {
        ("kernel/quantize_rows", "quantize_rows", None)
    } else {
        let unit = (source != SourceKind::RmsNorm).then_some(group.max(32));
        ("kernel/quantize_groups", "quantize_groups", unit)
    };
    let pieces = if planes { "_planes" } else { "" };
    let sums = if layout.sums == SumLayout::Blocks {
        "_sums"
    } else {
        ""
    };
    Ok(QuantizePlan {
        specialization: Specialization {
            id: format!(
                "{}_f32_{format}__{workgroup}{pieces}{sums}_r{}{}{}",
                source.op().unwrap_or(stem),
                layout.interleave,
                variant.name,
                memory_name(layout.memory)
            ),
            key: ShaderKey {
                root,
                slots: vec![
                    ("encode", encode),
                    ("source", source.module()),
                    ("store", store),
                ],
                header,
            },
            workgroup,
            workgroup_memory: ROW_MEMORY,
            subgroup: false,
        },
        unit,
    })
}

/// Quantising, ready to be recorded, and what it used: 1 / scale of each row or group, in order of rows. Given these, the
/// codes are exact.
#[derive(Clone, Debug)]
pub struct PreparedQuantize {
    /// The work.
    pub work: Prepared,
    /// The inverses, f32, filled when the work has run. None for an empty matrix.
    pub inverses: Option<wgpu::Buffer>,
}

impl Context {
    /// Prepares `quantize_rows`: f32 rows into packed codes with one f32 scale a row or group, one E8M0 scale a group, or none, in the layout that a plan
    /// reads. `output` is a matrix of this context, from [`allocate`](Self::allocate).
    ///
    /// The scale is the largest magnitude over the largest value of the format (the mean magnitude for binary and ternary,
    /// the largest value for unsigned); E8M0 scales follow the floor rule. Without scales the values themselves are
    /// rounded. Values must be finite, and so must a row's sum of magnitudes for binary and ternary; others give
    /// unspecified codes, but for bare minifloats: infinities take the largest finite value, and NaN the format's NaN, or
    /// 0 where it has none.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] as [`quantize_specialization`]; [`Error::FormatMismatch`] if the input is not f32;
    /// [`Error::ShapeMismatch`]; [`Error::Aliased`]; [`Error::BindingTooLarge`]; [`Error::Nested`].
    pub fn prepare_quantize(
        &self,
        input: &DeviceMatrix,
        output: &DeviceMatrix,
    ) -> Result<PreparedQuantize> {
        self.prepare_quantize_with(input, output, &QuantizeRowsOptions::default())
    }

    /// [`prepare_quantize`](Self::prepare_quantize) with options. Every rounding is that of
    /// [`quantize_with`](anybit_formats::quantize_with), bit for bit, given the product of value and inverse scale; each is a
    /// shader of its own, but for the seed.
    ///
    /// With [`Overflow::Special`] codes may be infinite or NaN; such a matrix cannot be downloaded, but multiplied.
    ///
    /// # Errors
    ///
    /// Those of [`prepare_quantize`](Self::prepare_quantize); [`Error::Format`] for a rounding that the element does not take.
    pub fn prepare_quantize_with(
        &self,
        input: &DeviceMatrix,
        output: &DeviceMatrix,
        options: &QuantizeRowsOptions,
    ) -> Result<PreparedQuantize> {
        self.prepare_quantize_source(input, &RowSource::Rows, output, options)
    }

    /// [`prepare_quantize_with`](Self::prepare_quantize_with) of what a source makes of the rows, in one kernel: RMSNorm and
    /// quantising read a row once for the sum of squares and the scale's statistic together.
    ///
    /// # Errors
    ///
    /// Those of [`prepare_quantize_with`](Self::prepare_quantize_with), and of [`prepare_rows`](Self::prepare_rows) for the
    /// source.
    pub fn prepare_quantize_source(
        &self,
        input: &DeviceMatrix,
        source: &RowSource<'_>,
        output: &DeviceMatrix,
        options: &QuantizeRowsOptions,
    ) -> Result<PreparedQuantize> {
        output.check_stored("the quantised matrix")?;
        let shape = source.check(input)?;
        let plan = quantize_plan(
            self.caps(),
            &output.format,
            &output.layout,
            options,
            source.kind(),
        )?;
        if shape != (output.rows, output.columns) {
            return Err(Error::ShapeMismatch {
                what: "the quantised matrix",
                expected: shape,
                actual: (output.rows, output.columns),
            });
        }
        let id = plan.specialization.id.clone();
        if input.chunks.is_empty() || output.chunks.is_empty() {
            return Ok(PreparedQuantize {
                work: Prepared::new(id, Vec::new()),
                inverses: None,
            });
        }
        if input
            .chunks
            .iter()
            .any(|chunk| chunk.buffer().is_some_and(|buffer| output.is_in(buffer)))
        {
            return Err(Error::Aliased {
                what: "the values to quantise",
            });
        }
        for target in &output.chunks {
            source.check_apart(target.buffer())?;
        }
        let limit = self.inner.caps.max_binding;
        let scales = output.format.scale_count(output.rows, output.columns) as u64;
        let row_scales = scales / output.rows.max(1) as u64;
        let most = match usize::try_from(limit / (4 * row_scales).max(1)) {
            Ok(most) => most.min(input.most_rows(limit)),
            Err(_) => input.most_rows(limit),
        };
        let too_large = || Error::BindingTooLarge {
            what: "the values to quantise",
            bytes: input.bytes().max(output.bytes()),
            limit,
        };
        let stretches = row_stretches(shape.0, &[&input.chunk_rows(), &output.chunk_rows()], most)
            .ok_or_else(too_large)?;
        let weight = source.weight_binding()?;
        let mut layout = quantize_bindings(output.layout.memory).to_vec();
        layout.extend(weight.iter().map(|_| Binding::Read));
        let pipeline = self.pipeline(&plan.specialization, &layout)?;
        let inverses = self.buffer("inverse scales", 4 * scales.max(1), STORAGE)?;
        let rule = Rule::new(&output.format);
        let mut dispatches = Vec::with_capacity(stretches.len());
        for rows in stretches {
            let chunk = input.stretch(rows.clone()).ok_or_else(too_large)?;
            let target = output.stretch(rows.clone()).ok_or_else(too_large)?;
            let [values, _] = chunk.bindings("the values to quantise")?;
            let [codes, side] = target.written("the quantised matrix")?;
            let workgroups = plan.workgroups(rows.len(), shape.1);
            let [x, y] = fold_grid(workgroups, self.inner.caps.max_workgroups)?;
            let params = QuantizeParams {
                rows: rows.len() as u32,
                columns: shape.1 as u32,
                grid_x: x,
                input_offset: 0,
                input_row: chunk.row_words,
                statistic: rule.statistic as u32,
                sign: u32::from(rule.sign),
                max_code: u32::from(rule.max_code),
                divisor: rule.divisor,
                smallest: rule.smallest,
                add: rule.add,
                factor: rule.factor,
                low: rule.low,
                high: rule.high,
                offset: rule.offset,
                nan_code: u32::from(rule.nan_code),
                ends: rule.ends,
                order: rule.order,
                seed: match options.rounding {
                    Rounding::Stochastic { seed } => seed,
                    _ => 0,
                },
                up: source.up(),
                epsilon: source.epsilon(),
                rows_before: rows.start as u32,
                output: OperandParams::new(
                    &output.format,
                    &output.layout,
                    output.columns,
                    &target,
                    0,
                    |_| 0,
                ),
            };
            // Of rows that begin at a multiple of 64, they do at a multiple of 256 bytes.
            let row = 4 * row_scales;
            let of_rows = wgpu::BufferBinding {
                buffer: &inverses,
                offset: rows.start as u64 * row,
                size: wgpu::BufferSize::new((rows.len() as u64 * row).max(4)),
            };
            let mut bindings = vec![
                wgpu::BindingResource::Buffer(values),
                codes,
                side,
                wgpu::BindingResource::Buffer(of_rows),
            ];
            bindings.extend(weight.clone().map(wgpu::BindingResource::Buffer));
            dispatches.push(self.dispatch_resources(
                &pipeline,
                &plan.specialization,
                &layout,
                bytemuck::bytes_of(&params),
                &bindings,
                [x, y, 1],
            )?);
        }
        Ok(PreparedQuantize {
            work: Prepared::new(id, dispatches),
            inverses: Some(inverses),
        })
    }

    /// Prepares `decode`: a packed matrix in any format and layout to f32.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`]; [`Error::OutputMismatch`]; [`Error::Aliased`]; [`Error::Nested`].
    pub fn prepare_decode(&self, matrix: &DeviceMatrix, output: &OutputMatrix) -> Result<Prepared> {
        matrix.check_stored("the matrix to decode")?;
        let specialization = decode_specialization(&matrix.format, &matrix.layout);
        if (matrix.rows, matrix.columns) != (output.rows, output.columns) {
            return Err(Error::ShapeMismatch {
                what: "the decoded matrix",
                expected: (matrix.rows, matrix.columns),
                actual: (output.rows, output.columns),
            });
        }
        if output.format != OutputFormat::F32 {
            return Err(Error::OutputMismatch {
                expected: OutputFormat::F32,
                actual: output.format,
            });
        }
        let Some(buffer) = &output.buffer else {
            return Ok(Prepared::new(specialization.id, Vec::new()));
        };
        if matrix.is_in(buffer) {
            return Err(Error::Aliased { what: "the matrix" });
        }
        let layout = decode_bindings(matrix.layout.memory);
        let pipeline = self.pipeline(&specialization, &layout)?;
        let limit = self.inner.caps.max_binding;
        let too_large = || Error::BindingTooLarge {
            what: "the decoded matrix",
            bytes: output.bytes().end - output.bytes().start,
            limit,
        };
        let most = output.most_rows(limit).min(matrix.most_rows(limit));
        let stretches =
            row_stretches(matrix.rows, &[&matrix.chunk_rows()], most).ok_or_else(too_large)?;
        let mut dispatches = Vec::with_capacity(stretches.len());
        for rows in stretches {
            let chunk = matrix.stretch(rows.clone()).ok_or_else(too_large)?;
            let target = output.rows_binding(rows.clone()).ok_or_else(too_large)?;
            let vectors = matrix.columns.div_ceil(4) as u64;
            let workgroups = (rows.len() as u64 * vectors).div_ceil(u64::from(WORKGROUP));
            let [x, y] = fold_grid(workgroups, self.inner.caps.max_workgroups)?;
            let params = DecodeParams {
                rows: rows.len() as u32,
                columns: matrix.columns as u32,
                grid_x: x,
                output_offset: 0,
                output_row: output.row_stride,
                padding: [0; 3],
                operand: OperandParams::new(
                    &matrix.format,
                    &matrix.layout,
                    matrix.columns,
                    &chunk,
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
                &[codes, side, wgpu::BindingResource::Buffer(target)],
                [x, y, 1],
            )?);
        }
        Ok(Prepared::new(specialization.id, dispatches))
    }

    /// Prepares `l_mul`: the L-Mul products of two f32 matrices of one shape, element by element. The result is exact, bit
    /// for bit, by the rules of [`LMul`]. Both inputs may be the same matrix.
    ///
    /// # Errors
    ///
    /// [`Error::FormatMismatch`] if an input is not f32; [`Error::ShapeMismatch`]; [`Error::OutputMismatch`] if the output
    /// is not f32; [`Error::Aliased`] if it is an input; [`Error::BindingTooLarge`].
    pub fn prepare_l_mul(
        &self,
        x: &DeviceMatrix,
        y: &DeviceMatrix,
        output: &OutputMatrix,
        l_mul: LMul,
    ) -> Result<Prepared> {
        let shape = (output.rows, output.columns);
        if output.format != OutputFormat::F32 {
            return Err(Error::OutputMismatch {
                expected: OutputFormat::F32,
                actual: output.format,
            });
        }
        let specialization = l_mul_specialization(l_mul);
        let factor = |what, matrix| self.l_mul_factor(what, matrix, output);
        let (x, y) = (
            factor("the first factor", x)?,
            factor("the second factor", y)?,
        );
        let (Some(x), Some(y), Some(buffer)) = (x, y, &output.buffer) else {
            return Ok(Prepared::new(specialization.id, Vec::new()));
        };
        let pipeline = self.pipeline(&specialization, ELEMENTWISE_BINDINGS)?;
        let vectors = shape.1.div_ceil(4) as u64;
        let workgroups = (shape.0 as u64)
            .saturating_mul(vectors)
            .div_ceil(u64::from(WORKGROUP));
        let [grid_x, grid_y] = fold_grid(workgroups, self.inner.caps.max_workgroups)?;
        let params = LMulParams {
            rows: shape.0 as u32,
            columns: shape.1 as u32,
            grid_x,
            x_row: x.row_words,
            y_row: y.row_words,
            output_row: output.row_stride,
            padding: [0; 2],
        };
        let bytes = output.bytes();
        let [x_values, _] = x.bindings("the first factor")?;
        let [y_values, _] = y.bindings("the second factor")?;
        let dispatch = self.dispatch(
            &pipeline,
            &specialization,
            ELEMENTWISE_BINDINGS,
            bytemuck::bytes_of(&params),
            &[
                x_values,
                y_values,
                wgpu::BufferBinding {
                    buffer,
                    offset: bytes.start,
                    size: wgpu::BufferSize::new(bytes.end - bytes.start),
                },
            ],
            [grid_x, grid_y, 1],
        )?;
        Ok(Prepared::new(specialization.id, vec![dispatch]))
    }

    /// The only chunk of a factor that fits the output; `None` of an empty one.
    fn l_mul_factor<'a>(
        &self,
        what: &'static str,
        matrix: &'a DeviceMatrix,
        output: &OutputMatrix,
    ) -> Result<Option<&'a Chunk>> {
        if matrix.format != MatrixFormat::F32 {
            return Err(Error::FormatMismatch {
                what,
                expected: MatrixFormat::F32,
                actual: matrix.format,
            });
        }
        if (matrix.rows, matrix.columns) != (output.rows, output.columns) {
            return Err(Error::ShapeMismatch {
                what,
                expected: (output.rows, output.columns),
                actual: (matrix.rows, matrix.columns),
            });
        }
        match &matrix.chunks[..] {
            [] => Ok(None),
            [chunk] if chunk.buffer() == output.buffer.as_ref() => Err(Error::Aliased { what }),
            [chunk] => Ok(Some(chunk)),
            _ => Err(Error::BindingTooLarge {
                what,
                bytes: matrix.bytes(),
                limit: self.inner.caps.max_binding,
            }),
        }
    }
}
