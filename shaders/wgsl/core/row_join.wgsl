// What a row's vectors come to, joined over the workgroup: 64 strands of them, these by eights, then all. A device's workgroup has
// one invocation a strand or fewer; the order of sums is the same. Two barriers, where a tree takes two a level: drivers that
// run shaders on a CPU switch between invocations at each.
//
// Reads WORKGROUP, from eight to ROW_STRANDS, a power of two. Each invocation writes row_strands[local + WORKGROUP * n], and
// then takes part, once.
//#needs join_two

const ROW_STRANDS: u32 = 64u;
const ROW_PARTS: u32 = 8u;

var<workgroup> row_strands: array<vec2<f32>, ROW_STRANDS>;

fn row_join(local: u32) -> vec2<f32> {
    workgroupBarrier();
    if (local < ROW_PARTS) {
        var part = row_strands[local];
        //#unroll
        for (var e = 1u; e < ROW_STRANDS / ROW_PARTS; e++) {
            part = join_two(part, row_strands[local + ROW_PARTS * e]);
        }
        row_strands[local] = part;
    }
    workgroupBarrier();
    var joined = row_strands[0];
    //#unroll
    for (var e = 1u; e < ROW_PARTS; e++) {
        joined = join_two(joined, row_strands[e]);
    }
    return joined;
}
