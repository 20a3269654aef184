// Minifloats: x * inverse rounded on the bits of the f32; beyond the largest finite value, that value or, with SPECIAL,
// infinity or NaN. NaN gives the format's NaN, or 0 where it has none.
//
// Reads BITS, SCALE, ROUNDING and SPECIAL.
//#needs params QUANTIZE_NONE ROUND_NEAREST_EVEN round_shift_right

fn enc_codes(values: vec4<f32>, inverse: f32, random: vec4<u32>) -> vec4<u32> {
    var bits = bitcast<vec4<u32>>(values);
    if (SCALE != QUANTIZE_NONE) {
        // Without a scale there is no product, which might flush a subnormal.
        bits = bitcast<vec4<u32>>(values * inverse);
    }
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    let mantissa = params.output.mantissa;
    // The exponent field, in f32, of the smallest normal number.
    let first_normal = 129u - (1u << (BITS - 2u - mantissa));
    let shift = 23u - mantissa;

    let rebased = magnitude - vec4<u32>((first_normal - 1u) << 23u);
    var normal = (rebased + vec4<u32>((1u << (shift - 1u)) - 1u) + ((rebased >> vec4<u32>(shift)) & vec4<u32>(1u)))
        >> vec4<u32>(shift);

    // Steps of the subnormals are those of the smallest normal numbers: the further below, the more bits drop out.
    let exponent = magnitude >> vec4<u32>(23u);
    let is_subnormal = exponent < vec4<u32>(first_normal);
    let below = select(vec4<u32>(0u), vec4<u32>(first_normal) - exponent, is_subnormal);
    let drop = min(vec4<u32>(shift) + below, vec4<u32>(31u));
    let significand = (magnitude & vec4<u32>(0x007fffffu)) | vec4<u32>(0x00800000u);
    let half = vec4<u32>(1u) << (drop - vec4<u32>(1u));
    var subnormal = (significand + half - vec4<u32>(1u) + ((significand >> drop) & vec4<u32>(1u))) >> drop;
    if (ROUNDING != ROUND_NEAREST_EVEN) {
        normal = round_shift_right(select(rebased, significand, is_subnormal), vec4<u32>(shift) + below, random);
        subnormal = normal;
    }

    var code = select(normal, subnormal, is_subnormal);
    if (SPECIAL) {
        code = select(code, vec4<u32>(params.output.special), code > vec4<u32>(params.max_code));
    } else {
        code = min(code, vec4<u32>(params.max_code));
    }
    let signed = code | ((bits >> vec4<u32>(31u)) << vec4<u32>(BITS - 1u));
    return select(signed, vec4<u32>(params.nan_code), magnitude > vec4<u32>(0x7f800000u));
}
