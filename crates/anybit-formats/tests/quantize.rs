//! The quantiser: against the rule written plainly, its optimality, and what it refuses.

mod support;

use anybit_formats::quantize::rule::{self, CodeRange, GroupScale, GroupZero};
use anybit_formats::{
    AffineFormat, Calibration, ElementFormat, Encoding, FORMATS, FormatError, MatrixFormat,
    PackedMatrix, ScaleType, ZeroKind, quantize,
};
use proptest::prelude::*;
use support::{Random, affine_elements};

/// The formats that [`rule`] serves: floats, and integers bare or with scales of one level.
fn formats_of(element: ElementFormat, columns: usize) -> Vec<MatrixFormat> {
    let mut formats = support::formats_of(element, columns);
    formats.retain(|format| {
        format.scales().is_none_or(|layout| {
            matches!(layout.scale, ScaleType::F32 | ScaleType::F16)
                && format.element().affine().is_some()
        })
    });
    formats
}

const CALIBRATIONS: [Calibration; 4] = [
    Calibration::AbsMax,
    Calibration::AbsMean,
    Calibration::MinMax,
    Calibration::MeanSquareError,
];

/// The code as the rule's table has it, with the standard library's rounding.
fn plain_code(element: AffineFormat, narrow: bool, scale: f32, zero: GroupZero, value: f32) -> i32 {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let rne = |value: f32| value.round_ties_even();
    let n = i32::from(element.bits());
    let top = (1 << n) - 1;
    let x = value - zero.minimum();
    match element.encoding() {
        Encoding::Unsigned => (f64::from(rne(x * inverse)) + f64::from(zero.point()))
            .clamp(0.0, f64::from(top)) as i32,
        Encoding::TwosComplement => {
            let half = 1 << (n - 1);
            let low = if narrow && n > 1 { 1 - half } else { -half };
            rne(x * inverse).clamp(low as f32, (half - 1) as f32) as i32 + half
        }
        Encoding::Ternary => rne(x * inverse).clamp(-1.0, 1.0) as i32 + 1,
        Encoding::Bipolar if n == 1 => i32::from(x >= 0.0),
        Encoding::Bipolar => rne((x * inverse + top as f32) * 0.5).clamp(0.0, top as f32) as i32,
    }
}

fn check_against_plain_rule(matrix: &PackedMatrix, values: &[f32], calibration: Calibration) {
    let format = matrix.format();
    let element = format.element().affine().unwrap();
    let columns = matrix.columns();
    let decoded = matrix.decode();
    for (index, &value) in values.iter().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let group = column / format.group_len(columns);
        let zero = match format.zero_kind() {
            ZeroKind::None | ZeroKind::Choice => GroupZero::None,
            ZeroKind::Integer => GroupZero::Integer(matrix.zero_point(row, group) as u8),
            ZeroKind::Minimum => GroupZero::Minimum(matrix.minimum(row, group)),
        };
        let scale = matrix.scale(row, group);
        let narrow = calibration == Calibration::AbsMax;
        let code = i32::from(matrix.code(row, column).unwrap());
        assert_eq!(
            code,
            plain_code(element, narrow, scale, zero, value),
            "{format} {calibration:?} {value} {scale}"
        );
        let group = GroupScale {
            scale,
            inverse: if scale == 0.0 { 0.0 } else { 1.0 / scale },
            zero,
        };
        assert_eq!(rule::decode(element, &group, code as u8), decoded[index]);
        let range = CodeRange::of(calibration);
        assert_eq!(i32::from(rule::encode(element, range, &group, value)), code);
    }
}

fn random_values(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    // Halves and quarters too, so that ties come up.
    (0..count)
        .map(|_| {
            if random.below(4) == 0 {
                (random.below(65) as f32 - 32.0) / 4.0
            } else {
                3.0 * random.unit() + 0.3
            }
        })
        .collect()
}

