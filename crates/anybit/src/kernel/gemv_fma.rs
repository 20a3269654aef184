//! One to eight rows of X by f32 multiply-add of floats and decoded codes, K split over a team of invocations. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemv_fma",
    module: "kernel/gemv_fma",
    engine: Engine::Fma,
    skeleton: Skeleton::Gemv,
    tiles: TILES,
};

const TILES: &[Tile] = &[
    Tile::gemv(1, 4, 64, 8),
    Tile::gemv(1, 8, 32, 8),
    Tile::gemv(1, 16, 32, 8),
    Tile::gemv(1, 16, 32, 4),
    Tile::gemv(1, 4, 64, 32),
    Tile::gemv(2, 4, 64, 8),
    Tile::gemv(4, 4, 64, 8),
    Tile::gemv(8, 4, 64, 8),
];
