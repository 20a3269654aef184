// Sums over teams of LANES neighbouring invocations, through workgroup memory. Every invocation must take part.

struct red_input {
    @builtin(local_invocation_index) local: u32,
}

var<workgroup> red_cells_f32: array<f32, WORKGROUP>;
var<workgroup> red_cells_i32: array<i32, WORKGROUP>;

fn red_team(input: red_input) -> u32 {
    return input.local / LANES;
}

fn red_lane(input: red_input) -> u32 {
    return input.local % LANES;
}

// No subgroup is known of.
fn red_subgroup_lane(input: red_input) -> u32 {
    return 0u;
}

fn red_f32(value: f32, input: red_input) -> f32 {
    var sum = value;
    //#unroll
    for (var e = 0u; e < LANES_LOG2; e++) {
        workgroupBarrier();
        red_cells_f32[input.local] = sum;
        workgroupBarrier();
        sum += red_cells_f32[input.local ^ (1u << e)];
    }
    return sum;
}

fn red_i32(value: i32, input: red_input) -> i32 {
    var sum = value;
    //#unroll
    for (var e = 0u; e < LANES_LOG2; e++) {
        workgroupBarrier();
        red_cells_i32[input.local] = sum;
        workgroupBarrier();
        sum += red_cells_i32[input.local ^ (1u << e)];
    }
    return sum;
}
