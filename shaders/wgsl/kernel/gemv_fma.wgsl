// A few rows of X (TILE_M, 1 to 8) with all of W: float or decoded operands; products by multiply-add or L-Mul.
//
// A team of LANES invocations splits K and shares TILE_N rows of W, so each activation loaded serves TILE_N weights and
// each weight TILE_M activations; one reduction ends it.
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
//#import slot:turns
//#import slot:reduce
//#import slot:output

const TEAMS: u32 = WORKGROUP / LANES;
const SPANS: u32 = w_FMT_STEP / SPAN;
const SPAN_VECTORS: u32 = SPAN / 4u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, input: red_input) {
    let tile = gemm_tile(group);
    if (tile.n >= params.tiles_n) {
        return;
    }
    let lane = red_lane(input);
    a_fmt_hold(red_subgroup_lane(input));
    w_fmt_hold(red_subgroup_lane(input));
    let first_m = tile.first_m;
    let first_n = (tile.n * TEAMS + red_team(input)) * TILE_N;

    var acc: array<f32, TILE_M * TILE_N>;
    var scale: array<w_scl_quad_t, TILE_N / 4u>;
    var x_scale: array<a_scl_t, TILE_M>;
    //#unroll
    for (var m = 0u; m < TILE_M; m++) {
        x_scale[m] = a_scl_load(gemm_activation_row(tile, first_m + m), 0u);
    }
    //#unroll
    for (var j = 0u; j < TILE_N / 4u; j++) {
        scale[j] = w_scl_load_quad(gemm_weight_quad(tile, first_n + 4u * j), 0u);
    }
    let steps = (params.k + w_FMT_STEP - 1u) / w_FMT_STEP;
    let turns = turns_of(steps, lane);
    for (var turn = 0u; turn < turns; turn++) {
        let own_step = LANES * turn + lane;
        let step = turns_step(own_step, steps);
        var words = array<w_fmt_row_t, TILE_N>();
        //#unroll
        for (var j = 0u; j < TILE_N; j++) {
            words[j] = w_fmt_row(gemm_weight_row(tile, first_n + j), step);
        }
        var ahead = array<a_fmt_ahead_t, TILE_M>();
        //#unroll
        for (var m = 0u; m < TILE_M; m++) {
            ahead[m] = a_fmt_ahead(gemm_activation_row(tile, first_m + m), w_FMT_STEP * step / 32u);
        }
        //#unroll
        for (var s = 0u; s < SPANS; s++) {
            if (A_GROUP != 0u) {
                //#unroll
                for (var m = 0u; m < TILE_M; m++) {
                    x_scale[m] = a_scl_load(
                        gemm_activation_row(tile, first_m + m),
                        gemm_column(w_FMT_STEP * step + SPAN * s) / A_GROUP_LENGTH,
                    );
                }
            }
            if (W_GROUP != 0u) {
                //#unroll
                for (var j = 0u; j < TILE_N / 4u; j++) {
                    scale[j] = w_scl_load_quad(
                        gemm_weight_quad(tile, first_n + 4u * j),
                        gemm_column(w_FMT_STEP * step + SPAN * s) / W_GROUP_LENGTH,
                    );
                }
            }
            //#unroll
            for (var t = 0u; t < SPAN_VECTORS; t++) {
                let at = (w_FMT_STEP * step + SPAN * s) / 4u + t;
                var x = array<vec4<f32>, TILE_M>();
                //#unroll
                for (var m = 0u; m < TILE_M; m++) {
                    let values = a_fmt_at(ahead[m], gemm_activation_row(tile, first_m + m), at);
                    let scaled = a_scl_apply(values, x_scale[m]);
                    x[m] = product_operand(turns_inside(fma_inside(scaled, at), own_step, steps));
                }
                //#unroll
                for (var j = 0u; j < TILE_N; j++) {
                    let values = w_fmt_values(words[j], SPAN_VECTORS * s + t);
                    let scaled = w_scl_apply(values, w_scl_pick(scale[j / 4u], j % 4u));
                    let w = product_operand(turns_inside(fma_weight(scaled, at), own_step, steps));
                    //#unroll
                    for (var m = 0u; m < TILE_M; m++) {
                        acc[m * TILE_N + j] = product_add_dot(acc[m * TILE_N + j], x[m], w);
                    }
                }
            }
        }
    }

    //#unroll
    for (var m = 0u; m < TILE_M; m++) {
        //#unroll
        for (var j = 0u; j < TILE_N; j += 2u) {
            let first = red_f32(acc[m * TILE_N + j], input);
            let second = red_f32(acc[m * TILE_N + j + 1u], input);
            if (lane == (m * TILE_N + j) / 2u % LANES) {
                gemm_store_pair(tile, first_m + m, first_n + j, first, second);
            }
        }
    }
}
