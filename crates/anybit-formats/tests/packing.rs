//! Packing: every code comes back, every bit of a device image stands where the layout says,
//! nothing is wasted.

mod support;

use anybit_formats::layout::piece_widths;
use anybit_formats::{
    DeviceLayout, ElementFormat, FORMATS, FloatFormat, FormatError, Granularity, MatrixFormat,
    Memory, MinifloatFormat, PackedMatrix, PieceLayout, ScaleType, Sections, SideData, SumLayout,
    ZeroKind, Zeros,
};
use proptest::prelude::*;
use support::{
    Parts, affine_elements, code_elements, formats_of, layouts_of, random_matrix, scaled,
};

#[test]
fn every_code_of_every_format_comes_back() {
    for element in affine_elements() {
        let affine = element.affine().unwrap();
        let format = MatrixFormat::new(element, None).unwrap();
        let codes: Vec<u8> = (0..=affine.max_code()).collect();
        // Each code in each place of a block.
        for shift in 0..33 {
            let mut row = vec![0; shift];
            row.extend(&codes);
            let matrix =
                PackedMatrix::from_codes(format, 1, row.len(), &row, &[], Zeros::None).unwrap();
            assert_eq!(matrix.unpack_codes(), row, "{element} {shift}");
            for (column, &code) in row.iter().enumerate() {
                assert_eq!(matrix.code(0, column), Some(code));
            }
            let integers: Vec<i32> = row.iter().map(|&code| affine.value(code)).collect();
            assert_eq!(matrix.integer_values().unwrap(), integers);
            let decoded: Vec<f32> = integers.iter().map(|&integer| integer as f32).collect();
            assert_eq!(matrix.decode(), decoded);
        }
    }
}

#[test]
fn a_matrix_is_its_pieces_and_its_side_data() {
    let mut elements = code_elements();
    elements.extend([ElementFormat::F32, ElementFormat::F16, ElementFormat::BF16]);
    for element in elements {
        for (rows, columns) in [(3, 96), (2, 41), (1, 1), (0, 32), (2, 0)] {
            for format in formats_of(element, columns) {
                let matrix = random_matrix(format, rows, columns, 7);
                let pieces: Vec<Vec<u32>> = matrix.pieces().map(<[u32]>::to_vec).collect();
                let back = PackedMatrix::from_pieces(format, rows, columns, pieces, matrix.side());
                assert_eq!(back.as_ref(), Ok(&matrix), "{format}");
            }
        }
    }
}

#[test]
fn the_first_code_too_large_is_refused() {
    for element in affine_elements() {
        let max = element.affine().unwrap().max_code();
        let Some(code) = max.checked_add(1) else {
            continue;
        };
        let format = MatrixFormat::new(element, None).unwrap();
        let codes = [0, max, 0, 0, code, code];
        let error = PackedMatrix::from_codes(format, 2, 3, &codes, &[], Zeros::None).unwrap_err();
        assert_eq!(
            error,
            anybit_formats::FormatError::CodeTooLarge {
                row: 1,
                column: 1,
                code,
                max
            }
        );
    }
}

