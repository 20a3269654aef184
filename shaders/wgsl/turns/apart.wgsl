// Steps of K of a team's lanes: each lane ends with its own last step.
//
// Lane l takes steps l, l + LANES, ...

fn turns_of(steps: u32, lane: u32) -> u32 {
    return (steps + LANES - 1u - lane) / LANES;
}

fn turns_step(step: u32, steps: u32) -> u32 {
    return step;
}

fn turns_inside(values: vec4<f32>, step: u32, steps: u32) -> vec4<f32> {
    return values;
}
