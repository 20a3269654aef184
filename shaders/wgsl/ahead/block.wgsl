// Packed operands that are read four values at a time: a block of 32 is loaded ahead of them.
//#needs fmt_row_t fmt_row fmt_values

alias fmt_ahead_t = fmt_row_t;

fn fmt_ahead(row: u32, block: u32) -> fmt_ahead_t {
    return fmt_row(row, block);
}

// Values 4i .. 4i + 3 of a row, before zero point and scale; i counts along the row.
fn fmt_at(ahead: fmt_ahead_t, row: u32, i: u32) -> vec4<f32> {
    return fmt_values(ahead, i % 8u);
}
