//! i32 outputs equal the integers of the reference, bit for bit.

use anybit::{Engine, OutputFormat, Problem, Skeleton};
use anybit_formats::{ElementFormat, MatrixFormat};
use anybit_tests::case::{Case, Kernel};
use anybit_tests::full;
use anybit_tests::operand::{Fill, encodings};
use anybit_tests::rig::{Rig, on_each_adapter};

/// Ragged against every tile and step.
const SHAPES: [(usize, usize, usize); 3] = [(5, 37, 75), (1, 9, 33), (9, 21, 160)];

fn bare(element: ElementFormat) -> MatrixFormat {
    MatrixFormat::new(element, None).expect("bare codes")
}

fn problem(shape: (usize, usize, usize), x: ElementFormat, w: ElementFormat) -> Problem {
    Problem::new(shape, bare(x), bare(w)).with_output(OutputFormat::I32)
}

/// One kernel for each skeleton of an engine: `turn` says which of its tiles.
fn one_of_each(rig: &mut Rig, problem: &Problem, engine: Engine, turn: usize) -> Vec<Kernel> {
    let kernels = rig.kernels(problem);
    [Skeleton::Tiled, Skeleton::Subgroup, Skeleton::Gemv]
        .into_iter()
        .filter_map(|skeleton| {
            let fit: Vec<&Kernel> = kernels
                .iter()
                .filter(|kernel| kernel.engine == engine && kernel.skeleton == skeleton)
                .collect();
            (!fit.is_empty()).then(|| *fit[turn % fit.len()])
        })
        .collect()
}

/// Every mix of encodings of two widths on a kernel.
fn check_mixes(rig: &mut Rig, kernel: Kernel, (p, q): (u8, u8), every_mix: bool) {
    for (i, x) in encodings(q).into_iter().enumerate() {
        for (j, w) in encodings(p).into_iter().enumerate() {
            // Each encoding of X once, each of W once, unless all are asked for.
            if !every_mix && (i + j + usize::from(p + q)) % 3 != 0 {
                continue;
            }
            for (index, shape) in SHAPES.into_iter().enumerate() {
                let seed = u64::from(p) << 24 | u64::from(q) << 16 | (16 * i + 4 * j + index) as u64;
                let fill = [Fill::Random, Fill::Alternating, Fill::Largest][(i + j + index) % 3];
                let problem = problem(shape, x, w);
                rig.check(&Case::new(problem, kernel, seed).with_fills(fill, Fill::Random));
            }
        }
    }
}

fn check_pairs(rig: &mut Rig, engine: Engine, skeleton: usize, pairs: &[(u8, u8)]) {
    for &(p, q) in pairs {
        let turn = usize::from(p) + 3 * usize::from(q);
        let sample = problem((4, 16, 64), encodings(q)[1], encodings(p)[0]);
        let kernels = one_of_each(rig, &sample, engine, turn);
        for (index, kernel) in kernels.into_iter().enumerate() {
            if full() || index == (turn + skeleton) % 3 {
                check_mixes(rig, kernel, (p, q), full() || turn % 4 == 0);
            }
        }
    }
}

fn all_pairs() -> Vec<(u8, u8)> {
    (1..=8).flat_map(|p| (1..=8).map(move |q| (p, q))).collect()
}

#[test]
fn bitplane_is_exact_for_all_pairs_of_widths() {
    on_each_adapter("bitplane_is_exact_for_all_pairs_of_widths", |rig| {
        check_pairs(rig, Engine::Bitplane, 0, &all_pairs());
    });
}

#[test]
fn dot4_is_exact_for_all_pairs_of_widths() {
    on_each_adapter("dot4_is_exact_for_all_pairs_of_widths", |rig| {
        check_pairs(rig, Engine::Dot4, 0, &all_pairs());
    });
}
