// Rows of a source to packed codes of 1 to 8 bits, one scale a row. A workgroup takes a row.
//#import core/quantize
//#import core/row_join

// The statistic and, of RMSNorm, the sum of squares.
fn join_two(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(quantize_join(a.x, b.x), a.y + b.y);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = group.y * params.grid_x + group.x;
    if (row >= params.rows) {
        return;
    }
    for (var strand = local; strand < ROW_STRANDS; strand += WORKGROUP) {
        var statistic = 0.0;
        var squares = 0.0;
        for (var i = strand; 4u * i < params.columns; i += ROW_STRANDS) {
            statistic = quantize_statistic(statistic, quantize_values(row, i));
            squares += src_square(row, i);
        }
        row_strands[strand] = vec2<f32>(statistic, squares);
    }
    let joined = row_join(local);
    var factor = 1.0;
    if (SRC_NORM) {
        // A positive factor moves out of every statistic.
        factor = inverseSqrt(joined.y / f32(params.columns) + params.epsilon);
    }
    let scale = quantize_scale(joined.x * factor, params.columns);
    if (local == 0u) {
        quantize_store_scale(row, 0u, scale);
    }
    for (var block = local; block < params.output.blocks; block += WORKGROUP) {
        var bytes = array<u32, 8>();
        //#unroll
        for (var t = 0u; t < 8u; t++) {
            let i = 8u * block + t;
            bytes[t] = quantize_codes(quantize_values(row, i) * factor, row, i, scale.inverse);
        }
        quantize_store_block(row, block, bytes);
    }
}
