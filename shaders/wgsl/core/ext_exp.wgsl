// e^x as m * 2^n with an integer n, so that sums of exponentials neither overflow nor vanish: Dukhan and Ablavatski, Two-Pass
// Softmax, arXiv:2001.04438. The powers of two by which sums are brought to one n are exact.

struct ext_t {
    m: vec4<f32>,
    n: vec4<f32>,
}

// The n of what counts for nothing. Finite, since compilers may assume that there is no infinity.
const EXT_NOTHING: f32 = -1.0e30;

fn ext_exp(x: vec4<f32>) -> ext_t {
    let n = round(x * 1.44269504088896341);
    // ln 2 in two parts, the first of 9 bits, so that its product with n is exact without a fused multiply-add.
    let t = (x - n * 0.693359375) - n * -2.12194440e-4;
    var m = vec4<f32>(0.0082892906);
    m = m * t + 0.041897822;
    m = m * t + 0.16667652;
    m = m * t + 0.4999915;
    m = m * t + 0.9999997;
    m = m * t + 1.0;
    return ext_t(m, n);
}

// 2^d for integers d of at most 0; 0 where it is not normal.
fn ext_power(d: vec4<f32>) -> vec4<f32> {
    let exponent = vec4<i32>(max(d, vec4<f32>(-127.0))) + vec4<i32>(127);
    return bitcast<vec4<f32>>(vec4<u32>(exponent) << vec4<u32>(23u));
}
