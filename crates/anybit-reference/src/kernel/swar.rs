//! Operands of the swar engine, unsigned codes whose products are summed in 16 bits: `core/swar.wgsl`.

use anybit_formats::AffineFormat;

use super::dot4::bytes;
use super::integer::{Choices, Engine, Part, Words};
use crate::ReferenceError;

/// The swar engine between two formats.
pub(super) struct Swar {
    /// `SWAR_STEP`: products that are summed in 16 bits before their sum goes on in 32.
    step: usize,
}

impl Swar {
    /// The engine for spans of so many columns.
    pub(super) fn new(
        activation: AffineFormat,
        weight: AffineFormat,
        span: usize,
    ) -> Result<Self, ReferenceError> {
        let largest = |format: AffineFormat| (1_usize << format.bits()) - 1;
        let terms = usize::from(u16::MAX) / (largest(activation) * largest(weight));
        if terms < 4 {
            return Err(ReferenceError::Constant {
                what: "the number of products that 16 bits hold",
                expected: "4 or more",
                found: terms,
            });
        }
        // The largest power of two of them, so that whole steps make a span.
        let step = 1 << terms.min(span.max(4)).ilog2();
        Ok(Self { step })
    }
}

/// The codes of a span.
fn codes(words: &Words, span: Part) -> impl Iterator<Item = u32> {
    let words = span.words(words).iter();
    words.flat_map(|word| word.to_le_bytes().map(u32::from))
}

impl Engine for Swar {
    fn centre(&self) -> i32 {
        0
    }

    fn activation(&self, codes: &[u8; 32], _: Choices) -> Words {
        bytes(codes)
    }

    fn weight(&self, codes: &[u8; 32], _: Choices) -> Words {
        bytes(codes)
    }

    fn activation_codes(&self, x: &Words, span: Part) -> i32 {
        codes(x, span).sum::<u32>() as i32
    }

    fn weight_codes(&self, w: &Words, span: Part) -> i32 {
        codes(w, span).sum::<u32>() as i32
    }

    fn product(&self, x: &Words, w: &Words, _: i32, span: Part) -> i32 {
        let products = codes(x, span).zip(codes(w, span)).map(|(x, w)| x * w);
        let products: Vec<u32> = products.collect();
        let steps = products.chunks(self.step);
        // What passes 16 bits is lost to the other half of the word.
        steps
            .map(|step| (step.iter().sum::<u32>() & 0xffff) as i32)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use anybit_formats::Encoding;

    use super::*;

    #[test]
    fn the_largest_codes_stay_within_16_bits() {
        let whole = Part {
            index: 0,
            length: 32,
        };
        let mut steps = Vec::new();
        for (a, w) in (1..=8).flat_map(|a| (1..=8).map(move |w| (a, w))) {
            let unsigned = |bits| AffineFormat::new(bits, Encoding::Unsigned).unwrap();
            let (activation, weight) = (unsigned(a), unsigned(w));
            let largest = u32::from(activation.max_code()) * u32::from(weight.max_code());
            let Ok(engine) = Swar::new(activation, weight, 32) else {
                assert!(4 * largest > 0xffff, "{a} and {w} bits");
                continue;
            };
            let step = engine.step as u32;
            assert!(step * largest <= 0xffff, "{a} and {w} bits");
            assert!(
                step == 32 || 2 * step * largest > 0xffff,
                "{a} and {w} bits"
            );
            let x = bytes(&[activation.max_code(); 32]);
            let w = bytes(&[weight.max_code(); 32]);
            assert_eq!(engine.product(&x, &w, 0, whole), (32 * largest) as i32);
            steps.push(step);
        }
        steps.sort_unstable();
        steps.dedup();
        assert_eq!(steps, [4, 8, 16, 32]);
    }
}