#[test]
fn every_format_and_calibration_follows_the_rule() {
    for element in affine_elements() {
        for (rows, columns) in [(1, 1), (3, 31), (5, 33), (4, 96)] {
            for (seed, format) in formats_of(element, columns).into_iter().enumerate() {
                let values = random_values(rows * columns, seed as u64);
                for calibration in CALIBRATIONS {
                    let result = quantize(&values, rows, columns, format, Some(calibration));
                    if calibration.applies_to(&format) {
                        check_against_plain_rule(&result.unwrap(), &values, calibration);
                    } else if format.zero_kind() == ZeroKind::Integer
                        && element.affine().unwrap().encoding() != Encoding::Unsigned
                    {
                        assert_eq!(result, Err(FormatError::SignedZeroPoint { format }));
                    } else {
                        assert_eq!(
                            result,
                            Err(FormatError::Calibration {
                                calibration,
                                format
                            })
                        );
                    }
                }
                if let Some(calibration) = Calibration::default_for(&format) {
                    if calibration.applies_to(&format) {
                        let by_default = quantize(&values, rows, columns, format, None).unwrap();
                        assert_eq!(
                            by_default,
                            quantize(&values, rows, columns, format, Some(calibration)).unwrap()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn defaults() {
    for (name, calibration) in [
        ("b1f", Calibration::AbsMean),
        ("tg32h", Calibration::AbsMean),
        ("b2f", Calibration::AbsMax),
        ("i8rf", Calibration::AbsMax),
        ("u4rf", Calibration::AbsMax),
        ("u4g32hm", Calibration::MinMax),
        ("u4g32hz", Calibration::MinMax),
        ("tfm", Calibration::MinMax),
    ] {
        assert_eq!(
            Calibration::default_for(&name.parse().unwrap()),
            Some(calibration),
            "{name}"
        );
    }
    for name in ["i4", "f32", "bf16"] {
        assert_eq!(Calibration::default_for(&name.parse().unwrap()), None);
    }
}

#[test]
fn scales_by_hand() {
    let values = [0.5, -2.0, 1.0, -0.25];
    let scale = |name: &str, calibration| {
        let matrix = quantize(&values, 1, 4, name.parse().unwrap(), calibration).unwrap();
        (
            matrix.scale(0, 0),
            matrix.zero_point(0, 0),
            matrix.minimum(0, 0),
        )
    };
    assert_eq!(scale("i8f", None), (2.0 / 127.0, 0, 0.0));
    assert_eq!(scale("i1f", None), (2.0, 0, 0.0));
    assert_eq!(scale("u4f", None), (1.0 / 15.0, 0, 0.0));
    assert_eq!(scale("b3f", None), (2.0 / 7.0, 0, 0.0));
    assert_eq!(scale("b1f", None), (3.75 / 4.0, 0, 0.0));
    assert_eq!(scale("b1f", Some(Calibration::AbsMax)), (2.0, 0, 0.0));
    assert_eq!(scale("tf", None), (3.75 / 4.0, 0, 0.0));
    assert_eq!(scale("tf", Some(Calibration::AbsMax)), (2.0, 0, 0.0));
    assert_eq!(scale("u2fz", None), (1.0, 2, 0.0));
    assert_eq!(scale("u2fm", None), (1.0, 0, -2.0));
    // Minima of signed formats centre their range on the data's.
    assert_eq!(scale("i2fm", None), (1.0, 0, 0.0));
    assert_eq!(scale("b1fm", None), (1.5, 0, -0.5));
    assert_eq!(scale("tfm", None), (1.5, 0, -0.5));
    let half = half::f16::from_f32(2.0 / 127.0).to_f32();
    assert_eq!(scale("i8h", None), (half, 0, 0.0));
    // The range of a zero point always includes 0.
    let positive = quantize(&[1.0, 3.0], 1, 2, "u2fz".parse().unwrap(), None).unwrap();
    assert_eq!((positive.scale(0, 0), positive.zero_point(0, 0)), (1.0, 0));
    let negative = quantize(&[-1.0, -3.0], 1, 2, "u2fz".parse().unwrap(), None).unwrap();
    assert_eq!((negative.scale(0, 0), negative.zero_point(0, 0)), (1.0, 3));
    assert_eq!(negative.decode(), [-1.0, -3.0]);
}

#[test]
fn groups_are_calibrated_apart() {
    let values: Vec<f32> = (0..2 * 64)
        .map(|i| if i / 32 % 2 == 0 { 0.125 } else { 8.0 })
        .collect();
    let matrix = quantize(&values, 2, 64, "i4g32h".parse().unwrap(), None).unwrap();
    for row in 0..2 {
        assert!(matrix.scale(row, 0) < 0.02 && matrix.scale(row, 1) > 1.0);
    }
    let row_scaled = quantize(&values, 2, 64, "i4rf".parse().unwrap(), None).unwrap();
    assert_eq!(row_scaled.scales(), [8.0 / 7.0; 2]);
    let whole = quantize(&values, 2, 64, "i4f".parse().unwrap(), None).unwrap();
    assert_eq!(whole.scales(), [8.0 / 7.0]);
}

#[test]
fn bare_codes_are_rounded_and_clamped() {
    let values = [-200.0, -8.5, -7.5, 0.5, 1.5, 6.6, 300.0];
    let integers = |name: &str| {
        quantize(&values, 1, 7, name.parse().unwrap(), None)
            .unwrap()
            .integer_values()
            .unwrap()
    };
    assert_eq!(integers("i4"), [-8, -8, -8, 0, 2, 7, 7]);
    assert_eq!(integers("u4"), [0, 0, 0, 0, 2, 7, 15]);
    assert_eq!(integers("t"), [-1, -1, -1, 0, 1, 1, 1]);
    assert_eq!(integers("b1"), [-1, -1, -1, 1, 1, 1, 1]);
    assert_eq!(integers("b2"), [-3, -3, -3, 1, 1, 3, 3]);
}

#[test]
fn zero_groups_decode_to_zero() {
    for element in affine_elements() {
        for format in formats_of(element, 96) {
            for calibration in CALIBRATIONS
                .into_iter()
                .filter(|calibration| calibration.applies_to(&format))
            {
                // Zeros; below the smallest normal f32; below the smallest f16.
                for value in [0.0, 1e-41, 1e-12] {
                    let matrix = quantize(&[value; 96], 1, 96, format, Some(calibration)).unwrap();
                    let largest = matrix
                        .decode()
                        .into_iter()
                        .fold(0.0, |max: f32, x| max.max(x.abs()));
                    // Ternary's least scale aside, nothing decodes to more than was there.
                    assert!(
                        largest <= value.max(1e-38),
                        "{format} {calibration:?} {value}: {largest}"
                    );
                }
            }
        }
    }
    // The least scale: codes are still the nearest to zero.
    let matrix = quantize(&[1e-8; 4], 1, 4, "tf".parse().unwrap(), None).unwrap();
    assert_eq!((matrix.scale(0, 0), matrix.decode()), (1e-5, vec![0.0; 4]));
}

#[test]
fn empty_matrices_quantise() {
    for row in FORMATS {
        for (rows, columns) in [(0, 0), (0, 96), (2, 0)] {
            for format in support::formats_of(row.element, columns) {
                let Ok(matrix) = quantize(&[], rows, columns, format, None) else {
                    assert_eq!(format.zero_kind(), ZeroKind::Integer);
                    continue;
                };
                assert_eq!(matrix.scales().len(), format.scale_count(rows, columns));
            }
        }
    }
}

fn error_of(matrix: &PackedMatrix, values: &[f32]) -> f64 {
    matrix
        .decode_f64()
        .iter()
        .zip(values)
        .map(|(y, &x)| (y - f64::from(x)).powi(2))
        .sum()
}

#[test]
fn the_least_square_clip_is_the_least() {
    let mut random = Random(5);
    // A heavy tail, so that clipping pays.
    let values: Vec<f32> = (0..4 * 96)
        .map(|_| random.unit() / (0.02 + random.unit().abs()))
        .collect();
    for element in affine_elements() {
        for format in formats_of(element, 96) {
            if !Calibration::MeanSquareError.applies_to(&format) {
                continue;
            }
            let clipped =
                quantize(&values, 4, 96, format, Some(Calibration::MeanSquareError)).unwrap();
            let error = error_of(&clipped, &values);
            for calibration in CALIBRATIONS
                .into_iter()
                .filter(|calibration| calibration.applies_to(&format))
            {
                let other = quantize(&values, 4, 96, format, Some(calibration)).unwrap();
                // Decoding rounds to f32 in the search and not here.
                assert!(
                    error <= error_of(&other, &values) * 1.000_01,
                    "{format} {calibration:?}"
                );
            }
            assert_eq!(
                clipped,
                quantize(&values, 4, 96, format, Some(Calibration::MeanSquareError)).unwrap()
            );
        }
    }
    let four_bits = |calibration| {
        let matrix = quantize(&values, 4, 96, "i4rf".parse().unwrap(), Some(calibration)).unwrap();
        error_of(&matrix, &values)
    };
    assert!(four_bits(Calibration::MeanSquareError) < 0.9 * four_bits(Calibration::AbsMax));
    // For binary the best scale is the mean magnitude, exactly.
    let binary =
        |calibration| quantize(&values, 4, 96, "b1rf".parse().unwrap(), Some(calibration)).unwrap();
    let (best, mean) = (
        binary(Calibration::MeanSquareError),
        binary(Calibration::AbsMean),
    );
    assert!(error_of(&best, &values) <= error_of(&mean, &values) * 1.000_001);
    for row in 0..4 {
        assert!((best.scale(row, 0) / mean.scale(row, 0) - 1.0).abs() < 0.01);
    }
}

/// The search takes the first least clip of those documented.
#[test]
fn the_search_is_the_documented_one() {
    let values = random_values(96, 17);
    let element = ElementFormat::INT4.affine().unwrap();
    let found = rule::calibrate(
        element,
        ScaleType::F32,
        ZeroKind::None,
        Calibration::MeanSquareError,
        &values,
    )
    .unwrap();
    let absmax = rule::absmax(&values);
    let mut best: Option<(f64, f32)> = None;
    for step in (1..=rule::CLIP_STEPS).rev() {
        let scale = step as f32 / rule::CLIP_STEPS as f32 * absmax / 7.0;
        let group = GroupScale {
            scale,
            inverse: 1.0 / scale,
            zero: GroupZero::None,
        };
        let error = rule::squared_error(element, CodeRange::Full, &group, &values);
        if best.is_none_or(|(least, _)| error < least) {
            best = Some((error, scale));
        }
    }
    assert_eq!(Some(found.scale), best.map(|(_, scale)| scale));
    let group = GroupScale {
        scale: 0.25,
        inverse: 4.0,
        zero: GroupZero::None,
    };
    let plain: f64 = values
        .iter()
        .map(|&x| {
            f64::from(x)
                - f64::from(rule::decode(
                    element,
                    &group,
                    rule::encode(element, CodeRange::Full, &group, x),
                ))
        })
        .map(|difference| difference * difference)
        .sum();
    let error = rule::squared_error(element, CodeRange::Full, &group, &values);
    assert!((error - plain).abs() <= 1e-12 * plain);
}

/// With a minimum, clips shrink the range about its middle.
#[test]
fn clips_of_a_minimum_keep_the_middle() {
    // An outlier on either side of many values in the middle.
    let mut random = Random(29);
    let mut values: Vec<f32> = (0..960).map(|_| 3.0 * random.unit() + 0.3).collect();
    (values[0], values[1]) = (-6.0, 7.0);
    for element in [ElementFormat::UINT4, ElementFormat::INT4] {
        let affine = element.affine().unwrap();
        let (stored, zero) = (ScaleType::F32, ZeroKind::Minimum);
        let calibration = Calibration::MeanSquareError;
        let found = rule::calibrate(affine, stored, zero, calibration, &values).unwrap();
        let clip = found.scale * 15.0 / 13.0;
        assert!((0.1..0.95).contains(&clip), "{clip}");
        let steps = clip * rule::CLIP_STEPS as f32;
        assert!((steps - steps.round()).abs() < 1e-4, "{steps}");
        let middle = found.zero.minimum()
            + found.scale * (affine.min_value() + affine.max_value()) as f32 / 2.0;
        assert!((middle - 0.5).abs() < 1e-4, "{middle}");
    }
}

/// Among equal errors the widest clip wins.
#[test]
fn ties_of_the_search_go_to_the_first() {
    let format = "tf".parse().unwrap();
    let zeros = [0.0; 4];
    let matrix = quantize(&zeros, 1, 4, format, Some(Calibration::MeanSquareError)).unwrap();
    assert_eq!(matrix.scale(0, 0), 0.0);
}

/// Where a scale loses most of its bits the largest value passes the narrow range.
#[test]
fn the_narrow_range_holds_for_rounded_scales() {
    let step = half::f16::from_bits(1).to_f32();
    let value = 1.4 * 7.0 * step;
    let format: MatrixFormat = "i4rh".parse().unwrap();
    let integers = |calibration| {
        let matrix = quantize(&[-value, value], 1, 2, format, Some(calibration)).unwrap();
        (matrix.scale(0, 0), matrix.integer_values().unwrap())
    };
    assert_eq!(integers(Calibration::AbsMax), (step, vec![-7, 7]));
    let group = GroupScale {
        scale: step,
        inverse: 1.0 / step,
        zero: GroupZero::None,
    };
    let element = ElementFormat::INT4.affine().unwrap();
    assert_eq!(rule::encode(element, CodeRange::Full, &group, -value), 0);
    assert_eq!(rule::encode(element, CodeRange::Narrow, &group, -value), 1);
}

/// Large enough that rows, and the clips of one tensor, run in parallel.
#[test]
fn large_matrices_follow_the_rule() {
    let (rows, columns) = (130, 576);
    let values = random_values(rows * columns, 23);
    for name in ["i4f", "u4g96hm", "tf"] {
        let format: MatrixFormat = name.parse().unwrap();
        for calibration in CALIBRATIONS
            .into_iter()
            .filter(|calibration| calibration.applies_to(&format))
        {
            let matrix = quantize(&values, rows, columns, format, Some(calibration)).unwrap();
            check_against_plain_rule(&matrix, &values, calibration);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// No finite input panics; it quantises by the rule or its scale overflows.
    #[test]
    fn any_finite_value(
        bits in prop::collection::vec(any::<u32>(), 64),
        row in 0..FORMATS.len(),
        format in any::<prop::sample::Index>(),
        calibration in prop::sample::select(&CALIBRATIONS[..]),
    ) {
        let values: Vec<f32> =
            bits.into_iter()
                .map(f32::from_bits)
                .map(|x| if x.is_finite() { x } else { 1.0 })
                .collect();
        let formats = support::formats_of(FORMATS[row].element, 32);
        let format = *format.get(&formats);
        let by_rule = formats_of(FORMATS[row].element, 32).contains(&format);
        match quantize(&values, 2, 32, format, Some(calibration)) {
            Ok(matrix) if by_rule => check_against_plain_rule(&matrix, &values, calibration),
            Ok(matrix) => prop_assert!(matrix.decode().iter().all(|value| !value.is_nan())),
            Err(
                FormatError::ScaleOverflow { .. }
                | FormatError::MinimumOverflow { .. }
                | FormatError::Calibration { .. }
                | FormatError::SignedZeroPoint { .. },
            ) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    /// The error of an unclipped value is at most half a step, and what rounding the scale costs.
    #[test]
    fn errors_are_half_a_step(seed in any::<u64>(), bits in 2_u8..=8) {
        let values = random_values(64, seed);
        for encoding in [Encoding::TwosComplement, Encoding::Bipolar] {
            let element = ElementFormat::from(AffineFormat::new(bits, encoding).unwrap());
            let format = MatrixFormat::activation_default(element);
            let matrix = quantize(&values, 2, 32, format, None).unwrap();
            let codes_apart = element.affine().unwrap().coefficients().0 as f32;
            for (index, (x, y)) in values.iter().zip(matrix.decode()).enumerate() {
                let step = matrix.scale(index / 32, 0) * codes_apart;
                prop_assert!((x - y).abs() <= 0.5001 * step, "{element} {x} {y} {step}");
            }
        }
    }

    /// What a format holds exactly comes back exactly.
    #[test]
    fn quantised_values_are_fixed_points(seed in any::<u64>()) {
        let mut random = Random(seed);
        let integers: Vec<i32> = (0..64)
            .map(|i| if i % 32 == 0 { 127 } else { random.below(255) as i32 - 127 })
            .collect();
        let values: Vec<f32> = integers.iter().map(|&integer| integer as f32 * 0.25).collect();
        let matrix = quantize(&values, 2, 32, "i8g32h".parse().unwrap(), None).unwrap();
        prop_assert_eq!(matrix.integer_values().unwrap(), integers);
        prop_assert_eq!(matrix.decode(), values);
    }
}
