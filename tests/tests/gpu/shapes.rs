//! Shapes around every tile, extreme operands, batches, and shapes by chance.

use std::cell::RefCell;

use anybit::{Batch, Engine, OutputFormat, Problem, Skeleton};
use anybit_tests::case::{Case, Kernel};
use anybit_tests::full;
use anybit_tests::operand::{Fill, format};
use anybit_tests::rig::{Rig, on_each_adapter};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// How many of the contracts are for f32 multiply-add alone. They stand first.
const FLOATS: usize = 4;

/// Formats that bring each engine's own paths with them.
const CONTRACTS: [Contract; 9] = [
    ("f32", "f32", OutputFormat::F32),
    ("f16", "i4rh", OutputFormat::F16),
    ("f32", "u3rhz", OutputFormat::F32),
    ("e4m3rf", "e3m2rh", OutputFormat::F32),
    ("e2m1rf", "e2m3rh", OutputFormat::F32),
    ("i4", "u3", OutputFormat::I32),
    ("i8rf", "u4g32hm", OutputFormat::F32),
    ("u3rf", "i4g32h", OutputFormat::F16),
    ("u2g32fz", "i2g32f", OutputFormat::F32),
];

/// Lengths around a tile; of a tile of one, an empty matrix is among them.
fn around(tile: usize) -> Vec<usize> {
    let mut lengths = vec![1, tile - 1, tile, tile + 1];
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// K around a step: one code, a step less and more than whole, and a third step begun; in whole groups.
fn lengths(step: usize, group: usize) -> Vec<usize> {
    let mut lengths: Vec<usize> = [1, step.saturating_sub(1), step, step + 1, 2 * step + 3]
        .into_iter()
        .map(|length| length.max(1).next_multiple_of(group))
        .collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// Every M, N and K around a kernel's tile.
fn check_around(rig: &mut Rig, kernel: Kernel, sample: &Problem, group: usize) {
    let mut seed = 0;
    for (at, k) in lengths(kernel.step(sample), group).into_iter().enumerate() {
        for (i, m) in around(kernel.tile.m as usize).into_iter().enumerate() {
            for (j, n) in around(kernel.tile.n as usize).into_iter().enumerate() {
                seed += 1;
                // Each M and each N with each K, but not all with all.
                if !full() && (i + j + at) % 4 > 1 {
                    continue;
                }
                let problem = Problem {
                    m,
                    n,
                    k,
                    ..sample.clone()
                };
                rig.check(&Case::new(problem, kernel, seed));
            }
        }
    }
}

#[test]
fn shapes_around_every_tile() {
    on_each_adapter("shapes_around_every_tile", |rig| {
        for (index, (x, w, output)) in CONTRACTS.into_iter().enumerate() {
            let sample = Problem::new((1, 64, 64), format(x), format(w)).with_output(output);
            let group = if x.contains("g32") || w.contains("g32") {
                32
            } else {
                1
            };
            // Each third tile meets one of the contracts that its engine takes. The others' ends are as these'.
            let contracts = if sample.activation.element().lift_unit().is_some() {
                CONTRACTS.len() - FLOATS
            } else {
                FLOATS
            };
            for (turn, kernel) in rig.kernels(&sample).into_iter().enumerate() {
                if full() || turn % 3 == 0 && (turn / 3 + index) % contracts == 0 {
                    check_around(rig, kernel, &sample, group);
                }
            }
        }
    });
}

/// Of these kernels, unless `full`, every second one; the others in the next turn.
fn half(kernels: Vec<Kernel>, turn: usize) -> impl Iterator<Item = Kernel> {
    let (first, every) = if full() { (0, 1) } else { (turn % 2, 2) };
    kernels.into_iter().skip(first).step_by(every)
}

/// The cheapest kernel of each engine and skeleton for a problem.
fn one_of_each(rig: &mut Rig, problem: &Problem) -> Vec<Kernel> {
    Engine::ALL
        .into_iter()
        .flat_map(|engine| rig.classes(problem, engine))
        .map(|class| class[0])
        .collect()
}

/// All that a few pipelines may meet: extreme operands, batches, and shapes by chance. Unless `full`, each contract runs on half
/// of the kernels.
#[test]
fn every_kind_of_operand() {
    on_each_adapter("every_kind_of_operand", |rig| {
        for (turn, contract) in CONTRACTS.into_iter().enumerate() {
            extreme_operands(rig, contract, turn);
            batches_and_broadcasts(rig, contract, turn);
            shapes_by_chance(rig, contract, turn);
        }
    });
}

/// Subgroups of four lanes bring half the rows at once. Larger ones can do so as well, so the kernels for them run there.
#[test]
fn subgroups_of_four_lanes() {
    on_each_adapter("subgroups_of_four_lanes", |rig| {
        if rig.skips_subgroups(4) {
            return;
        }
        let mut caps = rig.best().caps().clone();
        caps.subgroup = caps.subgroup.map(|(_, largest)| (4, largest));
        for (turn, (x, w, output)) in CONTRACTS.into_iter().enumerate() {
            let sample = Problem::new((8, 37, 160), format(x), format(w)).with_output(output);
            for (place, engine) in Engine::ALL.into_iter().enumerate() {
                // Each engine meets every third contract.
                if !full() && (place + turn) % 3 > 0 {
                    continue;
                }
                let mut kernels = Kernel::all_for(&sample, &caps, false);
                kernels.retain(|kernel| {
                    kernel.engine == engine && kernel.skeleton == Skeleton::Subgroup
                });
                kernels.sort_by_key(|kernel| kernel.tile.thread_m * kernel.tile.thread_n);
                if kernels.is_empty() {
                    continue;
                }
                let kernel = Kernel::in_turn(&kernels, turn);
                let id = kernel.id(&sample, &caps).unwrap_or_default();
                assert!(id.contains("_feed4"), "{id}");
                for (m, n, k) in [(1, 1, 32), (7, 37, 160), (33, 130, 96)] {
                    for fill in [Fill::Random, Fill::Largest] {
                        let problem = Problem {
                            m,
                            n,
                            k,
                            ..sample.clone()
                        };
                        rig.check_as(
                            &Case::new(problem, kernel, 31).with_fills(fill, fill),
                            &caps,
                        );
                    }
                }
            }
        }
    });
}

type Contract = (&'static str, &'static str, OutputFormat);

fn extreme_operands(rig: &mut Rig, (x, w, output): Contract, turn_of_kernels: usize) {
    let sample = Problem::new((7, 37, 160), format(x), format(w)).with_output(output);
    let kernels = half(one_of_each(rig, &sample), turn_of_kernels);
    for (turn, kernel) in kernels.enumerate() {
        for (i, a) in Fill::ALL.into_iter().enumerate() {
            for (j, b) in Fill::ALL.into_iter().enumerate() {
                // Each with itself, and of the others a third, which kernels share out.
                if full() || i == j || (i + j + turn) % 3 == 0 {
                    rig.check(&Case::new(sample.clone(), kernel, 11).with_fills(a, b));
                }
            }
        }
        // Nothing to add up: zeros, whatever the output held. The seeds place it in both kinds of buffer.
        for seed in 0..if full() { 4 } else { 2 } {
            let problem = Problem {
                k: 0,
                ..sample.clone()
            };
            rig.check(&Case::new(problem, kernel, seed));
        }
    }
}

/// Unless `full`, contracts meet these sizes in turn.
fn batches_and_broadcasts(rig: &mut Rig, (x, w, output): Contract, turn: usize) {
    for (size, (m, n)) in [(3, 17), (8, 36), (4, 64)].into_iter().enumerate() {
        if !full() && size != turn % 3 {
            continue;
        }
        let sample = Problem::new((m, n, 96), format(x), format(w)).with_output(output);
        for kernel in half(one_of_each(rig, &sample), turn) {
            for (a, b) in [(false, false), (true, false), (false, true), (true, true)] {
                let batch = Batch {
                    count: 3,
                    broadcast_activation: a,
                    broadcast_weight: b,
                };
                rig.check(&Case::new(sample.clone().with_batch(batch), kernel, 21));
            }
        }
    }
}

fn shapes_by_chance(rig: &mut Rig, (x, w, output): Contract, turn: usize) {
    let rig = RefCell::new(rig);
    let seed = std::env::var("ANYBIT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0x5eed);
    let mut runner = TestRunner::new(Config {
        cases: if full() { 1000 } else { 30 },
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    });
    let shapes = (1..90usize, 1..150usize, 1..300usize, any::<u64>());
    let result = runner.run(&shapes, |(m, n, k, seed)| {
        let grouped = x.contains("g32") || w.contains("g32");
        let k = if grouped { k.next_multiple_of(32) } else { k };
        let sample = Problem::new((8, n, k), format(x), format(w)).with_output(output);
        let mut rig = rig.borrow_mut();
        let kernels: Vec<Kernel> = half(one_of_each(&mut rig, &sample), turn).collect();
        let kernel = kernels[seed as usize % kernels.len()];
        // Gemv kernels are for few rows.
        let m = if kernel.skeleton == Skeleton::Gemv {
            1 + m % 8
        } else {
            m
        };
        let case = Case::new(Problem { m, ..sample }, kernel, seed);
        rig.try_check(&case).map_err(TestCaseError::fail)
    });
    rig.borrow_mut()
        .note(result.map_err(|error| format!("ANYBIT_SEED={seed}: {error}")));
}

/// What follows a row in memory must not leak into it: the last rows and groups are followed by zero points of 255, whose
/// bytes are a NaN where a scale is read.
#[test]
fn sections_do_not_leak_into_each_other() {
    on_each_adapter("sections_do_not_leak_into_each_other", |rig| {
        let contracts = [
            ("f32", "u8g32fz"),
            ("f32", "u4g16hz"),
            ("f16", "u2g32fm"),
            ("u8g32fz", "u8g32fz"),
        ];
        for (turn, (x, w)) in contracts.into_iter().enumerate() {
            let sample = Problem::new((5, 33, 32), format(x), format(w));
            for kernel in half(one_of_each(rig, &sample), turn) {
                for k in [32, 96] {
                    let problem = Problem {
                        k,
                        ..sample.clone()
                    };
                    rig.check(
                        &Case::new(problem, kernel, 5)
                            .with_fills(Fill::LargestZeros, Fill::LargestZeros),
                    );
                }
            }
        }
    });
}

/// More tiles than one dimension of a grid holds.
#[test]
fn grids_fold() {
    on_each_adapter("grids_fold", |rig| {
        let sample = Problem::new((1, 16 * 65_535 + 5, 1), format("u1"), format("u1"))
            .with_output(OutputFormat::I32);
        // The smallest tile makes the most workgroups.
        let kernels = rig.kernels(&sample);
        let least = kernels
            .into_iter()
            .min_by_key(|kernel| kernel.tile.n)
            .expect("a kernel");
        let n = least.tile.n as usize * 65_535 + 5;
        rig.check(&Case::new(Problem { n, ..sample }, least, 1));
    });
}
