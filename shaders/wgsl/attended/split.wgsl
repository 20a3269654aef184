// Where attention's sums go: to a part of each stretch of tokens, for attention_merge. A part is HEAD_DIM sums, then the sum of the
// weights and their exponent.
//#needs params

@group(0) @binding(4) var<storage, read_write> parts: array<vec4<f32>>;

fn att_part(row: u32, head: u32, split: u32) -> u32 {
    return ((row * params.query_heads + head) * params.splits + split) * (HEAD_DIM / 4u + 1u);
}

fn att_store(row: u32, head: u32, split: u32, vector: u32, values: vec4<f32>, sum: f32) {
    parts[att_part(row, head, split) + vector] = values;
}

fn att_store_sum(row: u32, head: u32, split: u32, sum: f32, exponent: f32) {
    parts[att_part(row, head, split) + HEAD_DIM / 4u] = vec4<f32>(sum, exponent, 0.0, 0.0);
}
