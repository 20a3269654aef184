//! Products that a device takes in several dispatches, since what they bind or how long they run has a limit: each number is
//! the same as in one, bit for bit.

use std::time::Duration;

use anybit::{
    Batch, Context, Engine, Error, Operands, OutputFormat, OutputMatrix, Plan, PlanOptions,
    Problem, RowSource, Values, wgpu,
};
use anybit_formats::{
    DeviceLayout, MatrixFormat, Memory, PackedMatrix, QuantizeRowsOptions, Rounding, Zeros,
};
use anybit_tests::adapter::skip;
use anybit_tests::compare;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{Rig, device, multiply, on_each_adapter};

use Engine::{Bitplane, Dot4, Fma, IntegerFma, Swar};
use OutputFormat::{F16, F32, I32};

/// A context whose bindings hold so many bytes.
fn limited(adapter: &wgpu::Adapter, bytes: u64) -> Context {
    let mut limits = wgpu::Limits::default().or_worse_values_from(&adapter.limits());
    limits.max_storage_buffer_binding_size = bytes;
    let features = adapter.features() & anybit::wanted_features(adapter);
    device(adapter, features, limits)
}

fn batch(count: usize, activation: bool, weight: bool) -> Batch {
    Batch {
        count,
        broadcast_activation: activation,
        broadcast_weight: weight,
    }
}

/// A product of an engine, whose operands and output take several times 64 KiB.
struct Case(
    Engine,
    &'static str,
    &'static str,
    OutputFormat,
    (usize, usize, usize),
    Batch,
);

const LIMIT: u64 = 64 << 10;

fn cases() -> Vec<Case> {
    let one = Batch::ONE;
    vec![
        // Every operand and the output.
        Case(Dot4, "i8", "i8", I32, (200, 300, 200), one),
        Case(Bitplane, "u2rf", "b3rh", F32, (300, 480, 640), one),
        Case(Swar, "i4rf", "i4g32h", F32, (300, 400, 160), one),
        Case(IntegerFma, "i8rf", "u4g32hm", F32, (200, 300, 224), one),
        Case(Fma, "f32", "f32", F32, (150, 333, 70), one),
        Case(Fma, "f16", "e4m3g32k", F16, (300, 333, 96), one),
        Case(Fma, "f32", "nf4g64h", F32, (200, 401, 192), one),
        Case(Dot4, "i8rf", "u4g64sm", F32, (200, 380, 256), one),
        // One row.
        Case(Dot4, "i8rf", "i3rf", F32, (1, 5003, 160), one),
        // Batches that begin wherever a binding may, and some that share an operand.
        Case(Dot4, "i8", "i4", I32, (32, 64, 96), batch(17, false, false)),
        Case(Fma, "f32", "f32", F32, (8, 16, 64), batch(40, false, false)),
        Case(
            Bitplane,
            "i2",
            "i3",
            I32,
            (64, 160, 96),
            batch(9, false, true),
        ),
        Case(
            Fma,
            "f32",
            "i8rf",
            F32,
            (64, 160, 96),
            batch(9, true, false),
        ),
    ]
}

/// What a context makes of a problem, and in how many dispatches.
fn product(
    context: &Context,
    plan: &Plan,
    x: &PackedMatrix,
    w: &PackedMatrix,
) -> Result<(Values, usize), Error> {
    let problem = plan.problem();
    let activation = context.upload(x, &plan.activation_layout())?;
    let weight = context.upload(w, &plan.weight_layout())?;
    let output = context.output(problem.output, problem.output_rows(), problem.n)?;
    let operands = Operands {
        activation: &activation,
        weight: &weight,
        output: &output,
    };
    let prepared = context.prepare(plan, operands)?;
    Ok((context.run(&prepared, &output)?, prepared.dispatches()))
}

/// Runs a case in a context that cuts it, and in one that does not.
fn check(rig: &mut Rig, cut: &Context, case: &Case, options: &PlanOptions, seed: u64) {
    let &Case(engine, x, w, output, shape, batch) = case;
    let problem = Problem::new(shape, format(x), format(w))
        .with_output(output)
        .with_batch(batch);
    let what = format!("{engine} {} {shape:?}", problem.contract());
    let mut random = Random::new(seed);
    let k = problem.k;
    let x = operand(
        &problem.activation,
        (problem.activation_rows(), k),
        Fill::Random,
        &mut random,
    );
    let w = operand(
        &problem.weight,
        (problem.weight_rows(), k),
        Fill::Random,
        &mut random,
    );
    let mut options = options.clone();
    options.engine = Some(engine);
    let whole = rig.best().with_longest_dispatch(None);
    let result = (|| -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let plan = cut.plan_with(&problem, &options).map_err(text)?;
        let same = PlanOptions::kernel(plan.id());
        let other = whole.plan_with(&problem, &same).map_err(text)?;
        let (found, dispatches) = product(cut, &plan, &x, &w).map_err(text)?;
        let (expected, one) = product(&whole, &other, &x, &w).map_err(text)?;
        if one != 1 || dispatches < 2 {
            return Err(format!("{one} dispatches, cut {dispatches}"));
        }
        if found != expected {
            return Err(format!("{} in {dispatches} pieces differs", plan.id()));
        }
        // The same in a buffer of the caller, among other data, and with floats in one buffer.
        let framed =
            multiply(cut, &plan, &x, &w, &mut random).map_err(|error| error.to_string())?;
        match framed == expected {
            true => Ok(()),
            false => Err(format!("{} in the caller's buffers differs", plan.id())),
        }
    })();
    rig.note(result.map_err(|error| format!("{what}: {error}")));
}

