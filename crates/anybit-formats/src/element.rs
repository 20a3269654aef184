//! What one stored number is.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use half::f16;

use crate::format::{affine, codebook, float, minifloat};
use crate::{AffineFormat, CodebookFormat, Encoding, FloatFormat, FormatError, MinifloatFormat};

/// What one stored number is: a float, or a code.
///
/// [`Display`](fmt::Display) and [`FromStr`] use the user-facing [name](Self::name).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementFormat {
    /// A float stored as it is.
    Float(FloatFormat),
    /// An integer code whose value is a·u + b.
    Affine(AffineFormat),
    /// A float of 3 to 8 bits.
    Minifloat(MinifloatFormat),
    /// A code that stands for a value of a table.
    Codebook(CodebookFormat),
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
    /// [`MinifloatFormat::E4M3`].
    pub const E4M3: Self = Self::Minifloat(MinifloatFormat::E4M3);
    /// [`MinifloatFormat::E5M2`].
    pub const E5M2: Self = Self::Minifloat(MinifloatFormat::E5M2);
    /// [`MinifloatFormat::E3M2`].
    pub const E3M2: Self = Self::Minifloat(MinifloatFormat::E3M2);
    /// [`MinifloatFormat::E2M3`].
    pub const E2M3: Self = Self::Minifloat(MinifloatFormat::E2M3);
    /// [`MinifloatFormat::E2M1`].
    pub const E2M1: Self = Self::Minifloat(MinifloatFormat::E2M1);
    /// −1 and 1 in one bit.
    pub const BINARY: Self = Self::Affine(AffineFormat::BINARY);
    /// −1, 0 and 1 in two bits.
    pub const TERNARY: Self = Self::Affine(AffineFormat::TERNARY);

    /// The user-facing name: `int4`, `uint8`, `bipolar3`, `binary`, `ternary`, `f16`, `e4m3`,
    /// `nf4`.
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
            Self::Minifloat(minifloat) => minifloat.name(),
            Self::Codebook(codebook) => codebook.name(),
        }
    }

    /// The name inside kernel ids: `i4`, `u8`, `b3`, `b1`, `t`; of the other families the
    /// [name](Self::name).
    pub const fn code_name(self) -> &'static str {
        match self {
            Self::Float(_) | Self::Minifloat(_) | Self::Codebook(_) => self.name(),
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
            Self::Minifloat(minifloat) => minifloat.bits() as u32,
            Self::Codebook(codebook) => codebook.bits() as u32,
        }
    }

    /// Whether numbers are codes of 8 bits or less, not floats stored as they are.
    pub const fn has_codes(self) -> bool {
        !matches!(self, Self::Float(_))
    }

    /// Whether one code's value depends on the group: a codebook with [choices](crate::Choice).
    pub const fn has_choices(self) -> bool {
        matches!(self, Self::Codebook(codebook) if codebook.choice().is_some())
    }

    /// How many values the code that depends on the group may stand for; 0 without such a code.
    pub const fn choice_count(self) -> usize {
        match self {
            Self::Codebook(codebook) => match codebook.choice() {
                Some(choice) => choice.values.len(),
                None => 0,
            },
            _ => 0,
        }
    }

    /// The largest valid code; `None` for floats.
    pub const fn max_code(self) -> Option<u8> {
        match self {
            Self::Float(_) => None,
            Self::Affine(affine) => Some(affine.max_code()),
            Self::Minifloat(minifloat) => Some(minifloat.max_code()),
            Self::Codebook(codebook) => Some(codebook.max_code()),
        }
    }

    /// The value of a code before any scale; `None` for floats and codes above the
    /// [largest](Self::max_code). NaN and infinite for such codes of minifloats. A code whose value
    /// depends on the group has that of choice 0.
    pub fn code_value(self, code: u8) -> Option<f32> {
        if code > self.max_code()? {
            return None;
        }
        match self {
            Self::Float(_) => None,
            Self::Affine(affine) => Some(affine.value(code) as f32),
            Self::Minifloat(minifloat) => Some(minifloat.decode(code)),
            Self::Codebook(codebook) => Some(codebook.value_with(code, 0)),
        }
    }

    /// The value of a code in a group of this [choice](crate::Choice), before any scale; `None` for
    /// floats and codes above the [largest](Self::max_code). Formats without choices have one value
    /// whatever the choice.
    pub fn code_value_with(self, code: u8, choice: u8) -> Option<f32> {
        match self {
            Self::Codebook(codebook) if code <= codebook.max_code() => {
                Some(codebook.value_with(code, choice))
            }
            _ => self.code_value(code),
        }
    }

    /// The largest magnitude that a calibration maps to in a group of that choice: of integers the
    /// largest value (1 for int1), of the others the largest finite magnitude.
    pub fn max_magnitude(self, choice: u8) -> f32 {
        match self {
            Self::Float(float) => match float {
                FloatFormat::F32 => f32::MAX,
                FloatFormat::F16 => 65504.0,
                FloatFormat::Bf16 => f32::from_bits(0x7f7f_0000),
            },
            Self::Affine(affine) => affine.max_value().max(1) as f32,
            Self::Minifloat(minifloat) => minifloat.max_value(),
            Self::Codebook(codebook) => (0..=codebook.max_code()).fold(0.0, |max, code| {
                max.max(codebook.value_with(code, choice).abs())
            }),
        }
    }

    /// The values of codes 0 to 255 in a group of that choice; NaN for codes that the format has
    /// not.
    pub(crate) fn value_table(self, choice: u8) -> [f32; 256] {
        std::array::from_fn(|code| {
            let code = code as u8;
            match self {
                Self::Codebook(codebook) if code <= codebook.max_code() => {
                    codebook.value_with(code, choice)
                }
                _ => self.code_value(code).unwrap_or(f32::NAN),
            }
        })
    }

    /// The power of two that every value is an integer times, where these integers are what the `dot4`
    /// engine multiplies, exactly: 1 for integer formats, 1/2 for E2M1, 1/8 for E2M3. `None` for
    /// floats, for formats with infinities or NaN, and where the integers pass ±127.
    ///
    /// Minifloats are lifted from exponents of 1 and 2 bits and from E3M0, codebooks of up to 4 bits.
    pub fn lift_unit(self) -> Option<f32> {
        let lift = match self {
            Self::Float(_) => return None,
            Self::Affine(_) => return Some(1.0),
            Self::Minifloat(minifloat) => return minifloat.lift_unit(),
            Self::Codebook(codebook) if codebook.bits() <= 4 => codebook.lift()?,
            Self::Codebook(_) => return None,
        };
        Some(f32::from_bits((127 - lift) << 23))
    }

    /// The smallest and the largest integer behind the codes, in units of the
    /// [lift](Self::lift_unit); `None` where there are no such integers.
    pub fn integer_range(self) -> Option<(i32, i32)> {
        if let Self::Affine(affine) = self {
            return Some((affine.min_value(), affine.max_value()));
        }
        let unit = self.lift_unit()?;
        let mut range = (0, 0);
        for choice in 0..self.choice_count().max(1) {
            for code in 0..=self.max_code()? {
                let value = self.code_value_with(code, choice as u8)?;
                // Exact: the integers are at most 127 and the unit is a power of two.
                let integer = (value / unit) as i32;
                range = (range.0.min(integer), range.1.max(integer));
            }
        }
        Some(range)
    }

    /// Whether an f16 holds every value before any scale, and every integer less a zero point: what cooperative matrices
    /// take.
    pub fn fits_f16(self) -> bool {
        let Some(max_code) = self.max_code() else {
            return self == Self::F16;
        };
        // Integers less a zero point are below 511; f16 holds all up to 2048.
        let exact = |value: f32| value.is_nan() || f16::from_f32(value).to_f32() == value;
        self.affine().is_some()
            || (0..self.choice_count().max(1)).all(|choice| {
                (0..=max_code)
                    .all(|code| self.code_value_with(code, choice as u8).is_some_and(exact))
            })
    }

    /// The integer format, or `None` for another family.
    pub const fn affine(self) -> Option<AffineFormat> {
        match self {
            Self::Affine(affine) => Some(affine),
            _ => None,
        }
    }

    /// The float format, or `None` for another family.
    pub const fn float(self) -> Option<FloatFormat> {
        match self {
            Self::Float(float) => Some(float),
            _ => None,
        }
    }

    /// The minifloat format, or `None` for another family.
    pub const fn minifloat(self) -> Option<MinifloatFormat> {
        match self {
            Self::Minifloat(minifloat) => Some(minifloat),
            _ => None,
        }
    }

    /// The codebook, or `None` for another family.
    pub const fn codebook(self) -> Option<CodebookFormat> {
        match self {
            Self::Codebook(codebook) => Some(codebook),
            _ => None,
        }
    }

    /// The family this format belongs to.
    pub const fn family(self) -> Family {
        match self {
            Self::Float(_) => Family::Float,
            Self::Affine(_) => Family::Affine,
            Self::Minifloat(_) => Family::Minifloat,
            Self::Codebook(_) => Family::Codebook,
        }
    }

    /// The formats whose [kernel-id code](Self::code_name) starts `text`, the longest first, each
    /// with the rest of the text.
    pub(crate) fn split_code_name(text: &str) -> impl Iterator<Item = (Self, &str)> {
        (1..=text.len())
            .rev()
            .filter_map(|end| text.split_at_checked(end))
            .filter_map(|(code, rest)| {
                let row = FORMATS.iter().find(|row| row.element.code_name() == code);
                let element = match row {
                    Some(row) => row.element,
                    None => Self::Codebook(CodebookFormat::find(code)?),
                };
                Some((element, rest))
            })
    }
}

