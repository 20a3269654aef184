// GEMM of packed codes by packed dot products, tiled in workgroup memory. Needs no optional feature.
//
// A workgroup makes TILE_M x TILE_N outputs, TILE_K of K at a time. Codes become bytes once a tile, a row an invocation; what
// else a span of a row has, its scale and sums, lies beside them. A vector of the tile holds 16 bytes of one row, so what an
// invocation reads for its THREAD_M x THREAD_N outputs are whole vectors. It takes a row of X at a time, so that few sums
// are open at once.
//
// The rows of an invocation come in fours, the fours strided over the tile. Tiles are arrays of arrays: the outer index says
// which of the invocation's vectors, a constant where they are read, and the inner one the span and the invocation, so that
// one check of a span serves all of its reads and the rest are offsets in the instructions.
//
// Reads BUFFERS, as gemm_tiled_fma.
//#import core/gemm
//#import core/integer
//#import core/bytes
//#import slot:activation_codes as a_
//#import slot:activation_lift as a_
//#import slot:activation_scale as a_
//#import slot:weight_codes as w_
//#import slot:weight_lift as w_
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
const SPAN_WORDS: u32 = SPAN / 4u;
const SPAN_VECTORS: u32 = SPAN / 16u;
const TILE_SPANS: u32 = TILE_BLOCKS * SPANS;
// Rows that are brought, and how often all invocations bring one.
const ROWS: u32 = TILE_M + TILE_N;
const ROUNDS: u32 = (ROWS + WORKGROUP - 1u) / WORKGROUP;

