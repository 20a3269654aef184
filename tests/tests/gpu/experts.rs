//! Mixtures of experts: each row of X by the matrix of its expert, whatever the table of offsets holds.

use std::time::Duration;

use anybit::half::f16;
use anybit::{
    Choices, ChosenBy, Context, Engine, Epilogue, ExpertOffsets, Operands, OutputFormat,
    OutputMatrix, Plan, PlanOptions, Problem, TuneOptions,
};
use anybit_formats::{Nesting, PackedMatrix};
use anybit_reference::bound::{Bounded, ErrorModel};
use anybit_reference::{exact, experts};
use anybit_tests::case::Kernel;
use anybit_tests::model::{CANARY, Outcome, filled, submit, values, words, write_words};
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{buffer_of, on_each_adapter, reference};

/// Every engine with formats that it takes, and each kind of output.
const CONTRACTS: [(Engine, &str, &str, OutputFormat, bool); 11] = [
    (Engine::Dot4, "i4", "u3", OutputFormat::I32, false),
    (Engine::Bitplane, "i3", "u2", OutputFormat::I32, false),
    (Engine::Dot4, "u8rfz", "u4g32hm", OutputFormat::F32, true),
    (Engine::Bitplane, "i2rf", "i3g32h", OutputFormat::F16, false),
    (Engine::Swar, "i4rf", "u3g32hm", OutputFormat::F32, true),
    (Engine::IntegerFma, "i3", "u2", OutputFormat::I32, false),
    (Engine::Fma, "f32", "u4g32hm", OutputFormat::F32, true),
    (Engine::Fma, "f16", "f16", OutputFormat::F16, false),
    (Engine::LMul, "f32", "e4m3rf", OutputFormat::F32, false),
    (Engine::Lut, "f32", "i2rf", OutputFormat::F32, false),
    (Engine::Lut8, "f32", "i4g32h", OutputFormat::F32, true),
];

/// Experts, M, N, K.
type Shape = [usize; 4];

/// Few experts with many rows, and many with few.
const SHAPES: [Shape; 2] = [[5, 37, 36, 96], [70, 9, 20, 64]];

/// Tables that a caller may write.
fn tables([experts, m, ..]: Shape, random: &mut Random) -> Vec<Vec<u32>> {
    let m = m as u32;
    let of = |offset: &dyn Fn(usize) -> u32| (0..=experts).map(offset).collect::<Vec<u32>>();
    let mut ragged: Vec<u32> = of(&|_| 0);
    for offset in &mut ragged {
        *offset = random.below(m as usize + 1) as u32;
    }
    ragged.sort_unstable();
    let mut whole = ragged.clone();
    (whole[0], whole[experts]) = (0, m);
    vec![
        // All rows, as they fall; then without the first and last.
        whole,
        ragged,
        // None, and all of one expert: the first, the last, another.
        of(&|_| 0),
        of(&|e| if e == 0 { 0 } else { m }),
        of(&|e| if e == experts { m } else { 0 }),
        of(&|e| if e <= experts / 2 { 0 } else { m }),
        // A row for each of the first ones, two for every other one, and experts that have none between.
        of(&|e| m.min(e as u32)),
        of(&|e| m.min(e as u32 / 2 * 2)),
        of(&|e| m.min(e as u32 / 3 * 7)),
    ]
}

/// Tables that nobody should write.
fn hostile([experts, m, ..]: Shape, random: &mut Random) -> Vec<Vec<u32>> {
    let m = m as u32;
    let of = |offset: &dyn Fn(usize) -> u32| (0..=experts).map(offset).collect::<Vec<u32>>();
    let mut garbage = of(&|_| 0);
    let mut near = of(&|_| 0);
    for (garbage, near) in garbage.iter_mut().zip(&mut near) {
        *garbage = random.bits() as u32;
        *near = random.below(m as usize + 4) as u32;
    }
    vec![
        garbage,
        near,
        of(&|_| u32::MAX),
        of(&|e| m.saturating_sub(3 * e as u32)),
        of(&|e| if e % 2 == 0 { u32::MAX } else { 0 }),
        of(&|e| 11 * e as u32),
    ]
}

