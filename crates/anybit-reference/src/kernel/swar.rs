//! The engines swar and integer_fma, which multiply unsigned codes as they are: `multiply/`.

use anybit_formats::AffineFormat;

use super::dot4::bytes;
use super::integer::{self, Choices, Engine, Part};
use crate::ReferenceError;

/// What fills the slot `multiply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// `multiply/u32_pairs`
    U32Pairs,
    /// `multiply/f32_pairs`
    F32Pairs,
    /// `multiply/f32_singles`
    F32Singles,
}

impl Words {
    /// The largest sum that is right.
    const fn largest(self) -> usize {
        match self {
            Self::U32Pairs => 0xffff,
            Self::F32Pairs => 0xfff,
            Self::F32Singles => 1 << 24,
        }
    }

    /// The sum of a row's products. Of pairs, what passes the largest is lost to the other row.
    fn sum(self, products: &[(u32, u32)]) -> i32 {
        match self {
            Self::U32Pairs => {
                let sum: u32 = products.iter().map(|(x, w)| x * w).sum();
                (sum & 0xffff) as i32
            }
            Self::F32Pairs => Self::F32Singles.sum(products) & 0xfff,
            // Integers that f32 holds: whether products are rounded by themselves does not matter.
            Self::F32Singles => {
                let products = products.iter().map(|&(x, w)| x as f32 * w as f32);
                products.sum::<f32>() as i32
            }
        }
    }
}

/// One of the engines between two formats.
pub(super) struct Swar {
    words: Words,
    /// `SUM_TERMS`: products that are summed in a word before their sum goes on as an i32.
    step: usize,
}

/// Sums of fewer products are not parted, but of one row alone.
const F32_LEAST_TERMS: usize = 8;

impl Swar {
    /// The engine `swar` for spans of so many columns.
    pub(super) fn in_u32(
        activation: AffineFormat,
        weight: AffineFormat,
        span: usize,
    ) -> Result<Self, ReferenceError> {
        Self::new(Words::U32Pairs, activation, weight, span)
    }

    /// The engine `integer_fma` for spans of so many columns.
    pub(super) fn in_f32(
        activation: AffineFormat,
        weight: AffineFormat,
        span: usize,
    ) -> Result<Self, ReferenceError> {
        let words = match Self::terms(Words::F32Pairs, activation, weight) {
            F32_LEAST_TERMS.. => Words::F32Pairs,
            _ => Words::F32Singles,
        };
        Self::new(words, activation, weight, span)
    }

    /// Products that a row's part of a word holds the sum of.
    fn terms(words: Words, activation: AffineFormat, weight: AffineFormat) -> usize {
        let largest = |format: AffineFormat| (1_usize << format.bits()) - 1;
        words.largest() / (largest(activation) * largest(weight))
    }

    fn new(
        words: Words,
        activation: AffineFormat,
        weight: AffineFormat,
        span: usize,
    ) -> Result<Self, ReferenceError> {
        let terms = Self::terms(words, activation, weight);
        if terms < 4 {
            return Err(ReferenceError::Constant {
                what: "the number of products that 16 bits hold",
                expected: "4 or more",
                found: terms,
            });
        }
        // The largest power of two of them, so that whole steps make a span.
        let step = 1 << terms.min(span.max(4)).ilog2();
        Ok(Self { words, step })
    }
}

/// The codes of a span.
fn codes(words: &integer::Words, span: Part) -> impl Iterator<Item = u32> {
    let words = span.words(words).iter();
    words.flat_map(|word| word.to_le_bytes().map(u32::from))
}

impl Engine for Swar {
    fn centre(&self) -> i32 {
        0
    }

    fn activation(&self, codes: &[u8; 32], _: Choices) -> integer::Words {
        bytes(codes)
    }

    fn weight(&self, codes: &[u8; 32], _: Choices) -> integer::Words {
        bytes(codes)
    }

    fn activation_codes(&self, x: &integer::Words, span: Part) -> i32 {
        codes(x, span).sum::<u32>() as i32
    }

    fn weight_codes(&self, w: &integer::Words, span: Part) -> i32 {
        codes(w, span).sum::<u32>() as i32
    }

    fn product(&self, x: &integer::Words, w: &integer::Words, _: i32, span: Part) -> i32 {
        let products: Vec<(u32, u32)> = codes(x, span).zip(codes(w, span)).collect();
        let steps = products.chunks(self.step);
        steps.map(|step| self.words.sum(step)).sum()
    }
}

#[cfg(test)]
mod tests {
    use anybit_formats::Encoding;

    use super::*;

    #[test]
    fn the_largest_codes_stay_within_their_sums() {
        let whole = Part {
            index: 0,
            length: 32,
        };
        for (make, words, lengths) in [
            (
                Swar::in_u32 as fn(_, _, _) -> _,
                &[Words::U32Pairs][..],
                &[4, 8, 16, 32][..],
            ),
            (
                Swar::in_f32,
                &[Words::F32Pairs, Words::F32Singles],
                &[8, 16, 32],
            ),
        ] {
            let mut steps = Vec::new();
            for (a, w) in (1..=8).flat_map(|a| (1..=8).map(move |w| (a, w))) {
                let unsigned = |bits| AffineFormat::new(bits, Encoding::Unsigned).unwrap();
                let (activation, weight) = (unsigned(a), unsigned(w));
                let largest = usize::from(activation.max_code()) * usize::from(weight.max_code());
                let made: Result<Swar, ReferenceError> = make(activation, weight, 32);
                let Ok(engine) = made else {
                    assert!(4 * largest > 0xffff, "{a} and {w} bits");
                    continue;
                };
                assert!(words.contains(&engine.words));
                let (step, limit) = (engine.step, engine.words.largest());
                assert!(step * largest <= limit, "{a} and {w} bits");
                assert!(step == 32 || 2 * step * largest > limit, "{a} and {w} bits");
                // A row's neighbour, of the largest codes too, leaves a float below 2^24.
                if engine.words == Words::F32Pairs {
                    assert!(step * largest * 4097 < 1 << 24, "{a} and {w} bits");
                }
                let x = bytes(&[activation.max_code(); 32]);
                let w = bytes(&[weight.max_code(); 32]);
                assert_eq!(engine.product(&x, &w, 0, whole), (32 * largest) as i32);
                steps.push(step);
            }
            steps.sort_unstable();
            steps.dedup();
            assert_eq!(steps, lengths);
        }
    }
}
