//! The error model: no evaluation that WGSL allows passes a bound, and no bound is idle.

mod common;

use anybit_formats::{ElementFormat, FloatFormat, MatrixFormat, PackedMatrix, Zeros};
use anybit_reference::bound::{
    Accumulation, ErrorModel, LARGEST_F16, f16_output, gemm_fma_bound, gemm_fma_bound_of,
    gemm_integer_bound, gemm_lut8_rounding, scale_bound,
};
use anybit_reference::{Batches, exact};
use common::{Random, format, matrix};

/// Adds in a random order and association: two random terms become one until one is left.
fn shuffled_sum(mut terms: Vec<f32>, random: &mut Random) -> f32 {
    while terms.len() > 1 {
        let a = terms.swap_remove(random.below(terms.len()));
        let b = random.below(terms.len());
        terms[b] += a;
    }
    terms.first().copied().unwrap_or(0.0)
}

/// Rounds a little differently: to the neighbour away from zero half of the time, as WGSL allows.
fn unsure(value: f32, exact: f64, random: &mut Random) -> f32 {
    if f64::from(value) == exact || random.below(2) == 0 {
        value
    } else if f64::from(value) < exact {
        value.next_up()
    } else {
        value.next_down()
    }
}

#[test]
fn shuffled_fma_evaluations_stay_within_the_bound() {
    let mut random = Random::new(5);
    for (seed, (x, w)) in [
        ("f32", "f32"),
        ("f32", "i4g32h"),
        ("f16", "u4g32hm"),
        ("f32", "u8g32fz"),
        ("bf16", "tf"),
        ("e4m3rf", "e2m1g32e"),
        ("f32", "nf4g32h"),
        ("e5m2g32e", "e3m2g16k"),
        ("f32", "i6g16s"),
    ]
    .into_iter()
    .enumerate()
    {
        let k = 160;
        let (x, w) = (
            matrix(format(x), 2, k, seed as u64),
            matrix(format(w), 3, k, 50 + seed as u64),
        );
        let exact = exact::gemm_f64(&x, &w).unwrap();
        let bound = gemm_fma_bound(&x, &w).unwrap();
        let (xs, ws) = (decode_parts(&x), decode_parts(&w));
        for (index, (&exact, &bound)) in exact.iter().zip(&bound).enumerate() {
            let (m, n) = (index / 3, index % 3);
            for contract in [false, true] {
                for _ in 0..20 {
                    let terms = (0..k).map(|i| {
                        let (scale, integer, _) = xs[m * k + i];
                        let product = f64::from(scale) * f64::from(integer);
                        let activation = unsure(scale * integer, product, &mut random);
                        let (scale, integer, minimum) = ws[n * k + i];
                        let weight = if contract {
                            scale.mul_add(integer, minimum)
                        } else {
                            let product = f64::from(scale) * f64::from(integer);
                            unsure(scale * integer, product, &mut random) + minimum
                        };
                        let product = f64::from(activation) * f64::from(weight);
                        unsure(activation * weight, product, &mut random)
                    });
                    let terms = terms.collect();
                    let y = shuffled_sum(terms, &mut random);
                    let error = (f64::from(y) - exact).abs();
                    assert!(error <= bound, "{w:?}: {error:e} > {bound:e}");
                }
            }
        }
    }
}

/// (scale, value of the code less the zero point, minimum) of every element.
fn decode_parts(w: &PackedMatrix) -> Vec<(f32, f32, f32)> {
    let element = w.format().element();
    if !element.has_codes() {
        return w.decode().into_iter().map(|w| (w, 1.0, 0.0)).collect();
    }
    let k = w.columns();
    let group = w.format().group_len(k);
    let part = |(index, code): (usize, u8)| {
        let (row, group) = (index / k, index % k / group);
        let value = element.code_value_with(code, w.choice(row, group));
        (
            w.scale(row, group),
            value.unwrap() - w.zero_point(row, group) as f32,
            w.minimum(row, group),
        )
    };
    w.unpack_codes().into_iter().enumerate().map(part).collect()
}

