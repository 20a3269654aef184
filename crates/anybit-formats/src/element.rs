//! What one stored number is.

use std::fmt;
use std::str::FromStr;

use crate::{AffineFormat, Encoding, FloatFormat, FormatError};

/// What one stored number is: a float, or an integer code.
///
/// [`Display`](fmt::Display) and [`FromStr`] use the user-facing [name](Self::name).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementFormat {
    /// A float stored as it is.
    Float(FloatFormat),
    /// An integer code whose value is a·u + b.
    Affine(AffineFormat),
}

macro_rules! affine_constants {
    ($($constant:ident = $encoding:ident $bits:literal $text:literal;)*) => {
        impl ElementFormat {
            $(
                #[doc = $text]
                pub const $constant: Self = Self::Affine(AffineFormat::of($bits, Encoding::$encoding));
            )*
        }
    };
}

affine_constants! {
    INT1 = TwosComplement 1 "1-bit two's complement, −1 and 0.";
    INT2 = TwosComplement 2 "2-bit two's complement, −2 to 1.";
    INT3 = TwosComplement 3 "3-bit two's complement, −4 to 3.";
    INT4 = TwosComplement 4 "4-bit two's complement, −8 to 7.";
    INT5 = TwosComplement 5 "5-bit two's complement, −16 to 15.";
    INT6 = TwosComplement 6 "6-bit two's complement, −32 to 31.";
    INT7 = TwosComplement 7 "7-bit two's complement, −64 to 63.";
    INT8 = TwosComplement 8 "8-bit two's complement, −128 to 127.";
    UINT1 = Unsigned 1 "1-bit unsigned, 0 and 1.";
    UINT2 = Unsigned 2 "2-bit unsigned, 0 to 3.";
    UINT3 = Unsigned 3 "3-bit unsigned, 0 to 7.";
    UINT4 = Unsigned 4 "4-bit unsigned, 0 to 15.";
    UINT5 = Unsigned 5 "5-bit unsigned, 0 to 31.";
    UINT6 = Unsigned 6 "6-bit unsigned, 0 to 63.";
    UINT7 = Unsigned 7 "7-bit unsigned, 0 to 127.";
    UINT8 = Unsigned 8 "8-bit unsigned, 0 to 255.";
    BIPOLAR1 = Bipolar 1 "1-bit bipolar, −1 and 1; the same as [`ElementFormat::BINARY`].";
    BIPOLAR2 = Bipolar 2 "2-bit bipolar, the odd integers from −3 to 3.";
    BIPOLAR3 = Bipolar 3 "3-bit bipolar, the odd integers from −7 to 7.";
    BIPOLAR4 = Bipolar 4 "4-bit bipolar, the odd integers from −15 to 15.";
    BIPOLAR5 = Bipolar 5 "5-bit bipolar, the odd integers from −31 to 31.";
    BIPOLAR6 = Bipolar 6 "6-bit bipolar, the odd integers from −63 to 63.";
    BIPOLAR7 = Bipolar 7 "7-bit bipolar, the odd integers from −127 to 127.";
    BIPOLAR8 = Bipolar 8 "8-bit bipolar, the odd integers from −255 to 255.";
}

// User-facing names and kernel-id codes, indexed by bits − 1.
const INT_NAMES: [&str; 8] = [
    "int1", "int2", "int3", "int4", "int5", "int6", "int7", "int8",
];
const UINT_NAMES: [&str; 8] = [
    "uint1", "uint2", "uint3", "uint4", "uint5", "uint6", "uint7", "uint8",
];
const BIPOLAR_NAMES: [&str; 8] = [
    "binary", "bipolar2", "bipolar3", "bipolar4", "bipolar5", "bipolar6", "bipolar7", "bipolar8",
];
const INT_CODES: [&str; 8] = ["i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8"];
const UINT_CODES: [&str; 8] = ["u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"];
const BIPOLAR_CODES: [&str; 8] = ["b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8"];

impl ElementFormat {
    /// IEEE 754 binary32.
    pub const F32: Self = Self::Float(FloatFormat::F32);
    /// IEEE 754 binary16.
    pub const F16: Self = Self::Float(FloatFormat::F16);
    /// bfloat16.
    pub const BF16: Self = Self::Float(FloatFormat::Bf16);
    /// −1 and 1 in one bit.
    pub const BINARY: Self = Self::Affine(AffineFormat::BINARY);
    /// −1, 0 and 1 in two bits.
    pub const TERNARY: Self = Self::Affine(AffineFormat::TERNARY);

