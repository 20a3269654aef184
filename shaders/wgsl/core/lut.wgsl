// Products by table lookup (T-MAC, arXiv:2407.00088): for four activations x0 .. x3 the sums ±x0 ±x1 ±x2 ±x3, looked up
// by four bits of a plane of W.
//
// A bit of plane p stands for b = 1 or -1, so that an integer of W is
//   a * u + c = a / 2 * sum over p of 2^p * b_p + (a * (2^BITS - 1) / 2 + c)
// and every encoding is two coefficients: one of what is looked up, one of the sum of x.
//
// Bits 8q + 4h .. 8q + 4h + 3 of a plane's word are the codes 16h + q + 0, 4, 8 and 12 of the block: that is a group of
// four. A table has the 8 sums with -x3; the sum of index i from 8 on is minus that of 15 - i.
//
// Eight neighbouring invocations are a cluster. The block's eight tables are theirs alone: invocation e makes and holds
// entry e of each, the table slot lets the others look it up, and each does so for TILE_N rows of W of its own. LANES
// clusters take turns at the blocks of the same rows.
//
// Reads CELLS: words of workgroup memory, WORKGROUP for each value that an invocation shares or joins at a time.
//#import core/gemm
//#import core/bitplane

const LUT_CLUSTER: u32 = 8u;
// Clusters beside each other that have rows of their own.
const LUT_ROW_SETS: u32 = WORKGROUP / (LUT_CLUSTER * LANES);
// Invocations that have rows of their own.
const LUT_ROWS: u32 = LUT_CLUSTER * LUT_ROW_SETS;
const LUT_SIGN: u32 = 0x80000000u;

var<workgroup> lut_cells: array<u32, CELLS>;

fn lut_lane(place: u32) -> u32 {
    return (place / LUT_CLUSTER) % LANES;
}

// The first of the TILE_N rows of W of an invocation.
fn lut_first_n(tile: Tile, place: u32) -> u32 {
    let row_set = place / (LUT_CLUSTER * LANES);
    return ((tile.n * LUT_ROW_SETS + row_set) * LUT_CLUSTER + place % LUT_CLUSTER) * TILE_N;
}

// Activations past K count as 0, whatever lies there.
fn lut_inside(values: vec4<f32>, i: u32) -> vec4<f32> {
    let k = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), values, k < vec4<u32>(params.k));
}

// Entry `entry` of the tables q = 0 .. 3 of half a block; x[i] has the activations that bit i of the groups belongs to.
fn lut_entries(x: array<vec4<f32>, 4>, entry: u32) -> vec4<f32> {
    let signs = ((vec3<u32>(entry) << vec3<u32>(31u, 30u, 29u)) & vec3<u32>(LUT_SIGN)) ^ vec3<u32>(LUT_SIGN);
    return ((lut_signed(x[0], signs.x) + lut_signed(x[1], signs.y)) + lut_signed(x[2], signs.z)) - x[3];
}

fn lut_signed(values: vec4<f32>, sign: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(values) ^ vec4<u32>(sign));
}

// The sum of the activations of half a block.
fn lut_sum(x: array<vec4<f32>, 4>) -> f32 {
    let sum = (x[0] + x[1]) + (x[2] + x[3]);
    return (sum.x + sum.y) + (sum.z + sum.w);
}

// Plane words whose groups of four bits have the index of an entry in their lower three: where the top bit is set, that
// of 15 less the group.
fn lut_fold(words: vec4<u32>) -> vec4<u32> {
    return words ^ (((words >> vec4<u32>(3u)) & vec4<u32>(0x11111111u)) * 7u);
}

// A span's value, from what was looked up and the sum of its activations.
fn lut_value(looked_up: f32, sum: f32, scale: w_scl_t) -> f32 {
    let weight = params.weight;
    var offset = 0.5 * f32(weight.multiplier * ((1 << W_BITS) - 1) + 2 * weight.offset);
    if (W_ZERO == 1u) {
        offset -= f32(scale.zero);
    }
    var value = (0.5 * f32(weight.multiplier) * looked_up + offset * sum) * scale.scale;
    if (W_ZERO == 2u) {
        value += scale.minimum * sum;
    }
    return value;
}

// The clusters' sums number i of a row, joined.
fn lut_joined(row: u32, i: u32) -> f32 {
    let first = i * WORKGROUP + (row / LUT_CLUSTER) * LANES * LUT_CLUSTER + row % LUT_CLUSTER;
    var part: array<f32, LANES>;
    //#unroll
    for (var l = 0u; l < LANES; l++) {
        part[l] = bitcast<f32>(lut_cells[first + l * LUT_CLUSTER]);
    }
    // Neighbours first, then neighbouring pairs.
    //#unroll
    for (var e = 1u; e <= LANES_LOG2; e++) {
        //#unroll
        for (var l = 0u; l < LANES / 2u; l++) {
            if (l < (LANES >> e)) {
                part[l] = part[2u * l] + part[2u * l + 1u];
            }
        }
    }
    return part[0];
}

// Joins the clusters' sums and stores them, two neighbouring columns at a time; TILE_N is even.
fn lut_store(tile: Tile, place: u32, sums: array<f32, TILE_M * TILE_N>) {
    workgroupBarrier();
    //#unroll
    for (var i = 0u; i < TILE_M * TILE_N; i++) {
        lut_cells[i * WORKGROUP + place] = bitcast<u32>(sums[i]);
    }
    workgroupBarrier();
    for (var at = place; at < LUT_ROWS * TILE_M * TILE_N / 2u; at += WORKGROUP) {
        let row = at % LUT_ROWS;
        let i = 2u * (at / LUT_ROWS);
        let n = (tile.n * LUT_ROWS + row) * TILE_N + i % TILE_N;
        gemm_store_pair(tile, tile.first_m + i / TILE_N, n, lut_joined(row, i), lut_joined(row, i + 1u));
    }
}
