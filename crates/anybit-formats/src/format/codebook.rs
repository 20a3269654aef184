//! Formats of up to 8 bits whose values stand in a table.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{ElementFormat, FORMATS, FormatError, FormatRow, NAMED_FORMATS};

/// A table of up to 256 values: code c stands for `values[c]`.
pub(crate) struct Codebook {
    name: &'static str,
    bits: u8,
    values: &'static [f32],
    choice: Option<Choice>,
    source: &'static str,
    /// One for every choice; one without choices.
    searches: &'static [Search],
}

/// A code that stands for another value in every group: the group's selector is an index into
/// `values`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The code.
    pub code: u8,
    /// What it can stand for, at most 4 values.
    pub values: &'static [f32],
}

impl Codebook {
    /// `values` are 2 to 256 finite numbers; at the choice's code, the first of its values.
    const fn new(
        name: &'static str,
        values: &'static [f32],
        choice: Option<Choice>,
        source: &'static str,
        searches: &'static [Search],
    ) -> Self {
        Self {
            name,
            bits: (values.len() - 1).ilog2() as u8 + 1,
            values,
            choice,
            source,
            searches,
        }
    }
}

/// The values of a table in ascending order, prepared for search.
struct Search {
    /// Distinct values.
    count: usize,
    /// Between each value and the next, the largest f32 that still belongs to the lower one.
    ends: [f32; 255],
    /// The code of each value; the smallest, where several codes stand for it.
    codes: [u8; 256],
}

impl Search {
    /// For a table of 2 to 256 finite values in which `replaced`, a code and a value, may stand for
    /// the table's own.
    const fn new(values: &[f32], replaced: Option<(u8, f32)>) -> Self {
        let mut sorted = [0.0; 256];
        let mut codes = [0; 256];
        let mut count = 0;
        let mut code = 0;
        while code < values.len() {
            let value = match replaced {
                Some((replaced, value)) if replaced as usize == code => value,
                _ => values[code],
            };
            // Insertion from above. An equal value is there already, with a smaller code.
            let mut place = count;
            while place > 0 && sorted[place - 1] > value {
                place -= 1;
            }
            if place == 0 || sorted[place - 1] != value {
                let mut moved = count;
                while moved > place {
                    sorted[moved] = sorted[moved - 1];
                    codes[moved] = codes[moved - 1];
                    moved -= 1;
                }
                sorted[place] = value;
                codes[place] = code as u8;
                count += 1;
            }
            code += 1;
        }
        let mut ends = [0.0; 255];
        let mut place = 1;
        while place < count {
            ends[place - 1] = middle(sorted[place - 1], sorted[place]);
            place += 1;
        }
        Self { count, ends, codes }
    }

    /// The code of the nearest value, of the lower one from half way; NaN counts as 0.
    fn code(&self, value: f32) -> u8 {
        let value = if value.is_nan() { 0.0 } else { value };
        let place = self.ends[..self.count - 1].partition_point(|&end| end < value);
        self.codes[place]
    }
}

/// The largest f32 not above (`low` + `high`) / 2, so that an f32 is nearer to `high` than to `low`
/// exactly if it is above this.
const fn middle(low: f32, high: f32) -> f32 {
    let (low, high) = (low as f64, high as f64);
    let sum = low + high;
    // What the rounding of the sum lost (Knuth's two-sum). It matters only where the sum fell onto
    // an f32, and never for tables of a reasonable range, whose sums are exact.
    let added = sum - low;
    let lost = (low - (sum - added)) + (high - added);
    let middle = sum / 2.0;
    let rounded = middle as f32;
    if rounded as f64 > middle || rounded as f64 == middle && lost < 0.0 {
        rounded.next_down()
    } else {
        rounded
    }
}