impl From<MinifloatFormat> for ElementFormat {
    fn from(minifloat: MinifloatFormat) -> Self {
        Self::Minifloat(minifloat)
    }
}

impl From<CodebookFormat> for ElementFormat {
    fn from(codebook: CodebookFormat) -> Self {
        Self::Codebook(codebook)
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

    /// Reads a name of [`FORMATS`] or of a [user's codebook](CodebookFormat::user).
    fn from_str(name: &str) -> Result<Self, FormatError> {
        FORMATS
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.element)
            .or_else(|| CodebookFormat::find(name).map(Self::Codebook))
            .ok_or_else(|| FormatError::UnknownElement {
                name: name.to_owned(),
                similar: similar(
                    name,
                    FORMATS
                        .iter()
                        .map(|row| row.name)
                        .chain(codebook::user_names()),
                ),
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
    /// Floats of 3 to 8 bits.
    Minifloat,
    /// Codes of a table.
    Codebook,
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
    pub(crate) const fn new(
        name: &'static str,
        element: ElementFormat,
        source: &'static str,
    ) -> Self {
        Self {
            name,
            element,
            family: element.family(),
            source,
        }
    }
}

/// The rows of every family. A family's file has its own.
const FAMILIES: [&[FormatRow]; 4] = [float::ROWS, affine::ROWS, minifloat::ROWS, codebook::ROWS];

const ROW_COUNT: usize = {
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        count += FAMILIES[family].len();
        family += 1;
    }
    count
};

/// Every element format by name. `binary` and `bipolar1` are the same format; its
/// [name](ElementFormat::name) is `binary`.
pub const FORMATS: &[FormatRow] = &{
    let mut rows = [FAMILIES[0][0]; ROW_COUNT];
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            rows[count] = FAMILIES[family][row];
            count += 1;
            row += 1;
        }
        family += 1;
    }
    rows
};

