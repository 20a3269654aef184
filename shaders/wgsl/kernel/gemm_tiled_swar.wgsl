// GEMM of packed integer codes by ordinary multiplies, as exact as integers are; tiled in workgroup memory. Needs no optional
// feature.
//
// As gemm_tiled_dot4, but a word of the tile of X holds a code of WORD_ROWS rows of X, one or two (multiply/): of two, those
// that are neighbours. The tile of W holds bytes, which an invocation unpacks once for all of its rows of X: a quarter of the
// memory, and of the loads. So that few unpacked codes are open at once, it goes along K, four codes at a time, for all of its
// outputs.
//
// Reads SUM_TERMS: products that are summed in a word before the sums are parted, a power of two from 4 up to SPAN. The
// planner refuses codes of which fewer fit.
//#import core/gemm
//#import core/integer
//#import core/swar
//#import slot:activation_codes as a_
//#import slot:activation_scale as a_
//#import slot:weight_codes as w_
//#import slot:weight_scale as w_
//#import slot:multiply
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
const STEP_WORDS: u32 = SUM_TERMS / 4u;
const STEPS: u32 = SPAN_WORDS / STEP_WORDS;
// Words that hold a code of each row of X: of the tile, of four rows, of an invocation.
const TILE_WORDS: u32 = TILE_M / WORD_ROWS;
const FOUR_WORDS: u32 = 4u / WORD_ROWS;
const THREAD_WORDS: u32 = THREAD_M / WORD_ROWS;
// What is brought, words of X or rows of W, and how often all invocations bring one.
const ITEMS: u32 = TILE_WORDS + TILE_N;
const ROUNDS: u32 = (ITEMS + WORKGROUP - 1u) / WORKGROUP;

