//! The CPU twin of each shader in `shaders/wgsl/kernel`, under its name.
//!
//! A twin takes whole matrices and does the operations of the shader on each output in the shader's order: integers
//! inside a span, f32 sums from span to span, K split over lanes and joined by a tree. Where WGSL leaves an order open
//! (inside `dot`, or by contracting), the twin goes from left to right and rounds every operation to nearest.
//!
//! How outputs are shared among workgroups changes no number, so twins know nothing of it: all that counts is in
//! [`Tile`].

use anybit_formats::{LMul, MatrixFormat, PackedMatrix};

use crate::bound::Accumulation;
use crate::integers::{is_grouped, span_of};
use crate::{Parts, ReferenceError};

mod accumulate;
mod add_parts;
mod advance;
mod attention;
mod attention_merge;
mod bitplane;
mod cross_entropy;
mod decode;
mod dot4;
mod draw;
mod fma;
mod gather;
mod gemm_subgroup_bitplane;
mod gemm_subgroup_dot4;
mod gemm_subgroup_fma;
mod gemm_subgroup_integer_fma;
mod gemm_subgroup_lmul;
mod gemm_subgroup_swar;
mod gemm_tiled_bitplane;
mod gemm_tiled_dot4;
mod gemm_tiled_fma;
mod gemm_tiled_integer_fma;
mod gemm_tiled_lmul;
mod gemm_tiled_matrix;
mod gemm_tiled_swar;
mod gemv_bitplane;
mod gemv_dot4;
mod gemv_fma;
mod gemv_lmul;
mod gemv_lut;
mod gemv_lut8;
mod integer;
mod l_mul;
mod largest;
mod lmul;
mod lut;
mod quantize_cache;
mod quantize_groups;
mod quantize_rows;
mod reduce;
mod rotate;
mod swar;
mod write_rows;

pub use accumulate::Output;
pub use add_parts::add_parts;
pub use advance::advance;
pub use attention::{Attention, AttentionPart, attention, soft_cap};
pub use attention_merge::attention_merge;
pub use cross_entropy::cross_entropy;
pub use decode::decode;
pub use draw::{Sampling, draw, draw_from, largest_index};
pub(crate) use draw::{by_key, drawing_order, least_of_top_k, part_of};
pub use gather::gather;
pub use gemm_subgroup_bitplane::gemm_subgroup_bitplane;
pub use gemm_subgroup_dot4::gemm_subgroup_dot4;
pub use gemm_subgroup_fma::gemm_subgroup_fma;
pub use gemm_subgroup_integer_fma::gemm_subgroup_integer_fma;
pub use gemm_subgroup_lmul::gemm_subgroup_lmul;
pub use gemm_subgroup_swar::gemm_subgroup_swar;
pub use gemm_tiled_bitplane::gemm_tiled_bitplane;
pub use gemm_tiled_dot4::gemm_tiled_dot4;
pub use gemm_tiled_fma::gemm_tiled_fma;
pub use gemm_tiled_integer_fma::gemm_tiled_integer_fma;
pub use gemm_tiled_lmul::gemm_tiled_lmul;
pub use gemm_tiled_matrix::{Fragments, MatrixOutput, gemm_tiled_matrix};
pub use gemm_tiled_swar::gemm_tiled_swar;
pub use gemv_bitplane::gemv_bitplane;
pub use gemv_dot4::gemv_dot4;
pub use gemv_fma::gemv_fma;
pub use gemv_lmul::gemv_lmul;
pub use gemv_lut::gemv_lut;
pub use gemv_lut8::gemv_lut8;
pub use l_mul::l_mul;
pub use largest::{key_of, largest};
pub use quantize_cache::{completed, quantize_cache};
pub use quantize_groups::{quantize_groups, quantize_groups_with};
pub use quantize_rows::{quantize_rows, quantize_rows_with};
pub(crate) use rotate::HeadKind;
pub use rotate::{HeadNorm, Rotary, Rotated, rotate};
pub use write_rows::write_rows;