    /// The user-facing name: `int4`, `uint8`, `bipolar3`, `binary`, `ternary`, `f16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float(FloatFormat::F32) => "f32",
            Self::Float(FloatFormat::F16) => "f16",
            Self::Float(FloatFormat::Bf16) => "bf16",
            Self::Affine(affine) => {
                let index = affine.bits() as usize - 1;
                match affine.encoding() {
                    Encoding::TwosComplement => INT_NAMES[index],
                    Encoding::Unsigned => UINT_NAMES[index],
                    Encoding::Bipolar => BIPOLAR_NAMES[index],
                    Encoding::Ternary => "ternary",
                }
            }
        }
    }

    /// The name inside kernel ids: `i4`, `u8`, `b3`, `b1`, `t`, `f16`.
    pub const fn code_name(self) -> &'static str {
        match self {
            Self::Float(_) => self.name(),
            Self::Affine(affine) => {
                let index = affine.bits() as usize - 1;
                match affine.encoding() {
                    Encoding::TwosComplement => INT_CODES[index],
                    Encoding::Unsigned => UINT_CODES[index],
                    Encoding::Bipolar => BIPOLAR_CODES[index],
                    Encoding::Ternary => "t",
                }
            }
        }
    }

    /// Bits a number takes: 32 or 16 for floats, else 1 to 8 (ternary: 2).
    pub const fn bits(self) -> u32 {
        match self {
            Self::Float(float) => float.bits(),
            Self::Affine(affine) => affine.bits() as u32,
        }
    }

    /// The integer format, or `None` for a float.
    pub const fn affine(self) -> Option<AffineFormat> {
        match self {
            Self::Affine(affine) => Some(affine),
            Self::Float(_) => None,
        }
    }

    /// The float format, or `None` for integer codes.
    pub const fn float(self) -> Option<FloatFormat> {
        match self {
            Self::Float(float) => Some(float),
            Self::Affine(_) => None,
        }
    }

    /// The family this format belongs to.
    pub const fn family(self) -> Family {
        match self {
            Self::Float(_) => Family::Float,
            Self::Affine(_) => Family::Affine,
        }
    }

    /// The format whose [kernel-id code](Self::code_name) starts `text`, and the rest of the text.
    pub(crate) fn split_code_name(text: &str) -> Option<(Self, &str)> {
        // No code name is the beginning of another one followed by a valid rest, so the first match
        // is the match.
        FORMATS
            .iter()
            .find_map(|row| Some((row.element, text.strip_prefix(row.element.code_name())?)))
    }
}

impl From<AffineFormat> for ElementFormat {
    fn from(affine: AffineFormat) -> Self {
        Self::Affine(affine)
    }
}

impl From<FloatFormat> for ElementFormat {
    fn from(float: FloatFormat) -> Self {
        Self::Float(float)
    }
}

impl fmt::Display for ElementFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for ElementFormat {
    type Err = FormatError;

    /// Reads a name of [`FORMATS`].
    fn from_str(name: &str) -> Result<Self, FormatError> {
        FORMATS
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.element)
            .ok_or_else(|| FormatError::UnknownElement {
                name: name.to_owned(),
            })
    }
}

/// A family of element formats that one decoder serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Floats stored as they are.
    Float,
    /// Integer codes with value = a·u + b.
    Affine,
}

/// A row of [`FORMATS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatRow {
    /// The user-facing name.
    pub name: &'static str,
    /// The format.
    pub element: ElementFormat,
    /// Its family.
    pub family: Family,
    /// Where the format is defined.
    pub source: &'static str,
}

impl FormatRow {
    const fn new(name: &'static str, element: ElementFormat, source: &'static str) -> Self {
        Self {
            name,
            element,
            family: element.family(),
            source,
        }
    }
}

const TWOS_COMPLEMENT: &str = "two's-complement integers";
const UNSIGNED: &str = "unsigned integers";
const APMM: &str = "bipolar-INT of APMM, arXiv:2409.17870";

/// Every element format by name. `binary` and `bipolar1` are the same format; its
/// [name](ElementFormat::name) is `binary`.
pub const FORMATS: &[FormatRow] = &[
    FormatRow::new("f32", ElementFormat::F32, "IEEE 754 binary32"),
    FormatRow::new("f16", ElementFormat::F16, "IEEE 754 binary16"),
    FormatRow::new(
        "bf16",
        ElementFormat::BF16,
        "bfloat16, the upper half of binary32",
    ),
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
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        let names: HashSet<_> = FORMATS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), FORMATS.len());
        for row in FORMATS {
            assert_eq!(row.name.parse::<ElementFormat>(), Ok(row.element));
            assert_eq!(
                row.element.to_string().parse::<ElementFormat>(),
                Ok(row.element)
            );
            if row.name != "bipolar1" {
                assert_eq!(row.element.name(), row.name);
            }
        }
        assert_eq!(ElementFormat::BIPOLAR1.name(), "binary");
    }

    #[test]
    fn code_names_are_unique_and_read_back() {
        let codes: HashSet<_> = FORMATS.iter().map(|row| row.element.code_name()).collect();
        // binary and bipolar1 share one.
        assert_eq!(codes.len(), FORMATS.len() - 1);
        for row in FORMATS {
            assert_eq!(
                ElementFormat::split_code_name(row.element.code_name()),
                Some((row.element, ""))
            );
        }
        assert_eq!(
            ElementFormat::split_code_name("bf16"),
            Some((ElementFormat::BF16, ""))
        );
        assert_eq!(
            ElementFormat::split_code_name("tg32h"),
            Some((ElementFormat::TERNARY, "g32h"))
        );
        assert_eq!(ElementFormat::split_code_name("i9"), None);
    }

    #[test]
    fn all_members_of_the_affine_family_have_rows() {
        for encoding in [
            Encoding::Unsigned,
            Encoding::TwosComplement,
            Encoding::Bipolar,
            Encoding::Ternary,
        ] {
            for bits in 1..=8 {
                if let Ok(affine) = AffineFormat::new(bits, encoding) {
                    let element = ElementFormat::from(affine);
                    assert!(
                        FORMATS
                            .iter()
                            .any(|row| row.element == element && row.name == element.name())
                    );
                    assert_eq!(element.bits(), u32::from(bits));
                }
            }
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in ["", "int0", "int9", "INT4", "i4", "int4 ", "int04", "nf4"] {
            assert_eq!(
                name.parse::<ElementFormat>(),
                Err(FormatError::UnknownElement {
                    name: name.to_owned()
                })
            );
        }
    }
}
