//! One to eight rows of X by packed dot products of bytes, K split over a team of invocations. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemv_dot4",
    module: "kernel/gemv_dot4",
    engine: Engine::Dot4,
    skeleton: Skeleton::Gemv,
    tiles: TILES,
};

const TILES: &[Tile] = &[
    Tile::gemv(1, 4, 64, 8),
    Tile::gemv(1, 8, 32, 8),
    Tile::gemv(1, 16, 32, 8),
    Tile::gemv(1, 16, 32, 4),
    Tile::gemv(1, 32, 16, 4),
    Tile::gemv(1, 4, 64, 32),
    Tile::gemv(2, 4, 64, 8),
    Tile::gemv(4, 4, 64, 8),
    Tile::gemv(8, 4, 64, 8),
];
