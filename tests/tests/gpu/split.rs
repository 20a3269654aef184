//! Products whose K is split into parts that a second kernel adds up.

use anybit::{
    Batch, Context, Engine, Epilogue, Operands, OutputFormat, PlanOptions, Problem, Skeleton, wgpu,
};
use anybit_formats::Memory;
use anybit_reference::bound::{Bounded, ErrorModel};
use anybit_shaders::Modules;
use anybit_tests::case::{Case, Kernel};
use anybit_tests::compare;
use anybit_tests::model::{Outcome, bounded, filled, read, submit, values};
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{Rig, multiply, on_each_adapter, parts_of, reference_of_parts};

use Engine::{Bitplane, Dot4, Fma, IntegerFma, LMul, Swar};
use OutputFormat::{F16, F32, I32};

/// Each engine with what its sums need of a part alone: sums of codes, zero points, minima, signs, groups longer than a step.
const CONTRACTS: [(Engine, &str, &str, OutputFormat); 12] = [
    (Fma, "f32", "f16", F32),
    (Fma, "f32", "u4g128hm", F16),
    (LMul, "bf16", "e4m3rf", F32),
    (Dot4, "i8", "u8rfz", I32),
    (Dot4, "i8rf", "u4rfm", F16),
    (Dot4, "u8g32fz", "u4g128hm", F32),
    (Bitplane, "b1", "b2", I32),
    (Bitplane, "b2rf", "b1g128h", F32),
    (Bitplane, "i3", "u2", I32),
    (Bitplane, "u3rfz", "i2rf", F32),
    (Swar, "u4rfz", "u3rfm", F32),
    (IntegerFma, "u4rfz", "i4rh", F32),
];

/// The kernels of an engine that split K: the cheapest of each skeleton, and those of steps shorter than a block.
fn kernels(rig: &mut Rig, problem: &Problem, engine: Engine) -> Vec<Kernel> {
    rig.classes(problem, engine)
        .into_iter()
        .flat_map(|class| {
            let cheapest = class[0];
            let short = |kernel: &Kernel| (1..32).contains(&kernel.tile.k);
            class
                .into_iter()
                .filter(move |kernel| *kernel == cheapest || short(kernel))
        })
        .filter(|kernel| kernel.skeleton != Skeleton::Gemv)
        .collect()
}

#[test]
fn split_products_are_right() {
    on_each_adapter("split_products_are_right", |rig| {
        for (engine, x, w, output) in CONTRACTS {
            let sample = Problem::new((9, 38, 128), format(x), format(w)).with_output(output);
            let grouped = w.contains("g128");
            for kernel in kernels(rig, &sample, engine) {
                let step = match kernel.skeleton {
                    Skeleton::Tiled => kernel.tile.k.max(32) as usize,
                    _ => 32,
                };
                for parts in [2, 3] {
                    let kernel = Kernel { parts, ..kernel };
                    let parts = parts as usize;
                    // A step for each part; a column in the last; parts of one step and of two, the last of them ragged.
                    let lengths = [parts * step, (parts - 1) * step + 1, (parts + 1) * step + 7];
                    for (seed, k) in lengths.into_iter().enumerate() {
                        let k = if grouped { k.next_multiple_of(128) } else { k };
                        let problem = Problem {
                            k,
                            ..sample.clone()
                        };
                        rig.check(&Case::new(problem.clone(), kernel, seed as u64));
                        let extremes = Case::new(problem.clone(), kernel, 7);
                        rig.check(&extremes.with_fills(Fill::LargestZeros, Fill::Random));
                        let batch = Batch {
                            count: 3,
                            broadcast_weight: seed == 0,
                            ..Batch::ONE
                        };
                        let batched = Problem {
                            m: 4,
                            n: 20,
                            ..problem
                        }
                        .with_batch(batch);
                        rig.check(&Case::new(batched, kernel, 9));
                    }
                    // Fewer steps than parts are no parts.
                    let short = Problem {
                        k: (parts - 1) * step,
                        ..sample.clone()
                    };
                    let caps = rig.context(&kernel).caps().clone();
                    rig.note(match kernel.id(&short, &caps) {
                        Some(id) if !grouped => Err(format!("{id} does {} columns", short.k)),
                        _ => Ok(()),
                    });
                }
            }
        }
    });
}

#[test]
fn residuals_are_added_once() {
    on_each_adapter("residuals_are_added_once", |rig| {
        for (engine, x, w) in [(Fma, "f32", "u4g32hm"), (Dot4, "i8rf", "i4rf")] {
            let (m, n, k) = (11, 35, 256);
            let problem = Problem::new((m, n, k), format(x), format(w)).with_residual();
            for kernel in kernels(rig, &problem, engine) {
                let kernel = Kernel { parts: 3, ..kernel };
                let context = rig.context(&kernel);
                let added = || -> Outcome<Option<String>> {
                    let id = kernel.id(&problem, context.caps()).ok_or("no kernel")?;
                    let plan = anybit::plan(&problem, context.caps(), &PlanOptions::kernel(&id))?;
                    let mut random = Random::new(3);
                    let x = operand(&problem.activation, (m, k), Fill::Random, &mut random);
                    let w = operand(&problem.weight, (n, k), Fill::Random, &mut random);
                    let residual = values(m * n, 100.0, &mut random);
                    let output = filled(&context, &vec![0.0; m * n], (m, n), 1)?;
                    let addend = filled(&context, &residual, (m, n), 1)?;
                    let operands = Operands {
                        activation: &context.upload(&x, &plan.activation_layout())?,
                        weight: &context.upload(&w, &plan.weight_layout())?,
                        output: &output,
                    };
                    let epilogue = Epilogue::residual(&addend);
                    let work = context.prepare_with(&plan, operands, &epilogue)?;
                    submit(&context, &[&work]);
                    let found = read(&context, &output)?;
                    let parts = parts_of(&plan)?;
                    let (exact, bounds) = reference_of_parts(&problem, engine, parts, &x, &w)?;
                    let products = exact.into_iter().zip(bounds).zip(residual);
                    let expected: Vec<Bounded> = products
                        .map(|((value, bound), residual)| {
                            ErrorModel::WGSL.with_residual(Bounded { value, bound }, residual)
                        })
                        .collect();
                    Ok(bounded(&found, &expected).map(|wrong| wrong.to_string()))
                };
                rig.note(match added() {
                    Ok(None) => Ok(()),
                    Ok(Some(wrong)) => Err(format!("{kernel}: {wrong}")),
                    Err(error) => Err(format!("{kernel}: {error}")),
                });
            }
        }
    });
}

