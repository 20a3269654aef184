//! Wrong input: every case a typed error.

mod support;

use anybit_formats::{
    Calibration, DeviceLayout, ElementFormat, FloatFormat, FormatError, MatrixFormat, Memory,
    PackedMatrix, PieceLayout, Sections, SumLayout, ZeroKind, Zeros, quantize,
};
use support::random_matrix;

fn format(name: &str) -> MatrixFormat {
    name.parse().unwrap()
}

#[test]
fn lengths() {
    let length = |what, expected, found| FormatError::Length {
        what,
        expected,
        found,
    };
    let pack = |name, codes: &[u8], scales: &[f32], zeros| {
        PackedMatrix::from_codes(format(name), 2, 32, codes, scales, zeros)
    };
    let codes = [0; 64];
    assert_eq!(
        pack("i4", &codes[1..], &[], Zeros::None),
        Err(length("codes", 64, 63))
    );
    assert_eq!(
        pack("i4", &codes, &[1.0], Zeros::None),
        Err(length("scales", 0, 1))
    );
    assert_eq!(
        pack("i4f", &codes, &[], Zeros::None),
        Err(length("scales", 1, 0))
    );
    assert_eq!(
        pack("i4rf", &codes, &[1.0], Zeros::None),
        Err(length("scales", 2, 1))
    );
    assert_eq!(
        pack("i4g16f", &codes, &[1.0], Zeros::None),
        Err(length("scales", 4, 1))
    );
    assert_eq!(
        pack("u4fz", &codes, &[1.0], Zeros::Integer(&[])),
        Err(length("zero points", 1, 0))
    );
    assert_eq!(
        pack("u4fm", &codes, &[1.0], Zeros::Minimum(&[0.0, 1.0])),
        Err(length("minima", 1, 2))
    );
    assert_eq!(
        quantize(&[0.0; 3], 2, 2, format("i8rf"), None),
        Err(length("values", 4, 3))
    );
    assert_eq!(
        PackedMatrix::from_f32(FloatFormat::F32, 2, 2, &[0.0; 5]),
        Err(length("values", 4, 5))
    );
    assert_eq!(
        PackedMatrix::from_float_bits16(FloatFormat::F16, 2, 2, &[0; 5]),
        Err(length("values", 4, 5))
    );
    let image = random_matrix(format("i4rf"), 2, 32, 1)
        .to_device(&DeviceLayout::ROW_MAJOR)
        .unwrap();
    let back = |codes: &[u32], side: &[u32]| {
        PackedMatrix::from_device(format("i4rf"), 2, 32, &DeviceLayout::ROW_MAJOR, codes, side)
    };
    assert_eq!(
        back(&image.codes[1..], &image.side),
        Err(length("words of codes", 12, 11))
    );
    assert_eq!(
        back(&image.codes, &image.side[1..]),
        Err(length("words of side data", 6, 5))
    );
}

#[test]
fn kinds() {
    let pack = |name, zeros| PackedMatrix::from_codes(format(name), 1, 1, &[0], &[1.0], zeros);
    for (name, zeros) in [
        ("u4f", Zeros::Integer(&[0])),
        ("u4fz", Zeros::Minimum(&[0.0])),
        ("u4fm", Zeros::None),
    ] {
        let (expected, found) = (format(name).zero_kind(), zeros.kind());
        assert_eq!(
            pack(name, zeros),
            Err(FormatError::ZeroKind {
                format: format(name),
                expected,
                found
            })
        );
    }
    let codes = PackedMatrix::from_codes(MatrixFormat::F16, 1, 1, &[0], &[], Zeros::None);
    assert_eq!(
        codes,
        Err(FormatError::NotCodes {
            element: ElementFormat::F16
        })
    );
    let bits = PackedMatrix::from_float_bits16(FloatFormat::F32, 1, 1, &[0]);
    assert_eq!(
        bits,
        Err(FormatError::NotSixteenBits {
            element: ElementFormat::F32
        })
    );
    for name in ["i4", "f32"] {
        let calibration = Calibration::AbsMax;
        let error = quantize(&[0.0], 1, 1, format(name), Some(calibration));
        assert_eq!(
            error,
            Err(FormatError::Calibration {
                calibration,
                format: format(name)
            })
        );
    }
    let error = quantize(&[0.0], 1, 1, format("i4fz"), None);
    assert_eq!(
        error,
        Err(FormatError::SignedZeroPoint {
            format: format("i4fz")
        })
    );
}