/// The names nearest to `name`, for error messages: at most three, within a third of its length. Of
/// equally near ones, those first that begin as `name` does, then those that go on with a character
/// near to its own: after e4m4, e4m3.
pub(crate) fn similar<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_ascii_lowercase();
    let limit = (wanted.chars().count() / 3).max(1);
    let rank = |name: &'a str| {
        let same = wanted
            .bytes()
            .zip(name.bytes())
            .take_while(|(wanted, found)| wanted == found)
            .count();
        let step = match (wanted.as_bytes().get(same), name.as_bytes().get(same)) {
            (Some(wanted), Some(found)) => wanted.abs_diff(*found),
            _ => u8::MAX,
        };
        let distance = strsim::osa_distance(&wanted, name);
        (distance, Reverse(same), step, name)
    };
    let mut near: Vec<_> = names.map(rank).filter(|near| near.0 <= limit).collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|near| near.3).collect()
}

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
                ElementFormat::split_code_name(row.element.code_name()).next(),
                Some((row.element, ""))
            );
        }
        assert_eq!(
            ElementFormat::split_code_name("bf16").next(),
            Some((ElementFormat::BF16, ""))
        );
        assert_eq!(
            ElementFormat::split_code_name("tg32h").next(),
            Some((ElementFormat::TERNARY, "g32h"))
        );
        assert_eq!(ElementFormat::split_code_name("i9").next(), None);
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
        for name in ["", "int0", "int9", "INT4", "i4", "int4 ", "int04", "nf9"] {
            assert!(matches!(
                name.parse::<ElementFormat>(),
                Err(FormatError::UnknownElement { name: found, .. }) if found == name
            ));
        }
        let message = |name: &str| name.parse::<ElementFormat>().unwrap_err().to_string();
        assert!(
            message("INT4").contains("did you mean int4"),
            "{}",
            message("INT4")
        );
        assert!(message("e4m33").contains("did you mean e4m3"));
        assert!(message("quux").contains("FORMATS"), "{}", message("quux"));
        // The nearest first, by the last digit too.
        assert!(
            message("e4m4").contains("did you mean e4m3 or e4m2"),
            "{}",
            message("e4m4")
        );
        assert!(message("int9").contains("did you mean int8 or int7"));
    }
}