/// A split kernel passes the self-check, whose K is its own.
#[test]
fn split_kernels_pass_a_self_check() {
    on_each_adapter("split_kernels_pass_a_self_check", |rig| {
        let context = rig.best();
        let problem = Problem::new((9, 40, 512), format("i8rf"), format("u4g32hm"));
        let options = PlanOptions::engine(Dot4).with_parts(2);
        let plan = context.plan_with(&problem, &options).expect("a plan");
        let found = context.self_check_blocking([&plan]);
        rig.note(match found {
            Ok(verdicts) if verdicts == [anybit::Verdict::Passed] => Ok(()),
            other => Err(format!("{}: {other:?}", plan.id())),
        });
    });
}

/// Changes of a module's text that must not go unnoticed.
const MUTATIONS: [(&str, &str, &str, &str); 6] = [
    (
        "a part is left out",
        "kernel/add_parts",
        "part = 1u;",
        "part = 2u;",
    ),
    (
        "a part is added twice",
        "kernel/add_parts",
        "var sum = parts[at];",
        "var sum = parts[at] + parts[at];",
    ),
    (
        "parts begin with the first step",
        "parts/split",
        "return part_begin(index % params.parts);",
        "return 0u;",
    ),
    (
        "parts end with K",
        "parts/split",
        "return min(part_begin(index % params.parts + 1u) / 32u, params.weight.blocks);",
        "return params.weight.blocks;",
    ),
    (
        "parts lie where others do",
        "rows/plain",
        "part * params.output_batch",
        "batch * params.output_batch",
    ),
    (
        "signs are counted from the first column",
        "core/integer",
        "tile.first_k, 32u * tile.end_block - tile.first_k",
        "0u, 32u * tile.end_block",
    ),
];

#[test]
fn wrong_parts_are_caught() {
    on_each_adapter("wrong_parts_are_caught", |rig| {
        let problem = Problem::new((5, 33, 448), format("b2"), format("b1")).with_output(I32);
        let mut options = PlanOptions::engine(Bitplane)
            .with_memory(Memory::Buffers)
            .with_parts(3);
        options.skeleton = Some(Skeleton::Tiled);
        let wrong = |rig: &Rig, modules: Modules<'static>| -> Outcome<bool> {
            let (device, queue) = pollster::block_on(
                rig.adapter()
                    .request_device(&wgpu::DeviceDescriptor::default()),
            )?;
            let context = Context::from_device_and_modules(device, queue, modules);
            let plan = context.plan_with(&problem, &options)?;
            let mut random = Random::new(0xb17e);
            let x = operand(&problem.activation, (5, 448), Fill::Random, &mut random);
            let w = operand(&problem.weight, (33, 448), Fill::Random, &mut random);
            let found = multiply(&context, &plan, &x, &w, &mut random)?;
            let expected = anybit_reference::exact::gemm_i64(&x, &w)?;
            let found = found.into_i32().ok_or("i32 outputs")?;
            Ok(compare::exact(&found, &expected).is_some())
        };
        let right = wrong(rig, Modules::embedded());
        rig.note(match right {
            Ok(false) => Ok(()),
            other => Err(format!("the unchanged shaders: {other:?}")),
        });
        for (what, module, from, to) in MUTATIONS {
            let modules = Modules::embedded();
            let text = modules.text(module).unwrap_or_default().to_owned();
            assert!(
                text.contains(from),
                "{module} no longer has `{from}`: the mutation needs another place"
            );
            let mutated = modules.with(module, text.replace(from, to));
            let result = wrong(rig, mutated);
            rig.note(match result {
                Ok(true) => Ok(()),
                other => Err(format!("{what}: {other:?}")),
            });
        }
    });
}

#[test]
fn preparing_again_makes_nothing() {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    let context = Context::from_device(device, queue);
    let problem = Problem::new((9, 38, 256), format("i8rf"), format("i4g32h")).with_output(F16);
    let options = PlanOptions::default()
        .with_memory(Memory::Buffers)
        .with_parts(3);
    let plan = context.plan_with(&problem, &options).expect("a plan");
    assert!(plan.id().contains("_split3"), "{}", plan.id());
    assert_eq!(plan.parts(), 3);
    context.warm_up([&plan]).expect("pipelines");
    let mut random = Random::new(1);
    let x = operand(&problem.activation, (9, 256), Fill::Random, &mut random);
    let w = operand(&problem.weight, (38, 256), Fill::Random, &mut random);
    let operands = Operands {
        activation: &context.upload(&x, &plan.activation_layout()).expect("X"),
        weight: &context.upload(&w, &plan.weight_layout()).expect("W"),
        output: &context.output(F16, 9, 38).expect("Y"),
    };
    let first = context.prepare(&plan, operands).expect("a product");
    let again = context.prepare(&plan, operands).expect("a product");
    assert_eq!(first.dispatches(), 2);
    assert!(first.bind_groups().eq(again.bind_groups()));
}