/// What outputs must be: integers, or values with bounds.
enum Right {
    Integers(Vec<i64>),
    Values(Vec<Bounded>),
}

impl Right {
    fn of(problem: &Problem, engine: Engine, x: &PackedMatrix, w: &PackedMatrix) -> Outcome<Self> {
        if problem.output == OutputFormat::I32 {
            return Ok(Self::Integers(exact::gemm_i64(x, w)?));
        }
        let (values, bounds) = reference(problem, engine, x, w)?;
        let bounded = values.into_iter().zip(bounds);
        let bounded = bounded.map(|(value, bound)| Bounded { value, bound });
        Ok(Self::Values(bounded.collect()))
    }

    /// Whether a word, or half of one, is output number `index`, added to a residual if there is one.
    fn is(&self, index: usize, found: u32, output: OutputFormat, residual: Option<&[f32]>) -> bool {
        match self {
            Self::Integers(exact) => i64::from(found.cast_signed()) == exact[index],
            Self::Values(values) => {
                let found = match output {
                    OutputFormat::F16 => f16::from_bits(found as u16).to_f64(),
                    _ => f64::from(f32::from_bits(found)),
                };
                let right = match residual {
                    Some(residual) => {
                        ErrorModel::WGSL.with_residual(values[index], residual[index])
                    }
                    None => values[index],
                };
                (found - right.value).abs() <= right.bound
            }
        }
    }
}

/// A plan with its operands on the device, and what each expert would make of every row.
struct Stage {
    context: Context,
    plan: Plan,
    work: anybit::Prepared,
    table: ExpertOffsets,
    output: OutputMatrix,
    buffer: anybit::wgpu::Buffer,
    residual: Option<Vec<f32>>,
    right: Vec<Right>,
}

impl Stage {
    fn new(
        context: &Context,
        plan: &Plan,
        x: &PackedMatrix,
        w: &PackedMatrix,
        weight: &anybit::DeviceMatrix,
        random: &mut Random,
    ) -> Outcome<Self> {
        let problem = plan.problem();
        let (m, n) = (problem.m, problem.n);
        let count = problem.experts.unwrap_or(1);
        let residual = problem.residual.then(|| values(m * n, 100.0, random));
        let added = match &residual {
            Some(values) => Some(filled(context, values, (m, n), 1)?),
            None => None,
        };
        // Rows lie apart as those of the residual do, and canaries lie before, between and after them.
        let per_word = 4 / problem.output.bytes();
        let stride = n.next_multiple_of(4 * per_word) + 4 * per_word;
        let length = 64 + m * stride / per_word + 64;
        let buffer = buffer_of(context, (0..length).map(|_| CANARY));
        let output = OutputMatrix::from_buffer(&buffer, 256, problem.output, (m, n), stride)?;
        let table = ExpertOffsets::from_buffer(
            &buffer_of(context, (0..64 + count + 1 + 7).map(|_| u32::MAX)),
            256,
            count,
        )?;
        let operands = Operands {
            activation: &context.upload(x, &plan.activation_layout())?,
            weight,
            output: &output,
        };
        let epilogue = added
            .as_ref()
            .map_or_else(Epilogue::default, Epilogue::residual);
        let right = (0..count)
            .map(|expert| {
                let w = w.row_range(expert * n..(expert + 1) * n)?;
                Right::of(problem, plan.engine(), x, &w)
            })
            .collect::<Outcome<_>>()?;
        Ok(Self {
            work: context.prepare_experts(plan, operands, &table, &epilogue)?,
            context: context.clone(),
            plan: plan.clone(),
            table,
            output,
            buffer,
            residual,
            right,
        })
    }

