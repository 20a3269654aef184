// Two products in one 32-bit multiply, of 4-bit codes that stand 16 bits apart, and their sums: 4 operations.
alias step_word_t = u32;
alias step_acc_t = u32;

fn step_word(bits: u32) -> u32 {
    return bits & 0xffu;
}

fn step_next(x: u32) -> u32 {
    return x + 0x9e3779b9u;
}

fn step_add(acc: u32, x: u32, w: u32) -> u32 {
    return acc + (x & 0x000f000fu) * w;
}

fn step_bits(acc: u32) -> u32 {
    return acc;
}
