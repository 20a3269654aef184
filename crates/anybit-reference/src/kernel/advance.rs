//! The twin of `kernel/advance.wgsl`.

/// Counts a step's tokens as done.
pub fn advance(done: &mut u32, rows: u32) {
    *done = done.wrapping_add(rows);
}
