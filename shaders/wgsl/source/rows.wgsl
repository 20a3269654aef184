// What a row kernel works on: rows of f32 as they are.
//#needs src_load

const SRC_NORM: bool = false;

fn src_values(row: u32, i: u32) -> vec4<f32> {
    return src_load(row, 4u * i);
}

fn src_square(row: u32, i: u32) -> f32 {
    return 0.0;
}
