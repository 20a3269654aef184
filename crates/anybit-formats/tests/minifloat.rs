//! Minifloats: bit for bit with ml_dtypes over all of f32, against a plain search in f64 in every
//! rounding mode, and in the blocks of the standards. `data/make_minifloat.py` wrote the tables.

mod support;

use anybit_formats::quantize::rounding::random;
use anybit_formats::{MinifloatFormat, Overflow, Rounding, ScaleRule, SpecialValues};
use support::Random;

const DECODE: &str = include_str!("data/minifloat/decode.csv");
const ENCODE: &str = include_str!("data/minifloat/encode.csv");

/// The formats that ml_dtypes has, by the names in its tables.
const GOLDEN: [(&str, MinifloatFormat); 7] = [
    ("e4m3", MinifloatFormat::E4M3),
    ("e4m3ieee", MinifloatFormat::E4M3_IEEE),
    ("e3m4ieee", MinifloatFormat::E3M4_IEEE),
    ("e5m2", MinifloatFormat::E5M2),
    ("e3m2", MinifloatFormat::E3M2),
    ("e2m3", MinifloatFormat::E2M3),
    ("e2m1", MinifloatFormat::E2M1),
];

const F32_SIGN: u32 = 1 << 31;

/// The value of an E8M0 code, where it is normal.
fn power_of_two(code: u8) -> f32 {
    f32::from_bits(u32::from(code) << 23)
}

/// Every format there is.
fn formats() -> Vec<MinifloatFormat> {
    let mut formats = Vec::new();
    for exponent in 1..=7 {
        for mantissa in 0..=7 {
            for special in [
                SpecialValues::Finite,
                SpecialValues::Fn,
                SpecialValues::Ieee,
            ] {
                formats.extend(MinifloatFormat::new(exponent, mantissa, special));
            }
        }
    }
    assert_eq!(formats.len(), 82);
    formats
}

/// The two hexadecimal columns of a format's rows.
fn rows(table: &str, format: &str) -> Vec<(u32, u32)> {
    let number = |text: &str| u32::from_str_radix(text, 16).unwrap();
    table
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>())
        .filter(|columns| columns[0] == format)
        .map(|columns| (number(columns[1]), number(columns[2])))
        .collect()
}

/// `(first, last, code)` of every run of f32 bit patterns that ml_dtypes casts to one code.
fn runs(format: &str) -> Vec<(u32, u32, u8)> {
    let rows = rows(ENCODE, format);
    let ends = rows[1..].iter().map(|row| row.0 - 1).chain([u32::MAX]);
    let ends: Vec<u32> = ends.collect();
    rows.iter()
        .zip(ends)
        .map(|(&(first, code), last)| (first, last, code as u8))
        .collect()
}

/// Bit patterns of a run: its ends, their neighbours, and some between.
fn samples(first: u32, last: u32, random: &mut Random) -> Vec<u32> {
    let length = u64::from(last - first) + 1;
    let mut samples = vec![first, last];
    samples.extend([
        first.saturating_add(1).min(last),
        last.saturating_sub(1).max(first),
    ]);
    samples.extend((0..1000).map(|_| first + random.below(length) as u32));
    samples
}

#[test]
fn decodes_as_ml_dtypes() {
    for (name, format) in GOLDEN {
        let rows = rows(DECODE, name);
        assert_eq!(rows.len(), 1 << format.bits(), "{name}");
        for (code, bits) in rows {
            let value = format.decode(code as u8);
            if f32::from_bits(bits).is_nan() {
                assert!(value.is_nan(), "{name} {code:#x}");
            } else {
                assert_eq!(value.to_bits(), bits, "{name} {code:#x}");
            }
        }
    }
}

/// Where ml_dtypes saturates, we do under both policies; where it does not, only under
/// [`Overflow::Special`]. Its NaN of formats without one is −0, ours is 0.
#[test]
fn encodes_as_ml_dtypes() {
    let mut random = Random(1);
    for (name, format) in GOLDEN {
        let runs = runs(name);
        assert!(
            runs.len() >= 2 * usize::from(format.max_finite_code()),
            "{name}"
        );
        for (first, last, expected) in runs {
            for bits in samples(first, last, &mut random) {
                let value = f32::from_bits(bits);
                let code = |overflow| format.encode(value, Rounding::NearestEven, overflow, 0);
                let (saturated, special) = (code(Overflow::Saturate), code(Overflow::Special));
                if value.is_nan() {
                    let nan = format.nan_code().unwrap_or(0);
                    assert_eq!((saturated, special), (nan, nan), "{name}");
                    if nan != 0 {
                        assert_eq!(expected & !format.sign_code(), nan, "{name}");
                    }
                    continue;
                }
                assert_eq!(special, expected, "{name} {value}");
                if format.is_finite(expected) {
                    assert_eq!(saturated, expected, "{name} {value}");
                } else {
                    let sign = expected & format.sign_code();
                    assert_eq!(saturated, format.max_finite_code() | sign, "{name} {value}");
                }
            }
        }
    }
}