/// The device arrays built bit by bit from the definitions, sharing nothing with the crate but the
/// sections.
fn expected_image(
    format: &MatrixFormat,
    rows: usize,
    columns: usize,
    parts: &Parts,
    layout: &DeviceLayout,
    sections: &Sections,
) -> (Vec<u32>, Vec<u32>) {
    let r_count = layout.interleave as usize;
    let blocks = columns.div_ceil(32);
    let bits = format.element().bits() as usize;
    let widths: Vec<usize> = match (layout.pieces, bits) {
        (PieceLayout::Planes, _) => vec![1; bits],
        (_, 3) => vec![2, 1],
        (_, 5) => vec![4, 1],
        (_, 6) => vec![4, 2],
        (_, 7) => vec![4, 2, 1],
        _ => vec![bits],
    };
    let mut codes = vec![0_u32; sections.codes_words];
    let mut shift = 0;
    for (&b, &start) in widths.iter().zip(&sections.pieces) {
        let unit = b.min(4);
        let units = blocks * b / unit;
        for row in 0..rows {
            for column in 0..columns {
                let per_word = 32 / b;
                let (j, c) = (column / per_word, column % per_word);
                let (i, w) = (j / unit, j % unit);
                let address = (((row / r_count) * units + i) * r_count + row % r_count) * unit + w;
                let piece =
                    u32::from(parts.codes[row * columns + column]) >> shift & ((1 << b) - 1);
                codes[start as usize + address] |= piece << (8 * (c % 4) + b * (c / 4));
            }
        }
        shift += b;
    }

    let mut side = vec![0_u32; sections.side_words];
    let index = |groups: usize, row: usize, group: usize| {
        ((row / r_count) * groups + group) * r_count + row % r_count
    };
    if let Some(scales) = format.scales() {
        let (groups, places): (usize, Vec<usize>) = match scales.granularity {
            Granularity::Tensor => (1, vec![0]),
            Granularity::Row => (1, (0..rows).map(|row| index(1, row, 0)).collect()),
            Granularity::Group(group) => {
                let groups = columns / group as usize;
                (
                    groups,
                    (0..rows * groups)
                        .map(|i| index(groups, i / groups, i % groups))
                        .collect(),
                )
            }
        };
        assert_eq!(groups, format.groups(columns));
        let mut put_float = |start: u32, place: usize, value: f32| match scales.scale {
            ScaleType::F32 => side[start as usize + place] = value.to_bits(),
            ScaleType::F16 => {
                let half = u32::from(half::f16::from_f32(value).to_bits());
                side[start as usize + place / 2] |= half << (16 * (place % 2));
            }
            narrow => {
                let byte = match narrow {
                    ScaleType::E8m0 => value.to_bits() >> 23,
                    ScaleType::E4m3 => {
                        let e4m3 = MinifloatFormat::E4M3;
                        let mut codes = (0..=255).filter(|&code| e4m3.decode(code) == value);
                        u32::from(codes.next().unwrap())
                    }
                    _ => value as i8 as u8 as u32,
                };
                side[start as usize + place / 4] |= byte << (8 * (place % 4));
            }
        };
        for (entry, &place) in places.iter().enumerate() {
            put_float(sections.scales, place, parts.scales[entry]);
            if scales.zero == ZeroKind::Minimum {
                put_float(sections.zeros, place, parts.minima[entry]);
            }
        }
        let bytes = match scales.zero {
            ZeroKind::Integer => &parts.points[..],
            ZeroKind::Choice => &parts.choices,
            _ => &[],
        };
        for (&byte, &place) in bytes.iter().zip(&places) {
            side[sections.zeros as usize + place / 4] |= u32::from(byte) << (8 * (place % 4));
        }
        for (start, entries) in [
            (sections.second, &parts.second),
            (sections.second_minima, &parts.second_minima),
        ] {
            for (entry, &value) in entries.iter().enumerate() {
                match scales.scale {
                    ScaleType::E4m3 => side[start as usize] = value.to_bits(),
                    ScaleType::Int8 => {
                        side[start as usize + index(1, entry, 0)] = value.to_bits();
                    }
                    _ => {
                        let groups = columns.div_ceil(256);
                        let place = index(groups, entry / groups, entry % groups);
                        let half = u32::from(half::f16::from_f32(value).to_bits());
                        side[start as usize + place / 2] |= half << (16 * (place % 2));
                    }
                }
            }
        }
    }
    let group = match format.scales().map(|scales| scales.granularity) {
        Some(Granularity::Group(group)) => Some(group as usize),
        _ => None,
    };
    let (len, groups) = match (layout.sums, group) {
        (SumLayout::None, _) => return (codes, side),
        (SumLayout::Blocks, Some(16)) => (16, 2 * blocks),
        (SumLayout::Blocks, _) => (32, blocks),
        (SumLayout::Groups, Some(group)) => (group, columns / group),
        (SumLayout::Groups, None) => (columns, 1),
    };
    for row in 0..rows {
        for column in 0..columns {
            let place = sections.sums as usize + index(groups, row, column / len);
            side[place] += u32::from(parts.codes[row * columns + column]);
        }
    }
    (codes, side)
}

