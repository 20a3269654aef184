// Minifloats as signed bytes: their values times 2^lift, integers. For exponents of 1 and 2 bits, and E3M0.
//
// Reads BITS. Four codes at a time, one a byte; no operation carries from one byte into the next.
//#import core/bytes
//#import core/operand
//#needs operand

// 0xff in the bytes where the lowest bit is set, else 0.
fn lift_mask(bits: u32) -> u32 {
    let ones = bits & BYTES_ONE;
    return (ones << 8u) - ones;
}

// One way for all splits, without branches: masks of the parameters leave out the exponent bits that a format has not.
fn lift_bytes(bytes: u32, choice: i32) -> u32 {
    let mantissa = operand().mantissa;
    let exponent = BITS - 1u - mantissa;
    let two = select(0u, BYTES_ONE, exponent >= 2u);
    let low = (bytes >> mantissa) & BYTES_ONE;
    let middle = (bytes >> (mantissa + 1u)) & two;
    var high = 0u;
    if (BITS == 4u) {
        high = (bytes >> 2u) & select(0u, BYTES_ONE, exponent == 3u);
    }
    // The mantissa with its leading one, where the field is not 0, times 2^(field - 1). Where there is one exponent bit, this
    // is an integer that goes on from the mantissa.
    var value = (bytes & (((1u << mantissa) - 1u) * BYTES_ONE)) | ((low | middle | high) << mantissa);
    let middle_mask = lift_mask(middle);
    let low_mask = lift_mask(low);
    value += value & middle_mask;
    value += value & middle_mask & low_mask;
    if (BITS == 4u) {
        // Fields of 4 to 7, of E3M0: 2^3, and once more 2 where a lower bit is set.
        let high_mask = lift_mask(high);
        value += 7u * (value & high_mask);
        value += value & high_mask & (low_mask | middle_mask);
    }
    // Negated where the sign is set; 0 stays 0.
    let sign = bytes >> (BITS - 1u);
    let complement = value ^ lift_mask(sign);
    return ((complement & ~BYTES_HIGH) + (sign & BYTES_ONE)) ^ (complement & BYTES_HIGH);
}

fn lift_start(activation_codes: i32) -> i32 {
    return 0;
}

fn lift_codes(bytes: u32) -> i32 {
    return dot4I8Packed(bytes, BYTES_ONE);
}
