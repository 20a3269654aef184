// Operands of the dot4 engine: four signed bytes a word.
//#import core/bytes
//#import core/gemm

// Activation codes less their centre, as signed bytes. Codes of 8 bits have the centre 128; narrower ones have their
// top bit free, which keeps the bytewise subtraction from borrowing.
fn dot4_activation(bytes: u32) -> u32 {
    if (A_BITS == 8u) {
        return bytes ^ BYTES_HIGH;
    }
    return ((bytes | BYTES_HIGH) - u32(params.activation.centre) * BYTES_ONE) ^ BYTES_HIGH;
}

// Weight codes as signed bytes: codes of 8 bits less 128 (dot4_start adds it back), narrower ones as they are.
fn dot4_weight(bytes: u32) -> u32 {
    if (W_BITS == 8u) {
        return bytes ^ BYTES_HIGH;
    }
    return bytes;
}

// What a sum of byte products starts from, so that it ends as the sum of s * u.
fn dot4_start(activation_codes: i32) -> i32 {
    if (W_BITS == 8u) {
        return 128 * activation_codes;
    }
    return 0;
}

// The sum of the codes behind four weight bytes.
fn dot4_weight_codes(bytes: u32) -> i32 {
    if (W_BITS == 8u) {
        return i32(dot4U8Packed(bytes ^ BYTES_HIGH, BYTES_ONE));
    }
    return i32(dot4U8Packed(bytes, BYTES_ONE));
}