/// A format whose values stand in a table of 2 to 256 values: NormalFloat, powers, a [user's
/// own](Self::user).
///
/// Two of them are equal if their names and their tables are.
#[derive(Clone, Copy)]
pub struct CodebookFormat(&'static Codebook);

impl CodebookFormat {
    /// The name: `nf4`, `bitmod3`, or a user's.
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// Bits a code takes, 1 to 8: the fewest that hold [`max_code`](Self::max_code).
    pub const fn bits(self) -> u8 {
        self.0.bits
    }

    /// Where the table is defined.
    pub const fn source(self) -> &'static str {
        self.0.source
    }

    /// The value of every code, in the order of the codes. With a [choice](Self::choice), its code
    /// has the first of its values here.
    pub const fn values(self) -> &'static [f32] {
        self.0.values
    }

    /// The code that each group chooses the value of, if there is one.
    pub const fn choice(self) -> Option<Choice> {
        self.0.choice
    }

    /// What a group has to choose from: 1 without a [choice](Self::choice).
    pub const fn choice_count(self) -> u8 {
        self.0.searches.len() as u8
    }

    /// The largest valid code.
    pub const fn max_code(self) -> u8 {
        (self.0.values.len() - 1) as u8
    }

    /// The value of a code, under choice 0. Codes above [`max_code`](Self::max_code) are 0.
    pub fn value(self, code: u8) -> f32 {
        self.value_with(code, 0)
    }

    /// The value of a code in a group of this choice. Codes above [`max_code`](Self::max_code) are
    /// 0; choices above the last are the last, and all the same without a
    /// [choice](Self::choice).
    pub fn value_with(self, code: u8, choice: u8) -> f32 {
        match self.0.choice {
            Some(special) if special.code == code => special.values[self.choice_index(choice)],
            _ => self
                .0
                .values
                .get(usize::from(code))
                .copied()
                .unwrap_or_default(),
        }
    }

    fn choice_index(self, choice: u8) -> usize {
        usize::from(choice.min(self.choice_count() - 1))
    }

    /// The largest magnitude over all codes and choices; above 0.
    pub fn max_magnitude(self) -> f32 {
        (0..self.choice_count()).fold(0.0, |max, choice| max.max(self.max_magnitude_with(choice)))
    }

    /// The largest magnitude of a group of this choice.
    pub fn max_magnitude_with(self, choice: u8) -> f32 {
        (0..=self.max_code()).fold(0.0, |max, code| {
            max.max(self.value_with(code, choice).abs())
        })
    }

    /// The smallest k up to 126 such that 2ᵏ · value is an integer from −127 to 127 for all codes
    /// and choices; `None` without such a k.
    pub fn lift(self) -> Option<u32> {
        let choices = self.0.choice.map_or(&[][..], |choice| choice.values);
        (0..=126_u16).map(u32::from).find(|&lift| {
            // Exact: a power of two and an f32, in f64.
            let factor = f64::from(f32::from_bits((127 + lift) << 23));
            self.0.values.iter().chain(choices).all(|&value| {
                let lifted = f64::from(value) * factor;
                lifted.abs() <= 127.0 && lifted.fract() == 0.0
            })
        })
    }

    /// The code of the value nearest to `value` in a group of this choice, exactly; from half way
    /// between two, that of the smaller value. NaN counts as 0. Where several codes stand for the
    /// nearest value, the smallest code. Choices are as for [`value_with`](Self::value_with).
    pub fn encode(self, value: f32, choice: u8) -> u8 {
        self.0.searches[self.choice_index(choice)].code(value)
    }

    /// How [`encode`](Self::encode) finds a code, for kernels: the distinct values' codes in ascending
    /// order of the values, and between each value and the next the largest f32 that still belongs
    /// to the lower one.
    pub fn search(self, choice: u8) -> (&'static [u8], &'static [f32]) {
        let search = &self.0.searches[self.choice_index(choice)];
        (
            &search.codes[..search.count],
            &search.ends[..search.count - 1],
        )
    }

    /// The format of a user's table: code c stands for `values[c]`, in any order.
    ///
    /// The table is kept for the life of the process, since formats are `Copy`; the same name and
    /// values again give the same format.
    ///
    /// # Errors
    ///
    /// [`FormatError::CodebookName`] unless the name is a lowercase letter followed by at most 31
    /// lowercase letters, digits or underscores; [`FormatError::CodebookNameTaken`] where another
    /// format has the name, or where one of the two is the other followed by what may begin the
    /// scales in the name of a matrix format (`nf4g`, `i4rh`); [`FormatError::CodebookLength`]
    /// unless there are 2 to 256 values; [`FormatError::CodebookValue`] for one that is NaN,
    /// infinite or subnormal; [`FormatError::CodebookZeros`] where all are 0;
    /// [`FormatError::TooManyCodebooks`] for a new one where there are 4096.
    pub fn user(name: &str, values: &[f32]) -> Result<Self, FormatError> {
        check_user_values(values)?;
        let mut characters = name.chars();
        let valid = characters
            .next()
            .is_some_and(|first| first.is_ascii_lowercase())
            && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && name.len() <= 32;
        if !valid {
            return Err(FormatError::CodebookName {
                name: name.to_owned(),
            });
        }

        let mut users = users();
        if let Some(&known) = users.iter().find(|user| user.name() == name) {
            let same = known
                .values()
                .iter()
                .map(|value| value.to_bits())
                .eq(values.iter().map(|value| value.to_bits()));
            return if same {
                Ok(known)
            } else {
                Err(FormatError::CodebookNameTaken {
                    name: name.to_owned(),
                    by: name.to_owned(),
                })
            };
        }
        if users.len() >= USER_LIMIT {
            return Err(FormatError::TooManyCodebooks { limit: USER_LIMIT });
        }
        let user_names = users.iter().map(|user| user.name());
        if let Some(by) = built_in_names()
            .chain(user_names)
            .find(|other| confusable(name, other))
        {
            return Err(FormatError::CodebookNameTaken {
                name: name.to_owned(),
                by: by.to_owned(),
            });
        }
        let values: &'static [f32] = Box::leak(values.into());
        let user = Self(Box::leak(Box::new(Codebook::new(
            Box::leak(name.into()),
            values,
            None,
            "a user's table",
            Box::leak(Box::new([Search::new(values, None)])),
        ))));
        users.push(user);
        Ok(user)
    }

    /// The table of NUPES (arXiv:2308.05600) for the power a, as a [user's](Self::user): the 2ⁿ − 1
    /// values sign(q) · |q|^(1/a), q = −(2ⁿ⁻¹ − 1) to 2ⁿ⁻¹ − 1 in the order of the codes, for n =
    /// `bits`. The built-in [`POWER4`](Self::POWER4) and its like have a = 1/2.
    ///
    /// # Errors
    ///
    /// [`FormatError::CodebookPower`] unless `bits` is 2 to 8 and a is finite and above 0, and
    /// those of [`user`](Self::user).
    pub fn power(name: &str, bits: u8, a: f64) -> Result<Self, FormatError> {
        if !(2..=8).contains(&bits) || !a.is_finite() || a <= 0.0 {
            return Err(FormatError::CodebookPower { bits, power: a });
        }
        let largest = (1_i32 << (bits - 1)) - 1;
        let values: Vec<f32> = (-largest..=largest)
            .map(|q| {
                let magnitude = f64::from(q.abs()).powf(a.recip()) as f32;
                if q < 0 { -magnitude } else { magnitude }
            })
            .collect();
        Self::user(name, &values)
    }

    /// The built-in or the [user's](Self::user) format of this name.
    pub fn find(name: &str) -> Option<Self> {
        let built_in = ROWS.iter().find(|row| row.name == name);
        built_in
            .and_then(|row| row.element.codebook())
            .or_else(|| users().iter().find(|user| user.name() == name).copied())
    }
}

