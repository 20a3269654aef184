//! What the tests share: formats to walk through and matrices to try.
#![allow(dead_code, reason = "each test file uses its own part")]

use anybit_formats::{
    DeviceLayout, ElementFormat, FORMATS, Granularity, MatrixFormat, Memory, PackedMatrix,
    PieceLayout, ScaleLayout, ScaleType, SideData, SumLayout, ZeroKind, Zeros,
};

/// A small generator of even bits (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From −1 to 1, a multiple of 2⁻²³.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }
}

pub(crate) fn affine_elements() -> Vec<ElementFormat> {
    FORMATS
        .iter()
        .map(|row| row.element)
        .filter(|element| element.affine().is_some())
        .collect()
}

/// The integer formats and some of each other family: of all widths, with and without special codes,
/// tables shorter than their codes, choices.
pub(crate) fn code_elements() -> Vec<ElementFormat> {
    let others = [
        "e1m0", "e1m1", "e2m1", "e2m2", "e3m2", "e3m3", "e4m3", "e5m2", "e2m1ieee", "e3m4fn",
        "nf4", "iq4nl", "bitmod3", "bitmod4",
    ];
    let mut elements = affine_elements();
    elements.extend(others.map(|name| name.parse::<ElementFormat>().unwrap()));
    elements
}

pub(crate) fn scaled(
    element: ElementFormat,
    granularity: Granularity,
    scale: ScaleType,
    zero: ZeroKind,
) -> MatrixFormat {
    MatrixFormat::new(
        element,
        Some(ScaleLayout {
            granularity,
            scale,
            zero,
        }),
    )
    .unwrap()
}

/// Bare codes and every scale layout whose groups divide `columns`.
pub(crate) fn formats_of(element: ElementFormat, columns: usize) -> Vec<MatrixFormat> {
    let mut formats: Vec<_> = MatrixFormat::new(element, None).into_iter().collect();
    for granularity in [
        Granularity::Tensor,
        Granularity::Row,
        Granularity::Group(16),
        Granularity::Group(32),
        Granularity::Group(96),
    ] {
        for scale in ScaleType::ALL {
            for zero in [
                ZeroKind::None,
                ZeroKind::Integer,
                ZeroKind::Minimum,
                ZeroKind::Choice,
            ] {
                let layout = ScaleLayout {
                    granularity,
                    scale,
                    zero,
                };
                let Ok(format) = MatrixFormat::new(element, Some(layout)) else {
                    continue;
                };
                if format.check_shape(1, columns).is_ok() {
                    formats.push(format);
                }
            }
        }
    }
    formats
}

pub(crate) fn layouts_of(element: ElementFormat) -> Vec<DeviceLayout> {
    let mut layouts = Vec::new();
    for pieces in [PieceLayout::Pieces, PieceLayout::Planes] {
        for interleave in [1, 2, 4, 8, 16, 32] {
            for sums in [SumLayout::None, SumLayout::Blocks, SumLayout::Groups] {
                if element.has_codes() || sums == SumLayout::None {
                    layouts.push(DeviceLayout {
                        pieces,
                        interleave,
                        sums,
                        memory: Memory::Buffers,
                    });
                }
            }
        }
    }
    layouts
}

/// Random codes, scales and zeros that are exact in every stored type.
pub(crate) struct Parts {
    pub(crate) codes: Vec<u8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) second: Vec<f32>,
    pub(crate) points: Vec<u8>,
    pub(crate) choices: Vec<u8>,
    pub(crate) minima: Vec<f32>,
    pub(crate) second_minima: Vec<f32>,
}

impl Parts {
    pub(crate) fn random(format: &MatrixFormat, rows: usize, columns: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let element = format.element();
        let codes: Vec<u8> = (0..=element.max_code().unwrap())
            .filter(|&code| element.code_value(code).is_some_and(f32::is_finite))
            .collect();
        let count = format.scale_count(rows, columns);
        let second_count = format.second_count(rows, columns);
        let second_minima = match format.zero_kind() {
            ZeroKind::Minimum => second_count,
            _ => 0,
        };
        let stored = format
            .scales()
            .map_or(ScaleType::F32, |layout| layout.scale);
        let mut first = |count: usize| -> Vec<f32> {
            let mut one = || match stored {
                ScaleType::F32 | ScaleType::F16 => (random.below(2001) as f32 - 1000.0) / 64.0,
                ScaleType::E8m0 => 2.0_f32.powi(random.below(40) as i32 - 20),
                // All of them are E4M3 too.
                ScaleType::E4m3 => random.below(31) as f32 - 15.0,
                ScaleType::Int8 | ScaleType::Super => random.below(255) as f32 - 127.0,
            };
            (0..count).map(|_| one()).collect()
        };
        let (scales, minima) = (first(count), first(count));
        let mut small = |count: usize| -> Vec<f32> {
            (0..count)
                .map(|_| (random.below(2001) as f32 - 1000.0) / 64.0)
                .collect()
        };
        Self {
            scales,
            minima,
            second: small(second_count),
            second_minima: small(second_minima),
            points: (0..count).map(|_| random.below(256) as u8).collect(),
            choices: (0..count)
                .map(|_| random.below(element.choice_count().max(1) as u64) as u8)
                .collect(),
            codes: (0..rows * columns)
                .map(|_| codes[random.below(codes.len() as u64) as usize])
                .collect(),
        }
    }

    pub(crate) fn zeros(&self, format: &MatrixFormat) -> Zeros<'_> {
        match format.zero_kind() {
            ZeroKind::None => Zeros::None,
            ZeroKind::Integer => Zeros::Integer(&self.points),
            ZeroKind::Minimum => Zeros::Minimum(&self.minima),
            ZeroKind::Choice => Zeros::Choice(&self.choices),
        }
    }

    pub(crate) fn side(&self, format: &MatrixFormat) -> SideData<'_> {
        SideData {
            scales: &self.scales,
            second: &self.second,
            zeros: self.zeros(format),
            second_minima: &self.second_minima,
        }
    }

    pub(crate) fn pack(&self, format: MatrixFormat, rows: usize, columns: usize) -> PackedMatrix {
        PackedMatrix::from_parts(format, rows, columns, &self.codes, self.side(&format)).unwrap()
    }
}

/// A random matrix of any format; floats from −1 to 1.
pub(crate) fn random_matrix(
    format: MatrixFormat,
    rows: usize,
    columns: usize,
    seed: u64,
) -> PackedMatrix {
    match format.element() {
        ElementFormat::Float(float) => {
            let mut random = Random(seed);
            let values: Vec<f32> = (0..rows * columns).map(|_| random.unit()).collect();
            PackedMatrix::from_f32(float, rows, columns, &values).unwrap()
        }
        _ => Parts::random(&format, rows, columns, seed).pack(format, rows, columns),
    }
}
