// GEMM of bit planes, tiled in workgroup memory. Needs no optional feature.
//
// Rows alternate in fours in the streams, so a vec4 goes from memory to the tile as it is and brings one plane word of
// four rows. Recovery as in gemm_subgroup_bitplane: plane products stay in registers. The tiles are those of
// gemm_tiled_dot4: arrays of arrays that are read at constants, and sums of spans beside them; BUFFERS as in gemm_tiled_fma.
//#import core/gemm
//#import core/integer
//#import core/bitplane
//#import slot:activation_scale as a_
//#import slot:weight_scale as w_
//#import slot:accumulate
//#import slot:output

const WORKGROUP: u32 = (TILE_M / THREAD_M) * (TILE_N / THREAD_N);
const THREADS_M: u32 = TILE_M / THREAD_M;
const THREADS_N: u32 = TILE_N / THREAD_N;
const SETS_M: u32 = THREAD_M / 4u;
const SETS_N: u32 = THREAD_N / 4u;
const TILE_BLOCKS: u32 = TILE_K / 32u;
const SPANS: u32 = 32u / SPAN;
const POWERS: u32 = A_BITS + W_BITS - 1u;
// Blocks of four rows of X in a tile, and of both operands; and how often all invocations bring one.
const ITEMS_M: u32 = TILE_M / 4u * TILE_BLOCKS;
const ITEMS: u32 = ITEMS_M + TILE_N / 4u * TILE_BLOCKS;
const CELLS_M: u32 = BUFFERS * TILE_BLOCKS * THREADS_M;
const CELLS_N: u32 = BUFFERS * TILE_BLOCKS * THREADS_N;
const ROUNDS: u32 = (ITEMS + WORKGROUP - 1u) / WORKGROUP;

