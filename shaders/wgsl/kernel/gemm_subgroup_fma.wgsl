// GEMM of float or decoded operands; activations broadcast across the subgroup; products by multiply-add or L-Mul.
//
// As gemm_subgroup_dot4, in f32: the FEED_LANES lanes each bring four values of another row of X, and every lane multiplies
// them with its own TILE_N rows of W.
//#import core/gemm
//#import core/fma
//#import slot:product
//#import slot:activation_codes as a_
//#import slot:activation_format as a_
//#import slot:activation_ahead as a_
//#import slot:activation_scale as a_
//#import slot:weight_codes as w_
//#import slot:weight_format as w_
//#import slot:weight_scale as w_
//#import slot:output

const ROW_SETS: u32 = TILE_M / FEED_LANES;
const SPANS: u32 = w_FMT_STEP / SPAN;
const SPAN_VECTORS: u32 = SPAN / 4u;

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
    a_fmt_hold(lane);
    w_fmt_hold(lane);
    let first_m = tile.first_m;
    let first_n = (tile.n * WORKGROUP + local) * TILE_N;

    var acc: array<f32, TILE_M * TILE_N>;
    var scale: array<w_scl_quad_t, TILE_N / 4u>;
    //#unroll
    for (var j = 0u; j < TILE_N / 4u; j++) {
        scale[j] = w_scl_load_quad(gemm_weight_quad(tile, first_n + 4u * j), 0u);
    }
    let steps = (tile.end_k + w_FMT_STEP - 1u) / w_FMT_STEP;
    for (var step = tile.first_k / w_FMT_STEP; step < steps; step++) {
        var words = array<w_fmt_row_t, TILE_N>();
        //#unroll
        for (var j = 0u; j < TILE_N; j++) {
            words[j] = w_fmt_row(gemm_weight_row(tile, first_n + j), step);
        }
        var ahead = array<a_fmt_ahead_t, ROW_SETS>();
        //#unroll
        for (var i = 0u; i < ROW_SETS; i++) {
            let row = gemm_activation_row(tile, first_m + FEED_LANES * i + lane % FEED_LANES);
            ahead[i] = a_fmt_ahead(row, w_FMT_STEP * step / 32u);
        }
        //#unroll
        for (var s = 0u; s < SPANS; s++) {
            if (W_GROUP != 0u) {
                //#unroll
                for (var j = 0u; j < TILE_N / 4u; j++) {
                    scale[j] = w_scl_load_quad(
                        gemm_weight_quad(tile, first_n + 4u * j),
                        gemm_column(w_FMT_STEP * step + SPAN * s) / W_GROUP_LENGTH,
                    );
                }
            }
            var x_scale = array<a_scl_t, ROW_SETS>();
            //#unroll
            for (var i = 0u; i < ROW_SETS; i++) {
                x_scale[i] = a_scl_load(
                    gemm_activation_row(tile, first_m + FEED_LANES * i + lane % FEED_LANES),
                    gemm_column(w_FMT_STEP * step + SPAN * s) / A_GROUP_LENGTH,
                );
            }
            // Not unrolled: the body is large enough.
            for (var t = 0u; t < SPAN_VECTORS; t++) {
                let at = (w_FMT_STEP * step + SPAN * s) / 4u + t;
                var w = array<vec4<f32>, TILE_N>();
                //#unroll
                for (var j = 0u; j < TILE_N; j++) {
                    let values = w_fmt_values(words[j], SPAN_VECTORS * s + t);
                    let scaled = w_scl_apply(values, w_scl_pick(scale[j / 4u], j % 4u));
                    w[j] = product_operand(fma_weight(scaled, at));
                }
                //#unroll
                for (var i = 0u; i < ROW_SETS; i++) {
                    let row = gemm_activation_row(tile, first_m + FEED_LANES * i + lane % FEED_LANES);
                    let scaled = a_scl_apply(a_fmt_at(ahead[i], row, at), x_scale[i]);
                    let mine = product_operand(fma_inside(scaled, at));
                    //#unroll
                    for (var r = 0u; r < FEED_LANES; r++) {
                        let x = subgroupBroadcast(mine, r);
                        //#unroll
                        for (var j = 0u; j < TILE_N; j++) {
                            acc[(FEED_LANES * i + r) * TILE_N + j] = product_add_dot(acc[(FEED_LANES * i + r) * TILE_N + j], x, w[j]);
                        }
                    }
                }
            }
        }
    }

    //#unroll
    for (var m = 0u; m < TILE_M; m++) {
        //#unroll
        for (var j = 0u; j < TILE_N; j += 2u) {
            gemm_store_pair(
                tile, first_m + m, first_n + j, acc[m * TILE_N + j], acc[m * TILE_N + j + 1u],
            );
        }
    }
}
