//! GEMM of integer codes by f32 multiply-add, activations broadcast across the subgroup. Needs subgroups of 4 lanes or more.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_subgroup_integer_fma",
    module: "kernel/gemm_subgroup_swar",
    engine: Engine::IntegerFma,
    skeleton: Skeleton::Subgroup,
    tiles: TILES,
};

// More outputs unroll into code that drivers compile for long.
const TILES: &[Tile] = &[
    Tile::subgroup(16, 4, 32),
    Tile::subgroup(16, 8, 32),
];
