// Packed dot product of four unsigned bytes: 8 operations.
alias step_word_t = u32;
alias step_acc_t = u32;

fn step_word(bits: u32) -> u32 {
    return bits;
}

fn step_next(x: u32) -> u32 {
    return x + 0x9e3779b9u;
}

fn step_add(acc: u32, x: u32, w: u32) -> u32 {
    return acc + dot4U8Packed(x, w);
}

fn step_bits(acc: u32) -> u32 {
    return acc;
}
