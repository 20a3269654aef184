// f32 rows to packed codes of 1 to 8 bits, one scale a group of GROUP codes, or none. An invocation takes a group, or the two
// groups of 16 that share a block.
//#import core/quantize

const SPANS: u32 = 32u / SPAN;
const SPAN_VECTORS: u32 = SPAN / 4u;
const UNIT_BLOCKS: u32 = (GROUP + 31u) / 32u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let units = (params.output.blocks + UNIT_BLOCKS - 1u) / UNIT_BLOCKS;
    let index = (group.y * params.grid_x + group.x) * WORKGROUP + local;
    let row = index / units;
    let first_block = (index % units) * UNIT_BLOCKS;
    if (row >= params.rows) {
        return;
    }
    var statistic: array<f32, SPANS>;
    for (var b = 0u; b < UNIT_BLOCKS; b++) {
        //#unroll
        for (var s = 0u; s < SPANS; s++) {
            //#unroll
            for (var t = 0u; t < SPAN_VECTORS; t++) {
                let i = 8u * (first_block + b) + SPAN_VECTORS * s + t;
                statistic[s] = quantize_statistic(statistic[s], quantize_values(row, i));
            }
        }
    }
    var scale: array<quantize_scale_t, SPANS>;
    //#unroll
    for (var s = 0u; s < SPANS; s++) {
        scale[s] = quantize_scale(statistic[s], GROUP);
        let scale_group = 32u * first_block / GROUP + s;
        if (scale_group < params.output.groups) {
            quantize_store_scale(row, scale_group, scale[s]);
        }
    }
    for (var b = 0u; b < UNIT_BLOCKS; b++) {
        let block = first_block + b;
        var bytes: array<u32, 8>;
        //#unroll
        for (var t = 0u; t < 8u; t++) {
            let i = 8u * block + t;
            bytes[t] = quantize_codes(quantize_values(row, i), row, i, scale[t / SPAN_VECTORS].inverse);
        }
        quantize_store_block(row, block, bytes);
    }
}
