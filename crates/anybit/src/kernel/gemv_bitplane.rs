//! One to eight rows of X by bit counts over planes, K split over a team of invocations. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemv_bitplane",
    module: "kernel/gemv_bitplane",
    engine: Engine::Bitplane,
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
