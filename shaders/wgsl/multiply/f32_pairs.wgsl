// Codes of two rows an f32: a multiply-add is two products.
//
// A word is the code of one row and 4096 times that of another. Products with a code of a weight add up until the low sum
// could pass 12 bits; the high one is then within 12 bits too, and the whole below 2^24. f32 holds all such integers, so
// nothing is rounded, whether multiply and add are one operation on a device or two.
//#import core/bytes

alias mul_t = vec4<f32>;
alias mul_sum_t = f32;

// The words of codes 4t .. 4t + 3 of two rows of X.
fn mul_activation(bytes: vec2<u32>) -> vec4<f32> {
    // i32, since processors convert that faster than u32.
    return vec4<f32>(vec4<i32>(
        i32((bytes.x & 0xffu) | ((bytes.y & 0xffu) << 12u)),
        i32(((bytes.x >> 8u) & 0xffu) | ((bytes.y << 4u) & 0xff000u)),
        i32(((bytes.x >> 16u) & 0xffu) | ((bytes.y >> 4u) & 0xff000u)),
        i32((bytes.x >> 24u) | ((bytes.y >> 12u) & 0xff000u)),
    ));
}

// Codes 4t .. 4t + 3 of a row of W.
fn mul_weight(bytes: u32) -> vec4<f32> {
    return vec4<f32>(vec4<i32>(bytes_unpack(bytes)));
}

// The sums of the two rows.
fn mul_part(sum: f32) -> vec2<i32> {
    let both = i32(sum);
    return vec2<i32>(both & 0xfff, both >> 12u);
}
