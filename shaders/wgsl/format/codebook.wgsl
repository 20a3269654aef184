// Codes of 1 to 4 bits that stand for the values of a table in the parameters.
//
// A code picks its value through a tree of selects, a level a bit: no memory is read, and no two invocations go apart.
//#import core/bytes
//#import core/operand
//#needs operand fmt_row_t fmt_bytes

// Tables are handed on as vectors: an array indexed by an argument would be copied to memory.
fn fmt_four(values: vec4<f32>, code: vec4<u32>) -> vec4<f32> {
    let low = (code & vec4<u32>(1u)) != vec4<u32>(0u);
    let high = (code & vec4<u32>(2u)) != vec4<u32>(0u);
    return select(
        select(vec4<f32>(values.x), vec4<f32>(values.y), low),
        select(vec4<f32>(values.z), vec4<f32>(values.w), low),
        high,
    );
}

fn fmt_eight(first: vec4<f32>, second: vec4<f32>, code: vec4<u32>) -> vec4<f32> {
    return select(fmt_four(first, code), fmt_four(second, code), (code & vec4<u32>(4u)) != vec4<u32>(0u));
}

fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    let code = bytes_unpack(fmt_bytes(words, t));
    if (BITS <= 2u) {
        return fmt_four(operand().table[0], code);
    }
    let low = fmt_eight(operand().table[0], operand().table[1], code);
    if (BITS == 3u) {
        return low;
    }
    return select(
        low,
        fmt_eight(operand().table[2], operand().table[3], code),
        (code & vec4<u32>(8u)) != vec4<u32>(0u),
    );
}
