// What becomes of a head's channels before they are rotated: nothing.
//#needs rot_load

fn norm_factor(row: u32, head: u32, column: u32) -> f32 {
    return 1.0;
}

fn norm_value(row: u32, head: u32, column: u32, channel: u32, factor: f32) -> f32 {
    return rot_load(row, column + channel);
}
