// Floats that are read four at a time: each load brings what is read next.
//
// Reads BITS: 32 or 16.
//#needs fmt_row fmt_values

alias fmt_ahead_t = u32;

fn fmt_ahead(row: u32, block: u32) -> fmt_ahead_t {
    return 0u;
}

// Values 4i .. 4i + 3 of a row; i counts along the row.
fn fmt_at(ahead: fmt_ahead_t, row: u32, i: u32) -> vec4<f32> {
    return fmt_values(fmt_row(row, BITS * i / 32u), i % (32u / BITS));
}
