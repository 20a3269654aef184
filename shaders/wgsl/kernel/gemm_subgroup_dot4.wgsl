// GEMM of packed codes by packed dot products; activations broadcast across the subgroup, nothing in workgroup memory.
//
// An invocation owns TILE_N rows of W and all TILE_M rows of X. The first FEED_LANES lanes of a subgroup, 4 or 8, each bring
// the same 32 codes of another row of X, so one load serves as many rows, and subgroupBroadcast hands each word to all lanes.
// Works for any subgroup of so many lanes or more and any mapping of lanes to invocations: further lanes repeat the loads of
// lane % FEED_LANES.
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

const ROW_SETS: u32 = TILE_M / FEED_LANES;
const SPANS: u32 = 32u / SPAN;
const SPAN_WORDS: u32 = SPAN / 4u;

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
    var sum_integers: array<i32, ROW_SETS>;
    var sum_codes: array<i32, ROW_SETS>;

    for (var block = tile.first_k / 32u; block < tile.end_block; block++) {
        var x = array<u32, ROW_SETS * 8u>();
        //#unroll
        for (var i = 0u; i < ROW_SETS; i++) {
            let row = gemm_activation_row(tile, first_m + FEED_LANES * i + lane % FEED_LANES);
            let words = a_fmt_row(row, block);
            //#unroll
            for (var t = 0u; t < 8u; t++) {
                x[8u * i + t] = a_lift_bytes(a_fmt_bytes(words, t), 0);
            }
        }
        var w = array<u32, TILE_N * 8u>();
        //#unroll
        for (var j = 0u; j < TILE_N; j++) {
            let row = gemm_weight_row(tile, first_n + j);
            let words = w_fmt_row_of(gemm_weight_quad(tile, first_n + 4u * (j / 4u)), j % 4u, block);
            //#unroll
            for (var s = 0u; s < SPANS; s++) {
                var choice = 0;
                if (W_ZERO == 3u) {
                    choice = w_scl_load(row, gemm_column(32u * block + SPAN * s) / W_GROUP_LENGTH).zero;
                }
                //#unroll
                for (var t = 0u; t < SPAN_WORDS; t++) {
                    w[8u * j + SPAN_WORDS * s + t] = w_lift_bytes(w_fmt_bytes(words, SPAN_WORDS * s + t), choice);
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
                    //#unroll
                    for (var t = 0u; t < SPAN_WORDS; t++) {
                        codes[j] += w_lift_codes(w[8u * j + SPAN_WORDS * s + t]);
                    }
                    weight_codes[j] += codes[j];
                }
            }
            //#unroll
            for (var i = 0u; i < ROW_SETS; i++) {
                var lane_codes = 0;
                //#unroll
                for (var t = 0u; t < SPAN_WORDS; t++) {
                    lane_codes += dot4I8Packed(x[8u * i + SPAN_WORDS * s + t], BYTES_ONE);
                }
                var lane_scale = a_scl_t(1.0, 0, 0.0);
                if (A_GROUP != 0u || A_ZERO != 0u) {
                    lane_scale = a_scl_load(
                        gemm_activation_row(tile, first_m + FEED_LANES * i + lane % FEED_LANES),
                        gemm_column(first_k) / A_GROUP_LENGTH,
                    );
                }
                let mine = integer_span(
                    lane_codes, w_lift_start(lane_codes), first_k, SPAN, params.activation.centre, lane_scale.zero, lane_scale.scale,
                );
                sum_integers[i] += mine.integers;
                sum_codes[i] += lane_codes;
                //#unroll
                for (var r = 0u; r < FEED_LANES; r++) {
                    var span = mine;
                    if (GROUPED && ACTIVATION_SUMS) {
                        span.start = subgroupBroadcast(mine.start, r);
                    }
                    if (GROUPED && (W_ZERO == 1u || W_ZERO == 2u)) {
                        span.integers = subgroupBroadcast(mine.integers, r);
                    }
                    if (GROUPED && A_ZERO != 0u) {
                        span.offset = subgroupBroadcast(mine.offset, r);
                    }
                    if (A_GROUP != 0u) {
                        span.scale = subgroupBroadcast(mine.scale, r);
                    }
                    var y = array<u32, SPAN_WORDS>();
                    //#unroll
                    for (var t = 0u; t < SPAN_WORDS; t++) {
                        y[t] = subgroupBroadcast(x[8u * i + SPAN_WORDS * s + t], r);
                    }
                    //#unroll
                    for (var j = 0u; j < TILE_N; j++) {
                        var sum = acc_start(acc[(FEED_LANES * i + r) * TILE_N + j], span);
                        //#unroll
                        for (var t = 0u; t < SPAN_WORDS; t++) {
                            sum += dot4I8Packed(y[t], w[8u * j + SPAN_WORDS * s + t]);
                        }
                        acc[(FEED_LANES * i + r) * TILE_N + j] = acc_span(
                            acc[(FEED_LANES * i + r) * TILE_N + j], sum, codes[j], span, w_scl_pick(scale[j / 4u], j % 4u),
                        );
                    }
                }
            }
        }
    }

    //#unroll
    for (var i = 0u; i < ROW_SETS; i++) {
        let lane_scale = a_scl_load(gemm_activation_row(tile, first_m + FEED_LANES * i + lane % FEED_LANES), 0u);
        let offset = params.activation.multiplier * params.activation.centre + params.activation.offset
            - lane_scale.zero;
        //#unroll
        for (var r = 0u; r < FEED_LANES; r++) {
            let span = integer_total(
                tile,
                subgroupBroadcast(sum_integers[i], r),
                w_lift_start(subgroupBroadcast(sum_codes[i], r)),
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
