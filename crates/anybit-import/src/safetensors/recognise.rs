//! Which tensors are weights by themselves, and which are parts of a quantised one.

use std::fmt;

use anybit_formats::{FloatFormat, MatrixFormat};

use super::packed::{self, PackedEntry};
use super::weight::{CodedWeight, Plan};
use super::{Dtype, SafetensorsFile, TensorInfo, bitsandbytes, compressed, float8, gptq};
use crate::ImportError;
use crate::gguf::shorten;

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightLayout {
    /// A tensor that stands for itself.
    Plain(Dtype),
    /// E4M3 or E5M2 numbers, with scales if there are any.
    Float8(Dtype),
    /// Unsigned codes with a scale and a zero point for each group of inputs, packed along the inputs.
    Gptq,
    /// Unsigned 4-bit codes with a scale and a zero point for each group of inputs, packed along the outputs in the
    /// order 0, 2, 4, 6, 1, 3, 5, 7.
    Awq,
    /// NF4 codes with a scale for each block.
    BitsAndBytesNf4,
    /// FP4 codes of bitsandbytes with a scale for each block.
    BitsAndBytesFp4,
    /// Integers packed densely into 32-bit words, `pack-quantized` of compressed-tensors.
    PackQuantized,
    /// Signed bytes with scales, `int-quantized` of compressed-tensors.
    IntQuantized,
    /// E2M1 codes with an E4M3 scale for each 16 and one f32.
    Nvfp4,
    /// E2M1 codes with a power of two for each 32.
    Mxfp4,
    /// A packed matrix of anybit.
    Packed(MatrixFormat),
}

impl fmt::Display for WeightLayout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Plain(dtype) => dtype.name(),
            Self::Float8(dtype) => dtype.name(),
            Self::Gptq => "GPTQ",
            Self::Awq => "AWQ",
            Self::BitsAndBytesNf4 => "bitsandbytes NF4",
            Self::BitsAndBytesFp4 => "bitsandbytes FP4",
            Self::PackQuantized => "pack-quantized",
            Self::IntQuantized => "int-quantized",
            Self::Nvfp4 => "NVFP4",
            Self::Mxfp4 => "MXFP4",
            Self::Packed(format) => return write!(formatter, "packed {format}"),
        })
    }
}

/// A weight of a model: its name, shape and how it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightInfo {
    name: String,
    layout: WeightLayout,
    shape: Vec<u64>,
    matrix_format: Option<MatrixFormat>,
    byte_size: u64,
    pub(super) kind: Kind,
}

impl WeightInfo {
    /// The weight's name: of a quantised one, the name that it had before.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is stored.
    pub fn layout(&self) -> WeightLayout {
        self.layout
    }

    /// The dimensions, outermost first: N × K for a matrix of N output channels and K inputs. Of a quantised weight
    /// that cannot be read for what its tensors are, those of the tensor with its codes.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Columns of the weight as a matrix: its last dimension, K. 1 without dimensions.
    pub fn columns(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows of the weight as a matrix: the product of all dimensions but the last. 0 if there are no elements.
    pub fn rows(&self) -> u64 {
        if self.shape.contains(&0) {
            return 0;
        }
        // No overflow: the elements lie within the file.
        self.shape
            .split_last()
            .map_or(1, |(_, outer)| outer.iter().product())
    }

    /// How many elements there are.
    pub fn elements(&self) -> u64 {
        self.rows() * self.columns()
    }

    /// The format that [`SafetensorsFile::matrix`] gives it, or `None` if no packed matrix keeps it, or something is
    /// wrong with its tensors, which reading tells.
    pub fn matrix_format(&self) -> Option<MatrixFormat> {
        self.matrix_format
    }

    /// Bytes that all its tensors take.
    pub fn byte_size(&self) -> u64 {
        self.byte_size
    }

    /// Whether it has elements and no dimension beyond the second.
    pub(super) fn is_matrix(&self) -> bool {
        self.shape
            .iter()
            .rev()
            .skip(2)
            .all(|&dimension| dimension == 1)
    }
}

/// What a weight is read by: the position of its main tensor, from whose name those of the others follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain(usize),
    Float8(usize),
    Gptq(usize),
    BitsAndBytes(usize, bitsandbytes::Code),
    PackQuantized(usize),
    IntQuantized(usize),
    Fp4(usize, compressed::Fp4),
    Packed(PackedEntry),
}

/// The float format of a plain tensor that can be read.
pub(super) fn float_format(dtype: Dtype) -> Option<FloatFormat> {
    match dtype {
        Dtype::F32 => Some(FloatFormat::F32),
        Dtype::F16 => Some(FloatFormat::F16),
        Dtype::Bf16 => Some(FloatFormat::Bf16),
        _ => None,
    }
}

