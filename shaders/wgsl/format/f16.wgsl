// f16 elements, two a word, row-major. Needs no f16 feature.
//#import core/operand
//#needs codes operand

const FMT_STEP: u32 = 8u;

alias fmt_row_t = vec4<u32>;

fn fmt_row(row: u32, index: u32) -> fmt_row_t {
    return codes[(operand().pieces.x + row * operand().row_words) / 4u + index];
}

fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words[2u * t]), unpack2x16float(words[2u * t + 1u]));
}

fn fmt_at(row: u32, i: u32) -> vec4<f32> {
    return fmt_values(fmt_row(row, i / 2u), i % 2u);
}
