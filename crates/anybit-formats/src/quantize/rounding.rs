//! How a number between two codes becomes one of them. One rule for the host and for shaders: u32
//! arithmetic, and random bits that depend on nothing but a seed and the place of the number.

/// How the bits that a shift drops are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// To the nearest; a tie to the even code.
    #[default]
    NearestEven,
    /// To the nearest; a tie away from zero.
    HalfAway,
    /// Towards zero.
    Truncate,
    /// Away from zero with the probability of the part dropped, as a fraction of a step: right on
    /// average. The same seed and index always give the same result.
    ///
    /// The fraction is taken as an integer of 32 bits, and the number goes up where adding
    /// [`random`]`(seed, index)` carries out of them. Every fraction of up to 32 bits has exactly
    /// its probability; the part below 2⁻³² of a step is dropped first.
    Stochastic {
        /// Which random bits; another for every tensor and every step.
        seed: u32,
    },
}

/// What becomes of numbers beyond the largest finite one after rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The largest finite number of the same sign.
    #[default]
    Saturate,
    /// Infinity, or NaN in formats without infinities, or the largest finite number where there is
    /// no NaN either; always of the same sign.
    Special,
}

impl Rounding {
    /// `value` · 2^−`shift`, rounded. `shift` is at least 1; `index` is the place of the number in
    /// its data.
    pub(crate) fn shift_right(self, value: u32, shift: u32, index: u64) -> u32 {
        let (quotient, fraction) = split(value, shift);
        quotient + u32::from(self.goes_up(quotient, fraction, index))
    }

    /// `value` rounded to an integer, for magnitudes below 2³². `index` is as for
    /// [`shift_right`](Self::shift_right).
    pub(crate) fn round(self, value: f32, index: u64) -> f32 {
        let magnitude = value.abs();
        let quotient = magnitude.floor();
        // Exact: the fraction of an f32 of 1 or more has 23 bits at most; below 2⁻³² it drops to 0.
        let fraction = (f64::from(magnitude - quotient) * 4_294_967_296.0) as u32;
        let up = self.goes_up(quotient as u32, fraction, index);
        (quotient + f32::from(u8::from(up))).copysign(value)
    }

    /// Whether `quotient` + `fraction` · 2⁻³² goes up to the next integer.
    fn goes_up(self, quotient: u32, fraction: u32, index: u64) -> bool {
        const HALF: u32 = 1 << 31;
        match self {
            // An odd quotient goes up on the tie.
            Self::NearestEven => fraction > HALF - (quotient & 1),
            Self::HalfAway => fraction >= HALF,
            Self::Truncate => false,
            Self::Stochastic { seed } => carries(fraction, random(seed, index)),
        }
    }
}

/// The integer part of `value` · 2^−`shift`, and its fraction in units of 2⁻³². `shift` is at least
/// 1; from 33 on the fraction loses its lowest bits.
///
/// No rule misses them: a value shifted by 33 or more is below one half, and not near it.
fn split(value: u32, shift: u32) -> (u32, u32) {
    match shift {
        0..=31 => (value >> shift, value << (32 - shift)),
        32..=63 => (0, value >> (shift - 32)),
        _ => (0, 0),
    }
}

/// Whether `fraction` + `random` needs more than 32 bits: true for `fraction` of the 2³² random
/// numbers.
const fn carries(fraction: u32, random: u32) -> bool {
    fraction > !random
}

