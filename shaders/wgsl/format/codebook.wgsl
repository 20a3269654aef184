// Codes of 1 to 4 bits that stand for the values of a table in the parameters.
//
// A code picks its value through a tree of selects, a level a bit: no memory is read, and no two invocations go apart.
// Tables are handed on as vectors: an array indexed by an argument would be copied to memory.
//#import core/operand
//#needs operand fmt_row_t fmt_bytes

// A bit of four codes, one a byte. In the sign's place it is tested without a mask.
fn fmt_bit(bytes: u32, bit: u32) -> vec4<bool> {
    let places = vec4<u32>(31u, 23u, 15u, 7u) - vec4<u32>(bit);
    return bitcast<vec4<i32>>(vec4<u32>(bytes) << places) < vec4<i32>(0);
}

fn fmt_four(values: vec4<f32>, bytes: u32) -> vec4<f32> {
    let low = fmt_bit(bytes, 0u);
    return select(
        select(vec4<f32>(values.x), vec4<f32>(values.y), low),
        select(vec4<f32>(values.z), vec4<f32>(values.w), low),
        fmt_bit(bytes, 1u),
    );
}

fn fmt_eight(first: vec4<f32>, second: vec4<f32>, bytes: u32) -> vec4<f32> {
    return select(fmt_four(first, bytes), fmt_four(second, bytes), fmt_bit(bytes, 2u));
}

fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    let bytes = fmt_bytes(words, t);
    if (BITS <= 2u) {
        return fmt_four(operand().table[0], bytes);
    }
    let low = fmt_eight(operand().table[0], operand().table[1], bytes);
    if (BITS == 3u) {
        return low;
    }
    return select(low, fmt_eight(operand().table[2], operand().table[3], bytes), fmt_bit(bytes, 3u));
}

fn fmt_hold(lane: u32) {
}
