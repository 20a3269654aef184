// The parts of attention that stretches of tokens gave, in ascending order, joined and divided. An invocation takes four channels of
// a row's head.
//#import core/ext_exp
//#import core/sequence

struct MergeParams {
    rows: u32,
    grid_x: u32,
    splits: u32,
    query_heads: u32,
    output_row: u32,
    window: u32,
    padding_0: u32,
    padding_1: u32,
}

@group(0) @binding(0) var<uniform> params: MergeParams;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> sequence: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;

const VECTORS: u32 = HEAD_DIM / 4u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = (group.y * params.grid_x + group.x) * WORKGROUP + local;
    let vector = index % VECTORS;
    let head = index / VECTORS % params.query_heads;
    let row = index / VECTORS / params.query_heads;
    if (row >= params.rows) {
        return;
    }
    let position = sequence[SEQUENCE_DONE] + row;
    // Tiles of one row see the same tokens as the row.
    let first = (position - min(position, params.window - 1u)) / SPLIT;
    let last = position / SPLIT;
    var exponent = vec4<f32>(EXT_NOTHING);
    var sum = 0.0;
    var values = vec4<f32>(0.0);
    for (var split = first; split <= last; split++) {
        let part = ((row * params.query_heads + head) * params.splits + split) * (VECTORS + 1u);
        let whole = parts[part + VECTORS];
        let joined = max(exponent, vec4<f32>(whole.y));
        let before = ext_power(exponent - joined);
        let scaled = ext_power(vec4<f32>(whole.y) - joined);
        values = values * before + parts[part + vector] * scaled;
        sum = sum * before.x + whole.x * scaled.x;
        exponent = joined;
    }
    output[(row * params.output_row + HEAD_DIM * head) / 4u + vector] = values / sum;
}
