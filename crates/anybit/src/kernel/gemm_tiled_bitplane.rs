//! GEMM by bit counts over planes, tiled in workgroup memory. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_tiled_bitplane",
    module: "kernel/gemm_tiled_bitplane",
    engine: Engine::Bitplane,
    skeleton: Skeleton::Tiled,
    tiles: TILES,
};

const TILES: &[Tile] = &[
    Tile::tiled(64, 64, 64, 8, 4),
    Tile::tiled(32, 64, 64, 4, 4),
    Tile::tiled(32, 32, 64, 4, 4),
    Tile::tiled(16, 32, 128, 4, 4),
    Tile::tiled(64, 64, 64, 8, 4).double_buffered(),
];
