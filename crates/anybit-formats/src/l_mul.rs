//! L-Mul: multiplication emulated by one addition of integers.
//!
//! Definition: Luo and Sun, "Addition is All You Need for Energy-efficient Language Models", arXiv:2410.00907. Two floats
//! (1 + x)·2ᵃ and (1 + y)·2ᵇ have the L-Mul product
//!
//! > (1 + x + y + 2⁻ˡ⁽ᵐ⁾)·2ᵃ⁺ᵇ, with l(m) = m for m ≤ 3, 3 for m = 4 and 4 above,
//!
//! m being the bits of the mantissas. 2⁻ˡ stands for the x·y that is left out, so 1 · 1 is not 1. It saves hardware
//! energy; on a GPU it is an emulation, and slower than a multiplication.

use std::fmt;

use crate::{ElementFormat, FloatFormat, FormatError, MinifloatFormat};

/// Bits of the mantissa of an f32, its exponent bias in place, its sign, and the bits of infinity.
const MANTISSA: u32 = 23;
const ONE: u32 = 127 << MANTISSA;
const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0xff << MANTISSA;
/// The mantissa's 1, which is also the smallest normal magnitude; the largest finite one; the NaN of products without a
/// value.
const UNIT: u32 = 1 << MANTISSA;
const LARGEST: u32 = INFINITY - 1;
const NAN: u32 = INFINITY | 1 << (MANTISSA - 1);

/// How the definition is read where the mantissas and their offset add up to 1 or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LMulReading {
    /// The carry goes into the exponent, as in one addition of the words: 1.75 · 1.75 is 3.125. What the paper's hardware
    /// does, and the more exact one: off by 0.4 % on average and 3.1 % in the root mean square for l = 4 and uniform
    /// mantissas.
    #[default]
    Bits,
    /// The formula as written: 1.75 · 1.75 is 2.5625, rounded to nearest even where 23 bits of mantissa do not hold it.
    /// Off by −6.4 % on average and 9.6 % in the root mean square.
    Formula,
}

/// An L-Mul multiplier: the mantissa bits that it keeps of its operands, and the reading.
///
/// Its rules are of bits alone, and the same on the host and in shaders:
///
/// - Operands are [rounded](Self::round) to the mantissa bits first, subnormal ones to 0.
/// - A product with 0, and one below the smallest normal f32, is 0; one beyond the largest finite f32 is that. Signs
///   multiply, also those of zeros.
/// - L-Mul has neither infinities nor NaN: an operand that is one gives NaN, `0x7fc00000`.
///
/// ```
/// use anybit_formats::LMul;
///
/// # fn main() -> Result<(), anybit_formats::FormatError> {
/// let l_mul = LMul::new(23)?;
/// assert_eq!(l_mul.product(1.5, 1.25), 1.8125);
/// assert_eq!(l_mul.product(1.0, 1.0), 1.0625);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LMul {
    mantissa_bits: u8,
    reading: LMulReading,
}

impl LMul {
    /// All 23 bits of an f32 mantissa; l = 4.
    pub const F32: Self = Self {
        mantissa_bits: MANTISSA as u8,
        reading: LMulReading::Bits,
    };

    /// A multiplier of operands of so many mantissa bits, 1 to 23, in the [bits](LMulReading::Bits) reading.
    ///
    /// # Errors
    ///
    /// [`FormatError::LMulMantissa`] for other numbers of bits.
    pub const fn new(mantissa_bits: u8) -> Result<Self, FormatError> {
        if mantissa_bits < 1 || mantissa_bits as u32 > MANTISSA {
            return Err(FormatError::LMulMantissa {
                bits: mantissa_bits,
            });
        }
        Ok(Self {
            mantissa_bits,
            reading: LMulReading::Bits,
        })
    }

    /// The multiplier for two elements: of the fewer mantissa bits of the two. f32 has 23, f16 10, bf16 7 and ExMy y;
    /// integers, codebooks and floats without a mantissa are taken as the f32 values that they stand for.
    pub fn of(x: ElementFormat, y: ElementFormat) -> Self {
        let bits = |element| match element {
            ElementFormat::Float(FloatFormat::F16) => 10,
            ElementFormat::Float(FloatFormat::Bf16) => 7,
            ElementFormat::Minifloat(minifloat) if minifloat.mantissa_bits() > 0 => {
                minifloat.mantissa_bits()
            }
            _ => Self::F32.mantissa_bits,
        };
        Self {
            mantissa_bits: bits(x).min(bits(y)),
            reading: LMulReading::Bits,
        }
    }

