// What a row kernel works on: RMSNorm of rows of f32, x * weight / sqrt(mean of x^2 + epsilon). The kernel adds the squares up and
// multiplies by the last factor, so that a row is read once for it and for what else the kernel needs of it.
//#needs src_load params

const SRC_NORM: bool = true;

@group(0) @binding(SRC_BINDING) var<storage, read> src_weights: array<vec4<f32>>;

fn src_values(row: u32, i: u32) -> vec4<f32> {
    return src_load(row, 4u * i) * src_weights[i];
}

fn src_square(row: u32, i: u32) -> f32 {
    // What lies behind a row's end is not the row's.
    let is_inside = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.columns);
    let values = select(vec4<f32>(0.0), src_load(row, 4u * i), is_inside);
    return dot(values, values);
}