#[test]
fn every_bit_of_an_image_stands_where_the_layout_says() {
    for element in code_elements() {
        for (rows, columns) in [
            (1, 1),
            (3, 31),
            (4, 32),
            (5, 33),
            (9, 96),
            (2, 48),
            (2, 288),
            (33, 40),
        ] {
            for (seed, format) in formats_of(element, columns).into_iter().enumerate() {
                let parts = Parts::random(&format, rows, columns, seed as u64);
                let matrix = parts.pack(format, rows, columns);
                for layout in layouts_of(element) {
                    let image = matrix.to_device(&layout).unwrap();
                    let (codes, side) =
                        expected_image(&format, rows, columns, &parts, &layout, &image.sections);
                    assert_eq!(image.codes, codes, "{format} {rows}x{columns} {layout:?}");
                    assert_eq!(image.side, side, "{format} {rows}x{columns} {layout:?}");
                }
            }
        }
    }
}

#[test]
fn sections_follow_each_other() {
    for row in FORMATS {
        for columns in [0, 1, 33, 96, 576] {
            for format in formats_of(row.element, columns) {
                for layout in layouts_of(row.element) {
                    for rows in [0, 1, 5, 64] {
                        check_sections(&format, rows, columns, &layout);
                    }
                }
            }
        }
    }
}

fn check_sections(format: &MatrixFormat, rows: usize, columns: usize, layout: &DeviceLayout) {
    let sections = Sections::new(format, rows, columns, layout).unwrap();
    let padded = rows.next_multiple_of(layout.interleave as usize);
    let mut end = 0;
    for (&width, &start) in piece_widths(format.element(), layout.pieces)
        .iter()
        .zip(&sections.pieces)
    {
        assert_eq!(start as usize, end_aligned(end));
        end = start as usize + padded * columns.div_ceil(32) * width as usize;
    }
    assert_eq!(sections.codes_words, end + 4);

    let mut end = 0;
    if let ElementFormat::Codebook(codebook) = format.element() {
        if codebook.bits() > 4 {
            assert_eq!(sections.table, 0);
            end = 256;
        }
    }
    if let Some(scales) = format.scales() {
        let entries = if scales.granularity == Granularity::Tensor {
            1
        } else {
            padded * format.groups(columns)
        };
        let bits = scales.scale.bits() as usize;
        assert_eq!(sections.scales as usize, end_aligned(end));
        end = sections.scales as usize + (entries * bits).div_ceil(32);
        if scales.zero != ZeroKind::None {
            let bits = match scales.zero {
                ZeroKind::Integer | ZeroKind::Choice => 8,
                _ => bits,
            };
            assert_eq!(sections.zeros as usize, end_aligned(end));
            end = sections.zeros as usize + (entries * bits).div_ceil(32);
        }
        let second_words = match scales.scale {
            ScaleType::F32 | ScaleType::F16 | ScaleType::E8m0 => None,
            ScaleType::E4m3 => Some(1),
            ScaleType::Int8 => Some(padded),
            ScaleType::Super => Some((padded * columns.div_ceil(256)).div_ceil(2)),
        };
        if let Some(words) = second_words {
            assert_eq!(sections.second as usize, end_aligned(end));
            end = sections.second as usize + words;
            if scales.zero == ZeroKind::Minimum {
                assert_eq!(sections.second_minima as usize, end_aligned(end));
                end = sections.second_minima as usize + words;
            }
        }
    }
    if layout.sums != SumLayout::None {
        assert_eq!(sections.sums as usize, end_aligned(end));
        end = sections.sums as usize
            + padded * anybit_formats::layout::sum_groups(format, columns, layout.sums);
    }
    assert_eq!(sections.side_words, end + 4);
}

fn end_aligned(end: usize) -> usize {
    end.div_ceil(64) * 64
}

#[test]
fn empty_matrices_are_whole() {
    for row in FORMATS {
        for (rows, columns) in [(0, 0), (0, 96), (3, 0)] {
            for format in formats_of(row.element, columns) {
                let matrix = random_matrix(format, rows, columns, 1);
                assert_eq!((matrix.rows(), matrix.columns()), (rows, columns));
                assert!(matrix.unpack_codes().is_empty());
                assert!(matrix.decode().is_empty());
                assert_eq!(matrix.bits_per_element(), 0.0);
                for layout in layouts_of(row.element) {
                    let image = matrix.to_device(&layout).unwrap();
                    let back = PackedMatrix::from_device(
                        format,
                        rows,
                        columns,
                        &layout,
                        &image.codes,
                        &image.side,
                    )
                    .unwrap();
                    assert_eq!(back, matrix);
                }
            }
        }
    }
}

