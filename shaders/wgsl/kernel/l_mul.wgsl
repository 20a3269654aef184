// L-Mul products of two f32 matrices, element by element. An invocation makes four elements of a row.
//
// Takes and gives bits, so that no device touches NaN or subnormals on the way.
//#import core/l_mul

struct LMulParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    // Words from row to row of both inputs.
    x_row: u32,
    y_row: u32,
    // Output addressing, in elements.
    output_row: u32,
    padding_0: u32,
    padding_1: u32,
}

@group(0) @binding(0) var<uniform> params: LMulParams;
@group(0) @binding(1) var<storage, read> x_codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> y_codes: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> output: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = (group.y * params.grid_x + group.x) * WORKGROUP + local;
    let vectors = (params.columns + 3u) / 4u;
    let row = index / vectors;
    let i = index % vectors;
    if (row >= params.rows) {
        return;
    }
    // Rows begin on whole vectors.
    let x = l_mul_round(x_codes[row * (params.x_row / 4u) + i]);
    let y = l_mul_round(y_codes[row * (params.y_row / 4u) + i]);
    let products = l_mul_product(x, y);
    //#unroll
    for (var c = 0u; c < 4u; c++) {
        if (4u * i + c < params.columns) {
            output[row * params.output_row + 4u * i + c] = products[c];
        }
    }
}
