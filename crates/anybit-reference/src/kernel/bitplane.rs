//! Operands of the bitplane engine, one bit of 32 codes a word: `core/bitplane.wgsl`.

use anybit_formats::AffineFormat;
use anybit_formats::layout::code_bit;

use super::integer::{Choices, Engine, Part, Words};

/// The bitplane engine between two formats.
pub(super) struct Bitplane {
    activation_bits: usize,
    weight_bits: usize,
}

impl Bitplane {
    pub(super) fn new(activation: AffineFormat, weight: AffineFormat) -> Self {
        Self {
            activation_bits: usize::from(activation.bits()),
            weight_bits: usize::from(weight.bits()),
        }
    }
}

/// The plane words of a block; those of bits that the codes have not are 0.
pub(super) fn planes(codes: &[u8; 32]) -> Words {
    std::array::from_fn(|plane| {
        let bits = (0..).zip(codes);
        bits.fold(0, |word, (index, &code)| {
            word | u32::from(code >> plane & 1) << code_bit(1, index)
        })
    })
}

/// Σ u over the codes of a span.
fn code_sum(words: &Words, bits: usize, span: Part) -> i32 {
    let planes = words[..bits].iter().enumerate();
    planes
        .map(|(plane, word)| ((word & span.mask()).count_ones() << plane) as i32)
        .sum()
}

impl Part {
    /// `bitplane_mask`: the bits of a word that belong to the span.
    fn mask(self) -> u32 {
        if self.length == 16 {
            0x0f0f_0f0f << (4 * self.index)
        } else {
            u32::MAX
        }
    }
}

impl Engine for Bitplane {
    fn centre(&self) -> i32 {
        0
    }

    fn activation(&self, codes: &[u8; 32], _: Choices) -> Words {
        planes(codes)
    }

    fn weight(&self, codes: &[u8; 32], _: Choices) -> Words {
        planes(codes)
    }

    fn activation_codes(&self, x: &Words, span: Part) -> i32 {
        code_sum(x, self.activation_bits, span)
    }

    fn weight_codes(&self, w: &Words, span: Part) -> i32 {
        code_sum(w, self.weight_bits, span)
    }

    fn product(&self, x: &Words, w: &Words, _: i32, span: Part) -> i32 {
        // Products of equal weight are added before they are shifted. Of two bipolar operands the kernels count where planes
        // agree instead, which comes to the same integers.
        let mut powers = [0; 15];
        for (p, w) in w[..self.weight_bits].iter().enumerate() {
            for (q, x) in x[..self.activation_bits].iter().enumerate() {
                powers[p + q] += (w & x & span.mask()).count_ones();
            }
        }
        let powers = powers.iter().enumerate();
        powers.map(|(power, sum)| (sum << power) as i32).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planes and products of APMM (arXiv:2409.17870) on A = [0, 1, 2, 3] and B = [3, 0, 2, 1].
    #[test]
    fn apmm_planes() {
        let block = |codes: [u8; 4]| {
            let mut block = [0; 32];
            // Codes 0, 4, 8, 12 of a block stand in neighbouring bits of a plane word.
            for (index, code) in codes.into_iter().enumerate() {
                block[4 * index] = code;
            }
            planes(&block)
        };
        let (a, b) = (block([0, 1, 2, 3]), block([3, 0, 2, 1]));
        assert_eq!(a[..3], [0b1010, 0b1100, 0]);
        assert_eq!(b[..3], [0b1001, 0b0101, 0]);
        let count = |word: u32| word.count_ones();
        assert_eq!(
            [0, 1].map(|i| [0, 1].map(|j| count(a[i] ^ b[j]))),
            [[2, 4], [2, 2]]
        );
        assert_eq!(
            [0, 1].map(|i| [0, 1].map(|j| count(a[i] & b[j]))),
            [[1, 0], [1, 1]]
        );
        let format = AffineFormat::new(2, anybit_formats::Encoding::Unsigned).unwrap();
        let whole = Part {
            index: 0,
            length: 32,
        };
        assert_eq!(Bitplane::new(format, format).product(&a, &b, 0, whole), 7);
    }

    #[test]
    fn a_span_of_16_is_half_a_block() {
        let mut codes = [0; 32];
        codes[15] = 1;
        codes[16] = 1;
        let word = planes(&codes)[0];
        for index in 0..2 {
            let part = Part { index, length: 16 };
            assert_eq!((word & part.mask()).count_ones(), 1);
        }
    }
}
