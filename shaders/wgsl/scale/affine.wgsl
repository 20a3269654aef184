// One scale a tensor, row or group, with an optional integer zero point or float minimum:
// value = scale * (integer - zero) + minimum.
//
// Reads SCALE_F16: f16 scales (and minima), two a word, instead of f32; ZERO: 0 none, 1 integer zero points, four a
// word, 2 minima; INTERLEAVE.
//#import core/operand
//#needs side operand

const SCL_ZERO_INTEGER: u32 = 1u;
const SCL_ZERO_MINIMUM: u32 = 2u;

struct scl_t {
    scale: f32,
    zero: i32,
    minimum: f32,
}

fn scl_index(row: u32, group: u32) -> u32 {
    let groups = operand().groups;
    if (groups == 0u) {
        return 0u;
    }
    return operand_side(groups, INTERLEAVE, row, group);
}

fn scl_float(section: u32, index: u32) -> f32 {
    if (SCALE_F16) {
        return unpack2x16float(side[section + index / 2u])[index % 2u];
    }
    return bitcast<f32>(side[section + index]);
}

fn scl_load(row: u32, group: u32) -> scl_t {
    let index = scl_index(row, group);
    var result = scl_t(scl_float(operand().scales, index), 0, 0.0);
    if (ZERO == SCL_ZERO_INTEGER) {
        result.zero = i32((side[operand().zeros + index / 4u] >> (8u * (index % 4u))) & 0xffu);
    }
    if (ZERO == SCL_ZERO_MINIMUM) {
        result.minimum = scl_float(operand().zeros, index);
    }
    return result;
}

// The same for four rows from a multiple of four on, which lie side by side where rows alternate in fours.
struct scl_quad_t {
    scale: vec4<f32>,
    zero: vec4<i32>,
    minimum: vec4<f32>,
}

fn scl_float_quad(section: u32, index: u32) -> vec4<f32> {
    if (SCALE_F16) {
        let word = section + index / 2u;
        return vec4<f32>(unpack2x16float(side[word]), unpack2x16float(side[word + 1u]));
    }
    let word = section + index;
    return bitcast<vec4<f32>>(vec4<u32>(side[word], side[word + 1u], side[word + 2u], side[word + 3u]));
}

fn scl_load_quad(row: u32, group: u32) -> scl_quad_t {
    var result: scl_quad_t;
    if (operand().groups == 0u) {
        let one = scl_load(row, group);
        result.scale = vec4<f32>(one.scale);
        result.zero = vec4<i32>(one.zero);
        result.minimum = vec4<f32>(one.minimum);
        return result;
    }
    let index = scl_index(row, group);
    result.scale = scl_float_quad(operand().scales, index);
    if (ZERO == SCL_ZERO_INTEGER) {
        let word = side[operand().zeros + index / 4u];
        result.zero = vec4<i32>((vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu));
    }
    if (ZERO == SCL_ZERO_MINIMUM) {
        result.minimum = scl_float_quad(operand().zeros, index);
    }
    return result;
}

fn scl_pick(quad: scl_quad_t, r: u32) -> scl_t {
    return scl_t(quad.scale[r], quad.zero[r], quad.minimum[r]);
}

fn scl_apply(values: vec4<f32>, scale: scl_t) -> vec4<f32> {
    var result = values;
    if (ZERO == SCL_ZERO_INTEGER) {
        result -= f32(scale.zero);
    }
    result *= scale.scale;
    if (ZERO == SCL_ZERO_MINIMUM) {
        result += scale.minimum;
    }
    return result;
}