#[test]
fn floats_keep_their_bits() {
    let values = [0.1_f32, -2.5, 65504.0, 1e-7, 3.0, -0.0];
    for (float, expected) in [
        (FloatFormat::F32, values),
        (
            FloatFormat::F16,
            values.map(|value| half::f16::from_f32(value).to_f32()),
        ),
        (
            FloatFormat::Bf16,
            values.map(|value| half::bf16::from_f32(value).to_f32()),
        ),
    ] {
        let matrix = PackedMatrix::from_f32(float, 2, 3, &values).unwrap();
        assert_eq!(matrix.decode(), expected);
        assert_eq!(matrix.decode_f64(), expected.map(f64::from));
        assert_eq!((matrix.code(0, 0), matrix.integer_values()), (None, None));
        if float.bits() == 16 {
            let bits: Vec<u16> = values
                .iter()
                .map(|&value| float.encode(value) as u16)
                .collect();
            assert_eq!(
                PackedMatrix::from_float_bits16(float, 2, 3, &bits).unwrap(),
                matrix
            );
            // Two a word, low half first.
            let image = matrix.to_device(&DeviceLayout::ROW_MAJOR).unwrap();
            assert_eq!(
                image.codes[..2],
                [
                    u32::from(bits[0]) | u32::from(bits[1]) << 16,
                    u32::from(bits[2])
                ]
            );
            assert_eq!(
                image.codes[16],
                u32::from(bits[3]) | u32::from(bits[4]) << 16
            );
        }
    }
}

#[test]
fn decoding_rounds_the_product_then_the_sum() {
    let format: MatrixFormat = "u8rfm".parse().unwrap();
    let (s, m) = (0.1_f32, 1.0e-3_f32);
    let codes: Vec<u8> = (0..=255).collect();
    let matrix =
        PackedMatrix::from_codes(format, 1, 256, &codes, &[s], Zeros::Minimum(&[m])).unwrap();
    for (code, (value, exact)) in codes
        .iter()
        .zip(matrix.decode().into_iter().zip(matrix.decode_f64()))
    {
        let product: f32 = s * f32::from(*code);
        assert_eq!(value, product + m);
        assert_eq!(exact, f64::from(s) * f64::from(*code) + f64::from(m));
    }
    let format: MatrixFormat = "u4g16hz".parse().unwrap();
    let codes: Vec<u8> = (0..32).map(|i| i % 16).collect();
    let matrix = PackedMatrix::from_codes(
        format,
        1,
        32,
        &codes,
        &[0.5, 2.0],
        Zeros::Integer(&[3, 200]),
    )
    .unwrap();
    assert_eq!(matrix.integer_values().unwrap()[..2], [-3, -2]);
    assert_eq!(matrix.integer_values().unwrap()[16..18], [-200, -199]);
    assert_eq!(matrix.decode()[31], 2.0 * (15.0 - 200.0));
    assert_eq!(
        (
            matrix.scale(0, 1),
            matrix.zero_point(0, 1),
            matrix.minimum(0, 1)
        ),
        (2.0, 200, 0.0)
    );
    assert_eq!((matrix.scale(0, 2), matrix.zero_point(1, 0)), (1.0, 0));
}

#[test]
fn scales_are_rounded_to_their_stored_type() {
    let format: MatrixFormat = "u4rhm".parse().unwrap();
    let matrix =
        PackedMatrix::from_codes(format, 1, 1, &[2], &[0.1], Zeros::Minimum(&[0.3])).unwrap();
    let half = |value| half::f16::from_f32(value).to_f32();
    assert_eq!(
        (matrix.scale(0, 0), matrix.minimum(0, 0)),
        (half(0.1), half(0.3))
    );
}