#[test]
fn shuffled_integer_evaluations_stay_within_the_bound() {
    let mut random = Random::new(6);
    let k = 320;
    for (x_name, w_name) in [
        ("i8rf", "i4g32h"),
        ("i8rf", "u4g32hm"),
        ("u8g32f", "u8g32fz"),
    ] {
        let (x, w) = (
            matrix(format(x_name), 2, k, 1),
            matrix(format(w_name), 3, k, 2),
        );
        let exact = exact::gemm_f64(&x, &w).unwrap();
        let bound = gemm_integer_bound(&x, &w).unwrap();
        let (xs, ws) = (x.integer_values().unwrap(), w.integer_values().unwrap());
        for (index, (&exact, &bound)) in exact.iter().zip(&bound).enumerate() {
            let (m, n) = (index / 3, index % 3);
            for contract in [false, true] {
                for _ in 0..20 {
                    let terms: Vec<f32> = (0..k / 32)
                        .map(|g| {
                            let span = |values: &[i32], row: usize| {
                                values[row * k + 32 * g..][..32].to_vec()
                            };
                            let (xs, ws) = (span(&xs, m), span(&ws, n));
                            let product: i32 = xs.iter().zip(&ws).map(|(x, w)| x * w).sum();
                            let sum = xs.iter().sum::<i32>() as f32;
                            let (s, min) = (w.scale(n, g), w.minimum(n, g));
                            let value = if contract {
                                sum.mul_add(min, product as f32 * s)
                            } else {
                                let scaled = f64::from(product) * f64::from(s);
                                unsure(product as f32 * s, scaled, &mut random) + sum * min
                            };
                            // The activation's scale before or after the sum.
                            let group = g % x.format().groups(k);
                            let row = x.scale(m, group);
                            unsure(value * row, f64::from(value) * f64::from(row), &mut random)
                        })
                        .collect();
                    let y = shuffled_sum(terms, &mut random);
                    let error = (f64::from(y) - exact).abs();
                    assert!(error <= bound, "{x_name} {w_name}: {error:e} > {bound:e}");
                }
            }
        }
    }
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|y| y * y).sum::<f64>() / values.len() as f64).sqrt()
}

/// The largest bound is far below the typical output: a kernel that is wrong by a percent fails.
#[test]
fn bounds_are_not_idle() {
    for (x, w, ratio) in [
        ("f32", "f32", 50.0),
        ("f32", "i4g32h", 50.0),
        ("f16", "u4g32hm", 50.0),
        ("i8rf", "i4g32h", 1000.0),
        ("i8rf", "u4g32hm", 1000.0),
        ("i8rf", "i8rf", 1e5),
        ("b1rf", "b1rf", 1e5),
    ] {
        let (x, w) = (uniform(x, 16, 1024, 1), uniform(w, 16, 1024, 2));
        let typical = root_mean_square(&exact::gemm_f64(&x, &w).unwrap());
        let bound = if x.format().element().affine().is_some() {
            gemm_integer_bound(&x, &w)
        } else {
            gemm_fma_bound(&x, &w)
        };
        let largest = bound.unwrap().into_iter().fold(0.0, f64::max);
        assert!(
            largest * ratio < typical,
            "{x:?} {w:?}: bound {largest:e}, outputs {typical:e}"
        );
        assert!(largest > 0.0);
    }
}

/// Those of looked-up sums too; of tables of bytes, beside their own product.
#[test]
fn bounds_of_tables_are_not_idle() {
    for (x, w) in [("f32", "i4g32h"), ("f16", "u4g32hm"), ("f32", "b1rf")] {
        let (x, w) = (uniform(x, 8, 1024, 1), uniform(w, 16, 1024, 2));
        let typical = root_mean_square(&exact::gemm_f64(&x, &w).unwrap());
        let largest = |bounds: Vec<f64>| bounds.into_iter().fold(0.0, f64::max);
        let model = ErrorModel::WGSL;
        let lut = largest(model.gemm_lut(&x, &w, Batches::ONE).unwrap());
        let rounded = model.gemm_lut8(&x, &w, Batches::ONE).unwrap();
        let lut8 = largest(rounded.iter().map(|output| output.bound).collect());
        assert!(
            lut > 0.0 && 50.0 * lut < typical,
            "{w:?}: {lut:e} of {typical:e}"
        );
        assert!(
            lut8 > 0.0 && 50.0 * lut8 < typical,
            "{w:?}: {lut8:e} of {typical:e}"
        );
        // Rounding a table costs far more than f32 does, but stays a bound on it.
        let rounding = gemm_lut8_rounding(&x, &w, Batches::ONE).unwrap();
        let exact = exact::gemm_f64(&x, &w).unwrap();
        for ((output, exact), rounding) in rounded.iter().zip(exact).zip(rounding) {
            assert!((output.value - exact).abs() <= rounding);
            assert!(rounding > lut8);
        }
    }
}

