//! What the tests share: formats to walk through and matrices to try.
#![allow(dead_code, reason = "each test file uses its own part")]

use anybit_formats::{
    DeviceLayout, ElementFormat, FORMATS, Granularity, MatrixFormat, PackedMatrix, PieceLayout,
    ScaleLayout, ScaleType, SumLayout, ZeroKind, Zeros,
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
    let mut formats = vec![MatrixFormat::new(element, None).unwrap()];
    if element.affine().is_none() {
        return formats;
    }
    for granularity in [
        Granularity::Tensor,
        Granularity::Row,
        Granularity::Group(16),
        Granularity::Group(32),
        Granularity::Group(96),
    ] {
        for scale in [ScaleType::F32, ScaleType::F16] {
            for zero in [ZeroKind::None, ZeroKind::Integer, ZeroKind::Minimum] {
                let format = scaled(element, granularity, scale, zero);
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
                if element.affine().is_some() || sums == SumLayout::None {
                    layouts.push(DeviceLayout {
                        pieces,
                        interleave,
                        sums,
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
    pub(crate) points: Vec<u8>,
    pub(crate) minima: Vec<f32>,
}

impl Parts {
    pub(crate) fn random(format: &MatrixFormat, rows: usize, columns: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let codes_of = u64::from(format.element().affine().unwrap().max_code()) + 1;
        let count = format.scale_count(rows, columns);
        let mut small = || (random.below(2001) as f32 - 1000.0) / 64.0;
        let scales = (0..count).map(|_| small()).collect();
        let minima = (0..count).map(|_| small()).collect();
        Self {
            scales,
            minima,
            points: (0..count).map(|_| random.below(256) as u8).collect(),
            codes: (0..rows * columns)
                .map(|_| random.below(codes_of) as u8)
                .collect(),
        }
    }

    pub(crate) fn zeros(&self, format: &MatrixFormat) -> Zeros<'_> {
        match format.zero_kind() {
            ZeroKind::None => Zeros::None,
            ZeroKind::Integer => Zeros::Integer(&self.points),
            ZeroKind::Minimum => Zeros::Minimum(&self.minima),
        }
    }

    pub(crate) fn pack(&self, format: MatrixFormat, rows: usize, columns: usize) -> PackedMatrix {
        PackedMatrix::from_codes(
            format,
            rows,
            columns,
            &self.codes,
            &self.scales,
            self.zeros(&format),
        )
        .unwrap()
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
