// Sums over teams of LANES neighbouring lanes, by subgroup shuffles. LANES is a power of two no larger than the
// smallest subgroup; which invocation is which lane is read, never assumed.

struct red_input {
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

fn red_team(input: red_input) -> u32 {
    return input.subgroup * (input.size / LANES) + input.lane / LANES;
}

fn red_lane(input: red_input) -> u32 {
    return input.lane % LANES;
}

// Which lane of the subgroup this is.
fn red_subgroup_lane(input: red_input) -> u32 {
    return input.lane;
}

fn red_f32(value: f32, input: red_input) -> f32 {
    var sum = value;
    //#unroll
    for (var e = 0u; e < LANES_LOG2; e++) {
        sum += subgroupShuffleXor(sum, 1u << e);
    }
    return sum;
}

fn red_i32(value: i32, input: red_input) -> i32 {
    var sum = value;
    //#unroll
    for (var e = 0u; e < LANES_LOG2; e++) {
        sum += subgroupShuffleXor(sum, 1u << e);
    }
    return sum;
}
