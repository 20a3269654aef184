// f32 elements, row-major.
//#import core/operand
//#needs codes operand

// Values that one fmt_row brings.
const FMT_STEP: u32 = 4u;

alias fmt_row_t = vec4<f32>;

fn fmt_row(row: u32, index: u32) -> fmt_row_t {
    return bitcast<vec4<f32>>(codes[(operand().pieces.x + row * operand().row_words) / 4u + index]);
}

fn fmt_values(words: fmt_row_t, t: u32) -> vec4<f32> {
    return words;
}

// Values 4i .. 4i + 3 of a row.
fn fmt_at(row: u32, i: u32) -> vec4<f32> {
    return fmt_row(row, i);
}