#[test]
fn products_over_the_binding_limit_are_cut() {
    on_each_adapter("products_over_the_binding_limit_are_cut", |rig| {
        let cut = limited(rig.adapter(), LIMIT).with_longest_dispatch(None);
        assert_eq!(cut.caps().max_binding, LIMIT);
        let step = if anybit_tests::full() { 1 } else { 2 };
        for (seed, case) in cases().iter().enumerate().step_by(step) {
            check(rig, &cut, case, &PlanOptions::default(), seed as u64);
        }
        // Out of buffers, integers and floats.
        let buffers = PlanOptions::default().with_memory(Memory::Buffers);
        for (seed, case) in cases().iter().enumerate().step_by(4) {
            if anybit_tests::full() || seed < 5 {
                check(rig, &cut, case, &buffers, seed as u64);
            }
        }
    });
}

/// However short a dispatch has to be.
#[test]
fn long_products_are_cut() {
    on_each_adapter("long_products_are_cut", |rig| {
        let context = rig.best();
        assert_eq!(
            context
                .clone()
                .with_longest_dispatch(None)
                .longest_dispatch(),
            None
        );
        let least = context.with_longest_dispatch(Some(Duration::from_nanos(1)));
        let all = cases();
        // What has less than 256 rows of either operand, or batches that bindings cannot begin at, is not cut.
        let long = all.iter().filter(|Case(.., (m, n, _), batch)| {
            (*m >= 256 || *n >= 256) && batch.count == 1 || *m % 32 == 0 && batch.count > 1
        });
        let step = if anybit_tests::full() { 1 } else { 2 };
        for (seed, case) in long.enumerate().step_by(step) {
            check(rig, &least, case, &PlanOptions::default(), seed as u64);
        }
        // A limit that is not reached changes nothing.
        let far = rig.best().with_longest_dispatch(Some(Duration::MAX));
        let problem = Problem::new((300, 300, 64), format("i8"), format("i8")).with_output(I32);
        let plan = far.plan(&problem).expect("a plan");
        let mut random = Random::new(1);
        let x = operand(&format("i8"), (300, 64), Fill::Random, &mut random);
        let dispatches = product(&far, &plan, &x, &x).map(|(_, dispatches)| dispatches);
        rig.note(match dispatches {
            Ok(1) => Ok(()),
            other => Err(format!("{other:?} dispatches")),
        });
    });
}

/// More batches than a grid has layers.
#[test]
fn batches_over_the_grid_are_cut() {
    on_each_adapter("batches_over_the_grid_are_cut", |rig| {
        let context = rig.best();
        let count = 70_000;
        let problem = Problem::new((1, 8, 32), format("i8"), format("i8"))
            .with_output(I32)
            .with_batch(batch(count, false, true));
        let mut random = Random::new(5);
        let x = operand(&format("i8"), (count, 32), Fill::Random, &mut random);
        let w = operand(&format("i8"), (8, 32), Fill::Random, &mut random);
        let result = context
            .plan(&problem)
            .and_then(|plan| product(&context, &plan, &x, &w));
        match result {
            Err(error) => rig.note(Err(error.to_string())),
            Ok((values, dispatches)) => {
                let expected = anybit_reference::exact::gemm_i64(&x, &w).expect("a product");
                let found = values.into_i32().unwrap_or_default();
                rig.note_wrong("batches", compare::exact(&found, &expected));
                rig.note(match dispatches {
                    2.. => Ok(()),
                    _ => Err("in one dispatch".into()),
                });
            }
        }
    });
}

