//! GEMM of integer codes by f32 multiply-add, tiled in workgroup memory. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_tiled_integer_fma",
    module: "kernel/gemm_tiled_swar",
    engine: Engine::IntegerFma,
    skeleton: Skeleton::Tiled,
    tiles: TILES,
};

// Where loads are dear, more outputs an invocation outweigh the registers that they take: the second.
const TILES: &[Tile] = &[
    Tile::tiled(64, 64, 32, 8, 4),
    Tile::tiled(32, 64, 32, 8, 8),
    Tile::tiled(32, 32, 32, 4, 4),
];
