// A code an f32: a multiply-add is a product.
//
// A span of 32 products of 8 bits each is less than 2^24. f32 holds all such integers, so nothing is rounded, whether
// multiply and add are one operation on a device or two.
//#import core/bytes

alias mul_t = vec4<f32>;
alias mul_sum_t = f32;

// Codes 4t .. 4t + 3 of a row of X, the first of two.
fn mul_activation(bytes: vec2<u32>) -> vec4<f32> {
    return mul_weight(bytes.x);
}

// Codes 4t .. 4t + 3 of a row of W.
fn mul_weight(bytes: u32) -> vec4<f32> {
    // i32, since processors convert that faster than u32.
    return vec4<f32>(vec4<i32>(bytes_unpack(bytes)));
}

// The sum of the row, the first of two.
fn mul_part(sum: f32) -> vec2<i32> {
    return vec2<i32>(i32(sum), 0);
}
