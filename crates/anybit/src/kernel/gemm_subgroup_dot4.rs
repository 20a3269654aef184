//! GEMM by packed dot products of bytes, activations broadcast across the subgroup. Needs subgroups of 4 lanes or more.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_subgroup_dot4",
    module: "kernel/gemm_subgroup_dot4",
    engine: Engine::Dot4,
    skeleton: Skeleton::Subgroup,
    tiles: TILES,
};

const TILES: &[Tile] = &[
    Tile::subgroup(8, 4, 32),
    Tile::subgroup(16, 4, 32),
    Tile::subgroup(32, 4, 32),
    Tile::subgroup(16, 8, 32),
];
