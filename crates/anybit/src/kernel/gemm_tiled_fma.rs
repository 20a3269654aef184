//! GEMM by f32 multiply-add of floats and decoded codes, tiled in workgroup memory. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_tiled_fma",
    module: "kernel/gemm_tiled_fma",
    engine: Engine::Fma,
    skeleton: Skeleton::Tiled,
    tiles: TILES,
};

// Workgroup memory holds 4 (TILE_M + TILE_N) TILE_K bytes a buffer.
const TILES: &[Tile] = &[
    Tile::tiled(64, 64, 32, 8, 4),
    Tile::tiled(32, 64, 32, 4, 4),
    Tile::tiled(32, 32, 32, 4, 4),
    Tile::tiled(16, 32, 32, 4, 4),
    Tile::tiled(64, 64, 16, 8, 4).double_buffered(),
];
