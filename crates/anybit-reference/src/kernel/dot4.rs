//! Operands of the dot4 engine, four signed bytes a word: `core/dot4.wgsl`.

use anybit_formats::{AffineFormat, Encoding};

use super::integer::{Engine, Part, Words};

const BYTES_ONE: u32 = 0x0101_0101;
const BYTES_HIGH: u32 = 0x8080_8080;

/// The dot4 engine between two formats.
#[derive(Clone, Copy)]
pub(super) struct Dot4 {
    activation_bits: u8,
    weight_bits: u8,
    centre: u8,
}

impl Dot4 {
    pub(super) fn new(activation: AffineFormat, weight: AffineFormat) -> Self {
        // Any centre below 128 gives the same products; these leave an offset of 0 or 1. Codes of 8 bits need 128.
        let centre = match (activation.bits(), activation.encoding()) {
            (8, _) => 128,
            (_, Encoding::Unsigned) => 0,
            (_, Encoding::Ternary) => 1,
            (bits, Encoding::TwosComplement | Encoding::Bipolar) => 1 << (bits - 1),
        };
        Self {
            activation_bits: activation.bits(),
            weight_bits: weight.bits(),
            centre,
        }
    }
}

/// Words 4t to 4t + 3 of the codes, one a byte.
fn bytes(codes: &[u8; 32]) -> Words {
    std::array::from_fn(|t| u32::from_le_bytes(std::array::from_fn(|c| codes[4 * t + c])))
}

/// WGSL's `dot4I8Packed`.
fn dot4_i8(a: u32, b: u32) -> i32 {
    let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    products
        .map(|(a, b)| i32::from(a as i8) * i32::from(b as i8))
        .sum()
}

/// WGSL's `dot4U8Packed`.
fn dot4_u8(a: u32, b: u32) -> u32 {
    let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    products.map(|(a, b)| u32::from(a) * u32::from(b)).sum()
}

impl Part {
    /// The words of four codes that belong to the span.
    fn words(self, words: &Words) -> &[u32] {
        let count = self.length / 4;
        &words[count * self.index..][..count]
    }
}

impl Engine for Dot4 {
    fn centre(self) -> i32 {
        i32::from(self.centre)
    }

    /// `dot4_activation`: codes less their centre.
    fn activation(self, codes: &[u8; 32]) -> Words {
        bytes(codes).map(|bytes| {
            if self.activation_bits == 8 {
                bytes ^ BYTES_HIGH
            } else {
                ((bytes | BYTES_HIGH) - u32::from(self.centre) * BYTES_ONE) ^ BYTES_HIGH
            }
        })
    }

    /// `dot4_weight`: codes of 8 bits less 128, others as they are.
    fn weight(self, codes: &[u8; 32]) -> Words {
        bytes(codes).map(|bytes| {
            if self.weight_bits == 8 {
                bytes ^ BYTES_HIGH
            } else {
                bytes
            }
        })
    }

    fn activation_codes(self, x: &Words, span: Part) -> i32 {
        span.words(x).iter().map(|&x| dot4_i8(x, BYTES_ONE)).sum()
    }

    /// `dot4_weight_codes`.
    fn weight_codes(self, w: &Words, span: Part) -> i32 {
        let codes = |word: u32| {
            if self.weight_bits == 8 {
                dot4_u8(word ^ BYTES_HIGH, BYTES_ONE)
            } else {
                dot4_u8(word, BYTES_ONE)
            }
        };
        span.words(w).iter().map(|&word| codes(word) as i32).sum()
    }

    fn product(self, x: &Words, w: &Words, activation_codes: i32, span: Part) -> i32 {
        // `dot4_start`: what weights of 8 bits are short of.
        let start = if self.weight_bits == 8 {
            128 * activation_codes
        } else {
            0
        };
        let words = span.words(x).iter().zip(span.words(w));
        start + words.map(|(&x, &w)| dot4_i8(x, w)).sum::<i32>()
    }
}
