//! The twin of `kernel/add_parts.wgsl`.

use super::Output;

/// What the parts of K gave for one output, added up in ascending order. Rounding to f16 and residuals come after it.
pub fn add_parts<O: Output>(parts: impl IntoIterator<Item = O>) -> Option<O> {
    parts.into_iter().reduce(O::plus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_added_in_order() {
        assert_eq!(add_parts([1.0e8_f32, 3.0, -1.0e8]), Some(0.0));
        assert_eq!(add_parts([-1.0e8_f32, 1.0e8, 3.0]), Some(3.0));
        assert_eq!(add_parts([i32::MAX, 1, -1]), Some(i32::MAX));
        assert_eq!(add_parts::<f32>([]), None);
    }
}