#[test]
fn groups_that_do_not_divide() {
    let error = FormatError::GroupDoesNotDivide {
        columns: 33,
        group: 32,
    };
    let grouped = format("i4g32h");
    assert_eq!(
        quantize(&[0.0; 33], 1, 33, grouped, None),
        Err(error.clone())
    );
    assert_eq!(
        PackedMatrix::from_codes(grouped, 1, 33, &[0; 33], &[1.0; 2], Zeros::None),
        Err(error.clone())
    );
    assert_eq!(
        Sections::new(&grouped, 1, 33, &DeviceLayout::ROW_MAJOR),
        Err(error.clone())
    );
    assert_eq!(
        PackedMatrix::from_device(grouped, 1, 33, &DeviceLayout::ROW_MAJOR, &[], &[]),
        Err(error)
    );
}

#[test]
fn values_that_are_not_finite() {
    for name in [
        "i4rf", "i4", "f32", "f16", "bf16", "u4fm", "u4fz", "tf", "b1f",
    ] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error =
                quantize(&[0.0, 1.0, 2.0, bad, bad, 3.0], 2, 3, format(name), None).unwrap_err();
            assert!(
                matches!(
                    error,
                    FormatError::NonFinite {
                        row: 1,
                        column: 0,
                        ..
                    }
                ),
                "{name} {error}"
            );
        }
    }
    let error = PackedMatrix::from_float_bits16(FloatFormat::Bf16, 1, 2, &[0, 0x7f80]).unwrap_err();
    assert_eq!(
        error,
        FormatError::NonFinite {
            row: 0,
            column: 1,
            value: f32::INFINITY
        }
    );
}

#[test]
fn values_too_large_for_their_type() {
    let error = PackedMatrix::from_f32(FloatFormat::F16, 1, 2, &[65519.0, -65520.0]).unwrap_err();
    let element = ElementFormat::F16;
    assert_eq!(
        error,
        FormatError::ElementOverflow {
            row: 0,
            column: 1,
            value: -65520.0,
            element
        }
    );
    assert!(PackedMatrix::from_f32(FloatFormat::Bf16, 1, 1, &[f32::MAX]).is_err());

    let mut values = vec![1.0; 96];
    values[80] = 1e6;
    let error = quantize(&values, 1, 96, format("i4g32h"), None).unwrap_err();
    assert_eq!(
        error,
        FormatError::ScaleOverflow {
            row: 0,
            group: 2,
            value: 1e6 / 7.0
        }
    );
    // A smaller clip may fit where the full range does not.
    assert!(
        quantize(
            &values,
            1,
            96,
            format("i4g32h"),
            Some(Calibration::MeanSquareError)
        )
        .is_ok()
    );
    let error = quantize(&[-1e6, -1e6], 2, 1, format("u4rhm"), None).unwrap_err();
    assert_eq!(
        error,
        FormatError::MinimumOverflow {
            row: 0,
            group: 0,
            value: -1e6
        }
    );
    let error = quantize(&[3e38, -3e38], 1, 2, format("u4rfm"), None).unwrap_err();
    assert_eq!(
        error,
        FormatError::ScaleOverflow {
            row: 0,
            group: 0,
            value: f32::INFINITY
        }
    );

    let pack = |name, scales: &[f32], zeros| {
        PackedMatrix::from_codes(format(name), 2, 1, &[0, 0], scales, zeros)
    };
    let error = pack("u4rh", &[1.0, 7e4], Zeros::None).unwrap_err();
    assert_eq!(
        error,
        FormatError::ScaleOverflow {
            row: 1,
            group: 0,
            value: 7e4
        }
    );
    let error = pack("u4rhm", &[1.0, 1.0], Zeros::Minimum(&[-7e4, 0.0])).unwrap_err();
    assert_eq!(
        error,
        FormatError::MinimumOverflow {
            row: 0,
            group: 0,
            value: -7e4
        }
    );
    assert!(matches!(
        pack("u4rf", &[1.0, f32::NAN], Zeros::None),
        Err(FormatError::ScaleOverflow { row: 1, .. })
    ));
}

