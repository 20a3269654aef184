// GEMM of packed integer codes by two products a 32-bit multiply; activations broadcast across the subgroup.
//
// As gemm_subgroup_dot4, but lanes 0 .. 7 of a subgroup each bring two rows of X, r and r + 8 of every 16, as words of
// two codes (core/swar), and a broadcast word serves both. An invocation unpacks the codes of its TILE_N rows of W once
// for all rows of X.
//
// Reads SWAR_STEP: products that are summed in 16 bits before the sums are parted, a power of two from 4 up to SPAN. The
// planner refuses codes of which fewer fit.
//#import core/gemm
//#import core/integer
//#import core/swar
//#import slot:activation_codes as a_
//#import slot:activation_scale as a_
//#import slot:weight_codes as w_
//#import slot:weight_scale as w_
//#import slot:accumulate
//#import slot:output

const ROW_SETS: u32 = TILE_M / 16u;
const SPANS: u32 = 32u / SPAN;
const SPAN_WORDS: u32 = SPAN / 4u;
const STEP_WORDS: u32 = SWAR_STEP / 4u;
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
    var sum_integers: array<i32, ROW_SETS * 2u>;

    for (var block = tile.first_k / 32u; block < tile.end_block; block++) {
        var x: array<vec4<u32>, ROW_SETS * 8u>;
        //#unroll
        for (var i = 0u; i < ROW_SETS; i++) {
            let low = a_fmt_row(gemm_activation_row(tile, first_m + 16u * i + lane % 8u), block);
            let high = a_fmt_row(gemm_activation_row(tile, first_m + 16u * i + 8u + lane % 8u), block);
            //#unroll
            for (var t = 0u; t < 8u; t++) {
                x[8u * i + t] = swar_pair(a_fmt_bytes(low, t), a_fmt_bytes(high, t));
            }
        }
        var w: array<vec4<u32>, TILE_N * 8u>;
        var halves: array<u32, TILE_N * SPANS>;
        //#unroll
        for (var j = 0u; j < TILE_N; j++) {
            let words = w_fmt_row_of(gemm_weight_quad(tile, first_n + 4u * (j / 4u)), j % 4u, block);
            //#unroll
            for (var t = 0u; t < 8u; t++) {
                let bytes = w_fmt_bytes(words, t);
                w[8u * j + t] = bytes_unpack(bytes);
                if (WEIGHT_SUMS) {
                    halves[SPANS * j + t / SPAN_WORDS] += swar_halves(bytes);
                }
            }
        }
        //#unroll
        for (var s = 0u; s < SPANS; s++) {
            let first_k = 32u * block + SPAN * s;
            var codes: array<i32, TILE_N>;
            var scale: array<w_scl_quad_t, TILE_N / 4u>;
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
                    let both = halves[SPANS * j + s];
                    codes[j] = i32((both & 0xffffu) + (both >> 16u));
                    weight_codes[j] += codes[j];
                }
            }
            //#unroll
            for (var i = 0u; i < ROW_SETS; i++) {
                var lane_codes: vec4<u32>;
                //#unroll
                for (var t = 0u; t < SPAN_WORDS; t++) {
                    lane_codes += x[8u * i + SPAN_WORDS * s + t];
                }
                let both = lane_codes.x + lane_codes.y + lane_codes.z + lane_codes.w;
                var mine: array<Span, 2>;
                //#unroll
                for (var h = 0u; h < 2u; h++) {
                    var lane_scale = a_scl_t(1.0, 0, 0.0);
                    if (A_GROUP != 0u || A_ZERO != 0u) {
                        lane_scale = a_scl_load(
                            gemm_activation_row(tile, first_m + 16u * i + 8u * h + lane % 8u),
                            gemm_column(first_k) / A_GROUP_LENGTH,
                        );
                    }
                    mine[h] = integer_span(
                        i32((both >> (16u * h)) & 0xffffu), 0, first_k, SPAN, 0, lane_scale.zero, lane_scale.scale,
                    );
                    sum_integers[2u * i + h] += mine[h].integers;
                }
                //#unroll
                for (var r = 0u; r < 8u; r++) {
                    var y: array<vec4<u32>, SPAN_WORDS>;
                    //#unroll
                    for (var t = 0u; t < SPAN_WORDS; t++) {
                        y[t] = subgroupBroadcast(x[8u * i + SPAN_WORDS * s + t], r);
                    }
                    var span: array<Span, 2>;
                    //#unroll
                    for (var h = 0u; h < 2u; h++) {
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
                    var sum: array<i32, 2u * TILE_N>;
                    //#unroll
                    for (var j = 0u; j < TILE_N; j++) {
                        //#unroll
                        for (var h = 0u; h < 2u; h++) {
                            sum[2u * j + h] = acc_start(acc[(16u * i + 8u * h + r) * TILE_N + j], span[h]);
                        }
                    }
                    //#unroll
                    for (var e = 0u; e < STEPS; e++) {
                        // Words of X stay where they are while all rows of W go by.
                        var products: array<u32, TILE_N>;
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
                            sum[2u * j] += i32(products[j] & 0xffffu);
                            sum[2u * j + 1u] += i32(products[j] >> 16u);
                        }
                    }
                    //#unroll
                    for (var j = 0u; j < TILE_N; j++) {
                        //#unroll
                        for (var h = 0u; h < 2u; h++) {
                            let at = (16u * i + 8u * h + r) * TILE_N + j;
                            acc[at] = acc_span(acc[at], sum[2u * j + h], codes[j], span[h], w_scl_pick(scale[j / 4u], j % 4u));
                        }
                    }
                }
            }
        }
    }

    //#unroll
    for (var i = 0u; i < 2u * ROW_SETS; i++) {
        let lane_scale = a_scl_load(gemm_activation_row(tile, first_m + 8u * i + lane % 8u), 0u);
        let offset = params.activation.offset - lane_scale.zero;
        //#unroll
        for (var r = 0u; r < 8u; r++) {
            let span = integer_total(
                tile,
                subgroupBroadcast(sum_integers[i], r),
                0,
                subgroupBroadcast(offset, r),
                subgroupBroadcast(lane_scale.scale, r),
            );
            //#unroll
            for (var j = 0u; j < TILE_N; j += 2u) {
                var pair: array<out_t, 2>;
                //#unroll
                for (var c = 0u; c < 2u; c++) {
                    let scale = w_scl_load(gemm_weight_row(tile, first_n + j + c), 0u);
                    pair[c] = acc_finish(acc[(8u * i + r) * TILE_N + j + c], weight_codes[j + c], span, scale);
                }
                gemm_store_pair(tile, first_m + 8u * i + r, first_n + j, pair[0], pair[1]);
            }
        }
    }
}