impl fmt::Debug for CodebookFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("CodebookFormat")
            .field(&self.name())
            .finish()
    }
}

impl PartialEq for CodebookFormat {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
            || self.name() == other.name()
                && self.values() == other.values()
                && self.choice() == other.choice()
    }
}

// No value is NaN.
impl Eq for CodebookFormat {}

impl Hash for CodebookFormat {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

/// Most formats of users: files may bring some, and each is kept for the life of the process.
const USER_LIMIT: usize = 4096;

/// The users' formats so far.
fn users() -> MutexGuard<'static, Vec<CodebookFormat>> {
    static USERS: Mutex<Vec<CodebookFormat>> = Mutex::new(Vec::new());
    // A panic while it was held left it whole: the only change is one push.
    USERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The names of the users' formats so far, for suggestions.
pub(crate) fn user_names() -> Vec<&'static str> {
    users().iter().map(|user| user.name()).collect()
}

fn check_user_values(values: &[f32]) -> Result<(), FormatError> {
    if !(2..=256).contains(&values.len()) {
        return Err(FormatError::CodebookLength {
            found: values.len(),
        });
    }
    // Devices may take subnormal values as 0.
    if let Some(code) = values
        .iter()
        .position(|value| !value.is_finite() || value.is_subnormal())
    {
        return Err(FormatError::CodebookValue {
            code,
            value: values[code],
        });
    }
    if values.iter().all(|&value| value == 0.0) {
        return Err(FormatError::CodebookZeros);
    }
    Ok(())
}

/// Every name that text may start with, or be, where a format is asked for.
fn built_in_names() -> impl Iterator<Item = &'static str> {
    FORMATS
        .iter()
        .flat_map(|row| [row.name, row.element.code_name()])
        .chain(NAMED_FORMATS.iter().map(|row| row.name))
}

/// Whether two names are equal, or one is the other followed by what may begin the scales of a
/// matrix format: then a text could be read in two ways.
fn confusable(name: &str, other: &str) -> bool {
    let begins_scales = |rest: Option<&str>| rest.is_some_and(begins_scales);
    begins_scales(name.strip_prefix(other)) || begins_scales(other.strip_prefix(name))
}

/// Whether `text` is the beginning of a scale layout: `r`, `g` and digits, or nothing; then a letter
/// for the type of the scales; then one for the zeros.
fn begins_scales(text: &str) -> bool {
    let text = match text.strip_prefix('g') {
        Some(rest) => rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => text.strip_prefix('r').unwrap_or(text),
    };
    match text.strip_prefix(['f', 'h', 'e', 'k', 'q', 's']) {
        Some(rest) => rest
            .strip_prefix(['z', 'm', 'c'])
            .unwrap_or(rest)
            .is_empty(),
        None => text.is_empty(),
    }
}

macro_rules! codebooks {
    ($(#[doc = $doc:literal] $constant:ident $name:literal = $values:expr, $source:expr
        $(, code $code:literal is one of $choices:expr)?;)*) => {
        impl CodebookFormat {
            $(
                #[doc = $doc]
                pub const $constant: Self = {
                    static VALUES: &[f32] = &$values;
                    static CODEBOOK: Codebook = Codebook::new(
                        $name,
                        VALUES,
                        choice!($($code, $choices)?),
                        $source,
                        searches!($($code, $choices)?),
                    );
                    Self(&CODEBOOK)
                };
            )*
        }

        impl ElementFormat {
            $(
                #[doc = concat!("[`CodebookFormat::", stringify!($constant), "`].")]
                pub const $constant: Self = Self::Codebook(CodebookFormat::$constant);
            )*
        }

        /// The members of the family.
        pub(crate) const ROWS: &[FormatRow] =
            &[$(FormatRow::new($name, ElementFormat::$constant, $source)),*];
    };
}

macro_rules! choice {
    () => {
        None
    };
    ($code:literal, $choices:expr) => {
        Some(Choice {
            code: $code,
            values: &$choices,
        })
    };
}

macro_rules! searches {
    () => {
        &const { [Search::new(VALUES, None)] }
    };
    ($code:literal, $choices:expr) => {
        &const {
            [
                Search::new(VALUES, Some(($code, $choices[0]))),
                Search::new(VALUES, Some(($code, $choices[1]))),
                Search::new(VALUES, Some(($code, $choices[2]))),
                Search::new(VALUES, Some(($code, $choices[3]))),
            ]
        }
    };
}

const BITSANDBYTES: &str = "bitsandbytes";
const DYNAMIC: &str = "dynamic tree quantisation, arXiv:2110.02861";
const BITMOD: &str = "BitMoD, arXiv:2411.11745";
const NUPES: &str = "NUPES, arXiv:2308.05600";
const DENSE_SHIFT: &str = "DenseShift, arXiv:2208.09708";

