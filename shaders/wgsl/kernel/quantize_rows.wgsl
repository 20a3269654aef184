// f32 rows to packed codes of 1 to 8 bits, one scale a row. A workgroup takes a row.
//#import core/quantize

var<workgroup> cells: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = group.y * params.grid_x + group.x;
    if (row >= params.rows) {
        return;
    }
    var statistic = 0.0;
    for (var i = local; 4u * i < params.columns; i += WORKGROUP) {
        statistic = quantize_statistic(statistic, quantize_values(row, i));
    }
    //#unroll
    for (var e = 0u; e < WORKGROUP_LOG2; e++) {
        workgroupBarrier();
        cells[local] = statistic;
        workgroupBarrier();
        statistic = quantize_join(statistic, cells[local ^ (1u << e)]);
    }
    let scale = quantize_scale(statistic, params.columns);
    if (local == 0u) {
        quantize_store_scale(row, 0u, scale);
    }
    for (var block = local; block < params.output.blocks; block += WORKGROUP) {
        var bytes: array<u32, 8>;
        //#unroll
        for (var t = 0u; t < 8u; t++) {
            let i = 8u * block + t;
            bytes[t] = quantize_codes(quantize_values(row, i), row, i, scale.inverse);
        }
        quantize_store_block(row, block, bytes);
    }
}
