// No scale: a value is its integer, or its float, itself.

struct scl_t {
    scale: f32,
    zero: i32,
    minimum: f32,
}

fn scl_load(row: u32, group: u32) -> scl_t {
    return scl_t(1.0, 0, 0.0);
}

// The same for rows 4i .. 4i + 3.
alias scl_quad_t = u32;

fn scl_load_quad(row: u32, group: u32) -> scl_quad_t {
    return 0u;
}

fn scl_pick(quad: scl_quad_t, r: u32) -> scl_t {
    return scl_t(1.0, 0, 0.0);
}

fn scl_shift(values: vec4<f32>, scale: scl_t) -> vec4<f32> {
    return values;
}

fn scl_apply(values: vec4<f32>, scale: scl_t) -> vec4<f32> {
    return values;
}
