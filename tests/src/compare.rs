//! Results against the reference.

use std::fmt;

/// Outputs that are wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// Index of the first one.
    pub index: usize,
    /// What the kernel gave there.
    pub found: String,
    /// What it should have given.
    pub expected: String,
    /// How many are wrong.
    pub count: usize,
    /// How many there are.
    pub total: usize,
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} of {} wrong, the first at index {}: found {}, expected {}",
            self.count, self.total, self.index, self.found, self.expected
        )
    }
}

/// Values that must be equal.
pub fn equal<T: PartialEq + fmt::Debug>(found: &[T], expected: &[T]) -> Option<Wrong> {
    compare(
        found.len(),
        expected.len(),
        |i| found[i] == expected[i],
        |i| (format!("{:?}", found[i]), format!("{:?}", expected[i])),
    )
}

/// i32 outputs that must be the exact integers.
pub fn exact(found: &[i32], expected: &[i64]) -> Option<Wrong> {
    compare(
        found.len(),
        expected.len(),
        |i| i64::from(found[i]) == expected[i],
        |i| (found[i].to_string(), expected[i].to_string()),
    )
}

/// f32 outputs that must lie within `bounds` of the exact values.
pub fn bounded(found: &[f32], expected: &[f64], bounds: &[f64]) -> Option<Wrong> {
    assert_eq!(expected.len(), bounds.len(), "a bound for each value");
    compare(
        found.len(),
        expected.len(),
        // Written so that a NaN is wrong.
        |i| (f64::from(found[i]) - expected[i]).abs() <= bounds[i],
        |i| {
            let difference = f64::from(found[i]) - expected[i];
            let expected = format!(
                "{:e} within {:e} (the difference is {difference:e})",
                expected[i], bounds[i]
            );
            (format!("{:e}", found[i]), expected)
        },
    )
}

fn compare(
    found: usize,
    expected: usize,
    right: impl Fn(usize) -> bool,
    show: impl Fn(usize) -> (String, String),
) -> Option<Wrong> {
    if found != expected {
        return Some(Wrong {
            index: 0,
            found: format!("{found} values"),
            expected: format!("{expected} values"),
            count: found.abs_diff(expected),
            total: expected,
        });
    }
    let index = (0..found).find(|&i| !right(i))?;
    let (value, wanted) = show(index);
    Some(Wrong {
        index,
        found: value,
        expected: wanted,
        count: (index..found).filter(|&i| !right(i)).count(),
        total: found,
    })
}

/// The largest bound as a part of the largest exact value: what a comparison can see. 0 if all bounds are 0, infinite if
/// all values are.
pub fn resolution(expected: &[f64], bounds: &[f64]) -> f64 {
    let largest = |values: &[f64]| {
        values
            .iter()
            .fold(0.0, |max: f64, value| max.max(value.abs()))
    };
    let bound = largest(bounds);
    if bound == 0.0 {
        0.0
    } else {
        bound / largest(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wrong_value_is_named() {
        assert_eq!(exact(&[1, 2, 3], &[1, 2, 3]), None);
        let wrong = exact(&[1, 0, 0], &[1, 2, 3]).expect("two are wrong");
        assert_eq!((wrong.index, wrong.count, wrong.total), (1, 2, 3));
        assert_eq!((wrong.found.as_str(), wrong.expected.as_str()), ("0", "2"));
        assert!(exact(&[1], &[1, 2]).is_some());
        assert!(exact(&[], &[]).is_none());
    }

    #[test]
    fn bounds_are_inclusive_and_nan_is_wrong() {
        assert_eq!(bounded(&[1.0, 2.5], &[1.0, 2.0], &[0.0, 0.5]), None);
        assert!(bounded(&[2.5], &[2.0], &[0.4]).is_some());
        assert!(bounded(&[f32::NAN], &[2.0], &[0.4]).is_some());
        assert!(bounded(&[f32::INFINITY], &[2.0], &[0.4]).is_some());
    }
}
