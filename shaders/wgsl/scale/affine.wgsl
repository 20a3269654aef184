// One scale a tensor, row or group, with an optional integer zero point, float minimum or codebook choice:
// value = scale * (integer - zero) + minimum.
//
// Reads SCALE: the stored type, as SCL_… below; ZERO: 0 none, 1 integer zero points, four a word, 2 minima, 3 choices of a
// codebook, four a word; GROUP and INTERLEAVE. Types of two levels multiply them.
//#import core/operand
//#needs mem_side mem_side_pair mem_side_quad operand

const SCL_F32: u32 = 0u;
const SCL_F16: u32 = 1u;
const SCL_E8M0: u32 = 2u;
const SCL_E4M3: u32 = 3u;
// A signed byte, with an f32 a row.
const SCL_INT8: u32 = 4u;
// A signed byte, with an f16 every 256 columns of a row.
const SCL_SUPER: u32 = 5u;
const SCL_ZERO_INTEGER: u32 = 1u;
const SCL_ZERO_MINIMUM: u32 = 2u;
const SCL_ZERO_CHOICE: u32 = 3u;
// What a codebook's table has for the code that the group chooses for; no other value is as large.
const SCL_CHOSEN: f32 = 3.0e38;

struct scl_t {
    scale: f32,
    zero: i32,
    minimum: f32,
}

fn scl_index(row: u32, group: u32) -> u32 {
    let groups = operand().groups;
    if (GROUP == 0u && groups == 0u) {
        return 0u;
    }
    return operand_side(groups, INTERLEAVE, row, group);
}

// What bytes stand for: scales, or minima, of 8 bits.
fn scl_bytes(bytes: vec4<u32>) -> vec4<f32> {
    if (SCALE == SCL_E8M0) {
        // 2^-127, the code 0, is subnormal.
        let bits = select(bytes << vec4<u32>(23u), vec4<u32>(0x00400000u), bytes == vec4<u32>(0u));
        return bitcast<vec4<f32>>(bits);
    }
    if (SCALE == SCL_E4M3) {
        // As format/minifloat; matrices hold no NaN.
        let magnitude = bytes & vec4<u32>(0x7fu);
        let subnormal = magnitude < vec4<u32>(8u);
        let bits = (magnitude << vec4<u32>(20u)) + select(vec4<u32>(0x3c000000u), vec4<u32>(0x3c800000u), subnormal);
        let value = bitcast<vec4<f32>>(bits) - select(vec4<f32>(0.0), vec4<f32>(0.015625), subnormal);
        return select(value, -value, bytes >= vec4<u32>(0x80u));
    }
    return vec4<f32>(bitcast<vec4<i32>>(bytes << vec4<u32>(24u)) >> vec4<u32>(24u));
}

// One entry of a section of scales or minima, the first of two levels.
fn scl_first(section: u32, index: u32) -> f32 {
    if (SCALE == SCL_F32) {
        return bitcast<f32>(mem_side(section + index));
    }
    if (SCALE == SCL_F16) {
        return unpack2x16float(mem_side(section + index / 2u))[index % 2u];
    }
    return scl_bytes(vec4<u32>((mem_side(section + index / 4u) >> (8u * (index % 4u))) & 0xffu)).x;
}

// The second level of a row and group: of the scales, or of the minima.
fn scl_second(section: u32, row: u32, group: u32) -> f32 {
    if (SCALE == SCL_E4M3) {
        return bitcast<f32>(mem_side(section));
    }
    if (SCALE == SCL_INT8) {
        return bitcast<f32>(mem_side(section + row));
    }
    let index = operand_side(operand().second_groups, INTERLEAVE, row, group * GROUP / 256u);
    return unpack2x16float(mem_side(section + index / 2u))[index % 2u];
}

