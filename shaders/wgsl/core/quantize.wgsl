// Rounding f32 values to packed codes: the scale of a row or group, and the codes by the encode slot.
//
// Reads INTERLEAVE; SCALE: the stored type of scales, as below; SUMS and
// SUM_BLOCK: whether, and over how many codes, sums of codes are kept; ROUNDING, as core/round; SCALE_RULE: that of E8M0
// scales, as below; SPECIAL: whether minifloats beyond the largest finite value become infinite or NaN.
//#import core/operand
//#import core/bytes
//#import core/round
//#import slot:encode
//#import slot:source
//#import slot:store

struct QuantizeParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    // First word of the input and words from row to row.
    input_offset: u32,
    input_row: u32,
    // 0: largest magnitude, 1: largest value, 2: mean magnitude.
    statistic: u32,
    // 1: a code is the sign alone.
    sign: u32,
    // Of minifloats: the code of the largest finite value, and that of NaN.
    max_code: u32,
    // scale = max(statistic / divisor, smallest)
    divisor: f32,
    smallest: f32,
    add: f32,
    factor: f32,
    low: f32,
    high: f32,
    offset: f32,
    nan_code: u32,
    // Of codebooks: where the values of the table, in order, end; and their codes, four bits each.
    ends: array<vec4<f32>, 4>,
    order: vec4<u32>,
    // Which random bits round stochastically.
    seed: u32,
    // Of a gated source: columns from `gate` to `up`. Of RMSNorm: what is added to the mean square.
    up: u32,
    epsilon: f32,
    // Rows of the matrix before these.
    rows_before: u32,
    output: Operand,
}

@group(0) @binding(0) var<uniform> params: QuantizeParams;
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
// Atomic, since scales of less than 32 bits share words.
@group(0) @binding(3) var<storage, read_write> side: array<atomic<u32>>;
// 1 / scale of each row or group, in order of rows.
@group(0) @binding(4) var<storage, read_write> inverses: array<f32>;

const QUANTIZE_F32: u32 = 0u;
const QUANTIZE_E8M0: u32 = 2u;
// Bare codes.
const QUANTIZE_NONE: u32 = 9u;

const QUANTIZE_FLOOR: u32 = 0u;
const QUANTIZE_CEIL: u32 = 1u;
const QUANTIZE_NEAREST: u32 = 2u;

// Values 4i .. 4i + 3 of a row, and which of them lie inside it.
fn quantize_inside(i: u32) -> vec4<bool> {
    return vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.columns);
}

fn src_load(row: u32, column: u32) -> vec4<f32> {
    return input[(params.input_offset + row * params.input_row + column) / 4u];
}

fn quantize_values(row: u32, i: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), src_values(row, i), quantize_inside(i));
}

fn quantize_statistic(so_far: f32, values: vec4<f32>) -> f32 {
    if (params.statistic == 1u) {
        return max(so_far, max(max(values.x, values.y), max(values.z, values.w)));
    }
    let size = abs(values);
    if (params.statistic == 2u) {
        return so_far + ((size.x + size.y) + (size.z + size.w));
    }
    return max(so_far, max(max(size.x, size.y), max(size.z, size.w)));
}

fn quantize_join(a: f32, b: f32) -> f32 {
    if (params.statistic == 2u) {
        return a + b;
    }
    return max(a, b);
}

// The code of the E8M0 scale next to statistic / divisor: 2^(floor(log2 statistic) - floor(log2 divisor)), the smallest
// that is no less, or the nearest, from half way the one with the even exponent.
fn quantize_e8m0(statistic: f32) -> u32 {
    // A zero may be negative.
    let bits = bitcast<u32>(statistic) & 0x7fffffffu;
    let divisor = bitcast<u32>(params.divisor);
    var exponent = i32(bits >> 23u) - i32(divisor >> 23u);
    let a = (bits & 0x007fffffu) | 0x00800000u;
    let b = (divisor & 0x007fffffu) | 0x00800000u;
    if (SCALE_RULE == QUANTIZE_CEIL) {
        exponent += select(0, 1, a > b);
    }
    if (SCALE_RULE == QUANTIZE_NEAREST) {
        let is_odd = (exponent & 1) != 0;
        let up = 2u * a > 3u * b || (2u * a == 3u * b && is_odd);
        let down = 4u * a < 3u * b || (4u * a == 3u * b && is_odd);
        exponent += select(0, 1, up) - select(0, 1, down);
    }
    return select(u32(clamp(exponent + 127, 0, 254)), 0u, bits < 0x00800000u);
}

