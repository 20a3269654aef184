// bf16 elements, two a word: the upper half of an f32.
//#needs fmt_row_t

fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    let low = words[2u * t];
    let high = words[2u * t + 1u];
    return bitcast<vec4<f32>>(vec4<u32>(low << 16u, low & 0xffff0000u, high << 16u, high & 0xffff0000u));
}

fn fmt_hold(lane: u32) {
}
