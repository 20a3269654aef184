//! The twins of the kernels, on the CPU, against exact arithmetic: they stay inside the bounds that GPUs are held to, on
//! the operands that GPUs get.

use anybit::{Engine, OutputFormat, Problem};
use anybit_formats::PackedMatrix;
use anybit_reference::kernel::{self, Tile};
use anybit_reference::{Batches, Parts, ReferenceError, exact};
use anybit_tests::compare;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{reference, reference_of_parts};

type Twin<T> = fn(&PackedMatrix, &PackedMatrix, Batches, Tile) -> Result<Vec<T>, ReferenceError>;

/// Twins of the integer kernels with an output type.
macro_rules! twins {
    ($($name:ident)*) => { [$((stringify!($name), kernel::$name as Twin<_>)),*] };
}

const SHAPES: [(usize, usize, usize); 4] = [(3, 5, 64), (1, 7, 192), (8, 4, 96), (2, 2, 0)];

fn operands(problem: &Problem, fills: (Fill, Fill), seed: u64) -> (PackedMatrix, PackedMatrix) {
    let mut random = Random::new(seed);
    let x = operand(
        &problem.activation,
        (problem.m, problem.k),
        fills.0,
        &mut random,
    );
    let w = operand(
        &problem.weight,
        (problem.n, problem.k),
        fills.1,
        &mut random,
    );
    (x, w)
}

fn all_fills() -> impl Iterator<Item = (Fill, Fill)> {
    Fill::ALL
        .into_iter()
        .flat_map(|x| Fill::ALL.map(|w| (x, w)))
}

#[test]
fn integer_twins_are_exact() {
    let twins: [(&str, Twin<i32>); 8] = twins! {
        gemm_tiled_dot4 gemm_subgroup_dot4 gemv_dot4
        gemm_tiled_bitplane gemm_subgroup_bitplane gemv_bitplane
        gemm_tiled_integer_fma gemm_subgroup_integer_fma
    };
    for (x, w) in [
        ("u4", "i3"),
        ("i8", "u8"),
        ("b5", "b1"),
        ("t", "i7rfz"),
        ("u8rfz", "b2"),
    ] {
        for shape in SHAPES {
            for fills in all_fills() {
                let problem =
                    Problem::new(shape, format(x), format(w)).with_output(OutputFormat::I32);
                let (x, w) = operands(&problem, fills, 1);
                let expected = exact::gemm_i64(&x, &w).expect("a product");
                for (name, twin) in twins {
                    let found = twin(&x, &w, Batches::ONE, Tile::of(&x, &w).with_lanes(8));
                    let wrong = compare::exact(&found.expect("a product"), &expected);
                    assert_eq!(
                        wrong,
                        None,
                        "{name} {} {shape:?} {fills:?}",
                        problem.contract()
                    );
                }
            }
        }
    }
}

/// Of the engine that takes only pairs of which 16 bits hold four products.
#[test]
fn narrow_twins_are_exact_and_within_the_bounds() {
    let exact_twins: [(&str, Twin<i32>); 2] = twins! { gemm_tiled_swar gemm_subgroup_swar };
    for (x, w) in [("u4", "i3"), ("i8", "u4"), ("b5", "b1"), ("t", "i7rfz")] {
        for shape in SHAPES {
            for fills in all_fills() {
                let problem =
                    Problem::new(shape, format(x), format(w)).with_output(OutputFormat::I32);
                let (x, w) = operands(&problem, fills, 1);
                let expected = exact::gemm_i64(&x, &w).expect("a product");
                for (name, twin) in exact_twins {
                    let found = twin(&x, &w, Batches::ONE, Tile::of(&x, &w));
                    let wrong = compare::exact(&found.expect("a product"), &expected);
                    let contract = problem.contract();
                    assert_eq!(wrong, None, "{name} {contract} {shape:?} {fills:?}");
                }
            }
        }
    }
    let twins: [(&str, Twin<f32>); 2] = twins! { gemm_tiled_swar gemm_subgroup_swar };
    let pairs = [
        ("i8rf", "u4g32hm"),
        ("u3g16fz", "i5g32h"),
        ("b2h", "b1rfz"),
        ("i4rf", "tg32f"),
    ];
    check_bounded(Engine::Swar, &pairs, &twins);
}

#[test]
fn scaled_integer_twins_stay_within_the_bounds() {
    let twins: [(&str, Twin<f32>); 8] = twins! {
        gemm_tiled_dot4 gemm_subgroup_dot4 gemv_dot4
        gemm_tiled_bitplane gemm_subgroup_bitplane gemv_bitplane
        gemm_tiled_integer_fma gemm_subgroup_integer_fma
    };
    let pairs = [
        ("i8rf", "u4g32hm"),
        ("u3g16fz", "i5g32h"),
        ("b2h", "b1rfz"),
        ("i4rf", "tg32f"),
    ];
    check_bounded(Engine::Dot4, &pairs, &twins);
}

