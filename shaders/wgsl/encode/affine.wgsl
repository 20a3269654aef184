// Integer codes: code = round(clamp((x * inverse + add) * factor, low, high)) + offset, where round goes to nearest, ties to
// even. Given the inverse, a code is exact but for bipolar codes of 2 bits or more, where a driver may contract the product
// and the sum: a tie may fall either way.
//#needs params

fn enc_codes(values: vec4<f32>, inverse: f32) -> vec4<u32> {
    if (params.sign == 1u) {
        // On the bits, since a comparison may take a negative subnormal for zero.
        return select(vec4<u32>(1u), vec4<u32>(0u), bitcast<vec4<u32>>(values) > vec4<u32>(0x80000000u));
    }
    return vec4<u32>(round(clamp(
        (values * inverse + params.add) * params.factor, vec4<f32>(params.low), vec4<f32>(params.high),
    )) + params.offset);
}
