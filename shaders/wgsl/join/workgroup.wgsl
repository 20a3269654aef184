// Four numbers of each invocation joined over the workgroup, through workgroup memory: by eights, then all. Every invocation
// must take part.
//
// Reads WORKGROUP, a multiple of eight.

struct join_input {
    @builtin(local_invocation_index) local: u32,
}

const JOIN_PARTS: u32 = 8u;

var<workgroup> join_cells: array<vec4<f32>, WORKGROUP>;

fn join_max(value: vec4<f32>, input: join_input) -> vec4<f32> {
    workgroupBarrier();
    join_cells[input.local] = value;
    workgroupBarrier();
    if (input.local < JOIN_PARTS) {
        var part = value;
        //#unroll
        for (var e = 1u; e < WORKGROUP / JOIN_PARTS; e++) {
            part = max(part, join_cells[input.local + JOIN_PARTS * e]);
        }
        join_cells[input.local] = part;
    }
    workgroupBarrier();
    var joined = join_cells[0];
    //#unroll
    for (var e = 1u; e < JOIN_PARTS; e++) {
        joined = max(joined, join_cells[e]);
    }
    return joined;
}

fn join_sum(value: vec4<f32>, input: join_input) -> vec4<f32> {
    workgroupBarrier();
    join_cells[input.local] = value;
    workgroupBarrier();
    if (input.local < JOIN_PARTS) {
        var part = value;
        //#unroll
        for (var e = 1u; e < WORKGROUP / JOIN_PARTS; e++) {
            part += join_cells[input.local + JOIN_PARTS * e];
        }
        join_cells[input.local] = part;
    }
    workgroupBarrier();
    var joined = join_cells[0];
    //#unroll
    for (var e = 1u; e < JOIN_PARTS; e++) {
        joined += join_cells[e];
    }
    return joined;
}
