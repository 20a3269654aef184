//! Operands of the dot4 engine, four signed bytes a word: `lift/*.wgsl`.

use anybit_formats::{ElementFormat, Encoding};

use super::integer::{Choices, Engine, Part, Words};

const BYTES_ONE: u32 = 0x0101_0101;
const BYTES_HIGH: u32 = 0x8080_8080;

/// The dot4 engine between two formats.
pub(super) struct Dot4 {
    activation: Lift,
    weight: Lift,
}

/// How codes become signed bytes.
enum Lift {
    /// `lift/affine_*.wgsl`: codes of so many bits, of activations less their centre.
    Affine { bits: u8, centre: u8 },
    /// `lift/minifloat.wgsl` and `lift/codebook.wgsl`: the value of each code in units of the lift, for each choice.
    Values(Vec<[u8; 256]>),
}

impl Lift {
    fn new(element: ElementFormat) -> Self {
        if let ElementFormat::Affine(affine) = element {
            // Any centre below 128 gives the same products; these leave an offset of 0 or 1. Codes of 8 bits need 128.
            let centre = match (affine.bits(), affine.encoding()) {
                (8, _) => 128,
                (_, Encoding::Unsigned) => 0,
                (_, Encoding::Ternary) => 1,
                (bits, Encoding::TwosComplement | Encoding::Bipolar) => 1 << (bits - 1),
            };
            return Self::Affine {
                bits: affine.bits(),
                centre,
            };
        }
        let unit = element.lift_unit().unwrap_or(1.0);
        let values = |choice| {
            std::array::from_fn(|code| {
                let value = element.code_value_with(code as u8, choice).unwrap_or(0.0);
                (value / unit) as i8 as u8
            })
        };
        let choices = 0..element.choice_count().max(1) as u8;
        Self::Values(choices.map(values).collect())
    }

    /// The bytes of values, which need no centre.
    fn values(tables: &[[u8; 256]], codes: &[u8; 32], choices: Choices) -> Words {
        let mut lifted = [0; 32];
        for ((index, lifted), &code) in lifted.iter_mut().enumerate().zip(codes) {
            let choice = usize::from(choices[index / 16]);
            *lifted = tables
                .get(choice)
                .map_or(0, |table| table[usize::from(code)]);
        }
        bytes(&lifted)
    }
}

impl Dot4 {
    pub(super) fn new(activation: ElementFormat, weight: ElementFormat) -> Self {
        Self {
            activation: Lift::new(activation),
            weight: Lift::new(weight),
        }
    }
}

/// Words 4t to 4t + 3 of the codes, one a byte.
pub(super) fn bytes(codes: &[u8; 32]) -> Words {
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
    pub(super) fn words(self, words: &Words) -> &[u32] {
        let count = self.length / 4;
        &words[count * self.index..][..count]
    }
}

impl Engine for Dot4 {
    fn centre(&self) -> i32 {
        match self.activation {
            Lift::Affine { centre, .. } => i32::from(centre),
            Lift::Values(_) => 0,
        }
    }

    /// `lift_bytes` of activations: codes less their centre, or values.
    fn activation(&self, codes: &[u8; 32], choices: Choices) -> Words {
        match &self.activation {
            Lift::Affine { bits: 8, .. } => bytes(codes).map(|bytes| bytes ^ BYTES_HIGH),
            Lift::Affine { centre, .. } => bytes(codes)
                .map(|bytes| ((bytes | BYTES_HIGH) - u32::from(*centre) * BYTES_ONE) ^ BYTES_HIGH),
            Lift::Values(tables) => Lift::values(tables, codes, choices),
        }
    }

    /// `lift_bytes` of weights: codes of 8 bits less 128, others as they are, or values.
    fn weight(&self, codes: &[u8; 32], choices: Choices) -> Words {
        match &self.weight {
            Lift::Affine { bits: 8, .. } => bytes(codes).map(|bytes| bytes ^ BYTES_HIGH),
            Lift::Affine { .. } => bytes(codes),
            Lift::Values(tables) => Lift::values(tables, codes, choices),
        }
    }

    fn activation_codes(&self, x: &Words, span: Part) -> i32 {
        span.words(x).iter().map(|&x| dot4_i8(x, BYTES_ONE)).sum()
    }

    /// `lift_codes`.
    fn weight_codes(&self, w: &Words, span: Part) -> i32 {
        let codes = |word: u32| match self.weight {
            Lift::Affine { bits: 8, .. } => dot4_u8(word ^ BYTES_HIGH, BYTES_ONE) as i32,
            Lift::Affine { .. } => dot4_u8(word, BYTES_ONE) as i32,
            Lift::Values(_) => dot4_i8(word, BYTES_ONE),
        };
        span.words(w).iter().map(|&word| codes(word)).sum()
    }

    fn product(&self, x: &Words, w: &Words, activation_codes: i32, span: Part) -> i32 {
        // `lift_start`: what weights of 8 bits are short of.
        let start = match self.weight {
            Lift::Affine { bits: 8, .. } => 128 * activation_codes,
            _ => 0,
        };
        let words = span.words(x).iter().zip(span.words(w));
        start + words.map(|(&x, &w)| dot4_i8(x, w)).sum::<i32>()
    }
}
