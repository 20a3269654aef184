// Minifloats as signed bytes: their values times 2^lift, integers. For exponents of 1 and 2 bits, and E3M0.
//
// Reads BITS. Four codes at a time, one a byte; no operation carries from one byte into the next.
//#import core/bytes
//#import core/operand
//#needs operand

// 0xff in the bytes where the lowest bit is set, else 0.
fn lift_mask(bits: u32) -> u32 {
    return (bits & BYTES_ONE) * 0xffu;
}

fn lift_bytes(bytes: u32, choice: i32) -> u32 {
    let mantissa = operand().mantissa;
    let low = bytes >> mantissa;
    let middle = lift_mask(bytes >> (mantissa + 1u));
    var value: u32;
    if (BITS - 1u - mantissa == 3u) {
        // E3M0: 2^field / 2, so that a field of 0 gives 0.
        value = BYTES_ONE + (BYTES_ONE & lift_mask(low));
        value += 3u * (value & middle);
        value += 15u * (value & lift_mask(bytes >> 2u));
        value = (value >> 1u) & ~BYTES_HIGH;
    } else if (BITS - 1u - mantissa == 2u) {
        // The mantissa with its leading one, where the field is not 0, times 2^(field - 1).
        let leading = (low & BYTES_ONE) | (middle & BYTES_ONE);
        value = (bytes & (((1u << mantissa) - 1u) * BYTES_ONE)) | (leading << mantissa);
        value += value & middle;
        value += value & middle & lift_mask(low);
    } else {
        // One exponent bit goes on where the mantissa ends: an integer.
        value = bytes & (((1u << (BITS - 1u)) - 1u) * BYTES_ONE);
    }
    // Negated where the sign is set; 0 stays 0.
    let sign = bytes >> (BITS - 1u);
    let complement = value ^ lift_mask(sign);
    return ((complement & ~BYTES_HIGH) + (sign & BYTES_ONE)) ^ (complement & BYTES_HIGH);
}

// Four bytes past the last block.
fn lift_past() -> u32 {
    return 0u;
}

fn lift_start(activation_codes: i32) -> i32 {
    return 0;
}

fn lift_codes(bytes: u32) -> i32 {
    return dot4I8Packed(bytes, BYTES_ONE);
}
