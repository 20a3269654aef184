//! Random matrices of any format.

use anybit_formats::{
    ElementFormat, FORMATS, Granularity, MatrixFormat, PackedMatrix, ScaleLayout, ScaleType,
    SideData, ZeroKind, Zeros,
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

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Every element format with every scale layout that it can have and whose groups divide `columns`.
pub(crate) fn all_formats(columns: usize) -> Vec<MatrixFormat> {
    FORMATS
        .iter()
        // The second name of another format.
        .filter(|row| row.name == row.element.name())
        .flat_map(|row| formats_of(row.element, columns))
        .collect()
}

pub(crate) fn formats_of(element: ElementFormat, columns: usize) -> Vec<MatrixFormat> {
    let mut formats: Vec<_> = MatrixFormat::new(element, None).into_iter().collect();
    for granularity in [
        Granularity::Tensor,
        Granularity::Row,
        Granularity::Group(16),
        Granularity::Group(32),
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
                let format = MatrixFormat::new(element, Some(layout));
                formats.extend(
                    format
                        .into_iter()
                        .filter(|format| format.check_shape(1, columns).is_ok()),
                );
            }
        }
    }
    formats
}

/// A random matrix. Every scale is one of its type.
pub(crate) fn matrix(format: MatrixFormat, rows: usize, columns: usize, seed: u64) -> PackedMatrix {
    let mut random = Random(seed);
    let element = format.element();
    if let ElementFormat::Float(float) = element {
        let values: Vec<f32> = (0..rows * columns)
            .map(|_| (random.below(4001) as f32 - 2000.0) / 64.0)
            .collect();
        return PackedMatrix::from_f32(float, rows, columns, &values).unwrap();
    }
    let codes: Vec<u8> = (0..=element.max_code().unwrap())
        .filter(|&code| element.code_value(code).is_some_and(f32::is_finite))
        .collect();
    let codes: Vec<u8> = (0..rows * columns)
        .map(|_| codes[random.below(codes.len() as u64) as usize])
        .collect();
    let stored = format
        .scales()
        .map_or(ScaleType::F32, |layout| layout.scale);
    let count = format.scale_count(rows, columns);
    let mut numbers = |count: usize| -> Vec<f32> {
        let mut one = || match stored {
            ScaleType::F32 => (random.below(2001) as f32 - 1000.0) / 640.0,
            ScaleType::F16 => (random.below(2001) as f32 - 1000.0) / 64.0,
            ScaleType::E8m0 => 2f32.powi(random.below(253) as i32 - 126),
            ScaleType::E4m3 => {
                ScaleType::E4m3.decode((random.below(2) * 128 + random.below(127)) as u32)
            }
            ScaleType::Int8 | ScaleType::Super => random.below(256) as f32 - 128.0,
        };
        (0..count).map(|_| one()).collect()
    };
    let (scales, minima) = (numbers(count), numbers(count));
    let second_count = format.second_count(rows, columns);
    let mut halves = |count: usize| -> Vec<f32> {
        (0..count)
            .map(|_| (random.below(2001) as f32 - 1000.0) / 64.0)
            .collect()
    };
    let second = halves(second_count);
    let second_minima = match format.zero_kind() {
        ZeroKind::Minimum => halves(second_count),
        _ => Vec::new(),
    };
    let points = random.bytes(count);
    let choices: Vec<u8> = (0..count)
        .map(|_| random.below(element.choice_count().max(1) as u64) as u8)
        .collect();
    let side = SideData {
        scales: &scales,
        second: &second,
        zeros: match format.zero_kind() {
            ZeroKind::None => Zeros::None,
            ZeroKind::Integer => Zeros::Integer(&points),
            ZeroKind::Minimum => Zeros::Minimum(&minima),
            ZeroKind::Choice => Zeros::Choice(&choices),
        },
        second_minima: &second_minima,
    };
    PackedMatrix::from_parts(format, rows, columns, &codes, side).unwrap()
}
