//! Random matrices, the same in every run.
#![allow(dead_code, reason = "each test file uses some of these")]

use anybit_formats::{
    ElementFormat, Granularity, MatrixFormat, PackedMatrix, ScaleLayout, ScaleType, SideData,
    ZeroKind, Zeros,
};

/// A xorshift generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((self.next() >> 32) as usize * count) >> 32
    }

    /// A number from −1 to 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

pub(crate) fn format(name: &str) -> MatrixFormat {
    name.parse().unwrap()
}

/// A matrix of uniform codes of finite values with scales of both signs where the type has them, now and then 0, and
/// uniform zeros or choices.
pub(crate) fn matrix(format: MatrixFormat, rows: usize, columns: usize, seed: u64) -> PackedMatrix {
    let mut random = Random::new(seed);
    let element = format.element();
    if let ElementFormat::Float(float) = element {
        let values: Vec<f32> = (0..rows * columns)
            .map(|_| random.float() * [0.01, 1.0, 100.0][random.below(3)])
            .collect();
        return PackedMatrix::from_f32(float, rows, columns, &values).unwrap();
    }
    let finite: Vec<u8> = (0..=element.max_code().unwrap())
        .filter(|&code| element.code_value(code).unwrap().is_finite())
        .collect();
    let codes: Vec<u8> = (0..rows * columns)
        .map(|_| finite[random.below(finite.len())])
        .collect();
    let count = format.scale_count(rows, columns);
    let stored = format.scales().map(|layout| layout.scale);
    let mut first_level = || match stored {
        Some(ScaleType::Int8 | ScaleType::Super) => random.below(256) as f32 - 128.0,
        Some(ScaleType::E8m0) => 2.0_f32.powi(random.below(12) as i32 - 8),
        _ => random.float() * [0.0, 0.01, 0.1, 1.0, 3.0][random.below(5)],
    };
    let scales: Vec<f32> = (0..count).map(|_| first_level()).collect();
    let minima: Vec<f32> = (0..count).map(|_| first_level()).collect();
    let second: Vec<f32> = (0..format.second_count(rows, columns))
        .map(|_| random.float())
        .collect();
    let second_minima: Vec<f32> = second.iter().map(|_| random.float()).collect();
    let points: Vec<u8> = (0..count).map(|_| random.below(256) as u8).collect();
    let choices: Vec<u8> = (0..count)
        .map(|_| random.below(element.choice_count().max(1)) as u8)
        .collect();
    let zero = format.zero_kind();
    let data = SideData {
        scales: &scales,
        second: &second,
        zeros: match zero {
            ZeroKind::None => Zeros::None,
            ZeroKind::Integer => Zeros::Integer(&points),
            ZeroKind::Minimum => Zeros::Minimum(&minima),
            ZeroKind::Choice => Zeros::Choice(&choices),
        },
        second_minima: if zero == ZeroKind::Minimum {
            &second_minima
        } else {
            &[]
        },
    };
    PackedMatrix::from_parts(format, rows, columns, &codes, data).unwrap()
}

/// A matrix of given integers, without scales.
pub(crate) fn integers(element: ElementFormat, columns: usize, values: &[i32]) -> PackedMatrix {
    let affine = element.affine().unwrap();
    let (a, b) = affine.coefficients();
    let codes: Vec<u8> = values
        .iter()
        .map(|value| {
            assert_eq!((value - b) % a, 0);
            u8::try_from((value - b) / a).unwrap()
        })
        .collect();
    let format = MatrixFormat::new(element, None).unwrap();
    let rows = values.len() / columns;
    PackedMatrix::from_codes(format, rows, columns, &codes, &[], Zeros::None).unwrap()
}

/// Every format of codes.
pub(crate) fn affine_elements() -> Vec<ElementFormat> {
    anybit_formats::FORMATS
        .iter()
        .filter(|row| row.element.affine().is_some() && row.name != "bipolar1")
        .map(|row| row.element)
        .collect()
}

pub(crate) fn scaled(
    element: ElementFormat,
    granularity: Granularity,
    scale: ScaleType,
    zero: ZeroKind,
) -> MatrixFormat {
    let layout = ScaleLayout {
        granularity,
        scale,
        zero,
    };
    MatrixFormat::new(element, Some(layout)).unwrap()
}
