//! GEMM by cooperative matrices in f16 with sums in f32, tiled in workgroup memory. Needs wgpu's experimental cooperative
//! matrices, f16 and subgroups, and a self-check that the device has passed.

use super::{Engine, KernelRow, Skeleton, Tile};

pub(super) const ROW: KernelRow = KernelRow {
    stem: "gemm_tiled_matrix",
    module: "kernel/gemm_tiled_matrix",
    engine: Engine::Matrix,
    skeleton: Skeleton::Tiled,
    tiles: TILES,
};

// Four blocks each: a workgroup for subgroups of 32, and one for those of 64.
const TILES: &[Tile] = &[
    Tile::matrix(64, 64, 32, (32, 32), 128),
    Tile::matrix(64, 64, 32, (32, 32), 256),
    Tile::matrix(32, 64, 32, (16, 32), 128),
];
