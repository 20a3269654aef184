// A few rows of X (TILE_M, 1 to 8), floats, with all of W, bit planes: tables of sums of four activations, rounded to
// signed bytes. As gemv_lut, but that a block's tables share a scale, a 127th of their largest sum, and what is looked up
// adds up as integers. Where the largest sum is below LUT8_SMALLEST the tables are 0.
//#import core/lut
//#import slot:activation_codes as a_
//#import slot:activation_format as a_
//#import slot:activation_ahead as a_
//#import slot:weight_scale as w_
//#import slot:table
//#import slot:output

const SETS_N: u32 = TILE_N / 4u;
const SPANS: u32 = 32u / SPAN;
const LUT8_LARGEST: f32 = 127.0;
// 2^-100, whose inverse times 127 f32 still holds.
const LUT8_SMALLEST: f32 = 7.888609e-31;

// The magnitudes of the largest sums of the tables of half a block.
fn lut8_sizes(x: array<vec4<f32>, 4>) -> vec4<f32> {
    return ((abs(x[0]) + abs(x[1])) + abs(x[2])) + abs(x[3]);
}

// Entries of the tables q = 0 .. 3 of half a block, byte q for table q.
fn lut8_pack(entries: vec4<f32>, inverse: f32) -> u32 {
    let rounded = clamp(round(entries * inverse), vec4<f32>(-LUT8_LARGEST), vec4<f32>(LUT8_LARGEST));
    let bytes = bitcast<vec4<u32>>(vec4<i32>(rounded)) & vec4<u32>(0xffu);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, input: tab_input) {
    let tile = gemm_tile(group);
    if (tile.n >= params.tiles_n) {
        return;
    }
    let place = tab_place(input);
    let first_m = tile.first_m;
    let first_n = lut_first_n(tile, place);
    var quad: array<u32, SETS_N>;
    //#unroll
    for (var set = 0u; set < SETS_N; set++) {
        quad[set] = gemm_weight_quad(tile, first_n + 4u * set) / 4u;
    }

    var acc: array<f32, TILE_M * TILE_N>;
    var sum: array<f32, TILE_M>;
    // All clusters go through as many blocks, since all wait for the tables.
    for (var first = 0u; first < params.weight.blocks; first += LANES) {
        let block = first + lut_lane(place);
        let inside = min(block, params.weight.blocks - 1u);
        var table = array<u32, 2u * TILE_M>();
        var table_scale = array<f32, TILE_M>();
        var half_sum = array<f32, 2u * TILE_M>();
        //#unroll
        for (var m = 0u; m < TILE_M; m++) {
            let row = gemm_activation_row(tile, first_m + m);
            let ahead = a_fmt_ahead(row, inside);
            var entries = array<vec4<f32>, 2>();
            var sizes = vec4<f32>(0.0);
            //#unroll
            for (var h = 0u; h < 2u; h++) {
                var x = array<vec4<f32>, 4>();
                //#unroll
                for (var i = 0u; i < 4u; i++) {
                    let at = 4u * h + i;
                    x[i] = lut_inside(a_fmt_at(ahead, row, 8u * inside + at), 8u * block + at);
                }
                entries[h] = lut_entries(x, place % LUT_CLUSTER);
                sizes = max(sizes, lut8_sizes(x));
                half_sum[2u * m + h] = lut_sum(x);
            }
            let size = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
            var inverse = 0.0;
            if (size >= LUT8_SMALLEST) {
                inverse = LUT8_LARGEST / size;
                table_scale[m] = size / LUT8_LARGEST;
            }
            //#unroll
            for (var h = 0u; h < 2u; h++) {
                table[2u * m + h] = lut8_pack(entries[h], inverse);
            }
        }
        tab_wait();
        //#unroll
        for (var i = 0u; i < 2u * TILE_M; i++) {
            tab_share(i, table[i], input);
        }
        tab_wait();

        var looked_up = array<i32, TILE_M * TILE_N * SPANS>();
        // Neither planes nor halves are unrolled: the body is large enough.
        for (var plane = 0u; plane < W_BITS; plane++) {
            var words = array<vec4<u32>, SETS_N>();
            //#unroll
            for (var set = 0u; set < SETS_N; set++) {
                words[set] = bitplane_weight(plane, quad[set], inside);
            }
            for (var h = 0u; h < 2u; h++) {
                //#unroll
                for (var set = 0u; set < SETS_N; set++) {
                    let bits = words[set] >> vec4<u32>(4u * h);
                    let folded = lut_fold(bits);
                    //#unroll
                    for (var m = 0u; m < TILE_M; m++) {
                        let own = select(table[2u * m], table[2u * m + 1u], h == 1u);
                        //#unroll
                        for (var r = 0u; r < 4u; r++) {
                            var half = 0;
                            //#unroll
                            for (var q = 0u; q < 4u; q++) {
                                let entries = tab_look(2u * m + h, own, (folded[r] >> (8u * q)) & 7u, input);
                                let entry = bitcast<i32>(entries << (24u - 8u * q)) >> 24u;
                                // -1 where the sign is to change: -x = (x ^ -1) - -1.
                                let sign = bitcast<i32>(bits[r] << (28u - 8u * q)) >> 31u;
                                half += (entry ^ sign) - sign;
                            }
                            half <<= plane;
                            //#unroll
                            for (var s = 0u; s < SPANS; s++) {
                                looked_up[(m * TILE_N + 4u * set + r) * SPANS + s] +=
                                    select(0, half, SPANS == 1u || h == s);
                            }
                        }
                    }
                }
            }
        }

        //#unroll
        for (var m = 0u; m < TILE_M; m++) {
            sum[m] += half_sum[2u * m] + half_sum[2u * m + 1u];
        }
        //#unroll
        for (var s = 0u; s < SPANS; s++) {
            //#unroll
            for (var set = 0u; set < SETS_N; set++) {
                var scale = w_scl_quad_t();
                if (GROUPED) {
                    scale = w_scl_load_quad(4u * quad[set], gemm_column(32u * block + SPAN * s) / W_GROUP_LENGTH);
                }
                //#unroll
                for (var r = 0u; r < 4u; r++) {
                    //#unroll
                    for (var m = 0u; m < TILE_M; m++) {
                        let value = f32(looked_up[(m * TILE_N + 4u * set + r) * SPANS + s]) * table_scale[m];
                        if (GROUPED) {
                            var span_sum = half_sum[2u * m + s];
                            if (SPANS == 1u) {
                                span_sum += half_sum[2u * m + 1u];
                            }
                            acc[m * TILE_N + 4u * set + r] += lut_value(value, span_sum, w_scl_pick(scale, r));
                        } else {
                            acc[m * TILE_N + 4u * set + r] += value;
                        }
                    }
                }
            }
        }
    }

    if (!GROUPED) {
        //#unroll
        for (var set = 0u; set < SETS_N; set++) {
            let scale = w_scl_load_quad(4u * quad[set], 0u);
            //#unroll
            for (var r = 0u; r < 4u; r++) {
                //#unroll
                for (var m = 0u; m < TILE_M; m++) {
                    acc[m * TILE_N + 4u * set + r] = lut_value(acc[m * TILE_N + 4u * set + r], sum[m], w_scl_pick(scale, r));
                }
            }
        }
    }
    lut_store(tile, place, acc);
}
