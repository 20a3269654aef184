//! Row quantisers and the decode kernel.

mod common;

use anybit_formats::quantize::rule::{self, CodeRange, GroupScale, GroupZero};
use anybit_formats::{
    AffineFormat, Calibration, DeviceLayout, ElementFormat, FORMATS, Granularity, MatrixFormat,
    PackedMatrix, ScaleType, SumLayout, ZeroKind, Zeros, quantize,
};
use anybit_reference::bound::{ErrorModel, scale_bound};
use anybit_reference::quantize::{code_sums, codes_allowed, codes_given};
use anybit_reference::{ReferenceError, kernel};
use common::{Random, affine_elements, format, matrix, scaled};

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
                codes_given(&values, inverse, element),
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
            let codes = codes_given(&values, inverse, affine);
            for ((&value, code), allowed) in values
                .iter()
                .zip(codes)
                .zip(codes_allowed(&values, inverse, affine))
            {
                assert!(allowed.contains(&code));
                assert!(allowed.end() - allowed.start() <= 1);
                wide += u32::from(allowed.start() != allowed.end());
                if element.name().starts_with("bipolar") {
                    let (max, add) = (affine.max_code(), f32::from(affine.max_code()));
                    let level = value.mul_add(inverse, add) * 0.5;
                    let contracted = level.clamp(0.0, f32::from(max)).round_ties_even() as u8;
                    assert!(allowed.contains(&contracted));
                    contracted_differs |= contracted != code;
                } else if affine != AffineFormat::BINARY {
                    let product = value * inverse;
                    for product in [product.next_up(), product.next_down()] {
                        // A neighbour of the exact product, if it is on the other side of it.
                        let exact = f64::from(value) * f64::from(inverse);
                        let between =
                            (f64::from(product) - exact) * (f64::from(value * inverse) - exact);
                        if between < 0.0 {
                            let [code] = codes_given(&[product], 1.0, affine)[..] else {
                                unreachable!()
                            };
                            assert!(allowed.contains(&code), "{element} {value} {inverse}");
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
    for element in affine_elements() {
        let affine = element.affine().unwrap();
        let values: Vec<f32> = (0..1000).map(|_| random.float() * 20.0).collect();
        let wide = codes_allowed(&values, 0.731, affine)
            .iter()
            .filter(|range| range.start() != range.end())
            .count();
        assert!(wide <= 1, "{element}: {wide} of 1000");
    }
    let allowed = codes_allowed(&[-f32::MIN_POSITIVE / 2.0, -0.1], 1.0, AffineFormat::BINARY);
    assert_eq!(allowed, [0..=1, 0..=0]);
    // Three quarters, unless the value is read as 0.
    let uint4 = ElementFormat::UINT4.affine().unwrap();
    let tiny = 0.75 * f32::MIN_POSITIVE;
    let allowed = codes_allowed(&[tiny], 2_f32.powi(126), uint4);
    assert_eq!(allowed, [0..=1]);
    // 15 − 1e-30 may be rounded to the float below 15, whose half is below the tie.
    let bipolar = AffineFormat::new(4, anybit_formats::Encoding::Bipolar).unwrap();
    let allowed = codes_allowed(&[-1e-30, 1e-30], 1.0, bipolar);
    assert_eq!(allowed, [7..=8, 8..=8]);
}

fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.float() * 2.5).collect()
}

#[test]
fn largest_magnitudes_quantise_as_on_the_host() {
    let (rows, columns) = (5, 192);
    let values = values(rows * columns, 1);
    for element in affine_elements() {
        let affine = element.affine().unwrap();
        let absmax = Calibration::AbsMax;
        for workgroup in [1, 64, 256] {
            let twin =
                kernel::quantize_rows(&values, rows, columns, affine, absmax, workgroup).unwrap();
            let format = MatrixFormat::activation_default(element);
            let host = quantize(&values, rows, columns, format, Some(absmax)).unwrap();
            assert_eq!(twin.matrix, host);
            assert_eq!(twin.inverses.len(), rows);
        }
        for group in [16, 32, 64, 96] {
            let twin =
                kernel::quantize_groups(&values, rows, columns, affine, absmax, group).unwrap();
            let granularity = Granularity::Group(group);
            let format = scaled(element, granularity, ScaleType::F32, ZeroKind::None);
            let host = quantize(&values, rows, columns, format, Some(absmax)).unwrap();
            assert_eq!(twin.matrix, host);
            assert_eq!(twin.inverses.len(), rows * columns / group as usize);
        }
    }
}

#[test]
fn mean_magnitudes_are_within_their_bound() {
    let (rows, columns) = (4, 352);
    let values = values(rows * columns, 2);
    for affine in [AffineFormat::BINARY, AffineFormat::TERNARY] {
        let mean = Calibration::AbsMean;
        let check = |twin: &anybit_reference::quantize::Quantized, len: usize| {
            let model = ErrorModel::NEAREST;
            for (index, values) in values.chunks(len).enumerate() {
                let (row, group) = (index * len / columns, index * len % columns / len);
                let scale = twin.matrix.scale(row, group);
                assert!(model.scale(values, affine, mean).unwrap().holds(scale));
                let inverse = twin.inverses[index];
                assert!(model.inverse(scale).holds(inverse));
                let start = index * len;
                let codes = twin.matrix.unpack_codes()[start..start + len].to_vec();
                assert_eq!(codes, codes_given(values, inverse, affine));
            }
        };
        for workgroup in [1, 32, 256] {
            let twin =
                kernel::quantize_rows(&values, rows, columns, affine, mean, workgroup).unwrap();
            check(&twin, columns);
        }
        check(
            &kernel::quantize_groups(&values, rows, columns, affine, mean, 32).unwrap(),
            32,
        );
    }
}

#[test]
fn zero_and_subnormal_rows_have_scale_and_inverse_0() {
    let int8 = ElementFormat::INT8.affine().unwrap();
    for value in [0.0, f32::MIN_POSITIVE / 4.0, f32::MIN_POSITIVE] {
        let twin = kernel::quantize_rows(&[value; 4], 1, 4, int8, Calibration::AbsMax, 8).unwrap();
        assert_eq!((twin.matrix.scale(0, 0), twin.inverses[0]), (0.0, 0.0));
        assert_eq!(twin.matrix.integer_values().unwrap(), [0; 4]);
        let bounded = scale_bound(&[value; 4], int8, Calibration::AbsMax).unwrap();
        assert!(bounded.holds(0.0));
    }
    // The smallest ternary scale keeps it from 0.
    let ternary = AffineFormat::TERNARY;
    let twin = kernel::quantize_rows(&[0.0; 4], 1, 4, ternary, Calibration::AbsMean, 8).unwrap();
    assert_eq!(twin.matrix.scale(0, 0), 1e-5);
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
        let int5 = ElementFormat::INT5.affine().unwrap();
        let twin = match group {
            None => kernel::quantize_rows(&values, rows, columns, int5, Calibration::AbsMax, 32),
            Some(group) => {
                kernel::quantize_groups(&values, rows, columns, int5, Calibration::AbsMax, group)
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
    let int8 = ElementFormat::INT8.affine().unwrap();
    let absmax = Calibration::AbsMax;
    let rows = |values: &[f32], calibration, workgroup| {
        kernel::quantize_rows(values, 1, 4, int8, calibration, workgroup)
    };
    assert!(matches!(
        rows(&[1.0; 3], absmax, 8),
        Err(ReferenceError::Length {
            expected: 4,
            found: 3,
            ..
        })
    ));
    assert!(matches!(
        rows(&[1.0, f32::NAN, 0.0, 0.0], absmax, 8),
        Err(ReferenceError::Format(_))
    ));
    assert!(matches!(
        rows(&[1.0; 4], absmax, 3),
        Err(ReferenceError::Constant { .. })
    ));
    assert!(matches!(
        rows(&[1.0; 4], Calibration::AbsMean, 8),
        Err(ReferenceError::Quantizer { .. })
    ));
    for group in [0, 8, 48] {
        let twin = kernel::quantize_groups(&[1.0; 64], 1, 64, int8, absmax, group);
        assert!(matches!(twin, Err(ReferenceError::Format(_))), "{group}");
    }
}

#[test]
fn decode_reads_every_code_of_every_format() {
    for row in FORMATS {
        let Some(affine) = row.element.affine() else {
            let matrix = matrix(MatrixFormat::new(row.element, None).unwrap(), 3, 37, 1);
            assert_eq!(kernel::decode(&matrix), matrix.decode());
            continue;
        };
        let codes: Vec<u8> = (0..=affine.max_code()).collect();
        let format = MatrixFormat::new(row.element, None).unwrap();
        let bare =
            PackedMatrix::from_codes(format, 1, codes.len(), &codes, &[], Zeros::None).unwrap();
        let values: Vec<f32> = codes
            .iter()
            .map(|&code| affine.value(code) as f32)
            .collect();
        assert_eq!(kernel::decode(&bare), values);
    }
    for name in ["i4g32h", "u4g32hm", "u8g64fz", "tf", "b5rh", "u3g16hm"] {
        let matrix = matrix(format(name), 4, 192, 5);
        assert_eq!(kernel::decode(&matrix), matrix.decode(), "{name}");
    }
}
