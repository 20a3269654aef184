// f32 elements.
//#needs fmt_row_t

fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(words);
}

fn fmt_hold(lane: u32) {
}