/// ml_dtypes rounds to the nearest power of two as [`ScaleRule::Nearest`] does, but all ties up.
#[test]
fn encodes_e8m0_as_ml_dtypes() {
    let mut random = Random(2);
    let largest = 1.5 * power_of_two(254);
    let mut ties = 0;
    for (first, last, expected) in runs("e8m0") {
        for bits in samples(first, last, &mut random) {
            let value = f32::from_bits(bits);
            // Its zeros are NaN and its subnormal values keep their exponent; ours are code 0.
            let tie = bits & 0x007f_ffff == 0x0040_0000;
            if !value.is_normal() || value < 0.0 || value >= largest {
                continue;
            }
            let code = ScaleRule::Nearest.e8m0(value, 1.0);
            if tie {
                ties += 1;
                assert!(code == expected || code + 1 == expected, "{value}");
                // The exponent, 127 less than the code, is even.
                assert_eq!(code % 2, 1, "{value}");
            } else {
                assert_eq!(code, expected, "{value}");
            }
        }
    }
    assert!(ties > 200);
}

/// The finite magnitudes of a format in f64 by the definition, in order of their codes, then the
/// one that would follow.
struct Ladder {
    format: MinifloatFormat,
    magnitudes: Vec<f64>,
}

impl Ladder {
    fn new(format: MinifloatFormat) -> Self {
        let y = format.mantissa_bits();
        let bias = i32::from(format.bias());
        let magnitude = |code: u32| {
            let (e, m) = ((code >> y) as i32, code & ((1 << y) - 1));
            let fraction = f64::from(m) / f64::from(1 << y);
            if e == 0 {
                fraction * 2_f64.powi(1 - bias)
            } else {
                (1.0 + fraction) * 2_f64.powi(e - bias)
            }
        };
        let codes = 0..=u32::from(format.max_finite_code()) + 1;
        Self {
            format,
            magnitudes: codes.map(magnitude).collect(),
        }
    }

    /// The code by search: the two magnitudes around the value, then the rule.
    fn encode(&self, value: f32, rounding: Rounding, overflow: Overflow, index: u64) -> u8 {
        let format = self.format;
        let magnitude = f64::from(value.abs());
        let above = self.magnitudes.partition_point(|&other| other <= magnitude);
        let code = if above == self.magnitudes.len() {
            above - 1
        } else {
            let (low, high) = (self.magnitudes[above - 1], self.magnitudes[above]);
            // Exact where it matters: a power of two divides, and near a tie nothing is lost.
            let fraction = (magnitude - low) / (high - low);
            let odd = (above - 1) % 2 == 1;
            let up = match rounding {
                Rounding::NearestEven => fraction > 0.5 || fraction == 0.5 && odd,
                Rounding::HalfAway => fraction >= 0.5,
                Rounding::Truncate => false,
                Rounding::Stochastic { seed } => {
                    let units = (fraction * 2_f64.powi(32)) as u64;
                    units + u64::from(random(seed, index)) >= 1 << 32
                }
            };
            above - 1 + usize::from(up)
        };
        let code = if code <= usize::from(format.max_finite_code()) {
            code as u8
        } else {
            let special = format.infinity_code().or(format.nan_code());
            match overflow {
                Overflow::Special => special.unwrap_or(format.max_finite_code()),
                Overflow::Saturate => format.max_finite_code(),
            }
        };
        let sign = if value.is_sign_negative() {
            format.sign_code()
        } else {
            0
        };
        code | sign
    }

    fn check(&self, value: f32, index: u64) {
        for rounding in [
            Rounding::NearestEven,
            Rounding::HalfAway,
            Rounding::Truncate,
            Rounding::Stochastic { seed: 77 },
        ] {
            for overflow in [Overflow::Saturate, Overflow::Special] {
                assert_eq!(
                    self.format.encode(value, rounding, overflow, index),
                    self.encode(value, rounding, overflow, index),
                    "{} {value:e} {rounding:?} {overflow:?}",
                    self.format.name()
                );
            }
        }
    }
}

#[test]
fn every_number_and_every_tie_of_every_format() {
    for format in formats() {
        let ladder = Ladder::new(format);
        let mut index = 0;
        for pair in ladder.magnitudes.windows(2) {
            let middle = (pair[0] + pair[1]) / 2.0;
            for edge in [pair[0], middle, pair[1]] {
                let exact = edge as f32;
                assert_eq!(f64::from(exact), edge);
                for value in [exact.next_down(), exact, exact.next_up()] {
                    // Subnormals count as zeros, and have a test of their own.
                    if !value.is_subnormal() {
                        ladder.check(value, index);
                        ladder.check(-value, index);
                        index += 1;
                    }
                }
            }
        }
    }
}

