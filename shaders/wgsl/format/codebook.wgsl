// Codes of 1 to 4 bits that stand for the values of a table in the parameters.
//
// A code picks its value through a tree of selects, a level a bit: no memory is read, and no two invocations go apart.
//#import core/bytes
//#import core/operand
//#needs operand fmt_row_t fmt_bytes

fn fmt_pair(entry: u32, bit: vec4<bool>) -> vec4<f32> {
    let table = operand().table[entry / 4u];
    return select(vec4<f32>(table[entry % 4u]), vec4<f32>(table[entry % 4u + 1u]), bit);
}

fn fmt_four(entry: u32, code: vec4<u32>) -> vec4<f32> {
    let low = (code & vec4<u32>(1u)) != vec4<u32>(0u);
    let high = (code & vec4<u32>(2u)) != vec4<u32>(0u);
    return select(fmt_pair(entry, low), fmt_pair(entry + 2u, low), high);
}

fn fmt_eight(entry: u32, code: vec4<u32>) -> vec4<f32> {
    return select(fmt_four(entry, code), fmt_four(entry + 4u, code), (code & vec4<u32>(4u)) != vec4<u32>(0u));
}

fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    let code = bytes_unpack(fmt_bytes(words, t));
    if (BITS <= 2u) {
        return fmt_four(0u, code);
    }
    if (BITS == 3u) {
        return fmt_eight(0u, code);
    }
    return select(fmt_eight(0u, code), fmt_eight(8u, code), (code & vec4<u32>(8u)) != vec4<u32>(0u));
}