codebooks! {
    /// NormalFloat of 4 bits: quantiles of the normal distribution from −1 to 1, with a zero.
    NF4 "nf4" = NORMAL_FLOAT, "QLoRA, arXiv:2305.14314";

    /// The 4-bit float of bitsandbytes: a sign bit, then 1/12 of 0, 1/16, 8, 12, 4, 6, 2, 3.
    FP4BNB "fp4bnb" = FP4_BITSANDBYTES, BITSANDBYTES;

    /// The signed dynamic map of 8-bit optimizers, −0.993 to 1; code 127 is 0.
    DYNAMIC8 "dynamic8" = dynamic(true), DYNAMIC;

    /// The unsigned dynamic map of 8-bit optimizers, 0 to 1.
    UDYNAMIC8 "udynamic8" = dynamic(false), DYNAMIC;

    /// The 3-bit float of BitMoD, ±{0, 1, 2, 4}, with one of ±3, ±6 for −0.
    BITMOD3 "bitmod3" = sign_magnitude::<8>(&[0.0, 1.0, 2.0, 4.0], 3.0), BITMOD,
        code 4 is one of [3.0, -3.0, 6.0, -6.0];

    /// The 4-bit float of BitMoD, ±{0, 1, 2, 3, 4, 6, 8, 12}, with one of ±10, ±16 for −0.
    BITMOD4 "bitmod4" = sign_magnitude::<16>(&[0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0], 10.0),
        BITMOD, code 8 is one of [10.0, -10.0, 16.0, -16.0];

    /// Signed squares q · |q|, −9 to 9; code 3 is 0 and code 7 invalid.
    POWER3 "power3" = signed_squares::<7>(), NUPES;

    /// Signed squares q · |q|, −49 to 49; code 7 is 0 and code 15 invalid.
    POWER4 "power4" = signed_squares::<15>(), NUPES;

    /// Signed squares q · |q|, −225 to 225; code 15 is 0 and code 31 invalid.
    POWER5 "power5" = signed_squares::<31>(), NUPES;

    /// Signed squares q · |q|, −961 to 961; code 31 is 0 and code 63 invalid.
    POWER6 "power6" = signed_squares::<63>(), NUPES;

    /// Signed squares q · |q|, −3969 to 3969; code 63 is 0 and code 127 invalid.
    POWER7 "power7" = signed_squares::<127>(), NUPES;

    /// Signed squares q · |q|, −16129 to 16129; code 127 is 0 and code 255 invalid.
    POWER8 "power8" = signed_squares::<255>(), NUPES;

    /// A sign bit and a power of two: ±1, ±2.
    SHIFT2 "shift2" = signed_powers_of_two::<4>(), DENSE_SHIFT;

    /// A sign bit and a power of two: ±1, ±2, ±4, ±8.
    SHIFT3 "shift3" = signed_powers_of_two::<8>(), DENSE_SHIFT;

    /// A sign bit and a power of two: ±1 to ±128.
    SHIFT4 "shift4" = signed_powers_of_two::<16>(), DENSE_SHIFT;

    /// A sign bit and a power of two: ±1 to ±32768.
    SHIFT5 "shift5" = signed_powers_of_two::<32>(), DENSE_SHIFT;

    /// The non-linear 4-bit integers of llama.cpp's IQ4_NL and IQ4_XS, −127 to 113.
    IQ4NL "iq4nl" = NON_LINEAR, "llama.cpp";
}

#[rustfmt::skip]
const NORMAL_FLOAT: [f32; 16] = [
    -1.0, -0.696_192_8, -0.525_073_05, -0.394_917_5,
    -0.284_441_38, -0.184_773_43, -0.091_050_036, 0.0,
    0.079_580_3, 0.160_930_2, 0.246_112_3, 0.337_915_24,
    0.440_709_83, 0.562_617, 0.722_956_84, 1.0,
];

#[rustfmt::skip]
const NON_LINEAR: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0,
    1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

const FP4_BITSANDBYTES: [f32; 16] = sign_magnitude(
    &[
        0.0,
        0.0625 / 12.0,
        8.0 / 12.0,
        1.0,
        4.0 / 12.0,
        6.0 / 12.0,
        2.0 / 12.0,
        3.0 / 12.0,
    ],
    -0.0,
);

/// The magnitudes, then their negatives with `negative_zero` for that of the first.
const fn sign_magnitude<const N: usize>(magnitudes: &[f32], negative_zero: f32) -> [f32; N] {
    let mut values = [negative_zero; N];
    values[0] = magnitudes[0];
    let mut code = 1;
    while code < magnitudes.len() {
        values[code] = magnitudes[code];
        values[magnitudes.len() + code] = -magnitudes[code];
        code += 1;
    }
    values
}

/// q · |q| for the N integers around 0, in order.
const fn signed_squares<const N: usize>() -> [f32; N] {
    let mut values = [0.0; N];
    let mut code = 0;
    while code < N {
        let q = code as i32 - (N / 2) as i32;
        values[code] = (q * q.abs()) as f32;
        code += 1;
    }
    values
}

/// 2⁰ to 2^(N/2 − 1), then their negatives.
const fn signed_powers_of_two<const N: usize>() -> [f32; N] {
    let mut values = [0.0; N];
    let mut power = 0;
    while power < N / 2 {
        values[power] = (1_u32 << power) as f32;
        values[N / 2 + power] = -values[power];
        power += 1;
    }
    values
}