    /// Runs the work with a table in place, and says what is wrong. An output is one of its row's experts, or, where it has
    /// none, what it was. Of rows with several experts, as broken tables have them, any may come first, or none.
    fn check(&self, offsets: &[u32]) -> Outcome<Option<String>> {
        let problem = self.plan.problem();
        let bytes: Vec<u8> = offsets.iter().flat_map(|word| word.to_le_bytes()).collect();
        let queue = self.context.queue();
        queue.write_buffer(self.table.buffer(), self.table.offset(), &bytes);
        let fresh = vec![CANARY; (self.buffer.size() / 4) as usize];
        write_words(&self.context, &self.buffer, &fresh);
        submit(&self.context, &[&self.work]);
        let found = words(&self.context, &self.buffer)?;

        let ascending = offsets.is_sorted();
        let segments = experts::segments(offsets, problem.m);
        let bits = 8 * problem.output.bytes();
        let per_word = 32 / bits;
        let elements = found.iter().flat_map(|word| {
            (0..per_word).map(move |half| (word >> (half * bits)) & (u32::MAX >> (32 - bits)))
        });
        let untouched = |at: usize| (CANARY >> (at % per_word * bits)) & (u32::MAX >> (32 - bits));
        let (begin, stride) = (64 * per_word, self.output.row_stride());
        for (at, found) in elements.enumerate() {
            let place = at.checked_sub(begin).map(|at| (at / stride, at % stride));
            let place = place.filter(|&(row, column)| row < problem.m && column < problem.n);
            let Some((row, column)) = place else {
                if found != untouched(at) {
                    return Ok(Some(format!("a canary at {at} became {found:#x}")));
                }
                continue;
            };
            let index = row * problem.n + column;
            let mut owners = self.right.iter().zip(&segments).peekable();
            let owned = segments.iter().any(|segment| segment.contains(&row));
            let is_one = owners.any(|(right, segment)| {
                segment.contains(&row)
                    && right.is(index, found, problem.output, self.residual.as_deref())
            });
            let may_stay = !owned || !ascending;
            if !(is_one || may_stay && found == untouched(at)) {
                return Ok(Some(format!(
                    "row {row} column {column} is {found:#x}, of the experts with {segments:?}"
                )));
            }
        }
        Ok(None)
    }
}

/// Runs all tables on a plan's kernel.
fn check_plan(context: &Context, plan: &Plan, seed: u64) -> Outcome<Option<String>> {
    let mut random = Random::new(seed);
    let problem = plan.problem();
    let x = operand(
        &problem.activation,
        (problem.m, problem.k),
        Fill::Random,
        &mut random,
    );
    let shape = (problem.weight_rows(), problem.k);
    let w = operand(&problem.weight, shape, Fill::Random, &mut random);
    let weight = context.upload(&w, &plan.weight_layout())?;
    let stage = Stage::new(context, plan, &x, &w, &weight, &mut random)?;
    let shape = [
        problem.experts.unwrap_or(1),
        problem.m,
        problem.n,
        problem.k,
    ];
    let mut all = tables(shape, &mut random);
    all.extend(hostile(shape, &mut random));
    for offsets in all {
        if let Some(wrong) = stage.check(&offsets)? {
            return Ok(Some(format!("the table {offsets:?}: {wrong}")));
        }
    }
    Ok(None)
}