/// Quantising, decoding and norms of rows over the binding limit.
#[test]
fn rows_over_the_binding_limit_are_cut() {
    on_each_adapter("rows_over_the_binding_limit_are_cut", |rig| {
        let cut = limited(rig.adapter(), LIMIT);
        let (rows, columns) = (704, 96);
        let values = operand(
            &MatrixFormat::F32,
            (rows, columns),
            Fill::Random,
            &mut Random::new(3),
        );
        let weight = operand(
            &MatrixFormat::F32,
            (1, columns),
            Fill::Random,
            &mut Random::new(4),
        );
        let stochastic =
            QuantizeRowsOptions::default().with_rounding(Rounding::Stochastic { seed: 7 });
        let options = [QuantizeRowsOptions::default(), stochastic];
        for (name, options) in [
            ("i8rf", &options[0]),
            ("i4g32f", &options[1]),
            ("e2m1g32e", &options[0]),
        ] {
            let target = format(name);
            let run = |context: &Context| -> Result<_, Error> {
                let input = context.upload(&values, &DeviceLayout::ROW_MAJOR)?;
                let weight = context.upload(&weight, &DeviceLayout::ROW_MAJOR)?;
                let codes = context.allocate(target, rows, columns, &DeviceLayout::ROW_MAJOR)?;
                let [decoded, normed] = [(); 2].map(|()| context.output(F32, rows, columns));
                let (decoded, normed) = (decoded?, normed?);
                let quantize = context.prepare_quantize_with(&input, &codes, options)?;
                let decode = context.prepare_decode(&codes, &decoded)?;
                let source = RowSource::RmsNorm {
                    weight: &weight,
                    epsilon: 1e-5,
                };
                let norm = context.prepare_rows(&input, &source, None, &normed)?;
                let found = context.submit_and_read(&[&quantize.work, &decode], &decoded)?;
                let norms = context.run(&norm, &normed)?;
                let inverses = quantize.inverses.expect("there are rows");
                let count = target.scale_count(rows, columns);
                let inverses = OutputMatrix::from_buffer(&inverses, 0, F32, (1, count), count)?;
                let dispatches = [&quantize.work, &decode, &norm].map(|work| work.dispatches());
                let values = (
                    context.download(&codes)?,
                    found.read_blocking()?,
                    norms,
                    context.submit_and_read(&[], &inverses)?.read_blocking()?,
                );
                Ok((values, dispatches))
            };
            let whole = rig.best();
            rig.note(match (run(&cut), run(&whole)) {
                (Ok((found, pieces)), Ok((expected, [1, 1, 1]))) if found == expected => {
                    match pieces {
                        [(2..), (2..), (2..)] => Ok(()),
                        pieces => Err(format!("{name} in {pieces:?} dispatches")),
                    }
                }
                (Ok((_, pieces)), Ok((_, whole))) => Err(format!(
                    "{name} in {pieces:?} dispatches and {whole:?} differ"
                )),
                (found, expected) => {
                    Err(format!("{name}: {:?}, {:?}", found.err(), expected.err()))
                }
            });
        }
    });
}

/// A matrix of more than 4 GiB as weights, and as activations; with `--full` only, as it takes 14 GB of memory and minutes.
#[test]
fn matrices_over_4_gib_are_multiplied() {
    let test = "matrices_over_4_gib_are_multiplied";
    if !anybit_tests::full() {
        return skip(test, "it takes 14 GB of memory; run with --full");
    }
    on_each_adapter(test, |rig| {
        let int8 = format("i8");
        let (few, many, k) = (3, 65_600, 65_536);
        let mut random = Random::new(0x4_0000);
        let small = operand(&int8, (few, k), Fill::Random, &mut random);
        let large = {
            // Rows differ, and so do the columns of each, at every distance that is no multiple of a prime.
            let code = |place: usize| (place % 251 + place / k % 5) as u8;
            let codes: Vec<u8> = (0..many * k).map(code).collect();
            PackedMatrix::from_codes(int8, many, k, &codes, &[], Zeros::None).expect("int8")
        };
        let expected = anybit_reference::exact::gemm_i64(&small, &large).expect("a product");
        let context = rig.best();
        for ((m, n), x, w) in [((few, many), &small, &large), ((many, few), &large, &small)] {
            let problem = Problem::new((m, n, k), int8, int8).with_output(I32);
            let found = context
                .plan(&problem)
                .and_then(|plan| product(&context, &plan, x, w));
            match found {
                Err(error) => rig.note(Err(format!("{m}x{n}: {error}"))),
                Ok((values, dispatches)) => {
                    println!("{m}x{n}x{k}: {dispatches} dispatches");
                    let found = values.into_i32().unwrap_or_default();
                    let expected: Vec<i64> = match m == few {
                        true => expected.clone(),
                        false => (0..m * n)
                            .map(|place| expected[place % few * many + place / few])
                            .collect(),
                    };
                    rig.note_wrong("over 4 GiB", compare::exact(&found, &expected));
                }
            }
        }
    });
}