// Of X, four codes of the rows of a word; of W, 16 of a row.
var<workgroup> tile_x: array<array<mul_t, TILE_SPANS * THREADS_M>, SPAN_WORDS * THREAD_WORDS>;
var<workgroup> tile_w: array<array<vec4<u32>, TILE_SPANS * THREADS_N>, SPAN_VECTORS * THREAD_N>;
// Of the rows of X, what a Span has.
var<workgroup> tile_start: array<array<array<i32, 4>, TILE_SPANS * THREADS_M>, SETS_M>;
var<workgroup> tile_integers: array<array<array<i32, 4>, TILE_SPANS * THREADS_M>, SETS_M>;
var<workgroup> tile_offset: array<array<array<i32, 4>, TILE_SPANS * THREADS_M>, SETS_M>;
var<workgroup> tile_x_scale: array<array<array<f32, 4>, TILE_SPANS * THREADS_M>, SETS_M>;
// Of the rows of W, their sums and what a scale has.
var<workgroup> tile_codes: array<array<array<i32, 4>, TILE_SPANS * THREADS_N>, SETS_N>;
var<workgroup> tile_w_scale: array<array<array<f32, 4>, TILE_SPANS * THREADS_N>, SETS_N>;
var<workgroup> tile_zero: array<array<array<i32, 4>, TILE_SPANS * THREADS_N>, SETS_N>;
var<workgroup> tile_minimum: array<array<array<f32, 4>, TILE_SPANS * THREADS_N>, SETS_N>;

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
    // Of the rows that the invocation brings in each round: integers of X, codes of W.
    var sum_integers: array<i32, ROUNDS * WORD_ROWS>;
    var sum_codes: array<i32, ROUNDS>;
    for (var first_block = tile.first_k / 32u; first_block < blocks; first_block += TILE_BLOCKS) {
        //#unroll
        for (var i = 0u; i < ROUNDS; i++) {
            let item = local + WORKGROUP * i;
            if (item < TILE_WORDS) {
                let first_row = WORD_ROWS * item;
                let four = first_row / (4u * THREADS_M);
                let thread = (first_row / 4u) % THREADS_M;
                let word = FOUR_WORDS * four + item % FOUR_WORDS;
                var row = array<u32, WORD_ROWS>();
                //#unroll
                for (var h = 0u; h < WORD_ROWS; h++) {
                    row[h] = gemm_activation_row(tile, first_m + first_row + h);
                }
                // Not unrolled: the body is large enough.
                for (var b = 0u; b < TILE_BLOCKS; b++) {
                    // Where the tile goes on past the last block, nothing is made of it.
                    let block = min(first_block + b, blocks - 1u);
                    var words = array<a_fmt_row_t, WORD_ROWS>();
                    //#unroll
                    for (var h = 0u; h < WORD_ROWS; h++) {
                        words[h] = a_fmt_row(row[h], block);
                    }
                    //#unroll
                    for (var s = 0u; s < SPANS; s++) {
                        let cell = (SPANS * b + s) * THREADS_M + thread;
                        var halves = array<u32, WORD_ROWS>();
                        //#unroll
                        for (var t = 0u; t < SPAN_WORDS; t++) {
                            var bytes = vec2<u32>();
                            //#unroll
                            for (var h = 0u; h < WORD_ROWS; h++) {
                                bytes[h] = a_fmt_bytes(words[h], SPAN_WORDS * s + t);
                                halves[h] += swar_halves(bytes[h]);
                            }
                            tile_x[t * THREAD_WORDS + word][cell] = mul_activation(bytes);
                        }
                        let first_k = 32u * block + SPAN * s;
                        //#unroll
                        for (var h = 0u; h < WORD_ROWS; h++) {
                            var scale = a_scl_t(1.0, 0, 0.0);
                            if (A_GROUP != 0u || A_ZERO != 0u) {
                                scale = a_scl_load(row[h], gemm_column(first_k) / A_GROUP_LENGTH);
                            }
                            let span = integer_span(
                                swar_codes(halves[h]), 0, first_k, SPAN, 0, scale.zero, scale.scale,
                            );
                            let place = (first_row + h) % 4u;
                            if (GROUPED && ACTIVATION_SUMS) {
                                tile_start[four][cell][place] = span.start;
                            }
                            if (GROUPED && (W_ZERO == 1u || W_ZERO == 2u)) {
                                tile_integers[four][cell][place] = span.integers;
                            }
                            if (GROUPED && A_ZERO != 0u) {
                                tile_offset[four][cell][place] = span.offset;
                            }
                            if (A_GROUP != 0u) {
                                tile_x_scale[four][cell][place] = span.scale;
                            }
                            if (!GROUPED && (b == 0u || first_block + b < blocks)) {
                                sum_integers[WORD_ROWS * i + h] += span.integers;
                            }
                        }
                    }
                }
            } else if (ITEMS % WORKGROUP == 0u || item < ITEMS) {
                let place = item - TILE_WORDS;
                let row = gemm_weight_row(tile, first_n + place);
                let four = place / (4u * THREADS_N);
                let thread = (place / 4u) % THREADS_N;
                for (var b = 0u; b < TILE_BLOCKS; b++) {
                    let block = min(first_block + b, blocks - 1u);
                    let words = w_fmt_row(row, block);
                    //#unroll
                    for (var s = 0u; s < SPANS; s++) {
                        let cell = (SPANS * b + s) * THREADS_N + thread;
                        var halves = 0u;
                        //#unroll
                        for (var h = 0u; h < SPAN_VECTORS; h++) {
                            var bytes = vec4<u32>();
                            //#unroll
                            for (var t = 0u; t < 4u; t++) {
                                bytes[t] = w_fmt_bytes(words, SPAN_WORDS * s + 4u * h + t);
                                if (WEIGHT_SUMS) {
                                    halves += swar_halves(bytes[t]);
                                }
                            }
                            tile_w[h * THREAD_N + 4u * four + place % 4u][cell] = bytes;
                        }
                        let codes = swar_codes(halves);
                        if (GROUPED) {
                            let scale = w_scl_load(row, gemm_column(32u * block + SPAN * s) / W_GROUP_LENGTH);
                            tile_w_scale[four][cell][place % 4u] = scale.scale;
                            if (W_ZERO == 1u) {
                                tile_zero[four][cell][place % 4u] = scale.zero;
                            }
                            if (W_ZERO == 2u) {
                                tile_minimum[four][cell][place % 4u] = scale.minimum;
                            }
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
            let cell_m = s * THREADS_M + thread_m;
            let cell_n = s * THREADS_N + thread_n;
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
            var span = array<Span, THREAD_M>();
            var sum = array<i32, THREAD_M * THREAD_N>();
            //#unroll
            for (var m = 0u; m < THREAD_M; m++) {
                span[m] = Span(0, params.activation.offset, 1.0, 0);
                if (GROUPED && ACTIVATION_SUMS) {
                    span[m].start = tile_start[m / 4u][cell_m][m % 4u];
                }
                if (GROUPED && (W_ZERO == 1u || W_ZERO == 2u)) {
                    span[m].integers = tile_integers[m / 4u][cell_m][m % 4u];
                }
                if (GROUPED && A_ZERO != 0u) {
                    span[m].offset = tile_offset[m / 4u][cell_m][m % 4u];
                }
                if (A_GROUP != 0u) {
                    span[m].scale = tile_x_scale[m / 4u][cell_m][m % 4u];
                }
                //#unroll
                for (var n = 0u; n < THREAD_N; n++) {
                    sum[m * THREAD_N + n] = acc_start(acc[m * THREAD_N + n], span[m]);
                }
            }
            //#unroll
            for (var e = 0u; e < STEPS; e++) {
                var products = array<mul_sum_t, THREAD_WORDS * THREAD_N>();
                //#unroll
                for (var t = STEP_WORDS * e; t < STEP_WORDS * (e + 1u); t++) {
                    var y = array<mul_t, THREAD_N>();
                    //#unroll
                    for (var n = 0u; n < THREAD_N; n++) {
                        y[n] = mul_weight(w[SPAN_VECTORS * n + t / 4u][t % 4u]);
                    }
                    //#unroll
                    for (var p = 0u; p < THREAD_WORDS; p++) {
                        let x = tile_x[t * THREAD_WORDS + p][cell_m];
                        //#unroll
                        for (var c = 0u; c < 4u; c++) {
                            //#unroll
                            for (var n = 0u; n < THREAD_N; n++) {
                                products[p * THREAD_N + n] += x[c] * y[n][c];
                            }
                        }
                    }
                }
                //#unroll
                for (var p = 0u; p < THREAD_WORDS; p++) {
                    //#unroll
                    for (var n = 0u; n < THREAD_N; n++) {
                        let parts = mul_part(products[p * THREAD_N + n]);
                        //#unroll
                        for (var h = 0u; h < WORD_ROWS; h++) {
                            sum[(WORD_ROWS * p + h) * THREAD_N + n] += parts[h];
                        }
                    }
                }
            }
            //#unroll
            for (var m = 0u; m < THREAD_M; m++) {
                //#unroll
                for (var n = 0u; n < THREAD_N; n++) {
                    let at = m * THREAD_N + n;
                    acc[at] = acc_span(acc[at], sum[at], codes[n], span[m], scale[n]);
                }
            }
        }
        workgroupBarrier();
    }

    // Without groups, sums over all of K go where those of the first span lay.
    if (!GROUPED) {
        //#unroll
        for (var i = 0u; i < ROUNDS; i++) {
            let item = local + WORKGROUP * i;
            if (item < TILE_WORDS) {
                //#unroll
                for (var h = 0u; h < WORD_ROWS; h++) {
                    let row = WORD_ROWS * item + h;
                    tile_integers[row / (4u * THREADS_M)][(row / 4u) % THREADS_M][row % 4u] = sum_integers[WORD_ROWS * i + h];
                }
            } else if (item < ITEMS) {
                let place = item - TILE_WORDS;
                tile_codes[place / (4u * THREADS_N)][(place / 4u) % THREADS_N][place % 4u] = sum_codes[i];
            }
        }
        workgroupBarrier();
    }
    //#unroll
    for (var m = 0u; m < THREAD_M; m++) {
        let row = first_m + 4u * (thread_m + THREADS_M * (m / 4u)) + m % 4u;
        let row_scale = a_scl_load(gemm_activation_row(tile, row), 0u);
        let offset = params.activation.offset - row_scale.zero;
        var integers = 0;
        if (!GROUPED) {
            integers = tile_integers[m / 4u][thread_m][m % 4u];
        }
        let total = integer_total(tile, integers, 0, offset, row_scale.scale);
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
