//! `int8` matrices at fewer bits, and their carry planes on the device.

mod support;

use anybit_formats::layout::{code_bit, word_index};
use anybit_formats::{
    DeviceLayout, FormatError, MatrixFormat, Memory, Nesting, PackedMatrix, PieceLayout, Sections,
    SumLayout, double_round, truncate,
};
use support::random_matrix;

const PLANES: DeviceLayout = DeviceLayout {
    pieces: PieceLayout::Planes,
    interleave: 4,
    sums: SumLayout::None,
    memory: Memory::Buffers,
};

fn matrix(name: &str, rows: usize, columns: usize, seed: u64) -> PackedMatrix {
    let format: MatrixFormat = name.parse().unwrap();
    random_matrix(format, rows, columns, seed)
}

/// The numbers of a nested matrix are q_l·2^(8 − l)·s + m.
#[test]
fn numbers_are_the_codes_in_larger_units() {
    for (seed, name) in [
        "i8f", "i8rf", "i8g32h", "i8rfm", "i8g16k", "i8g128q", "i8g32sm", "i8g32e",
    ]
    .into_iter()
    .enumerate()
    {
        let stored = matrix(name, 5, 256, seed as u64);
        let integers = stored.integer_values().unwrap();
        let group_len = stored.format().group_len(256);
        for bits in 2..=8_u8 {
            let unit = f64::from(1_u32 << (8 - bits));
            let (low, high) = (
                -(2_f64.powi(i32::from(bits) - 1)),
                2_f64.powi(i32::from(bits) - 1) - 1.0,
            );
            for nesting in Nesting::ALL {
                let nested = match stored.nested(bits, nesting) {
                    Ok(nested) => nested,
                    // A scale of some types has no room for the factor.
                    Err(FormatError::ScaleOverflow { .. }) if !name.contains('f') => continue,
                    Err(error) => panic!("{name}: {error}"),
                };
                assert_eq!(nested.format(), &stored.format().nested(bits).unwrap());
                assert_eq!((nested.rows(), nested.columns()), (5, 256));
                for (index, value) in nested.decode_f64().into_iter().enumerate() {
                    let (row, column) = (index / 256, index % 256);
                    let (s, m) = (
                        stored.scale(row, column / group_len),
                        stored.minimum(row, column / group_len),
                    );
                    let quotient = f64::from(integers[index]) / unit;
                    let integer = match nesting {
                        Nesting::Truncation => quotient.floor(),
                        Nesting::DoubleRounding => quotient.round_ties_even().clamp(low, high),
                    };
                    assert_eq!(
                        value,
                        integer * unit * f64::from(s) + f64::from(m),
                        "{name} at {bits} bits, {row}, {column}"
                    );
                }
            }
        }
    }
}

/// Without scales the numbers are the integers themselves, and 8 bits change nothing.
#[test]
fn bare_codes_and_eight_bits() {
    let stored = matrix("i8", 7, 45, 3);
    let codes = stored.unpack_codes();
    for nesting in Nesting::ALL {
        assert_eq!(stored.nested(8, nesting).as_ref(), Ok(&stored));
        let nested = stored.nested(3, nesting).unwrap();
        let integers = nested.integer_values().unwrap();
        for (&code, integer) in codes.iter().zip(integers) {
            assert_eq!(i32::from(nesting.code(code, 3).unwrap()) - 4, integer);
        }
    }
}

/// On the device Σ 2^i·plane + carry is the double-rounded code; everything else is as without carry planes.
#[test]
fn carry_planes_complete_the_top_planes() {
    for (seed, (rows, columns)) in [(1, 1), (6, 40), (33, 70), (64, 320)]
        .into_iter()
        .enumerate()
    {
        let stored = matrix("i8rf", rows, columns, seed as u64);
        for interleave in [1, 4] {
            let layout = DeviceLayout {
                interleave,
                ..PLANES
            };
            let widths = [4, 2, 7];
            let plain = stored.to_device(&layout).unwrap();
            let image = stored.to_device_with_carries(&layout, &widths).unwrap();
            assert_eq!(image.side, plain.side);
            let end = plain.sections.codes_words - 4;
            assert_eq!(image.codes[..end], plain.codes[..end]);
            assert_eq!(image.codes.len(), image.sections.codes_words);
            assert_eq!(image.sections.pieces, plain.sections.pieces);
            for (carry, bits) in image.sections.carries.iter().zip(widths) {
                assert_eq!(carry.bits, bits);
                assert!(carry.offset.is_multiple_of(64) && carry.offset as usize >= end);
                for row in 0..rows {
                    // The padding of the last block included.
                    for column in 0..columns.next_multiple_of(32) {
                        let place = word_index(interleave, 1, columns, row, column / 32);
                        let bit = |start: u32| {
                            image.codes[start as usize + place] >> code_bit(1, column as u32 % 32)
                                & 1
                        };
                        let top = (0..bits)
                            .map(|i| bit(image.sections.pieces[usize::from(8 - bits + i)]) << i);
                        let top: u32 = top.sum();
                        let code = stored.code(row, column).unwrap_or(0);
                        assert_eq!(top, u32::from(truncate(code, bits).unwrap()));
                        assert_eq!(
                            top + bit(carry.offset),
                            u32::from(double_round(code, bits).unwrap()),
                            "{row}, {column} at {bits} bits"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn wrong_carry_planes_are_refused() {
    let with = |name: &str, pieces, widths: &[u8]| {
        let format: MatrixFormat = name.parse().unwrap();
        let layout = DeviceLayout { pieces, ..PLANES };
        Sections::with_carries(&format, 4, 64, &layout, widths).map(|sections| sections.carries)
    };
    assert_eq!(with("u4", PieceLayout::Pieces, &[]), Ok(Vec::new()));
    for bits in [0, 1, 8, 9] {
        assert_eq!(
            with("i8rf", PieceLayout::Planes, &[4, bits]),
            Err(FormatError::NestedBits { bits })
        );
    }
    assert_eq!(
        with("i8rf", PieceLayout::Planes, &[4, 3, 4]),
        Err(FormatError::CarryTwice { bits: 4 })
    );
    assert_eq!(
        with("i8rf", PieceLayout::Pieces, &[4]),
        Err(FormatError::CarryLayout {
            pieces: PieceLayout::Pieces
        })
    );
    for name in ["u8rf", "b8", "i7rf", "i8rfz", "f16", "e4m3rf"] {
        let format: MatrixFormat = name.parse().unwrap();
        assert_eq!(
            with(name, PieceLayout::Planes, &[4]),
            Err(FormatError::NestedFormat { format })
        );
    }
    // f16 scales that 16 times pass.
    let large = PackedMatrix::from_codes(
        "i8rh".parse().unwrap(),
        2,
        1,
        &[5, 6],
        &[1.0, 5000.0],
        anybit_formats::Zeros::None,
    )
    .unwrap();
    assert!(matches!(
        large.nested(4, Nesting::Truncation),
        Err(FormatError::ScaleOverflow { row: 1, .. })
    ));
}
