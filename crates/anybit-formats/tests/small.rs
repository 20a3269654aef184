//! Every way through packing, at sizes that an interpreter can bear: `cargo xtask test` runs this file under miri. The other
//! tests look at all codes and at large matrices.

use anybit_formats::{
    DeviceLayout, ElementFormat, FloatFormat, FormatError, MatrixFormat, Memory, Nesting,
    PackedMatrix, PieceLayout, SumLayout, pack_ternary5, quantize, unpack_ternary5,
};

const ROWS: usize = 2;

/// Formats of every family, scale, zero and width of pieces.
const FORMATS: [&str; 10] = [
    "f32",
    "f16",
    "b1g32h",
    "trf",
    "i3g32h",
    "u7g32fz",
    "i8g16q",
    "u4g32hm",
    "e2m1g16k",
    "bitmod4g32qc",
];

fn matrix(name: &str, columns: usize) -> PackedMatrix {
    let format: MatrixFormat = name.parse().expect(name);
    let values: Vec<f32> = (0..ROWS * columns)
        .map(|index| (index as f32 * 0.37).sin())
        .collect();
    quantize(&values, ROWS, columns, format, None).expect(name)
}

fn packed_again(matrix: &PackedMatrix) -> Result<PackedMatrix, FormatError> {
    let (format, columns) = (*matrix.format(), matrix.columns());
    match format.element() {
        ElementFormat::Float(float) => {
            PackedMatrix::from_f32(float, ROWS, columns, &matrix.decode())
        }
        _ => {
            let codes = matrix.unpack_codes();
            PackedMatrix::from_parts(format, ROWS, columns, &codes, matrix.side())
        }
    }
}

#[test]
fn what_is_packed_is_unpacked() {
    for name in FORMATS {
        let matrix = matrix(name, 64);
        assert_eq!(packed_again(&matrix).as_ref(), Ok(&matrix), "{name}");
        let pieces = matrix.pieces().map(<[u32]>::to_vec).collect();
        let again = PackedMatrix::from_pieces(*matrix.format(), ROWS, 64, pieces, matrix.side());
        assert_eq!(again.as_ref(), Ok(&matrix), "{name}");
        let parts = [0..1, 1..ROWS].map(|rows| matrix.row_range(rows).expect(name));
        let joined = PackedMatrix::concat_rows(*matrix.format(), 64, &parts);
        assert_eq!(joined.as_ref(), Ok(&matrix), "{name}");
    }
    // A last block that is not whole.
    for name in ["f16", "i3f", "i8rf"] {
        let matrix = matrix(name, 35);
        assert_eq!(packed_again(&matrix).as_ref(), Ok(&matrix), "{name}");
    }
}

#[test]
fn device_images_read_back() {
    for (index, name) in FORMATS.iter().enumerate() {
        let matrix = matrix(name, 64);
        let sums = match matrix.format().element() {
            ElementFormat::Float(_) => SumLayout::None,
            _ => [SumLayout::Blocks, SumLayout::Groups][index % 2],
        };
        for pieces in [PieceLayout::Pieces, PieceLayout::Planes] {
            let layout = DeviceLayout {
                pieces,
                interleave: [1, 4][index % 2],
                sums,
                memory: [Memory::Buffers, Memory::Textures][index / 2 % 2],
            };
            let image = matrix.to_device(&layout).expect(name);
            let again = PackedMatrix::from_device(
                *matrix.format(),
                ROWS,
                64,
                &layout,
                &image.codes,
                &image.side,
            );
            assert_eq!(again.as_ref(), Ok(&matrix), "{name} {layout:?}");
        }
    }
}

#[test]
fn narrower_reading_of_bytes() {
    let matrix = matrix("i8rf", 32);
    for nesting in Nesting::ALL {
        let nested = matrix.nested(4, nesting).expect("4 bits");
        assert_eq!(nested.format().element(), ElementFormat::INT4);
        assert_eq!(packed_again(&nested).as_ref(), Ok(&nested));
    }
}

#[test]
fn wrong_data_is_refused() {
    let matrix = matrix("u4g32hm", 32);
    let (format, side) = (*matrix.format(), matrix.side());
    let short = PackedMatrix::from_parts(format, ROWS, 32, &[0; ROWS * 32 - 1], side);
    assert!(
        matches!(short, Err(FormatError::Length { .. })),
        "{short:?}"
    );
    let large = PackedMatrix::from_parts(format, ROWS, 32, &[16; ROWS * 32], side);
    assert!(
        matches!(large, Err(FormatError::CodeTooLarge { .. })),
        "{large:?}"
    );
    let infinite = PackedMatrix::from_f32(FloatFormat::F32, 1, 2, &[0.0, f32::INFINITY]);
    assert!(
        matches!(infinite, Err(FormatError::NonFinite { .. })),
        "{infinite:?}"
    );
}

#[test]
fn ternary_codes_five_a_byte() {
    let codes: Vec<u8> = (0..13).map(|index| index % 3).collect();
    let packed = pack_ternary5(&codes).expect("ternary codes");
    let mut again = vec![0; codes.len()];
    assert_eq!(unpack_ternary5(&packed, &mut again), Ok(()));
    assert_eq!(again, codes);
}