    /// The same in another reading.
    #[must_use]
    pub const fn with_reading(self, reading: LMulReading) -> Self {
        Self { reading, ..self }
    }

    /// The mantissa bits of the operands, m.
    pub const fn mantissa_bits(self) -> u8 {
        self.mantissa_bits
    }

    /// How the definition is read.
    pub const fn reading(self) -> LMulReading {
        self.reading
    }

    /// l(m): the product's offset is 2⁻ˡ.
    pub const fn offset_exponent(self) -> u8 {
        offset_exponent(self.mantissa_bits)
    }

    /// An operand as it is multiplied: to the nearest of m mantissa bits, a tie to the even one, and no further than the
    /// largest finite of them. Subnormals become 0 of their sign; infinities and NaN stay as they are.
    pub const fn round(self, value: f32) -> f32 {
        f32::from_bits(self.round_bits(value.to_bits()))
    }

    const fn round_bits(self, bits: u32) -> u32 {
        let (sign, magnitude) = (bits & SIGN, bits & !SIGN);
        if magnitude >= INFINITY {
            return bits;
        }
        if magnitude < UNIT {
            return sign;
        }
        let dropped = MANTISSA - self.mantissa_bits as u32;
        if dropped == 0 {
            return bits;
        }
        let step = 1 << dropped;
        let odd = magnitude >> dropped & 1;
        let rounded = (magnitude + odd + (step >> 1) - 1) & !(step - 1);
        let largest = INFINITY - step;
        sign | if rounded < INFINITY { rounded } else { largest }
    }

    /// The L-Mul product of two f32.
    pub const fn product(self, x: f32, y: f32) -> f32 {
        f32::from_bits(self.product_bits(x.to_bits(), y.to_bits()))
    }

    /// [`product`](Self::product) on the bits of f32.
    pub const fn product_bits(self, x: u32, y: u32) -> u32 {
        let (x, y) = (self.round_bits(x), self.round_bits(y));
        let offset = UNIT >> self.offset_exponent();
        multiply(x, y, offset, self.reading)
    }
}

/// l(m).
const fn offset_exponent(mantissa_bits: u8) -> u8 {
    match mantissa_bits {
        0..=3 => mantissa_bits,
        4 => 3,
        _ => 4,
    }
}

/// The product of rounded operands with an offset of so many units of the last place.
const fn multiply(x: u32, y: u32, offset: u32, reading: LMulReading) -> u32 {
    let sign = (x ^ y) & SIGN;
    let (x, y) = (x & !SIGN, y & !SIGN);
    if x >= INFINITY || y >= INFINITY {
        return NAN;
    }
    if x == 0 || y == 0 {
        return sign;
    }
    // The product's bits, still with twice the bias: below 2·2³¹, so it cannot wrap.
    let biased = match reading {
        LMulReading::Bits => x + y + offset,
        LMulReading::Formula => {
            let mask = UNIT - 1;
            let significand = UNIT + (x & mask) + (y & mask) + offset;
            let exponents = (x & INFINITY) + (y & INFINITY);
            if significand < 2 * UNIT {
                exponents + (significand - UNIT)
            } else {
                // One place to the right, to nearest even; below 1.75, so it does not carry again.
                let halved = (significand + (significand >> 1 & 1)) >> 1;
                exponents + halved
            }
        }
    };
    if biased < ONE + UNIT {
        sign
    } else if biased > ONE + LARGEST {
        sign | LARGEST
    } else {
        sign | (biased - ONE)
    }
}

impl fmt::Display for LMul {
    /// As in kernel ids: `m3`, `m3_formula`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "m{}", self.mantissa_bits)?;
        match self.reading {
            LMulReading::Bits => Ok(()),
            LMulReading::Formula => formatter.write_str("_formula"),
        }
    }
}

