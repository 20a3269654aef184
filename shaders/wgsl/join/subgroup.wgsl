// Four numbers of each invocation joined over the workgroup: by subgroup operations, then over the subgroups in order.

struct join_input {
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

var<workgroup> join_cells: array<vec4<f32>, WORKGROUP>;

fn join_max(value: vec4<f32>, input: join_input) -> vec4<f32> {
    let part = subgroupMax(value);
    workgroupBarrier();
    if (input.lane == 0u) {
        join_cells[input.subgroup] = part;
    }
    workgroupBarrier();
    var joined = join_cells[0];
    for (var s = 1u; s < input.subgroups; s++) {
        joined = max(joined, join_cells[s]);
    }
    return joined;
}

fn join_sum(value: vec4<f32>, input: join_input) -> vec4<f32> {
    let part = subgroupAdd(value);
    workgroupBarrier();
    if (input.lane == 0u) {
        join_cells[input.subgroup] = part;
    }
    workgroupBarrier();
    var joined = join_cells[0];
    for (var s = 1u; s < input.subgroups; s++) {
        joined += join_cells[s];
    }
    return joined;
}
