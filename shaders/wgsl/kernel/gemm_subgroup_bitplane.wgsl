// GEMM of bit planes: sum over planes of 2^(i + j) * popcount(w_i & x_j); activations broadcast across the subgroup.
//
// As gemm_subgroup_dot4: the FEED_LANES lanes each bring the plane words of another row of X. An invocation owns TILE_N rows of
// W, in fours, because W's rows alternate in fours. Products of equal weight 2^(i + j) are added before they are
// shifted, so a plane pair costs an and and a bit count, and no partial product leaves the registers.
//#import core/gemm
//#import core/integer
//#import core/bitplane
//#import slot:activation_codes as a_
//#import slot:activation_scale as a_
//#import slot:weight_scale as w_
//#import slot:accumulate
//#import slot:output

const ROW_SETS: u32 = TILE_M / FEED_LANES;
const SETS_N: u32 = TILE_N / 4u;
const SPANS: u32 = 32u / SPAN;
const POWERS: u32 = A_BITS + W_BITS - 1u;

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

    for (var block = tile.first_k / 32u; block < tile.end_block; block++) {
        var x = array<u32, ROW_SETS * A_BITS>();
        //#unroll
        for (var i = 0u; i < ROW_SETS; i++) {
            let row = gemm_activation_row(tile, first_m + FEED_LANES * i + lane % FEED_LANES);
            //#unroll
            for (var q = 0u; q < A_BITS; q++) {
                x[A_BITS * i + q] = a_fmt_plane(q, row, block);
            }
        }
        var w = array<vec4<u32>, SETS_N * W_PLANES>();
        //#unroll
        for (var j = 0u; j < SETS_N; j++) {
            let quad = gemm_weight_quad(tile, first_n + 4u * j) / 4u;
            //#unroll
            for (var p = 0u; p < W_PLANES; p++) {
                w[W_PLANES * j + p] = bitplane_weight(p, quad, block);
            }
        }
        //#unroll
        for (var s = 0u; s < SPANS; s++) {
            let first_k = 32u * block + SPAN * s;
            var codes = array<i32, TILE_N>();
            var scale = array<w_scl_quad_t, SETS_N>();
            if (GROUPED) {
                //#unroll
                for (var j = 0u; j < SETS_N; j++) {
                    scale[j] = w_scl_load_quad(
                        gemm_weight_quad(tile, first_n + 4u * j), gemm_column(first_k) / W_GROUP_LENGTH,
                    );
                }
            }
            //#unroll
            for (var n = 0u; n < TILE_N; n++) {
                if (WEIGHT_SUMS) {
                    //#unroll
                    for (var p = 0u; p < W_PLANES; p++) {
                        let word = w[W_PLANES * (n / 4u) + p][n % 4u] & bitplane_mask(s);
                        codes[n] += i32(countOneBits(word) << (p % W_BITS));
                    }
                    weight_codes[n] += codes[n];
                }
            }
            //#unroll
            for (var i = 0u; i < ROW_SETS; i++) {
                var lane_codes = 0u;
                //#unroll
                for (var q = 0u; q < A_BITS; q++) {
                    lane_codes += countOneBits(x[A_BITS * i + q] & bitplane_mask(s)) << q;
                }
                var lane_scale = a_scl_t(1.0, 0, 0.0);
                if (A_GROUP != 0u || A_ZERO != 0u) {
                    lane_scale = a_scl_load(
                        gemm_activation_row(tile, first_m + FEED_LANES * i + lane % FEED_LANES),
                        gemm_column(first_k) / A_GROUP_LENGTH,
                    );
                }
                let mine = integer_span(i32(lane_codes), 0, first_k, SPAN, 0, lane_scale.zero, lane_scale.scale);
                sum_integers[i] += mine.integers;
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
                    var y = array<u32, A_BITS>();
                    //#unroll
                    for (var q = 0u; q < A_BITS; q++) {
                        y[q] = subgroupBroadcast(x[A_BITS * i + q], r) & bitplane_mask(s);
                    }
                    //#unroll
                    for (var n = 0u; n < TILE_N; n++) {
                        var power = array<u32, POWERS>();
                        //#unroll
                        for (var p = 0u; p < W_PLANES; p++) {
                            let word = w[W_PLANES * (n / 4u) + p][n % 4u];
                            //#unroll
                            for (var q = 0u; q < A_BITS; q++) {
                                power[p % W_BITS + q] += countOneBits(bitplane_product(word, y[q], s));
                            }
                        }
                        var sum = acc_start(acc[(FEED_LANES * i + r) * TILE_N + n], span);
                        //#unroll
                        for (var p = 0u; p < POWERS; p++) {
                            sum += i32(power[p] << p);
                        }
                        acc[(FEED_LANES * i + r) * TILE_N + n] = acc_span(
                            acc[(FEED_LANES * i + r) * TILE_N + n], sum, codes[n], span, w_scl_pick(scale[n / 4u], n % 4u),
                        );
                    }
                }
            }
        }
    }

    //#unroll
    for (var i = 0u; i < ROW_SETS; i++) {
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
            for (var n = 0u; n < TILE_N; n += 2u) {
                var pair = array<out_t, 2>();
                //#unroll
                for (var c = 0u; c < 2u; c++) {
                    let scale = w_scl_load(gemm_weight_row(tile, first_n + n + c), 0u);
                    pair[c] = acc_finish(acc[(FEED_LANES * i + r) * TILE_N + n + c], weight_codes[n + c], span, scale);
                }
                gemm_store_pair(tile, first_m + FEED_LANES * i + r, first_n + n, pair[0], pair[1]);
            }
        }
    }
}
