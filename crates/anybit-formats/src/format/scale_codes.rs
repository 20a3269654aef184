//! Scales that are powers of two: E8M0, the exponent field of an f32 alone.

/// The code of NaN in E8M0.
pub(crate) const E8M0_NAN: u8 = 255;

/// The largest code of a number in E8M0, 2¹²⁷.
pub(crate) const E8M0_MAX: u8 = 254;

/// Mantissa bits of an f32, and its implicit one.
const F32_MANTISSA: u32 = 23;
const F32_ONE: u32 = 1 << F32_MANTISSA;

/// The value of an E8M0 code: 2^(code − 127), or NaN for 255.
///
/// Code 0 is 2⁻¹²⁷, which is subnormal in f32: devices may take it as 0.
pub(crate) const fn e8m0_decode(code: u8) -> f32 {
    f32::from_bits(match code {
        0 => F32_ONE >> 1,
        E8M0_NAN => f32::NAN.to_bits(),
        _ => (code as u32) << F32_MANTISSA,
    })
}

/// The E8M0 code of a power of two near `value`, by `rule`. `value` is as the first argument of
/// [`ScaleRule::e8m0`].
pub(crate) const fn e8m0_encode(value: f32, rule: ScaleRule) -> u8 {
    rule.e8m0(value, 1.0)
}

/// Which power of two scales a block.
///
/// Write a for the largest magnitude of the block and t for the largest of the element format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ScaleRule {
    /// 2^(⌊log₂ a⌋ − ⌊log₂ t⌋). The rule of OCP Microscaling Formats (MX) 1.0. Magnitudes of more
    /// than t times the scale saturate.
    #[default]
    Floor,
    /// The smallest power of two that is at least a / t: nothing saturates.
    Ceil,
    /// The power of two nearest to a / t; from half way between two, the one with the even
    /// exponent.
    Nearest,
}