/// What a tensor is the main one of, if of anything but itself: the weight's name, and its kind.
fn quantised(file: &SafetensorsFile, position: usize, info: &TensorInfo) -> Option<(String, Kind)> {
    let name = info.name();
    let has = |suffix: &str| file.tensor(&format!("{name}{suffix}")).is_some();
    if let Some(stem) = gptq::stem(name) {
        return Some((format!("{stem}weight"), Kind::Gptq(position)));
    }
    if let Some(stem) = compressed::stem(name) {
        let kind = match info.dtype() {
            Dtype::U8 if file.tensor(&format!("{stem}weight_global_scale")).is_some() => {
                Kind::Fp4(position, compressed::Fp4::Nvidia)
            }
            Dtype::U8 => Kind::Fp4(position, compressed::Fp4::Microscaling),
            _ => Kind::PackQuantized(position),
        };
        return Some((format!("{stem}weight"), kind));
    }
    let kind = match info.dtype() {
        Dtype::F8E4m3 | Dtype::F8E5m2 => Kind::Float8(position),
        Dtype::I8 if has("_scale") => Kind::IntQuantized(position),
        Dtype::U8 if has("_scale") && has("_scale_2") => {
            Kind::Fp4(position, compressed::Fp4::ModelOpt)
        }
        _ => {
            let code = bitsandbytes::Code::ALL
                .into_iter()
                .find(|code| has(code.suffix()))?;
            Kind::BitsAndBytes(position, code)
        }
    };
    Some((name.to_owned(), kind))
}

/// Names of the other tensors of a weight, whether there are such or not.
fn companions(file: &SafetensorsFile, kind: &Kind) -> Vec<String> {
    let name = |position: &usize| file.tensors.get(*position).map_or("", TensorInfo::name);
    let named = |stem: &str, suffixes: &[&str]| {
        suffixes
            .iter()
            .map(|suffix| format!("{stem}{suffix}"))
            .collect()
    };
    match kind {
        Kind::Plain(_) => Vec::new(),
        Kind::Float8(main) => named(name(main), &float8::COMPANIONS),
        Kind::Gptq(main) => named(gptq::stem(name(main)).unwrap_or(""), &gptq::COMPANIONS),
        Kind::BitsAndBytes(main, code) => {
            let mut names: Vec<String> = named(name(main), &bitsandbytes::COMPANIONS);
            names.push(format!("{}{}", name(main), code.suffix()));
            names
        }
        Kind::PackQuantized(main) => named(
            compressed::stem(name(main)).unwrap_or(""),
            &compressed::PACK_COMPANIONS,
        ),
        Kind::IntQuantized(main) => named(name(main), &compressed::INT_COMPANIONS),
        Kind::Fp4(main, fp4) => {
            let name = name(main);
            let stem = compressed::stem(name).map(|stem| format!("{stem}weight"));
            named(stem.as_deref().unwrap_or(name), fp4.companions())
        }
        Kind::Packed(entry) => entry.tensors(),
    }
}

/// All weights of a file, in the order of their main tensors.
pub(super) fn weights(file: &SafetensorsFile) -> Result<Vec<WeightInfo>, ImportError> {
    let position = |name: &str| file.index.position(&file.tensors, TensorInfo::name, name);
    // Where a tensor is part of a weight that it is not the main one of, or of the file itself.
    let mut taken = vec![false; file.tensors.len()];
    let mut found: Vec<(usize, String, Kind)> = Vec::new();
    let mut take = |name: &str| {
        if let Some(taken) = position(name).and_then(|position| taken.get_mut(position)) {
            *taken = true;
        }
    };

    let entries = packed::entries(file)?;
    if let Some(entries) = entries {
        for info in &file.tensors {
            if packed::is_internal(info.name()) {
                take(info.name());
            }
        }
        for entry in entries {
            let kind = Kind::Packed(entry);
            let names = companions(file, &kind);
            let first = names.iter().find_map(|name| position(name));
            for name in &names {
                take(name);
            }
            if let Kind::Packed(entry) = &kind {
                found.push((first.unwrap_or(usize::MAX), entry.name().to_owned(), kind));
            }
        }
    } else {
        for (position, info) in file.tensors.iter().enumerate() {
            if let Some((name, kind)) = quantised(file, position, info) {
                for companion in companions(file, &kind) {
                    take(&companion);
                }
                take(info.name());
                found.push((position, name, kind));
            }
        }
    }
    for (position, (info, taken)) in file.tensors.iter().zip(&taken).enumerate() {
        if !taken {
            found.push((position, info.name().to_owned(), Kind::Plain(position)));
        }
    }
    found.sort_by_key(|&(position, ..)| position);
    Ok(found
        .into_iter()
        .map(|(_, name, kind)| describe(file, name, kind))
        .collect())
}