/// −128 is what ggml writes for the largest scale of a Q6_K block.
#[test]
fn integer_scales_are_all_of_eight_bits() {
    for name in ["i6g16s", "i4g32q"] {
        let format: MatrixFormat = name.parse().unwrap();
        let group = format.group_len(256);
        let pack = |scales: &[f32]| {
            let side = SideData {
                scales,
                second: &[0.5],
                ..SideData::default()
            };
            PackedMatrix::from_parts(format, 1, 256, &[1; 256], side)
        };
        let mut scales = vec![1.0; 256 / group];
        (scales[1], scales[2]) = (-128.0, 127.0);
        let matrix = pack(&scales).unwrap();
        assert_eq!((matrix.scale(0, 1), matrix.scale(0, 2)), (-64.0, 63.5));
        let image = matrix.to_device(&DeviceLayout::ROW_MAJOR).unwrap();
        let layout = DeviceLayout::ROW_MAJOR;
        let back = PackedMatrix::from_device(format, 1, 256, &layout, &image.codes, &image.side);
        assert_eq!(back.unwrap(), matrix);
        for wrong in [-129.0, 128.0, f32::NAN, f32::INFINITY] {
            scales[3] = wrong;
            let error = pack(&scales).unwrap_err();
            assert!(
                matches!(
                    error,
                    FormatError::ScaleOverflow {
                        row: 0,
                        group: 3,
                        ..
                    }
                ),
                "{error:?}"
            );
        }
    }
}

/// Rows of real models: device memory is what the numbers need and at most 5 % more.
#[test]
fn images_waste_nothing() {
    for row in FORMATS {
        for (rows, columns) in [
            (192, 576),
            (576, 576),
            (1536, 576),
            (576, 1536),
            (49152, 576),
        ] {
            for layout in layouts_of(row.element) {
                for format in formats_of(row.element, columns) {
                    let sections = Sections::new(&format, rows, columns, &layout).unwrap();
                    let count = format.scale_count(rows, columns);
                    let side_bits = format.scales().map_or(0, |scales| {
                        let zero = match scales.zero {
                            ZeroKind::None => 0,
                            ZeroKind::Integer | ZeroKind::Choice => 8,
                            ZeroKind::Minimum => scales.scale.bits() as usize,
                        };
                        let second = format.second().map_or(0, |level| {
                            let levels = 1 + usize::from(scales.zero == ZeroKind::Minimum);
                            levels * level.float.bits() as usize
                        });
                        count * (scales.scale.bits() as usize + zero)
                            + second * format.second_count(rows, columns)
                    });
                    let sums =
                        rows * anybit_formats::layout::sum_groups(&format, columns, layout.sums);
                    let needed = (rows * columns * row.element.bits() as usize + side_bits) as f64
                        / 32.0
                        + sums as f64;
                    let used = (sections.codes_words + sections.side_words) as f64;
                    assert!(
                        used <= 1.05 * needed,
                        "{format} {rows}x{columns} {layout:?}: {used} of {needed}"
                    );
                }
            }
        }
    }
}

#[test]
fn storage_is_counted() {
    let matrix = random_matrix("u4g32hm".parse().unwrap(), 4, 64, 3);
    assert_eq!(matrix.storage_bits(), 4 * 64 * 4 + 8 * 32);
    assert_eq!(matrix.bits_per_element(), 5.0);
    let matrix = random_matrix("u4g128fz".parse().unwrap(), 2, 128, 3);
    assert_eq!(matrix.storage_bits(), 2 * 128 * 4 + 2 * 40);
    // 33 columns take two blocks.
    assert_eq!(
        random_matrix("i3".parse().unwrap(), 2, 33, 3).storage_bits(),
        2 * 64 * 3
    );
}

#[test]
fn debug_is_short() {
    let matrix = random_matrix("i4g32h".parse().unwrap(), 192, 576, 3);
    assert_eq!(format!("{matrix:?}"), "PackedMatrix(i4g32h, 192x576)");
}

