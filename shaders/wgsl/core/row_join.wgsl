// What the invocations of a workgroup have of its row, joined: by eights, then all. Two barriers, where a tree takes two a level:
// drivers that run shaders on a CPU switch between invocations at each. Every invocation must take part, once.
//
// Reads WORKGROUP, a multiple of eight.
//#needs join_two

const ROW_PARTS: u32 = 8u;

var<workgroup> row_cells: array<vec2<f32>, WORKGROUP>;

fn row_join(value: vec2<f32>, local: u32) -> vec2<f32> {
    row_cells[local] = value;
    workgroupBarrier();
    if (local < ROW_PARTS) {
        var part = value;
        //#unroll
        for (var e = 1u; e < WORKGROUP / ROW_PARTS; e++) {
            part = join_two(part, row_cells[local + ROW_PARTS * e]);
        }
        row_cells[local] = part;
    }
    workgroupBarrier();
    var joined = row_cells[0];
    //#unroll
    for (var e = 1u; e < ROW_PARTS; e++) {
        joined = join_two(joined, row_cells[e]);
    }
    return joined;
}
