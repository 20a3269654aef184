//! GEMM by L-Mul of floats and decoded codes, activations broadcast across the subgroup. Needs subgroups of 4 lanes or more.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_subgroup_lmul",
    module: "kernel/gemm_subgroup_fma",
    engine: Engine::LMul,
    skeleton: Skeleton::Subgroup,
    tiles: TILES,
};

// Few, since an emulation is for results, not for speed.
const TILES: &[Tile] = &[
    Tile::subgroup(8, 4, 32),
    Tile::subgroup(16, 4, 32),
];
