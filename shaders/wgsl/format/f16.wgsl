// f16 elements, two a word. Needs no f16 feature.
//#needs fmt_row_t

fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words[2u * t]), unpack2x16float(words[2u * t + 1u]));
}

fn fmt_hold(lane: u32) {
}
