// What a row kernel works on: act(gate) * up, the two in one row, `up` after UP columns. GATE 0 is SiLU (SwiGLU), 1 GELU by its
// tanh approximation (GeGLU).
//#needs src_load params

const SRC_NORM: bool = false;

const SRC_SILU: u32 = 0u;
const SRC_GELU: u32 = 1u;

fn src_values(row: u32, i: u32) -> vec4<f32> {
    let gate = src_load(row, 4u * i);
    let up = src_load(row, params.up + 4u * i);
    var x = gate;
    if (GATE == SRC_GELU) {
        // 0.5 * (1 + tanh(z)) is the logistic function of 2z.
        x = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate);
    }
    // Past 80, exp would come near f32's largest value, and the quotient is 0 to f32's precision.
    return gate / (vec4<f32>(1.0) + exp(min(-x, vec4<f32>(80.0)))) * up;
}

fn src_square(row: u32, i: u32) -> f32 {
    return 0.0;
}
