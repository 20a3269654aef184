// Codes of 3 or 4 bits that stand for the values of a table in the parameters, which lanes hold.
//
// Each lane of a subgroup has a value or two in registers, and a code picks its value by a shuffle: one in place of a tree
// of fifteen selects. Shuffles read no lane that is elsewhere, so all lanes of a subgroup come here together.
//
// Reads TABLE_LANES: the lanes that hold the table, 8 or 16, no more than the smallest subgroup has.
//#import core/bytes
//#import core/operand
//#needs operand fmt_row_t fmt_bytes

// Values lane % TABLE_LANES and, of tables of more than that, TABLE_LANES after it.
var<private> fmt_held: f32;
var<private> fmt_held_high: f32;

// Entry 0 .. 7 of two vectors. An array indexed by an argument would be copied to memory.
fn fmt_entry(first: vec4<f32>, second: vec4<f32>, entry: u32) -> f32 {
    let values = select(first, second, (entry & 4u) != 0u);
    let low = select(values.x, values.y, (entry & 1u) != 0u);
    let high = select(values.z, values.w, (entry & 1u) != 0u);
    return select(low, high, (entry & 2u) != 0u);
}

// Before any value is read, once: fills the table of this lane.
fn fmt_hold(lane: u32) {
    let low = fmt_entry(operand().table[0], operand().table[1], lane);
    if (BITS == 3u) {
        fmt_held = low;
        return;
    }
    let high = fmt_entry(operand().table[2], operand().table[3], lane);
    if (TABLE_LANES == 8u) {
        fmt_held = low;
        fmt_held_high = high;
    } else {
        fmt_held = select(low, high, (lane & 8u) != 0u);
    }
}

fn fmt_value(code: u32) -> f32 {
    if (BITS == 3u || TABLE_LANES == 16u) {
        return subgroupShuffle(fmt_held, code);
    }
    let low = subgroupShuffle(fmt_held, code & 7u);
    let high = subgroupShuffle(fmt_held_high, code & 7u);
    return select(low, high, code > 7u);
}

fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    let code = bytes_unpack(fmt_bytes(words, t));
    return vec4<f32>(fmt_value(code.x), fmt_value(code.y), fmt_value(code.z), fmt_value(code.w));
}
