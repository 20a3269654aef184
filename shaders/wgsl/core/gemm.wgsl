// Bindings, parameters and tile mapping of the GEMM family: Y[m, n] = sum over k of X[m, k] * W[n, k].
//#import core/operand
//#import slot:activation_codes_memory as a_
//#import slot:activation_side_memory as a_
//#import slot:activation_bindings
//#import slot:weight_codes_memory as w_
//#import slot:weight_side_memory as w_
//#import slot:weight_bindings
//#import slot:rows
//#import slot:parts

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
    // Matrices of n rows that W is a stack of, of which each row of X meets one.
    experts: u32,
    // Parts that K is split into; 1 where it is not.
    parts: u32,
    activation: Operand,
    weight: Operand,
}

// What a workgroup works on.
struct Tile {
    // The tile along N; params.tiles_n or more where there is nothing to do.
    n: u32,
    // Its first row of X, and the rows whose outputs it may store.
    first_m: u32,
    begin_m: u32,
    end_m: u32,
    // What lies before: rows of X, rows of W, and elements of the output.
    activation: u32,
    weight: u32,
    output: u32,
    // The columns of X and W that it adds up, and the end of their blocks.
    first_k: u32,
    end_k: u32,
    end_block: u32,
}

@group(0) @binding(0) var<uniform> params: GemmParams;

fn a_operand() -> Operand {
    return params.activation;
}

fn w_operand() -> Operand {
    return params.weight;
}

// The grid is folded into x and y because a dimension holds no more than 65535 workgroups.
fn gemm_tile(group: vec3<u32>) -> Tile {
    return rows_tile(group.y * params.grid_x + group.x, group.z);
}

// The row of X that stands for row m of the tile; rows past the end repeat the last one and are never stored.
fn gemm_activation_row(tile: Tile, m: u32) -> u32 {
    return tile.activation + min(m, tile.end_m - 1u);
}

fn gemm_weight_row(tile: Tile, n: u32) -> u32 {
    return tile.weight + min(n, params.n - 1u);
}

// A column of X and W for the sake of its scale group: past K, where products are 0, the last one.
fn gemm_column(k: u32) -> u32 {
    return min(k, params.k - 1u);
}

// The first of the four rows of W that hold row n; n is a multiple of four.
fn gemm_weight_quad(tile: Tile, n: u32) -> u32 {
    return tile.weight + (min(n, params.n - 1u) & ~3u);
}

// Columns n and n + 1 of row m; n is even. They go together because outputs of 16 bits share a word.
fn gemm_store_pair(tile: Tile, m: u32, n: u32, first: out_t, second: out_t) {
    if (m >= tile.begin_m && m < tile.end_m && n < params.n) {
        let index = params.output_offset + tile.output + m * params.output_row + n;
        out_store_pair(index, first, second, n + 1u < params.n);
    }
}
