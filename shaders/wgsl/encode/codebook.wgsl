// Codes of 1 to 4 bits of a table: the nearest value to x * inverse; half way between two, the smaller. NaN counts as 0.
// Ends past the last value of the table are the largest f32, which no value passes.
//
// Reads SCALE.
//#needs params QUANTIZE_NONE

// Integers in the order of the values, since a comparison of floats may take subnormals for 0.
fn enc_order(bits: vec4<u32>) -> vec4<i32> {
    return bitcast<vec4<i32>>(bits ^ ((vec4<u32>(0u) - (bits >> vec4<u32>(31u))) >> vec4<u32>(1u)));
}

fn enc_codes(values: vec4<f32>, inverse: f32, random: vec4<u32>) -> vec4<u32> {
    // On the bits, since a comparison may take infinities and NaN for absent.
    var bits = bitcast<vec4<u32>>(values);
    if (SCALE != QUANTIZE_NONE) {
        // Without a scale there is no product, which might flush a subnormal.
        bits = bitcast<vec4<u32>>(values * inverse);
    }
    let magnitude = min(bits & vec4<u32>(0x7fffffffu), vec4<u32>(0x7f7fffffu));
    let is_nan = (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    let finite = magnitude | (bits & vec4<u32>(0x80000000u));
    let value = enc_order(select(finite, vec4<u32>(0u), is_nan));
    // How many of the values end below it.
    var place = vec4<u32>(0u);
    //#unroll
    for (var i = 0u; i < 15u; i++) {
        place += select(vec4<u32>(0u), vec4<u32>(1u), value > enc_order(vec4<u32>(bitcast<u32>(params.ends[i / 4u][i % 4u]))));
    }
    let high = place >= vec4<u32>(8u);
    let order = select(vec4<u32>(params.order.x), vec4<u32>(params.order.y), high);
    return (order >> (4u * (place % vec4<u32>(8u)))) & vec4<u32>(0xfu);
}