/// The name of every twin: the stem of its kernel's row, and of its shader's file unless two engines share that.
pub const KERNELS: &[&str] = &[
    "add_parts",
    "advance",
    "attention",
    "attention_merge",
    "cross_entropy",
    "decode",
    "draw",
    "gather",
    "gemm_subgroup_bitplane",
    "gemm_subgroup_dot4",
    "gemm_subgroup_fma",
    "gemm_subgroup_integer_fma",
    "gemm_subgroup_lmul",
    "gemm_subgroup_swar",
    "gemm_tiled_bitplane",
    "gemm_tiled_dot4",
    "gemm_tiled_fma",
    "gemm_tiled_integer_fma",
    "gemm_tiled_lmul",
    "gemm_tiled_matrix",
    "gemm_tiled_swar",
    "gemv_bitplane",
    "gemv_dot4",
    "gemv_fma",
    "gemv_lmul",
    "gemv_lut",
    "gemv_lut8",
    "l_mul",
    "largest",
    "quantize_cache",
    "quantize_groups",
    "quantize_rows",
    "rotate",
    "write_rows",
];

/// The header constants of a GEMM kernel that change its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// `SPAN`: columns that an integer kernel adds as integers before it scales them, 16 or 32. A group of 16 needs 16.
    pub span: usize,
    /// `LANES`: invocations that share K in the gemv kernels, a power of two. The gemm kernels ignore it.
    pub lanes: usize,
    /// Parts that K is split into, and joined from by `add_parts`. The gemv kernels do not split it.
    pub parts: Parts,
    /// `GROUPED`: which of the accumulate slots fills an integer kernel with f32 outputs.
    pub accumulation: Accumulation,
    /// `L_MUL_…`: the multiplier of the lmul kernels. The others ignore it.
    pub l_mul: LMul,
}

impl Tile {
    /// The span, accumulation and multiplier that the formats of the operands ask for, with 32 lanes.
    pub fn of(x: &PackedMatrix, w: &PackedMatrix) -> Self {
        Self {
            span: span_of(x.format(), w.format()),
            lanes: 32,
            parts: Parts::ONE,
            accumulation: Accumulation::of(x.format(), w.format()),
            l_mul: LMul::of(x.format().element(), w.format().element()),
        }
    }

    /// The same with another number of lanes.
    pub const fn with_lanes(self, lanes: usize) -> Self {
        Self { lanes, ..self }
    }

    /// The same with K in parts.
    pub const fn with_parts(self, parts: Parts) -> Self {
        Self { parts, ..self }
    }

    /// The same with another multiplier.
    pub const fn with_l_mul(self, l_mul: LMul) -> Self {
        Self { l_mul, ..self }
    }

    /// The same with one lane: K in order.
    const fn in_order(self) -> Self {
        self.with_lanes(1)
    }

    fn check_lanes(self) -> Result<(), ReferenceError> {
        if self.lanes.is_power_of_two() {
            Ok(())
        } else {
            Err(ReferenceError::Constant {
                what: "LANES",
                expected: "a power of two",
                found: self.lanes,
            })
        }
    }

    fn check_span(self, x: &MatrixFormat, w: &MatrixFormat) -> Result<(), ReferenceError> {
        if self.span == 16 || self.span == 32 && span_of(x, w) == 32 {
            Ok(())
        } else {
            Err(ReferenceError::Constant {
                what: "SPAN",
                expected: "16, or 32 where no scale group has 16 columns",
                found: self.span,
            })
        }
    }
}

/// Refuses a format whose scales change along K.
fn check_whole(format: &MatrixFormat) -> Result<(), ReferenceError> {
    if is_grouped(format) {
        Err(ReferenceError::Grouped { format: *format })
    } else {
        Ok(())
    }
}
