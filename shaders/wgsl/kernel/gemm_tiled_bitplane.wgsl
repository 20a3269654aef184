// GEMM of bit planes, tiled in workgroup memory. Needs no optional feature.
//
// Rows alternate in fours in the streams, so a vec4 goes from memory to the tile as it is and brings one plane word of
// four rows. Recovery as in gemm_subgroup_bitplane: plane products stay in registers.
//#import core/gemm
//#import core/integer
//#import core/bitplane
//#import slot:activation_scale as a_
//#import slot:weight_scale as w_
//#import slot:accumulate
//#import slot:output

const WORKGROUP: u32 = (TILE_M / THREAD_M) * (TILE_N / THREAD_N);
const THREADS_M: u32 = TILE_M / THREAD_M;
const THREADS_N: u32 = TILE_N / THREAD_N;
const VECTORS_M: u32 = TILE_M / 4u;
const VECTORS_N: u32 = TILE_N / 4u;
const SETS_M: u32 = THREAD_M / 4u;
const SETS_N: u32 = THREAD_N / 4u;
const TILE_BLOCKS: u32 = TILE_K / 32u;
const SPANS: u32 = 32u / SPAN;
const POWERS: u32 = A_BITS + W_BITS - 1u;

var<workgroup> tile_x: array<vec4<u32>, TILE_BLOCKS * A_BITS * VECTORS_M>;
var<workgroup> tile_w: array<vec4<u32>, TILE_BLOCKS * W_PLANES * VECTORS_N>;

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
    let blocks = params.weight.blocks;

    var acc: array<acc_t, THREAD_M * THREAD_N>;
    var sum_integers: array<i32, THREAD_M>;
    var weight_codes: array<i32, THREAD_N>;
    for (var first_block = 0u; first_block < blocks; first_block += TILE_BLOCKS) {
        for (var item = local; item < TILE_BLOCKS * A_BITS * VECTORS_M; item += WORKGROUP) {
            let i = item % TILE_BLOCKS;
            let plane = (item / TILE_BLOCKS) % A_BITS;
            let vector = item / (TILE_BLOCKS * A_BITS);
            var word = vec4<u32>(0u);
            if (first_block + i < blocks) {
                let quad = gemm_activation_row(tile.batch, first_m + 4u * vector) / 4u;
                word = bitplane_activation(plane, quad, first_block + i);
            }
            tile_x[(i * A_BITS + plane) * VECTORS_M + vector] = word;
        }
        for (var item = local; item < TILE_BLOCKS * W_PLANES * VECTORS_N; item += WORKGROUP) {
            let i = item % TILE_BLOCKS;
            let plane = (item / TILE_BLOCKS) % W_PLANES;
            let vector = item / (TILE_BLOCKS * W_PLANES);
            var word = vec4<u32>(0u);
            if (first_block + i < blocks) {
                let quad = gemm_weight_row(tile.batch, first_n + 4u * vector) / 4u;
                word = bitplane_weight(plane, quad, first_block + i);
            }
            tile_w[(i * W_PLANES + plane) * VECTORS_N + vector] = word;
        }
        workgroupBarrier();
        for (var b = 0u; b < min(TILE_BLOCKS, blocks - first_block); b++) {
            var w: array<vec4<u32>, SETS_N * W_PLANES>;
            //#unroll
            for (var j = 0u; j < SETS_N; j++) {
                //#unroll
                for (var p = 0u; p < W_PLANES; p++) {
                    w[j * W_PLANES + p] = tile_w[(b * W_PLANES + p) * VECTORS_N + thread_n + THREADS_N * j];
                }
            }
            //#unroll
            for (var s = 0u; s < SPANS; s++) {
                let first_k = 32u * (first_block + b) + SPAN * s;
                var codes: array<i32, THREAD_N>;
                var scale: array<w_scl_t, THREAD_N>;
                //#unroll
                for (var n = 0u; n < THREAD_N; n++) {
                    if (WEIGHT_SUMS) {
                        //#unroll
                        for (var p = 0u; p < W_PLANES; p++) {
                            let word = w[(n / 4u) * W_PLANES + p][n % 4u] & bitplane_mask(s);
                            codes[n] += i32(countOneBits(word) << (p % W_BITS));
                        }
                        weight_codes[n] += codes[n];
                    }
                    if (GROUPED) {
                        let column = first_n + 4u * (thread_n + THREADS_N * (n / 4u)) + n % 4u;
                        scale[n] = w_scl_load(gemm_weight_row(tile.batch, column), gemm_column(first_k) / W_GROUP_LENGTH);
                    }
                }
                //#unroll
                for (var i = 0u; i < SETS_M; i++) {
                    var x: array<vec4<u32>, A_BITS>;
                    //#unroll
                    for (var q = 0u; q < A_BITS; q++) {
                        x[q] = tile_x[(b * A_BITS + q) * VECTORS_M + thread_m + THREADS_M * i]
                            & vec4<u32>(bitplane_mask(s));
                    }
                    //#unroll
                    for (var r = 0u; r < 4u; r++) {
                        var activation_codes = 0u;
                        //#unroll
                        for (var q = 0u; q < A_BITS; q++) {
                            activation_codes += countOneBits(x[q][r]) << q;
                        }
                        var row_scale = a_scl_t(1.0, 0, 0.0);
                        if (A_GROUP != 0u || A_ZERO != 0u) {
                            row_scale = a_scl_load(
                                gemm_activation_row(tile.batch, first_m + 4u * (thread_m + THREADS_M * i) + r),
                                gemm_column(first_k) / A_GROUP_LENGTH,
                            );
                        }
                        let span = integer_span(
                            i32(activation_codes), first_k, SPAN, 0, row_scale.zero, row_scale.scale,
                        );
                        sum_integers[4u * i + r] += span.integers;
                        //#unroll
                        for (var n = 0u; n < THREAD_N; n++) {
                            var power: array<u32, POWERS>;
                            //#unroll
                            for (var p = 0u; p < W_PLANES; p++) {
                                let word = w[(n / 4u) * W_PLANES + p][n % 4u];
                                //#unroll
                                for (var q = 0u; q < A_BITS; q++) {
                                    power[p % W_BITS + q] += countOneBits(word & x[q][r]);
                                }
                            }
                            var sum = 0u;
                            //#unroll
                            for (var p = 0u; p < POWERS; p++) {
                                sum += power[p] << p;
                            }
                            acc[(4u * i + r) * THREAD_N + n] = acc_span(
                                acc[(4u * i + r) * THREAD_N + n], i32(sum), codes[n], span, scale[n],
                            );
                        }
                    }
                }
            }
        }
        workgroupBarrier();
    }

    //#unroll
    for (var m = 0u; m < THREAD_M; m++) {
        let row = first_m + 4u * (thread_m + THREADS_M * (m / 4u)) + m % 4u;
        let row_scale = a_scl_load(gemm_activation_row(tile.batch, row), 0u);
        let total = Span(0, sum_integers[m], params.activation.offset - row_scale.zero, row_scale.scale);
        //#unroll
        for (var n = 0u; n < THREAD_N; n += 2u) {
            let column = first_n + 4u * (thread_n + THREADS_N * (n / 4u)) + n % 4u;
            var pair: array<out_t, 2>;
            //#unroll
            for (var c = 0u; c < 2u; c++) {
                let scale = w_scl_load(gemm_weight_row(tile.batch, column + c), 0u);
                pair[c] = acc_finish(acc[m * THREAD_N + n + c], weight_codes[n + c], total, scale);
            }
            gemm_store_pair(tile.batch, row, column, pair[0], pair[1]);
        }
    }
}
