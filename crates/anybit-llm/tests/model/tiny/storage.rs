//! How the tensors of a tiny model are stored.

use half::f16;

/// ggml's tensor types that tiny models can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q8_0,
}

/// Elements of a quantised block.
const BLOCK: usize = 32;

impl Storage {
    pub(crate) const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Q4_0, Self::Q4_1, Self::Q8_0];

    /// ggml's number of the type.
    pub(crate) fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 8,
        }
    }

    /// The bytes of `values`, which are a multiple of 32 for the quantised types, rounded as ggml rounds them.
    pub(crate) fn store(self, values: &[f32]) -> Vec<u8> {
        let blocks = values.chunks(BLOCK);
        match self {
            Self::F32 => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            Self::F16 => values
                .iter()
                .flat_map(|&value| f16::from_f32(value).to_le_bytes())
                .collect(),
            Self::Q4_0 => blocks.flat_map(q4_0).collect(),
            Self::Q4_1 => blocks.flat_map(q4_1).collect(),
            Self::Q8_0 => blocks.flat_map(q8_0).collect(),
        }
    }
}

/// An f16 scale, then codes of −8 to 7, stored with 8 added; the largest value becomes −8.
fn q4_0(block: &[f32]) -> Vec<u8> {
    let largest = block.iter().fold(0.0f32, |largest, &value| {
        if value.abs() > largest.abs() {
            value
        } else {
            largest
        }
    });
    let scale = largest / -8.0;
    let mut bytes = f16::from_f32(scale).to_le_bytes().to_vec();
    bytes.extend(nibbles(block, |value| value * inverse(scale) + 8.5));
    bytes
}

/// An f16 step, an f16 minimum, then codes of 0 to 15.
fn q4_1(block: &[f32]) -> Vec<u8> {
    let smallest = block.iter().copied().fold(f32::INFINITY, f32::min);
    let largest = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let step = (largest - smallest) / 15.0;
    let mut bytes = f16::from_f32(step).to_le_bytes().to_vec();
    bytes.extend(f16::from_f32(smallest).to_le_bytes());
    bytes.extend(nibbles(block, |value| {
        (value - smallest) * inverse(step) + 0.5
    }));
    bytes
}

/// An f16 scale, then codes of −127 to 127.
fn q8_0(block: &[f32]) -> Vec<u8> {
    let largest = block
        .iter()
        .fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let mut bytes = f16::from_f32(scale).to_le_bytes().to_vec();
    bytes.extend(
        block
            .iter()
            .map(|value| (value * inverse(scale)).round() as i8 as u8),
    );
    bytes
}

/// Element i and element i + 16 of a block share byte i.
fn nibbles(block: &[f32], code: impl Fn(f32) -> f32) -> Vec<u8> {
    let code = |value: &f32| (code(*value) as u8).min(15);
    let (low, high) = block.split_at(BLOCK / 2);
    let pairs = low.iter().zip(high);
    pairs
        .map(|(low, high)| code(low) | code(high) << 4)
        .collect()
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}
