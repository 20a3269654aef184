//! Row quantisers and the decode kernel.

mod common;

use anybit_formats::quantize::rule::{self, CodeRange, GroupScale, GroupZero};
use anybit_formats::{
    AffineFormat, Calibration, DeviceLayout, ElementFormat, FORMATS, FormatError, Granularity,
    MatrixFormat, Overflow, PackedMatrix, QuantizeOptions, QuantizeRowsOptions, Rounding,
    ScaleRule, ScaleType, SumLayout, ZeroKind, Zeros, quantize, quantize_with,
};
use anybit_reference::bound::{ErrorModel, scale_bound};
use anybit_reference::quantize::{code_sums, codes_allowed, codes_given, codes_given_with};
use anybit_reference::{ReferenceError, kernel};
use common::{Random, affine_elements, format, matrix, scaled};

/// The format of an element with one f32 scale a row.
fn row_format(element: impl Into<ElementFormat>) -> MatrixFormat {
    MatrixFormat::activation_default(element.into())
}

/// The format of an element with one f32 scale a group.
fn group_format(element: impl Into<ElementFormat>, group: u32) -> MatrixFormat {
    scaled(
        element.into(),
        Granularity::Group(group),
        ScaleType::F32,
        ZeroKind::None,
    )
}

/// The elements that the quantising kernels make.
fn quantised_elements() -> Vec<ElementFormat> {
    FORMATS
        .iter()
        .map(|row| row.element)
        .filter(|element| {
            let large = element
                .codebook()
                .is_some_and(|codebook| codebook.bits() > 4);
            element.has_codes() && !element.has_choices() && !large
        })
        .collect()
}

/// Values between, at and beside the edges of codes.
fn edges(element: AffineFormat, inverse: f32) -> Vec<f32> {
    let mut values = vec![
        0.0,
        -0.0,
        1e30,
        -1e30,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
    ];
    for half in 2 * (element.min_value() - 2)..=2 * (element.max_value() + 2) {
        let value = half as f32 * 0.5 / inverse;
        values.extend([value, value.next_up(), value.next_down()]);
    }
    values
}

#[test]
fn codes_follow_the_rule_of_the_formats() {
    for element in affine_elements() {
        let element = element.affine().unwrap();
        for inverse in [1.0, 0.37, 3.0, 127.0, 1e-3, 0.0] {
            let mut values = edges(element, if inverse == 0.0 { 1.0 } else { inverse });
            let mut random = Random::new(3);
            values.extend((0..500).map(|_| random.float() * 300.0));
            let group = GroupScale {
                scale: 1.0,
                inverse,
                zero: GroupZero::None,
            };
            let expected: Vec<u8> = values
                .iter()
                .map(|&value| rule::encode(element, CodeRange::Narrow, &group, value))
                .collect();
            assert_eq!(
                codes_given(&values, inverse, &row_format(element)),
                expected,
                "{element:?}"
            );
            assert!(expected.iter().all(|&code| code <= element.max_code()));
        }
    }
}

#[test]
fn allowed_codes_cover_contraction_and_either_neighbour() {
    let mut random = Random::new(4);
    let (mut wide, mut contracted_differs) = (0, false);
    for element in affine_elements() {
        let affine = element.affine().unwrap();
        for _ in 0..20 {
            let inverse = random.float().abs() * 4.0 + 0.1;
            let mut values = edges(affine, inverse);
            values.extend((0..100).map(|_| random.float() * 5.0));
            let format = row_format(element);
            let codes = codes_given(&values, inverse, &format);
            for ((&value, code), allowed) in values
                .iter()
                .zip(codes)
                .zip(codes_allowed(&values, inverse, &format))
            {
                assert!(allowed.contains(code));
                let count = (0..=255).filter(|&code| allowed.contains(code)).count();
                assert!((1..=2).contains(&count));
                wide += u32::from(allowed.only().is_none());
                if element.name().starts_with("bipolar") {
                    let (max, add) = (affine.max_code(), f32::from(affine.max_code()));
                    let level = value.mul_add(inverse, add) * 0.5;
                    let contracted = level.clamp(0.0, f32::from(max)).round_ties_even() as u8;
                    assert!(allowed.contains(contracted));
                    contracted_differs |= contracted != code;
                } else if affine != AffineFormat::BINARY {
                    let product = value * inverse;
                    for product in [product.next_up(), product.next_down()] {
                        // A neighbour of the exact product, if it is on the other side of it.
                        let exact = f64::from(value) * f64::from(inverse);
                        let between =
                            (f64::from(product) - exact) * (f64::from(value * inverse) - exact);
                        if between < 0.0 {
                            let [code] = codes_given(&[product], 1.0, &format)[..] else {
                                unreachable!()
                            };
                            assert!(allowed.contains(code), "{element} {value} {inverse}");
                        }
                    }
                }
            }
        }
    }
    assert!(wide > 0 && contracted_differs);
}