/// The PCG hash: a one-to-one map of 32 bits that scatters neighbours. Jarzynski and Olano, Hash
/// Functions for GPU Rendering, JCGT 9(3), 2020.
pub const fn pcg(value: u32) -> u32 {
    let state = value.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// 32 random bits for the number at `index` of a tensor: pcg(pcg(pcg(low) ^ high) ^ seed) with the
/// lower and the upper 32 bits of the index.
///
/// With the seed and the upper half fixed, each of the 2³² results comes up once.
pub const fn random(seed: u32, index: u64) -> u32 {
    pcg(pcg(pcg(index as u32) ^ (index >> 32) as u32) ^ seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcg_known_answers() {
        assert_eq!(pcg(0), 0x07bb_2fe2);
        assert_eq!(pcg(1), 0xa8be_ea3c);
        assert_eq!(pcg(2), 0x7a7e_cc88);
        assert_eq!(pcg(12345), 0xf45e_ad0e);
    }

    /// Fixed for good: results must not change between versions, nor between host and shader.
    #[test]
    fn random_known_answers() {
        assert_eq!(random(0, 0), pcg(pcg(pcg(0))));
        assert_eq!(random(7, 0x0000_0003_0000_0005), pcg(pcg(pcg(5) ^ 3) ^ 7));
        assert_ne!(random(0, 1 << 32), random(0, 0));
        assert_ne!(random(0, 1 << 32), random(1, 0));
    }

    /// Each bit is set half of the time, and agrees half of the time with that of the next index
    /// and of the next seed. 4.5 standard deviations for 96 checks.
    #[test]
    fn random_bits_are_even_and_independent() {
        const COUNT: u32 = 1 << 20;
        let bound = 4.5 * (f64::from(COUNT) / 4.0).sqrt();
        let mut counts = [[0_u32; 32]; 3];
        for index in 0..u64::from(COUNT) {
            let word = random(3, index);
            let others = [0, random(3, index + 1), random(4, index)];
            for (counts, other) in counts.iter_mut().zip(others) {
                for (bit, count) in counts.iter_mut().enumerate() {
                    *count += (word ^ other) >> bit & 1;
                }
            }
        }
        for count in counts.into_iter().flatten() {
            let deviation = f64::from(count) - f64::from(COUNT) / 2.0;
            assert!(deviation.abs() < bound, "{deviation} of {bound}");
        }
    }

    #[test]
    fn ties_and_their_neighbours() {
        let round = |rounding: Rounding, value| rounding.shift_right(value, 4, 0);
        for (value, even, away, truncated) in [
            (0x00, 0, 0, 0),
            (0x07, 0, 0, 0),
            (0x08, 0, 1, 0),
            (0x09, 1, 1, 0),
            (0x17, 1, 1, 1),
            (0x18, 2, 2, 1),
            (0x19, 2, 2, 1),
            (0x1f, 2, 2, 1),
            (0x28, 2, 3, 2),
        ] {
            assert_eq!(round(Rounding::NearestEven, value), even);
            assert_eq!(round(Rounding::HalfAway, value), away);
            assert_eq!(round(Rounding::Truncate, value), truncated);
        }
    }

    /// Every shift, against the same in 128 bits.
    #[test]
    fn every_shift() {
        for shift in 1..=200_u32 {
            for value in [
                0, 1, 2, 3, 0x7f_ffff, 0x80_0000, 0x80_0001, 0xc0_0000, 0xff_ffff,
            ] {
                let wide = u128::from(value) << 64 >> shift.min(120);
                let (quotient, fraction) = ((wide >> 64) as u32, wide as u64);
                let half = 1_u64 << 63;
                assert_eq!(
                    Rounding::NearestEven.shift_right(value, shift, 0),
                    quotient + u32::from(fraction > half || fraction == half && quotient % 2 == 1)
                );
                assert_eq!(
                    Rounding::HalfAway.shift_right(value, shift, 0),
                    quotient + u32::from(fraction >= half)
                );
                assert_eq!(Rounding::Truncate.shift_right(value, shift, 0), quotient);
                assert_eq!(split(value, shift), (quotient, (fraction >> 32) as u32));
            }
        }
    }

    /// 1.005859375 between the bfloat16 numbers 1 and 1.0078125, three quarters of the way.
    #[test]
    fn stochastic_bfloat16() {
        let (quotient, fraction) = split(0x3f80_c000, 16);
        assert_eq!((quotient, fraction), (0x3f80, 0xc000_0000));
        assert!(!carries(fraction, 0x3fff_ffff));
        assert!(carries(fraction, 0x4000_0000));
    }

    #[test]
    fn carries_for_as_many_random_numbers_as_the_fraction() {
        for fraction in [0_u32, 1, 2, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            // The largest `fraction` numbers carry, and no other.
            let first = 0_u32.wrapping_sub(fraction);
            if fraction > 0 {
                assert!(carries(fraction, first) && carries(fraction, u32::MAX));
                assert!(!carries(fraction, first - 1));
            }
            assert!(!carries(fraction, 0));
        }
    }
}
