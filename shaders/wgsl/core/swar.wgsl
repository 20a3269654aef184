// Operands of the swar engine: unsigned codes, of activations two rows a word.
//
// A word holds the code of one row in its low half and that of another in its high half, so one 32-bit product with a code
// of a weight is two products. Such words add up until the low half could pass 16 bits; then the halves are parted and go
// on as sums of 32 bits.
//#import core/bytes

// The words of codes 4t .. 4t + 3 of two rows.
fn swar_pair(low: u32, high: u32) -> vec4<u32> {
    let low_even = low & 0x00ff00ffu;
    let low_odd = (low >> 8u) & 0x00ff00ffu;
    let high_even = high & 0x00ff00ffu;
    let high_odd = (high >> 8u) & 0x00ff00ffu;
    return vec4<u32>(
        (low_even & 0xffffu) | (high_even << 16u),
        (low_odd & 0xffffu) | (high_odd << 16u),
        (low_even >> 16u) | (high_even & 0xffff0000u),
        (low_odd >> 16u) | (high_odd & 0xffff0000u),
    );
}

// Two sums of two codes each, one a half, of four codes, one a byte.
fn swar_halves(bytes: u32) -> u32 {
    return (bytes & 0x00ff00ffu) + ((bytes >> 8u) & 0x00ff00ffu);
}