#[test]
fn every_kernel_finds_the_experts() {
    on_each_adapter("every_kernel_finds_the_experts", |rig| {
        let mut kernels = 0;
        for (turn, (engine, x, w, output, residual)) in CONTRACTS.into_iter().enumerate() {
            for (at, [count, m, n, k]) in SHAPES.into_iter().enumerate() {
                let mut problem = Problem::new((m, n, k), format(x), format(w))
                    .with_output(output)
                    .with_experts(count);
                problem.residual = residual;
                for class in rig.classes(&problem, engine) {
                    // Few experts meet all tiles in turn; many, the one that is the cheapest to compile.
                    let kernel = match at {
                        0 => Kernel::in_turn(&class, turn),
                        _ => class[0],
                    };
                    let caps = rig.context(&kernel).caps().clone();
                    let Some(id) = kernel.id(&problem, &caps) else {
                        continue;
                    };
                    kernels += 1;
                    let mut result = || -> Outcome<Option<String>> {
                        let plan = anybit::plan(&problem, &caps, &PlanOptions::kernel(&id))?;
                        rig.note_pipeline(plan.specialization(), kernel.floor);
                        check_plan(&rig.context(&kernel), &plan, (turn + at) as u64)
                    };
                    let result = result();
                    rig.note(match result {
                        Ok(None) => Ok(()),
                        Ok(Some(wrong)) => Err(format!("{id}, M {m}, {count} experts: {wrong}")),
                        Err(error) => Err(format!("{id}, M {m}, {count} experts: {error}")),
                    });
                }
            }
        }
        rig.note(match kernels >= 2 * CONTRACTS.len() {
            true => Ok(()),
            false => Err(format!("only {kernels} kernels were run")),
        });
    });
}

/// The tuner makes up a table as it makes up operands.
#[test]
fn experts_are_tuned() {
    on_each_adapter("experts_are_tuned", |rig| {
        let context = rig.best();
        let problem = Problem::new((6, 20, 64), format("i2"), format("i3"))
            .with_output(OutputFormat::I32)
            .with_experts(4);
        let options = TuneOptions::new(vec![problem.clone()]).with_time(Duration::from_secs(10));
        let tuned = || -> Outcome<Option<String>> {
            let tuning = context.tune_blocking(&options, |_| {})?;
            let found = &tuning.problems[0];
            if found.fastest().is_none() || found.kernels.iter().any(|one| one.failure.is_some()) {
                return Ok(Some(format!("{found:?}")));
            }
            let text = tuning.choices.to_json();
            let chosen = context.clone().with_choices(Choices::parse(&text));
            let by = chosen.explain(&problem, &PlanOptions::default())?.by;
            Ok((by != ChosenBy::Tuned).then(|| format!("chosen by {by} of {text}")))
        };
        rig.note(match tuned() {
            Ok(None) => Ok(()),
            Ok(Some(wrong)) => Err(wrong),
            Err(error) => Err(error.to_string()),
        });
    });
}

/// However short a dispatch has to be, the same numbers: cut along the rows of each expert's W.
#[test]
fn long_work_of_experts_is_cut() {
    on_each_adapter("long_work_of_experts_is_cut", |rig| {
        let cut = rig
            .best()
            .with_longest_dispatch(Some(Duration::from_nanos(1)));
        for (turn, (engine, x, w, output, residual)) in CONTRACTS.into_iter().enumerate() {
            if turn % 3 != 0 && !anybit_tests::full() {
                continue;
            }
            let mut problem = Problem::new((9, 300, 96), format(x), format(w))
                .with_output(output)
                .with_experts(4);
            problem.residual = residual;
            let checked = || -> Outcome<Option<String>> {
                let plan = cut.plan_with(&problem, &PlanOptions::engine(engine))?;
                check_plan(&cut, &plan, turn as u64)
            };
            rig.note(match checked() {
                Ok(None) => Ok(()),
                Ok(Some(wrong)) => Err(format!("{engine}: {wrong}")),
                Err(error) => Err(format!("{engine}: {error}")),
            });
        }
        // It is several dispatches.
        let problem = Problem::new((9, 300, 96), format("i8"), format("i8"))
            .with_output(OutputFormat::I32)
            .with_experts(4);
        let dispatches = || -> Outcome<usize> {
            let plan = cut.plan(&problem)?;
            let format = problem.weight;
            let operands = Operands {
                activation: &cut.allocate(format, 9, 96, &plan.activation_layout())?,
                weight: &cut.allocate(format, 1200, 96, &plan.weight_layout())?,
                output: &cut.output(OutputFormat::I32, 9, 300)?,
            };
            let table = cut.expert_offsets(4)?;
            let work = cut.prepare_experts(&plan, operands, &table, &Epilogue::default())?;
            Ok(work.dispatches())
        };
        rig.note(match dispatches() {
            Ok(2..) => Ok(()),
            other => Err(format!("{other:?} dispatches")),
        });
    });
}