/// Large enough that rows run in parallel.
#[test]
fn large_matrices_agree_with_their_parts() {
    let (rows, columns) = (301, 576);
    for name in ["i4g32h", "u7g96fz", "tg16hm", "b1rf", "f16"] {
        let format: MatrixFormat = name.parse().unwrap();
        let matrix = random_matrix(format, rows, columns, 7);
        let decoded = matrix.decode();
        for start in [0, 100, 300] {
            let part = matrix.row_range(start..start + 1).unwrap();
            assert_eq!(
                part.decode(),
                decoded[start * columns..(start + 1) * columns],
                "{name}"
            );
        }
        for pieces in [PieceLayout::Pieces, PieceLayout::Planes] {
            for interleave in [1, 8] {
                let sums = if format.element().affine().is_some() {
                    SumLayout::Groups
                } else {
                    SumLayout::None
                };
                let layout = DeviceLayout {
                    pieces,
                    interleave,
                    sums,
                    memory: Memory::Buffers,
                };
                let image = matrix.to_device(&layout).unwrap();
                let back = PackedMatrix::from_device(
                    format,
                    rows,
                    columns,
                    &layout,
                    &image.codes,
                    &image.side,
                );
                assert_eq!(back.unwrap(), matrix, "{name}");
            }
        }
    }
}