/// Uniform values, quantised.
fn uniform(name: &str, rows: usize, columns: usize, seed: u64) -> PackedMatrix {
    let mut random = Random::new(seed);
    let values: Vec<f32> = (0..rows * columns).map(|_| random.float()).collect();
    anybit_formats::quantize(&values, rows, columns, format(name), None).unwrap()
}

#[test]
fn grouped_bounds_are_above_whole_ones() {
    let (x, w) = (uniform("i8rf", 3, 999, 3), uniform("u4rhm", 5, 999, 4));
    let of = |accumulation| {
        ErrorModel::WGSL
            .gemm_integer(&x, &w, Batches::ONE, accumulation)
            .unwrap()
    };
    let (whole, grouped) = (of(Accumulation::Whole), of(Accumulation::Grouped));
    assert!(whole.iter().zip(&grouped).all(|(a, b)| a <= b));
}

/// Without scales, integers that f32 holds come out as they are.
#[test]
fn integers_below_2_24_have_no_error() {
    let (x, w) = (
        matrix(format("i8"), 4, 500, 1),
        matrix(format("i4"), 4, 500, 2),
    );
    assert!(
        gemm_integer_bound(&x, &w)
            .unwrap()
            .iter()
            .all(|&bound| bound == 0.0)
    );
    let (x, w) = (
        matrix(format("u8"), 4, 5000, 1),
        matrix(format("u8"), 4, 5000, 2),
    );
    let exact = exact::gemm_f64(&x, &w).unwrap();
    assert!(exact.iter().any(|&y| y > 16_777_216.0));
    for (bound, exact) in gemm_integer_bound(&x, &w).unwrap().iter().zip(exact) {
        assert!(*bound >= (f64::from(exact as f32) - exact).abs());
        assert!(*bound < exact * 2.4e-7);
    }
}

/// Subnormal inputs may be read as 0, and only they make a bound that large.
#[test]
fn flushed_inputs_are_covered() {
    let tiny = f32::MIN_POSITIVE / 2.0;
    let x = [tiny, 1.0, 0.0, 0.0];
    let w = PackedMatrix::from_f32(FloatFormat::F32, 1, 4, &[1e20, tiny, 0.0, 0.0]).unwrap();
    let exact = exact::gemm_f64_of(&x, &w).unwrap()[0];
    let bound = gemm_fma_bound_of(&x, &w).unwrap()[0];
    assert!(bound >= exact && exact > 0.0);
    let normal = [f32::MIN_POSITIVE, 1.0, 0.0, 0.0];
    let bound = gemm_fma_bound_of(&normal, &w).unwrap()[0];
    assert!(bound < exact * 1e-3);

    // An f16 scale below 2^-14 is subnormal.
    let codes = [7; 32];
    let make = |scale: f32| {
        let format = format("i4g32h");
        PackedMatrix::from_codes(format, 1, 32, &codes, &[scale], Zeros::None).unwrap()
    };
    let x = uniform("i8rf", 1, 32, 8);
    for (scale, covered) in [(1.0 / 32768.0, true), (1.0 / 16384.0, false)] {
        let w = make(scale);
        let exact = exact::gemm_f64(&x, &w).unwrap()[0];
        let bound = gemm_integer_bound(&x, &w).unwrap()[0];
        assert_eq!(bound >= exact.abs(), covered);
        let bounds = ErrorModel::WGSL.decode(&w);
        let values = w.decode_f64();
        assert!(
            bounds
                .iter()
                .zip(&values)
                .all(|(b, v)| (*b >= v.abs()) == covered)
        );
    }
}

