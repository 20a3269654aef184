// Operands of the fma and lmul engines: f32 values.
//#import core/gemm

// Activation values past K count as 0, whatever lies there.
fn fma_inside(values: vec4<f32>, i: u32) -> vec4<f32> {
    let k = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), values, k < vec4<u32>(params.k));
}

// Weights past K too, where they may be anything: floats in a buffer of the caller, or codes of a half block, whose
// scale there is another group's. Elsewhere padding decodes to finite values, and the activation's 0 is enough.
fn fma_weight(values: vec4<f32>, i: u32) -> vec4<f32> {
    if (w_FMT_STEP < 32u || SPAN < 32u) {
        return fma_inside(values, i);
    }
    return values;
}