#[test]
fn away_from_the_edges_one_code_is_allowed() {
    let mut random = Random::new(5);
    for element in quantised_elements() {
        let values: Vec<f32> = (0..1000).map(|_| random.float() * 20.0).collect();
        let wide = codes_allowed(&values, 0.731, &row_format(element))
            .iter()
            .filter(|allowed| allowed.only().is_none())
            .count();
        assert!(wide <= 1, "{element}: {wide} of 1000");
    }
    let allowed = |values: &[f32], inverse, element: ElementFormat| -> Vec<Vec<u8>> {
        let of = |allowed: anybit_reference::quantize::AllowedCodes| {
            (0..=255).filter(|&code| allowed.contains(code)).collect()
        };
        let allowed = codes_allowed(values, inverse, &row_format(element));
        allowed.into_iter().map(of).collect()
    };
    let binary = allowed(
        &[-f32::MIN_POSITIVE / 2.0, -0.1],
        1.0,
        ElementFormat::BINARY,
    );
    assert_eq!(binary, [vec![0, 1], vec![0]]);
    // Three quarters, unless the value is read as 0.
    let tiny = 0.75 * f32::MIN_POSITIVE;
    let uint4 = allowed(&[tiny], 2_f32.powi(126), ElementFormat::UINT4);
    assert_eq!(uint4, [[0, 1]]);
    // 15 − 1e-30 may be rounded to the float below 15, whose half is below the tie.
    let bipolar = allowed(&[-1e-30, 1e-30], 1.0, ElementFormat::BIPOLAR4);
    assert_eq!(bipolar, [vec![7, 8], vec![8]]);
    // A product that may be flushed is a zero of either sign.
    let e2m1 = allowed(&[-1e-30, 1e-10], 1e-10, ElementFormat::E2M1);
    assert_eq!(e2m1, [vec![0, 8], vec![0]]);
    // 5 is a tie between 4 and 6; a third of 15 is not.
    let e2m1 = allowed(&[5.0, 15.0], 1.0 / 3.0_f32.next_down(), ElementFormat::E2M1);
    assert_eq!(e2m1[0], [3]);
    assert!(e2m1[1].len() == 2 || e2m1[1] == [7]);
}

/// Minifloats and codebooks: the codes of the formats' own encoders, bare or scaled.
#[test]
fn other_families_take_the_nearest_value() {
    let mut random = Random::new(9);
    for element in quantised_elements() {
        let values: Vec<f32> = (0..500).map(|_| random.float() * 9.0).collect();
        let bare = MatrixFormat::new(element, None).unwrap();
        let codes = codes_given(&values, 1.0, &bare);
        for (&value, code) in values.iter().zip(codes) {
            let expected = match element {
                ElementFormat::Minifloat(minifloat) => {
                    minifloat.encode(value, Rounding::NearestEven, Overflow::Saturate, 0)
                }
                ElementFormat::Codebook(codebook) => codebook.encode(value, 0),
                _ => continue,
            };
            assert_eq!(code, expected, "{element} {value}");
            let [allowed] = codes_allowed(&[value], 1.0, &bare)[..] else {
                unreachable!()
            };
            assert_eq!(allowed.only(), Some(expected));
        }
    }
}

fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.float() * 2.5).collect()
}

