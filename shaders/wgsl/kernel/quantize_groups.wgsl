// Rows of a source to packed codes of 1 to 8 bits, one scale a group of GROUP codes, or none. An invocation takes a unit: a group, or
// the two groups of 16 that share a block. A workgroup takes WORKGROUP units or, of RMSNorm, whose sum runs along it, a row.
//#import core/quantize
//#import core/row_norm

const SPANS: u32 = 32u / SPAN;
const SPAN_VECTORS: u32 = SPAN / 4u;
const UNIT_BLOCKS: u32 = (GROUP + 31u) / 32u;

fn quantize_unit(row: u32, first_block: u32, factor: f32) {
    var statistic: array<f32, SPANS>;
    for (var b = 0u; b < UNIT_BLOCKS; b++) {
        //#unroll
        for (var s = 0u; s < SPANS; s++) {
            //#unroll
            for (var t = 0u; t < SPAN_VECTORS; t++) {
                let i = 8u * (first_block + b) + SPAN_VECTORS * s + t;
                statistic[s] = quantize_statistic(statistic[s], quantize_values(row, i) * factor);
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
        var bytes = array<u32, 8>();
        //#unroll
        for (var t = 0u; t < 8u; t++) {
            let i = 8u * block + t;
            bytes[t] = quantize_codes(
                quantize_values(row, i) * factor, row, i, scale[t / SPAN_VECTORS].inverse,
            );
        }
        quantize_store_block(row, block, bytes);
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let units = (params.output.blocks + UNIT_BLOCKS - 1u) / UNIT_BLOCKS;
    let workgroup = group.y * params.grid_x + group.x;
    if (SRC_NORM) {
        if (workgroup >= params.rows) {
            return;
        }
        let factor = row_norm_factor(workgroup, local);
        for (var unit = local; unit < units; unit += WORKGROUP) {
            quantize_unit(workgroup, unit * UNIT_BLOCKS, factor);
        }
    } else {
        let index = workgroup * WORKGROUP + local;
        if (index / units < params.rows) {
            quantize_unit(index / units, index % units * UNIT_BLOCKS, 1.0);
        }
    }
}
