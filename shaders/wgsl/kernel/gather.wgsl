// Rows of a packed matrix to f32, in the order of a sequence's next tokens: the embedding. An invocation takes four values of a row.
//#import core/decode
//#import core/sequence

struct GatherParams {
    // Rows to gather and their columns.
    rows: u32,
    columns: u32,
    grid_x: u32,
    // Elements from row to row of the output.
    output_row: u32,
    // The first row of the matrix that this chunk of it holds.
    first: u32,
    // What the values are multiplied by.
    factor: f32,
    padding_0: u32,
    padding_1: u32,
    operand: Operand,
}

@group(0) @binding(0) var<uniform> params: GatherParams;
@group(0) @binding(3) var<storage, read> sequence: array<u32>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;

fn w_operand() -> Operand {
    return params.operand;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = (group.y * params.grid_x + group.x) * WORKGROUP + local;
    let vectors = (params.columns + 3u) / 4u;
    let target_row = index / vectors;
    let i = index % vectors;
    if (target_row >= params.rows) {
        return;
    }
    let id = sequence[SEQUENCE_IDS + sequence[SEQUENCE_DONE] + target_row];
    // Another chunk holds the row.
    if (id < params.first || id - params.first >= params.operand.rows) {
        return;
    }
    let row = id - params.first;
    let values = decode_values(row, i) * params.factor;
    //#unroll
    for (var c = 0u; c < 4u; c++) {
        if (4u * i + c < params.columns) {
            output[target_row * params.output_row + 4u * i + c] = values[c];
        }
    }
}