fn scl_load(row: u32, group: u32) -> scl_t {
    let index = scl_index(row, group);
    var result = scl_t(scl_first(operand().scales, index), 0, 0.0);
    if (SCALE >= SCL_E4M3) {
        result.scale *= scl_second(operand().second, row, group);
    }
    if (ZERO == SCL_ZERO_INTEGER || ZERO == SCL_ZERO_CHOICE) {
        result.zero = i32((mem_side(operand().zeros + index / 4u) >> (8u * (index % 4u))) & 0xffu);
    }
    if (ZERO == SCL_ZERO_MINIMUM) {
        result.minimum = scl_first(operand().zeros, index);
        if (SCALE == SCL_SUPER) {
            result.minimum *= scl_second(operand().second_minima, row, group);
        }
    }
    return result;
}

// The same for four rows from a multiple of four on, which lie side by side where rows alternate in fours.
struct scl_quad_t {
    scale: vec4<f32>,
    zero: vec4<i32>,
    minimum: vec4<f32>,
}

fn scl_first_quad(section: u32, index: u32) -> vec4<f32> {
    if (SCALE == SCL_F32) {
        return bitcast<vec4<f32>>(mem_side_quad(section + index));
    }
    if (SCALE == SCL_F16) {
        let words = mem_side_pair(section + index / 2u);
        return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
    }
    return scl_bytes(scl_split(mem_side(section + index / 4u)));
}

fn scl_second_quad(section: u32, row: u32, group: u32) -> vec4<f32> {
    if (SCALE == SCL_E4M3) {
        return vec4<f32>(bitcast<f32>(mem_side(section)));
    }
    if (SCALE == SCL_INT8) {
        return bitcast<vec4<f32>>(mem_side_quad(section + row));
    }
    let index = operand_side(operand().second_groups, INTERLEAVE, row, group * GROUP / 256u);
    let words = mem_side_pair(section + index / 2u);
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn scl_split(word: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
}

fn scl_load_quad(row: u32, group: u32) -> scl_quad_t {
    var result: scl_quad_t;
    if (GROUP == 0u && operand().groups == 0u) {
        let one = scl_load(row, group);
        result.scale = vec4<f32>(one.scale);
        result.zero = vec4<i32>(one.zero);
        result.minimum = vec4<f32>(one.minimum);
        return result;
    }
    // Of a multiple of four, which `row` is.
    let index = (row / INTERLEAVE * operand().groups + group) * INTERLEAVE;
    result.scale = scl_first_quad(operand().scales, index);
    if (SCALE >= SCL_E4M3) {
        result.scale *= scl_second_quad(operand().second, row, group);
    }
    if (ZERO == SCL_ZERO_INTEGER || ZERO == SCL_ZERO_CHOICE) {
        result.zero = vec4<i32>(scl_split(mem_side(operand().zeros + index / 4u)));
    }
    if (ZERO == SCL_ZERO_MINIMUM) {
        result.minimum = scl_first_quad(operand().zeros, index);
        if (SCALE == SCL_SUPER) {
            result.minimum *= scl_second_quad(operand().second_minima, row, group);
        }
    }
    return result;
}

fn scl_pick(quad: scl_quad_t, r: u32) -> scl_t {
    return scl_t(quad.scale[r], quad.zero[r], quad.minimum[r]);
}

// Values less their zero point, and with the group's choice in place; not yet scaled.
fn scl_shift(values: vec4<f32>, scale: scl_t) -> vec4<f32> {
    var result = values;
    if (ZERO == SCL_ZERO_CHOICE) {
        let chosen = vec4<f32>(operand().choices[scale.zero]);
        result = select(result, chosen, result == vec4<f32>(SCL_CHOSEN));
    }
    if (ZERO == SCL_ZERO_INTEGER) {
        result -= f32(scale.zero);
    }
    return result;
}

fn scl_apply(values: vec4<f32>, scale: scl_t) -> vec4<f32> {
    var result = scl_shift(values, scale) * scale.scale;
    if (ZERO == SCL_ZERO_MINIMUM) {
        result += scale.minimum;
    }
    return result;
}
