// Products of f32 by multiply-add.

fn product_operand(values: vec4<f32>) -> vec4<f32> {
    return values;
}

fn product_add(sum: vec4<f32>, x: f32, w: vec4<f32>) -> vec4<f32> {
    return sum + x * w;
}

fn product_add_dot(sum: f32, x: vec4<f32>, w: vec4<f32>) -> f32 {
    return sum + dot(x, w);
}
