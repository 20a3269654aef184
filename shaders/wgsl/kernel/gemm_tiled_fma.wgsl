// GEMM of float activations with float or decoded weights, tiled in workgroup memory. Needs no optional feature.
//
// A workgroup makes TILE_M x TILE_N outputs, TILE_K of K at a time; both tiles lie K-major in workgroup memory, so that
// an invocation reads four rows at once. An invocation makes THREAD_M x THREAD_N outputs, in fours strided over the tile.
//#import core/gemm
//#import core/fma
//#import slot:activation_format as a_
//#import slot:weight_format as w_
//#import slot:weight_scale as w_
//#import slot:output

const WORKGROUP: u32 = (TILE_M / THREAD_M) * (TILE_N / THREAD_N);
const THREADS_M: u32 = TILE_M / THREAD_M;
const THREADS_N: u32 = TILE_N / THREAD_N;
const VECTORS_M: u32 = TILE_M / 4u;
const VECTORS_N: u32 = TILE_N / 4u;
const SETS_M: u32 = THREAD_M / 4u;
const SETS_N: u32 = THREAD_N / 4u;
const SPANS: u32 = w_FMT_STEP / SPAN;
const SPAN_VECTORS: u32 = SPAN / 4u;

var<workgroup> tile_x: array<vec4<f32>, TILE_K * VECTORS_M>;
var<workgroup> tile_w: array<vec4<f32>, TILE_K * VECTORS_N>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = gemm_tile(group);
    if (tile.n >= params.tiles_n) {
        return;
    }
    let first_m = tile.m * TILE_M;
    let first_n = tile.n * TILE_N;
    let thread_m = local % THREADS_M;
    let thread_n = local / THREADS_M;

    var acc: array<vec4<f32>, THREAD_M * SETS_N>;
    for (var first_k = 0u; first_k < params.k; first_k += TILE_K) {
        for (var item = local; item < TILE_M * (TILE_K / 4u); item += WORKGROUP) {
            let row = item / (TILE_K / 4u);
            let i = item % (TILE_K / 4u);
            let at = first_k / 4u + i;
            let values = fma_inside(a_fmt_at(gemm_activation_row(tile.batch, first_m + row), at), at);
            //#unroll
            for (var c = 0u; c < 4u; c++) {
                tile_x[(4u * i + c) * VECTORS_M + row / 4u][row % 4u] = values[c];
            }
        }
        for (var item = local; item < TILE_N * (TILE_K / w_FMT_STEP); item += WORKGROUP) {
            let row = item / (TILE_K / w_FMT_STEP);
            let i = item % (TILE_K / w_FMT_STEP);
            let weight_row = gemm_weight_row(tile.batch, first_n + row);
            let words = w_fmt_row(weight_row, first_k / w_FMT_STEP + i);
            //#unroll
            for (var s = 0u; s < SPANS; s++) {
                let scale = w_scl_load(weight_row, (first_k + w_FMT_STEP * i + SPAN * s) / W_GROUP_LENGTH);
                //#unroll
                for (var t = 0u; t < SPAN_VECTORS; t++) {
                    let values = w_scl_apply(w_fmt_values(words, SPAN_VECTORS * s + t), scale);
                    //#unroll
                    for (var c = 0u; c < 4u; c++) {
                        tile_w[(w_FMT_STEP * i + SPAN * s + 4u * t + c) * VECTORS_N + row / 4u][row % 4u] = values[c];
                    }
                }
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < TILE_K; k++) {
            var w: array<vec4<f32>, SETS_N>;
            //#unroll
            for (var j = 0u; j < SETS_N; j++) {
                w[j] = tile_w[k * VECTORS_N + thread_n + THREADS_N * j];
            }
            //#unroll
            for (var i = 0u; i < SETS_M; i++) {
                let x = tile_x[k * VECTORS_M + thread_m + THREADS_M * i];
                //#unroll
                for (var r = 0u; r < 4u; r++) {
                    //#unroll
                    for (var j = 0u; j < SETS_N; j++) {
                        acc[(4u * i + r) * SETS_N + j] += x[r] * w[j];
                    }
                }
            }
        }
        workgroupBarrier();
    }

    //#unroll
    for (var i = 0u; i < SETS_M; i++) {
        //#unroll
        for (var r = 0u; r < 4u; r++) {
            let m = first_m + 4u * (thread_m + THREADS_M * i) + r;
            //#unroll
            for (var j = 0u; j < SETS_N; j++) {
                let n = first_n + 4u * (thread_n + THREADS_N * j);
                //#unroll
                for (var c = 0u; c < 4u; c++) {
                    gemm_store(tile.batch, m, n + c, acc[(4u * i + r) * SETS_N + j][c]);
                }
            }
        }
    }
}
