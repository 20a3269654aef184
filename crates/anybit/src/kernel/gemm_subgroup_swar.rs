//! GEMM by two products of codes a 32-bit multiply, activations broadcast across the subgroup. Needs subgroups of 4 lanes or more.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_subgroup_swar",
    module: "kernel/gemm_subgroup_swar",
    engine: Engine::Swar,
    skeleton: Skeleton::Subgroup,
    tiles: TILES,
};

// Pairs of rows take turns of up to 8 lanes, so 16 rows are the least. More outputs unroll into code that drivers compile for long.
const TILES: &[Tile] = &[
    Tile::subgroup(16, 4, 32),
    Tile::subgroup(16, 8, 32),
];
