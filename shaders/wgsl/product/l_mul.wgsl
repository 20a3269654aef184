// Products of f32 by L-Mul: exact by its own rules; only the sums round.
//#import core/l_mul

// Operands are rounded once, where they are decoded.
fn product_operand(values: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(l_mul_round(bitcast<vec4<u32>>(values)));
}

fn product_of(x: vec4<f32>, w: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(l_mul_product(bitcast<vec4<u32>>(x), bitcast<vec4<u32>>(w)));
}

fn product_add(sum: vec4<f32>, x: f32, w: vec4<f32>) -> vec4<f32> {
    return sum + product_of(vec4<f32>(x), w);
}

// The four products from left to right, then the sum.
fn product_add_dot(sum: f32, x: vec4<f32>, w: vec4<f32>) -> f32 {
    let products = product_of(x, w);
    return sum + (((products.x + products.y) + products.z) + products.w);
}