#[test]
fn twins_quantise_as_the_host_does() {
    let (rows, columns) = (5, 192);
    let values = values(rows * columns, 1);
    let host = |format: &MatrixFormat| quantize(&values, rows, columns, *format, None).unwrap();
    for element in quantised_elements() {
        let bare = MatrixFormat::new(element, None).unwrap();
        let twin = kernel::quantize_groups(&values, rows, columns, &bare).unwrap();
        assert_eq!(twin.matrix, host(&bare), "{bare}");
        assert!(twin.inverses.is_empty());
        let e8m0 = scaled(
            element,
            Granularity::Group(32),
            ScaleType::E8m0,
            ZeroKind::None,
        );
        let twin = kernel::quantize_groups(&values, rows, columns, &e8m0).unwrap();
        assert_eq!(twin.matrix, host(&e8m0), "{e8m0}");
        // Means depend on the order of their sums.
        let format = row_format(element);
        if Calibration::default_for(&format) != Some(Calibration::AbsMax) {
            continue;
        }
        for workgroup in [1, 64, 256] {
            let twin = kernel::quantize_rows(&values, rows, columns, &format, workgroup).unwrap();
            assert_eq!(twin.matrix, host(&format), "{format}");
            assert_eq!(twin.inverses.len(), rows);
        }
        for group in [16, 32, 64, 96] {
            let format = group_format(element, group);
            let twin = kernel::quantize_groups(&values, rows, columns, &format).unwrap();
            assert_eq!(twin.matrix, host(&format), "{format}");
            assert_eq!(twin.inverses.len(), rows * columns / group as usize);
        }
    }
}

#[test]
fn mean_magnitudes_are_within_their_bound() {
    let (rows, columns) = (4, 352);
    let values = values(rows * columns, 2);
    for affine in [AffineFormat::BINARY, AffineFormat::TERNARY] {
        let check = |twin: &anybit_reference::quantize::Quantized, len: usize| {
            let model = ErrorModel::NEAREST;
            let format = twin.matrix.format();
            for (index, values) in values.chunks(len).enumerate() {
                let (row, group) = (index * len / columns, index * len % columns / len);
                let scale = twin.matrix.scale(row, group);
                assert!(model.scale(values, format).unwrap().holds(scale));
                let inverse = twin.inverses[index];
                assert!(model.inverse(scale).holds(inverse));
                let start = index * len;
                let codes = twin.matrix.unpack_codes()[start..start + len].to_vec();
                assert_eq!(codes, codes_given(values, inverse, format));
            }
        };
        for workgroup in [1, 32, 256] {
            let format = row_format(affine);
            let twin = kernel::quantize_rows(&values, rows, columns, &format, workgroup).unwrap();
            check(&twin, columns);
        }
        let format = group_format(affine, 32);
        check(
            &kernel::quantize_groups(&values, rows, columns, &format).unwrap(),
            32,
        );
    }
}

#[test]
fn zero_and_subnormal_rows_have_scale_and_inverse_0() {
    let int8 = row_format(ElementFormat::INT8);
    for value in [0.0, f32::MIN_POSITIVE / 4.0, f32::MIN_POSITIVE] {
        let twin = kernel::quantize_rows(&[value; 4], 1, 4, &int8, 8).unwrap();
        assert_eq!((twin.matrix.scale(0, 0), twin.inverses[0]), (0.0, 0.0));
        assert_eq!(twin.matrix.integer_values().unwrap(), [0; 4]);
        let bounded = scale_bound(&[value; 4], &int8).unwrap();
        assert!(bounded.holds(0.0));
    }
    // The smallest ternary scale keeps it from 0.
    let ternary = row_format(AffineFormat::TERNARY);
    let twin = kernel::quantize_rows(&[0.0; 4], 1, 4, &ternary, 8).unwrap();
    assert_eq!(twin.matrix.scale(0, 0), 1e-5);
    // The smallest power of two is subnormal.
    let twin = kernel::quantize_groups(&[0.0; 32], 1, 32, &format("e2m1g32e")).unwrap();
    assert_eq!(twin.matrix.scale(0, 0), 2.0_f32.powi(-127));
    assert_eq!(twin.inverses, [0.0]);
}

