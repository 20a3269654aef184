//! How K is split into parts that are added up after each other.

use std::ops::Range;

use crate::ReferenceError;

/// Parts of K, of whole steps, shared out as evenly as they go: part p begins at step ⌊p·S / count⌋ of the S steps of K. Where
/// there are fewer steps than parts, there are as many parts as steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parts {
    /// How many.
    pub count: usize,
    /// Columns of a step: a multiple of 32.
    pub step: usize,
}

impl Parts {
    /// All of K in one.
    pub const ONE: Self = Self { count: 1, step: 32 };

    /// So many parts of whole steps.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Constant`] for no parts, and for steps that are not whole blocks.
    pub const fn new(count: usize, step: usize) -> Result<Self, ReferenceError> {
        if count == 0 {
            return Err(ReferenceError::Constant {
                what: "the number of parts",
                expected: "1 or more",
                found: count,
            });
        }
        if step == 0 || !step.is_multiple_of(32) {
            return Err(ReferenceError::Constant {
                what: "the step of parts",
                expected: "a multiple of 32",
                found: step,
            });
        }
        Ok(Self { count, step })
    }

    /// The columns of each part, in ascending order.
    pub fn ranges(self, k: usize) -> impl Iterator<Item = Range<usize>> {
        let steps = k.div_ceil(self.step.max(1));
        let count = self.count.min(steps).max(1);
        let begin = move |part: usize| (part * steps / count * self.step).min(k);
        (0..count).map(move |part| begin(part)..begin(part + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_steps_and_make_all_of_k() {
        for count in 1..7 {
            for k in [0, 1, 31, 32, 33, 64, 97, 160, 321] {
                let ranges: Vec<_> = Parts::new(count, 32).unwrap().ranges(k).collect();
                assert_eq!(ranges.len(), count.min(k.div_ceil(32)).max(1));
                let mut end = 0;
                for range in &ranges {
                    assert_eq!(range.start, end);
                    assert!(range.start.is_multiple_of(32) && (k == 0 || !range.is_empty()));
                    end = range.end;
                }
                assert_eq!(end, k, "{count} {ranges:?}");
            }
        }
        assert!(Parts::new(0, 32).is_err());
        assert!(Parts::new(2, 16).is_err());
    }
}
