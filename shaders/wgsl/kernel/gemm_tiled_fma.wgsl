// GEMM of float or decoded operands, tiled in workgroup memory; products by multiply-add or L-Mul. Needs no optional feature.
//
// A workgroup makes TILE_M x TILE_N outputs, TILE_K of K at a time; both tiles lie K-major in workgroup memory, so that
// an invocation reads four rows at once. An invocation makes THREAD_M x THREAD_N outputs, in fours strided over the tile.
//
// Reads BUFFERS: 1, or 2 for tiles that take turns, so that one barrier a step is enough: who fills a tile has passed the
// barrier after which nobody reads it.
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

const WORKGROUP: u32 = (TILE_M / THREAD_M) * (TILE_N / THREAD_N);
const THREADS_M: u32 = TILE_M / THREAD_M;
const THREADS_N: u32 = TILE_N / THREAD_N;
const VECTORS_M: u32 = TILE_M / 4u;
const VECTORS_N: u32 = TILE_N / 4u;
const SETS_M: u32 = THREAD_M / 4u;
const SETS_N: u32 = THREAD_N / 4u;
const TILE_VECTORS: u32 = TILE_K / 4u;

var<workgroup> tile_x: array<vec4<f32>, BUFFERS * TILE_K * VECTORS_M>;
var<workgroup> tile_w: array<vec4<f32>, BUFFERS * TILE_K * VECTORS_N>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = gemm_tile(group);
    if (tile.n >= params.tiles_n) {
        return;
    }
    let first_m = tile.first_m;
    let first_n = tile.n * TILE_N;
    let thread_m = local % THREADS_M;
    let thread_n = local / THREADS_M;

    var acc: array<vec4<f32>, THREAD_M * SETS_N>;
    for (var first_k = tile.first_k; first_k < tile.end_k; first_k += TILE_K) {
        let buffer = TILE_K * (first_k / TILE_K % BUFFERS);
        // An invocation brings four values of four rows and writes them as whole vectors of four rows: invocations must
        // not share a vector, since a write to a component may touch all of it.
        for (var item = local; item < VECTORS_M * TILE_VECTORS; item += WORKGROUP) {
            let i = item % TILE_VECTORS;
            let vector = item / TILE_VECTORS;
            let at = first_k / 4u + i;
            var x = array<vec4<f32>, 4>();
            //#unroll
            for (var r = 0u; r < 4u; r++) {
                let row = gemm_activation_row(tile, first_m + 4u * vector + r);
                let values = a_fmt_at(a_fmt_ahead(row, at / 8u), row, at);
                let scale = a_scl_load(row, gemm_column(4u * at) / A_GROUP_LENGTH);
                x[r] = product_operand(fma_inside(a_scl_apply(values, scale), at));
            }
            //#unroll
            for (var c = 0u; c < 4u; c++) {
                tile_x[(buffer + 4u * i + c) * VECTORS_M + vector] = vec4<f32>(x[0][c], x[1][c], x[2][c], x[3][c]);
            }
        }
        for (var item = local; item < VECTORS_N * TILE_VECTORS; item += WORKGROUP) {
            let i = item % TILE_VECTORS;
            let vector = item / TILE_VECTORS;
            let at = first_k / 4u + i;
            var w = array<vec4<f32>, 4>();
            //#unroll
            for (var r = 0u; r < 4u; r++) {
                let row = gemm_weight_row(tile, first_n + 4u * vector + r);
                let words = w_fmt_row(row, 4u * at / w_FMT_STEP);
                let scale = w_scl_load(row, gemm_column(4u * at) / W_GROUP_LENGTH);
                let values = w_fmt_values(words, at % (w_FMT_STEP / 4u));
                w[r] = product_operand(fma_weight(w_scl_apply(values, scale), at));
            }
            //#unroll
            for (var c = 0u; c < 4u; c++) {
                tile_w[(buffer + 4u * i + c) * VECTORS_N + vector] = vec4<f32>(w[0][c], w[1][c], w[2][c], w[3][c]);
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < TILE_K; k++) {
            var w = array<vec4<f32>, SETS_N>();
            //#unroll
            for (var j = 0u; j < SETS_N; j++) {
                w[j] = tile_w[(buffer + k) * VECTORS_N + thread_n + THREADS_N * j];
            }
            //#unroll
            for (var i = 0u; i < SETS_M; i++) {
                let x = tile_x[(buffer + k) * VECTORS_M + thread_m + THREADS_M * i];
                //#unroll
                for (var r = 0u; r < 4u; r++) {
                    //#unroll
                    for (var j = 0u; j < SETS_N; j++) {
                        acc[(4u * i + r) * SETS_N + j] = product_add(acc[(4u * i + r) * SETS_N + j], x[r], w[j]);
                    }
                }
            }
        }
        if (BUFFERS == 1u) {
            workgroupBarrier();
        }
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
                for (var c = 0u; c < 4u; c += 2u) {
                    gemm_store_pair(
                        tile, m, n + c, acc[(4u * i + r) * SETS_N + j][c], acc[(4u * i + r) * SETS_N + j][c + 1u],
                    );
                }
            }
        }
    }
}
