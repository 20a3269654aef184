//! GEMM by bit counts over planes, activations broadcast across the subgroup. Needs subgroups of 4 lanes or more.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_subgroup_bitplane",
    module: "kernel/gemm_subgroup_bitplane",
    engine: Engine::Bitplane,
    skeleton: Skeleton::Subgroup,
    tiles: TILES,
};

const TILES: &[Tile] = &[
    Tile::subgroup(8, 4, 32),
    Tile::subgroup(16, 4, 32),
    Tile::subgroup(32, 4, 32),
];
