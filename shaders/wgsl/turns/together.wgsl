// Steps of K of a team's lanes: all take as many turns, for shuffles that want every lane.
//
// Lane l takes steps l, l + LANES, ...; a step past the end repeats the last one, and its values count as 0.

fn turns_of(steps: u32, lane: u32) -> u32 {
    return (steps + LANES - 1u) / LANES;
}

fn turns_step(step: u32, steps: u32) -> u32 {
    return min(step, steps - 1u);
}

fn turns_inside(values: vec4<f32>, step: u32, steps: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), values, step < steps);
}
