// cap * tanh(x / cap): the soft cap of scores and logits.

fn cap_soft(x: vec4<f32>, cap: f32) -> vec4<f32> {
    // tanh by exp, whose argument is bounded.
    let z = clamp(2.0 * x / cap, vec4<f32>(-40.0), vec4<f32>(40.0));
    return cap * (vec4<f32>(1.0) - 2.0 / (exp(z) + 1.0));
}
