// GEMM by cooperative matrices: operands in f16, where their values are exact, and sums in f32. Needs the subgroup and f16
// features and wgpu's experimental cooperative matrices, which the planner checks; and sums that are exact up to 2^24, which
// a self-check on the device decides.
//
// A workgroup makes TILE_M x TILE_N outputs in blocks of THREAD_M x THREAD_N, each by a subgroup in fragments of FRAGMENT x
// FRAGMENT. How many subgroups a workgroup has is known here alone: where they are fewer than the blocks, they take turns
// and walk K once for each; where they are more, the last ones repeat the last block and drop it, as cooperative operations
// must be reached by all.
//
// Before a sum of integers can pass 2^24, and wherever a scale changes, fragments are spilled: stored to workgroup memory,
// where the invocations take them up, pair by pair, in registers whose number does not depend on the subgroup's size. They
// go on there as integers or scaled (slot spill). Elements stand in f16 without their scales, so nothing is rounded.
//#import core/gemm
//#import core/fma
//#import slot:fragment
//#import slot:activation_codes as a_
//#import slot:activation_format as a_
//#import slot:activation_ahead as a_
//#import slot:activation_scale as a_
//#import slot:weight_codes as w_
//#import slot:weight_format as w_
//#import slot:weight_scale as w_
//#import slot:spill
//#import slot:output

// What a spill needs of a row of X: the sum of its elements, for minima of the weights, and its scale.
struct SpillRow {
    sum: spl_t,
    scale: f32,
}

// And of a row of W.
struct SpillColumn {
    scale: f32,
    minimum: f32,
}

const VECTORS: u32 = TILE_K / 4u;
// Eight elements apart from a power of two, so that the rows of a fragment lie in different banks; and a multiple of 16 bytes,
// as loads of fragments demand. So are the sizes of all arrays here, that each starts on one.
const ROW: u32 = TILE_K + 8u;
const STEPS: u32 = TILE_K / STEP;
const BLOCKS_M: u32 = TILE_M / THREAD_M;
const BLOCKS_N: u32 = TILE_N / THREAD_N;
const BLOCKS: u32 = BLOCKS_M * BLOCKS_N;
const FRAGMENTS_M: u32 = THREAD_M / FRAGMENT;
const FRAGMENTS_N: u32 = THREAD_N / FRAGMENT;
const FRAGMENTS: u32 = FRAGMENTS_M * FRAGMENTS_N;
const CELLS: u32 = FRAGMENT * FRAGMENT;
// Fragments side by side that a block spills at once, as many as give every invocation a pair; and those pairs.
const SPILLED: u32 = 256u / CELLS;
const PAIRS: u32 = BLOCKS * SPILLED * CELLS / (2u * WORKGROUP);

var<workgroup> tile_x: array<f16, TILE_M * ROW>;
var<workgroup> tile_w: array<f16, TILE_N * ROW>;
var<workgroup> tile_spill: array<f32, BLOCKS * SPILLED * CELLS>;
var<workgroup> tile_row: array<SpillRow, TILE_M>;
var<workgroup> tile_column: array<SpillColumn, TILE_N>;