#[test]
fn sums_are_those_of_the_device_image() {
    for (columns, group) in [
        (64, None),
        (75, None),
        (96, Some(32)),
        (48, Some(16)),
        (64, Some(64)),
    ] {
        let rows = 3;
        let values = values(rows * columns, 6);
        let int5 = ElementFormat::INT5;
        let twin = match group {
            None => kernel::quantize_rows(&values, rows, columns, &row_format(int5), 32),
            Some(group) => {
                kernel::quantize_groups(&values, rows, columns, &group_format(int5, group))
            }
        }
        .unwrap();
        let layout = DeviceLayout {
            sums: SumLayout::Blocks,
            ..DeviceLayout::ROW_MAJOR
        };
        let image = twin.matrix.to_device(&layout).unwrap();
        let sums = &image.side[image.sections.sums as usize..][..twin.sums.len()];
        assert_eq!(sums, twin.sums);
        assert_eq!(
            twin.sums.len(),
            rows * columns.div_ceil(32) * if group == Some(16) { 2 } else { 1 }
        );
    }
    assert_eq!(code_sums(&[1, 2, 3], 3, 32), [6]);
    assert_eq!(code_sums(&[1, 2, 3], 3, 16), [6, 0]);
    assert!(code_sums(&[], 0, 32).is_empty());
}

#[test]
fn wrong_input_is_refused() {
    let int8 = row_format(ElementFormat::INT8);
    let rows = |values: &[f32], workgroup| kernel::quantize_rows(values, 1, 4, &int8, workgroup);
    assert!(matches!(
        rows(&[1.0; 3], 8),
        Err(ReferenceError::Length {
            expected: 4,
            found: 3,
            ..
        })
    ));
    assert!(matches!(
        rows(&[1.0, f32::NAN, 0.0, 0.0], 8),
        Err(ReferenceError::Format(_))
    ));
    assert!(matches!(
        rows(&[1.0; 4], 3),
        Err(ReferenceError::Constant { .. })
    ));
    for name in [
        "f32",
        "u4g32fm",
        "i4g32h",
        "e2m1g16k",
        "e2m1re",
        "bitmod4g128qc",
        "dynamic8g32f",
        "i8f",
    ] {
        let twin = kernel::quantize_groups(&[1.0; 128], 1, 128, &format(name));
        assert!(
            matches!(twin, Err(ReferenceError::Quantizer { .. })),
            "{name}"
        );
    }
    for name in ["i8", "i8g32f"] {
        let twin = kernel::quantize_rows(&[1.0; 128], 1, 128, &format(name), 8);
        assert!(
            matches!(twin, Err(ReferenceError::Quantizer { .. })),
            "{name}"
        );
    }
    let twin = kernel::quantize_groups(&[1.0; 40], 1, 40, &group_format(ElementFormat::INT4, 32));
    assert!(matches!(twin, Err(ReferenceError::Format(_))));
}

#[test]
fn decode_reads_every_code_of_every_format() {
    for row in FORMATS {
        let element = row.element;
        let Ok(bare) = MatrixFormat::new(element, None) else {
            continue;
        };
        let Some(max_code) = element.max_code() else {
            let matrix = matrix(bare, 3, 37, 1);
            assert_eq!(kernel::decode(&matrix), matrix.decode());
            continue;
        };
        let (codes, values): (Vec<u8>, Vec<f32>) = (0..=max_code)
            .map(|code| (code, element.code_value(code).unwrap()))
            .filter(|(_, value)| value.is_finite())
            .unzip();
        let bare =
            PackedMatrix::from_codes(bare, 1, codes.len(), &codes, &[], Zeros::None).unwrap();
        assert_eq!(kernel::decode(&bare), values);
    }
    for name in [
        "i4g32h",
        "u4g32hm",
        "u8g64fz",
        "tf",
        "b5rh",
        "u3g16hm",
        "e4m3rf",
        "e2m1g32e",
        "e2m1g16k",
        "bitmod4g128qc",
        "bitmod3rfc",
        "u4g32sm",
        "i6g16s",
        "nf4g64f",
    ] {
        let matrix = matrix(format(name), 4, 768, 5);
        assert_eq!(kernel::decode(&matrix), matrix.decode(), "{name}");
    }
}

