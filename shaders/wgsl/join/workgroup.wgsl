// Four numbers of each invocation joined over the workgroup, through workgroup memory. Every invocation must take part.

struct join_input {
    @builtin(local_invocation_index) local: u32,
}

var<workgroup> join_cells: array<vec4<f32>, WORKGROUP>;

fn join_max(value: vec4<f32>, input: join_input) -> vec4<f32> {
    var joined = value;
    //#unroll
    for (var e = 0u; e < WORKGROUP_LOG2; e++) {
        workgroupBarrier();
        join_cells[input.local] = joined;
        workgroupBarrier();
        joined = max(joined, join_cells[input.local ^ (1u << e)]);
    }
    return joined;
}

fn join_sum(value: vec4<f32>, input: join_input) -> vec4<f32> {
    var joined = value;
    //#unroll
    for (var e = 0u; e < WORKGROUP_LOG2; e++) {
        workgroupBarrier();
        join_cells[input.local] = joined;
        workgroupBarrier();
        joined += join_cells[input.local ^ (1u << e)];
    }
    return joined;
}
