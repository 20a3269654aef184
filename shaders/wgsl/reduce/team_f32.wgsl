// The team's sum of f32 accumulators. Needs a reduce module beside it.
//#needs red_f32 red_input

fn team_sum(value: f32, input: red_input) -> f32 {
    return red_f32(value, input);
}