impl MinifloatFormat {
    /// The [L-Mul](LMul) product of two codes as a code, in the [bits](LMulReading::Bits) reading: one addition of codes, with
    /// the format's own mantissa bits. `None` for a format without a mantissa.
    ///
    /// As for f32: codes of subnormals count as 0, products below the smallest normal number are 0, products beyond the
    /// largest finite one are that, and an infinity or NaN gives NaN. Bits above the format's are ignored.
    pub const fn l_mul(self, a: u8, b: u8) -> Option<u8> {
        let mantissa = self.mantissa_bits();
        if mantissa == 0 {
            return None;
        }
        let sign = (a ^ b) & self.sign_code();
        let magnitude = self.sign_code() - 1;
        if !self.is_finite(a) || !self.is_finite(b) {
            // A format with codes that are not finite and a mantissa has a NaN.
            return self.nan_code();
        }
        let (a, b) = ((a & magnitude) as u32, (b & magnitude) as u32);
        let smallest = 1_u32 << mantissa;
        if a < smallest || b < smallest {
            return Some(sign);
        }
        let offset = smallest >> offset_exponent(mantissa);
        let biased = a + b + offset;
        let one = (self.bias() as u32) << mantissa;
        let largest = self.max_finite_code() as u32;
        Some(if biased < one + smallest {
            sign
        } else if biased > one + largest {
            sign | largest as u8
        } else {
            sign | (biased - one) as u8
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Overflow, Rounding};

    const FULL: LMul = LMul::F32;

    fn keeping(bits: u8) -> LMul {
        LMul::new(bits).expect("1 to 23 bits")
    }

    /// The definition in f64, for finite operands that are no subnormals: exact, but for the last bit of the formula.
    fn defined(x: f32, y: f32, l: u8, reading: LMulReading) -> f64 {
        let split = |value: f32| {
            let exponent = (value.to_bits() >> 23 & 0xff) as i32 - 127;
            (
                f64::from(value.abs()) / 2_f64.powi(exponent) - 1.0,
                exponent,
            )
        };
        let ((x_mantissa, x_exponent), (y_mantissa, y_exponent)) = (split(x), split(y));
        let mut sum = x_mantissa + y_mantissa + 0.5_f64.powi(l.into());
        let mut exponent = x_exponent + y_exponent;
        if reading == LMulReading::Bits {
            while sum >= 1.0 {
                sum -= 1.0;
                exponent += 1;
            }
        }
        (1.0 + sum) * 2_f64.powi(exponent) * f64::from(x.signum() * y.signum())
    }

    /// SplitMix64.
    struct Random(u64);

    impl Random {
        fn bits(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    #[test]
    fn products_of_the_literature() {
        let cases = [
            (1.5, 1.25, 0x3fe8_0000),
            (1.0, 1.0, 0x3f88_0000),
            (-3.0, 2.5, 0xc0e8_0000),
            (0.1, 0.2, 0x3ca1_999a),
            (1.75, 1.75, 0x4048_0000),
        ];
        for (x, y, bits) in cases {
            assert_eq!(FULL.product(x, y).to_bits(), bits, "{x} · {y}");
            assert_eq!(FULL.product(y, x).to_bits(), bits, "{y} · {x}");
        }
        let formula = FULL.with_reading(LMulReading::Formula);
        assert_eq!(formula.product(1.75, 1.75), 2.5625);
        assert_eq!(formula.product(1.5, 1.25), 1.8125);
    }

    #[test]
    fn products_of_e4m3_codes() {
        let e4m3 = MinifloatFormat::E4M3;
        let code = |value| e4m3.encode(value, Rounding::NearestEven, Overflow::Saturate, 0);
        assert_eq!(e4m3.l_mul(0x3c, 0x3a), Some(0x3f));
        assert_eq!(e4m3.l_mul(code(2.5), code(-3.0)), Some(0xcf));
        assert_eq!(e4m3.l_mul(0x7e, 0x7e), Some(0x7e));
        assert_eq!(e4m3.l_mul(0x7f, 0x38), Some(0x7f));
        assert_eq!(e4m3.l_mul(0x80, 0x38), Some(0x80));
        // All pairs against the definition of f32 with three mantissa bits, in the range of the code.
        let l_mul = LMul::of(ElementFormat::E4M3, ElementFormat::E4M3);
        assert_eq!((l_mul.mantissa_bits(), l_mul.offset_exponent()), (3, 3));
        let (mut inside, mut small, mut large) = (0, 0, 0);
        for a in 0..=u8::MAX {
            for b in 0..=u8::MAX {
                let found = e4m3.l_mul(a, b).expect("a mantissa");
                let (x, y) = (e4m3.decode(a), e4m3.decode(b));
                if x.is_nan() || y.is_nan() {
                    assert_eq!(found, 0x7f, "{a:#x} · {b:#x}");
                    continue;
                }
                let sign = (a ^ b) & 0x80;
                let subnormal = a & 0x7f < 8 || b & 0x7f < 8;
                let product = if subnormal {
                    0.0
                } else {
                    defined(x, y, 3, LMulReading::Bits)
                };
                let expected = if product.abs() < 0.015_625 {
                    small += 1;
                    sign
                } else if product.abs() > 448.0 {
                    large += 1;
                    sign | 0x7e
                } else {
                    inside += 1;
                    assert_eq!(f64::from(l_mul.product(x, y)), product);
                    assert_eq!(f64::from(e4m3.decode(found)), product, "{a:#x} · {b:#x}");
                    code(product as f32)
                };
                assert_eq!(found, expected, "{a:#x} · {b:#x}: {x} · {y}");
            }
        }
        assert!(
            inside > 30_000 && small > 10_000 && large > 5_000,
            "{inside} {small} {large}"
        );
    }

    #[test]
    fn codes_of_every_minifloat_are_products_of_f32() {
        let mut formats = 0;
        for row in crate::FORMATS {
            let ElementFormat::Minifloat(format) = row.element else {
                continue;
            };
            if format.mantissa_bits() == 0 {
                assert_eq!(format.l_mul(0, 0), None);
                continue;
            }
            formats += 1;
            let l_mul = LMul::of(row.element, row.element);
            for a in 0..=format.max_code() {
                for b in 0..=format.max_code() {
                    let found = format.decode(format.l_mul(a, b).expect("a mantissa"));
                    let flush = |code: u8| {
                        let value = format.decode(code);
                        if value.abs() < format.min_normal() {
                            0.0_f32.copysign(value)
                        } else {
                            value
                        }
                    };
                    let product = l_mul.product(flush(a), flush(b));
                    if product.is_nan() {
                        assert!(found.is_nan());
                        continue;
                    }
                    let expected = if product.abs() < format.min_normal() {
                        0.0_f32.copysign(product)
                    } else {
                        product.abs().min(format.max_value()).copysign(product)
                    };
                    assert_eq!(
                        found.to_bits(),
                        expected.to_bits(),
                        "{} {a} · {b}",
                        row.element
                    );
                }
            }
        }
        assert!(formats > 10, "{formats}");
    }

    /// Against the definition in f64: random words of all sizes, and mantissas of all kinds of carries.
    #[test]
    fn products_are_as_defined() {
        let mut random = Random(7);
        let (mut normal, mut zero, mut saturated) = (0, 0, 0);
        for index in 0..400_000 {
            let bits = random.bits();
            let [mut x, mut y] = [bits as u32, (bits >> 32) as u32];
            if index % 2 == 0 {
                // Exponents near 0, so that most products are in range.
                [x, y] = [x, y].map(|word| (word & 0x83ff_ffff) | 0x3c00_0000);
            }
            let l_mul = keeping((index % 23 + 1) as u8);
            for reading in [LMulReading::Bits, LMulReading::Formula] {
                let l_mul = l_mul.with_reading(reading);
                let found = f32::from_bits(l_mul.product_bits(x, y));
                let (x, y) = (f32::from_bits(x), f32::from_bits(y));
                if !x.is_finite() || !y.is_finite() {
                    assert_eq!(found.to_bits(), NAN);
                    continue;
                }
                let (x, y) = (l_mul.round(x), l_mul.round(y));
                let sign = x.signum() * y.signum();
                assert_eq!(found.signum(), sign, "{x:e} · {y:e}");
                if x == 0.0 || y == 0.0 {
                    assert_eq!(found, 0.0);
                    continue;
                }
                let exact = defined(x, y, l_mul.offset_exponent(), reading);
                let expected = if exact.abs() < f64::from(f32::MIN_POSITIVE) {
                    zero += 1;
                    0.0
                } else {
                    // Rounded to nearest even, which is exact for the bits reading.
                    let rounded = exact as f32;
                    if reading == LMulReading::Bits {
                        assert!(rounded.is_infinite() || f64::from(rounded) == exact);
                    }
                    if rounded.is_infinite() {
                        saturated += 1;
                        f32::MAX.copysign(rounded)
                    } else {
                        normal += 1;
                        rounded
                    }
                };
                assert_eq!(found.abs(), expected.abs(), "{l_mul} {x:e} · {y:e}");
            }
        }
        assert!(
            normal > 400_000 && zero > 10_000 && saturated > 10_000,
            "{normal} {zero} {saturated}"
        );
    }

    #[test]
    fn operands_round_to_nearest_even() {
        let three = keeping(3);
        let cases = [
            (1.0625, 1.0),
            (1.062_500_1, 1.125),
            (1.1875, 1.25),
            (-1.95, -2.0),
            (f32::MAX, 1.875 * 2_f32.powi(127)),
            (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
            (f32::MIN_POSITIVE / 2.0, 0.0),
            (f32::INFINITY, f32::INFINITY),
        ];
        for (value, expected) in cases {
            assert_eq!(
                three.round(value).to_bits(),
                f32::to_bits(expected),
                "{value:e}"
            );
        }
        assert!(three.round(f32::NAN).is_nan());
        assert_eq!(three.round(-1e-40).to_bits(), SIGN);
        assert_eq!(FULL.round(0.1), 0.1);
        assert_eq!(FULL.round(f32::MAX), f32::MAX);
        // Twice is once, and nothing is nearer than half a step.
        let mut random = Random(11);
        for index in 0..100_000 {
            let l_mul = keeping((index % 23 + 1) as u8);
            let value = f32::from_bits(random.bits() as u32 & 0xbfff_ffff);
            let rounded = l_mul.round(value);
            assert_eq!(l_mul.round(rounded).to_bits(), rounded.to_bits());
            if value.abs() >= f32::MIN_POSITIVE {
                let step = 2_f64.powi((value.to_bits() >> 23 & 0xff) as i32 - 127)
                    / 2_f64.powi(l_mul.mantissa_bits().into());
                assert!(
                    (f64::from(rounded) - f64::from(value)).abs() <= step / 2.0,
                    "{value:e}"
                );
            }
        }
    }

    #[test]
    fn special_operands_have_no_product() {
        for reading in [LMulReading::Bits, LMulReading::Formula] {
            for special in [
                f32::INFINITY,
                f32::NEG_INFINITY,
                f32::NAN,
                f32::from_bits(0xff80_0001),
            ] {
                for other in [0.0, 1.0, -2.0, f32::MAX, 1e-40, f32::INFINITY, f32::NAN] {
                    let l_mul = keeping(4).with_reading(reading);
                    assert_eq!(l_mul.product(special, other).to_bits(), NAN);
                    assert_eq!(l_mul.product(other, special).to_bits(), NAN);
                }
            }
            let l_mul = FULL.with_reading(reading);
            assert_eq!(l_mul.product(f32::MAX, -f32::MAX), -f32::MAX);
            assert_eq!(l_mul.product(f32::MIN_POSITIVE, -0.5).to_bits(), SIGN);
            assert_eq!(l_mul.product(-1e-40, -1e30).to_bits(), 0);
        }
    }

    /// Relative errors for mantissas of a grid of the middles of 512 steps, as mean and root mean square, in tenths of a
    /// per cent.
    fn errors(l: u8, reading: LMulReading) -> (i32, i32) {
        let mantissas = (0..512).map(|i| ONE | (2 * i + 1) << (MANTISSA - 10));
        let (mut sum, mut squares) = (0.0, 0.0);
        for x in mantissas.clone() {
            for y in mantissas.clone() {
                let found = f64::from(f32::from_bits(multiply(x, y, UNIT >> l, reading)));
                let exact = f64::from(f32::from_bits(x)) * f64::from(f32::from_bits(y));
                let error = found / exact - 1.0;
                sum += error;
                squares += error * error;
            }
        }
        let tenths = |value: f64| (1000.0 * value).round() as i32;
        (
            tenths(sum / 262_144.0),
            tenths((squares / 262_144.0).sqrt()),
        )
    }

    #[test]
    fn errors_are_those_of_uniform_mantissas() {
        assert_eq!(errors(4, LMulReading::Bits), (4, 31));
        assert_eq!(errors(4, LMulReading::Formula), (-64, 96));
        // 4.85 %, to be precise.
        assert_eq!(errors(3, LMulReading::Bits), (49, 58));
    }

    #[test]
    fn multipliers_follow_the_formats() {
        let bits = |x: &str, y: &str| {
            let element = |name: &str| name.parse::<ElementFormat>().expect("a format");
            LMul::of(element(x), element(y)).mantissa_bits()
        };
        assert_eq!(bits("f32", "f32"), 23);
        assert_eq!(bits("f16", "bf16"), 7);
        assert_eq!(bits("bf16", "e5m2"), 2);
        assert_eq!(bits("f16", "int4"), 10);
        assert_eq!(bits("nf4", "e3m0"), 23);
        let exponents = (1..=23).map(|bits| keeping(bits).offset_exponent());
        assert!(exponents.eq([1, 2, 3, 3].into_iter().chain([4; 19])));
        assert_eq!(LMul::new(0), Err(FormatError::LMulMantissa { bits: 0 }));
        assert_eq!(LMul::new(24), Err(FormatError::LMulMantissa { bits: 24 }));
        assert_eq!(keeping(3).to_string(), "m3");
        assert_eq!(
            keeping(10).with_reading(LMulReading::Formula).to_string(),
            "m10_formula"
        );
    }
}
