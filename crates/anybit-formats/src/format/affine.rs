//! Integer codes of 1 to 8 bits whose value is an affine function of the code.

use crate::{ElementFormat, FormatError, FormatRow};

/// What the unsigned code of an [`AffineFormat`] stands for. `n` is the number of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// value = u, from 0 to 2ⁿ − 1.
    Unsigned,
    /// value = u − 2ⁿ⁻¹, from −2ⁿ⁻¹ to 2ⁿ⁻¹ − 1. The code is the two's-complement word with its top
    /// bit flipped, so that codes sort as their values do.
    TwosComplement,
    /// value = 2u − (2ⁿ − 1): the odd integers from −(2ⁿ − 1) to 2ⁿ − 1. Symmetric, without a zero.
    /// One bit is ±1.
    Bipolar,
    /// value = u − 1 for the codes 0, 1, 2; two bits, the code 3 is invalid.
    Ternary,
}

/// An integer format: codes `u` of 1 to 8 bits with value = a·u + b.
///
/// One unsigned dot product and row sums serve all of them, since a and b factor out of a sum of
/// products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AffineFormat {
    bits: u8,
    encoding: Encoding,
}

impl AffineFormat {
    /// −1 or +1 in one bit: bipolar with `n` = 1.
    pub const BINARY: Self = Self {
        bits: 1,
        encoding: Encoding::Bipolar,
    };

    /// −1, 0 or +1 in two bits.
    pub const TERNARY: Self = Self {
        bits: 2,
        encoding: Encoding::Ternary,
    };

    /// A format of `bits` bits.
    ///
    /// # Errors
    ///
    /// [`FormatError::Bits`] unless `bits` is 1 to 8; [`FormatError::TernaryBits`] for a ternary
    /// format that has not 2 bits.
    pub const fn new(bits: u8, encoding: Encoding) -> Result<Self, FormatError> {
        if bits < 1 || bits > 8 {
            return Err(FormatError::Bits { bits });
        }
        if matches!(encoding, Encoding::Ternary) && bits != 2 {
            return Err(FormatError::TernaryBits { bits });
        }
        Ok(Self { bits, encoding })
    }

    /// [`AffineFormat::new`] for arguments known to be right.
    pub(crate) const fn of(bits: u8, encoding: Encoding) -> Self {
        Self { bits, encoding }
    }

    /// Bits a code takes, 1 to 8.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// What the code stands for.
    pub const fn encoding(self) -> Encoding {
        self.encoding
    }

    /// `(a, b)` of value = a·u + b.
    pub const fn coefficients(self) -> (i32, i32) {
        match self.encoding {
            Encoding::Unsigned => (1, 0),
            Encoding::TwosComplement => (1, -(1 << (self.bits - 1))),
            Encoding::Bipolar => (2, -((1 << self.bits) - 1)),
            Encoding::Ternary => (1, -1),
        }
    }

    /// The largest valid code: 2ⁿ − 1, or 2 for ternary.
    pub const fn max_code(self) -> u8 {
        match self.encoding {
            Encoding::Ternary => 2,
            _ => ((1_u16 << self.bits) - 1) as u8,
        }
    }

    /// The value of a code, before any scale. Codes above [`max_code`](Self::max_code) continue the
    /// same line.
    pub const fn value(self, code: u8) -> i32 {
        let (a, b) = self.coefficients();
        a * code as i32 + b
    }

    /// The value of code 0, the smallest.
    pub const fn min_value(self) -> i32 {
        self.value(0)
    }

    /// The value of the largest valid code.
    pub const fn max_value(self) -> i32 {
        self.value(self.max_code())
    }
}

const TWOS_COMPLEMENT: &str = "two's-complement integers";
const UNSIGNED: &str = "unsigned integers";
const APMM: &str = "bipolar-INT of APMM, arXiv:2409.17870";

