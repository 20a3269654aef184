//! Products whose K is split into parts: how many there may be, and the kernel that adds them up.

use std::fmt;

use anybit_shaders::Header;
use bytemuck::{Pod, Zeroable};

use crate::kernel::{Engine, KernelRow, Skeleton, Tile};
use crate::pipeline::Binding;
use crate::plan::PlanOptions;
use crate::problem::{OutputFormat, Problem};
use crate::specialize::{ShaderKey, Specialization};

/// The most parts that K is split into.
pub(crate) const MOST_PARTS: u32 = 32;

/// Steps that each part must have for the planner to split by itself.
pub(crate) const LEAST_STEPS: u64 = 4;

/// Invocations of the kernel that adds the parts.
pub(crate) const WORKGROUP: u32 = 64;

/// Why a kernel does not split K into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoSplit {
    /// It has no such variant: gemv kernels split K over their teams, and those of cooperative matrices and tables not at all.
    Kernel,
    /// The rows of experts are known on the device alone, and with them which outputs there are.
    Experts,
    /// Deterministic plans have the kernel for one row of X, which does not split.
    Deterministic,
    /// Parts are whole steps, of which K has fewer.
    Steps {
        /// Parts asked for.
        parts: u32,
        /// Steps that there are.
        steps: u64,
    },
    /// The parts do not fit a binding.
    Bytes {
        /// Bytes of all parts.
        bytes: u64,
        /// The device's limit.
        limit: u64,
    },
}

impl fmt::Display for NoSplit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => write!(formatter, "does not split K"),
            Self::Experts => write!(formatter, "does not split K of experts"),
            Self::Deterministic => write!(formatter, "does not split K in a deterministic plan"),
            Self::Steps { parts, steps } => write!(
                formatter,
                "splits K into parts of whole steps, of which there are {steps}, not {parts}"
            ),
            Self::Bytes { bytes, limit } => write!(
                formatter,
                "needs {bytes} bytes for the parts, the device binds {limit}"
            ),
        }
    }
}

/// Columns that parts are multiples of: whole blocks of 32, and whole steps of the kernel, which are powers of two.
pub(crate) const fn part_step(skeleton: Skeleton, tile: &Tile) -> u32 {
    match skeleton {
        Skeleton::Tiled if tile.k > 32 => tile.k,
        Skeleton::Tiled | Skeleton::Subgroup | Skeleton::Gemv => 32,
    }
}

/// The number of steps that K has.
pub(crate) const fn part_steps(skeleton: Skeleton, tile: &Tile, k: usize) -> u64 {
    (k as u64).div_ceil(part_step(skeleton, tile) as u64)
}

/// Bytes of the parts of all outputs, whose rows are whole vectors.
pub(crate) fn part_bytes(problem: &Problem, parts: u32) -> u64 {
    let row = 4 * problem.n.next_multiple_of(4) as u64;
    (problem.output_rows() as u64)
        .saturating_mul(row)
        .saturating_mul(u64::from(parts))
}

/// Whether a kernel can split K of a problem into so many parts.
pub(crate) fn check_split(
    row: &KernelRow,
    tile: &Tile,
    problem: &Problem,
    options: &PlanOptions,
    parts: u32,
    limit: u64,
) -> Result<(), NoSplit> {
    if parts <= 1 {
        return Ok(());
    }
    if !splits(row) {
        return Err(NoSplit::Kernel);
    }
    if problem.experts.is_some() {
        return Err(NoSplit::Experts);
    }
    if options.deterministic {
        return Err(NoSplit::Deterministic);
    }
    let steps = part_steps(row.skeleton, tile, problem.k);
    if steps < u64::from(parts) {
        return Err(NoSplit::Steps { parts, steps });
    }
    let bytes = part_bytes(problem, parts);
    if bytes > limit {
        return Err(NoSplit::Bytes { bytes, limit });
    }
    Ok(())
}

/// Whether a kernel has a variant that splits K.
pub(crate) fn splits(row: &KernelRow) -> bool {
    row.skeleton != Skeleton::Gemv && row.engine != Engine::Matrix
}

/// What a kernel's id says of the parts.
pub(crate) fn part_name(parts: u32) -> String {
    match parts {
        0 | 1 => String::new(),
        parts => format!("{PART_NAME}{parts}"),
    }
}

const PART_NAME: &str = "_split";

/// The number of parts that a kernel's id names.
pub(crate) fn parts_of_id(id: &str) -> u32 {
    let digits = id.split_once(PART_NAME).map_or("", |(_, rest)| rest);
    let end = digits
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(1)
}

/// What parts are stored as: integers as they are, so that their sum is exact; others as f32.
pub(crate) const fn part_format(output: OutputFormat) -> OutputFormat {
    match output {
        OutputFormat::I32 => OutputFormat::I32,
        OutputFormat::F32 | OutputFormat::F16 => OutputFormat::F32,
    }
}

/// The module that stores outputs.
pub(crate) const fn output_module(output: OutputFormat, residual: bool) -> &'static str {
    match output {
        OutputFormat::F32 if residual => "output/f32_residual",
        OutputFormat::F32 => "output/f32",
        OutputFormat::F16 => "output/f16",
        OutputFormat::I32 => "output/i32",
    }
}

/// `AddPartsParams` of kernel/add_parts.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(crate) struct AddPartsParams {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) parts: u32,
    pub(crate) vectors: u32,
    pub(crate) grid_x: u32,
    pub(crate) output_row: u32,
    pub(crate) padding: [u32; 2],
}

/// Parameters, parts, output, and a residual where there is one.
pub(crate) fn add_parts_bindings(residual: bool) -> Vec<Binding> {
    let mut bindings = vec![Binding::Uniform, Binding::Read, Binding::Write];
    bindings.extend(residual.then_some(Binding::Read));
    bindings
}

/// The kernel that adds the parts of an output up.
pub(crate) fn add_parts_specialization(output: OutputFormat, residual: bool) -> Specialization {
    let parts = part_format(output);
    let added = if residual { "_residual" } else { "" };
    Specialization {
        id: format!("add_parts_{parts}_{output}{added}__{WORKGROUP}"),
        key: ShaderKey {
            root: "kernel/add_parts",
            slots: vec![("output", output_module(output, residual))],
            header: Header::new()
                .constant_u32("WORKGROUP", WORKGROUP)
                .constant_u32("OUT_BINDING", 2),
        },
        workgroup: WORKGROUP,
        workgroup_memory: 0,
        subgroup: false,
    }
}

/// Every kernel that adds parts up.
pub(crate) fn add_parts_specializations() -> Vec<Specialization> {
    [
        (OutputFormat::F32, false),
        (OutputFormat::F32, true),
        (OutputFormat::F16, false),
        (OutputFormat::I32, false),
    ]
    .into_iter()
    .map(|(output, residual)| add_parts_specialization(output, residual))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_parts() {
        for parts in [1, 2, 16, 32] {
            let id = format!(
                "gemm_f32_f32_f32__fma_64x64x32{}_textures",
                part_name(parts)
            );
            assert_eq!(parts_of_id(&id), parts, "{id}");
        }
        assert_eq!(parts_of_id("gemm_f32_f32_f32__fma_64x64x32_split"), 1);
        assert_eq!(parts_of_id("gemm_f32_f32_f32__fma_64x64x32_splitx"), 1);
    }
}
