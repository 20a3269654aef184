// Integers less some of their bits, rounded: anybit_formats::Rounding, by integer operations alone.
//
// Reads ROUNDING, as below.

const ROUND_NEAREST_EVEN: u32 = 0u;
const ROUND_HALF_AWAY: u32 = 1u;
const ROUND_TRUNCATE: u32 = 2u;
const ROUND_STOCHASTIC: u32 = 3u;

// The PCG hash. Jarzynski and Olano, Hash Functions for GPU Rendering, JCGT 9(3), 2020.
fn round_pcg(value: vec4<u32>) -> vec4<u32> {
    let state = value * vec4<u32>(747796405u) + vec4<u32>(2891336453u);
    let shift = (state >> vec4<u32>(28u)) + vec4<u32>(4u);
    let word = ((state >> shift) ^ state) * vec4<u32>(277803737u);
    return (word >> vec4<u32>(22u)) ^ word;
}

// 32 random bits for the numbers at four places, of 64 bits each.
fn round_random(seed: u32, low: vec4<u32>, high: vec4<u32>) -> vec4<u32> {
    return round_pcg(round_pcg(round_pcg(low) ^ high) ^ vec4<u32>(seed));
}

// The same for four columns of a row, by their places row * columns + column.
fn round_random_at(seed: u32, row: u32, columns: u32, column: vec4<u32>) -> vec4<u32> {
    // row * columns in 64 bits, from products of 16.
    let row_low = row & 0xffffu;
    let row_high = row >> 16u;
    let columns_low = columns & 0xffffu;
    let columns_high = columns >> 16u;
    let crossed_a = row_high * columns_low;
    let crossed_b = row_low * columns_high;
    let middle = ((row_low * columns_low) >> 16u) + (crossed_a & 0xffffu) + (crossed_b & 0xffffu);
    let high = row_high * columns_high + (crossed_a >> 16u) + (crossed_b >> 16u) + (middle >> 16u);
    let low = vec4<u32>(row * columns) + column;
    let carry = select(vec4<u32>(0u), vec4<u32>(1u), low < column);
    return round_random(seed, low, vec4<u32>(high) + carry);
}

// value * 2^-shift, rounded; shift is 1 or more.
fn round_shift_right(value: vec4<u32>, shift: vec4<u32>, random: vec4<u32>) -> vec4<u32> {
    // Shifts count modulo 32. From 32 on all is fraction, in units of 2^-32; from 64 on there is none.
    let modulo = shift & vec4<u32>(31u);
    let far = shift >= vec4<u32>(32u);
    let quotient = select(value >> modulo, vec4<u32>(0u), far);
    let near_fraction = value << ((vec4<u32>(32u) - modulo) & vec4<u32>(31u));
    var fraction = select(near_fraction, value >> modulo, far);
    fraction = select(fraction, vec4<u32>(0u), shift >= vec4<u32>(64u));
    var up = vec4<bool>(false);
    if (ROUNDING == ROUND_NEAREST_EVEN) {
        up = fraction > vec4<u32>(0x80000000u) - (quotient & vec4<u32>(1u));
    }
    if (ROUNDING == ROUND_HALF_AWAY) {
        up = fraction >= vec4<u32>(0x80000000u);
    }
    if (ROUNDING == ROUND_STOCHASTIC) {
        // Where the sum of both passes 32 bits.
        up = fraction > ~random;
    }
    return quotient + select(vec4<u32>(0u), vec4<u32>(1u), up);
}