/// The dynamic map: in each of the decades that end at 10⁻⁶, 10⁻⁵ … 1, the middles of equal parts of
/// its upper nine tenths, twice as many from one decade to the next; and 0 and 1. Signed, one part
/// in the first decade, and the negatives of all but 1; unsigned, two parts.
///
/// Each is the exact number rounded to f32. bitsandbytes computes them in f32, with results that
/// depend on the machine in the last bits.
const fn dynamic(signed: bool) -> [f32; 256] {
    let zero = if signed { 127 } else { 0 };
    let mut values = [0.0; 256];
    let mut code = zero + 1;
    let mut decade = 0;
    let mut unit = 1_000_000;
    while decade < 7 {
        let parts: i64 = 1 << (decade + if signed { 0 } else { 1 });
        let mut part = 0;
        while part < parts {
            // (1/10 + 9/10 · (part + 1/2) / parts) / unit in one division of integers.
            let numerator = 2 * parts + 9 * (2 * part + 1);
            let value = (numerator as f64 / (20 * parts * unit) as f64) as f32;
            values[code] = value;
            if signed {
                values[2 * zero - code] = -value;
            }
            code += 1;
            part += 1;
        }
        decade += 1;
        unit /= 10;
    }
    values[code] = 1.0;
    values
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Every built-in codebook.
    fn codebooks() -> impl Iterator<Item = CodebookFormat> {
        ROWS.iter().map(|row| row.element.codebook().unwrap())
    }

    /// A small generator (SplitMix64).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    /// The table in ascending order, equal values by code.
    fn sorted(format: CodebookFormat, choice: u8) -> Vec<(f32, u8)> {
        let mut table: Vec<(f32, u8)> = (0..=format.max_code())
            .map(|code| (format.value_with(code, choice), code))
            .collect();
        table.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap().then(a.1.cmp(&b.1)));
        table
    }

    /// By a walk through the table: on to the next value where it is strictly nearer. The sums of
    /// two values are exact in f64 for every built-in table.
    fn plain_code(sorted: &[(f32, u8)], value: f32) -> u8 {
        let mut best = sorted[0];
        for &next in &sorted[1..] {
            if 2.0 * f64::from(value) > f64::from(best.0) + f64::from(next.0) && next.0 != best.0 {
                best = next;
            }
        }
        best.1
    }

    fn check_encode(format: CodebookFormat, choice: u8, seed: u64) {
        let table = sorted(format, choice);
        let check = |value: f32| {
            assert_eq!(
                format.encode(value, choice),
                plain_code(&table, value),
                "{format:?} {choice} {value:e}"
            );
        };
        for pair in table.windows(2) {
            let middle = ((f64::from(pair[0].0) + f64::from(pair[1].0)) / 2.0) as f32;
            for edge in [pair[0].0, middle, pair[1].0] {
                check(edge.next_down());
                check(edge);
                check(edge.next_up());
            }
        }
        for extreme in [0.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY] {
            check(extreme);
            check(-extreme);
        }
        let mut random = Random(seed);
        let range = 1.2 * format.max_magnitude();
        for _ in 0..100_000 {
            let word = random.next();
            check(f32::from_bits(word as u32 & 0xbfff_ffff));
            check(((word >> 40) as f32 / (1 << 23) as f32 - 1.0) * range);
        }
    }

    #[test]
    fn encodes_to_the_nearest_value() {
        for (seed, format) in codebooks().enumerate() {
            for choice in 0..format.choice_count() {
                check_encode(format, choice, seed as u64);
            }
        }
    }

    #[test]
    fn every_code_encodes_back() {
        for format in codebooks() {
            for choice in 0..format.choice_count() {
                for code in 0..=format.max_code() {
                    let value = format.value_with(code, choice);
                    let back = format.encode(value, choice);
                    assert_eq!(format.value_with(back, choice), value);
                    // Only the −0 of the float shares its value with another code.
                    let first = (0..=format.max_code())
                        .find(|&other| format.value_with(other, choice) == value);
                    assert_eq!(Some(back), first);
                    if format != CodebookFormat::FP4BNB || code != 8 {
                        assert_eq!(back, code, "{format:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_counts_as_0() {
        for format in codebooks() {
            for choice in 0..format.choice_count() {
                let code = format.encode(f32::NAN, choice);
                let least = sorted(format, choice)
                    .into_iter()
                    .map(|(value, _)| value.abs())
                    .fold(f32::INFINITY, f32::min);
                assert_eq!(format.value_with(code, choice).abs(), least);
            }
        }
    }

    /// A tie goes to the smaller value, on either side of zero.
    #[test]
    fn ties() {
        let value = |format: CodebookFormat, value: f32| format.value(format.encode(value, 0));
        assert_eq!(value(CodebookFormat::POWER4, 2.5), 1.0);
        assert_eq!(value(CodebookFormat::POWER4, -2.5), -4.0);
        assert_eq!(value(CodebookFormat::POWER4, 0.5), 0.0);
        assert_eq!(value(CodebookFormat::SHIFT2, 0.0), -1.0);
        assert_eq!(value(CodebookFormat::IQ4NL, 7.0), 1.0);
        assert_eq!(value(CodebookFormat::IQ4NL, 7.0_f32.next_up()), 13.0);
    }

    /// Where f64 cannot hold the sum of two values, the rest of it decides.
    #[test]
    fn middles_of_distant_values() {
        let (large, small) = (2_f32.powi(100), 2_f32.powi(-100));
        let half = 2_f32.powi(99);
        assert_eq!(middle(small, large), half);
        assert_eq!(middle(0.0, large), half);
        assert_eq!(middle(-small, large), half.next_down());
        assert_eq!(middle(-large, small), -half);
        assert_eq!(middle(-large, -small), (-half).next_down());
        assert_eq!(middle(-f32::MAX, f32::MAX), 0.0);
        assert_eq!(middle(f32::MAX.next_down(), f32::MAX), f32::MAX.next_down());
        // Half way between neighbours is neither; the lower is the last that belongs to itself.
        assert_eq!(middle(1.0, 1.0_f32.next_up()), 1.0);
        assert_eq!(middle(-1.0, (-1.0_f32).next_up()), -1.0);

        let format = CodebookFormat::user("distant", &[large, -small]).unwrap();
        assert_eq!(format.encode(half, 0), 0);
        assert_eq!(format.encode(half.next_down(), 0), 1);
    }

    #[test]
    fn shapes_of_the_built_in_tables() {
        let names: HashSet<_> = codebooks().map(|format| format.name()).collect();
        assert_eq!(names.len(), ROWS.len());
        for format in codebooks() {
            let count = format.values().len();
            assert!(1 << (format.bits() - 1) < count && count <= 1 << format.bits());
            assert_eq!(usize::from(format.max_code()) + 1, count);
            assert_eq!(CodebookFormat::find(format.name()), Some(format));
            assert!(format.values().iter().all(|value| value.is_finite()));
            for (code, &value) in format.values().iter().enumerate() {
                assert_eq!(format.value(code as u8).to_bits(), value.to_bits());
            }
            if let Some(choice) = format.choice() {
                assert_eq!(choice.values.len(), usize::from(format.choice_count()));
                assert!(choice.values.len() <= 4);
                assert_eq!(format.values()[usize::from(choice.code)], choice.values[0]);
                for (index, &value) in choice.values.iter().enumerate() {
                    assert_eq!(format.value_with(choice.code, index as u8), value);
                    let other_code = u8::from(choice.code == 0);
                    assert_eq!(
                        format.value_with(other_code, index as u8),
                        format.value(other_code)
                    );
                }
                assert_eq!(format.value_with(choice.code, 200), choice.values[3]);
                assert_eq!(format.encode(1.0, 200), format.encode(1.0, 3));
            } else {
                assert_eq!(format.choice_count(), 1);
            }
            if format.max_code() < 255 {
                assert_eq!(format.value(format.max_code() + 1), 0.0);
            }
        }
    }

    #[test]
    fn normal_float_as_published() {
        let published = [
            -1.0,
            -0.6961928009986877,
            -0.5250730514526367,
            -0.39491748809814453,
            -0.28444138169288635,
            -0.18477343022823334,
            -0.09105003625154495,
            0.0,
            0.07958029955625534,
            0.16093020141124725,
            0.24611230194568634,
            0.33791524171829224,
            0.44070982933044434,
            0.5626170039176941,
            0.7229568362236023,
            1.0_f64,
        ];
        let values = CodebookFormat::NF4.values().iter();
        assert!(values.map(|&value| f64::from(value)).eq(published));
    }

    #[test]
    fn four_bit_float_of_bitsandbytes() {
        let values = CodebookFormat::FP4BNB.values();
        let published = [
            0.0,
            0.005_208_333_3,
            0.666_666_7,
            1.0,
            0.333_333_34,
            0.5,
            0.166_666_67,
            0.25_f32,
        ];
        for code in 0..8 {
            assert_eq!(values[code].to_bits(), published[code].to_bits());
            assert_eq!(values[code + 8].to_bits(), (-published[code]).to_bits());
        }
    }

    /// The construction of bitsandbytes, in f64: decades of middles between equal steps.
    #[test]
    fn dynamic_maps_as_defined() {
        for (format, signed) in [
            (CodebookFormat::DYNAMIC8, true),
            (CodebookFormat::UDYNAMIC8, false),
        ] {
            let mut expected = vec![0.0, 1.0];
            for decade in 0..7 {
                let parts = 1 << (decade + i32::from(!signed));
                let boundary = |index: i32| 0.1 + 0.9 * f64::from(index) / f64::from(parts);
                for part in 0..parts {
                    let mean = (boundary(part) + boundary(part + 1)) / 2.0;
                    let value = mean * 10_f64.powi(decade - 6);
                    expected.push(value);
                    if signed {
                        expected.push(-value);
                    }
                }
            }
            expected.sort_by(f64::total_cmp);
            assert_eq!(expected.len(), 256);
            for (&value, expected) in format.values().iter().zip(&expected) {
                let error = (f64::from(value) - expected).abs();
                // Half a unit in the last place of an f32, and the errors of f64.
                assert!(error <= expected.abs() * 2_f64.powi(-24) * 1.000_001);
            }
        }
    }

    #[test]
    fn dynamic_maps_at_their_ends() {
        let near = |value: f32, expected: f64| (f64::from(value) / expected - 1.0).abs() < 1e-5;
        let signed = CodebookFormat::DYNAMIC8.values();
        assert!(signed.is_sorted());
        assert_eq!((signed[127], signed[255]), (0.0, 1.0));
        for (code, value) in [
            (0, -0.992_969),
            (126, -5.5e-7),
            (128, 5.5e-7),
            (129, 3.25e-6),
            (130, 7.75e-6),
            (253, 0.978_906),
            (254, 0.992_969),
        ] {
            assert!(near(signed[code], value), "{code}");
        }
        let unsigned = CodebookFormat::UDYNAMIC8.values();
        assert!(unsigned.is_sorted());
        assert_eq!((unsigned[0], unsigned[255]), (0.0, 1.0));
        for (code, value) in [
            (1, 3.25e-7),
            (2, 7.75e-7),
            (3, 2.125e-6),
            (253, 0.989_453),
            (254, 0.996_484),
        ] {
            assert!(near(unsigned[code], value), "{code}");
        }
    }

    #[test]
    fn bitmod_tables() {
        let table = |format: CodebookFormat, choice| {
            (0..=format.max_code())
                .map(|code| format.value_with(code, choice))
                .collect::<Vec<_>>()
        };
        for (choice, special) in [(0, 3.0), (1, -3.0), (2, 6.0), (3, -6.0)] {
            assert_eq!(
                table(CodebookFormat::BITMOD3, choice),
                [0.0, 1.0, 2.0, 4.0, special, -1.0, -2.0, -4.0]
            );
        }
        for (choice, special) in [(0, 10.0), (1, -10.0), (2, 16.0), (3, -16.0)] {
            let mut expected = vec![0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, special];
            expected.extend([-1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0]);
            assert_eq!(table(CodebookFormat::BITMOD4, choice), expected);
        }
        let magnitudes =
            |format: CodebookFormat| [0, 1, 2, 3].map(|choice| format.max_magnitude_with(choice));
        assert_eq!(magnitudes(CodebookFormat::BITMOD3), [4.0, 4.0, 6.0, 6.0]);
        assert_eq!(
            magnitudes(CodebookFormat::BITMOD4),
            [12.0, 12.0, 16.0, 16.0]
        );
        assert_eq!(CodebookFormat::BITMOD4.max_magnitude(), 16.0);
    }

    #[test]
    fn powers_and_shifts() {
        let powers = [
            CodebookFormat::POWER3,
            CodebookFormat::POWER4,
            CodebookFormat::POWER5,
            CodebookFormat::POWER6,
            CodebookFormat::POWER7,
            CodebookFormat::POWER8,
        ];
        for (format, bits) in powers.into_iter().zip(3..) {
            assert_eq!(format.bits(), bits);
            let zero = (1 << (bits - 1)) - 1;
            assert_eq!(i32::from(format.max_code()), 2 * zero);
            for code in 0..=format.max_code() {
                let q = i32::from(code) - zero;
                assert_eq!(format.value(code), (q.signum() * q.pow(2)) as f32);
            }
        }
        assert_eq!(CodebookFormat::SHIFT2.values(), [1.0, 2.0, -1.0, -2.0]);
        assert_eq!(
            CodebookFormat::SHIFT3.values(),
            [1.0, 2.0, 4.0, 8.0, -1.0, -2.0, -4.0, -8.0]
        );
        for code in 0..8 {
            let value = f32::from(1_u8 << code);
            assert_eq!(CodebookFormat::SHIFT4.value(code), value);
            assert_eq!(CodebookFormat::SHIFT4.value(code + 8), -value);
        }
    }

    /// The worked example of the squares: [0.9, −0.1, 0.02, 0.5] as [7, −2, 1, 5].
    #[test]
    fn signed_squares_of_a_row() {
        let format = CodebookFormat::POWER4;
        let scale = 0.9 / format.max_magnitude();
        let row = [0.9_f32, -0.1, 0.02, 0.5];
        let codes = row.map(|value| format.encode(value / scale, 0));
        assert_eq!(codes.map(|code| i32::from(code) - 7), [7, -2, 1, 5]);
        for (code, expected) in codes.into_iter().zip([0.9, -0.0735, 0.0184, 0.4592]) {
            assert!((format.value(code) * scale - expected).abs() < 5e-5);
        }
    }

    #[test]
    fn lifts() {
        for (format, lift) in [
            (CodebookFormat::NF4, None),
            (CodebookFormat::FP4BNB, None),
            (CodebookFormat::DYNAMIC8, None),
            (CodebookFormat::BITMOD3, Some(0)),
            (CodebookFormat::BITMOD4, Some(0)),
            (CodebookFormat::POWER4, Some(0)),
            (CodebookFormat::POWER5, None),
            (CodebookFormat::SHIFT3, Some(0)),
            (CodebookFormat::SHIFT4, None),
            (CodebookFormat::IQ4NL, Some(0)),
        ] {
            assert_eq!(format.lift(), lift, "{format:?}");
        }
        let lift = |name, values: &[f32]| CodebookFormat::user(name, values).unwrap().lift();
        assert_eq!(lift("lift_a", &[0.25, -0.5]), Some(2));
        assert_eq!(lift("lift_b", &[0.25, 31.75]), Some(2));
        assert_eq!(lift("lift_c", &[0.25, 32.0]), None);
        assert_eq!(lift("lift_d", &[127.0, -127.0]), Some(0));
        assert_eq!(lift("lift_e", &[0.0, -128.0]), None);
        assert_eq!(lift("lift_f", &[0.0, f32::MIN_POSITIVE]), Some(126));
    }

    #[test]
    fn user_tables() {
        let values = [0.5, -2.0, 0.5, 7.0, -0.0];
        let format = CodebookFormat::user("mine", &values).unwrap();
        assert_eq!(format.name(), "mine");
        assert_eq!((format.bits(), format.max_code()), (3, 4));
        assert_eq!(format.values(), values);
        assert_eq!(format.max_magnitude(), 7.0);
        assert_eq!(CodebookFormat::find("mine"), Some(format));
        assert_eq!(format!("{format:?}"), "CodebookFormat(\"mine\")");
        // The smaller code of two for one value.
        assert_eq!(format.encode(0.6, 0), 0);
        assert_eq!(format.encode(0.0, 0), 4);
        check_encode(format, 0, 1);

        // Again the same, from anywhere; another table under the name is refused.
        let again = std::thread::spawn(move || CodebookFormat::user("mine", &values));
        assert_eq!(again.join().unwrap(), Ok(format));
        assert!(std::ptr::eq(
            CodebookFormat::user("mine", &values).unwrap().0,
            format.0
        ));
        for other in [&values[..4], &[0.5, -2.0, 0.5, 7.0, 0.0]] {
            assert_eq!(
                CodebookFormat::user("mine", other),
                Err(FormatError::CodebookNameTaken {
                    name: "mine".to_owned(),
                    by: "mine".to_owned()
                })
            );
        }
        let named_otherwise = CodebookFormat::user("mine_too", &values).unwrap();
        assert_ne!(named_otherwise, format);
        assert_eq!(CodebookFormat::find("no_such"), None);
    }

    #[test]
    fn tables_of_every_length() {
        let values: Vec<f32> = (0..256).map(|i| (i * 97 % 256) as f32).collect();
        for length in 2..=256 {
            let name = format!("length_{length}");
            let format = CodebookFormat::user(&name, &values[..length]).unwrap();
            assert_eq!(1 << format.bits(), length.next_power_of_two());
            for (code, &value) in values[..length].iter().enumerate() {
                assert_eq!(usize::from(format.encode(value, 0)), code);
            }
        }
    }

    #[test]
    fn wrong_tables_are_refused() {
        let refused = |values: &[f32], error: FormatError| {
            assert_eq!(CodebookFormat::user("refused", values), Err(error));
        };
        refused(&[], FormatError::CodebookLength { found: 0 });
        refused(&[1.0], FormatError::CodebookLength { found: 1 });
        refused(&[1.0; 257], FormatError::CodebookLength { found: 257 });
        refused(&[0.0, -0.0], FormatError::CodebookZeros);
        for value in [f32::INFINITY, f32::NEG_INFINITY, 1e-40] {
            refused(&[1.0, value], FormatError::CodebookValue { code: 1, value });
        }
        assert!(matches!(
            CodebookFormat::user("refused", &[1.0, 2.0, f32::NAN]),
            Err(FormatError::CodebookValue { code: 2, .. })
        ));
        assert_eq!(CodebookFormat::find("refused"), None);
    }

    #[test]
    fn wrong_names_are_refused() {
        let long = "a".repeat(33);
        for name in ["", "1a", "_a", "A", "aB", "a b", "é", "aé", "a-b", &long] {
            assert_eq!(
                CodebookFormat::user(name, &[0.0, 1.0]),
                Err(FormatError::CodebookName {
                    name: name.to_owned()
                })
            );
        }
        assert!(CodebookFormat::user(&"a".repeat(32), &[0.0, 1.0]).is_ok());
    }

    #[test]
    fn names_that_could_be_read_in_two_ways_are_refused() {
        for (name, by) in [
            ("nf4", "nf4"),
            ("int4", "int4"),
            ("i4", "i4"),
            ("e4m3ieee", "e4m3ieee"),
            ("q4_0", "q4_0"),
            ("nf4g", "nf4"),
            ("nf4g32", "nf4"),
            ("nf4g32h", "nf4"),
            ("nf4r", "nf4"),
            ("i4rh", "i4"),
            ("tf", "t"),
            ("tg", "t"),
            ("u4fz", "u4"),
            ("bitmod4g128qc", "bitmod4"),
        ] {
            assert_eq!(
                CodebookFormat::user(name, &[0.0, 1.0]),
                Err(FormatError::CodebookNameTaken {
                    name: name.to_owned(),
                    by: by.to_owned()
                })
            );
        }
        for name in ["table", "nf4x", "nf4gx", "nf4hh", "int4_like"] {
            assert!(CodebookFormat::user(name, &[0.0, 1.0]).is_ok(), "{name}");
        }
        // Either of two users' names.
        CodebookFormat::user("userg32", &[0.0, 1.0]).unwrap();
        assert!(CodebookFormat::user("user", &[0.0, 1.0]).is_err());
        assert!(CodebookFormat::user("userg32k", &[0.0, 1.0]).is_err());
    }

    #[test]
    fn built_in_names_are_not_confusable() {
        let names: HashSet<_> = built_in_names().collect();
        for name in &names {
            for other in &names {
                assert!(name == other || !confusable(name, other), "{name} {other}");
            }
        }
    }

    #[test]
    fn powers_of_other_exponents() {
        let squares = CodebookFormat::power("squares", 4, 0.5).unwrap();
        assert_eq!(squares.values(), CodebookFormat::POWER4.values());
        let linear = CodebookFormat::power("linear", 3, 1.0).unwrap();
        assert_eq!(linear.values(), [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]);
        let roots = CodebookFormat::power("roots", 2, 2.0).unwrap();
        assert_eq!(roots.values(), [-1.0, 0.0, 1.0]);
        for (bits, power) in [(1, 0.5), (9, 0.5), (4, 0.0), (4, -1.0), (4, f64::INFINITY)] {
            assert_eq!(
                CodebookFormat::power("refused", bits, power),
                Err(FormatError::CodebookPower { bits, power })
            );
        }
        assert!(CodebookFormat::power("refused", 4, f64::NAN).is_err());
        // 127^100 is no f32.
        assert!(matches!(
            CodebookFormat::power("refused", 8, 0.01),
            Err(FormatError::CodebookValue { .. })
        ));
    }
}
