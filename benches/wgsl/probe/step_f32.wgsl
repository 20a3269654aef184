// f32 multiply-add: 2 operations.
alias step_word_t = f32;
alias step_acc_t = f32;

fn step_word(bits: u32) -> f32 {
    return f32(bits >> 8u) * 5.9604645e-8;
}

fn step_next(x: f32) -> f32 {
    return x + 0.125;
}

fn step_add(acc: f32, x: f32, w: f32) -> f32 {
    return acc + x * w;
}

fn step_bits(acc: f32) -> u32 {
    return bitcast<u32>(acc);
}