#[test]
fn decoding_is_exact_without_scales_and_bounded_with() {
    let model = ErrorModel::WGSL;
    for name in ["i8", "t", "b1", "bf16", "f32"] {
        let bounds = model.decode(&matrix(format(name), 3, 40, 1));
        assert!(bounds.iter().all(|&bound| bound == 0.0), "{name}");
    }
    for name in ["i4g32h", "u4g32hm", "u8rfz", "u8fm"] {
        let matrix = matrix(format(name), 3, 96, 1);
        let (bounds, exact) = (model.decode(&matrix), matrix.decode_f64());
        let parts = decode_parts(&matrix);
        for (index, value) in matrix.decode().into_iter().enumerate() {
            let (scale, integer, minimum) = parts[index];
            for value in [value, scale.mul_add(integer, minimum)] {
                assert!(
                    (f64::from(value) - exact[index]).abs() <= bounds[index],
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn scales_are_bounded() {
    let mut random = Random::new(8);
    let values: Vec<f32> = (0..1000).map(|_| random.float() * 3.0).collect();
    let row = |element: ElementFormat| MatrixFormat::activation_default(element);
    let element = |name: &str| row(name.parse().unwrap());
    let largest = values.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let positive = values.iter().fold(0.0_f32, |max, &x| max.max(x));
    let mean = values.iter().map(|x| f64::from(x.abs())).sum::<f64>() / 1000.0;
    for (name, expected) in [
        ("int8", f64::from(largest) / 127.0),
        ("int1", f64::from(largest)),
        ("uint4", f64::from(positive) / 15.0),
        ("bipolar4", f64::from(largest) / 15.0),
        ("binary", mean),
        ("ternary", mean),
        ("e4m3", f64::from(largest) / 448.0),
        ("e2m1", f64::from(largest) / 6.0),
        ("nf4", f64::from(largest)),
    ] {
        let bounded = scale_bound(&values, &element(name)).unwrap();
        assert!(
            (bounded.value - expected).abs() <= 1e-12 * expected,
            "{name}"
        );
        assert!(bounded.bound < 1e-3 * expected, "{name}");
        assert!(bounded.holds(expected as f32), "{name}");
        // Two and a half units in the last place, either way.
        assert!(
            bounded.holds((expected as f32).next_up().next_up()),
            "{name}"
        );
        assert!(!bounded.holds(expected as f32 * 1.01), "{name}");
    }
    assert_eq!(
        scale_bound(&[0.0; 4], &row(ElementFormat::TERNARY))
            .unwrap()
            .value,
        f64::from(1e-5_f32)
    );
    for name in ["i8rh", "u8rfz", "i8f", "f16", "dynamic8rf"] {
        assert!(scale_bound(&values, &format(name)).is_err(), "{name}");
    }
    // Powers of two by the floor rule, exactly: log2(largest) rounded down, less 2.
    let e8m0 = scale_bound(&values, &format("e2m1g32e")).unwrap();
    assert_eq!(e8m0.bound, 0.0);
    assert_eq!(e8m0.value, f64::from(largest).log2().floor().exp2() / 4.0);

    let model = ErrorModel::WGSL;
    assert!(model.inverse(0.3).holds(1.0 / 0.3));
    assert!(
        model
            .inverse(0.3)
            .holds((1.0_f32 / 0.3).next_up().next_up())
    );
    assert!(!model.inverse(0.3).holds(3.334));
    assert!(model.inverse(0.0).holds(0.0) && !model.inverse(0.0).holds(1.0));
    // 1 / 2^126 is the smallest normal number; above that the quotient is subnormal.
    assert!(model.inverse(2_f32.powi(126)).bound < 1e-40);
    assert!(model.inverse(2_f32.powi(126).next_up()).bound.is_infinite());
}

/// Any order of sums of the mean magnitude.
#[test]
fn shuffled_means_stay_within_the_bound() {
    let mut random = Random::new(9);
    for count in [1, 2, 33, 700] {
        let values: Vec<f32> = (0..count).map(|_| random.float()).collect();
        let bounded = scale_bound(&values, &format("b1rf")).unwrap();
        for _ in 0..20 {
            let terms = values.iter().map(|x| x.abs()).collect();
            let mean = shuffled_sum(terms, &mut random) / count as f32;
            assert!(bounded.holds(mean), "{count}");
        }
    }
}

/// One long chain of additions, whose error grows with its length, and no more than the bound does.
#[test]
fn long_sums_are_within_the_bound_of_a_mean() {
    let values = vec![0.1_f32; 100_000];
    let sum: f32 = values.iter().fold(0.0, |sum, x| sum + x);
    let bounded = scale_bound(&values, &format("b1rf")).unwrap();
    let mean = sum / values.len() as f32;
    assert!(bounded.holds(mean));
    // Far more than the divisions allow.
    assert!((f64::from(mean) - bounded.value).abs() > 1e-4 * bounded.value);
}

#[test]
fn gamma_counts_operations() {
    let model = ErrorModel::NEAREST;
    assert_eq!(model.gamma(0), 0.0);
    assert!(model.gamma(1) >= model.unit_roundoff());
    assert_eq!(model.unit_roundoff(), 2_f64.powi(-24));
    assert_eq!(ErrorModel::WGSL.unit_roundoff(), 2_f64.powi(-23));
    assert!(model.gamma(1 << 24).is_infinite());
    assert_eq!(ErrorModel::default(), ErrorModel::WGSL);
    assert_eq!(MatrixFormat::F32.to_string(), "f32");
}

/// f16 outputs: from every f32 result within its bound, both neighbouring f16, and 0 for subnormals, are right, and nothing
/// is that is a step further off.
#[test]
fn f16_outputs_are_rounded_once() {
    let table: Vec<f64> = (0..0x7c00_u16)
        .map(|bits| f64::from(half::f16::from_bits(bits).to_f32()))
        .collect();
    let mut random = Random::new(12);
    for round in 0..20_000 {
        let magnitude = 2_f64.powi(random.below(44) as i32 - 26);
        let exact = magnitude * f64::from(random.float());
        let bound = exact.abs() * [0.0, 1e-7, 1e-4, 0.1][round % 4];
        let right = f16_output(exact, bound);
        assert!(right.value.abs() <= LARGEST_F16);
        for result in [exact - bound, exact, exact + bound] {
            let size = result.abs().min(LARGEST_F16);
            let above = table.partition_point(|&value| value < size);
            let neighbours = [table[above], table[above.saturating_sub(1)]];
            let is_f16 = table[above] == size;
            let smallest = f64::from(half::f16::MIN_POSITIVE.to_f32());
            for (index, neighbour) in neighbours.into_iter().enumerate() {
                if index == 1 && is_f16 {
                    continue;
                }
                let rounded = neighbour.copysign(result) as f32;
                assert!(right.holds(rounded), "{exact:e} {bound:e} {rounded:e}");
                if neighbour < smallest {
                    assert!(right.holds(0.0), "{exact:e} {bound:e}");
                }
            }
        }
        // Two steps beyond either end are too far.
        if exact.abs() > 1e-4 && exact.abs() + bound < 6.0e4 {
            let far = exact.abs() + 1.001 * bound + 2.1 * exact.abs() * 1.1 * 9.765_625e-4;
            assert!(
                !right.holds(far.copysign(exact) as f32),
                "{exact:e} {bound:e}"
            );
        }
    }
    // f16 numbers stay as they are.
    for &value in table.iter().filter(|&&value| value >= 6.2e-5) {
        assert_eq!(f16_output(-value, 0.0).bound, 0.0, "{value:e}");
    }
    let saturated = f16_output(1e30, 1e20);
    assert_eq!((saturated.value, saturated.bound), (LARGEST_F16, 0.0));
    assert_eq!(f16_output(0.0, 0.0).bound, 0.0);
}
