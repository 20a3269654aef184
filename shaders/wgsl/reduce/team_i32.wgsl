// The team's sum of i32 accumulators. Needs a reduce module beside it.
//#needs red_i32 red_input

fn team_sum(value: i32, input: red_input) -> i32 {
    return red_i32(value, input);
}
