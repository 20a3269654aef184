// The largest of each stretch of STRETCH logits, and its index. A workgroup takes a stretch.
//#import core/key

struct LargestParams {
    columns: u32,
    grid_x: u32,
    padding_0: u32,
    padding_1: u32,
}

@group(0) @binding(0) var<uniform> params: LargestParams;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> parts: array<vec2<u32>>;

var<workgroup> cells: array<vec2<u32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let stretch = group.y * params.grid_x + group.x;
    let first = stretch * STRETCH;
    if (first >= params.columns) {
        return;
    }
    let end = min(first + STRETCH, params.columns);
    var largest = vec2<u32>(0u, 0xffffffffu);
    for (var i = first + local; i < end; i += WORKGROUP) {
        largest = key_larger(largest, vec2<u32>(key_of(logits[i]), i));
    }
    //#unroll
    for (var e = 0u; e < WORKGROUP_LOG2; e++) {
        workgroupBarrier();
        cells[local] = largest;
        workgroupBarrier();
        largest = key_larger(largest, cells[local ^ (1u << e)]);
    }
    if (local == 0u) {
        parts[stretch] = largest;
    }
}
