// A few rows of X (TILE_M, 1 to 8) with all of W, bit planes. Teams as in gemv_fma; W's rows alternate in fours.
//#import core/gemm
//#import core/integer
//#import core/bitplane
//#import slot:activation_codes as a_
//#import slot:activation_scale as a_
//#import slot:weight_scale as w_
//#import slot:accumulate
//#import slot:reduce
//#import slot:team_sum
//#import slot:output

const TEAMS: u32 = WORKGROUP / LANES;
const SETS_N: u32 = TILE_N / 4u;
const SPANS: u32 = 32u / SPAN;
const POWERS: u32 = A_BITS + W_BITS - 1u;

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

    for (var block = lane; block < params.weight.blocks; block += LANES) {
        var x = array<u32, TILE_M * A_BITS>();
        var span = array<Span, TILE_M * SPANS>();
        //#unroll
        for (var m = 0u; m < TILE_M; m++) {
            let row = gemm_activation_row(tile, first_m + m);
            //#unroll
            for (var plane = 0u; plane < A_BITS; plane++) {
                x[A_BITS * m + plane] = a_fmt_plane(plane, row, block);
            }
            //#unroll
            for (var s = 0u; s < SPANS; s++) {
                let first_k = 32u * block + SPAN * s;
                var codes = 0u;
                //#unroll
                for (var plane = 0u; plane < A_BITS; plane++) {
                    codes += countOneBits(x[A_BITS * m + plane] & bitplane_mask(s)) << plane;
                }
                var scale = a_scl_t(1.0, 0, 0.0);
                if (A_GROUP != 0u || A_ZERO != 0u) {
                    scale = a_scl_load(row, gemm_column(first_k) / A_GROUP_LENGTH);
                }
                span[SPANS * m + s] = integer_span(i32(codes), 0, first_k, SPAN, 0, scale.zero, scale.scale);
                sum_integers[m] += span[SPANS * m + s].integers;
            }
        }
        //#unroll
        for (var set = 0u; set < SETS_N; set++) {
            let quad = gemm_weight_quad(tile, first_n + 4u * set) / 4u;
            var w = array<vec4<u32>, W_PLANES>();
            //#unroll
            for (var plane = 0u; plane < W_PLANES; plane++) {
                w[plane] = bitplane_weight(plane, quad, block);
            }
            //#unroll
            for (var s = 0u; s < SPANS; s++) {
                var scale = w_scl_quad_t();
                if (GROUPED) {
                    scale = w_scl_load_quad(4u * quad, gemm_column(32u * block + SPAN * s) / W_GROUP_LENGTH);
                }
                //#unroll
                for (var r = 0u; r < 4u; r++) {
                    var codes = 0;
                    if (WEIGHT_SUMS) {
                        //#unroll
                        for (var plane = 0u; plane < W_PLANES; plane++) {
                            codes += i32(countOneBits(w[plane][r] & bitplane_mask(s)) << (plane % W_BITS));
                        }
                        weight_codes[4u * set + r] += codes;
                    }
                    //#unroll
                    for (var m = 0u; m < TILE_M; m++) {
                        var power = array<u32, POWERS>();
                        //#unroll
                        for (var p = 0u; p < W_PLANES; p++) {
                            let word = w[p][r] & bitplane_mask(s);
                            //#unroll
                            for (var q = 0u; q < A_BITS; q++) {
                                power[p % W_BITS + q] += countOneBits(bitplane_product(word, x[A_BITS * m + q], s));
                            }
                        }
                        var sum = acc_start(acc[m * TILE_N + 4u * set + r], span[SPANS * m + s]);
                        //#unroll
                        for (var p = 0u; p < POWERS; p++) {
                            sum += i32(power[p] << p);
                        }
                        acc[m * TILE_N + 4u * set + r] = acc_span(
                            acc[m * TILE_N + 4u * set + r], sum, codes, span[SPANS * m + s], w_scl_pick(scale, r),
                        );
                    }
                }
            }
        }
    }

    if (!GROUPED) {
        //#unroll
        for (var m = 0u; m < TILE_M; m++) {
            sum_integers[m] = red_i32(sum_integers[m], input);
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
        let total = integer_total(tile, sum_integers[m], 0, params.activation.offset - row_scale.zero, row_scale.scale);
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
