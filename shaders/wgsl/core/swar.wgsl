// Sums of unsigned codes, for the engines that multiply codes as they are (multiply/).

// Two sums of two codes each, one a half, of four codes, one a byte.
fn swar_halves(bytes: u32) -> u32 {
    return (bytes & 0x00ff00ffu) + ((bytes >> 8u) & 0x00ff00ffu);
}

// The sum of both halves.
fn swar_codes(halves: u32) -> i32 {
    return i32((halves & 0xffffu) + (halves >> 16u));
}