var<workgroup> tile_x: array<array<vec4<u32>, BUFFERS * TILE_SPANS * THREADS_M>, SPAN_VECTORS * THREAD_M>;
var<workgroup> tile_w: array<array<vec4<u32>, BUFFERS * TILE_SPANS * THREADS_N>, SPAN_VECTORS * THREAD_N>;
// Of the rows of X, what a Span has.
var<workgroup> tile_start: array<array<array<i32, 4>, BUFFERS * TILE_SPANS * THREADS_M>, SETS_M>;
var<workgroup> tile_integers: array<array<array<i32, 4>, BUFFERS * TILE_SPANS * THREADS_M>, SETS_M>;
var<workgroup> tile_offset: array<array<array<i32, 4>, BUFFERS * TILE_SPANS * THREADS_M>, SETS_M>;
var<workgroup> tile_x_scale: array<array<array<f32, 4>, BUFFERS * TILE_SPANS * THREADS_M>, SETS_M>;
// Of the rows of W, their sums and what a scale has.
var<workgroup> tile_codes: array<array<array<i32, 4>, BUFFERS * TILE_SPANS * THREADS_N>, SETS_N>;
var<workgroup> tile_w_scale: array<array<array<f32, 4>, BUFFERS * TILE_SPANS * THREADS_N>, SETS_N>;
var<workgroup> tile_zero: array<array<array<i32, 4>, BUFFERS * TILE_SPANS * THREADS_N>, SETS_N>;
var<workgroup> tile_minimum: array<array<array<f32, 4>, BUFFERS * TILE_SPANS * THREADS_N>, SETS_N>;

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
    var sum_codes: array<i32, ROUNDS>;
    var sum_integers: array<i32, ROUNDS>;
    for (var first_block = tile.first_k / 32u; first_block < blocks; first_block += TILE_BLOCKS) {
        let buffer = TILE_SPANS * (first_block / TILE_BLOCKS % BUFFERS);
        //#unroll
        for (var i = 0u; i < ROUNDS; i++) {
            let item = local + WORKGROUP * i;
            if (item < TILE_M) {
                let row = gemm_activation_row(tile, first_m + item);
                let four = item / (4u * THREADS_M);
                let thread = (item / 4u) % THREADS_M;
                // Not unrolled: the body is large enough.
                for (var b = 0u; b < TILE_BLOCKS; b++) {
                    // Where the tile goes on past the last block, nothing is made of it.
                    let block = min(first_block + b, blocks - 1u);
                    let words = a_fmt_row(row, block);
                    //#unroll
                    for (var s = 0u; s < SPANS; s++) {
                        let cell = (buffer + SPANS * b + s) * THREADS_M + thread;
                        var codes = 0;
                        //#unroll
                        for (var h = 0u; h < SPAN_VECTORS; h++) {
                            var bytes = vec4<u32>();
                            //#unroll
                            for (var t = 0u; t < 4u; t++) {
                                bytes[t] = a_lift_bytes(a_fmt_bytes(words, SPAN_WORDS * s + 4u * h + t), 0);
                                codes += dot4I8Packed(bytes[t], BYTES_ONE);
                            }
                            tile_x[h * THREAD_M + 4u * four + item % 4u][cell] = bytes;
                        }
                        let first_k = 32u * block + SPAN * s;
                        var scale = a_scl_t(1.0, 0, 0.0);
                        if (A_GROUP != 0u || A_ZERO != 0u) {
                            scale = a_scl_load(row, gemm_column(first_k) / A_GROUP_LENGTH);
                        }
                        let span = integer_span(
                            codes, w_lift_start(codes), first_k, SPAN, params.activation.centre, scale.zero, scale.scale,
                        );
                        if (GROUPED && ACTIVATION_SUMS) {
                            tile_start[four][cell][item % 4u] = span.start;
                        }
                        if (GROUPED && (W_ZERO == 1u || W_ZERO == 2u)) {
                            tile_integers[four][cell][item % 4u] = span.integers;
                        }
                        if (GROUPED && A_ZERO != 0u) {
                            tile_offset[four][cell][item % 4u] = span.offset;
                        }
                        if (A_GROUP != 0u) {
                            tile_x_scale[four][cell][item % 4u] = span.scale;
                        }
                        if (!GROUPED && (b == 0u || first_block + b < blocks)) {
                            sum_codes[i] += codes;
                            sum_integers[i] += span.integers;
                        }
                    }
                }
            } else if (ROWS % WORKGROUP == 0u || item < ROWS) {
                let place = item - TILE_M;
                let row = gemm_weight_row(tile, first_n + place);
                let four = place / (4u * THREADS_N);
                let thread = (place / 4u) % THREADS_N;
                for (var b = 0u; b < TILE_BLOCKS; b++) {
                    let block = min(first_block + b, blocks - 1u);
                    let words = w_fmt_row(row, block);
                    //#unroll
                    for (var s = 0u; s < SPANS; s++) {
                        let cell = (buffer + SPANS * b + s) * THREADS_N + thread;
                        var scale = w_scl_t(1.0, 0, 0.0);
                        if (GROUPED) {
                            scale = w_scl_load(row, gemm_column(32u * block + SPAN * s) / W_GROUP_LENGTH);
                        }
                        var codes = 0;
                        //#unroll
                        for (var h = 0u; h < SPAN_VECTORS; h++) {
                            var bytes = vec4<u32>();
                            //#unroll
                            for (var t = 0u; t < 4u; t++) {
                                bytes[t] = w_lift_bytes(w_fmt_bytes(words, SPAN_WORDS * s + 4u * h + t), scale.zero);
                                if (WEIGHT_SUMS) {
                                    codes += w_lift_codes(bytes[t]);
                                }
                            }
                            tile_w[h * THREAD_N + 4u * four + place % 4u][cell] = bytes;
                        }
                        if (GROUPED) {
                            tile_w_scale[four][cell][place % 4u] = scale.scale;
                        }
                        if (GROUPED && W_ZERO == 1u) {
                            tile_zero[four][cell][place % 4u] = scale.zero;
                        }
                        if (GROUPED && W_ZERO == 2u) {
                            tile_minimum[four][cell][place % 4u] = scale.minimum;
                        }
                        if (GROUPED && WEIGHT_SUMS) {
                            tile_codes[four][cell][place % 4u] = codes;
                        }
                        if (!GROUPED && (b == 0u || first_block + b < blocks)) {
                            sum_codes[i] += codes;
                        }
                    }
                }
            }
        }
        workgroupBarrier();
        for (var s = 0u; s < min(TILE_SPANS, (blocks - first_block) * SPANS); s++) {
            let cell_m = (buffer + s) * THREADS_M + thread_m;
            let cell_n = (buffer + s) * THREADS_N + thread_n;
            var w = array<vec4<u32>, THREAD_N * SPAN_VECTORS>();
            var codes = array<i32, THREAD_N>();
            var scale = array<w_scl_t, THREAD_N>();
            //#unroll
            for (var n = 0u; n < THREAD_N; n++) {
                //#unroll
                for (var h = 0u; h < SPAN_VECTORS; h++) {
                    w[SPAN_VECTORS * n + h] = tile_w[h * THREAD_N + n][cell_n];
                }
                if (GROUPED) {
                    scale[n].scale = tile_w_scale[n / 4u][cell_n][n % 4u];
                }
                if (GROUPED && W_ZERO == 1u) {
                    scale[n].zero = tile_zero[n / 4u][cell_n][n % 4u];
                }
                if (GROUPED && W_ZERO == 2u) {
                    scale[n].minimum = tile_minimum[n / 4u][cell_n][n % 4u];
                }
                if (GROUPED && WEIGHT_SUMS) {
                    codes[n] = tile_codes[n / 4u][cell_n][n % 4u];
                }
            }
            //#unroll
            for (var m = 0u; m < THREAD_M; m++) {
                var span = Span(0, params.activation.multiplier * params.activation.centre + params.activation.offset, 1.0, 0);
                if (GROUPED && ACTIVATION_SUMS) {
                    span.start = tile_start[m / 4u][cell_m][m % 4u];
                }
                if (GROUPED && (W_ZERO == 1u || W_ZERO == 2u)) {
                    span.integers = tile_integers[m / 4u][cell_m][m % 4u];
                }
                if (GROUPED && A_ZERO != 0u) {
                    span.offset = tile_offset[m / 4u][cell_m][m % 4u];
                }
                if (A_GROUP != 0u) {
                    span.scale = tile_x_scale[m / 4u][cell_m][m % 4u];
                }
                var sum = array<i32, THREAD_N>();
                //#unroll
                for (var n = 0u; n < THREAD_N; n++) {
                    sum[n] = acc_start(acc[m * THREAD_N + n], span);
                }
                //#unroll
                for (var h = 0u; h < SPAN_VECTORS; h++) {
                    let x = tile_x[h * THREAD_M + m][cell_m];
                    //#unroll
                    for (var t = 0u; t < 4u; t++) {
                        //#unroll
                        for (var n = 0u; n < THREAD_N; n++) {
                            sum[n] += dot4I8Packed(x[t], w[SPAN_VECTORS * n + h][t]);
                        }
                    }
                }
                //#unroll
                for (var n = 0u; n < THREAD_N; n++) {
                    acc[m * THREAD_N + n] = acc_span(acc[m * THREAD_N + n], sum[n], codes[n], span, scale[n]);
                }
            }
        }
        if (BUFFERS == 1u) {
            workgroupBarrier();
        }
    }

    // Without groups, sums over all of K go where those of the first span lay, which nobody reads then.
    if (!GROUPED) {
        //#unroll
        for (var i = 0u; i < ROUNDS; i++) {
            let item = local + WORKGROUP * i;
            if (item < TILE_M) {
                tile_start[item / (4u * THREADS_M)][(item / 4u) % THREADS_M][item % 4u] = sum_codes[i];
                tile_integers[item / (4u * THREADS_M)][(item / 4u) % THREADS_M][item % 4u] = sum_integers[i];
            } else if (item < ROWS) {
                let place = item - TILE_M;
                tile_codes[place / (4u * THREADS_N)][(place / 4u) % THREADS_N][place % 4u] = sum_codes[i];
            }
        }
        workgroupBarrier();
    }
    //#unroll
    for (var m = 0u; m < THREAD_M; m++) {
        let row = first_m + 4u * (thread_m + THREADS_M * (m / 4u)) + m % 4u;
        let row_scale = a_scl_load(gemm_activation_row(tile, row), 0u);
        let offset = params.activation.multiplier * params.activation.centre + params.activation.offset
            - row_scale.zero;
        var row_codes = 0;
        var integers = 0;
        if (!GROUPED) {
            row_codes = tile_start[m / 4u][thread_m][m % 4u];
            integers = tile_integers[m / 4u][thread_m][m % 4u];
        }
        let total = integer_total(tile, integers, w_lift_start(row_codes), offset, row_scale.scale);
        //#unroll
        for (var n = 0u; n < THREAD_N; n += 2u) {
            let column = first_n + 4u * (thread_n + THREADS_N * (n / 4u)) + n % 4u;
            var pair = array<out_t, 2>();
            //#unroll
            for (var c = 0u; c < 2u; c++) {
                let scale = w_scl_load(gemm_weight_row(tile, column + c), 0u);
                var weight_codes = 0;
                if (!GROUPED) {
                    weight_codes = tile_codes[(n + c) / 4u][thread_n][(n + c) % 4u];
                }
                pair[c] = acc_finish(acc[m * THREAD_N + n + c], weight_codes, total, scale);
            }
            gemm_store_pair(tile, row, column, pair[0], pair[1]);
        }
    }
}
