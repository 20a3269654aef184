// Any packed matrix to f32. An invocation takes four values of a row.
//#import core/decode

struct DecodeParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    // Output addressing, in elements.
    output_offset: u32,
    output_row: u32,
    padding_0: u32,
    padding_1: u32,
    padding_2: u32,
    operand: Operand,
}

@group(0) @binding(0) var<uniform> params: DecodeParams;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

fn w_operand() -> Operand {
    return params.operand;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = (group.y * params.grid_x + group.x) * WORKGROUP + local;
    let vectors = (params.columns + 3u) / 4u;
    let row = index / vectors;
    let i = index % vectors;
    if (row >= params.rows) {
        return;
    }
    let values = decode_values(row, i);
    //#unroll
    for (var c = 0u; c < 4u; c++) {
        if (4u * i + c < params.columns) {
            output[params.output_offset + row * params.output_row + 4u * i + c] = values[c];
        }
    }
}
