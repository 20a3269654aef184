//! One to eight rows of X, floats, by tables of sums of four activations that the planes of W look up. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemv_lut",
    module: "kernel/gemv_lut",
    engine: Engine::Lut,
    skeleton: Skeleton::Gemv,
    tiles: TILES,
};

const TILES: &[Tile] = &[
    Tile::gemv(1, 8, 64, 8),
    Tile::gemv(1, 16, 32, 4),
    Tile::gemv(1, 4, 128, 16),
    Tile::gemv(2, 8, 64, 8),
    Tile::gemv(4, 8, 32, 4),
    Tile::gemv(8, 4, 32, 4),
];
