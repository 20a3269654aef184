// L-Mul: the product of two floats by one addition of their bits. arXiv:2410.00907; the rules are those of LMul in
// anybit-formats.
//
// Reads L_MUL_MANTISSA, the mantissa bits that operands keep, L_MUL_OFFSET, the exponent l of the offset 2^-l, and
// L_MUL_FORMULA: whether a carry of the mantissas stays out of the exponent. Integer operations on bits alone.

const L_MUL_SIGN: u32 = 0x80000000u;
const L_MUL_ONE: u32 = 0x3f800000u;
const L_MUL_INFINITY: u32 = 0x7f800000u;
// The mantissa's 1, which is also the smallest normal magnitude.
const L_MUL_UNIT: u32 = 0x00800000u;
const L_MUL_DROPPED: u32 = 23u - L_MUL_MANTISSA;
const L_MUL_STEP: u32 = 1u << L_MUL_DROPPED;

// An operand to the nearest of the mantissa bits, ties to even, and no further than the largest finite one; subnormals to
// 0. Infinities and NaN stay what they are.
fn l_mul_round(bits: vec4<u32>) -> vec4<u32> {
    let sign = bits & vec4<u32>(L_MUL_SIGN);
    let magnitude = bits ^ sign;
    var rounded = magnitude;
    if (L_MUL_DROPPED > 0u) {
        let odd = (magnitude >> vec4<u32>(L_MUL_DROPPED)) & vec4<u32>(1u);
        rounded = (magnitude + odd + vec4<u32>((L_MUL_STEP >> 1u) - 1u)) & vec4<u32>(~(L_MUL_STEP - 1u));
        rounded = min(rounded, vec4<u32>(L_MUL_INFINITY - L_MUL_STEP));
    }
    rounded = select(rounded, vec4<u32>(0u), magnitude < vec4<u32>(L_MUL_UNIT));
    return sign | select(rounded, magnitude, magnitude >= vec4<u32>(L_MUL_INFINITY));
}

// Products of rounded operands: 0 and below the smallest normal number 0, beyond the largest finite one that, of an
// infinity or NaN NaN.
fn l_mul_product(x: vec4<u32>, y: vec4<u32>) -> vec4<u32> {
    let sign = (x ^ y) & vec4<u32>(L_MUL_SIGN);
    let a = x & vec4<u32>(~L_MUL_SIGN);
    let b = y & vec4<u32>(~L_MUL_SIGN);
    let offset = L_MUL_UNIT >> L_MUL_OFFSET;
    // The product's bits with twice the bias. Finite operands cannot make it wrap.
    var biased = a + b + vec4<u32>(offset);
    if (L_MUL_FORMULA) {
        let mask = vec4<u32>(L_MUL_UNIT - 1u);
        let significand = (a & mask) + (b & mask) + vec4<u32>(L_MUL_UNIT + offset);
        let exponents = (a & vec4<u32>(L_MUL_INFINITY)) + (b & vec4<u32>(L_MUL_INFINITY));
        // From 2 on, one place to the right, to nearest even; its leading one then raises the exponent.
        let halved = (significand + ((significand >> vec4<u32>(1u)) & vec4<u32>(1u))) >> vec4<u32>(1u);
        let whole = significand - vec4<u32>(L_MUL_UNIT);
        biased = exponents + select(whole, halved, significand >= vec4<u32>(2u * L_MUL_UNIT));
    }
    let capped = min(biased, vec4<u32>(L_MUL_ONE + (L_MUL_INFINITY - 1u))) - vec4<u32>(L_MUL_ONE);
    let nothing = (biased < vec4<u32>(L_MUL_ONE + L_MUL_UNIT)) | (min(a, b) == vec4<u32>(0u));
    let result = sign | select(capped, vec4<u32>(0u), nothing);
    return select(result, vec4<u32>(0x7fc00000u), max(a, b) >= vec4<u32>(L_MUL_INFINITY));
}