#[test]
fn float_twins_stay_within_the_bounds() {
    let twins: [(&str, Twin<f32>); 3] = twins! { gemm_tiled_fma gemm_subgroup_fma gemv_fma };
    let pairs = [
        ("f32", "f32"),
        ("f16", "bf16"),
        ("f32", "u4g32hm"),
        ("bf16", "i3g16fz"),
        ("e4m3rf", "e2m1g32e"),
        ("f16", "nf4g32f"),
        ("i8rf", "e5m2g32h"),
        ("f32", "bitmod4g32qc"),
    ];
    check_bounded(Engine::Fma, &pairs, &twins);
}

#[test]
fn l_mul_twins_stay_within_the_bounds() {
    let twins: [(&str, Twin<f32>); 3] = twins! { gemm_tiled_lmul gemm_subgroup_lmul gemv_lmul };
    let pairs = [
        ("f32", "f32"),
        ("f16", "bf16"),
        ("f32", "u4g32hm"),
        ("e4m3", "e4m3"),
        ("e4m3rf", "e2m1g32e"),
        ("f16", "nf4g32f"),
        ("i8rf", "e5m2g32h"),
        ("f32", "bitmod4g32qc"),
    ];
    check_bounded(Engine::LMul, &pairs, &twins);
}

#[test]
fn twins_with_tables_stay_within_the_bounds() {
    let pairs = [
        ("f32", "u4g32hm"),
        ("bf16", "i3g16fz"),
        ("f16", "tf"),
        ("f32", "b1rh"),
    ];
    let lut: [(&str, Twin<f32>); 1] = twins! { gemv_lut };
    check_bounded(Engine::Lut, &pairs, &lut);
    let lut8: [(&str, Twin<f32>); 1] = twins! { gemv_lut8 };
    check_bounded(Engine::Lut8, &pairs, &lut8);
}

fn check_bounded(engine: Engine, pairs: &[(&str, &str)], twins: &[(&str, Twin<f32>)]) {
    for (x, w) in pairs {
        for shape in SHAPES {
            for fills in all_fills() {
                let problem = Problem::new(shape, format(x), format(w));
                let (x, w) = operands(&problem, fills, 2);
                let (expected, bounds) = reference(&problem, engine, &x, &w).expect("a product");
                for (name, twin) in twins {
                    let found = twin(&x, &w, Batches::ONE, Tile::of(&x, &w).with_lanes(8));
                    let wrong = compare::bounded(&found.expect("a product"), &expected, &bounds);
                    assert_eq!(
                        wrong,
                        None,
                        "{name} {} {shape:?} {fills:?}",
                        problem.contract()
                    );
                }
            }
        }
    }
}

/// Parts are complete in themselves: the twins of split kernels stay exact, or within the bounds of parts.
#[test]
fn twins_of_split_kernels_add_up() {
    let parts = [2, 3].map(|count| Parts::new(count, 32).expect("whole blocks"));
    let exact_twins: [(&str, Twin<i32>); 2] = twins! { gemm_tiled_dot4 gemm_subgroup_bitplane };
    let integers: [(&str, Twin<f32>); 2] = twins! { gemm_subgroup_dot4 gemm_tiled_bitplane };
    let floats: [(&str, Twin<f32>); 2] = twins! { gemm_tiled_fma gemm_subgroup_fma };
    for shape in [(3, 5, 64), (2, 7, 131), (1, 2, 0)] {
        for parts in parts {
            for (x, w) in [("u4", "i3"), ("i8", "u8"), ("b5", "b1"), ("u8rfz", "i7rfz")] {
                let problem = Problem::new(shape, format(x), format(w));
                let (x, w) = operands(&problem, (Fill::Random, Fill::Random), 4);
                let tile = Tile::of(&x, &w).with_parts(parts);
                let expected = exact::gemm_i64(&x, &w).expect("a product");
                for (name, twin) in exact_twins {
                    let found = twin(&x, &w, Batches::ONE, tile).expect("a product");
                    assert_eq!(compare::exact(&found, &expected), None, "{name} {shape:?}");
                }
            }
            let pairs = [
                (Engine::Dot4, "i8rf", "u8rfm", &integers[..]),
                (Engine::Dot4, "u8rfz", "i8rh", &integers[..]),
                (Engine::Fma, "f32", "bf16", &floats[..]),
            ];
            for (engine, x, w, twins) in pairs {
                let problem = Problem::new(shape, format(x), format(w));
                let (x, w) = operands(&problem, (Fill::Random, Fill::Random), 5);
                let tile = Tile::of(&x, &w).with_parts(parts);
                let (expected, bounds) =
                    reference_of_parts(&problem, engine, parts, &x, &w).expect("a product");
                for (name, twin) in twins {
                    let found = twin(&x, &w, Batches::ONE, tile).expect("a product");
                    let wrong = compare::bounded(&found, &expected, &bounds);
                    assert_eq!(wrong, None, "{name} {} {shape:?}", problem.contract());
                }
            }
        }
    }
}