// What is stored as the scale of `count` values, and the inverse of the scale. Where the scale is 0 or subnormal the
// inverse is 0.
struct quantize_scale_t {
    bits: u32,
    inverse: f32,
}

fn quantize_scale(statistic: f32, count: u32) -> quantize_scale_t {
    if (SCALE == QUANTIZE_NONE) {
        return quantize_scale_t(0u, 1.0);
    }
    if (SCALE == QUANTIZE_E8M0) {
        let code = quantize_e8m0(statistic);
        // 2^-127, the inverse of 2^127, is subnormal.
        let inverse = select((254u - code) << 23u, 0x00400000u, code == 254u);
        return quantize_scale_t(code, bitcast<f32>(select(inverse, 0u, code == 0u)));
    }
    var value = statistic;
    if (params.statistic == 2u) {
        value /= f32(count);
    }
    let scale = max(value / params.divisor, params.smallest);
    if ((bitcast<u32>(scale) & 0x7f800000u) == 0u) {
        return quantize_scale_t(0u, 0.0);
    }
    return quantize_scale_t(bitcast<u32>(scale), 1.0 / scale);
}

// Random bits for values 4i .. 4i + 3 of a row, by their places in the matrix; 0 where none are needed.
fn quantize_random(row: u32, i: u32) -> vec4<u32> {
    if (ROUNDING != ROUND_STOCHASTIC) {
        return vec4<u32>(0u);
    }
    let column = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
    return round_random_at(params.seed, params.rows_before + row, params.columns, column);
}

// The codes of values 4i .. 4i + 3 of a row, one a byte; 0 past the end of the row.
fn quantize_codes(values: vec4<f32>, row: u32, i: u32, inverse: f32) -> u32 {
    let codes = enc_codes(values, inverse, quantize_random(row, i));
    let bytes = select(vec4<u32>(0u), codes, quantize_inside(i));
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

fn quantize_store_scale(row: u32, group: u32, scale: quantize_scale_t) {
    let groups = params.output.groups;
    let index = operand_side(groups, INTERLEAVE, row, group);
    if (SCALE == QUANTIZE_F32) {
        atomicStore(&side[params.output.scales + index], scale.bits);
    }
    if (SCALE == QUANTIZE_E8M0) {
        // Other invocations own the other bytes of the word.
        let word = params.output.scales + index / 4u;
        let shift = 8u * (index % 4u);
        atomicAnd(&side[word], ~(0xffu << shift));
        atomicOr(&side[word], scale.bits << shift);
    }
    if (SCALE != QUANTIZE_NONE) {
        inverses[row * groups + group] = scale.inverse;
    }
}

fn quantize_sum(bytes: u32) -> u32 {
    return dot4U8Packed(bytes, BYTES_ONE);
}

// Writes a block of 32 codes: words of four codes, one a byte.
fn quantize_store_block(row: u32, block: u32, bytes: array<u32, 8>) {
    store_block(row, block, bytes);
    if (SUMS) {
        //#unroll
        for (var s = 0u; s < 32u / SUM_BLOCK; s++) {
            var sum = 0u;
            //#unroll
            for (var t = 0u; t < SUM_BLOCK / 4u; t++) {
                sum += quantize_sum(bytes[s * (SUM_BLOCK / 4u) + t]);
            }
            let per_row = params.output.blocks * (32u / SUM_BLOCK);
            let index = operand_side(per_row, INTERLEAVE, row, block * (32u / SUM_BLOCK) + s);
            atomicStore(&side[params.output.sums + index], sum);
        }
    }
}
