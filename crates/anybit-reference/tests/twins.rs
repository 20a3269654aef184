//! The twins against exact products.

mod common;

use anybit_formats::{
    AffineFormat, ElementFormat, Encoding, FloatFormat, Granularity, LMul, LMulReading,
    MatrixFormat, PackedMatrix, ScaleType, ZeroKind, Zeros,
};
use anybit_reference::bound::{
    Accumulation, ErrorModel, gemm_l_mul_bound, gemm_lut8_rounding, max_k_i32, max_k_i32_scaled,
};
use anybit_reference::kernel::{self, Tile};
use anybit_reference::{Batches, ReferenceError, exact};
use common::{Random, affine_elements, format, integers, matrix, scaled};
use proptest::prelude::*;

type Integer<T> = fn(&PackedMatrix, &PackedMatrix, Batches, Tile) -> Result<Vec<T>, ReferenceError>;

fn integer_kernels<T: kernel::Output>() -> [(&'static str, Integer<T>); 8] {
    [
        ("gemm_tiled_dot4", kernel::gemm_tiled_dot4),
        ("gemm_subgroup_dot4", kernel::gemm_subgroup_dot4),
        ("gemv_dot4", kernel::gemv_dot4),
        ("gemm_tiled_bitplane", kernel::gemm_tiled_bitplane),
        ("gemm_subgroup_bitplane", kernel::gemm_subgroup_bitplane),
        ("gemv_bitplane", kernel::gemv_bitplane),
        ("gemm_tiled_integer_fma", kernel::gemm_tiled_integer_fma),
        (
            "gemm_subgroup_integer_fma",
            kernel::gemm_subgroup_integer_fma,
        ),
    ]
}

/// The kernels that take only pairs of which 16 bits hold four products.
const NARROW_KERNELS: [(&str, Integer<i32>, Integer<f32>); 2] = [
    (
        "gemm_subgroup_swar",
        kernel::gemm_subgroup_swar,
        kernel::gemm_subgroup_swar,
    ),
    (
        "gemm_tiled_swar",
        kernel::gemm_tiled_swar,
        kernel::gemm_tiled_swar,
    ),
];

fn lmul_kernels() -> [(&'static str, Integer<f32>); 3] {
    [
        ("gemm_tiled_lmul", kernel::gemm_tiled_lmul),
        ("gemm_subgroup_lmul", kernel::gemm_subgroup_lmul),
        ("gemv_lmul", kernel::gemv_lmul),
    ]
}

fn fma_kernels() -> [(&'static str, Integer<f32>); 3] {
    [
        ("gemm_tiled_fma", kernel::gemm_tiled_fma),
        ("gemm_subgroup_fma", kernel::gemm_subgroup_fma),
        ("gemv_fma", kernel::gemv_fma),
    ]
}

fn naive(x: &PackedMatrix, w: &PackedMatrix) -> Vec<i64> {
    let k = x.columns();
    let (xs, ws) = (x.integer_values().unwrap(), w.integer_values().unwrap());
    let mut y = Vec::new();
    for m in 0..x.rows() {
        for n in 0..w.rows() {
            let terms = (0..k).map(|i| i64::from(xs[m * k + i]) * i64::from(ws[n * k + i]));
            y.push(terms.sum());
        }
    }
    y
}

/// Every pair of widths that is taken gives the integers of the other engines, under scales too; wider ones are refused.
#[test]
fn narrow_kernels_equal_the_others() {
    for (name, integer, scaled_kernel) in NARROW_KERNELS {
        for (p, q) in (1..=8_u32).flat_map(|p| (1..=8).map(move |q| (p, q))) {
            let codes = |bits: u32, prefix: &str, suffix: &str| {
                let binary = if bits == 1 { "u" } else { prefix };
                format(&format!("{binary}{bits}{suffix}"))
            };
            let x = matrix(codes(p, "i", ""), 3, 75, 1);
            let w = matrix(codes(q, "u", ""), 5, 75, 2);
            let found = integer(&x, &w, Batches::ONE, Tile::of(&x, &w));
            let terms = 0xffff / (((1 << p) - 1) * ((1 << q) - 1));
            if terms < 4 {
                let found = found.unwrap_err();
                assert!(
                    matches!(found, ReferenceError::Constant { found, .. } if found == terms),
                    "{name} {p} x {q} bits: {found}"
                );
                continue;
            }
            let found: Vec<i64> = found.unwrap().into_iter().map(i64::from).collect();
            assert_eq!(found, naive(&x, &w), "{name} {p} x {q} bits");
            let x = matrix(codes(p, "b", "rf"), 3, 96, 3);
            let w = matrix(codes(q, "u", "g16hm"), 5, 96, 4);
            let tile = Tile::of(&x, &w);
            assert_eq!(
                scaled_kernel(&x, &w, Batches::ONE, tile).unwrap(),
                kernel::gemm_subgroup_bitplane::<f32>(&x, &w, Batches::ONE, tile).unwrap(),
                "{name} {p} x {q} bits"
            );
        }
    }
}

fn check_integers(x: &PackedMatrix, w: &PackedMatrix, spans: &[usize], lanes: &[usize]) {
    let expected = naive(x, w);
    assert_eq!(exact::gemm_i64(x, w).unwrap(), expected);
    for (name, kernel) in integer_kernels::<i32>() {
        for &span in spans {
            for &lanes in lanes {
                let tile = Tile {
                    span,
                    lanes,
                    accumulation: Accumulation::Whole,
                    ..Tile::of(x, w)
                };
                let y = kernel(x, w, Batches::ONE, tile).unwrap();
                let y: Vec<i64> = y.into_iter().map(i64::from).collect();
                assert_eq!(y, expected, "{name} {x:?} {w:?} span {span} lanes {lanes}");
            }
        }
    }
}

#[test]
fn integer_twins_are_exact_for_every_pair_of_formats() {
    for (i, &activation) in affine_elements().iter().enumerate() {
        for (j, &weight) in affine_elements().iter().enumerate() {
            let seed = (100 * i + j) as u64;
            // A ragged K, with an odd number of spans of 16.
            let x = matrix(MatrixFormat::new(activation, None).unwrap(), 2, 75, seed);
            let w = matrix(MatrixFormat::new(weight, None).unwrap(), 3, 75, seed + 7);
            check_integers(&x, &w, &[32, 16], &[2]);
        }
    }
}

/// The values of lifted formats are their integers times the unit, and products are exact.
#[test]
fn lifted_twins_are_exact_for_every_pair_of_formats() {
    let lifted: Vec<ElementFormat> = anybit_formats::FORMATS
        .iter()
        .map(|row| row.element)
        .filter(|element| element.affine().is_none() && element.lift_unit().is_some())
        .collect();
    assert!(lifted.len() >= 20, "{}", lifted.len());
    let bare = |element: ElementFormat| MatrixFormat::new(element, None);
    for (i, &weight) in lifted.iter().enumerate() {
        for (j, &activation) in lifted.iter().chain(&[ElementFormat::INT8]).enumerate() {
            let (Ok(x), Ok(w)) = (bare(activation), bare(weight)) else {
                continue;
            };
            let seed = (100 * i + j) as u64;
            let (x, w) = (matrix(x, 2, 96, seed), matrix(w, 3, 96, seed + 7));
            let expected = exact::gemm_i64(&x, &w).unwrap();
            let units = f64::from(activation.lift_unit().unwrap() * weight.lift_unit().unwrap());
            let values = (x.decode_f64(), w.decode_f64());
            for (index, &product) in expected.iter().enumerate() {
                let (m, n) = (index / 3, index % 3);
                let terms = (0..96).map(|i| values.0[m * 96 + i] * values.1[n * 96 + i]);
                assert_eq!(product as f64 * units, terms.sum::<f64>());
            }
            for (name, kernel) in integer_kernels::<i32>().into_iter().take(3) {
                let y = kernel(&x, &w, Batches::ONE, Tile::of(&x, &w)).unwrap();
                let y: Vec<i64> = y.into_iter().map(i64::from).collect();
                assert_eq!(y, expected, "{name} {activation} {weight}");
            }
        }
    }
}

#[test]
fn integer_twins_are_exact_for_every_k() {
    let (x, w) = (format("b3"), format("u5"));
    for k in (0..=70).chain([127, 128, 129, 300]) {
        let (x, w) = (matrix(x, 2, k, k as u64), matrix(w, 3, k, 1000 + k as u64));
        check_integers(&x, &w, &[32, 16], &[1, 8]);
    }
}

#[test]
fn integer_twins_subtract_zero_points() {
    for (x, w) in [
        ("u8rfz", "i4rh"),
        ("i8rf", "u4rhz"),
        ("b8rfz", "b8fz"),
        ("u3fz", "trfz"),
    ] {
        let (x, w) = (matrix(format(x), 3, 70, 1), matrix(format(w), 4, 70, 2));
        check_integers(&x, &w, &[32, 16], &[1, 4]);
    }
}

#[test]
fn extreme_codes_do_not_overflow_at_the_largest_k() {
    // Of the worst signs; i32 intermediates of the 8-bit pairs wrap on the way.
    let wide: Vec<AffineFormat> = [
        Encoding::Unsigned,
        Encoding::TwosComplement,
        Encoding::Bipolar,
    ]
    .into_iter()
    .map(|encoding| AffineFormat::new(8, encoding).unwrap())
    .collect();
    for &activation in &wide {
        for &weight in &wide {
            let k = max_k_i32(activation, weight);
            let ends = |format: AffineFormat| [format.min_value(), format.max_value()];
            let mut outside = false;
            for x in ends(activation) {
                for w in ends(weight) {
                    let (xs, ws) = (vec![x; k], vec![w; k]);
                    let (xs, ws) = (
                        integers(activation.into(), k, &xs),
                        integers(weight.into(), k, &ws),
                    );
                    check_integers(&xs, &ws, &[32], &[32]);
                    let past = (k as i64 + 1) * i64::from(x) * i64::from(w);
                    outside |= i32::try_from(past).is_err();
                }
            }
            assert!(outside, "{activation:?} {weight:?}: {k} is not the largest");
        }
    }
}

#[test]
fn largest_k_of_an_i32() {
    let of = |x: &str, w: &str| {
        let element = |name: &str| name.parse::<ElementFormat>().unwrap().affine().unwrap();
        max_k_i32(element(x), element(w))
    };
    assert_eq!(of("uint8", "uint8"), 33_025);
    assert_eq!(of("int8", "int8"), 131_071);
    assert_eq!(of("bipolar8", "bipolar8"), 33_025);
    assert_eq!(of("uint8", "int8"), 65_793);
    // The nibble times 16 of COMET is an i8 on both sides; its plain nibbles leave 256 times more room.
    assert_eq!(of("int4", "int8"), (i32::MAX / 1024) as usize);
    assert_eq!(of("binary", "binary"), i32::MAX as usize);
    assert_eq!(of("int1", "uint1"), 1 << 31);
    let scaled = |x: &str, w: &str| max_k_i32_scaled(&format(x), &format(w));
    assert_eq!(scaled("u8rf", "u8rh"), Some(33_025));
    assert_eq!(
        scaled("i8rf", "u8rhz"),
        Some((i32::MAX / (128 * 255)) as usize)
    );
    assert_eq!(
        scaled("b8rfz", "b8fz"),
        Some((i32::MAX / (510 * 510)) as usize)
    );
    assert_eq!(scaled("f32", "i4g32h"), None);
}

#[test]
fn every_format_has_a_largest_k_at_the_edge() {
    for x in affine_elements() {
        for w in affine_elements() {
            let (x, w) = (x.affine().unwrap(), w.affine().unwrap());
            let k = max_k_i32(x, w) as i64;
            let ends = |format: AffineFormat| [format.min_value(), format.max_value()];
            let fits = |k: i64| {
                ends(x).into_iter().all(|x| {
                    ends(w)
                        .into_iter()
                        .all(|w| i32::try_from(k * i64::from(x) * i64::from(w)).is_ok())
                })
            };
            assert!(fits(k) && !fits(k + 1), "{x:?} {w:?} {k}");
        }
    }
}

/// Pairs of formats that reach every branch of the accumulate slots.
const INTEGER_PAIRS: &[(&str, &str)] = &[
    ("i8rf", "i4g32h"),
    ("i8rf", "u4g32hm"),
    ("u8rfz", "u4g64fz"),
    ("i8rf", "i8rf"),
    ("i8f", "u8rhm"),
    ("i8rf", "u4hz"),
    ("i8g32f", "i4g32h"),
    ("u8g64fz", "u5g16hm"),
    ("i8g16h", "b3rf"),
    ("b4rf", "b2g128f"),
    ("trf", "tf"),
    ("b1rf", "b1rf"),
    ("i8", "i4"),
    ("i8", "i4g32h"),
    ("u8rf", "t"),
    ("b8rf", "b8rh"),
];

const FMA_PAIRS: &[(&str, &str)] = &[
    ("f32", "f32"),
    ("f32", "f16"),
    ("f16", "bf16"),
    ("bf16", "f32"),
    ("f32", "i4g32h"),
    ("f16", "u4g32hm"),
    ("bf16", "u8g64fz"),
    ("f32", "tf"),
    ("f32", "b1rh"),
    ("f32", "i8"),
    ("f32", "u3g16hm"),
    ("e4m3rf", "e4m3rf"),
    ("e5m2rf", "e2m1g32e"),
    ("f16", "e3m2g32h"),
    ("e4m3g32e", "e2m3g32e"),
    ("f32", "nf4g64f"),
    ("i8rf", "nf4g64f"),
    ("f32", "dynamic8g256f"),
    ("f32", "bitmod4g128qc"),
    ("f32", "u4g32sm"),
    ("bf16", "i6g16s"),
    ("e2m1g16k", "e2m1g16k"),
];

/// Formats that dot4 lifts, with integers and with each other.
const LIFTED_PAIRS: &[(&str, &str)] = &[
    ("e2m1g32e", "e2m1g32e"),
    ("e2m1g16k", "e2m1g16k"),
    ("e2m3rf", "e2m1g32h"),
    ("i8rf", "e2m1g32e"),
    ("u8rfz", "e2m3g16h"),
    ("e1m2rf", "u4g32hm"),
    ("e1m0rf", "e3m0rh"),
    ("i8rf", "shift3g32f"),
    ("power4rf", "i8g32sm"),
    ("i8rf", "iq4nlg32s"),
    ("i8rf", "i6g16s"),
    ("i8g32f", "u4g32sm"),
];

/// A K that every group of the formats divides.
fn columns(x: MatrixFormat, w: MatrixFormat, size: usize) -> usize {
    let group = |format: MatrixFormat| match format.scales() {
        Some(layout) => match layout.granularity {
            Granularity::Group(group) => group as usize,
            _ => 1,
        },
        None => 1,
    };
    // Codebooks are lifted in whole blocks only.
    let block = |format: MatrixFormat| {
        let codebook = format.element().codebook().is_some();
        if codebook { 32 } else { 1 }
    };
    // Groups are powers of two: the larger is a multiple of the smaller.
    size.next_multiple_of(group(x).max(group(w)).max(block(x)).max(block(w)))
}

fn assert_within(name: &str, y: &[f32], exact: &[f64], bound: &[f64]) {
    assert_eq!((y.len(), y.len()), (exact.len(), bound.len()));
    for (index, ((&y, &exact), &bound)) in y.iter().zip(exact).zip(bound).enumerate() {
        let error = (f64::from(y) - exact).abs();
        assert!(
            error <= bound,
            "{name} output {index}: {y} is {error:e} from {exact}, bound {bound:e}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn integer_twins_are_within_their_bounds(
        pair in 0..INTEGER_PAIRS.len(),
        m in 1..4_usize,
        n in 1..6_usize,
        size in 1..300_usize,
        lanes_log2 in 0..6_u32,
        seed: u64,
    ) {
        let (x, w) = INTEGER_PAIRS[pair];
        let (x, w) = (format(x), format(w));
        let k = columns(x, w, size);
        let (x, w) = (matrix(x, m, k, seed), matrix(w, n, k, seed ^ 1));
        let exact = exact::gemm_f64(&x, &w).unwrap();
        let tile = Tile::of(&x, &w).with_lanes(1 << lanes_log2);
        let grouped = Tile { accumulation: Accumulation::Grouped, ..tile };
        for tile in [tile, grouped] {
            let bound = ErrorModel::NEAREST
                .gemm_integer(&x, &w, Batches::ONE, tile.accumulation)
                .unwrap();
            for (name, kernel) in integer_kernels::<f32>() {
                let y = kernel(&x, &w, Batches::ONE, tile).unwrap();
                assert_within(name, &y, &exact, &bound);
            }
        }
    }

    #[test]
    fn lifted_twins_are_within_their_bounds(
        pair in 0..LIFTED_PAIRS.len(),
        m in 1..4_usize,
        n in 1..6_usize,
        size in 1..300_usize,
        lanes_log2 in 0..6_u32,
        seed: u64,
    ) {
        let (x, w) = LIFTED_PAIRS[pair];
        let (x, w) = (format(x), format(w));
        let k = columns(x, w, size);
        let (x, w) = (matrix(x, m, k, seed), matrix(w, n, k, seed ^ 1));
        let exact = exact::gemm_f64(&x, &w).unwrap();
        let tile = Tile::of(&x, &w).with_lanes(1 << lanes_log2);
        let bound = ErrorModel::NEAREST
            .gemm_integer(&x, &w, Batches::ONE, tile.accumulation)
            .unwrap();
        // Of the twins that take lifted operands, dot4's.
        for (name, kernel) in integer_kernels::<f32>().into_iter().take(3) {
            let y = kernel(&x, &w, Batches::ONE, tile).unwrap();
            assert_within(name, &y, &exact, &bound);
        }
    }

    #[test]
    fn fma_twins_are_within_their_bounds(
        pair in 0..FMA_PAIRS.len(),
        m in 1..4_usize,
        n in 1..6_usize,
        size in 1..300_usize,
        lanes_log2 in 0..6_u32,
        seed: u64,
    ) {
        let (x, w) = FMA_PAIRS[pair];
        let (x, w) = (format(x), format(w));
        let k = columns(x, w, size);
        let (x, w) = (matrix(x, m, k, seed), matrix(w, n, k, seed ^ 1));
        let exact = exact::gemm_f64(&x, &w).unwrap();
        let bound = ErrorModel::NEAREST.gemm_fma(&x, &w, Batches::ONE).unwrap();
        let tile = Tile::of(&x, &w).with_lanes(1 << lanes_log2);
        for (name, kernel) in fma_kernels() {
            let y = kernel(&x, &w, Batches::ONE, tile).unwrap();
            assert_within(name, &y, &exact, &bound);
        }
    }

    #[test]
    fn lmul_twins_are_within_their_bounds(
        pair in 0..FMA_PAIRS.len(),
        m in 1..4_usize,
        n in 1..6_usize,
        size in 1..300_usize,
        lanes_log2 in 0..6_u32,
        mantissa_bits in 1..24_u8,
        formula: bool,
        seed: u64,
    ) {
        let (x, w) = FMA_PAIRS[pair];
        let (x, w) = (format(x), format(w));
        let k = columns(x, w, size);
        let (x, w) = (matrix(x, m, k, seed), matrix(w, n, k, seed ^ 1));
        let l_mul = LMul::new(mantissa_bits).unwrap().with_reading(if formula {
            LMulReading::Formula
        } else {
            LMulReading::Bits
        });
        let exact = exact::gemm_l_mul(&x, &w, l_mul).unwrap();
        let bound = ErrorModel::NEAREST.gemm_l_mul(&x, &w, Batches::ONE, l_mul).unwrap();
        let tile = Tile::of(&x, &w).with_lanes(1 << lanes_log2).with_l_mul(l_mul);
        for (name, kernel) in lmul_kernels() {
            let y = kernel(&x, &w, Batches::ONE, tile).unwrap();
            assert_within(name, &y, &exact, &bound);
        }
    }
}

/// Exact operands leave nothing to the bound but the additions, and one product alone is exact.
#[test]
fn lmul_bounds_count_additions_only() {
    let l_mul = LMul::new(3).unwrap();
    for name in ["f32", "bf16", "e4m3", "i4"] {
        let (x, w) = (matrix(format(name), 3, 1, 1), matrix(format(name), 4, 1, 2));
        let bound = gemm_l_mul_bound(&x, &w, l_mul).unwrap();
        let exact = exact::gemm_l_mul(&x, &w, l_mul).unwrap();
        // A flushed sum, and the f64 of the exact side.
        for (bound, exact) in bound.iter().zip(&exact) {
            assert!(
                *bound <= 1.2e-38 + 1.0e-15 * exact.abs(),
                "{name}: {bound:e} of {exact:e}"
            );
        }
        let (x, w) = (
            matrix(format(name), 3, 257, 1),
            matrix(format(name), 4, 257, 2),
        );
        let sizes: f64 = x.decode()[..257]
            .iter()
            .zip(w.decode())
            .map(|(&x, w)| f64::from(l_mul.product(x, w).abs()))
            .sum();
        let bound = gemm_l_mul_bound(&x, &w, l_mul).unwrap()[0];
        let additions = ErrorModel::WGSL.gamma(256) * sizes;
        assert!(
            (bound / additions - 1.0).abs() < 1e-6,
            "{name}: {bound:e}, {additions:e}"
        );
    }
}

/// A scale rounds, and an operand that it leaves next to a tie may round to either side: the bound holds both.
#[test]
fn lmul_bounds_cover_operands_next_to_a_tie() {
    let l_mul = LMul::new(3).unwrap();
    // Decodes to 1.0625 or next to it, the tie of 1 and 1.125.
    let scale = 1.0625_f32 / 7.0;
    let w = PackedMatrix::from_codes(format("i4rf"), 1, 1, &[15], &[scale], Zeros::None).unwrap();
    let x = PackedMatrix::from_f32(FloatFormat::F32, 1, 1, &[1.0]).unwrap();
    let (exact, bound) = (
        exact::gemm_l_mul(&x, &w, l_mul).unwrap()[0],
        gemm_l_mul_bound(&x, &w, l_mul).unwrap()[0],
    );
    for side in [1.0625_f32.next_down(), 1.0625_f32.next_up()] {
        let other = f64::from(l_mul.product(1.0, side));
        assert!((other - exact).abs() <= bound, "{other} {exact} {bound}");
    }
    assert!((0.125..0.13).contains(&bound), "{bound}");
}

const TABLE_PAIRS: &[(&str, &str)] = &[
    ("f32", "i4g32h"),
    ("f16", "u4g32hm"),
    ("bf16", "u3g64fz"),
    ("f32", "tf"),
    ("f32", "b1rh"),
    ("f16", "i2"),
    ("f32", "u2g16hm"),
    ("bf16", "b4rfz"),
    ("f32", "i1g32e"),
    ("f32", "u4g32sm"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn twins_with_tables_are_within_their_bounds(
        pair in 0..TABLE_PAIRS.len(),
        m in 1..4_usize,
        n in 1..6_usize,
        size in 1..300_usize,
        lanes_log2 in 0..6_u32,
        seed: u64,
    ) {
        let (x, w) = TABLE_PAIRS[pair];
        let (x, w) = (format(x), format(w));
        let k = columns(x, w, size);
        let (x, w) = (matrix(x, m, k, seed), matrix(w, n, k, seed ^ 1));
        let exact = exact::gemm_f64(&x, &w).unwrap();
        let model = ErrorModel::NEAREST;
        let tile = Tile::of(&x, &w).with_lanes(1 << lanes_log2);
        let grouped = Tile { accumulation: Accumulation::Grouped, ..tile };
        let bound = model.gemm_lut(&x, &w, Batches::ONE).unwrap();
        let (rounded, rounded_bound): (Vec<f64>, Vec<f64>) = model
            .gemm_lut8(&x, &w, Batches::ONE)
            .unwrap()
            .into_iter()
            .map(|output| (output.value, output.bound))
            .unzip();
        let rounding = gemm_lut8_rounding(&x, &w, Batches::ONE).unwrap();
        for (index, ((rounded, exact), rounding)) in rounded.iter().zip(&exact).zip(&rounding).enumerate() {
            // Beside f64's own rounding, which is left where scales are zero: a small part of what f32's may be.
            prop_assert!(
                (rounded - exact).abs() <= rounding * (1.0 + 1e-9) + 1e-5 * bound[index],
                "output {index}: {rounded:e} is farther than {rounding:e} from {exact:e}"
            );
        }
        for tile in [tile, grouped] {
            let y = kernel::gemv_lut(&x, &w, Batches::ONE, tile).unwrap();
            assert_within("gemv_lut", &y, &exact, &bound);
            let y = kernel::gemv_lut8(&x, &w, Batches::ONE, tile).unwrap();
            assert_within("gemv_lut8", &y, &rounded, &rounded_bound);
        }
    }
}

/// Tables of bytes lose what is too small for their scale, and nothing else.
#[test]
fn tables_of_bytes_are_zero_for_the_smallest_activations() {
    let w = matrix(format("i2"), 5, 64, 3);
    for (size, kept) in [(1e-31, false), (1e-25, true)] {
        let mut values = [0.0; 64];
        values[40] = size;
        let x = PackedMatrix::from_f32(anybit_formats::FloatFormat::F32, 1, 64, &values).unwrap();
        let y = kernel::gemv_lut8(&x, &w, Batches::ONE, Tile::of(&x, &w)).unwrap();
        let exact = exact::gemm_f64(&x, &w).unwrap();
        for (y, exact) in y.into_iter().zip(exact) {
            // What is not looked up is the half that every two's complement integer has.
            let expected = if kept { exact } else { -0.5 * f64::from(size) };
            assert!(
                (f64::from(y) - expected).abs() <= 1e-5 * f64::from(size),
                "{y:e} {exact:e}"
            );
        }
    }
}

#[test]
fn tables_refuse_what_they_cannot_look_up() {
    let x = matrix(format("f32"), 2, 64, 1);
    let run = |w: &str, tile: fn(Tile) -> Tile| {
        let w = matrix(format(w), 3, 64, 2);
        kernel::gemv_lut(&x, &w, Batches::ONE, tile(Tile::of(&x, &w)))
    };
    let same = |tile| tile;
    assert!(run("i4g32h", same).is_ok());
    assert!(matches!(
        run("e2m1g32e", same),
        Err(ReferenceError::NotCodes { .. })
    ));
    assert!(matches!(
        run("f32", same),
        Err(ReferenceError::NotCodes { .. })
    ));
    let lanes = |tile: Tile| tile.with_lanes(3);
    assert!(matches!(
        run("i4g32h", lanes),
        Err(ReferenceError::Constant { .. })
    ));
    let whole = |tile| Tile {
        accumulation: Accumulation::Whole,
        ..tile
    };
    assert!(matches!(
        run("i4g32h", whole),
        Err(ReferenceError::Grouped { .. })
    ));
}

#[test]
fn kernels_that_share_an_order_agree_to_the_bit() {
    for &(x, w) in INTEGER_PAIRS {
        let (x, w) = (format(x), format(w));
        let k = columns(x, w, 260);
        let (x, w) = (matrix(x, 3, k, 5), matrix(w, 4, k, 6));
        let tile = Tile::of(&x, &w);
        let run = |index: usize, tile: Tile| {
            let (_, kernel) = integer_kernels::<f32>()[index];
            kernel(&x, &w, Batches::ONE, tile).unwrap()
        };
        let expected = run(0, tile);
        for (index, tile) in [
            (1, tile),
            (3, tile),
            (4, tile),
            (2, tile.with_lanes(1)),
            (5, tile.with_lanes(1)),
        ] {
            assert_eq!(run(index, tile), expected);
        }
        assert_eq!(run(2, tile), run(5, tile));
    }
}

#[test]
fn lanes_change_the_order_of_float_sums_only() {
    let (x, w) = (
        matrix(format("i8rf"), 4, 2048, 1),
        matrix(format("i4g32h"), 9, 2048, 2),
    );
    let tile = Tile::of(&x, &w);
    let run = |lanes| -> Vec<f32> {
        kernel::gemv_dot4(&x, &w, Batches::ONE, tile.with_lanes(lanes)).unwrap()
    };
    assert_ne!(run(1), run(16));
    let run = |lanes| -> Vec<i32> {
        kernel::gemv_dot4(&x, &w, Batches::ONE, tile.with_lanes(lanes)).unwrap()
    };
    assert_eq!(run(1), run(16));
}

/// Lane l takes items l, l + LANES, …; then every lane adds the lane whose index differs in one bit, bit by bit.
fn by_lanes(lanes: usize, items: usize, mut add: impl FnMut(f32, usize) -> f32) -> f32 {
    let mut cells: Vec<f32> = (0..lanes)
        .map(|lane| (lane..items).step_by(lanes).fold(0.0, &mut add))
        .collect();
    let mut bit = 1;
    while bit < lanes {
        cells = (0..lanes)
            .map(|lane| cells[lane] + cells[lane ^ bit])
            .collect();
        bit *= 2;
    }
    assert!(cells.iter().all(|&cell| cell == cells[0]));
    cells[0]
}

#[test]
fn gemv_sums_lane_by_lane() {
    let k = 736;
    let x = matrix(format("f32"), 1, k, 1);
    let values = x.decode();
    for (name, step) in [
        ("f32", 4),
        ("f16", 8),
        ("bf16", 8),
        ("i4g32h", 32),
        ("b1rf", 32),
    ] {
        let w = matrix(format(name), 1, k, 2);
        let weights = w.decode();
        for lanes in [1, 2, 8, 32] {
            let tile = Tile::of(&x, &w).with_lanes(lanes);
            let y = kernel::gemv_fma(&x, &w, Batches::ONE, tile).unwrap();
            let expected = by_lanes(lanes, k / step, |mut sum, item| {
                for first in (item * step..(item + 1) * step).step_by(4) {
                    let product = |c: usize| values[first + c] * weights[first + c];
                    sum += product(0) + product(1) + product(2) + product(3);
                }
                sum
            });
            assert!(expected != 0.0, "{name} would hide the order");
            assert_eq!(y, [expected], "{name} {lanes}");
        }
    }

    let (x, w) = (
        matrix(format("i8rf"), 1, k, 7),
        matrix(format("i4g32h"), 1, k, 4),
    );
    let (xs, ws) = (x.integer_values().unwrap(), w.integer_values().unwrap());
    for lanes in [1, 2, 8, 32] {
        let tile = Tile::of(&x, &w).with_lanes(lanes);
        let sum = by_lanes(lanes, k / 32, |sum, block| {
            let span = 32 * block..32 * (block + 1);
            let product: i32 = span.map(|k| xs[k] * ws[k]).sum();
            sum + product as f32 * w.scale(0, block)
        });
        for kernel in [kernel::gemv_dot4::<f32>, kernel::gemv_bitplane] {
            let y = kernel(&x, &w, Batches::ONE, tile).unwrap();
            assert!(
                sum * x.scale(0, 0) != 0.0,
                "a scale of 0 would hide the order"
            );
            assert_eq!(y, [sum * x.scale(0, 0)]);
        }
    }
}

#[test]
fn batches_are_products_of_their_parts() {
    let batches = |broadcast_activation, broadcast_weight| Batches {
        count: 3,
        broadcast_activation,
        broadcast_weight,
    };
    for (x_all, w_all) in [(false, false), (true, false), (false, true), (true, true)] {
        let batches = batches(x_all, w_all);
        let x = matrix(format("i8rf"), if x_all { 2 } else { 6 }, 64, 1);
        let w = matrix(format("u4g32hm"), if w_all { 5 } else { 15 }, 64, 2);
        let floats = matrix(format("f32"), x.rows(), 64, 3);
        let tile = Tile::of(&x, &w);
        let y: Vec<f32> = kernel::gemm_tiled_dot4(&x, &w, batches, tile).unwrap();
        let i: Vec<i32> = kernel::gemv_bitplane(&x, &w, batches, tile).unwrap();
        let f = kernel::gemv_fma(&floats, &w, batches, tile).unwrap();
        let model = ErrorModel::WGSL;
        let bound = model
            .gemm_integer(&x, &w, batches, Accumulation::Grouped)
            .unwrap();
        let exact_all = exact::gemm_f64_batched(&x, &w, batches).unwrap();
        let fma_bound = model.gemm_fma(&floats, &w, batches).unwrap();
        for batch in 0..3 {
            let part = |matrix: &PackedMatrix, rows: usize, all: bool| {
                let start = if all { 0 } else { batch * rows };
                matrix.row_range(start..start + rows).unwrap()
            };
            let (x, w) = (part(&x, 2, x_all), part(&w, 5, w_all));
            let floats = part(&floats, 2, x_all);
            let outputs = 10 * batch..10 * (batch + 1);
            let one = Batches::ONE;
            let expected: Vec<f32> = kernel::gemm_tiled_dot4(&x, &w, one, tile).unwrap();
            assert_eq!(y[outputs.clone()], expected);
            let expected: Vec<i32> = kernel::gemv_bitplane(&x, &w, one, tile).unwrap();
            assert_eq!(i[outputs.clone()], expected);
            let expected = kernel::gemv_fma(&floats, &w, one, tile).unwrap();
            assert_eq!(f[outputs.clone()], expected);
            for (all, part) in [
                (
                    &bound,
                    model.gemm_integer(&x, &w, one, Accumulation::Grouped),
                ),
                (&fma_bound, model.gemm_fma(&floats, &w, one)),
                (&exact_all, exact::gemm_f64(&x, &w)),
            ] {
                assert_eq!(all[outputs.clone()], part.unwrap());
            }
        }
        assert_eq!(
            exact::gemm_i64_batched(&x, &w, batches).unwrap(),
            i.iter().map(|&y| i64::from(y)).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_wrong_code_scale_or_zero_changes_the_result() {
    let columns = 96;
    let element = ElementFormat::INT4;
    let w_format = scaled(
        element,
        Granularity::Group(32),
        ScaleType::F32,
        ZeroKind::Minimum,
    );
    let x = integers(ElementFormat::INT8, columns, &vec![3; columns]);
    let (codes, scales, minima) = (vec![7_u8; columns], vec![0.5_f32; 3], vec![0.25_f32; 3]);
    let make = |codes: &[u8], scales: &[f32], minima: &[f32]| {
        PackedMatrix::from_codes(w_format, 1, columns, codes, scales, Zeros::Minimum(minima))
            .unwrap()
    };
    let right = make(&codes, &scales, &minima);
    let bound = ErrorModel::WGSL
        .gemm_integer(&x, &right, Batches::ONE, Accumulation::Grouped)
        .unwrap();
    let exact = exact::gemm_f64(&x, &right).unwrap();
    let mut wrong = Vec::new();
    for k in 0..columns {
        let mut codes = codes.clone();
        codes[k] ^= 1;
        wrong.push(make(&codes, &scales, &minima));
    }
    for group in 0..3 {
        let (mut s, mut m) = (scales.clone(), minima.clone());
        s[group] *= 1.0 + 1e-4;
        wrong.push(make(&codes, &s, &minima));
        m[group] += 1e-4;
        wrong.push(make(&codes, &scales, &m));
    }
    for (name, kernel) in integer_kernels::<f32>() {
        let tile = Tile::of(&x, &right).with_lanes(2);
        let error = |w: &PackedMatrix| {
            let y = kernel(&x, w, Batches::ONE, tile).unwrap();
            (f64::from(y[0]) - exact[0]).abs()
        };
        assert!(error(&right) <= bound[0]);
        for w in &wrong {
            assert!(error(w) > bound[0], "{name}");
        }
    }
}

#[test]
fn operands_that_a_kernel_does_not_take_are_refused() {
    let (x, w) = (
        matrix(format("i8rf"), 2, 64, 1),
        matrix(format("u4g32hz"), 2, 64, 2),
    );
    let tile = Tile::of(&x, &w);
    let run = |x: &PackedMatrix, w: &PackedMatrix, tile| -> Result<Vec<f32>, _> {
        kernel::gemm_tiled_dot4(x, w, Batches::ONE, tile)
    };
    let grouped = Err(ReferenceError::Grouped {
        format: *w.format(),
    });
    let whole = Tile {
        accumulation: Accumulation::Whole,
        ..tile
    };
    assert_eq!(run(&x, &w, whole), grouped);
    let integer: Result<Vec<i32>, _> = kernel::gemm_tiled_dot4(&x, &w, Batches::ONE, tile);
    assert_eq!(
        integer,
        Err(ReferenceError::Grouped {
            format: *w.format()
        })
    );
    let minimum = matrix(format("u8rfm"), 2, 64, 3);
    assert_eq!(
        run(&minimum, &w, tile),
        Err(ReferenceError::ActivationMinimum {
            format: *minimum.format()
        })
    );
    let float = matrix(format("f32"), 2, 64, 3);
    assert!(matches!(
        run(&float, &w, tile),
        Err(ReferenceError::NotCodes { .. })
    ));
    let minifloat = matrix(format("e4m3rf"), 2, 64, 3);
    assert!(matches!(
        run(&minifloat, &w, tile),
        Err(ReferenceError::NotCodes { .. })
    ));
    let lifted = matrix(format("e2m1rf"), 2, 64, 3);
    let planes: Result<Vec<f32>, _> = kernel::gemv_bitplane(&lifted, &w, Batches::ONE, tile);
    assert!(matches!(planes, Err(ReferenceError::NotCodes { .. })));
    for tile in [Tile { span: 8, ..tile }, tile.with_lanes(3)] {
        let y: Result<Vec<f32>, _> = kernel::gemv_dot4(&x, &w, Batches::ONE, tile);
        assert!(matches!(y, Err(ReferenceError::Constant { .. })));
    }
    let sixteen = matrix(format("i4g16h"), 2, 64, 2);
    assert!(matches!(
        run(&x, &sixteen, Tile { span: 32, ..tile }),
        Err(ReferenceError::Constant { .. })
    ));
}

#[test]
fn empty_operands_give_empty_or_zero_outputs() {
    for (m, n, k) in [(0, 3, 32), (3, 0, 32), (2, 3, 0)] {
        let (x, w) = (
            matrix(format("i8rf"), m, k, 1),
            matrix(format("i4rh"), n, k, 2),
        );
        let zeros = vec![0.0; m * n];
        let y: Vec<f32> = kernel::gemm_tiled_dot4(&x, &w, Batches::ONE, Tile::of(&x, &w)).unwrap();
        assert!(y.iter().all(|&y| y == 0.0) && y.len() == m * n);
        assert_eq!(exact::gemm_f64(&x, &w).unwrap(), zeros);
        assert_eq!(exact::gemm_i64(&x, &w).unwrap(), vec![0; m * n]);
        let floats = matrix(format("f32"), m, k, 1);
        assert_eq!(exact::gemm_f64(&floats, &w).unwrap(), zeros);
        let model = ErrorModel::WGSL;
        for bound in [
            model.gemm_integer(&x, &w, Batches::ONE, Accumulation::Whole),
            model.gemm_fma(&floats, &w, Batches::ONE),
        ] {
            assert_eq!(bound.unwrap().len(), m * n);
        }
    }
}

#[test]
fn exact_products_without_rounding_are_equal_to_integers() {
    // Scales and minima that are powers of two: every step is exact in f64.
    let mut random = Random::new(3);
    for (x_name, w_name) in [
        ("i8g32f", "u4g32fm"),
        ("u8rfz", "i4rh"),
        ("u8rfm", "b3g64fm"),
    ] {
        let (x_format, w_format) = (format(x_name), format(w_name));
        let make = |format: MatrixFormat, rows: usize, random: &mut Random| {
            let k = 128;
            let count = format.scale_count(rows, k);
            let max = usize::from(format.element().affine().unwrap().max_code());
            let codes: Vec<u8> = (0..rows * k).map(|_| random.below(max + 1) as u8).collect();
            let power = |random: &mut Random| 2_f32.powi(random.below(8) as i32 - 4);
            let scales: Vec<f32> = (0..count).map(|_| power(random)).collect();
            let minima: Vec<f32> = (0..count).map(|_| -power(random)).collect();
            let points: Vec<u8> = (0..count).map(|_| random.below(256) as u8).collect();
            let zeros = match format.zero_kind() {
                ZeroKind::None => Zeros::None,
                ZeroKind::Integer => Zeros::Integer(&points),
                ZeroKind::Minimum => Zeros::Minimum(&minima),
                ZeroKind::Choice => unreachable!(),
            };
            PackedMatrix::from_codes(format, rows, k, &codes, &scales, zeros).unwrap()
        };
        let (x, w) = (
            make(x_format, 3, &mut random),
            make(w_format, 60, &mut random),
        );
        let (xs, ws) = (x.decode_f64(), w.decode_f64());
        let mut expected = Vec::new();
        for x in xs.chunks(128) {
            for w in ws.chunks(128) {
                expected.push(x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>());
            }
        }
        assert_eq!(exact::gemm_f64(&x, &w).unwrap(), expected);
        // The path of decoded values gives the same.
        let floats: Vec<f32> = xs.iter().map(|&x| x as f32).collect();
        assert_eq!(exact::gemm_f64_of(&floats, &w).unwrap(), expected);
    }
}
