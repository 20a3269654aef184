//! Floats stored as they are.

use half::{bf16, f16};

use crate::{ElementFormat, FormatRow};

/// A floating-point format that GPUs read without a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatFormat {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16: 5 exponent bits, 10 mantissa bits.
    F16,
    /// The upper half of a binary32: 8 exponent bits, 7 mantissa bits.
    Bf16,
}

impl FloatFormat {
    /// Bits a number takes: 32 or 16.
    pub const fn bits(self) -> u32 {
        match self {
            Self::F32 => 32,
            Self::F16 | Self::Bf16 => 16,
        }
    }

    /// The bits of `value` in this format, rounded to nearest, ties to even. Infinite where it is
    /// too large; see [`overflows`](Self::overflows).
    pub fn encode(self, value: f32) -> u32 {
        match self {
            Self::F32 => value.to_bits(),
            Self::F16 => u32::from(f16::from_f32(value).to_bits()),
            Self::Bf16 => u32::from(bf16::from_f32(value).to_bits()),
        }
    }

    /// The value of stored bits (the lower 16 for the narrow formats), exactly.
    pub fn decode(self, bits: u32) -> f32 {
        match self {
            Self::F32 => f32::from_bits(bits),
            Self::F16 => f16::from_bits(bits as u16).to_f32(),
            Self::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        }
    }

    /// Whether a finite `value` rounds to infinity in this format.
    pub fn overflows(self, value: f32) -> bool {
        match self {
            Self::F32 => false,
            // Half way between the largest finite number and the next power of two; the tie rounds
            // up, to even.
            Self::F16 => value.abs() >= 65520.0,
            Self::Bf16 => value.abs() >= f32::from_bits(0x7f7f_8000),
        }
    }
}

/// The members of the family.
pub(crate) const ROWS: &[FormatRow] = &[
    FormatRow::new("f32", ElementFormat::F32, "IEEE 754 binary32"),
    FormatRow::new("f16", ElementFormat::F16, "IEEE 754 binary16"),
    FormatRow::new(
        "bf16",
        ElementFormat::BF16,
        "bfloat16, the upper half of binary32",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_pattern_decodes_and_encodes_back() {
        for format in [FloatFormat::F16, FloatFormat::Bf16] {
            for bits in 0..=0xffff_u32 {
                let value = format.decode(bits);
                if value.is_nan() {
                    continue;
                }
                assert_eq!(format.encode(value), bits, "{format:?} {bits:#06x}");
            }
        }
    }

    #[test]
    fn rounds_to_nearest_even() {
        let one_and_half_ulp = 1.0 + 1.0 / 2048.0;
        assert_eq!(FloatFormat::F16.encode(one_and_half_ulp), 0x3c00);
        assert_eq!(FloatFormat::F16.encode(1.0 + 3.0 / 2048.0), 0x3c02);
        assert_eq!(FloatFormat::Bf16.encode(1.0 + 1.0 / 256.0), 0x3f80);
        assert_eq!(FloatFormat::Bf16.encode(1.0 + 3.0 / 256.0), 0x3f82);
    }

    #[test]
    fn overflow_is_where_encoding_gives_infinity() {
        for format in [FloatFormat::F16, FloatFormat::Bf16] {
            let edge = match format {
                FloatFormat::F16 => 65520.0_f32,
                _ => f32::from_bits(0x7f7f_8000),
            };
            for value in [edge, edge.next_up(), edge.next_down(), f32::MAX, 1.0] {
                for value in [value, -value] {
                    let infinite = format.decode(format.encode(value)).is_infinite();
                    assert_eq!(format.overflows(value), infinite, "{format:?} {value}");
                }
            }
        }
    }
}
