// GEMM of packed codes by packed dot products, tiled in workgroup memory. Needs no optional feature.
//
// As gemm_tiled_fma, with words of four signed bytes: codes are unpacked once per tile, and the scales and sums of the
// tile's spans lie beside them.
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

const WORKGROUP: u32 = (TILE_M / THREAD_M) * (TILE_N / THREAD_N);
const THREADS_M: u32 = TILE_M / THREAD_M;
const THREADS_N: u32 = TILE_N / THREAD_N;
const VECTORS_M: u32 = TILE_M / 4u;
const VECTORS_N: u32 = TILE_N / 4u;
const SETS_M: u32 = THREAD_M / 4u;
const SETS_N: u32 = THREAD_N / 4u;
const TILE_BLOCKS: u32 = TILE_K / 32u;
const TILE_WORDS: u32 = TILE_K / 4u;
const SPANS: u32 = 32u / SPAN;
const SPAN_WORDS: u32 = SPAN / 4u;
const TILE_SPANS: u32 = TILE_BLOCKS * SPANS;

var<workgroup> tile_x: array<vec4<u32>, TILE_WORDS * VECTORS_M>;
var<workgroup> tile_w: array<vec4<u32>, TILE_WORDS * VECTORS_N>;
var<workgroup> tile_span: array<Span, TILE_SPANS * TILE_M>;
var<workgroup> tile_scale: array<w_scl_t, TILE_SPANS * TILE_N>;
var<workgroup> tile_codes: array<i32, TILE_SPANS * TILE_N>;

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
        // An invocation brings one word of four rows and writes it as a whole vector: invocations must not share a
        // vector, since a write to a component may touch all of it.
        for (var item = local; item < VECTORS_M * TILE_WORDS; item += WORKGROUP) {
            let t = item % TILE_WORDS;
            let vector = item / TILE_WORDS;
            let block = first_block + t / 8u;
            var word: vec4<u32>;
            //#unroll
            for (var r = 0u; r < 4u; r++) {
                word[r] = a_lift_past();
                if (block < blocks) {
                    let words = a_fmt_row(gemm_activation_row(tile.batch, first_m + 4u * vector + r), block);
                    word[r] = a_lift_bytes(a_fmt_bytes(words, t % 8u), 0);
                }
            }
            tile_x[t * VECTORS_M + vector] = word;
        }
        for (var item = local; item < VECTORS_N * TILE_WORDS; item += WORKGROUP) {
            let t = item % TILE_WORDS;
            let vector = item / TILE_WORDS;
            let block = first_block + t / 8u;
            var word: vec4<u32>;
            //#unroll
            for (var r = 0u; r < 4u; r++) {
                word[r] = w_lift_past();
                if (block < blocks) {
                    let row = gemm_weight_row(tile.batch, first_n + 4u * vector + r);
                    var choice = 0;
                    if (W_ZERO == 3u) {
                        choice = w_scl_load(row, gemm_column(32u * block + 4u * (t % 8u)) / W_GROUP_LENGTH).zero;
                    }
                    word[r] = w_lift_bytes(w_fmt_bytes(w_fmt_row(row, block), t % 8u), choice);
                }
            }
            tile_w[t * VECTORS_N + vector] = word;
        }
        for (var item = local; item < TILE_M * TILE_SPANS; item += WORKGROUP) {
            let s = item / TILE_M;
            let row = gemm_activation_row(tile.batch, first_m + item % TILE_M);
            let first_k = 32u * first_block + SPAN * s;
            var codes = i32(SPAN_WORDS) * dot4I8Packed(a_lift_past(), BYTES_ONE);
            if (first_k < 32u * blocks) {
                let words = a_fmt_row(row, first_k / 32u);
                codes = 0;
                //#unroll
                for (var t = 0u; t < SPAN_WORDS; t++) {
                    let word = a_lift_bytes(a_fmt_bytes(words, (SPAN_WORDS * s + t) % 8u), 0);
                    codes += dot4I8Packed(word, BYTES_ONE);
                }
            }
            var scale = a_scl_t(1.0, 0, 0.0);
            if (A_GROUP != 0u || A_ZERO != 0u) {
                scale = a_scl_load(row, gemm_column(first_k) / A_GROUP_LENGTH);
            }
            tile_span[item] = integer_span(
                codes, first_k, SPAN, params.activation.centre, scale.zero, scale.scale,
            );
        }
        if (GROUPED || WEIGHT_SUMS) {
            for (var item = local; item < TILE_N * TILE_SPANS; item += WORKGROUP) {
                let s = item / TILE_N;
                let row = gemm_weight_row(tile.batch, first_n + item % TILE_N);
                let first_k = 32u * first_block + SPAN * s;
                if (GROUPED) {
                    tile_scale[item] = w_scl_load(row, gemm_column(first_k) / W_GROUP_LENGTH);
                }
                if (WEIGHT_SUMS) {
                    var codes = 0;
                    if (first_k < 32u * blocks) {
                        let words = w_fmt_row(row, first_k / 32u);
                        var choice = 0;
                        if (W_ZERO == 3u) {
                            choice = w_scl_load(row, gemm_column(first_k) / W_GROUP_LENGTH).zero;
                        }
                        //#unroll
                        for (var t = 0u; t < SPAN_WORDS; t++) {
                            let bytes = w_fmt_bytes(words, (SPAN_WORDS * s + t) % 8u);
                            codes += w_lift_codes(w_lift_bytes(bytes, choice));
                        }
                    }
                    tile_codes[item] = codes;
                }
            }
        }
        workgroupBarrier();
        for (var s = 0u; s < TILE_SPANS; s++) {
            var sum: array<i32, THREAD_M * THREAD_N>;
            //#unroll
            for (var t = 0u; t < SPAN_WORDS; t++) {
                var w: array<vec4<u32>, SETS_N>;
                //#unroll
                for (var j = 0u; j < SETS_N; j++) {
                    w[j] = tile_w[(SPAN_WORDS * s + t) * VECTORS_N + thread_n + THREADS_N * j];
                }
                //#unroll
                for (var i = 0u; i < SETS_M; i++) {
                    let x = tile_x[(SPAN_WORDS * s + t) * VECTORS_M + thread_m + THREADS_M * i];
                    //#unroll
                    for (var r = 0u; r < 4u; r++) {
                        //#unroll
                        for (var n = 0u; n < THREAD_N; n++) {
                            sum[(4u * i + r) * THREAD_N + n] += dot4I8Packed(x[r], w[n / 4u][n % 4u]);
                        }
                    }
                }
            }
            var codes: array<i32, THREAD_N>;
            var scale: array<w_scl_t, THREAD_N>;
            //#unroll
            for (var n = 0u; n < THREAD_N; n++) {
                let cell = s * TILE_N + 4u * (thread_n + THREADS_N * (n / 4u)) + n % 4u;
                if (WEIGHT_SUMS) {
                    codes[n] = tile_codes[cell];
                    weight_codes[n] += codes[n];
                }
                if (GROUPED) {
                    scale[n] = tile_scale[cell];
                }
            }
            //#unroll
            for (var m = 0u; m < THREAD_M; m++) {
                let span = tile_span[s * TILE_M + 4u * (thread_m + THREADS_M * (m / 4u)) + m % 4u];
                sum_integers[m] += span.integers;
                //#unroll
                for (var n = 0u; n < THREAD_N; n++) {
                    acc[m * THREAD_N + n] = acc_span(
                        acc[m * THREAD_N + n],
                        sum[m * THREAD_N + n] + w_lift_start(span.codes),
                        codes[n],
                        span,
                        scale[n],
                    );
                }
            }
        }
        workgroupBarrier();
    }

    //#unroll
    for (var m = 0u; m < THREAD_M; m++) {
        let row = first_m + 4u * (thread_m + THREADS_M * (m / 4u)) + m % 4u;
        let row_scale = a_scl_load(gemm_activation_row(tile.batch, row), 0u);
        let offset = params.activation.multiplier * params.activation.centre + params.activation.offset
            - row_scale.zero;
        let total = Span(0, sum_integers[m], offset, row_scale.scale);
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