/// The twins against the quantiser of the formats, under every rounding and every rule for powers of two.
#[test]
fn twins_follow_the_options_as_the_host_does() {
    let (rows, columns) = (6, 192);
    // Halves too, so that ties come up.
    let values: Vec<f32> = values(rows * columns, 31)
        .into_iter()
        .enumerate()
        .map(|(index, value)| match index % 3 {
            0 => (value * 8.0).round() / 2.0,
            _ => value,
        })
        .collect();
    let roundings = [
        Rounding::NearestEven,
        Rounding::HalfAway,
        Rounding::Truncate,
        Rounding::Stochastic { seed: 77 },
    ];
    let rules = [ScaleRule::Floor, ScaleRule::Ceil, ScaleRule::Nearest];
    // The host adds magnitudes in f64, the twins in f32 as shaders do.
    let is_mean =
        |format: &MatrixFormat| Calibration::default_for(format) == Some(Calibration::AbsMean);
    for element in quantised_elements() {
        for rounding in roundings {
            for scale_rule in rules {
                let options = QuantizeRowsOptions::default()
                    .with_rounding(rounding)
                    .with_scale_rule(scale_rule);
                let host_options = QuantizeOptions {
                    rounding,
                    scale_rule,
                    ..QuantizeOptions::default()
                };
                let bare = MatrixFormat::new(element, None).unwrap();
                let e8m0 = scaled(
                    element,
                    Granularity::Group(32),
                    ScaleType::E8m0,
                    ZeroKind::None,
                );
                for format in [bare, e8m0, group_format(element, 64)] {
                    if is_mean(&format) {
                        continue;
                    }
                    let host = quantize_with(&values, rows, columns, format, &host_options);
                    let twin =
                        kernel::quantize_groups_with(&values, rows, columns, &format, &options);
                    match host {
                        Ok(host) => assert_eq!(twin.unwrap().matrix, host, "{format} {options:?}"),
                        Err(error) => {
                            assert!(matches!(error, FormatError::Rounding { .. }));
                            assert_eq!(twin, Err(ReferenceError::Format(error)));
                        }
                    }
                }
                let format = row_format(element);
                if scale_rule == ScaleRule::Floor && !is_mean(&format) {
                    let host = quantize_with(&values, rows, columns, format, &host_options);
                    let twin =
                        kernel::quantize_rows_with(&values, rows, columns, &format, 64, &options);
                    if let Ok(host) = host {
                        assert_eq!(twin.unwrap().matrix, host, "{format} {options:?}");
                    }
                }
            }
        }
    }
}

/// Beyond the largest finite value: that value, or infinity or NaN, which no matrix holds.
#[test]
fn overflow_saturates_or_is_special() {
    let format: MatrixFormat = "e5m2".parse().unwrap();
    let special = QuantizeRowsOptions::default().with_overflow(Overflow::Special);
    let codes =
        |options: &QuantizeRowsOptions| codes_given_with(&[1e9, -1e9], 1.0, &format, options, 0);
    assert_eq!(codes(&QuantizeRowsOptions::default()), [0x7b, 0xfb]);
    assert_eq!(codes(&special), [0x7c, 0xfc]);
    assert!(matches!(
        kernel::quantize_groups_with(&[1e9; 4], 1, 4, &format, &special),
        Err(ReferenceError::Format(_))
    ));
}

/// Rounding small numbers is not disturbed by the distance of a zero from the codes.
#[test]
fn just_below_a_half_is_rounded_down() {
    let value = 0.5_f32.next_down();
    let options = QuantizeRowsOptions::default().with_rounding(Rounding::HalfAway);
    let format: MatrixFormat = "i8".parse().unwrap();
    let twin = kernel::quantize_groups_with(&[value, -value, 0.5, -0.5], 1, 4, &format, &options);
    assert_eq!(
        twin.unwrap().matrix.integer_values().unwrap(),
        [0, 0, 1, -1]
    );
    let host_options = QuantizeOptions {
        rounding: Rounding::HalfAway,
        ..QuantizeOptions::default()
    };
    let host = quantize_with(&[value, -value, 0.5, -0.5], 1, 4, format, &host_options);
    assert_eq!(host.unwrap().integer_values().unwrap(), [0, 0, 1, -1]);
}
