// Integer codes: code = round(clamp((x * inverse + add) * factor, low, high)) + offset. Given the inverse, a code is exact but for bipolar codes of 2 bits or more, where a driver may contract the product
// and the sum: a tie may fall either way.
//
// Reads ROUNDING.
//#needs params ROUND_NEAREST_EVEN round_shift_right

fn enc_codes(values: vec4<f32>, inverse: f32, random: vec4<u32>) -> vec4<u32> {
    if (params.sign == 1u) {
        // On the bits, since a comparison may take a negative subnormal for zero.
        return select(vec4<u32>(1u), vec4<u32>(0u), bitcast<vec4<u32>>(values) > vec4<u32>(0x80000000u));
    }
    let level = clamp(
        (values * inverse + params.add) * params.factor, vec4<f32>(params.low), vec4<f32>(params.high),
    );
    if (ROUNDING == ROUND_NEAREST_EVEN) {
        return vec4<u32>(round(level) + params.offset);
    }
    // Levels are below 2^8, so bits drop out of every one.
    let bits = bitcast<vec4<u32>>(level);
    let significand = (bits & vec4<u32>(0x007fffffu)) | vec4<u32>(0x00800000u);
    let exponent = (bits >> vec4<u32>(23u)) & vec4<u32>(0xffu);
    let magnitude = vec4<i32>(round_shift_right(significand, vec4<u32>(150u) - exponent, random));
    let rounded = select(magnitude, -magnitude, bits >= vec4<u32>(0x80000000u));
    return vec4<u32>(rounded + vec4<i32>(i32(params.offset)));
}
