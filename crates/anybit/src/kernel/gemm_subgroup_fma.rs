//! GEMM by f32 multiply-add of floats and decoded codes, activations broadcast across the subgroup. Needs subgroups of 4 lanes or more.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_subgroup_fma",
    module: "kernel/gemm_subgroup_fma",
    engine: Engine::Fma,
    skeleton: Skeleton::Subgroup,
    tiles: TILES,
};

const TILES: &[Tile] = &[
    Tile::subgroup(8, 4, 32),
    Tile::subgroup(16, 4, 32),
    Tile::subgroup(32, 4, 32),
    Tile::subgroup(16, 8, 32),
    Tile::subgroup(64, 8, 16),
];
