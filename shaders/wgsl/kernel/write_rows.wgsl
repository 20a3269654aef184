// Rows of a source (RMSNorm, a gated product) as f32, a residual added. A workgroup takes a row.
//#import core/row_norm
//#import slot:source
//#import slot:addend

struct WriteParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    // Words from row to row, multiples of four.
    input_row: u32,
    output_row: u32,
    residual_row: u32,
    // Columns from `gate` to `up` of a gated source.
    up: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: WriteParams;
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;

fn src_load(row: u32, column: u32) -> vec4<f32> {
    return input[(row * params.input_row + column) / 4u];
}

fn inside(i: u32) -> vec4<bool> {
    return vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.columns);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = group.y * params.grid_x + group.x;
    if (row >= params.rows) {
        return;
    }
    var factor = 1.0;
    if (SRC_NORM) {
        factor = row_norm_factor(row, local);
    }
    for (var i = local; 4u * i < params.columns; i += WORKGROUP) {
        let values = add_values(row, i, src_values(row, i) * factor);
        output[row * params.output_row / 4u + i] = select(vec4<f32>(0.0), values, inside(i));
    }
}
