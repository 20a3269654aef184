//! i32 outputs equal the integers of the reference, bit for bit.

use anybit::{Engine, OutputFormat, PlanOptions, Problem, Skeleton};
use anybit_formats::{ElementFormat, FORMATS, MatrixFormat, PackedMatrix, Zeros};
use anybit_reference::exact;
use anybit_tests::case::{Case, Kernel};
use anybit_tests::compare::{self, equal};
use anybit_tests::full;
use anybit_tests::operand::{Fill, encodings, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{Rig, multiply, on_each_adapter};

/// Ragged against every tile and step.
const SHAPES: [(usize, usize, usize); 3] = [(5, 37, 75), (1, 9, 33), (9, 21, 160)];

fn bare(element: ElementFormat) -> MatrixFormat {
    MatrixFormat::new(element, None).expect("bare codes")
}

fn problem(shape: (usize, usize, usize), x: ElementFormat, w: ElementFormat) -> Problem {
    Problem::new(shape, bare(x), bare(w)).with_output(OutputFormat::I32)
}

/// Mixes of the encodings of two widths on a kernel: all of them, or one in turn, such that the encodings of neighbouring widths
/// differ.
fn check_mixes(rig: &mut Rig, kernel: Kernel, (p, q): (u8, u8), every_mix: bool) {
    for (i, x) in encodings(q).into_iter().enumerate() {
        for (j, w) in encodings(p).into_iter().enumerate() {
            if !every_mix && (i, j) != (usize::from(q + p / 3) % 3, usize::from(p) % 3) {
                continue;
            }
            for (index, shape) in SHAPES.into_iter().enumerate() {
                let seed =
                    u64::from(p) << 24 | u64::from(q) << 16 | (16 * i + 4 * j + index) as u64;
                let fill = [Fill::Random, Fill::Alternating, Fill::Largest][(i + j + index) % 3];
                let problem = problem(shape, x, w);
                rig.check(&Case::new(problem, kernel, seed).with_fills(fill, Fill::Random));
            }
        }
    }
}

fn check_pairs(rig: &mut Rig, engine: Engine) {
    for (turn, (p, q)) in all_pairs().into_iter().enumerate() {
        let sample = problem((4, 16, 64), encodings(q)[1], encodings(p)[0]);
        let classes = rig.classes(&sample, engine);
        if full() {
            for kernel in classes.into_iter().flatten() {
                check_mixes(rig, kernel, (p, q), true);
            }
        } else {
            // Rows and columns of the table of pairs are eight long: a turn of seven moves the skeletons along both.
            let turn = turn + turn / 8;
            let class = &classes[turn % classes.len()];
            // The cheapest to compile, mostly.
            let kernel = match turn % 7 {
                0 => Kernel::in_turn(class, turn / classes.len()),
                _ => class[0],
            };
            check_mixes(rig, kernel, (p, q), turn % 17 == 0);
        }
    }
}

/// Products of two widths that a sum of 16 bits holds.
fn swar_terms((p, q): (u8, u8)) -> u32 {
    0xffff / (((1 << p) - 1) * ((1 << q) - 1))
}

/// Pairs of widths that an engine takes, unless `full` every third one: every code of X with every code of W, at every place of a
/// block, and of some mixes of encodings in ragged shapes. Unless `full`, skeletons take turns.
fn check_all_codes(rig: &mut Rig, engine: Engine, takes: fn((u8, u8)) -> bool) {
    let mut made = 0;
    for (turn, (p, q)) in all_pairs().into_iter().enumerate() {
        let (x, w) = (encodings(q)[turn % 3], encodings(p)[turn / 3 % 3]);
        let counts = [q, p].map(|bits| 1_usize << bits);
        let problem = problem((counts[0], counts[1], 75), x, w);
        let classes = rig.classes(&problem, engine);
        let taken = !classes.is_empty();
        rig.note(if taken == takes((p, q)) {
            Ok(())
        } else {
            Err(format!("{p} x {q} bits: taken is {taken}"))
        });
        if !taken || ((p + q) % 3 != 0 && !full()) {
            continue;
        }
        let mut kernels: Vec<Kernel> = classes.iter().map(|class| class[0]).collect();
        if full() {
            kernels = classes.into_iter().flatten().collect();
        } else {
            kernels = vec![kernels[made % kernels.len()]];
            made += 1;
        }
        for kernel in kernels {
            let result = all_codes(rig, kernel, &problem, turn as u64);
            rig.note(result);
            if full() || turn % 7 == 0 {
                check_mixes(rig, kernel, (p, q), full());
            }
        }
    }
}

#[test]
fn swar_is_exact_for_all_pairs_of_widths() {
    on_each_adapter("swar_is_exact_for_all_pairs_of_widths", |rig| {
        check_all_codes(rig, Engine::Swar, |widths| swar_terms(widths) >= 4);
    });
}

#[test]
fn integer_fma_is_exact_for_all_pairs_of_widths() {
    on_each_adapter("integer_fma_is_exact_for_all_pairs_of_widths", |rig| {
        check_all_codes(rig, Engine::IntegerFma, |_| true);
    });
}

/// Another code in every row of X and W; in X another in every column, too.
fn all_codes(rig: &mut Rig, kernel: Kernel, problem: &Problem, seed: u64) -> Result<(), String> {
    let k = problem.k;
    let matrix = |format: MatrixFormat, rows: usize, step: usize| {
        let code = |index: usize| ((index / k + step * (index % k)) % rows) as u8;
        let codes: Vec<u8> = (0..rows * k).map(code).collect();
        PackedMatrix::from_codes(format, rows, k, &codes, &[], Zeros::None)
            .map_err(|error| error.to_string())
    };
    let x = matrix(problem.activation, problem.m, 1)?;
    let w = matrix(problem.weight, problem.n, 0)?;
    let expected = exact::gemm_i64(&x, &w).map_err(|error| error.to_string())?;
    let caps = rig.best().caps().clone();
    let id = kernel
        .id(problem, &caps)
        .ok_or("it cannot do the problem")?;
    let plan = anybit::plan(problem, &caps, &PlanOptions::kernel(&id))
        .map_err(|error| error.to_string())?;
    rig.note_pipeline(plan.specialization(), false);
    let found = multiply(&rig.best(), &plan, &x, &w, &mut Random::new(seed))
        .map_err(|error| format!("{id}: {error}"))?;
    let wrong = compare::exact(&found.into_i32().unwrap_or_default(), &expected);
    wrong.map_or(Ok(()), |wrong| Err(format!("{id}: {wrong}")))
}

/// The largest codes at lengths of K around those after which sums are parted: one more product would pass what they hold.
#[test]
fn sums_are_parted_in_time() {
    on_each_adapter("sums_are_parted_in_time", |rig| {
        for (engine, x, w, step) in [
            (Engine::Swar, "u8", "u4", 16),
            (Engine::Swar, "u4", "u8", 16),
            (Engine::Swar, "u8", "u5", 8),
            (Engine::Swar, "u8", "u6", 4),
            (Engine::Swar, "u7", "u7", 4),
            (Engine::Swar, "u6", "u6", 16),
            (Engine::Swar, "u4", "u4", 32),
            (Engine::Swar, "u8", "u3", 32),
            (Engine::IntegerFma, "u4", "u4", 16),
            (Engine::IntegerFma, "u5", "u4", 8),
            (Engine::IntegerFma, "u1", "u8", 16),
            (Engine::IntegerFma, "u8", "u8", 32),
        ] {
            let (x, w) = (format(x), format(w));
            let sample = Problem::new((19, 5, 64), x, w).with_output(OutputFormat::I32);
            let classes = rig.classes(&sample, engine);
            for kernel in classes.into_iter().map(|class| class[0]) {
                for k in [step, 2 * step, 32, 64, 256]
                    .into_iter()
                    .flat_map(|k| [k - 1, k, k + 1])
                {
                    let problem = Problem {
                        k,
                        ..sample.clone()
                    };
                    let case = Case::new(problem, kernel, 3);
                    rig.check(&case.with_fills(Fill::Largest, Fill::Largest));
                }
            }
        }
    });
}

fn all_pairs() -> Vec<(u8, u8)> {
    (1..=8).flat_map(|p| (1..=8).map(move |q| (p, q))).collect()
}

#[test]
fn bitplane_is_exact_for_all_pairs_of_widths() {
    on_each_adapter("bitplane_is_exact_for_all_pairs_of_widths", |rig| {
        check_pairs(rig, Engine::Bitplane);
    });
}

#[test]
fn dot4_is_exact_for_all_pairs_of_widths() {
    on_each_adapter("dot4_is_exact_for_all_pairs_of_widths", |rig| {
        check_pairs(rig, Engine::Dot4);
    });
}

/// Minifloats and codebooks lifted to integers, with each other and with integers of every width: a weight of each element
/// meets activations in turn.
#[test]
fn lifted_values_are_exact() {
    on_each_adapter("lifted_values_are_exact", |rig| {
        let lifted: Vec<ElementFormat> = FORMATS
            .iter()
            .map(|row| row.element)
            .filter(|element| element.lift_unit().is_some() && !element.has_choices())
            .collect();
        let others: Vec<ElementFormat> = lifted
            .iter()
            .copied()
            .filter(|element| element.affine().is_none())
            .collect();
        for (turn, &w) in others.iter().enumerate() {
            let count = if full() { lifted.len() } else { 1 };
            let activations = lifted.iter().copied().cycle().skip(7 * turn).take(count);
            for (step, x) in activations.enumerate() {
                // Codebooks are lifted in whole blocks.
                let shapes = [(5, 37, 96), (1, 9, 32), (9, 21, 160)];
                let sample = problem(shapes[0], x, w);
                let classes = rig.classes(&sample, Engine::Dot4);
                let turn = turn + 5 * step;
                let kernel = Kernel::in_turn(&classes[turn % classes.len()], turn / classes.len());
                for (index, shape) in shapes.into_iter().enumerate() {
                    let fill = [Fill::Random, Fill::Largest, Fill::Smallest][(turn + index) % 3];
                    let case = Case::new(problem(shape, x, w), kernel, turn as u64);
                    rig.check(&case.with_fills(fill, Fill::Random));
                }
            }
        }
    });
}

/// Every tile of every skeleton on one mix of formats each, and all engines on the same operands.
#[test]
fn every_tile_is_exact() {
    on_each_adapter("every_tile_is_exact", |rig| {
        let mixes = [
            ("u4", "i4"),
            ("i8", "b3"),
            ("b2", "u2"),
            ("i1", "i8"),
            ("t", "b1"),
        ];
        for (index, (x, w)) in mixes.into_iter().enumerate() {
            if !full() && index > 0 {
                break;
            }
            let [x, w] = [x, w].map(|name| format(name).element());
            for m in [1, 70] {
                let sample = problem((m, 140, 100), x, w);
                for (turn, kernel) in rig.kernels(&sample).into_iter().enumerate() {
                    let seed = (index * 1000 + turn) as u64;
                    rig.check(&Case::new(sample.clone(), kernel, seed));
                }
            }
        }
    });
}

/// The largest sums that fit an i32: extreme codes at the largest K.
#[test]
fn accumulators_hold_the_largest_products() {
    on_each_adapter("accumulators_hold_the_largest_products", |rig| {
        // The largest K follows from the formats: i32::MAX over the largest product of two integers.
        let cases = [
            ("u8", "u8", 33_025),
            ("u8", "i8", 65_793),
            ("i8", "i8", 131_071),
            ("b8", "b8", 33_025),
            ("u8rfz", "u8rfz", 8_256),
        ];
        for (x, w, k) in cases {
            let (x, w) = (format(x), format(w));
            let sample = Problem::new((3, 5, k), x, w).with_output(OutputFormat::I32);
            let mut problems = vec![sample.clone()];
            // A longer sum is refused, and says how long it may be.
            let longer = Problem {
                k: k + 1,
                ..sample.clone()
            };
            let refused = rig.best().plan(&longer);
            rig.note(match refused {
                Err(anybit::Error::AccumulatorOverflow { max_k, .. }) if max_k == k => Ok(()),
                other => Err(format!("K = {}: {other:?}", k + 1)),
            });
            if full() {
                problems.push(Problem { m: 1, ..sample });
            }
            let ends = [Fill::Smallest, Fill::Largest, Fill::LargestZeros];
            for problem in problems {
                for engine in [Engine::Dot4, Engine::Bitplane] {
                    for class in rig.classes(&problem, engine) {
                        // Unrolled products of many planes compile for long; one skeleton shows the sums.
                        let kernel = class[0];
                        if !full()
                            && engine == Engine::Bitplane
                            && kernel.skeleton != Skeleton::Gemv
                        {
                            continue;
                        }
                        for (a, b) in ends.iter().flat_map(|&a| ends.map(|b| (a, b))) {
                            rig.check(&Case::new(problem.clone(), kernel, 7).with_fills(a, b));
                        }
                    }
                }
            }
        }
    });
}

/// The same operands through all engines.
#[test]
fn engines_agree() {
    on_each_adapter("engines_agree", |rig| {
        for (index, (x, w)) in [("u4", "b4"), ("i3", "u5"), ("b7", "i2")]
            .into_iter()
            .enumerate()
        {
            let sample =
                Problem::new((6, 40, 90), format(x), format(w)).with_output(OutputFormat::I32);
            let mut outputs = Vec::new();
            let context = rig.best();
            for engine in [
                Engine::Dot4,
                Engine::Bitplane,
                Engine::Swar,
                Engine::IntegerFma,
            ] {
                let plan = context
                    .plan_with(&sample, &PlanOptions::engine(engine))
                    .expect("a plan");
                let mut random = Random::new(index as u64);
                let x = operand(&sample.activation, (6, 90), Fill::Random, &mut random);
                let w = operand(&sample.weight, (40, 90), Fill::Random, &mut random);
                let values = multiply(&context, &plan, &x, &w, &mut random).expect("a product");
                outputs.push(values.into_i32().expect("integers"));
            }
            for output in &outputs[1..] {
                rig.note_wrong(&sample.contract(), equal(&outputs[0], output));
            }
        }
    });
}
