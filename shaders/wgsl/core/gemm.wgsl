// Bindings, parameters and tile mapping of the GEMM family: Y[m, n] = sum over k of X[m, k] * W[n, k].
//#import core/operand
//#import slot:activation_memory as a_
//#import slot:activation_bindings
//#import slot:weight_memory as w_
//#import slot:weight_bindings

struct GemmParams {
    m: u32,
    n: u32,
    k: u32,
    // Output tiles along M and N, and the width of the folded grid.
    tiles_m: u32,
    tiles_n: u32,
    grid_x: u32,
    // Output addressing, in elements.
    output_offset: u32,
    output_row: u32,
    output_batch: u32,
    // What the units of lifted operands multiply to.
    fold: f32,
    padding_0: u32,
    padding_1: u32,
    activation: Operand,
    weight: Operand,
}

struct Tile {
    m: u32,
    n: u32,
    batch: u32,
}

@group(0) @binding(0) var<uniform> params: GemmParams;

fn a_operand() -> Operand {
    return params.activation;
}

fn w_operand() -> Operand {
    return params.weight;
}

// Tiles run along M first, so that neighbouring workgroups share a tile of the weights. The grid is folded into
// x and y because a dimension holds no more than 65535 workgroups; tile.n is tiles_n or more past the end.
fn gemm_tile(group: vec3<u32>) -> Tile {
    let index = group.y * params.grid_x + group.x;
    return Tile(index % params.tiles_m, index / params.tiles_m, group.z);
}

// The row of X that stands for row m of the batch; rows past the end repeat the last one and are never stored.
fn gemm_activation_row(batch: u32, m: u32) -> u32 {
    return batch * params.activation.batch_rows + min(m, params.m - 1u);
}

fn gemm_weight_row(batch: u32, n: u32) -> u32 {
    return batch * params.weight.batch_rows + min(n, params.n - 1u);
}

// A column of X and W for the sake of its scale group: past K, where products are 0, the last one.
fn gemm_column(k: u32) -> u32 {
    return min(k, params.k - 1u);
}

// The first of the four rows of W that hold row n; n is a multiple of four.
fn gemm_weight_quad(batch: u32, n: u32) -> u32 {
    return batch * params.weight.batch_rows + (min(n, params.n - 1u) & ~3u);
}

// Columns n and n + 1 of row m; n is even. They go together because outputs of 16 bits share a word.
fn gemm_store_pair(batch: u32, m: u32, n: u32, first: out_t, second: out_t) {
    if (m < params.m && n < params.n) {
        let index = params.output_offset + batch * params.output_batch + m * params.output_row + n;
        out_store_pair(index, first, second, n + 1u < params.n);
    }
}