/// 50 000 bit patterns from all of f32, and as many values in the range of the format.
fn check_random_values(formats: &[MinifloatFormat]) {
    for &format in formats {
        let ladder = Ladder::new(format);
        let mut random = Random(u64::from(format.max_finite_code()) + 3);
        let low = format.decode(1).to_bits() - (3 << 23);
        let high = format.max_value().to_bits() + (1 << 23);
        for index in 0..100_000 {
            let word = random.next();
            let bits = if index % 2 == 0 {
                word as u32
            } else {
                let magnitude = low + random.below(u64::from(high - low)) as u32;
                magnitude | (word as u32 & F32_SIGN)
            };
            let value = f32::from_bits(bits);
            if !value.is_nan() && !value.is_subnormal() {
                ladder.check(value, index);
            }
        }
    }
}

// In parts, which run at once.
#[test]
fn random_values_of_formats_1_to_41() {
    check_random_values(&formats()[..41]);
}

#[test]
fn random_values_of_formats_42_to_82() {
    check_random_values(&formats()[41..]);
}

/// What a block decodes to after quantising with one scale.
fn through(format: MinifloatFormat, scale: f32, block: [f32; 4]) -> [f32; 4] {
    block.map(|value| {
        let code = format.encode(value / scale, Rounding::NearestEven, Overflow::Saturate, 0);
        format.decode(code) * scale
    })
}

#[test]
fn block_of_the_mx_formats() {
    let block = [7.9, -3.0, 0.3, 1.25];
    for (format, rule, scale, expected) in [
        (
            MinifloatFormat::E2M1,
            ScaleRule::Floor,
            0x7f,
            [6.0, -3.0, 0.5, 1.0],
        ),
        (
            MinifloatFormat::E3M2,
            ScaleRule::Floor,
            0x7d,
            [7.0, -3.0, 0.3125, 1.25],
        ),
        (
            MinifloatFormat::E2M3,
            ScaleRule::Floor,
            0x7f,
            [7.5, -3.0, 0.25, 1.25],
        ),
        (
            MinifloatFormat::E4M3,
            ScaleRule::Floor,
            0x79,
            [7.0, -3.0, 0.3125, 1.25],
        ),
        (
            MinifloatFormat::E2M1,
            ScaleRule::Ceil,
            0x80,
            [8.0, -3.0, 0.0, 1.0],
        ),
    ] {
        let code = rule.e8m0(7.9, format.max_value());
        assert_eq!(code, scale, "{} {rule:?}", format.name());
        assert_eq!(
            through(format, power_of_two(code), block),
            expected,
            "{}",
            format.name()
        );
    }
}

/// Two levels of scales in a tensor of largest magnitude 79.
#[test]
fn block_of_nvfp4() {
    let (e2m1, e4m3) = (MinifloatFormat::E2M1, MinifloatFormat::E4M3);
    let tensor_scale = 79.0 / (e4m3.max_value() * e2m1.max_value());
    let code = e4m3.encode(
        7.9 / e2m1.max_value() / tensor_scale,
        Rounding::NearestEven,
        Overflow::Saturate,
        0,
    );
    assert_eq!((code, e4m3.decode(code)), (0x63, 44.0));
    let scale = e4m3.decode(code) * tensor_scale;
    let codes = [7.9, -3.0, 0.3, 1.25].map(|value| {
        e2m1.decode(e2m1.encode(value / scale, Rounding::NearestEven, Overflow::Saturate, 0))
    });
    assert_eq!(codes, [6.0, -2.0, 0.0, 1.0]);
}

/// The real-valued exponent bias of LLM-FP4 (arXiv:2310.16836) is a real scale.
#[test]
fn real_valued_bias() {
    let result = through(MinifloatFormat::E2M1, 5.0 / 6.0, [5.0, 2.2, -0.4, 0.1]);
    for (value, expected) in result.into_iter().zip([5.0, 2.5, -0.416_667, 0.0_f32]) {
        assert!((value - expected).abs() < 1e-6, "{value} {expected}");
    }
}

/// With scales that are powers of two, four-bit floats become E4M3 without loss (ZeroQuant-FP,
/// arXiv:2307.09782).
#[test]
fn four_bit_floats_widen_exactly() {
    for format in [MinifloatFormat::E2M1, MinifloatFormat::E3M0] {
        for exponent in -4..=4 {
            for code in 0..=format.max_code() {
                let value = format.decode(code) * 2_f32.powi(exponent);
                let e4m3 = MinifloatFormat::E4M3;
                let wide = e4m3.encode(value, Rounding::Truncate, Overflow::Special, 0);
                assert_eq!(e4m3.decode(wide), value);
            }
        }
    }
}

/// By the ranges: up to five bits of exponent with the bias of IEEE 754, and tables of short values.
#[test]
fn what_f16_holds() {
    let fits = |name: &str| {
        let element: anybit_formats::ElementFormat = name.parse().unwrap();
        element.fits_f16()
    };
    for name in [
        "f16", "int8", "uint8", "bipolar8", "ternary", "e4m3", "e5m2", "e3m4", "e2m1", "e1m2",
        "bitmod4", "shift3",
    ] {
        assert!(fits(name), "{name}");
    }
    for name in ["f32", "bf16", "nf4", "dynamic8", "e7m0", "e6m1"] {
        assert!(!fits(name), "{name}");
    }
}