impl ScaleRule {
    /// The E8M0 code of the scale of a block with the largest magnitude `absmax`, for elements up
    /// to `largest`. From bits only: exact, and the same on every device.
    ///
    /// `absmax` is finite and not negative; zero and f32 subnormals, which some devices flush, give
    /// code 0. `largest` is a positive normal f32. Powers of two outside the range of E8M0 become
    /// its smallest or largest; the result is never 255, NaN.
    pub const fn e8m0(self, absmax: f32, largest: f32) -> u8 {
        let (absmax, largest) = (absmax.to_bits(), largest.to_bits());
        if absmax < F32_ONE {
            return 0;
        }
        // a / t = (a / t of the significands, between 1/2 and 2) · 2^(code − 127).
        let a = (absmax & (F32_ONE - 1)) | F32_ONE;
        let t = (largest & (F32_ONE - 1)) | F32_ONE;
        let code = (absmax >> F32_MANTISSA) as i32 - (largest >> F32_MANTISSA) as i32 + 127;
        let odd = code & 1 == 0; // The exponent: 127 less.
        let step = match self {
            Self::Floor => 0,
            Self::Ceil => (a > t) as i32,
            // The significands' quotient against 3/2 and 3/4, half way to the next powers of two. A
            // tie leaves an odd exponent for an even one.
            Self::Nearest if 2 * a > 3 * t || 2 * a == 3 * t && odd => 1,
            Self::Nearest if 4 * a < 3 * t || 4 * a == 3 * t && odd => -1,
            Self::Nearest => 0,
        };
        let code = code + step;
        if code < 0 {
            0
        } else if code > E8M0_MAX as i32 {
            E8M0_MAX
        } else {
            code as u8
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [ScaleRule; 3] = [ScaleRule::Floor, ScaleRule::Ceil, ScaleRule::Nearest];

    /// The power of two of a code, in f64, where none is subnormal.
    fn power(code: i32) -> f64 {
        f64::from_bits(((code - 127 + 1023) as u64) << 52)
    }

    #[test]
    fn codes_are_powers_of_two() {
        for code in 0..=E8M0_MAX {
            assert_eq!(f64::from(e8m0_decode(code)), power(i32::from(code)));
        }
        assert!(e8m0_decode(E8M0_NAN).is_nan());
        assert_eq!(e8m0_decode(127), 1.0);
        assert_eq!(e8m0_decode(0), f32::MIN_POSITIVE / 2.0);
    }

    /// The table is ml_dtypes' own; `tests/minifloat.rs` says more.
    #[test]
    fn decodes_as_ml_dtypes() {
        let table = include_str!("../../tests/data/minifloat/decode.csv");
        let mut count = 0;
        for row in table.lines().filter_map(|line| line.strip_prefix("e8m0,")) {
            let (code, bits) = row.split_once(',').unwrap();
            let code = u8::from_str_radix(code, 16).unwrap();
            let value = f32::from_bits(u32::from_str_radix(bits, 16).unwrap());
            if value.is_nan() {
                assert_eq!(code, E8M0_NAN);
            } else {
                assert_eq!(e8m0_decode(code), value);
            }
            count += 1;
        }
        assert_eq!(count, 256);
    }

    #[test]
    fn powers_of_two_encode_back() {
        for code in 1..=E8M0_MAX {
            for rule in RULES {
                assert_eq!(e8m0_encode(e8m0_decode(code), rule), code, "{rule:?}");
            }
        }
    }

    #[test]
    fn zeros_and_subnormals_are_code_0() {
        for rule in RULES {
            for value in [0.0, f32::from_bits(1), f32::MIN_POSITIVE.next_down()] {
                assert_eq!(e8m0_encode(value, rule), 0);
                assert_eq!(rule.e8m0(value, 6.0), 0);
            }
        }
    }

    #[test]
    fn exponents_out_of_range_clamp() {
        for rule in RULES {
            assert_eq!(rule.e8m0(f32::MIN_POSITIVE, 448.0), 0);
            assert_eq!(rule.e8m0(f32::MAX, f32::MIN_POSITIVE), E8M0_MAX);
        }
        assert_eq!(ScaleRule::Ceil.e8m0(f32::MAX, 1.0), E8M0_MAX);
        assert_eq!(ScaleRule::Nearest.e8m0(f32::MAX, 1.0), E8M0_MAX);
    }

    #[test]
    fn ties_go_to_the_even_exponent() {
        let nearest = |value| i32::from(e8m0_encode(value, ScaleRule::Nearest)) - 127;
        assert_eq!(nearest(0.375), -2);
        assert_eq!(nearest(0.75), 0);
        assert_eq!(nearest(1.5), 0);
        assert_eq!(nearest(3.0), 2);
        assert_eq!(nearest(6.0), 2);
        for (value, exponent) in [(1.5_f32, 0), (3.0, 1), (6.0, 2)] {
            assert_eq!(nearest(value.next_down()), exponent);
            assert_eq!(nearest(value.next_up()), exponent + 1);
        }
        // 9 / 6 and 4.5 / 6: from a quotient above one and from one below.
        assert_eq!(ScaleRule::Nearest.e8m0(9.0, 6.0), 127);
        assert_eq!(ScaleRule::Nearest.e8m0(4.5, 6.0), 127);
        assert_eq!(ScaleRule::Nearest.e8m0(18.0, 6.0), 129);
        assert_eq!(ScaleRule::Nearest.e8m0(2.25, 6.0), 125);
    }

    /// The definitions in f64, for every E8M0 code in turn. The products are exact.
    #[test]
    fn every_rule_as_defined() {
        let scalable = [
            57344.0, 448.0, 28.0, 7.5, 6.0, 127.0, 1.0, 1.984_375, 0.3, 1e10_f32,
        ];
        let mut bits = F32_ONE;
        while bits < f32::INFINITY.to_bits() {
            // Few mantissas many times, so that equalities and ties come up.
            for absmax in [bits, bits & 0x7fff_0000, bits & 0x7fe0_0000] {
                let absmax = f32::from_bits(absmax.max(F32_ONE));
                let a = f64::from(absmax);
                for largest in scalable {
                    let t = f64::from(largest);
                    let floor = a.log2().floor() as i32 - t.log2().floor() as i32 + 127;
                    let code = |rule: ScaleRule| i32::from(rule.e8m0(absmax, largest));
                    let floor_power = power(absmax.to_bits() as i32 >> F32_MANTISSA);
                    assert!(floor_power <= a && a < 2.0 * floor_power);
                    // log2 in f64 is exact enough but just below a power of two.
                    if a / floor_power < 1.999_999 {
                        assert_eq!(code(ScaleRule::Floor), floor.clamp(0, 254));
                    }

                    let ceil = code(ScaleRule::Ceil);
                    assert!(ceil == 254 || power(ceil) * t >= a);
                    assert!(ceil == 0 || power(ceil - 1) * t < a);

                    let nearest = code(ScaleRule::Nearest);
                    let even = (nearest - 127) & 1 == 0;
                    // Against half way to either neighbour.
                    let (down, up) = (0.75 * power(nearest) * t, 1.5 * power(nearest) * t);
                    assert!(nearest == 0 || a > down || a == down && even);
                    assert!(nearest == 254 || a < up || a == up && even);
                }
            }
            bits += 0x0002_3457;
        }
    }

    /// The block [7.9, −3, 0.3, 1.25] in the MX formats.
    #[test]
    fn block_of_the_standard_formats() {
        assert_eq!(ScaleRule::Floor.e8m0(7.9, 6.0), 0x7f);
        assert_eq!(ScaleRule::Floor.e8m0(7.9, 28.0), 0x7d);
        assert_eq!(ScaleRule::Floor.e8m0(7.9, 7.5), 0x7f);
        assert_eq!(ScaleRule::Floor.e8m0(7.9, 448.0), 0x79);
        assert_eq!(ScaleRule::Floor.e8m0(7.9, 127.0 / 64.0), 0x81);
        assert_eq!(ScaleRule::Ceil.e8m0(7.9, 6.0), 0x80);
    }
}