fn any_case() -> impl Strategy<Value = (MatrixFormat, usize, usize, DeviceLayout, u64)> {
    let columns = prop_oneof![
        Just(1_usize),
        Just(31),
        Just(32),
        Just(33),
        Just(576),
        1_usize..200
    ];
    let rows = prop_oneof![Just(1_usize), Just(3), Just(4), Just(5), 1_usize..70];
    (
        0..FORMATS.len(),
        rows,
        columns,
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        any::<u64>(),
    )
        .prop_map(|(row, rows, columns, format, layout, seed)| {
            let element = FORMATS[row].element;
            let formats = formats_of(element, columns);
            let layouts = layouts_of(element);
            (
                *format.get(&formats),
                rows,
                columns,
                *layout.get(&layouts),
                seed,
            )
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn device_images_come_back((format, rows, columns, layout, seed) in any_case()) {
        let matrix = random_matrix(format, rows, columns, seed);
        let image = matrix.to_device(&layout).unwrap();
        prop_assert_eq!(image.codes.len(), image.sections.codes_words);
        prop_assert_eq!(image.side.len(), image.sections.side_words);
        let (codes, side) = (&image.codes, &image.side);
        let back = PackedMatrix::from_device(format, rows, columns, &layout, codes, side);
        prop_assert_eq!(back.unwrap(), matrix);
    }

    #[test]
    fn codes_come_back((format, rows, columns, _, seed) in any_case()) {
        if format.element().affine().is_some() {
            let parts = Parts::random(&format, rows, columns, seed);
            let matrix = parts.pack(format, rows, columns);
            prop_assert_eq!(matrix.unpack_codes(), &parts.codes[..]);
            prop_assert_eq!(matrix.scales(), &parts.scales[..]);
            prop_assert_eq!(matrix.zeros(), parts.zeros(&format));
            let (row, column) = (seed as usize % rows, seed as usize % columns);
            prop_assert_eq!(matrix.code(row, column), Some(parts.codes[row * columns + column]));
            prop_assert_eq!(matrix.code(rows, column), None);
            prop_assert_eq!(matrix.code(row, columns), None);
        }
    }

    #[test]
    fn row_ranges_are_matrices_of_their_own((format, rows, columns, _, seed) in any_case()) {
        let matrix = random_matrix(format, rows, columns, seed);
        let start = seed as usize % (rows + 1);
        let end = start + (seed >> 32) as usize % (rows - start + 1);
        let part = matrix.row_range(start..end).unwrap();
        prop_assert_eq!(part.rows(), end - start);
        prop_assert_eq!(part.decode(), &matrix.decode()[start * columns..end * columns]);
        let layout = DeviceLayout::default();
        let image = part.to_device(&layout).unwrap();
        let (codes, side) = (&image.codes, &image.side);
        let back = PackedMatrix::from_device(format, end - start, columns, &layout, codes, side);
        prop_assert_eq!(back.unwrap(), part);
    }

    /// Any rows, any stretch of words: what the image of those rows has there.
    #[test]
    fn device_rows_are_parts_of_an_image((format, rows, columns, layout, seed) in any_case()) {
        let matrix = random_matrix(format, rows, columns, seed);
        let start = seed as usize % (rows + 1);
        let end = start + (seed >> 32) as usize % (rows - start + 1);
        let image = matrix.row_range(start..end).unwrap().to_device(&layout).unwrap();
        let part = matrix.device_rows(start..end, &layout, &[]).unwrap();
        prop_assert_eq!(part.sections(), &image.sections);
        prop_assert_eq!(part.side(), &image.side[..]);
        // Past the end there are zeros.
        let mut whole = image.codes.clone();
        whole.resize(whole.len() + 50, 0);
        let (mut at, mut len) = (0, seed as usize % 300 + 1);
        while at < whole.len() {
            let words = at..whole.len().min(at + len);
            let mut made = vec![u32::MAX; words.len()];
            part.fill_codes(at, &mut made);
            prop_assert_eq!(&made[..], &whole[words.clone()]);
            if let Some(stored) = part.stored_codes(words.clone()) {
                prop_assert_eq!(stored, &made[..]);
            }
            at = words.end;
            len = len * 7 % 311 + 1;
        }
        prop_assert!(matrix.device_rows(0..rows + 1, &layout, &[]).is_err());
    }
}

/// What lies on the device as on the host is not made anew.
#[test]
fn row_major_pieces_are_stored_codes() {
    let format: MatrixFormat = "i3g32h".parse().unwrap();
    let matrix = random_matrix(format, 6, 4096, 1);
    let rows = matrix
        .device_rows(2..6, &DeviceLayout::ROW_MAJOR, &[])
        .unwrap();
    let pieces: Vec<&[u32]> = matrix.pieces().collect();
    assert_eq!(rows.stored_codes(0..1024), Some(&pieces[0][512..]));
    assert_eq!(rows.stored_codes(1024..1536), Some(&pieces[1][256..]));
    assert_eq!(rows.stored_codes(1000..1030), None);
    assert_eq!(rows.stored_codes(1500..1540), None);
    let interleaved = DeviceLayout {
        interleave: 4,
        ..DeviceLayout::ROW_MAJOR
    };
    let rows = matrix.device_rows(2..6, &interleaved, &[]).unwrap();
    assert_eq!(rows.stored_codes(0..16), None);
}

/// The numbers of `docs/packing.md`.
#[test]
fn the_examples_of_the_packing_page() {
    let codes: Vec<u8> = (0..8).collect();
    let bare = |name: &str, codes: &[u8]| {
        let format: MatrixFormat = name.parse().unwrap();
        let matrix =
            PackedMatrix::from_codes(format, 1, codes.len(), codes, &[], Zeros::None).unwrap();
        matrix.to_device(&DeviceLayout::ROW_MAJOR).unwrap()
    };
    assert_eq!(bare("u4", &codes).codes[0], 0x7362_5140);
    let image = bare("u7", &[90]);
    let streams = image
        .sections
        .pieces
        .iter()
        .map(|&start| image.codes[start as usize]);
    assert_eq!(streams.collect::<Vec<_>>(), [0b1010, 0b01, 0b1]);

    let format: MatrixFormat = "u5g32hm".parse().unwrap();
    let (rows, columns) = (192, 576);
    let layout = DeviceLayout {
        pieces: PieceLayout::Pieces,
        interleave: 4,
        sums: SumLayout::Blocks,
        memory: Memory::Buffers,
    };
    let mut parts = Parts::random(&format, rows, columns, 1);
    parts.codes.fill(0);
    parts.codes[5 * columns + 100] = 0b1_1101;
    parts.scales.fill(0.0);
    parts.scales[5 * 18 + 3] = 1.0;
    let image = parts
        .pack(format, rows, columns)
        .to_device(&layout)
        .unwrap();
    let sections = &image.sections;
    assert_eq!(sections.pieces, [0, 13_824]);
    assert_eq!(sections.codes_words, 17_284);
    assert_eq!(
        (sections.scales, sections.zeros, sections.sums),
        (0, 1_728, 3_456)
    );
    assert_eq!(sections.side_words, 6_916);
    let used: Vec<_> = image
        .codes
        .iter()
        .enumerate()
        .filter(|&(_, &word)| word != 0)
        .collect();
    assert_eq!(used, [(340, &(0b1101 << 4)), (13_909, &(1 << 1))]);
    let scales = image.side[..1_728].iter().enumerate();
    let used: Vec<_> = scales.filter(|&(_, &word)| word != 0).collect();
    assert_eq!(used, [(42, &0x3c00_0000)]);
}

#[test]
fn planes_of_an_element_are_its_bits() {
    for row in FORMATS {
        for pieces in [PieceLayout::Pieces, PieceLayout::Planes] {
            assert_eq!(
                piece_widths(row.element, pieces).iter().sum::<u32>(),
                row.element.bits()
            );
        }
    }
    assert_eq!(
        piece_widths(ElementFormat::INT7, PieceLayout::Pieces),
        [4, 2, 1]
    );
    let format = scaled(
        ElementFormat::TERNARY,
        Granularity::Tensor,
        ScaleType::F32,
        ZeroKind::None,
    );
    assert_eq!(piece_widths(format.element(), PieceLayout::Planes), [1, 1]);
}

/// The sections of a matrix from a row on name the words that are the same matrix's own if it is packed from there.
#[test]
fn sections_go_on_at_every_32nd_row() {
    let elements = FORMATS.iter().map(|row| row.element);
    let (rows, columns) = (133, 96);
    for format in elements.flat_map(|element| formats_of(element, columns)) {
        if format.check_shape(rows, columns).is_err() {
            continue;
        }
        let matrix = random_matrix(format, rows, columns, 5);
        // Every fifth: they differ in three ways of 2, 6 and 3, of which each value comes.
        for layout in layouts_of(format.element()).into_iter().step_by(5) {
            let Ok(image) = matrix.to_device(&layout) else {
                continue;
            };
            let sections = Sections::new(&format, rows, columns, &layout).unwrap();
            assert_eq!(
                sections.from_row(&format, columns, &layout, 0).as_ref(),
                Some(&sections)
            );
            assert_eq!(sections.from_row(&format, columns, &layout, 16), None);
            for first in [32, 96, 128] {
                let what = format!("{format} {layout:?} from {first}");
                let later = sections.from_row(&format, columns, &layout, first).unwrap();
                let rest = matrix.device_rows(first..rows, &layout, &[]).unwrap();
                let own = rest.sections();
                let mut codes = vec![0; own.codes_words];
                rest.fill_codes(0, &mut codes);
                let lengths = |starts: &[u32], end: usize| -> Vec<usize> {
                    let ends = starts.iter().skip(1).map(|&start| start as usize);
                    let ends = ends.chain([end]);
                    ends.zip(starts)
                        .map(|(end, &start)| end - start as usize)
                        .collect()
                };
                // Sections end in zeros up to the next; what is compared is what is not zero at the end.
                let same = |whole: &[u32], from: u32, own: &[u32], at: u32, length: usize| {
                    let own = &own[at as usize..at as usize + length];
                    let used = own
                        .iter()
                        .rposition(|&word| word != 0)
                        .map_or(0, |last| last + 1);
                    whole[from as usize..][..used] == own[..used]
                };
                let piece_lengths = lengths(&own.pieces, own.codes_words);
                for (piece, length) in piece_lengths.into_iter().enumerate() {
                    let (from, at) = (later.pieces[piece], own.pieces[piece]);
                    assert!(
                        same(&image.codes, from, &codes, at, length),
                        "{what} {piece}"
                    );
                }
                let side = rest.side();
                for (name, from, at) in [
                    ("scales", later.scales, own.scales),
                    ("zeros", later.zeros, own.zeros),
                    ("second", later.second, own.second),
                    ("second minima", later.second_minima, own.second_minima),
                    ("sums", later.sums, own.sums),
                ] {
                    let next = [
                        own.scales,
                        own.zeros,
                        own.second,
                        own.second_minima,
                        own.sums,
                    ]
                    .into_iter()
                    .filter(|&other| other > at)
                    .min()
                    .unwrap_or(own.side_words as u32);
                    let length = (next - at) as usize;
                    // What a format lacks begins at 0, as the first section does.
                    if (from, at) != (0, 0) {
                        assert!(same(&image.side, from, &side, at, length), "{what} {name}");
                    }
                }
            }
        }
    }
}