// Where the two outputs that an invocation takes from a cell lie, the block's fragments from `first` on being spilled: their
// block, row and first column in the tile.
fn matrix_place(cell: u32, first: u32) -> vec3<u32> {
    let block = cell / (SPILLED * CELLS);
    let fragment = first + cell / CELLS % SPILLED;
    return vec3<u32>(
        block,
        (block % BLOCKS_M) * THREAD_M + (fragment / FRAGMENTS_N) * FRAGMENT + (cell % CELLS) / FRAGMENT,
        (block / BLOCKS_M) * THREAD_N + (fragment % FRAGMENTS_N) * FRAGMENT + cell % FRAGMENT,
    );
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    // Without a call, so that validation sees that all of a workgroup leave or none.
    if (group.y * params.grid_x + group.x >= params.tiles_m * params.tiles_n) {
        return;
    }
    let tile = gemm_tile(group);
    let first_m = tile.first_m;
    let first_n = tile.n * TILE_N;

    for (var first_block = 0u; first_block < BLOCKS; first_block += subgroups) {
        let block = min(first_block + subgroup, BLOCKS - 1u);
        let block_m = (block % BLOCKS_M) * THREAD_M;
        let block_n = (block / BLOCKS_M) * THREAD_N;
        let end_block = first_block + subgroups;

        var acc = array<frag_sum_t, FRAGMENTS>();
        var sum = array<spl_t, 2u * PAIRS * FRAGMENTS / SPILLED>();
        var row_sum = spl_t();
        // Once also where K is 0: outputs become 0.
        for (var first_k = 0u; first_k < max(params.k, 1u); first_k += TILE_K) {
            for (var item = local; item < TILE_M * VECTORS; item += WORKGROUP) {
                let i = item % VECTORS;
                let r = item / VECTORS;
                let at = first_k / 4u + i;
                let row = gemm_activation_row(tile, first_m + r);
                let values = a_fmt_at(a_fmt_ahead(row, at / 8u), row, at);
                var x = values;
                if (A_ZERO == 1u) {
                    x = a_scl_shift(values, a_scl_load(row, gemm_column(4u * at) / A_GROUP_LENGTH));
                }
                x = fma_inside(x, at);
                //#unroll
                for (var c = 0u; c < 4u; c++) {
                    tile_x[r * ROW + 4u * i + c] = f16(x[c]);
                }
            }
            for (var item = local; item < TILE_N * VECTORS; item += WORKGROUP) {
                let i = item % VECTORS;
                let r = item / VECTORS;
                let at = first_k / 4u + i;
                let row = gemm_weight_row(tile, first_n + r);
                let words = w_fmt_row(row, 4u * at / w_FMT_STEP);
                let values = w_fmt_values(words, at % (w_FMT_STEP / 4u));
                var w = values;
                if (W_ZERO == 1u || W_ZERO == 3u) {
                    w = w_scl_shift(values, w_scl_load(row, gemm_column(4u * at) / W_GROUP_LENGTH));
                }
                w = fma_inside(w, at);
                //#unroll
                for (var c = 0u; c < 4u; c++) {
                    tile_w[r * ROW + 4u * i + c] = f16(w[c]);
                }
            }
            workgroupBarrier();
            for (var step = 0u; step < STEPS; step++) {
                //#unroll
                for (var k = 0u; k < STEP; k += FRAGMENT) {
                    let column = step * STEP + k;
                    var x = array<frag_x_t, FRAGMENTS_M>();
                    //#unroll
                    for (var i = 0u; i < FRAGMENTS_M; i++) {
                        x[i] = coopLoadT<frag_x_t>(&tile_x[(block_m + FRAGMENT * i) * ROW + column], ROW);
                    }
                    //#unroll
                    for (var j = 0u; j < FRAGMENTS_N; j++) {
                        // W lies as X does, so its columns along K are what a fragment has as rows.
                        let w = coopLoad<frag_w_t>(&tile_w[(block_n + FRAGMENT * j) * ROW + column], ROW);
                        //#unroll
                        for (var i = 0u; i < FRAGMENTS_M; i++) {
                            acc[i * FRAGMENTS_N + j] = coopMultiplyAdd(x[i], w, acc[i * FRAGMENTS_N + j]);
                        }
                    }
                }
                if (W_ZERO == 2u && local < TILE_M) {
                    for (var k = 0u; k < STEP; k++) {
                        row_sum += spl_t(tile_x[local * ROW + step * STEP + k]);
                    }
                }
                let end = first_k + (step + 1u) * STEP;
                if (end % SPILL == 0u || end >= params.k) {
                    let column = gemm_column(end - 1u);
                    if (local < TILE_M) {
                        var scale = 1.0;
                        if (A_GROUP != 0u) {
                            let row = gemm_activation_row(tile, first_m + local);
                            scale = a_scl_load(row, column / A_GROUP_LENGTH).scale;
                        }
                        tile_row[local] = SpillRow(row_sum, scale);
                        if (!SPL_WHOLE) {
                            row_sum = spl_t(0);
                        }
                    }
                    if (!SPL_WHOLE) {
                        for (var n = local; n < TILE_N; n += WORKGROUP) {
                            let scale = w_scl_load(gemm_weight_row(tile, first_n + n), column / W_GROUP_LENGTH);
                            tile_column[n] = SpillColumn(scale.scale, scale.minimum);
                        }
                    }
                    //#unroll
                    for (var f = 0u; f < FRAGMENTS; f += SPILLED) {
                        //#unroll
                        for (var s = 0u; s < SPILLED; s++) {
                            if (first_block + subgroup < BLOCKS) {
                                coopStoreT(acc[f + s], &tile_spill[(block * SPILLED + s) * CELLS], FRAGMENT);
                            }
                            acc[f + s] = frag_sum_t();
                        }
                        workgroupBarrier();
                        //#unroll
                        for (var p = 0u; p < PAIRS; p++) {
                            let cell = 2u * (local + WORKGROUP * p);
                            let place = matrix_place(cell, f);
                            if (place.x >= first_block && place.x < end_block) {
                                let row = tile_row[place.y];
                                //#unroll
                                for (var c = 0u; c < 2u; c++) {
                                    var scale = SpillColumn(1.0, 0.0);
                                    if (!SPL_WHOLE) {
                                        scale = tile_column[place.z + c];
                                    }
                                    sum[2u * (PAIRS * (f / SPILLED) + p) + c] = spl_add(
                                        sum[2u * (PAIRS * (f / SPILLED) + p) + c], tile_spill[cell + c], row, scale,
                                    );
                                }
                            }
                        }
                        workgroupBarrier();
                    }
                    if (end >= params.k) {
                        break;
                    }
                }
            }
            workgroupBarrier();
        }

        //#unroll
        for (var f = 0u; f < FRAGMENTS; f += SPILLED) {
            //#unroll
            for (var p = 0u; p < PAIRS; p++) {
                let place = matrix_place(2u * (local + WORKGROUP * p), f);
                if (place.x >= first_block && place.x < end_block) {
                    let row_scale = a_scl_load(gemm_activation_row(tile, first_m + place.y), 0u).scale;
                    var pair = array<out_t, 2>();
                    //#unroll
                    for (var c = 0u; c < 2u; c++) {
                        let scale = w_scl_load(gemm_weight_row(tile, first_n + place.z + c), 0u);
                        pair[c] = spl_finish(
                            sum[2u * (PAIRS * (f / SPILLED) + p) + c], tile_row[place.y].sum, row_scale, scale,
                        );
                    }
                    gemm_store_pair(tile, first_m + place.y, first_n + place.z, pair[0], pair[1]);
                }
            }
        }
        // The next turn writes the rows that this one has read.
        workgroupBarrier();
    }
}
