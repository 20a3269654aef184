// Where attention's sums go: divided, to the output, since one workgroup saw all tokens of a row.

@group(0) @binding(4) var<storage, read_write> output: array<vec4<f32>>;

fn att_store(row: u32, head: u32, split: u32, vector: u32, values: vec4<f32>, sum: f32) {
    output[(row * params.output_row + HEAD_DIM * head) / 4u + vector] = values / sum;
}

fn att_store_sum(row: u32, head: u32, split: u32, sum: f32, exponent: f32) {
}
