// A few rows of X (TILE_M, 1 to 8) with all of W, packed codes by packed dot products. Teams as in gemv_fma.
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
//#import slot:reduce
//#import slot:team_sum
//#import slot:output

const TEAMS: u32 = WORKGROUP / LANES;
const SPANS: u32 = 32u / SPAN;
const SPAN_WORDS: u32 = SPAN / 4u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, input: red_input) {
    let tile = gemm_tile(group);
    if (tile.n >= params.tiles_n) {
        return;
    }
    let lane = red_lane(input);
    let first_m = tile.first_m;
    let first_n = (tile.n * TEAMS + red_team(input)) * TILE_N;

    var acc: array<acc_t, TILE_M * TILE_N>;
    var weight_codes: array<i32, TILE_N>;
    var sum_integers: array<i32, TILE_M>;
    var sum_codes: array<i32, TILE_M>;

    for (var block = lane; block < params.weight.blocks; block += LANES) {
        var x = array<u32, TILE_M * 8u>();
        //#unroll
        for (var m = 0u; m < TILE_M; m++) {
            let words = a_fmt_row(gemm_activation_row(tile, first_m + m), block);
            //#unroll
            for (var t = 0u; t < 8u; t++) {
                x[8u * m + t] = a_lift_bytes(a_fmt_bytes(words, t), 0);
            }
        }
        var span = array<Span, TILE_M * SPANS>();
        var scale = array<w_scl_quad_t, TILE_N / 4u * SPANS>();
        //#unroll
        for (var m = 0u; m < TILE_M; m++) {
            //#unroll
            for (var s = 0u; s < SPANS; s++) {
                let first_k = 32u * block + SPAN * s;
                var codes = 0;
                //#unroll
                for (var t = 0u; t < SPAN_WORDS; t++) {
                    codes += dot4I8Packed(x[8u * m + SPAN_WORDS * s + t], BYTES_ONE);
                }
                var scale = a_scl_t(1.0, 0, 0.0);
                if (A_GROUP != 0u || A_ZERO != 0u) {
                    scale = a_scl_load(gemm_activation_row(tile, first_m + m), gemm_column(first_k) / A_GROUP_LENGTH);
                }
                span[SPANS * m + s] = integer_span(
                    codes, w_lift_start(codes), first_k, SPAN, params.activation.centre, scale.zero, scale.scale,
                );
                sum_codes[m] += codes;
                sum_integers[m] += span[SPANS * m + s].integers;
            }
        }
        //#unroll
        for (var s = 0u; s < SPANS; s++) {
            if (GROUPED) {
                //#unroll
                for (var j = 0u; j < TILE_N / 4u; j++) {
                    scale[SPANS * j + s] = w_scl_load_quad(
                        gemm_weight_quad(tile, first_n + 4u * j),
                        gemm_column(32u * block + SPAN * s) / W_GROUP_LENGTH,
                    );
                }
            }
        }
        //#unroll
        for (var j = 0u; j < TILE_N; j++) {
            let words = w_fmt_row_of(gemm_weight_quad(tile, first_n + 4u * (j / 4u)), j % 4u, block);
            var w = array<u32, 8>();
            //#unroll
            for (var t = 0u; t < 8u; t++) {
                var choice = 0;
                if (W_ZERO == 3u) {
                    choice = w_scl_pick(scale[SPANS * (j / 4u) + t / SPAN_WORDS], j % 4u).zero;
                }
                w[t] = w_lift_bytes(w_fmt_bytes(words, t), choice);
            }
            //#unroll
            for (var s = 0u; s < SPANS; s++) {
                var codes = 0;
                if (WEIGHT_SUMS) {
                    //#unroll
                    for (var t = 0u; t < SPAN_WORDS; t++) {
                        codes += w_lift_codes(w[SPAN_WORDS * s + t]);
                    }
                    weight_codes[j] += codes;
                }
                //#unroll
                for (var m = 0u; m < TILE_M; m++) {
                    var sum = acc_start(acc[m * TILE_N + j], span[SPANS * m + s]);
                    //#unroll
                    for (var t = 0u; t < SPAN_WORDS; t++) {
                        sum += dot4I8Packed(x[8u * m + SPAN_WORDS * s + t], w[SPAN_WORDS * s + t]);
                    }
                    acc[m * TILE_N + j] = acc_span(
                        acc[m * TILE_N + j], sum, codes, span[SPANS * m + s],
                        w_scl_pick(scale[SPANS * (j / 4u) + s], j % 4u),
                    );
                }
            }
        }
    }

    if (!GROUPED) {
        //#unroll
        for (var m = 0u; m < TILE_M; m++) {
            sum_integers[m] = red_i32(sum_integers[m], input);
            if (W_BITS == 8u) {
                sum_codes[m] = red_i32(sum_codes[m], input);
            }
        }
    }
    if (!GROUPED && WEIGHT_SUMS) {
        //#unroll
        for (var j = 0u; j < TILE_N; j++) {
            weight_codes[j] = red_i32(weight_codes[j], input);
        }
    }
    //#unroll
    for (var m = 0u; m < TILE_M; m++) {
        let row_scale = a_scl_load(gemm_activation_row(tile, first_m + m), 0u);
        let offset = params.activation.multiplier * params.activation.centre + params.activation.offset
            - row_scale.zero;
        let total = integer_total(tile, sum_integers[m], w_lift_start(sum_codes[m]), offset, row_scale.scale);
        //#unroll
        for (var j = 0u; j < TILE_N; j += 2u) {
            var sum = array<acc_t, 2>();
            //#unroll
            for (var c = 0u; c < 2u; c++) {
                sum[c] = team_sum(acc[m * TILE_N + j + c], input);
            }
            if (lane == (m * TILE_N + j) / 2u % LANES) {
                var pair = array<out_t, 2>();
                //#unroll
                for (var c = 0u; c < 2u; c++) {
                    let scale = w_scl_load(gemm_weight_row(tile, first_n + j + c), 0u);
                    pair[c] = acc_finish(sum[c], weight_codes[j + c], total, scale);
                }
                gemm_store_pair(tile, first_m + m, first_n + j, pair[0], pair[1]);
            }
        }
    }
}