/// The members of the family.
pub(crate) const ROWS: &[FormatRow] = &[
    FormatRow::new("int1", ElementFormat::INT1, TWOS_COMPLEMENT),
    FormatRow::new("int2", ElementFormat::INT2, TWOS_COMPLEMENT),
    FormatRow::new("int3", ElementFormat::INT3, TWOS_COMPLEMENT),
    FormatRow::new("int4", ElementFormat::INT4, TWOS_COMPLEMENT),
    FormatRow::new("int5", ElementFormat::INT5, TWOS_COMPLEMENT),
    FormatRow::new("int6", ElementFormat::INT6, TWOS_COMPLEMENT),
    FormatRow::new("int7", ElementFormat::INT7, TWOS_COMPLEMENT),
    FormatRow::new("int8", ElementFormat::INT8, TWOS_COMPLEMENT),
    FormatRow::new("uint1", ElementFormat::UINT1, UNSIGNED),
    FormatRow::new("uint2", ElementFormat::UINT2, UNSIGNED),
    FormatRow::new("uint3", ElementFormat::UINT3, UNSIGNED),
    FormatRow::new("uint4", ElementFormat::UINT4, UNSIGNED),
    FormatRow::new("uint5", ElementFormat::UINT5, UNSIGNED),
    FormatRow::new("uint6", ElementFormat::UINT6, UNSIGNED),
    FormatRow::new("uint7", ElementFormat::UINT7, UNSIGNED),
    FormatRow::new("uint8", ElementFormat::UINT8, UNSIGNED),
    FormatRow::new("bipolar1", ElementFormat::BIPOLAR1, APMM),
    FormatRow::new("bipolar2", ElementFormat::BIPOLAR2, APMM),
    FormatRow::new("bipolar3", ElementFormat::BIPOLAR3, APMM),
    FormatRow::new("bipolar4", ElementFormat::BIPOLAR4, APMM),
    FormatRow::new("bipolar5", ElementFormat::BIPOLAR5, APMM),
    FormatRow::new("bipolar6", ElementFormat::BIPOLAR6, APMM),
    FormatRow::new("bipolar7", ElementFormat::BIPOLAR7, APMM),
    FormatRow::new("bipolar8", ElementFormat::BIPOLAR8, APMM),
    FormatRow::new(
        "binary",
        ElementFormat::BINARY,
        "sign and mean magnitude, XNOR-Net, arXiv:1603.05279",
    ),
    FormatRow::new(
        "ternary",
        ElementFormat::TERNARY,
        "BitNet b1.58, arXiv:2402.17764",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn values(bits: u8, encoding: Encoding) -> Vec<i32> {
        let format = AffineFormat::new(bits, encoding).unwrap();
        (0..=format.max_code())
            .map(|code| format.value(code))
            .collect()
    }

    #[test]
    fn every_code_of_every_format() {
        for bits in 1..=8_u8 {
            let count = 1_i32 << bits;
            assert_eq!(
                values(bits, Encoding::Unsigned),
                (0..count).collect::<Vec<_>>()
            );
            assert_eq!(
                values(bits, Encoding::TwosComplement),
                (-count / 2..count / 2).collect::<Vec<_>>()
            );
            let odd: Vec<i32> = (1 - count..count).step_by(2).collect();
            assert_eq!(values(bits, Encoding::Bipolar), odd);
        }
        assert_eq!(values(2, Encoding::Ternary), [-1, 0, 1]);
    }

    #[test]
    fn bipolar_values_are_sums_of_signed_bits() {
        for bits in 1..=8_u8 {
            let format = AffineFormat::new(bits, Encoding::Bipolar).unwrap();
            for code in 0..=format.max_code() {
                let sum: i32 = (0..bits)
                    .map(|i| (2 * i32::from(code >> i & 1) - 1) << i)
                    .sum();
                assert_eq!(format.value(code), sum);
            }
        }
    }

    #[test]
    fn twos_complement_codes_are_words_with_the_top_bit_flipped() {
        for bits in 1..=8_u8 {
            let format = AffineFormat::new(bits, Encoding::TwosComplement).unwrap();
            for code in 0..=format.max_code() {
                let word = code ^ (1 << (bits - 1));
                let sign_extended = i32::from((word << (8 - bits)) as i8 >> (8 - bits));
                assert_eq!(format.value(code), sign_extended);
            }
        }
    }

    #[test]
    fn wrong_bits_are_refused() {
        for bits in [0, 9, 255] {
            assert_eq!(
                AffineFormat::new(bits, Encoding::Unsigned),
                Err(FormatError::Bits { bits })
            );
        }
        for bits in [1, 3, 8] {
            assert_eq!(
                AffineFormat::new(bits, Encoding::Ternary),
                Err(FormatError::TernaryBits { bits })
            );
        }
        assert_eq!(
            AffineFormat::new(1, Encoding::Bipolar),
            Ok(AffineFormat::BINARY)
        );
        assert_eq!(
            AffineFormat::new(2, Encoding::Ternary),
            Ok(AffineFormat::TERNARY)
        );
    }
}
