// Rounding f32 values to packed codes: code = round(clamp((x * inverse + add) * factor, low, high)) + offset, where
// round goes to nearest, ties to even. Given the scale and inverse that the kernel writes, a code is exact but for
// bipolar codes of 2 bits or more, where a driver may contract the product and the sum: a tie may fall either way.
//
// Reads BITS; P0, P1, P2 (as format/affine) or PLANES; INTERLEAVE; SUMS and SUM_BLOCK: whether, and over how many
// codes, sums of codes are kept.
//#import core/operand
//#import core/bytes

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
    padding: u32,
    // scale = max(statistic / divisor, smallest)
    divisor: f32,
    smallest: f32,
    add: f32,
    factor: f32,
    low: f32,
    high: f32,
    offset: f32,
    padding_f: f32,
    output: Operand,
}

@group(0) @binding(0) var<uniform> params: QuantizeParams;
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
@group(0) @binding(3) var<storage, read_write> side: array<u32>;
// 1 / scale of each row or group, in order of rows.
@group(0) @binding(4) var<storage, read_write> inverses: array<f32>;

const QUANTIZE_MASK_0: u32 = ((1u << P0) - 1u) * 0x01010101u;
const QUANTIZE_MASK_1: u32 = ((1u << P1) - 1u) * 0x01010101u;
const QUANTIZE_MASK_2: u32 = ((1u << P2) - 1u) * 0x01010101u;

// Values 4i .. 4i + 3 of a row, and which of them lie inside it.
fn quantize_inside(i: u32) -> vec4<bool> {
    return vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.columns);
}

fn quantize_values(row: u32, i: u32) -> vec4<f32> {
    let values = input[(params.input_offset + row * params.input_row) / 4u + i];
    return select(vec4<f32>(0.0), values, quantize_inside(i));
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

// The scale of `count` values, and its inverse: both 0 where the scale is 0 or subnormal.
fn quantize_scale(statistic: f32, count: u32) -> vec2<f32> {
    var value = statistic;
    if (params.statistic == 2u) {
        value /= f32(count);
    }
    let scale = max(value / params.divisor, params.smallest);
    if ((bitcast<u32>(scale) & 0x7f800000u) == 0u) {
        return vec2<f32>(0.0);
    }
    return vec2<f32>(scale, 1.0 / scale);
}

// Four codes, one a byte; 0 past the end of the row.
fn quantize_codes(values: vec4<f32>, i: u32, inverse: f32) -> u32 {
    var code = round(clamp(
        (values * inverse + params.add) * params.factor, vec4<f32>(params.low), vec4<f32>(params.high),
    )) + params.offset;
    if (params.sign == 1u) {
        // On the bits, since a comparison may take a negative subnormal for zero.
        code = select(vec4<f32>(1.0), vec4<f32>(0.0), bitcast<vec4<u32>>(values) > vec4<u32>(0x80000000u));
    }
    let bytes = select(vec4<u32>(0u), vec4<u32>(code), quantize_inside(i));
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

fn quantize_store_scale(row: u32, group: u32, scale: vec2<f32>) {
    let groups = params.output.groups;
    side[params.output.scales + operand_side(groups, INTERLEAVE, row, group)] = bitcast<u32>(scale.x);
    inverses[row * groups + group] = scale.y;
}

fn quantize_sum(bytes: u32) -> u32 {
    return dot4U8Packed(bytes, BYTES_ONE);
}

// Writes a block of 32 codes: words of four codes, one a byte.
fn quantize_store_block(row: u32, block: u32, bytes: array<u32, 8>) {
    if (PLANES) {
        //#unroll
        for (var plane = 0u; plane < BITS; plane++) {
            var word = 0u;
            //#unroll
            for (var t = 0u; t < 8u; t++) {
                word |= ((bytes[t] >> plane) & BYTES_ONE) << t;
            }
            codes[params.output.pieces.x + plane * params.output.pieces.y
                + ((row / INTERLEAVE) * params.output.blocks + block) * INTERLEAVE + row % INTERLEAVE] = word;
        }
    } else {
        //#unroll
        for (var w = 0u; w < P0; w++) {
            var word = 0u;
            //#unroll
            for (var i = 0u; i < 8u / P0; i++) {
                word |= (bytes[w * (8u / P0) + i] & QUANTIZE_MASK_0) << (P0 * i);
            }
            let unit = w / 4u;
            let units = max(P0 / 4u, 1u);
            codes[operand_address(params.output, 0u, P0, INTERLEAVE, row, units * block + unit) + w % 4u] = word;
        }
        //#unroll
        for (var w = 0u; w < P1; w++) {
            var word = 0u;
            //#unroll
            for (var i = 0u; i < 8u / P1; i++) {
                word |= ((bytes[w * (8u / P1) + i] >> P0) & QUANTIZE_MASK_1) << (P1 * i);
            }
            codes[operand_address(params.output, 1u, P1, INTERLEAVE, row, block) + w] = word;
        }
        //#unroll
        for (var w = 0u; w < P2; w++) {
            var word = 0u;
            //#unroll
            for (var i = 0u; i < 8u; i++) {
                word |= ((bytes[i] >> (P0 + P1)) & QUANTIZE_MASK_2) << i;
            }
            codes[operand_address(params.output, 2u, P2, INTERLEAVE, row, block) + w] = word;
        }
    }
    if (SUMS) {
        //#unroll
        for (var s = 0u; s < 32u / SUM_BLOCK; s++) {
            var sum = 0u;
            //#unroll
            for (var t = 0u; t < SUM_BLOCK / 4u; t++) {
                sum += quantize_sum(bytes[s * (SUM_BLOCK / 4u) + t]);
            }
            let per_row = params.output.blocks * (32u / SUM_BLOCK);
            side[params.output.sums + operand_side(per_row, INTERLEAVE, row, block * (32u / SUM_BLOCK) + s)] = sum;
        }
    }
}
