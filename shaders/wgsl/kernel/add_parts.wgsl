// The parts of K that a GEMM was split into, added up in ascending order; then what its output takes besides: a residual, or
// halves. An invocation makes four outputs of a row.
//#import slot:output

struct AddPartsParams {
    // Rows of a batch, and their columns.
    rows: u32,
    columns: u32,
    parts: u32,
    // Vectors of a row of a part.
    vectors: u32,
    grid_x: u32,
    // Elements from one row of the output to the next.
    output_row: u32,
    padding_0: u32,
    padding_1: u32,
}

@group(0) @binding(0) var<uniform> params: AddPartsParams;
@group(0) @binding(1) var<storage, read> parts: array<vec4<out_t>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = (group.y * params.grid_x + group.x) * WORKGROUP + local;
    let row = index / params.vectors;
    if (row >= params.rows) {
        return;
    }
    // From one part of a batch to the next.
    let distance = params.rows * params.vectors;
    var at = group.z * params.parts * distance + index;
    var sum = parts[at];
    for (var part = 1u; part < params.parts; part++) {
        at += distance;
        sum += parts[at];
    }
    let column = 4u * (index % params.vectors);
    let first = (group.z * params.rows + row) * params.output_row + column;
    out_store_pair(first, sum.x, sum.y, column + 1u < params.columns);
    if (column + 2u < params.columns) {
        out_store_pair(first + 2u, sum.z, sum.w, column + 3u < params.columns);
    }
}
