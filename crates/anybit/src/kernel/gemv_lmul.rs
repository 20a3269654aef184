//! One to eight rows of X by L-Mul of floats and decoded codes, K split over a team of invocations. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemv_lmul",
    module: "kernel/gemv_fma",
    engine: Engine::LMul,
    skeleton: Skeleton::Gemv,
    tiles: TILES,
};

// Few, since an emulation is for results, not for speed.
const TILES: &[Tile] = &[
    Tile::gemv(1, 4, 64, 8),
    Tile::gemv(4, 4, 64, 8),
];
