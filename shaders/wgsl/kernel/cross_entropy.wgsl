// The negative logarithm of the probability that logits give to the sequence's token after each of the next ones. A workgroup takes a
// row.
//
// Reads SOFT_CAP: whether logits are capped.
//#import core/cap
//#import core/ext_exp
//#import core/sequence
//#import slot:join

struct CrossEntropyParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    // Words from row to row.
    input_row: u32,
    output_row: u32,
    // The place among the next tokens of the one whose logits the first row holds.
    first: u32,
    cap: f32,
    padding_0: u32,
}

@group(0) @binding(0) var<uniform> params: CrossEntropyParams;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> sequence: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

fn load(row: u32, i: u32) -> vec4<f32> {
    let values = logits[row * params.input_row / 4u + i];
    if (SOFT_CAP) {
        return cap_soft(values, params.cap);
    }
    return values;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, input: join_input) {
    let row = group.y * params.grid_x + group.x;
    if (row >= params.rows) {
        return;
    }
    var sum = vec4<f32>(0.0);
    var exponent = vec4<f32>(EXT_NOTHING);
    for (var i = input.local; 4u * i < params.columns; i += WORKGROUP) {
        let part = ext_exp(load(row, i));
        let is_inside = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.columns);
        let n = select(vec4<f32>(EXT_NOTHING), part.n, is_inside);
        let joined = max(exponent, n);
        sum = sum * ext_power(exponent - joined)
            + select(vec4<f32>(0.0), part.m, is_inside) * ext_power(n - joined);
        exponent = joined;
    }
    let largest = join_max(exponent, input);
    let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
    let total = join_sum(sum * ext_power(exponent - vec4<f32>(most)), input);
    if (input.local == 0u) {
        let id = sequence[SEQUENCE_IDS + sequence[SEQUENCE_DONE] + params.first + row + 1u];
        let drawn = min(id, params.columns - 1u);
        let logit = load(row, drawn / 4u)[drawn % 4u];
        let logarithm = (most + log2((total.x + total.y) + (total.z + total.w))) * 0.6931471805599453;
        output[row * params.output_row] = logarithm - logit;
    }
}
