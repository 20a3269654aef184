//! Floats of 2 to 8 bits: a sign, an exponent and a mantissa.

use crate::quantize::rounding::{Overflow, Rounding};
use crate::{ElementFormat, FormatError, FormatRow};

/// Which codes of a [`MinifloatFormat`] are not finite numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpecialValues {
    /// None: every code is a finite number.
    Finite,
    /// The code with all exponent and mantissa bits set, of either sign, is NaN. No infinities.
    Fn,
    /// As in IEEE 754, an exponent of all ones is an infinity where the mantissa is 0, else NaN.
    Ieee,
}

/// A float ExMy of a sign bit, x exponent bits and y mantissa bits; code = sign · 2ˣ⁺ʸ + exponent ·
/// 2ʸ + mantissa.
///
/// With the bias b = 2ˣ⁻¹ − 1, the exponent field e and the mantissa field m, the magnitude is (1 +
/// m / 2ʸ) · 2ᵉ⁻ᵇ, or for e = 0 the subnormal m / 2ʸ · 2¹⁻ᵇ. Zero has both signs.
///
/// x ≥ 1 and x + y ≤ 7; E1M0 is [finite](SpecialValues::Finite) only, since it would be left with
/// nothing but zeros.
///
/// Definitions: OCP Microscaling Formats (MX) 1.0 for E2M1, E2M3, E3M2, E4M3 and E5M2; the others
/// by the same pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MinifloatFormat {
    exponent: u8,
    mantissa: u8,
    special: SpecialValues,
}

/// Mantissa bits, exponent bias, and the bits of the sign and of the infinity of an f32.
const F32_MANTISSA: u32 = 23;
const F32_BIAS: u32 = 127;
const F32_SIGN: u32 = 1 << 31;
const F32_INFINITY: u32 = 0xff << F32_MANTISSA;
/// The leading one of an f32 mantissa, and the smallest normal f32.
const F32_ONE: u32 = 1 << F32_MANTISSA;
/// NaN, with the top mantissa bit set, which makes it quiet.
const F32_NAN: u32 = F32_INFINITY | 1 << (F32_MANTISSA - 1);

impl MinifloatFormat {
    /// The format of `exponent` and `mantissa` bits.
    ///
    /// # Errors
    ///
    /// [`FormatError::Minifloat`] unless `exponent` ≥ 1 and `exponent + mantissa` ≤ 7, and for E1M0
    /// that is not [`SpecialValues::Finite`].
    pub const fn new(
        exponent: u8,
        mantissa: u8,
        special: SpecialValues,
    ) -> Result<Self, FormatError> {
        let only_zeros =
            exponent == 1 && mantissa == 0 && !matches!(special, SpecialValues::Finite);
        if exponent < 1 || exponent > 7 || mantissa > 7 - exponent || only_zeros {
            return Err(FormatError::Minifloat { exponent, mantissa });
        }
        Ok(Self::of(exponent, mantissa, special))
    }

    /// [`MinifloatFormat::new`] for arguments known to be right.
    pub(crate) const fn of(exponent: u8, mantissa: u8, special: SpecialValues) -> Self {
        Self {
            exponent,
            mantissa,
            special,
        }
    }

    /// Exponent bits x, 1 to 7.
    pub const fn exponent_bits(self) -> u8 {
        self.exponent
    }

    /// Mantissa bits y, 0 to 6.
    pub const fn mantissa_bits(self) -> u8 {
        self.mantissa
    }

    /// Which codes are not finite.
    pub const fn special(self) -> SpecialValues {
        self.special
    }

    /// Bits a code takes, 2 to 8.
    pub const fn bits(self) -> u8 {
        1 + self.exponent + self.mantissa
    }

    /// The exponent bias, 2ˣ⁻¹ − 1: 0 to 63.
    pub const fn bias(self) -> u8 {
        (1 << (self.exponent - 1)) - 1
    }

    /// The largest code, 2ⁿ − 1 for n bits. It is negative, and NaN in some formats.
    pub const fn max_code(self) -> u8 {
        self.sign_code() | self.magnitude_mask()
    }

    /// The code of the largest finite number. The finite positive numbers are the codes up to this
    /// one, in order.
    pub const fn max_finite_code(self) -> u8 {
        match self.special {
            SpecialValues::Finite => self.magnitude_mask(),
            SpecialValues::Fn => self.magnitude_mask() - 1,
            SpecialValues::Ieee => self.exponent_mask() - 1,
        }
    }

