// GEMM of packed integer codes by ordinary multiplies, as exact as integers are; activations broadcast across the subgroup.
//
// As gemm_subgroup_dot4, but the FEED_LANES lanes each bring WORD_ROWS rows of X that are FEED_LANES apart, as words of a code
// of each (multiply/), and a broadcast word serves both. An invocation unpacks the codes of its TILE_N rows of W once for all
// rows of X.
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

// Rows of X that the lanes bring together.
const SET_ROWS: u32 = FEED_LANES * WORD_ROWS;
const ROW_SETS: u32 = TILE_M / SET_ROWS;
const SPANS: u32 = 32u / SPAN;
const SPAN_WORDS: u32 = SPAN / 4u;
const STEP_WORDS: u32 = SUM_TERMS / 4u;
const STEPS: u32 = SPAN_WORDS / STEP_WORDS;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let tile = gemm_tile(group);
    if (tile.n >= params.tiles_n) {
        return;
    }
    let first_m = tile.first_m;
    let first_n = (tile.n * WORKGROUP + local) * TILE_N;

    var acc: array<acc_t, TILE_M * TILE_N>;
    var weight_codes: array<i32, TILE_N>;
    var sum_integers: array<i32, ROW_SETS * WORD_ROWS>;

    for (var block = tile.first_k / 32u; block < tile.end_block; block++) {
        var x = array<mul_t, ROW_SETS * 8u>();
        var row_halves = array<u32, ROW_SETS * WORD_ROWS * SPANS>();
        //#unroll
        for (var i = 0u; i < ROW_SETS; i++) {
            var words = array<a_fmt_row_t, WORD_ROWS>();
            //#unroll
            for (var h = 0u; h < WORD_ROWS; h++) {
                let row = gemm_activation_row(tile, first_m + SET_ROWS * i + FEED_LANES * h + lane % FEED_LANES);
                words[h] = a_fmt_row(row, block);
            }
            //#unroll
            for (var t = 0u; t < 8u; t++) {
                var bytes = vec2<u32>();
                //#unroll
                for (var h = 0u; h < WORD_ROWS; h++) {
                    bytes[h] = a_fmt_bytes(words[h], t);
                    row_halves[SPANS * (WORD_ROWS * i + h) + t / SPAN_WORDS] += swar_halves(bytes[h]);
                }
                x[8u * i + t] = mul_activation(bytes);
            }
        }
        var w = array<mul_t, TILE_N * 8u>();
        var halves = array<u32, TILE_N * SPANS>();
        //#unroll
        for (var j = 0u; j < TILE_N; j++) {
            let words = w_fmt_row_of(gemm_weight_quad(tile, first_n + 4u * (j / 4u)), j % 4u, block);
            //#unroll
            for (var t = 0u; t < 8u; t++) {
                let bytes = w_fmt_bytes(words, t);
                w[8u * j + t] = mul_weight(bytes);
                if (WEIGHT_SUMS) {
                    halves[SPANS * j + t / SPAN_WORDS] += swar_halves(bytes);
                }
            }
        }
        //#unroll
        for (var s = 0u; s < SPANS; s++) {
            let first_k = 32u * block + SPAN * s;
            var codes = array<i32, TILE_N>();
            var scale = array<w_scl_quad_t, TILE_N / 4u>();
            if (GROUPED) {
                //#unroll
                for (var j = 0u; j < TILE_N / 4u; j++) {
                    scale[j] = w_scl_load_quad(
                        gemm_weight_quad(tile, first_n + 4u * j), gemm_column(first_k) / W_GROUP_LENGTH,
                    );
                }
            }
            //#unroll
            for (var j = 0u; j < TILE_N; j++) {
                if (WEIGHT_SUMS) {
                    codes[j] = swar_codes(halves[SPANS * j + s]);
                    weight_codes[j] += codes[j];
                }
            }
            //#unroll
            for (var i = 0u; i < ROW_SETS; i++) {
                var mine = array<Span, WORD_ROWS>();
                //#unroll
                for (var h = 0u; h < WORD_ROWS; h++) {
                    var lane_scale = a_scl_t(1.0, 0, 0.0);
                    if (A_GROUP != 0u || A_ZERO != 0u) {
                        lane_scale = a_scl_load(
                            gemm_activation_row(tile, first_m + SET_ROWS * i + FEED_LANES * h + lane % FEED_LANES),
                            gemm_column(first_k) / A_GROUP_LENGTH,
                        );
                    }
                    mine[h] = integer_span(
                        swar_codes(row_halves[SPANS * (WORD_ROWS * i + h) + s]),
                        0, first_k, SPAN, 0, lane_scale.zero, lane_scale.scale,
                    );
                    sum_integers[WORD_ROWS * i + h] += mine[h].integers;
                }
                //#unroll
                for (var r = 0u; r < FEED_LANES; r++) {
                    var y = array<mul_t, SPAN_WORDS>();
                    //#unroll
                    for (var t = 0u; t < SPAN_WORDS; t++) {
                        y[t] = subgroupBroadcast(x[8u * i + SPAN_WORDS * s + t], r);
                    }
                    var span = array<Span, WORD_ROWS>();
                    //#unroll
                    for (var h = 0u; h < WORD_ROWS; h++) {
                        span[h] = mine[h];
                        if (GROUPED && ACTIVATION_SUMS) {
                            span[h].start = subgroupBroadcast(mine[h].start, r);
                        }
                        if (GROUPED && (W_ZERO == 1u || W_ZERO == 2u)) {
                            span[h].integers = subgroupBroadcast(mine[h].integers, r);
                        }
                        if (GROUPED && A_ZERO != 0u) {
                            span[h].offset = subgroupBroadcast(mine[h].offset, r);
                        }
                        if (A_GROUP != 0u) {
                            span[h].scale = subgroupBroadcast(mine[h].scale, r);
                        }
                    }
                    var sum = array<i32, WORD_ROWS * TILE_N>();
                    //#unroll
                    for (var j = 0u; j < TILE_N; j++) {
                        //#unroll
                        for (var h = 0u; h < WORD_ROWS; h++) {
                            let at = (SET_ROWS * i + FEED_LANES * h + r) * TILE_N + j;
                            sum[WORD_ROWS * j + h] = acc_start(acc[at], span[h]);
                        }
                    }
                    //#unroll
                    for (var e = 0u; e < STEPS; e++) {
                        // Words of X stay where they are while all rows of W go by.
                        var products = array<mul_sum_t, TILE_N>();
                        //#unroll
                        for (var t = 0u; t < STEP_WORDS; t++) {
                            //#unroll
                            for (var c = 0u; c < 4u; c++) {
                                //#unroll
                                for (var j = 0u; j < TILE_N; j++) {
                                    products[j] += y[STEP_WORDS * e + t][c] * w[8u * j + SPAN_WORDS * s + STEP_WORDS * e + t][c];
                                }
                            }
                        }
                        //#unroll
                        for (var j = 0u; j < TILE_N; j++) {
                            let parts = mul_part(products[j]);
                            //#unroll
                            for (var h = 0u; h < WORD_ROWS; h++) {
                                sum[WORD_ROWS * j + h] += parts[h];
                            }
                        }
                    }
                    //#unroll
                    for (var j = 0u; j < TILE_N; j++) {
                        //#unroll
                        for (var h = 0u; h < WORD_ROWS; h++) {
                            let at = (SET_ROWS * i + FEED_LANES * h + r) * TILE_N + j;
                            acc[at] = acc_span(acc[at], sum[WORD_ROWS * j + h], codes[j], span[h], w_scl_pick(scale[j / 4u], j % 4u));
                        }
                    }
                }
            }
        }
    }

    //#unroll
    for (var i = 0u; i < WORD_ROWS * ROW_SETS; i++) {
        let lane_scale = a_scl_load(gemm_activation_row(tile, first_m + FEED_LANES * i + lane % FEED_LANES), 0u);
        let offset = params.activation.offset - lane_scale.zero;
        //#unroll
        for (var r = 0u; r < FEED_LANES; r++) {
            let span = integer_total(
                tile,
                subgroupBroadcast(sum_integers[i], r),
                0,
                subgroupBroadcast(offset, r),
                subgroupBroadcast(lane_scale.scale, r),
            );
            //#unroll
            for (var j = 0u; j < TILE_N; j += 2u) {
                var pair = array<out_t, 2>();
                //#unroll
                for (var c = 0u; c < 2u; c++) {
                    let scale = w_scl_load(gemm_weight_row(tile, first_n + j + c), 0u);
                    pair[c] = acc_finish(acc[(FEED_LANES * i + r) * TILE_N + j + c], weight_codes[j + c], span, scale);
                }
                gemm_store_pair(tile, first_m + FEED_LANES * i + r, first_n + j, pair[0], pair[1]);
            }
        }
    }
}
