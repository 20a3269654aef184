//! Nested precision: one stored `int8` matrix, read at 2 to 8 bits.
//!
//! At l bits the integer q of 8 bits becomes an integer q_l of l bits in units of 2^(8 − l), so the number is
//! q_l·2^(8 − l)·s, with the scale s of the stored matrix.
//!
//! Neither way is the other's, and Double Rounding does not compose: 8 → 4 → 2 bits differs from 8 → 2 for 24 of the 256
//! codes. So every width is derived from the stored 8 bits.

use crate::{AffineFormat, ElementFormat, Encoding, FormatError, MatrixFormat, ZeroKind};

/// How an integer of 8 bits is read at fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Nesting {
    /// Its top bits: q_l = ⌊q / 2^(8 − l)⌋. Reading l of the 8 planes is enough; the numbers are too small by half a unit
    /// on average.
    Truncation,
    /// Rounded once more, to nearest, ties to even, and clamped (Double Rounding, arXiv:2502.01199):
    /// q_l = clamp(RNE(q / 2^(8 − l)), −2^(l − 1), 2^(l − 1) − 1). Needs all 8 bits, or l planes and a *carry plane*: one bit
    /// a code that says whether it is one more than truncation has it.
    DoubleRounding,
}

/// Bits of the stored integers.
pub(crate) const STORED_BITS: u8 = 8;

impl Nesting {
    /// Both ways.
    pub const ALL: [Self; 2] = [Self::Truncation, Self::DoubleRounding];

    /// The `int{bits}` code of the `int8` code `code`.
    ///
    /// # Errors
    ///
    /// [`FormatError::NestedBits`] unless `bits` is 2 to 8.
    pub fn code(self, code: u8, bits: u8) -> Result<u8, FormatError> {
        match self {
            Self::Truncation => truncate(code, bits),
            Self::DoubleRounding => double_round(code, bits),
        }
    }

    /// The word of four `int{bits}` codes, one a byte, of a word of four `int8` codes. `bits` is 2 to 7.
    pub(crate) const fn bytes(self, word: u32, bits: u32) -> u32 {
        let kept = kept_bytes(word, bits);
        match self {
            Self::Truncation => kept,
            Self::DoubleRounding => kept + carry_bytes(word, bits),
        }
    }
}

/// 0x01 in every byte.
const BYTES: u32 = 0x0101_0101;

/// The lowest `bits` bits (0 to 7) of every byte.
const fn byte_mask(bits: u32) -> u32 {
    ((1 << bits) - 1) * BYTES
}

const fn kept_bytes(word: u32, bits: u32) -> u32 {
    word >> (STORED_BITS as u32 - bits) & byte_mask(bits)
}

/// 1 in the bytes of the codes that Double Rounding to 2 to 7 bits makes one more than truncation does.
///
/// Codes are offset binary, u = q + 128, and 128 is an even number of units at these widths. So u rounds as q does.
pub(crate) const fn carry_bytes(word: u32, bits: u32) -> u32 {
    let dropped = STORED_BITS as u32 - bits;
    let kept = kept_bytes(word, bits);
    // Half a unit less one: with the lowest kept bit, what carries out of the dropped bits where they round up. No byte
    // passes 95.
    let half = byte_mask(dropped - 1);
    let carry = (word & byte_mask(dropped)) + half + (kept & BYTES);
    let carry = carry >> dropped & BYTES;
    // The largest code stays.
    carry & !((kept + carry) >> bits)
}

/// Refuses widths that an `int8` code is not read at.
pub(crate) fn check_bits(bits: u8) -> Result<(), FormatError> {
    if !(2..=STORED_BITS).contains(&bits) {
        return Err(FormatError::NestedBits { bits });
    }
    Ok(())
}

/// The `int{bits}` code of the `int8` code `code` by truncation: its top bits.
///
/// # Errors
///
/// [`FormatError::NestedBits`] unless `bits` is 2 to 8.
pub fn truncate(code: u8, bits: u8) -> Result<u8, FormatError> {
    check_bits(bits)?;
    Ok(code >> (STORED_BITS - bits))
}

/// The `int{bits}` code of the `int8` code `code` by Double Rounding.
///
/// # Errors
///
/// [`FormatError::NestedBits`] unless `bits` is 2 to 8.
pub fn double_round(code: u8, bits: u8) -> Result<u8, FormatError> {
    check_bits(bits)?;
    if bits == STORED_BITS {
        return Ok(code);
    }
    Ok(Nesting::DoubleRounding.bytes(code as u32, bits as u32) as u8)
}