#[test]
fn layouts() {
    let new =
        |name: &str, rows, columns, layout| Sections::new(&format(name), rows, columns, &layout);
    for interleave in [0, 3, 5, 64, u32::MAX] {
        let layout = DeviceLayout {
            interleave,
            ..DeviceLayout::ROW_MAJOR
        };
        assert_eq!(
            new("i4", 1, 1, layout),
            Err(FormatError::Interleave { interleave })
        );
    }
    let layout = DeviceLayout {
        sums: SumLayout::Blocks,
        ..DeviceLayout::ROW_MAJOR
    };
    assert_eq!(
        new("f16", 1, 1, layout),
        Err(FormatError::SumsOfFloats {
            element: ElementFormat::F16
        })
    );
    let too_large = |result| matches!(result, Err(FormatError::TooLarge { .. }));
    assert!(too_large(new(
        "f32",
        1 << 20,
        1 << 12,
        DeviceLayout::ROW_MAJOR
    )));
    assert!(new("f32", (1 << 20) - 1, 1 << 12, DeviceLayout::ROW_MAJOR).is_ok());
    assert!(too_large(new("u8", 1, 16_843_010, layout)));
    assert!(new("u8", 1, 16_843_009, layout).is_ok());
    // One code a row takes a whole block; padding counts.
    assert!(too_large(new("i8", 1 << 29, 1, DeviceLayout::ROW_MAJOR)));
    for (rows, columns) in [(usize::MAX, usize::MAX), (usize::MAX, 0), (0, usize::MAX)] {
        assert!(too_large(new("u1", rows, columns, DeviceLayout::ROW_MAJOR)));
        assert!(quantize(&[], rows, columns, format("i8rf"), None).is_err());
        assert!(
            PackedMatrix::from_codes(format("i8"), rows, columns, &[], &[], Zeros::None).is_err()
        );
        assert!(PackedMatrix::from_f32(FloatFormat::F32, rows, columns, &[]).is_err());
    }
}

#[test]
fn row_ranges() {
    let matrix = random_matrix(format("i4rf"), 4, 32, 1);
    for (start, end) in [(0, 5), (5, 5), (3, 2), (0, usize::MAX)] {
        assert_eq!(
            matrix.row_range(start..end),
            Err(FormatError::RowRange {
                start,
                end,
                rows: 4
            })
        );
    }
    assert_eq!(matrix.row_range(4..4).unwrap().rows(), 0);
}

#[test]
fn images_that_are_not_of_a_matrix() {
    for pieces in [PieceLayout::Pieces, PieceLayout::Planes] {
        let layout = DeviceLayout {
            pieces,
            interleave: 4,
            sums: SumLayout::Groups,
            memory: Memory::Buffers,
        };
        for name in ["tg32h", "u8g32hm", "i3g32fz"] {
            let format = format(name);
            let (rows, columns) = (3, 64);
            let matrix = random_matrix(format, rows, columns, 1);
            let image = matrix.to_device(&layout).unwrap();
            let back = |codes: &[u32], side: &[u32]| {
                PackedMatrix::from_device(format, rows, columns, &layout, codes, side)
            };
            assert_eq!(back(&image.codes, &image.side), Ok(matrix));

            let mut side = image.side.clone();
            side[image.sections.sums as usize + 1] += 1;
            let error = back(&image.codes, &side).unwrap_err();
            assert!(
                matches!(
                    error,
                    FormatError::Sum {
                        row: 1,
                        index: 0,
                        ..
                    }
                ),
                "{error}"
            );

            let mut side = image.side.clone();
            side[image.sections.scales as usize] = u32::MAX;
            let error = back(&image.codes, &side).unwrap_err();
            assert!(
                matches!(
                    error,
                    FormatError::ScaleOverflow {
                        row: 0,
                        group: 0,
                        ..
                    }
                ),
                "{error}"
            );

            if format.zero_kind() == ZeroKind::Minimum {
                let mut side = image.side.clone();
                side[image.sections.zeros as usize] |= 0x7c00_7c00;
                let error = back(&image.codes, &side).unwrap_err();
                assert!(
                    matches!(
                        error,
                        FormatError::MinimumOverflow {
                            row: 0,
                            group: 0,
                            ..
                        }
                    ),
                    "{error}"
                );
            }
        }

        // The code 3, which ternary has not.
        let layout = DeviceLayout {
            pieces,
            ..DeviceLayout::ROW_MAJOR
        };
        let image = random_matrix(format("t"), 2, 40, 1)
            .to_device(&layout)
            .unwrap();
        let mut codes = image.codes.clone();
        for &start in &image.sections.pieces {
            codes[start as usize] |= 0x0300
                & if pieces == PieceLayout::Planes {
                    0x0100
                } else {
                    u32::MAX
                };
        }
        let error = PackedMatrix::from_device(format("t"), 2, 40, &layout, &codes, &image.side)
            .unwrap_err();
        assert_eq!(
            error,
            FormatError::CodeTooLarge {
                row: 0,
                column: 1,
                code: 3,
                max: 2
            }
        );

        // A code after the last column.
        for name in ["t", "u8", "i5", "f16", "f32"] {
            let image = random_matrix(format(name), 2, 40, 1)
                .to_device(&layout)
                .unwrap();
            let mut codes = image.codes.clone();
            let row_words = 2 * format(name).element().bits().min(8) as usize;
            let last = match name {
                "f32" | "f16" => format(name).element().bits() as usize * 2 - 1,
                "i5" | "t" if pieces == PieceLayout::Planes => 1,
                "t" => 3,
                "i5" => 7,
                _ if pieces == PieceLayout::Planes => 1,
                _ => row_words - 1,
            };
            codes[last] |= 1 << 31;
            let error =
                PackedMatrix::from_device(format(name), 2, 40, &layout, &codes, &image.side);
            assert_eq!(
                error,
                Err(FormatError::Padding {
                    row: 0,
                    columns: 40
                }),
                "{name} {pieces:?}"
            );
        }
    }
    let image = random_matrix(MatrixFormat::F32, 1, 2, 1)
        .to_device(&DeviceLayout::ROW_MAJOR)
        .unwrap();
    let mut codes = image.codes.clone();
    codes[1] = f32::INFINITY.to_bits();
    let error = PackedMatrix::from_device(
        MatrixFormat::F32,
        1,
        2,
        &DeviceLayout::ROW_MAJOR,
        &codes,
        &image.side,
    );
    assert_eq!(
        error,
        Err(FormatError::NonFinite {
            row: 0,
            column: 1,
            value: f32::INFINITY
        })
    );
}

