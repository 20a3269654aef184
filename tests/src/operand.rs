//! Matrices to multiply.

use anybit_formats::{
    ElementFormat, Encoding, FloatFormat, MatrixFormat, PackedMatrix, ScaleType, SideData,
    ZeroKind, Zeros,
};

use crate::random::Random;

/// How a matrix is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// Random codes of finite values, scales of both signs where their type has them, some of them 0, any zero point or
    /// choice.
    #[default]
    Random,
    /// The code of the smallest finite value everywhere.
    Smallest,
    /// The code of the largest finite value everywhere.
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
        element => {
            let codes = codes(element, rows * columns, columns, fill, random);
            let side = Side::new(format, (rows, columns), fill, random);
            PackedMatrix::from_parts(*format, rows, columns, &codes, side.data(format))
        }
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

/// The codes of an element that stand for finite values.
pub fn finite_codes(element: ElementFormat) -> Vec<u8> {
    (0..=element.max_code().unwrap_or(0))
        .filter(|&code| element.code_value(code).is_some_and(f32::is_finite))
        .collect()
}

fn codes(
    element: ElementFormat,
    count: usize,
    columns: usize,
    fill: Fill,
    random: &mut Random,
) -> Vec<u8> {
    let codes = finite_codes(element);
    let value = |code: &u8| element.code_value(*code).unwrap_or(0.0);
    let by_value = |a: &u8, b: &u8| value(a).total_cmp(&value(b));
    let smallest = codes.iter().copied().min_by(by_value).unwrap_or(0);
    let largest = codes.iter().copied().max_by(by_value).unwrap_or(0);
    (0..count)
        .map(|index| match fill {
            Fill::Smallest => smallest,
            Fill::Largest => largest,
            Fill::Alternating => [smallest, largest][index % columns % 2],
            _ => random.pick(&codes),
        })
        .collect()
}

/// Everything beside the codes.
struct Side {
    scales: Vec<f32>,
    second: Vec<f32>,
    points: Vec<u8>,
    minima: Vec<f32>,
    second_minima: Vec<f32>,
    choices: Vec<u8>,
}

impl Side {
    fn new(
        format: &MatrixFormat,
        (rows, columns): (usize, usize),
        fill: Fill,
        random: &mut Random,
    ) -> Self {
        let count = format.scale_count(rows, columns);
        let second_count = format.second_count(rows, columns);
        let stored = format
            .scales()
            .map_or(ScaleType::F32, |layout| layout.scale);
        let choice_count = format.element().choice_count().max(1);
        let minima = |random: &mut Random| match (stored, fill) {
            (ScaleType::Super, Fill::LargestZeros) => random.pick(&[-128.0, 127.0]),
            (ScaleType::Super, _) => random.below(256) as f32 - 128.0,
            (ScaleType::F16, Fill::LargestZeros) => random.pick(&[65_504.0, -65_504.0]),
            (_, Fill::LargestZeros) => random.pick(&[1.0e9, -1.0e9]),
            _ => 8.0 * random.signed(),
        };
        Self {
            scales: (0..count).map(|_| scale(stored, fill, random)).collect(),
            second: (0..second_count)
                .map(|_| scale(ScaleType::F32, fill, random) / 8.0)
                .collect(),
            points: (0..count)
                .map(|_| match fill {
                    Fill::LargestZeros => 255,
                    _ => random.below(256) as u8,
                })
                .collect(),
            minima: (0..count).map(|_| minima(random)).collect(),
            second_minima: (0..second_count).map(|_| random.signed() / 8.0).collect(),
            choices: (0..count)
                .map(|_| random.below(choice_count) as u8)
                .collect(),
        }
    }

    fn data(&self, format: &MatrixFormat) -> SideData<'_> {
        let zero = format.zero_kind();
        SideData {
            scales: &self.scales,
            second: &self.second,
            zeros: match zero {
                ZeroKind::None => Zeros::None,
                ZeroKind::Integer => Zeros::Integer(&self.points),
                ZeroKind::Minimum => Zeros::Minimum(&self.minima),
                ZeroKind::Choice => Zeros::Choice(&self.choices),
            },
            second_minima: if zero == ZeroKind::Minimum {
                &self.second_minima
            } else {
                &[]
            },
        }
    }
}

/// The first level of a scale of a type.
fn scale(stored: ScaleType, fill: Fill, random: &mut Random) -> f32 {
    match (fill, stored) {
        (Fill::ZeroScales, _) => 0.0,
        (Fill::Random, ScaleType::F32 | ScaleType::F16 | ScaleType::E4m3) if random.one_in(16) => {
            0.0
        }
        (_, ScaleType::E8m0) => 2.0_f32.powi(random.below(9) as i32 - 5),
        (_, ScaleType::Int8 | ScaleType::Super) => random.below(256) as f32 - 128.0,
        _ => {
            let size = 0.25 + random.signed().abs();
            size * [0.125, 1.0, -1.0, 4.0][random.below(4)]
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
