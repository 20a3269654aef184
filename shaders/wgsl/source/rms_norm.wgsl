// What a row kernel works on: RMSNorm of rows of f32, x * weight / sqrt(mean of x^2 + epsilon). The kernel adds the squares up and
// multiplies by the last factor, so that a row is read once for it and for what else the kernel needs of it.
//#needs src_load

const SRC_NORM: bool = true;

@group(0) @binding(SRC_BINDING) var<storage, read> src_weights: array<vec4<f32>>;

fn src_values(row: u32, i: u32) -> vec4<f32> {
    return src_load(row, 4u * i) * src_weights[i];
}

fn src_square(row: u32, i: u32) -> f32 {
    let values = src_load(row, 4u * i);
    return dot(values, values);
}