#[test]
fn wrong_pieces() {
    let from = |name, matrix: &PackedMatrix, pieces: Vec<Vec<u32>>| {
        PackedMatrix::from_pieces(
            format(name),
            matrix.rows(),
            matrix.columns(),
            pieces,
            matrix.side(),
        )
    };
    let pieces =
        |matrix: &PackedMatrix| -> Vec<Vec<u32>> { matrix.pieces().map(<[u32]>::to_vec).collect() };

    let matrix = random_matrix(format("u5g32hz"), 2, 64, 1);
    let mut less = pieces(&matrix);
    less.pop();
    assert_eq!(
        from("u5g32hz", &matrix, less),
        Err(FormatError::Length {
            what: "streams",
            expected: 2,
            found: 1
        })
    );
    let mut short = pieces(&matrix);
    short[1].pop();
    assert_eq!(
        from("u5g32hz", &matrix, short),
        Err(FormatError::Length {
            what: "words of a stream",
            expected: 4,
            found: 3
        })
    );
    assert!(matches!(
        from("u5g32h", &matrix, pieces(&matrix)),
        Err(FormatError::ZeroKind { .. })
    ));

    let matrix = random_matrix(format("t"), 2, 40, 1);
    let mut damaged = pieces(&matrix);
    damaged[0][4] |= 0x0300;
    assert_eq!(
        from("t", &matrix, damaged),
        Err(FormatError::CodeTooLarge {
            row: 1,
            column: 1,
            code: 3,
            max: 2
        })
    );
    let mut damaged = pieces(&matrix);
    damaged[0][3] = 1;
    assert_eq!(
        from("t", &matrix, damaged),
        Err(FormatError::Padding {
            row: 0,
            columns: 40
        })
    );
    let matrix = random_matrix(format("e4m3"), 1, 32, 1);
    let mut damaged = pieces(&matrix);
    damaged[0][0] |= 0x7f;
    assert!(matches!(
        from("e4m3", &matrix, damaged),
        Err(FormatError::NonFiniteCode {
            row: 0,
            column: 0,
            ..
        })
    ));
}

#[test]
fn messages_name_the_numbers() {
    let error = FormatError::GroupDoesNotDivide {
        columns: 33,
        group: 32,
    };
    assert_eq!(
        error.to_string(),
        "33 columns do not make whole groups of 32; use a group size that divides them, or row scales"
    );
    let format = format("u4g32hm");
    let error = FormatError::ZeroKind {
        format,
        expected: ZeroKind::Minimum,
        found: ZeroKind::None,
    };
    assert_eq!(
        error.to_string(),
        "the format u4g32hm has zeros of kind Minimum, found None"
    );
}