var<workgroup> tile_x: array<array<vec4<u32>, CELLS_M>, SETS_M * A_BITS>;
var<workgroup> tile_w: array<array<vec4<u32>, CELLS_N>, SETS_N * W_PLANES>;
// Of the rows of X, what a Span has.
var<workgroup> tile_start: array<array<vec4<i32>, CELLS_M>, SETS_M * SPANS>;
var<workgroup> tile_integers: array<array<vec4<i32>, CELLS_M>, SETS_M * SPANS>;
var<workgroup> tile_offset: array<array<vec4<i32>, CELLS_M>, SETS_M * SPANS>;
var<workgroup> tile_x_scale: array<array<vec4<f32>, CELLS_M>, SETS_M * SPANS>;
// Of the rows of W, their sums and what a scale has.
var<workgroup> tile_codes: array<array<vec4<i32>, CELLS_N>, SETS_N * SPANS>;
var<workgroup> tile_w_scale: array<array<vec4<f32>, CELLS_N>, SETS_N * SPANS>;
var<workgroup> tile_zero: array<array<vec4<i32>, CELLS_N>, SETS_N * SPANS>;
var<workgroup> tile_minimum: array<array<vec4<f32>, CELLS_N>, SETS_N * SPANS>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = gemm_tile(group);
    if (tile.n >= params.tiles_n) {
        return;
    }
    let first_m = tile.first_m;
    let first_n = tile.n * TILE_N;
    let thread_m = local / THREADS_N;
    let thread_n = local % THREADS_N;
    let blocks = tile.end_block;

    var acc: array<acc_t, THREAD_M * THREAD_N>;
    // Of the rows that the invocation brings: an operand's codes in each round, and integers of X.
    var sum_codes: array<vec4<i32>, ROUNDS>;
    var sum_integers: array<vec4<i32>, ROUNDS>;
    for (var first_block = tile.first_k / 32u; first_block < blocks; first_block += TILE_BLOCKS) {
        let buffer = TILE_BLOCKS * (first_block / TILE_BLOCKS % BUFFERS);
        //#unroll
        for (var i = 0u; i < ROUNDS; i++) {
            let item = local + WORKGROUP * i;
            if (item < ITEMS_M) {
                let b = item % TILE_BLOCKS;
                let vector = item / TILE_BLOCKS;
                let first_row = first_m + 4u * vector;
                let four = vector / THREADS_M;
                let cell = (buffer + b) * THREADS_M + vector % THREADS_M;
                // Where the tile goes on past the last block, nothing is made of it.
                let block = min(first_block + b, blocks - 1u);
                let quad = gemm_activation_row(tile, first_row) / 4u;
                var word = array<vec4<u32>, A_BITS>();
                //#unroll
                for (var q = 0u; q < A_BITS; q++) {
                    word[q] = bitplane_activation(q, quad, block);
                    tile_x[four * A_BITS + q][cell] = word[q];
                }
                if (ACTIVATION_SUMS || W_ZERO == 2u || A_GROUP != 0u || A_ZERO != 0u) {
                    //#unroll
                    for (var s = 0u; s < SPANS; s++) {
                        let at = four * SPANS + s;
                        let first_k = 32u * block + SPAN * s;
                        var codes = vec4<u32>(0u);
                        //#unroll
                        for (var q = 0u; q < A_BITS; q++) {
                            codes += countOneBits(word[q] & vec4<u32>(bitplane_mask(s))) << vec4<u32>(q);
                        }
                        var start = vec4<i32>();
                        var integers = vec4<i32>();
                        var offset = vec4<i32>();
                        var row_scale = vec4<f32>();
                        //#unroll
                        for (var r = 0u; r < 4u; r++) {
                            var scale = a_scl_t(1.0, 0, 0.0);
                            if (A_GROUP != 0u || A_ZERO != 0u) {
                                scale = a_scl_load(
                                    gemm_activation_row(tile, first_row + r), gemm_column(first_k) / A_GROUP_LENGTH,
                                );
                            }
                            let span = integer_span(i32(codes[r]), 0, first_k, SPAN, 0, scale.zero, scale.scale);
                            start[r] = span.start;
                            integers[r] = span.integers;
                            offset[r] = span.offset;
                            row_scale[r] = span.scale;
                        }
                        if (GROUPED && ACTIVATION_SUMS) {
                            tile_start[at][cell] = start;
                        }
                        if (GROUPED && (W_ZERO == 1u || W_ZERO == 2u)) {
                            tile_integers[at][cell] = integers;
                        }
                        if (GROUPED && A_ZERO != 0u) {
                            tile_offset[at][cell] = offset;
                        }
                        if (A_GROUP != 0u) {
                            tile_x_scale[at][cell] = row_scale;
                        }
                        if (!GROUPED && first_block + b < blocks) {
                            sum_integers[i] += integers;
                        }
                    }
                }
            } else if (item < ITEMS) {
                let b = (item - ITEMS_M) % TILE_BLOCKS;
                let vector = (item - ITEMS_M) / TILE_BLOCKS;
                let four = vector / THREADS_N;
                let cell = (buffer + b) * THREADS_N + vector % THREADS_N;
                let block = min(first_block + b, blocks - 1u);
                let quad = gemm_weight_row(tile, first_n + 4u * vector) / 4u;
                var word = array<vec4<u32>, W_PLANES>();
                //#unroll
                for (var p = 0u; p < W_PLANES; p++) {
                    word[p] = bitplane_weight(p, quad, block);
                    tile_w[four * W_PLANES + p][cell] = word[p];
                }
                //#unroll
                for (var s = 0u; s < SPANS; s++) {
                    let at = four * SPANS + s;
                    if (GROUPED) {
                        let scale = w_scl_load_quad(4u * quad, gemm_column(32u * block + SPAN * s) / W_GROUP_LENGTH);
                        var scales = vec4<f32>();
                        var zeros = vec4<i32>();
                        var minima = vec4<f32>();
                        //#unroll
                        for (var r = 0u; r < 4u; r++) {
                            let one = w_scl_pick(scale, r);
                            scales[r] = one.scale;
                            zeros[r] = one.zero;
                            minima[r] = one.minimum;
                        }
                        tile_w_scale[at][cell] = scales;
                        if (W_ZERO == 1u) {
                            tile_zero[at][cell] = zeros;
                        }
                        if (W_ZERO == 2u) {
                            tile_minimum[at][cell] = minima;
                        }
                    }
                    if (WEIGHT_SUMS) {
                        var codes = vec4<u32>(0u);
                        //#unroll
                        for (var p = 0u; p < W_PLANES; p++) {
                            codes += countOneBits(word[p] & vec4<u32>(bitplane_mask(s))) << vec4<u32>(p % W_BITS);
                        }
                        if (GROUPED) {
                            tile_codes[at][cell] = vec4<i32>(codes);
                        } else if (first_block + b < blocks) {
                            sum_codes[i] += vec4<i32>(codes);
                        }
                    }
                }
            }
        }
        workgroupBarrier();
        for (var b = 0u; b < min(TILE_BLOCKS, blocks - first_block); b++) {
            let cell_m = (buffer + b) * THREADS_M + thread_m;
            let cell_n = (buffer + b) * THREADS_N + thread_n;
            var w = array<vec4<u32>, SETS_N * W_PLANES>();
            //#unroll
            for (var p = 0u; p < SETS_N * W_PLANES; p++) {
                w[p] = tile_w[p][cell_n];
            }
            //#unroll
            for (var i = 0u; i < SETS_M; i++) {
                var x = array<vec4<u32>, A_BITS>();
                //#unroll
                for (var q = 0u; q < A_BITS; q++) {
                    x[q] = tile_x[i * A_BITS + q][cell_m];
                }
                //#unroll
                for (var s = 0u; s < SPANS; s++) {
                    var start = vec4<i32>();
                    var integers = vec4<i32>();
                    var offset = vec4<i32>(params.activation.offset);
                    var x_scale = vec4<f32>();
                    if (GROUPED && BIPOLAR) {
                        start = vec4<i32>(integer_signs(32u * (first_block + b) + SPAN * s, SPAN));
                    }
                    if (GROUPED && ACTIVATION_SUMS) {
                        start = tile_start[i * SPANS + s][cell_m];
                    }
                    if (GROUPED && (W_ZERO == 1u || W_ZERO == 2u)) {
                        integers = tile_integers[i * SPANS + s][cell_m];
                    }
                    if (GROUPED && A_ZERO != 0u) {
                        offset = tile_offset[i * SPANS + s][cell_m];
                    }
                    if (A_GROUP != 0u) {
                        x_scale = tile_x_scale[i * SPANS + s][cell_m];
                    }
                    //#unroll
                    for (var j = 0u; j < SETS_N; j++) {
                        var codes = vec4<i32>();
                        var scales = vec4<f32>();
                        var zeros = vec4<i32>();
                        var minima = vec4<f32>();
                        if (GROUPED) {
                            scales = tile_w_scale[j * SPANS + s][cell_n];
                        }
                        if (GROUPED && W_ZERO == 1u) {
                            zeros = tile_zero[j * SPANS + s][cell_n];
                        }
                        if (GROUPED && W_ZERO == 2u) {
                            minima = tile_minimum[j * SPANS + s][cell_n];
                        }
                        if (GROUPED && WEIGHT_SUMS) {
                            codes = tile_codes[j * SPANS + s][cell_n];
                        }
                        //#unroll
                        for (var r = 0u; r < 4u; r++) {
                            let span = Span(integers[r], offset[r], x_scale[r], start[r]);
                            //#unroll
                            for (var c = 0u; c < 4u; c++) {
                                var power = array<u32, POWERS>();
                                //#unroll
                                for (var p = 0u; p < W_PLANES; p++) {
                                    let word = w[j * W_PLANES + p][c] & bitplane_mask(s);
                                    //#unroll
                                    for (var q = 0u; q < A_BITS; q++) {
                                        power[p % W_BITS + q] += countOneBits(bitplane_product(word, x[q][r], s));
                                    }
                                }
                                let at = (4u * i + r) * THREAD_N + 4u * j + c;
                                var sum = acc_start(acc[at], span);
                                //#unroll
                                for (var p = 0u; p < POWERS; p++) {
                                    sum += i32(power[p] << p);
                                }
                                acc[at] = acc_span(
                                    acc[at], sum, codes[c], span, w_scl_t(scales[c], zeros[c], minima[c]),
                                );
                            }
                        }
                    }
                }
            }
        }
        if (BUFFERS == 1u) {
            workgroupBarrier();
        }
    }

    // Without groups, sums over all of K go where those of the first span lay, a cell a block of the tile.
    if (!GROUPED) {
        //#unroll
        for (var i = 0u; i < ROUNDS; i++) {
            let item = local + WORKGROUP * i;
            if (item < ITEMS_M) {
                let vector = item / TILE_BLOCKS;
                let cell = (item % TILE_BLOCKS) * THREADS_M + vector % THREADS_M;
                tile_integers[vector / THREADS_M * SPANS][cell] = sum_integers[i];
            } else if (item < ITEMS) {
                let vector = (item - ITEMS_M) / TILE_BLOCKS;
                let cell = ((item - ITEMS_M) % TILE_BLOCKS) * THREADS_N + vector % THREADS_N;
                tile_codes[vector / THREADS_N * SPANS][cell] = sum_codes[i];
            }
        }
        workgroupBarrier();
    }
    //#unroll
    for (var m = 0u; m < THREAD_M; m++) {
        let row = first_m + 4u * (thread_m + THREADS_M * (m / 4u)) + m % 4u;
        let row_scale = a_scl_load(gemm_activation_row(tile, row), 0u);
        var integers = 0;
        if (!GROUPED) {
            //#unroll
            for (var b = 0u; b < TILE_BLOCKS; b++) {
                integers += tile_integers[m / 4u * SPANS][b * THREADS_M + thread_m][m % 4u];
            }
        }
        let total = integer_total(tile, integers, 0, params.activation.offset - row_scale.zero, row_scale.scale);
        //#unroll
        for (var n = 0u; n < THREAD_N; n += 2u) {
            let column = first_n + 4u * (thread_n + THREADS_N * (n / 4u)) + n % 4u;
            var pair = array<out_t, 2>();
            //#unroll
            for (var c = 0u; c < 2u; c++) {
                let scale = w_scl_load(gemm_weight_row(tile, column + c), 0u);
                var weight_codes = 0;
                if (!GROUPED) {
                    //#unroll
                    for (var b = 0u; b < TILE_BLOCKS; b++) {
                        weight_codes += tile_codes[(n + c) / 4u * SPANS][b * THREADS_N + thread_n][(n + c) % 4u];
                    }
                }
                pair[c] = acc_finish(acc[m * THREAD_N + n + c], weight_codes, total, scale);
            }
            gemm_store_pair(tile, row, column, pair[0], pair[1]);
        }
    }
}
