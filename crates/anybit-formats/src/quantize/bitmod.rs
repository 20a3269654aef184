//! BitMoD (arXiv:2411.11745): each group chooses the value of one code, besides its scale.

use super::rule::absmax;
use crate::CodebookFormat;

/// What a group gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChosenGroup {
    /// The scale, not rounded to any stored type.
    pub scale: f32,
    /// Which of the [choice](CodebookFormat::choice)'s values.
    pub choice: u8,
}

/// The choice of least square error for the values of a group, and its scale.
///
/// Every choice has the scale of [`choice_scale`]; the [`squared_error`]s decide, the first choice
/// among equals. Values must be finite. A format without a choice gives choice 0.
pub fn choose(format: CodebookFormat, values: &[f32]) -> ChosenGroup {
    let absmax = absmax(values);
    let mut best = ChosenGroup {
        scale: 0.0,
        choice: 0,
    };
    let mut least = f64::INFINITY;
    for choice in 0..format.choice_count() {
        let scale = choice_scale(format, choice, absmax);
        let error = squared_error(format, choice, scale, values);
        if error < least {
            best = ChosenGroup { scale, choice };
            least = error;
        }
    }
    best
}

/// `absmax` over the largest magnitude in the table with this choice, in f32; 0 where that is
/// subnormal, since devices may take it as 0.
pub fn choice_scale(format: CodebookFormat, choice: u8, absmax: f32) -> f32 {
    let scale = absmax / format.max_magnitude_with(choice);
    if scale < f32::MIN_POSITIVE {
        0.0
    } else {
        scale
    }
}

/// The sum of squared differences between the values and what their codes decode to.
///
/// A code is that of value · (1 / scale), two f32 operations, and decodes to scale · table value,
/// one. Differences, squares and their sum in the order of the values are f64.
pub fn squared_error(format: CodebookFormat, choice: u8, scale: f32, values: &[f32]) -> f64 {
    let inverse = inverse(scale);
    values
        .iter()
        .map(|&value| {
            let code = format.encode(value * inverse, choice);
            let decoded = scale * format.value_with(code, choice);
            let difference = f64::from(value) - f64::from(decoded);
            difference * difference
        })
        .sum()
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [CodebookFormat; 2] = [CodebookFormat::BITMOD3, CodebookFormat::BITMOD4];

    fn codes(format: CodebookFormat, group: &ChosenGroup, values: &[f32]) -> Vec<u8> {
        let inverse = inverse(group.scale);
        let code = |&value: &f32| format.encode(value * inverse, group.choice);
        values.iter().map(code).collect()
    }

    /// The four choices for [0.6, −0.4, 0.21, 0.38] in 3 bits.
    #[test]
    fn worked_group() {
        let format = CodebookFormat::BITMOD3;
        let values = [0.6, -0.4, 0.21, 0.38];
        for (choice, scale, integers, mean) in [
            (0, 0.15, [4.0, -2.0, 1.0, 3.0], 0.004_625),
            (1, 0.15, [4.0, -3.0, 1.0, 2.0], 0.003_125),
            (2, 0.1, [6.0, -4.0, 2.0, 4.0], 0.000_125),
            (3, 0.1, [4.0, -4.0, 2.0, 4.0], 0.010_125),
        ] {
            let found = choice_scale(format, choice, 0.6);
            assert!((found - scale).abs() < 1e-7);
            let codes = values.map(|value| format.encode(value / found, choice));
            let table = codes.map(|code| format.value_with(code, choice));
            assert_eq!(table, integers);
            let error = squared_error(format, choice, found, &values) / 4.0;
            assert!((error - mean).abs() < 1e-8, "{error}");
        }
        let group = choose(format, &values);
        assert_eq!((group.choice, group.scale), (2, 0.6 / 6.0));
        assert_eq!(codes(format, &group, &values), [4, 7, 2, 3]);
    }

    /// The chosen group is the best of four, found without the functions under test.
    #[test]
    fn random_groups_have_the_least_error() {
        let mut state = 1_u32;
        let mut chosen = [[0; 4]; 2];
        for trial in 0..2000_u32 {
            let values: Vec<f32> = (0..128)
                .map(|_| {
                    state = crate::quantize::rounding::pcg(state.wrapping_add(trial));
                    let even = state as f32 / 4_294_967_296.0 - 0.5;
                    // Skewed to either side in turns, so that every choice comes up.
                    even * even.abs() + if trial % 2 == 0 { 0.03 } else { -0.03 }
                })
                .collect();
            let absmax = values
                .iter()
                .fold(0.0_f32, |max, value| max.max(value.abs()));
            for (format, chosen) in FORMATS.into_iter().zip(&mut chosen) {
                let error = |choice: u8| -> f64 {
                    let table: Vec<f32> = (0..=format.max_code())
                        .map(|code| format.value_with(code, choice))
                        .collect();
                    let largest = table
                        .iter()
                        .fold(0.0_f32, |max, value| max.max(value.abs()));
                    let scale = absmax / largest;
                    let inverse = 1.0 / scale;
                    let square = |value: f32| {
                        let nearest = table.iter().copied().min_by(|a, b| {
                            let distance =
                                |t: f32| (f64::from(value * inverse) - f64::from(t)).abs();
                            distance(*a).total_cmp(&distance(*b)).then(a.total_cmp(b))
                        });
                        (f64::from(value) - f64::from(scale * nearest.unwrap())).powi(2)
                    };
                    values.iter().map(|&value| square(value)).sum()
                };
                let group = choose(format, &values);
                let errors = [0, 1, 2, 3].map(error);
                let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
                let first = errors.iter().position(|&error| error == least);
                assert_eq!(Some(usize::from(group.choice)), first, "{errors:?}");
                let found = squared_error(format, group.choice, group.scale, &values);
                assert_eq!(found, least);
                chosen[usize::from(group.choice)] += 1;
            }
        }
        assert!(
            chosen.iter().flatten().all(|&count| count > 0),
            "{chosen:?}"
        );
    }

    #[test]
    fn groups_of_zeros_and_of_nothing() {
        for format in FORMATS {
            for values in [&[][..], &[0.0, -0.0], &[1e-40, -1e-45]] {
                let group = choose(format, values);
                assert_eq!((group.choice, group.scale), (0, 0.0));
                for code in codes(format, &group, values) {
                    assert_eq!(format.value_with(code, 0), 0.0);
                }
            }
        }
    }

    #[test]
    fn the_first_of_equal_choices_wins() {
        // Exact with 3 as with −3 for the special value, which no code uses.
        let group = choose(CodebookFormat::BITMOD3, &[4.0, -4.0, 1.0, 2.0]);
        assert_eq!((group.choice, group.scale), (0, 1.0));
    }

    #[test]
    fn a_format_without_a_choice() {
        let (format, values) = (CodebookFormat::POWER4, [49.0, -25.0, 0.4]);
        let group = choose(format, &values);
        assert_eq!((group.choice, group.scale), (0, 1.0));
        assert_eq!(codes(format, &group, &values), [14, 2, 7]);
    }
}
