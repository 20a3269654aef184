// Codes of two rows a u32: a 32-bit multiply is two products.
//
// A word holds the code of one row in its low half and that of another in its high half. Products with a code of a weight
// add up until the low half could pass 16 bits.
//#import core/bytes

alias mul_t = vec4<u32>;
alias mul_sum_t = u32;

// The words of codes 4t .. 4t + 3 of two rows of X.
fn mul_activation(bytes: vec2<u32>) -> vec4<u32> {
    let low_even = bytes.x & 0x00ff00ffu;
    let low_odd = (bytes.x >> 8u) & 0x00ff00ffu;
    let high_even = bytes.y & 0x00ff00ffu;
    let high_odd = (bytes.y >> 8u) & 0x00ff00ffu;
    return vec4<u32>(
        (low_even & 0xffffu) | (high_even << 16u),
        (low_odd & 0xffffu) | (high_odd << 16u),
        (low_even >> 16u) | (high_even & 0xffff0000u),
        (low_odd >> 16u) | (high_odd & 0xffff0000u),
    );
}

// Codes 4t .. 4t + 3 of a row of W.
fn mul_weight(bytes: u32) -> vec4<u32> {
    return bytes_unpack(bytes);
}

// The sums of the two rows.
fn mul_part(sum: u32) -> vec2<i32> {
    return vec2<i32>(i32(sum & 0xffffu), i32(sum >> 16u));
}
