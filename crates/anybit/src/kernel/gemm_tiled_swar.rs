//! GEMM by two products of codes a 32-bit multiply, tiled in workgroup memory. Runs everywhere.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_tiled_swar",
    module: "kernel/gemm_tiled_swar",
    engine: Engine::Swar,
    skeleton: Skeleton::Tiled,
    tiles: TILES,
};

// Many outputs an invocation, since loads are dear where this engine is taken.
const TILES: &[Tile] = &[
    Tile::tiled(32, 64, 32, 8, 8),
    Tile::tiled(32, 32, 32, 4, 4),
];
