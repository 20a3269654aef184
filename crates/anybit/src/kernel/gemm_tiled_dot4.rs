//! GEMM by packed dot products of bytes, tiled in workgroup memory. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_tiled_dot4",
    module: "kernel/gemm_tiled_dot4",
    engine: Engine::Dot4,
    skeleton: Skeleton::Tiled,
    tiles: TILES,
};

const TILES: &[Tile] = &[
    Tile::tiled(64, 64, 32, 8, 4),
    Tile::tiled(32, 64, 64, 4, 4),
    Tile::tiled(32, 32, 64, 4, 4),
    Tile::tiled(16, 32, 64, 4, 4),
    Tile::tiled(64, 64, 32, 8, 4).double_buffered(),
];