fn describe(file: &SafetensorsFile, name: String, kind: Kind) -> WeightInfo {
    let main = kind.main().and_then(|main| file.tensors.get(main));
    let dtype = main.map_or(Dtype::U8, TensorInfo::dtype);
    let layout = match &kind {
        Kind::Plain(_) => WeightLayout::Plain(dtype),
        Kind::Float8(_) => WeightLayout::Float8(dtype),
        Kind::Gptq(main) => gptq::layout(file, *main),
        Kind::BitsAndBytes(_, code) => code.layout(),
        Kind::PackQuantized(_) => WeightLayout::PackQuantized,
        Kind::IntQuantized(_) => WeightLayout::IntQuantized,
        Kind::Fp4(_, fp4) => fp4.layout(),
        Kind::Packed(entry) => WeightLayout::Packed(entry.format()),
    };
    let byte_size = companions(file, &kind)
        .iter()
        .filter_map(|name| file.tensor(name))
        .chain(main)
        .map(TensorInfo::byte_size)
        // No overflow: all lie within files.
        .fold(0u64, u64::saturating_add);
    let mut weight = WeightInfo {
        name,
        layout,
        shape: main.map_or(Vec::new(), |info| info.shape().to_vec()),
        matrix_format: None,
        byte_size,
        kind,
    };
    match &weight.kind {
        Kind::Plain(_) => weight.matrix_format = float_format(dtype).map(float_matrix_format),
        Kind::Packed(entry) => {
            weight.shape = vec![entry.rows() as u64, entry.columns() as u64];
            weight.matrix_format = Some(entry.format());
        }
        _ => {
            // What is wrong is told on reading.
            if let Ok(plan) = file.plan(&weight) {
                weight.matrix_format = plan.matrix_format();
                if weight.kind.is_transposed_or_packed() {
                    weight.shape = vec![plan.rows as u64, plan.columns as u64];
                }
            }
        }
    }
    weight
}

impl Kind {
    /// The position of the main tensor; a packed matrix has none.
    pub(super) fn main(&self) -> Option<usize> {
        match *self {
            Self::Plain(main)
            | Self::Float8(main)
            | Self::Gptq(main)
            | Self::BitsAndBytes(main, _)
            | Self::PackQuantized(main)
            | Self::IntQuantized(main)
            | Self::Fp4(main, _) => Some(main),
            Self::Packed(_) => None,
        }
    }

    /// Whether the main tensor has another shape than the weight.
    fn is_transposed_or_packed(&self) -> bool {
        !matches!(
            self,
            Self::Plain(_) | Self::Float8(_) | Self::IntQuantized(_)
        )
    }
}

pub(super) fn float_matrix_format(format: FloatFormat) -> MatrixFormat {
    match format {
        FloatFormat::F32 => MatrixFormat::F32,
        FloatFormat::F16 => MatrixFormat::F16,
        FloatFormat::Bf16 => MatrixFormat::BF16,
    }
}

impl SafetensorsFile {
    /// The main tensor of a quantised weight.
    fn main(&self, weight: &WeightInfo) -> Result<&TensorInfo, ImportError> {
        let unsupported = || ImportError::UnsupportedLayout {
            weight: shorten(weight.name()),
            layout: weight.layout(),
        };
        let position = weight.kind.main().ok_or_else(unsupported)?;
        self.tensors.get(position).ok_or_else(unsupported)
    }

    /// What a quantised weight is, as far as its tensors' shapes tell.
    pub(super) fn plan(&self, weight: &WeightInfo) -> Result<Plan, ImportError> {
        let main = self.main(weight)?;
        match weight.kind {
            Kind::Float8(_) => float8::plan(self, weight, main),
            Kind::Gptq(_) => gptq::plan(self, weight, main).map(|plan| plan.plan),
            Kind::BitsAndBytes(_, code) => {
                bitsandbytes::plan(self, weight, main, code).map(|(plan, _)| plan)
            }
            Kind::PackQuantized(_) => {
                compressed::plan_packed(self, weight, main).map(|(plan, _)| plan)
            }
            Kind::IntQuantized(_) => compressed::plan_int(self, weight, main),
            Kind::Fp4(_, fp4) => compressed::plan_fp4(self, weight, main, fp4),
            Kind::Plain(_) | Kind::Packed(_) => Err(ImportError::UnsupportedLayout {
                weight: shorten(weight.name()),
                layout: weight.layout(),
            }),
        }
    }

    /// A quantised weight, taken apart and checked.
    pub(super) fn coded(&self, weight: &WeightInfo) -> Result<CodedWeight, ImportError> {
        let main = self.main(weight)?;
        match weight.kind {
            Kind::Float8(_) => float8::load(self, weight, main),
            Kind::Gptq(_) => gptq::load(self, weight, main),
            Kind::BitsAndBytes(_, code) => bitsandbytes::load(self, weight, main, code),
            Kind::PackQuantized(_) => compressed::load_packed(self, weight, main),
            Kind::IntQuantized(_) => compressed::load_int(self, weight, main),
            Kind::Fp4(_, fp4) => compressed::load_fp4(self, weight, main, fp4),
            Kind::Plain(_) | Kind::Packed(_) => Err(ImportError::UnsupportedLayout {
                weight: shorten(weight.name()),
                layout: weight.layout(),
            }),
        }?
        .check(weight.name())
    }
}
