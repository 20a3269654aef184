// Sums of fragments that go on as integers, to the exact integer product without scales.
//#import core/gemm

alias spl_t = i32;

// Whether sums go on to the end of K before any scale applies.
const SPL_WHOLE: bool = true;

fn spl_add(sum: i32, value: f32, row: SpillRow, column: SpillColumn) -> i32 {
    return sum + i32(value);
}

fn spl_finish(sum: i32, row_sum: i32, row_scale: f32, scale: w_scl_t) -> i32 {
    return sum;
}
