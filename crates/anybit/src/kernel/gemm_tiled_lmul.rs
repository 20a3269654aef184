//! GEMM by L-Mul of floats and decoded codes, tiled in workgroup memory. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_tiled_lmul",
    module: "kernel/gemm_tiled_fma",
    engine: Engine::LMul,
    skeleton: Skeleton::Tiled,
    tiles: TILES,
};

// Few, since an emulation is for results, not for speed.
const TILES: &[Tile] = &[
    Tile::tiled(32, 64, 32, 4, 4),
    Tile::tiled(16, 32, 32, 4, 4),
];