impl MatrixFormat {
    /// The format of an `int8` matrix read at `bits` bits: `int{bits}` under the same scales.
    ///
    /// # Errors
    ///
    /// [`FormatError::NestedBits`] unless `bits` is 2 to 8; [`FormatError::NestedFormat`] for elements other than `int8` and for
    /// integer zero points, which are no whole number of the larger units.
    pub fn nested(&self, bits: u8) -> Result<Self, FormatError> {
        check_bits(bits)?;
        if self.element() != ElementFormat::INT8 || self.zero_kind() == ZeroKind::Integer {
            return Err(FormatError::NestedFormat { format: *self });
        }
        let element = AffineFormat::new(bits, Encoding::TwosComplement)?;
        Self::new(element.into(), self.scales())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: std::ops::RangeInclusive<u8> = 2..=8;

    fn code_of(value: i32, bits: u8) -> u8 {
        u8::try_from(value + (1 << (bits - 1))).unwrap()
    }

    fn value_of(code: u8, bits: u8) -> i32 {
        i32::from(code) - (1 << (bits - 1))
    }

    fn at(nesting: Nesting, value: i32, bits: u8) -> i32 {
        value_of(nesting.code(code_of(value, 8), bits).unwrap(), bits)
    }

    /// Every code at every width against the definitions, in f64.
    #[test]
    fn every_code_is_as_defined() {
        for bits in WIDTHS {
            let unit = f64::from(1_i32 << (8 - bits));
            let (low, high) = (-(1_i32 << (bits - 1)), (1_i32 << (bits - 1)) - 1);
            for value in -128..=127_i32 {
                let quotient = f64::from(value) / unit;
                let rounded = quotient.round_ties_even() as i32;
                assert_eq!(
                    at(Nesting::DoubleRounding, value, bits),
                    rounded.clamp(low, high),
                    "{value} at {bits} bits"
                );
                assert_eq!(
                    at(Nesting::Truncation, value, bits),
                    quotient.floor() as i32,
                    "{value} at {bits} bits"
                );
            }
        }
    }

    /// The carry is the difference of the two ways, and 0 where it would pass the largest code.
    #[test]
    fn carries_are_what_rounding_adds() {
        for bits in 2..=7_u8 {
            for code in 0..=255_u8 {
                let truncated = truncate(code, bits).unwrap();
                let carry = carry_bytes(u32::from(code), u32::from(bits)) as u8;
                assert!(carry <= 1);
                assert_eq!(truncated + carry, double_round(code, bits).unwrap());
                if truncated == (1 << bits) - 1 {
                    assert_eq!(carry, 0, "{code} at {bits} bits");
                }
            }
        }
    }

    /// Neighbouring bytes of a word leave each other alone.
    #[test]
    fn four_codes_at_once() {
        for bits in 2..=7_u8 {
            for code in 0..=255_u8 {
                for other in [0, 1, 127, 128, 255_u8] {
                    let bytes = [code, other, code ^ 0x55, other];
                    let word = u32::from_le_bytes(bytes);
                    for nesting in Nesting::ALL {
                        assert_eq!(
                            nesting.bytes(word, u32::from(bits)).to_le_bytes(),
                            bytes.map(|code| nesting.code(code, bits).unwrap()),
                        );
                    }
                }
            }
        }
    }

    /// Values of arXiv:2502.01199's definition, worked by hand.
    #[test]
    fn known_values_at_four_bits() {
        for (value, rounded, truncated) in [
            (8, 0, 0),
            (24, 2, 1),
            (-8, 0, -1),
            (-24, -2, -2),
            (119, 7, 7),
            (127, 7, 7),
            (-128, -8, -8),
        ] {
            assert_eq!(at(Nesting::DoubleRounding, value, 4), rounded);
            assert_eq!(at(Nesting::Truncation, value, 4), truncated);
        }
    }

    /// 8 → 4 → 2 bits is not 8 → 2 bits: 24 codes differ, among them 40 and −33.
    #[test]
    fn rounding_does_not_compose() {
        let twice = |value: i32| {
            let four = at(Nesting::DoubleRounding, value, 4);
            // From 4 to 2 bits, by the definition.
            ((f64::from(four) / 4.0).round_ties_even() as i32).clamp(-2, 1)
        };
        let once = |value| at(Nesting::DoubleRounding, value, 2);
        assert_eq!((twice(40), once(40)), (0, 1));
        assert_eq!((twice(-33), once(-33)), (0, -1));
        let differ = (-128..=127).filter(|&value| twice(value) != once(value));
        assert_eq!(differ.count(), 24);
        // Truncation does compose.
        for value in -128..=127 {
            let four = at(Nesting::Truncation, value, 4);
            assert_eq!(four.div_euclid(4), at(Nesting::Truncation, value, 2));
        }
    }

    #[test]
    fn other_widths_and_formats_are_refused() {
        for bits in [0, 1, 9, 255] {
            let refused = FormatError::NestedBits { bits };
            for nesting in Nesting::ALL {
                assert_eq!(nesting.code(0, bits), Err(refused.clone()));
            }
            let int8 = MatrixFormat::weight_default(ElementFormat::INT8);
            assert_eq!(int8.nested(bits), Err(refused));
        }
        for name in ["u8g32h", "b8rf", "i7rf", "e4m3rf", "f32", "i8rfz", "tg64h"] {
            let format: MatrixFormat = name.parse().unwrap();
            assert_eq!(format.nested(4), Err(FormatError::NestedFormat { format }));
        }
        for (name, nested) in [("i8g32h", "i4g32h"), ("i8", "i4"), ("i8rfm", "i4rfm")] {
            let format: MatrixFormat = name.parse().unwrap();
            assert_eq!(format.nested(4).unwrap().to_string(), nested);
            assert_eq!(format.nested(8), Ok(format));
        }
    }
}
