// Sums of fragments that are scaled each, and go on in f32: scales that change along K, and operands that are no integers.
//#import core/gemm

alias spl_t = f32;

// Whether sums go on to the end of K before any scale applies.
const SPL_WHOLE: bool = false;

fn spl_add(sum: f32, value: f32, row: SpillRow, column: SpillColumn) -> f32 {
    var scaled = value * column.scale;
    if (W_ZERO == 2u) {
        scaled += row.sum * column.minimum;
    }
    if (A_GROUP != 0u) {
        scaled *= row.scale;
    }
    return sum + scaled;
}

fn spl_finish(sum: f32, row_sum: f32, row_scale: f32, scale: w_scl_t) -> f32 {
    if (A_GROUP != 0u) {
        return sum;
    }
    return sum * row_scale;
}
