// Activation codes as signed bytes: less their centre.
//
// Reads BITS. Codes of 8 bits have the centre 128; narrower ones have their top bit free, which keeps the bytewise
// subtraction from borrowing.
//#import core/bytes
//#import core/operand
//#needs operand

fn lift_bytes(bytes: u32, choice: i32) -> u32 {
    if (BITS == 8u) {
        return bytes ^ BYTES_HIGH;
    }
    return ((bytes | BYTES_HIGH) - u32(operand().centre) * BYTES_ONE) ^ BYTES_HIGH;
}