    /// The code of −0: the sign bit.
    pub const fn sign_code(self) -> u8 {
        1 << (self.exponent + self.mantissa)
    }

    const fn magnitude_mask(self) -> u8 {
        self.sign_code() - 1
    }

    const fn exponent_mask(self) -> u8 {
        self.magnitude_mask() - self.mantissa_mask()
    }

    const fn mantissa_mask(self) -> u8 {
        (1 << self.mantissa) - 1
    }

    /// The NaN that [`encode`](Self::encode) gives: positive and quiet. `None` without NaN.
    pub const fn nan_code(self) -> Option<u8> {
        match self.special {
            SpecialValues::Fn => Some(self.magnitude_mask()),
            SpecialValues::Ieee if self.mantissa > 0 => {
                Some(self.exponent_mask() | 1 << (self.mantissa - 1))
            }
            _ => None,
        }
    }

    /// The positive infinity; `None` without infinities.
    pub const fn infinity_code(self) -> Option<u8> {
        match self.special {
            SpecialValues::Ieee => Some(self.exponent_mask()),
            _ => None,
        }
    }

    /// Whether a code is a finite number. Bits above the format's are ignored.
    pub const fn is_finite(self, code: u8) -> bool {
        code & self.magnitude_mask() <= self.max_finite_code()
    }

    /// Whether a code is NaN. Bits above the format's are ignored.
    pub const fn is_nan(self, code: u8) -> bool {
        match self.infinity_code() {
            Some(infinity) => code & self.magnitude_mask() > infinity,
            None => !self.is_finite(code),
        }
    }

    /// The value of a code, exactly: an f32 holds every minifloat as a normal number. Bits above
    /// the format's are ignored.
    ///
    /// Integer operations throughout, so that nothing depends on how a device treats subnormals.
    pub const fn decode(self, code: u8) -> f32 {
        let magnitude = (code & self.magnitude_mask()) as u32;
        let mantissa = magnitude & self.mantissa_mask() as u32;
        // What the f32 exponent field is above that of the code.
        let rebias = F32_BIAS - self.bias() as u32;
        let bits = if self.is_nan(code) {
            F32_NAN
        } else if !self.is_finite(code) {
            F32_INFINITY
        } else if magnitude > self.mantissa_mask() as u32 {
            (rebias << F32_MANTISSA) + (magnitude << (F32_MANTISSA - self.mantissa as u32))
        } else if mantissa != 0 {
            // Subnormal: the leading one of the mantissa becomes the implicit one of the f32.
            let leading = mantissa.ilog2();
            let exponent = rebias + 1 + leading - self.mantissa as u32;
            (exponent << F32_MANTISSA) + ((mantissa << (F32_MANTISSA - leading)) - F32_ONE)
        } else {
            0
        };
        let sign = if code & self.sign_code() != 0 {
            F32_SIGN
        } else {
            0
        };
        f32::from_bits(sign | bits)
    }

    /// The largest finite number.
    pub const fn max_value(self) -> f32 {
        self.decode(self.max_finite_code())
    }

    /// The smallest normal number, 2¹⁻ᵇ. E1My in [`SpecialValues::Ieee`] has subnormals only, all
    /// below it.
    pub const fn min_normal(self) -> f32 {
        f32::from_bits((F32_BIAS + 1 - self.bias() as u32) << F32_MANTISSA)
    }

    /// The smallest positive subnormal, 2¹⁻ᵇ⁻ʸ; `None` without a mantissa.
    pub const fn min_subnormal(self) -> Option<f32> {
        if self.mantissa == 0 {
            None
        } else {
            Some(self.decode(1))
        }
    }

    /// The code of `value`.
    ///
    /// `value` is rounded as if the exponent had no upper end. What then lies above
    /// [`max_value`](Self::max_value) in magnitude, the infinities included, goes by `overflow`.
    /// The sign stays, that of zeros too. NaN becomes [`nan_code`](Self::nan_code), or 0 where
    /// there is none. Subnormal f32 values, which some devices flush, count as zeros; they are far
    /// below half of any format's smallest positive number.
    ///
    /// `index` is the place of the value in its data; only [`Rounding::Stochastic`] uses it.
    pub fn encode(self, value: f32, rounding: Rounding, overflow: Overflow, index: u64) -> u8 {
        let bits = value.to_bits();
        let magnitude = bits & !F32_SIGN;
        if magnitude > F32_INFINITY {
            return self.nan_code().unwrap_or(0);
        }
        let rounded = self.round_magnitude(magnitude, rounding, index);
        let code = if rounded <= u32::from(self.max_finite_code()) {
            rounded as u8
        } else {
            self.overflow_code(overflow)
        };
        if bits & F32_SIGN != 0 {
            code | self.sign_code()
        } else {
            code
        }
    }

