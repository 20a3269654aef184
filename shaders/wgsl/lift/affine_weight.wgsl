// Weight codes as signed bytes: codes of 8 bits less 128 (lift_start adds it back), narrower ones as they are.
//
// Reads BITS.
//#import core/bytes

fn lift_bytes(bytes: u32, choice: i32) -> u32 {
    if (BITS == 8u) {
        return bytes ^ BYTES_HIGH;
    }
    return bytes;
}

// What a sum of byte products starts from, so that it ends as the sum of s * u.
fn lift_start(activation_codes: i32) -> i32 {
    if (BITS == 8u) {
        return 128 * activation_codes;
    }
    return 0;
}

// The sum of the codes behind four bytes.
fn lift_codes(bytes: u32) -> i32 {
    if (BITS == 8u) {
        return i32(dot4U8Packed(bytes ^ BYTES_HIGH, BYTES_ONE));
    }
    return i32(dot4U8Packed(bytes, BYTES_ONE));
}
