// Affine integer codes: value = multiplier * code + offset.
//#import core/bytes
//#import core/operand
//#needs operand fmt_row_t fmt_bytes

// Values 4t .. 4t + 3 of a block, before zero point and scale.
fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    let whole = vec4<i32>(bytes_unpack(fmt_bytes(words, t))) * operand().multiplier + operand().offset;
    return vec4<f32>(whole);
}

fn fmt_hold(lane: u32) {
}
