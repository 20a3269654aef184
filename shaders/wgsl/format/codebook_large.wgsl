// Codes of 5 to 8 bits that stand for the values of a table in the side data.
//#import core/bytes
//#import core/operand
//#needs operand mem_side fmt_row_t fmt_bytes

fn fmt_entry(code: u32) -> f32 {
    return bitcast<f32>(mem_side(operand().table_words + code));
}

fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    let code = bytes_unpack(fmt_bytes(words, t));
    return vec4<f32>(fmt_entry(code.x), fmt_entry(code.y), fmt_entry(code.z), fmt_entry(code.w));
}

fn fmt_hold(lane: u32) {
}