/// The experts' weights out of a matrix of int8, at fewer bits.
#[test]
fn experts_may_be_nested() {
    on_each_adapter("experts_may_be_nested", |rig| {
        let context = rig.best();
        let (count, m, n, k) = (3, 21, 20, 64);
        for (engine, nesting) in [
            (Engine::Dot4, Nesting::DoubleRounding),
            (Engine::Bitplane, Nesting::Truncation),
        ] {
            let result = || -> Outcome<Option<String>> {
                let mut random = Random::new(4);
                let x = operand(&format("i3"), (m, k), Fill::Random, &mut random);
                let stored = operand(&format("i8"), (count * n, k), Fill::Random, &mut random);
                let read = stored.nested(4, nesting)?;
                let problem = Problem::new((m, n, k), *x.format(), *read.format())
                    .with_output(OutputFormat::I32)
                    .with_experts(count);
                let options = PlanOptions::engine(engine).with_nesting(nesting);
                let plan = context.plan_with(&problem, &options)?;
                let weight = context.upload(&stored, &plan.weight_layout())?;
                let weight = weight.nested(4, nesting)?;
                let stage = Stage::new(&context, &plan, &x, &read, &weight, &mut random)?;
                stage.check(&[0, 6, 7, 21])
            };
            rig.note(match result() {
                Ok(None) => Ok(()),
                Ok(Some(wrong)) => Err(format!("{engine}, {nesting:?}: {wrong}")),
                Err(error) => Err(format!("{engine}, {nesting:?}: {error}")),
            });
        }
    });
}

/// A table of the library's own, and a row that stays what it was.
#[test]
fn experts_of_a_table_from_the_host() {
    on_each_adapter("experts_of_a_table_from_the_host", |rig| {
        let context = rig.best();
        let result = || -> Outcome<Option<String>> {
            let mut random = Random::new(8);
            let (count, m, n, k) = (4, 12, 8, 64);
            let problem = Problem::new((m, n, k), format("i4"), format("i4"))
                .with_output(OutputFormat::I32)
                .with_experts(count);
            let plan = context.plan(&problem)?;
            let x = operand(&problem.activation, (m, k), Fill::Random, &mut random);
            let w = operand(&problem.weight, (count * n, k), Fill::Random, &mut random);
            let table = context.expert_offsets(count)?;
            let output = context.output(problem.output, m, n)?;
            let operands = Operands {
                activation: &context.upload(&x, &plan.activation_layout())?,
                weight: &context.upload(&w, &plan.weight_layout())?,
                output: &output,
            };
            let work = context.prepare_experts(&plan, operands, &table, &Epilogue::default())?;
            let mut expected = vec![0; m * n];
            // No expert has a row yet.
            for offsets in [[0; 5], [0, 5, 5, 7, 11], [1, 1, 12, 12, 12]] {
                context.write_expert_offsets(&table, &offsets)?;
                let right = experts::gemm_experts(&x, &w, &offsets, exact::gemm_i64)?;
                for (expected, right) in expected.iter_mut().zip(right) {
                    *expected = right.unwrap_or(*expected);
                }
                let found = context.run(&work, &output)?.into_i32();
                let found = found.ok_or("the output holds integers")?;
                if let Some(wrong) = anybit_tests::compare::exact(&found, &expected) {
                    return Ok(Some(format!("{offsets:?}: {wrong}")));
                }
            }
            Ok(None)
        };
        rig.note(match result() {
            Ok(None) => Ok(()),
            Ok(Some(wrong)) => Err(wrong),
            Err(error) => Err(error.to_string()),
        });
    });
}
