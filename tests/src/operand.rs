//! Matrices to multiply.

use anybit_formats::{
    ElementFormat, Encoding, FloatFormat, MatrixFormat, PackedMatrix, ScaleType, ZeroKind, Zeros,
};

use crate::random::Random;

/// How a matrix is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// Random codes, scales of both signs, some of them 0, any zero point.
    #[default]
    Random,
    /// The code of the smallest value everywhere.
    Smallest,
    /// The code of the largest value everywhere.
    Largest,
    /// The smallest and the largest value in turn, by column.
    Alternating,
    /// Random codes under scales of 0.
    ZeroScales,
    /// Random codes under the largest zero points or minima of both signs.
    LargestZeros,
}

impl Fill {
    /// Every way.
    pub const ALL: [Self; 6] = [
        Self::Random,
        Self::Smallest,
        Self::Largest,
        Self::Alternating,
        Self::ZeroScales,
        Self::LargestZeros,
    ];
}

/// A matrix of a format. The same arguments give the same matrix.
///
/// # Panics
///
/// If the format cannot have the shape.
pub fn operand(
    format: &MatrixFormat,
    (rows, columns): (usize, usize),
    fill: Fill,
    random: &mut Random,
) -> PackedMatrix {
    let matrix = match format.element() {
        ElementFormat::Float(element) => {
            let values = floats(element, rows * columns, columns, fill, random);
            PackedMatrix::from_f32(element, rows, columns, &values)
        }
        ElementFormat::Affine(element) => {
            let max = element.max_code();
            // Two's complement is stored with its top bit flipped, so the order of codes is that of the values.
            let codes: Vec<u8> = (0..rows * columns)
                .map(|index| match fill {
                    Fill::Smallest => 0,
                    Fill::Largest => max,
                    Fill::Alternating => max * (index % columns % 2) as u8,
                    _ => random.below(usize::from(max) + 1) as u8,
                })
                .collect();
            let count = format.scale_count(rows, columns);
            let scales: Vec<f32> = (0..count).map(|_| scale(fill, random)).collect();
            let (points, minima) = zeros(format, count, fill, random);
            let zeros = match format.zero_kind() {
                ZeroKind::None => Zeros::None,
                ZeroKind::Integer => Zeros::Integer(&points),
                ZeroKind::Minimum => Zeros::Minimum(&minima),
            };
            PackedMatrix::from_codes(*format, rows, columns, &codes, &scales, zeros)
        }
        other => panic!("the tests do not know how to fill {other}"),
    };
    matrix.unwrap_or_else(|error| panic!("{format} {rows}x{columns} {fill:?}: {error}"))
}

fn floats(
    element: FloatFormat,
    count: usize,
    columns: usize,
    fill: Fill,
    random: &mut Random,
) -> Vec<f32> {
    // Sums of products of such values stay far from overflow.
    let large = if element == FloatFormat::F16 {
        60_000.0
    } else {
        1.0e9
    };
    (0..count)
        .map(|index| match fill {
            Fill::Smallest => -large,
            Fill::Largest => large,
            Fill::Alternating => large * [-1.0, 1.0][index % columns % 2],
            Fill::ZeroScales => 0.0,
            Fill::Random | Fill::LargestZeros if random.one_in(16) => 0.0,
            Fill::Random | Fill::LargestZeros => {
                random.signed() * [0.01, 1.0, 100.0][random.below(3)]
            }
        })
        .collect()
}

fn scale(fill: Fill, random: &mut Random) -> f32 {
    match fill {
        Fill::ZeroScales => 0.0,
        Fill::Random if random.one_in(16) => 0.0,
        _ => {
            let size = 0.25 + random.signed().abs();
            size * [0.125, 1.0, -1.0, 4.0][random.below(4)]
        }
    }
}

fn zeros(
    format: &MatrixFormat,
    count: usize,
    fill: Fill,
    random: &mut Random,
) -> (Vec<u8>, Vec<f32>) {
    let largest = match format.scales() {
        Some(layout) if layout.scale == ScaleType::F16 => 65_504.0,
        _ => 1.0e9,
    };
    match (format.zero_kind(), fill) {
        (ZeroKind::None, _) => (Vec::new(), Vec::new()),
        (ZeroKind::Integer, Fill::LargestZeros) => (vec![255; count], Vec::new()),
        (ZeroKind::Integer, _) => {
            let points = (0..count).map(|_| random.below(256) as u8).collect();
            (points, Vec::new())
        }
        (ZeroKind::Minimum, Fill::LargestZeros) => {
            let minima = (0..count)
                .map(|index| [largest, -largest][index % 2])
                .collect();
            (Vec::new(), minima)
        }
        (ZeroKind::Minimum, _) => {
            let minima = (0..count).map(|_| 8.0 * random.signed()).collect();
            (Vec::new(), minima)
        }
    }
}

/// Every affine encoding of a width: unsigned, two's complement, bipolar.
pub fn encodings(bits: u8) -> [ElementFormat; 3] {
    [
        Encoding::Unsigned,
        Encoding::TwosComplement,
        Encoding::Bipolar,
    ]
    .map(|encoding| {
        let element = anybit_formats::AffineFormat::new(bits, encoding);
        ElementFormat::Affine(element.unwrap_or_else(|error| panic!("{bits} bits: {error}")))
    })
}

/// A format by its name in kernel ids.
///
/// # Panics
///
/// If there is no such format.
pub fn format(name: &str) -> MatrixFormat {
    name.parse()
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}