    /// The code of what lies above the largest finite number.
    const fn overflow_code(self, overflow: Overflow) -> u8 {
        match (overflow, self.infinity_code(), self.nan_code()) {
            (Overflow::Special, Some(infinity), _) => infinity,
            (Overflow::Special, None, Some(nan)) => nan,
            _ => self.max_finite_code(),
        }
    }

    /// The code of a magnitude given as f32 bits, had the exponent no upper end.
    fn round_magnitude(self, magnitude: u32, rounding: Rounding, index: u64) -> u32 {
        if magnitude < F32_ONE {
            return 0;
        }
        let shift = F32_MANTISSA - u32::from(self.mantissa);
        let rebias = F32_BIAS - u32::from(self.bias());
        let exponent = magnitude >> F32_MANTISSA;
        if exponent > rebias {
            // Normal: with the biases matched, the f32 bits are the code's and a fraction. A carry
            // out of the mantissa goes into the exponent, where it belongs.
            let rebiased = magnitude - (rebias << F32_MANTISSA);
            rounding.shift_right(rebiased, shift, index)
        } else {
            // Subnormal: units of the smallest subnormal, so a smaller exponent shifts further.
            let significand = (magnitude & (F32_ONE - 1)) | F32_ONE;
            rounding.shift_right(significand, shift + rebias + 1 - exponent, index)
        }
    }

    /// The smallest k such that 2ᵏ · value is an integer from −127 to 127 for every finite code;
    /// `None` without such a k. E2M1: 1; E2M3: 3; E4M3: `None`.
    pub const fn lift(self) -> Option<u32> {
        // The largest finite number in units of the smallest subnormal, 2¹⁻ᵇ⁻ʸ. Numbers without a
        // mantissa are multiples of the same.
        let code = self.max_finite_code() as u32;
        let exponent = code >> self.mantissa;
        let mantissa = code & self.mantissa_mask() as u32;
        let (significand, doublings) = if exponent == 0 {
            (mantissa, 0)
        } else {
            (mantissa + (1 << self.mantissa), exponent - 1)
        };
        let units = (self.bias() + self.mantissa) as u32;
        // The unit of E1M0 is 2, that of E1M1 and E2M0 is 1; all others are fractions.
        let (lift, unit) = if units == 0 { (0, 2) } else { (units - 1, 1) };
        // Seven doublings exceed 127 whatever they start from.
        if doublings < 7 && (significand * unit) << doublings <= 127 {
            Some(lift)
        } else {
            None
        }
    }

    /// The smallest subnormal, which all values are integers times, where kernels can lift the format:
    /// all codes finite, an exponent of 1 or 2 bits or E3M0, and no integer above 127.
    pub(crate) fn lift_unit(self) -> Option<f32> {
        let lifted = self.exponent <= 2 || (self.exponent, self.mantissa) == (3, 0);
        if !matches!(self.special, SpecialValues::Finite) || !lifted {
            return None;
        }
        self.lift()?;
        let exponent = 128 - u32::from(self.bias()) - u32::from(self.mantissa);
        Some(f32::from_bits(exponent << F32_MANTISSA))
    }

    /// The name: `e4m3`, `e2m1`, `e5m2`. E4M3 is [`SpecialValues::Fn`], E5M2
    /// [`SpecialValues::Ieee`] and every other [`SpecialValues::Finite`] by that name; the rest say
    /// which they are at the end, as in `e4m3ieee`, `e4m3finite`, `e2m1fn`.
    pub const fn name(self) -> &'static str {
        let mut row = 0;
        while row < MINIFLOATS.len() {
            let (name, format) = MINIFLOATS[row];
            if format.exponent == self.exponent
                && format.mantissa == self.mantissa
                && format.special as u8 == self.special as u8
            {
                return name;
            }
            row += 1;
        }
        // Unreachable: every format that can be built has a row.
        "minifloat"
    }
}

