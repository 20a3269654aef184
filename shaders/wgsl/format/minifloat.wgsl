// Minifloats of 2 to 8 bits: sign, exponent, mantissa. One pipeline serves every split of the same number of bits.
//
// Reads BITS, and SPECIAL: whether some codes are infinite or NaN.
//#import core/bytes
//#import core/operand
//#needs operand fmt_row_t fmt_bytes

// Integer operations on the bits of an f32 alone: a subnormal never arises, which a device might flush.
fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    let code = bytes_unpack(fmt_bytes(words, t));
    let magnitude = code & vec4<u32>((1u << (BITS - 1u)) - 1u);
    let mantissa = operand().mantissa;
    // 127 less the bias of the format, where an exponent field belongs.
    let rebias = (128u - (1u << (BITS - 2u - mantissa))) << 23u;
    // A subnormal m gets an exponent field of 1 and so a leading one too much; the subtraction is exact.
    let subnormal = magnitude < vec4<u32>(1u << mantissa);
    let extra = select(vec4<u32>(0u), vec4<u32>(0x00800000u), subnormal);
    let bits = (magnitude << vec4<u32>(23u - mantissa)) + (extra + vec4<u32>(rebias));
    let one = select(vec4<f32>(0.0), vec4<f32>(bitcast<f32>(rebias + 0x00800000u)), subnormal);
    var result = bitcast<vec4<u32>>(bitcast<vec4<f32>>(bits) - one);
    if (SPECIAL) {
        // The first special magnitude is infinite in formats that have infinities, else NaN; all above are NaN.
        let infinite = select(0x7fc00000u, 0x7f800000u, operand().infinite != 0u);
        let value = select(vec4<u32>(0x7fc00000u), vec4<u32>(infinite), magnitude == vec4<u32>(operand().special));
        result = select(result, value, magnitude >= vec4<u32>(operand().special));
    }
    return bitcast<vec4<f32>>(result | ((code << vec4<u32>(32u - BITS)) & vec4<u32>(0x80000000u)));
}

fn fmt_hold(lane: u32) {
}