/// The members of the family.
pub(crate) const ROWS: &[FormatRow] = &{
    const SOURCE: &str = "ExMy floats, OCP Microscaling Formats (MX) 1.0";
    let (name, format) = MINIFLOATS[0];
    let mut rows =
        [FormatRow::new(name, ElementFormat::Minifloat(format), SOURCE); MINIFLOATS.len()];
    let mut row = 0;
    while row < MINIFLOATS.len() {
        let (name, format) = MINIFLOATS[row];
        rows[row] = FormatRow::new(name, ElementFormat::Minifloat(format), SOURCE);
        row += 1;
    }
    rows
};

macro_rules! minifloats {
    ($($constant:ident $name:literal = $exponent:literal $mantissa:literal $special:ident;)*) => {
        impl MinifloatFormat {
            $(
                #[doc = concat!("`", $name, "`, ", stringify!($special), ".")]
                pub const $constant: Self =
                    Self::of($exponent, $mantissa, SpecialValues::$special);
            )*
        }

        /// Every minifloat by name.
        pub(crate) const MINIFLOATS: &[(&str, MinifloatFormat)] =
            &[$(($name, MinifloatFormat::$constant)),*];
    };
}

minifloats! {
    E1M0 "e1m0" = 1 0 Finite;
    E1M1 "e1m1" = 1 1 Finite;
    E1M1_FN "e1m1fn" = 1 1 Fn;
    E1M1_IEEE "e1m1ieee" = 1 1 Ieee;
    E1M2 "e1m2" = 1 2 Finite;
    E1M2_FN "e1m2fn" = 1 2 Fn;
    E1M2_IEEE "e1m2ieee" = 1 2 Ieee;
    E1M3 "e1m3" = 1 3 Finite;
    E1M3_FN "e1m3fn" = 1 3 Fn;
    E1M3_IEEE "e1m3ieee" = 1 3 Ieee;
    E1M4 "e1m4" = 1 4 Finite;
    E1M4_FN "e1m4fn" = 1 4 Fn;
    E1M4_IEEE "e1m4ieee" = 1 4 Ieee;
    E1M5 "e1m5" = 1 5 Finite;
    E1M5_FN "e1m5fn" = 1 5 Fn;
    E1M5_IEEE "e1m5ieee" = 1 5 Ieee;
    E1M6 "e1m6" = 1 6 Finite;
    E1M6_FN "e1m6fn" = 1 6 Fn;
    E1M6_IEEE "e1m6ieee" = 1 6 Ieee;
    E2M0 "e2m0" = 2 0 Finite;
    E2M0_FN "e2m0fn" = 2 0 Fn;
    E2M0_IEEE "e2m0ieee" = 2 0 Ieee;
    E2M1 "e2m1" = 2 1 Finite;
    E2M1_FN "e2m1fn" = 2 1 Fn;
    E2M1_IEEE "e2m1ieee" = 2 1 Ieee;
    E2M2 "e2m2" = 2 2 Finite;
    E2M2_FN "e2m2fn" = 2 2 Fn;
    E2M2_IEEE "e2m2ieee" = 2 2 Ieee;
    E2M3 "e2m3" = 2 3 Finite;
    E2M3_FN "e2m3fn" = 2 3 Fn;
    E2M3_IEEE "e2m3ieee" = 2 3 Ieee;
    E2M4 "e2m4" = 2 4 Finite;
    E2M4_FN "e2m4fn" = 2 4 Fn;
    E2M4_IEEE "e2m4ieee" = 2 4 Ieee;
    E2M5 "e2m5" = 2 5 Finite;
    E2M5_FN "e2m5fn" = 2 5 Fn;
    E2M5_IEEE "e2m5ieee" = 2 5 Ieee;
    E3M0 "e3m0" = 3 0 Finite;
    E3M0_FN "e3m0fn" = 3 0 Fn;
    E3M0_IEEE "e3m0ieee" = 3 0 Ieee;
    E3M1 "e3m1" = 3 1 Finite;
    E3M1_FN "e3m1fn" = 3 1 Fn;
    E3M1_IEEE "e3m1ieee" = 3 1 Ieee;
    E3M2 "e3m2" = 3 2 Finite;
    E3M2_FN "e3m2fn" = 3 2 Fn;
    E3M2_IEEE "e3m2ieee" = 3 2 Ieee;
    E3M3 "e3m3" = 3 3 Finite;
    E3M3_FN "e3m3fn" = 3 3 Fn;
    E3M3_IEEE "e3m3ieee" = 3 3 Ieee;
    E3M4 "e3m4" = 3 4 Finite;
    E3M4_FN "e3m4fn" = 3 4 Fn;
    E3M4_IEEE "e3m4ieee" = 3 4 Ieee;
    E4M0 "e4m0" = 4 0 Finite;
    E4M0_FN "e4m0fn" = 4 0 Fn;
    E4M0_IEEE "e4m0ieee" = 4 0 Ieee;
    E4M1 "e4m1" = 4 1 Finite;
    E4M1_FN "e4m1fn" = 4 1 Fn;
    E4M1_IEEE "e4m1ieee" = 4 1 Ieee;
    E4M2 "e4m2" = 4 2 Finite;
    E4M2_FN "e4m2fn" = 4 2 Fn;
    E4M2_IEEE "e4m2ieee" = 4 2 Ieee;
    E4M3 "e4m3" = 4 3 Fn;
    E4M3_FINITE "e4m3finite" = 4 3 Finite;
    E4M3_IEEE "e4m3ieee" = 4 3 Ieee;
    E5M0 "e5m0" = 5 0 Finite;
    E5M0_FN "e5m0fn" = 5 0 Fn;
    E5M0_IEEE "e5m0ieee" = 5 0 Ieee;
    E5M1 "e5m1" = 5 1 Finite;
    E5M1_FN "e5m1fn" = 5 1 Fn;
    E5M1_IEEE "e5m1ieee" = 5 1 Ieee;
    E5M2 "e5m2" = 5 2 Ieee;
    E5M2_FINITE "e5m2finite" = 5 2 Finite;
    E5M2_FN "e5m2fn" = 5 2 Fn;
    E6M0 "e6m0" = 6 0 Finite;
    E6M0_FN "e6m0fn" = 6 0 Fn;
    E6M0_IEEE "e6m0ieee" = 6 0 Ieee;
    E6M1 "e6m1" = 6 1 Finite;
    E6M1_FN "e6m1fn" = 6 1 Fn;
    E6M1_IEEE "e6m1ieee" = 6 1 Ieee;
    E7M0 "e7m0" = 7 0 Finite;
    E7M0_FN "e7m0fn" = 7 0 Fn;
    E7M0_IEEE "e7m0ieee" = 7 0 Ieee;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::quantize::rounding::random;

    fn nearest(format: MinifloatFormat, value: f32) -> u8 {
        format.encode(value, Rounding::NearestEven, Overflow::Saturate, 0)
    }

    fn nearest_special(format: MinifloatFormat, value: f32) -> u8 {
        format.encode(value, Rounding::NearestEven, Overflow::Special, 0)
    }

    /// The value of a code by the definition, in f64.
    fn defined_value(format: MinifloatFormat, code: u8) -> f64 {
        let (x, y) = (format.exponent_bits(), format.mantissa_bits());
        let field = |from: u8, bits: u8| i32::from(code >> from) & ((1 << bits) - 1);
        let (sign, e, m) = (field(x + y, 1), field(y, x), field(0, y));
        let bias = (1 << (x - 1)) - 1;
        let (all_e, all_m) = ((1 << x) - 1, (1 << y) - 1);
        let fraction = f64::from(m) / f64::from(1 << y);
        let magnitude = match format.special() {
            SpecialValues::Fn if e == all_e && m == all_m => f64::NAN,
            SpecialValues::Ieee if e == all_e && m == 0 => f64::INFINITY,
            SpecialValues::Ieee if e == all_e => f64::NAN,
            _ if e == 0 => fraction * 2_f64.powi(1 - bias),
            _ => (1.0 + fraction) * 2_f64.powi(e - bias),
        };
        if sign == 1 { -magnitude } else { magnitude }
    }

    #[test]
    fn every_code_of_every_format() {
        for &(name, format) in MINIFLOATS {
            assert_eq!(u32::from(format.max_code()), (1 << format.bits()) - 1);
            for code in 0..=format.max_code() {
                let (value, defined) = (format.decode(code), defined_value(format, code));
                assert_eq!(format.is_nan(code), defined.is_nan(), "{name} {code:#x}");
                assert_eq!(
                    format.is_finite(code),
                    defined.is_finite(),
                    "{name} {code:#x}"
                );
                if defined.is_nan() {
                    assert!(value.is_nan());
                } else {
                    assert_eq!(
                        f64::from(value).to_bits(),
                        defined.to_bits(),
                        "{name} {code:#x}"
                    );
                }
                assert!(!value.is_subnormal());
                // Round trip, zeros of both signs included. NaN comes back as the one NaN.
                let back = nearest_special(format, value);
                if value.is_nan() {
                    assert_eq!(Some(back), format.nan_code(), "{name}");
                } else {
                    assert_eq!(back, code, "{name} {value}");
                }
            }
        }
    }

    #[test]
    fn properties_follow_from_the_codes() {
        for &(name, format) in MINIFLOATS {
            let codes = 0..=format.max_code();
            let finite = codes.clone().filter(|&code| format.is_finite(code));
            let values: Vec<f32> = finite.map(|code| format.decode(code)).collect();
            assert_eq!(
                format.max_value(),
                values.iter().copied().fold(0.0, f32::max)
            );
            let smallest = values.iter().copied().filter(|&value| value > 0.0);
            let smallest = smallest.fold(f32::INFINITY, f32::min);
            assert_eq!(
                format.min_subnormal().unwrap_or(format.min_normal()),
                smallest,
                "{name}"
            );
            let bias = i32::from(format.bias());
            assert_eq!(f64::from(format.min_normal()), 2_f64.powi(1 - bias));
            let first =
                |wanted: fn(f32) -> bool| codes.clone().find(|&code| wanted(format.decode(code)));
            assert_eq!(format.infinity_code(), first(f32::is_infinite), "{name}");
            assert_eq!(
                format.nan_code().is_some(),
                first(f32::is_nan).is_some(),
                "{name}"
            );
            if let Some(code) = format.nan_code() {
                assert!(format.decode(code).is_nan(), "{name}");
            }

            let fits = |lift: u32| {
                values.iter().all(|&value| {
                    let lifted = f64::from(value) * 2_f64.powi(lift as i32);
                    lifted.fract() == 0.0 && lifted.abs() <= 127.0
                })
            };
            assert_eq!(format.lift(), (0..80).find(|&lift| fits(lift)), "{name}");
        }
        assert_eq!(MinifloatFormat::E2M1.lift(), Some(1));
        assert_eq!(MinifloatFormat::E2M3.lift(), Some(3));
        assert_eq!(MinifloatFormat::E3M2.lift(), None);
        assert_eq!(MinifloatFormat::E4M3.lift(), None);
    }

    #[test]
    fn all_formats_have_one_row() {
        let mut count = 0;
        for exponent in 0..=255 {
            for mantissa in 0..=255 {
                for special in [
                    SpecialValues::Finite,
                    SpecialValues::Fn,
                    SpecialValues::Ieee,
                ] {
                    match MinifloatFormat::new(exponent, mantissa, special) {
                        Ok(format) => {
                            let rows = MINIFLOATS.iter().filter(|row| row.1 == format);
                            assert_eq!(rows.count(), 1, "{format:?}");
                            count += 1;
                        }
                        Err(error) => {
                            assert_eq!(error, FormatError::Minifloat { exponent, mantissa });
                        }
                    }
                }
            }
        }
        // 28 pairs of three, less the two of E1M0 that are all zeros.
        assert_eq!(count, 82);
        assert_eq!(MINIFLOATS.len(), 82);
    }

    #[test]
    fn names_say_the_format() {
        let names: HashSet<_> = MINIFLOATS.iter().map(|row| row.0).collect();
        assert_eq!(names.len(), MINIFLOATS.len());
        for &(name, format) in MINIFLOATS {
            assert_eq!(format.name(), name);
            let (x, y) = (format.exponent_bits(), format.mantissa_bits());
            let default = match (x, y) {
                (4, 3) => SpecialValues::Fn,
                (5, 2) => SpecialValues::Ieee,
                _ => SpecialValues::Finite,
            };
            let suffix = match format.special() {
                special if special == default => "",
                SpecialValues::Finite => "finite",
                SpecialValues::Fn => "fn",
                SpecialValues::Ieee => "ieee",
            };
            assert_eq!(name, format!("e{x}m{y}{suffix}"));
        }
    }

    #[test]
    fn values_of_the_standard_formats() {
        let positive = |format: MinifloatFormat, count: u8| -> Vec<f32> {
            (0..count).map(|code| format.decode(code)).collect()
        };
        let e2m1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        assert_eq!(positive(MinifloatFormat::E2M1, 8), e2m1);
        assert_eq!(MinifloatFormat::E4M3.max_value(), 448.0);
        assert_eq!(MinifloatFormat::E4M3_IEEE.max_value(), 240.0);
        assert_eq!(MinifloatFormat::E4M3_FINITE.max_value(), 480.0);
        assert_eq!(MinifloatFormat::E5M2.max_value(), 57344.0);
        assert_eq!(MinifloatFormat::E3M2.max_value(), 28.0);
        assert_eq!(MinifloatFormat::E3M2.min_subnormal(), Some(0.0625));
        assert_eq!(MinifloatFormat::E3M2.decode(0b00_1101), 1.25);
        assert_eq!(MinifloatFormat::E2M3.max_value(), 7.5);
        assert_eq!(MinifloatFormat::E2M3.min_subnormal(), Some(0.125));
        assert_eq!(MinifloatFormat::E4M3.nan_code(), Some(0x7f));
        assert_eq!(MinifloatFormat::E5M2.nan_code(), Some(0x7e));
        assert_eq!(MinifloatFormat::E5M2.infinity_code(), Some(0x7c));
        assert_eq!(MinifloatFormat::E2M1.nan_code(), None);
    }

    #[test]
    fn rounds_to_nearest_even() {
        let cases = |format: MinifloatFormat, cases: &[(f32, f32)]| {
            for &(value, expected) in cases {
                let rounded = format.decode(nearest(format, value));
                assert_eq!(rounded, expected, "{} {value}", format.name());
            }
        };
        let power = |exponent| 2_f32.powi(exponent);
        cases(
            MinifloatFormat::E4M3,
            &[
                (0.3, 0.3125),
                (17.0, 16.0),
                (19.0, 20.0),
                (power(-10), 0.0),
                (1.5 * power(-10), power(-9)),
                (448.0, 448.0),
                (1e9, 448.0),
                (f32::INFINITY, 448.0),
                // By way of f16 these would round twice, to 1 and to 1.25.
                (1.062_744_1, 1.125),
                (1.187_377_9, 1.125),
            ],
        );
        cases(
            MinifloatFormat::E5M2,
            &[(0.3, 0.3125), (61439.0, 57344.0), (power(-17), 0.0)],
        );
        cases(
            MinifloatFormat::E3M2,
            &[
                (0.03125, 0.0),
                (0.09375, 0.125),
                (0.3, 0.3125),
                (26.0, 24.0),
                (27.0, 28.0),
                (100.0, 28.0),
            ],
        );
        cases(
            MinifloatFormat::E2M1,
            &[
                (0.25, 0.0),
                (0.75, 1.0),
                (1.25, 1.0),
                (1.75, 2.0),
                (2.5, 2.0),
                (3.5, 4.0),
                (5.0, 4.0),
                (5.01, 6.0),
            ],
        );
        assert_eq!(nearest(MinifloatFormat::E4M3, 0.3), 0x2a);
        assert_eq!(nearest(MinifloatFormat::E4M3, 17.0), 0x58);
        assert_eq!(nearest(MinifloatFormat::E4M3, 19.0), 0x5a);
        assert_eq!(nearest(MinifloatFormat::E4M3, 448.0), 0x7e);
        assert_eq!(nearest(MinifloatFormat::E4M3, -0.0), 0x80);
        assert_eq!(nearest(MinifloatFormat::E4M3, 1.0), 0x38);
        assert_eq!(nearest(MinifloatFormat::E5M2, 0.3), 0x35);
        assert_eq!(nearest(MinifloatFormat::E5M2, 61439.0), 0x7b);
    }

    #[test]
    fn the_edge_of_overflow_follows_the_rounding() {
        let e4m3 = MinifloatFormat::E4M3;
        assert_eq!(nearest_special(e4m3, 464.0), 0x7e);
        assert_eq!(nearest_special(e4m3, 464.0_f32.next_up()), 0x7f);
        assert_eq!(nearest_special(e4m3, -465.0), 0xff);
        let e5m2 = MinifloatFormat::E5M2;
        assert_eq!(nearest_special(e5m2, 61440.0), 0x7c);
        assert_eq!(nearest_special(e5m2, 61440.0_f32.next_down()), 0x7b);
        let special = |value, rounding| e4m3.encode(value, rounding, Overflow::Special, 0);
        assert_eq!(special(464.0, Rounding::HalfAway), 0x7f);
        assert_eq!(special(480.0_f32.next_down(), Rounding::Truncate), 0x7e);
        assert_eq!(special(480.0, Rounding::Truncate), 0x7f);
        // Neither infinity nor NaN to go to.
        assert_eq!(
            nearest_special(MinifloatFormat::E2M1, f32::NEG_INFINITY),
            0xf
        );
        // Infinity, no NaN.
        assert_eq!(nearest_special(MinifloatFormat::E3M0_IEEE, 1e9), 0x7);
    }

    #[test]
    fn special_inputs_of_every_format() {
        let roundings = [
            Rounding::NearestEven,
            Rounding::HalfAway,
            Rounding::Truncate,
            Rounding::Stochastic { seed: 1 },
        ];
        for &(name, format) in MINIFLOATS {
            let sign = format.sign_code();
            let max = format.max_finite_code();
            let top = format.infinity_code().or(format.nan_code()).unwrap_or(max);
            for rounding in roundings {
                for (overflow, top) in [(Overflow::Saturate, max), (Overflow::Special, top)] {
                    let code = |value| format.encode(value, rounding, overflow, 5);
                    assert_eq!(code(f32::INFINITY), top, "{name}");
                    assert_eq!(code(f32::NEG_INFINITY), top | sign, "{name}");
                    assert_eq!(code(f32::MAX), top, "{name}");
                    assert_eq!(code(f32::MIN), top | sign, "{name}");
                    assert_eq!(code(f32::NAN), format.nan_code().unwrap_or(0), "{name}");
                    assert_eq!(code(-f32::NAN), format.nan_code().unwrap_or(0), "{name}");
                    for tiny in [0.0, f32::from_bits(1), f32::MIN_POSITIVE.next_down()] {
                        assert_eq!(code(tiny), 0, "{name}");
                        assert_eq!(code(-tiny), sign, "{name}");
                    }
                }
            }
        }
    }

    /// The mean of many stochastic roundings is the value, within 3 standard deviations.
    #[test]
    fn stochastic_rounding_is_right_on_average() {
        const SEEDS: u32 = 8;
        const INDICES: u64 = 50_000;
        let count = f64::from(SEEDS) * INDICES as f64;
        let e4m3 = MinifloatFormat::E4M3;
        // Between two normal numbers, between two subnormals, and far below the smallest, where
        // the probability is the value over the step. The tenth parts are not ties of anything.
        let step = e4m3.decode(1);
        for (value, below, step) in [
            (1.0 + 0.125 * 0.3, 1.0, 0.125),
            (2.3 * step, 2.0 * step, step),
            (-0.7 * step, 0.0, -step),
            (0.011 * step, 0.0, step),
        ] {
            let fraction = f64::from(value - below) / f64::from(step);
            let mut ups = 0;
            for seed in 0..SEEDS {
                for index in 0..INDICES {
                    let rounding = Rounding::Stochastic { seed };
                    let code = e4m3.encode(value, rounding, Overflow::Saturate, index);
                    let rounded = e4m3.decode(code);
                    assert!(rounded == below || rounded == below + step);
                    ups += u64::from(rounded != below);
                }
            }
            let expected = fraction * count;
            let deviation = (expected * (1.0 - fraction)).sqrt();
            assert!(
                (ups as f64 - expected).abs() < 3.0 * deviation,
                "{value} {ups}"
            );
        }
    }

    /// The seed and the index decide, and nothing else.
    #[test]
    fn stochastic_rounding_repeats() {
        let codes = |seed, first: u64| -> Vec<u8> {
            let rounding = Rounding::Stochastic { seed };
            (first..first + 64)
                .map(|index| {
                    MinifloatFormat::E2M1.encode(1.25, rounding, Overflow::Saturate, index)
                })
                .collect()
        };
        assert_eq!(codes(1, 0), codes(1, 0));
        assert_ne!(codes(1, 0), codes(2, 0));
        assert_ne!(codes(1, 0), codes(1, 1 << 32));
        assert_eq!(codes(1, 0)[10..], codes(1, 10)[..54]);
        for (index, code) in codes(9, 0).into_iter().enumerate() {
            // 1.25 is half way, so the carry is the top random bit.
            let up = random(9, index as u64) >> 31;
            assert_eq!(u32::from(code), 2 + up);
        }
    }
}
