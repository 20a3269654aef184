//! Self-checks: right kernels pass them, and a kernel that a driver gets wrong is found out and worked round.

use std::time::{Duration, Instant};

use anybit::{
    Context, Engine, Error, OutputFormat, PlanOptions, Problem, Reason, Skeleton, Values, Verdict,
    Verdicts, candidates, wgpu,
};
use anybit_formats::{Memory, Nesting};
use anybit_shaders::Modules;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{multiply, on_each_adapter, reference};
use anybit_tests::{adapter, compare};

use Engine::{Bitplane, Dot4, Fma, LMul, Lut, Lut8};
use OutputFormat::{F16, F32, I32};

/// Contracts that bring each way of making a case: families of elements, kinds of scales and zeros, outputs.
const CONTRACTS: &[(Engine, usize, &str, &str, OutputFormat)] = &[
    (Dot4, 5, "i8", "i8", I32),
    (Dot4, 1, "b8rfz", "u4g32hm", F32),
    (Dot4, 5, "e2m1rf", "e2m1g16k", F32),
    (Dot4, 5, "i8g32f", "u4g256sm", F32),
    (Bitplane, 5, "b1", "t", I32),
    (Bitplane, 5, "u3rf", "b2g64fz", F16),
    (Fma, 5, "f16", "e5m2rf", F32),
    (Fma, 5, "bf16", "nf4g32h", F32),
    (Fma, 1, "f32", "bitmod4g32qc", F32),
    (Lut, 1, "f16", "u3g32fz", F32),
];

#[test]
fn right_kernels_pass() {
    on_each_adapter("right_kernels_pass", |rig| {
        let mut times = Vec::new();
        for &(engine, m, x, w, output) in CONTRACTS {
            let context = rig.best();
            let problem = Problem::new((m, 40, 512), format(x), format(w)).with_output(output);
            // Tiles that unroll little, since cases are large enough for any.
            let plan = context
                .plan_with(&problem, &PlanOptions::engine(engine))
                .unwrap_or_else(|error| panic!("{x} {w}: {error}"));
            // Once, since software drivers finish pipelines when they are first run.
            let mut random = Random::new(1);
            let x = operand(&problem.activation, (m, 512), Fill::Random, &mut random);
            let w = operand(&problem.weight, (40, 512), Fill::Random, &mut random);
            multiply(&context, &plan, &x, &w, &mut random).expect("a product");
            let begun = Instant::now();
            let found = context.self_check_blocking([&plan, &plan]);
            let time = begun.elapsed();
            println!("{}: {time:.1?} warm", plan.id());
            times.push(time);
            rig.note(match found {
                Ok(verdicts) if verdicts == [Verdict::Passed, Verdict::Passed] => Ok(()),
                Ok(verdicts) => Err(format!("{}: {}", plan.id(), verdicts[0])),
                Err(error) => Err(format!("{}: {error}", plan.id())),
            });
            let known = context.verdicts();
            rig.note(match known.get(plan.id()) {
                Some(Verdict::Passed) => Ok(()),
                other => Err(format!("{}: {other:?} is kept", plan.id())),
            });
        }
        // Promised are 5 ms on lavapipe, where nothing else runs; other tests do. No shape makes the driver compile again, which takes
        // it a second.
        times.sort();
        let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
        let in_time = median < Duration::from_millis(40) && slowest < Duration::from_millis(400);
        let info = rig.adapter().get_info();
        let lavapipe = info.backend == wgpu::Backend::Vulkan && info.name.contains("llvmpipe");
        rig.note(match !lavapipe || in_time {
            true => Ok(()),
            false => Err(format!(
                "half of the checks took {median:.1?} and more, the slowest {slowest:.1?}"
            )),
        });
        // Weights that are read at fewer bits, and a residual.
        let context = rig.best();
        let narrow = format("i8g32h").nested(4).expect("int8");
        for nesting in Nesting::ALL {
            for engine in [Dot4, Bitplane] {
                let problem = Problem::new((5, 40, 512), format("i8rf"), narrow).with_residual();
                let options = PlanOptions::engine(engine).with_nesting(nesting);
                let plan = context.plan_with(&problem, &options).expect("a plan");
                let found = context.self_check_blocking([&plan]);
                rig.note(match found {
                    Ok(verdicts) if verdicts == [Verdict::Passed] => Ok(()),
                    other => Err(format!("{}: {other:?}", plan.id())),
                });
            }
        }
        // Experts, with and without codes: rows of X meet the right one's rows of W, of one tile and of several.
        for (engine, m, x, w, output) in [
            (Dot4, 1, "i8", "i4", I32),
            (Dot4, 70, "i8rf", "u4g32hm", F32),
            (Fma, 70, "f16", "f16", F16),
            (Bitplane, 70, "i3", "u2", I32),
        ] {
            let problem = Problem::new((m, 40, 512), format(x), format(w))
                .with_output(output)
                .with_experts(8);
            let plan = context
                .plan_checked_blocking(&problem, &PlanOptions::engine(engine))
                .unwrap_or_else(|error| panic!("{x} {w}: {error}"));
            let first = context.plan_with(&problem, &PlanOptions::engine(engine));
            // None before it has failed.
            rig.note(match first.map(|first| first.id() == plan.id()) {
                Ok(true) => Ok(()),
                other => Err(format!("{}: {other:?}", plan.id())),
            });
        }
        // Nothing exact is known of these.
        for (engine, x) in [(LMul, "f32"), (Lut8, "f32")] {
            let problem = Problem::new((1, 40, 512), format(x), format("i2g32h"));
            let plan = context
                .plan_with(&problem, &PlanOptions::engine(engine))
                .expect("a plan");
            let found = context.self_check_blocking([&plan]);
            rig.note(match found {
                Err(Error::NoSelfCheck { kernel }) if kernel == plan.id() => Ok(()),
                other => Err(format!("{}: {other:?}", plan.id())),
            });
        }
    });
}

/// Verdicts of one run serve the next, on the same device with the same driver and shaders alone.
#[test]
fn verdicts_are_kept_from_run_to_run() {
    on_each_adapter("verdicts_are_kept_from_run_to_run", |rig| {
        let context = rig.best();
        let problem = Problem::new((5, 40, 96), format("i8"), format("i8")).with_output(I32);
        let plan = context.plan(&problem).expect("a plan");
        let found = context.self_check_blocking([&plan]).expect("a verdict");
        assert_eq!(found, [Verdict::Passed]);
        let wrong = Verdict::Wrong {
            count: 3,
            row: 1,
            column: 2,
            expected: "5".into(),
            found: "Some(4)".into(),
        };
        let verdicts = context
            .verdicts()
            .with("another", wrong)
            .with("a third", Verdict::Rejected("no \"reason\"".into()));
        let caps = context.caps();
        let text = verdicts.to_json(caps);
        rig.note(match Verdicts::from_json(&text, caps) == verdicts {
            true => Ok(()),
            false => Err(format!("{text} is read as something else")),
        });

        // What is not checked again is denied, or taken, as it was.
        let later = pollster::block_on(Context::from_adapter(rig.adapter())).expect("a device");
        let denied = context
            .verdicts()
            .with(plan.id(), Verdict::Rejected("so".into()));
        later.add_verdicts(&Verdicts::from_json(&denied.to_json(caps), later.caps()));
        assert_eq!(later.verdicts(), denied);
        let other = later.plan(&problem).expect("another plan");
        assert_ne!(other.id(), plan.id());
        // What was found here stays.
        later.add_verdicts(&verdicts);
        assert_eq!(later.verdicts().get(plan.id()), denied.get(plan.id()));

        let mut elsewhere = caps.clone();
        elsewhere.driver.push('1');
        let mut renamed = caps.clone();
        renamed.name.push('1');
        for caps in [&elsewhere, &renamed] {
            assert_eq!(Verdicts::from_json(&text, caps).iter().len(), 0);
        }
        let digest = text.split("\"shaders\":\"").nth(1).expect("a digest");
        let changed = text.replace(&digest[..64], &"0".repeat(64));
        let long = format!("{text}{}", " ".repeat(5 << 20));
        let nested = "[".repeat(100_000);
        for damaged in [
            "",
            "{}",
            &text[1..],
            &text[..text.len() / 2],
            &changed,
            &long,
            &nested,
        ] {
            let read = Verdicts::from_json(damaged, caps);
            assert_eq!(
                read.iter().len(),
                0,
                "{}",
                &damaged[..damaged.len().min(80)]
            );
        }
    });
}

/// Contracts for each way of spilling, and each family that f16 holds.
const MATRIX: &[(&str, &str, OutputFormat)] = &[
    ("i8", "i8", I32),
    ("b8rfz", "u8rfz", F32),
    ("i8rf", "u4rfm", F32),
    ("i8rf", "u4g32hm", F32),
    ("u3g32f", "e2m1g16k", F16),
    ("f16", "f16", F32),
    ("f16", "e5m2rf", F32),
    ("f16", "bitmod4g32qc", F32),
];

/// On devices with cooperative matrices, in builds that ask for them: with anybit's feature `experimental`.
#[test]
fn matrix_kernels_are_right_where_they_pass() {
    let test = "matrix_kernels_are_right_where_they_pass";
    for adapter in adapter::selected(test) {
        let context = pollster::block_on(Context::from_adapter(&adapter))
            .unwrap_or_else(|error| panic!("{error}"));
        if let Err(missing) = context.caps().matrix {
            println!("SKIP {test} on {}: {missing}", adapter::describe(&adapter));
            continue;
        }
        let mut random = Random::new(0x3a7);
        for &(x, w, output) in MATRIX {
            for (m, n, k) in [(1, 1, 32), (64, 64, 2560), (67, 131, 1120)] {
                let problem = Problem::new((m, n, k), format(x), format(w)).with_output(output);
                let options = PlanOptions::engine(Engine::Matrix).with_unchecked(true);
                let (accepted, _) =
                    candidates(&problem, context.caps(), &options).expect("a problem");
                for candidate in accepted {
                    let id = candidate.specialization.id;
                    let options = PlanOptions::kernel(&id).with_unchecked(true);
                    let plan = context
                        .plan_with(&problem, &options)
                        .unwrap_or_else(|error| panic!("{id}: {error}"));
                    let verdicts = context
                        .self_check_blocking([&plan])
                        .unwrap_or_else(|error| panic!("{id}: {error}"));
                    if verdicts != [Verdict::Passed] {
                        println!("{id} is denied: {}", verdicts[0]);
                        continue;
                    }
                    let x = operand(&problem.activation, (m, k), Fill::Random, &mut random);
                    let w = operand(&problem.weight, (n, k), Fill::Random, &mut random);
                    let found = multiply(&context, &plan, &x, &w, &mut random)
                        .unwrap_or_else(|error| panic!("{id}: {error}"));
                    let wrong = match found {
                        Values::I32(found) => {
                            let expected = anybit_reference::exact::gemm_i64(&x, &w);
                            compare::exact(&found, &expected.expect("a product"))
                        }
                        found => {
                            let (expected, bounds) =
                                reference(&problem, Engine::Matrix, &x, &w).expect("bounds");
                            let found = found.into_f32().unwrap_or_default();
                            compare::bounded(&found, &expected, &bounds)
                        }
                    };
                    assert!(wrong.is_none(), "{id} {m}x{n}x{k}: {wrong:?}");
                }
            }
        }
    }
}

/// A context on the adapter without optional features, whose shaders have one place changed.
fn context(adapter: &wgpu::Adapter, module: &str, from: &str, to: &str) -> Context {
    let modules = Modules::embedded();
    let text = modules.text(module).unwrap_or_default().to_owned();
    assert!(
        text.contains(from),
        "{module} no longer has `{from}`: the mutation needs another place"
    );
    let modules = modules.with(module.to_owned(), text.replace(from, to));
    let descriptor = wgpu::DeviceDescriptor {
        required_limits: wgpu::Limits::default().or_worse_values_from(&adapter.limits()),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
        .unwrap_or_else(|error| panic!("{error}"));
    Context::from_device_and_modules(device, queue, modules)
}

/// A sum that loses its last bit where it is large, as in units that add up in too few bits; a kernel that is wrong everywhere;
/// and one that the driver does not compile.
#[test]
fn a_wrong_kernel_is_denied_and_worked_round() {
    let module = "kernel/gemm_tiled_dot4";
    let broken = [
        (
            "pair[c] = acc_finish(acc[m * THREAD_N + n + c],",
            "let whole = acc[m * THREAD_N + n + c];
                pair[c] = acc_finish(select(whole, whole & ~1, abs(whole) > 5000),",
            true,
        ),
        ("sum_integers[i] += span.integers;", "", true),
        (
            "var sum_integers: array<i32, ROUNDS>;",
            "var sum_integers: array<f32, ROUNDS>;",
            false,
        ),
    ];
    on_each_adapter("a_wrong_kernel_is_denied_and_worked_round", |rig| {
        for (from, to, compiles) in broken {
            let context = context(rig.adapter(), module, from, to);
            let problem = Problem::new((20, 40, 500), format("u4"), format("i4")).with_output(I32);
            let mut options = PlanOptions::engine(Dot4).with_memory(Memory::Buffers);
            options.skeleton = Some(Skeleton::Tiled);
            let first = context.plan_with(&problem, &options).expect("a plan");
            let verdicts = context
                .self_check_blocking([&first])
                .unwrap_or_else(|error| panic!("{error}"));
            rig.note(match (&verdicts[..], compiles) {
                ([Verdict::Wrong { count: 1.., .. }], true) | ([Verdict::Rejected(_)], false) => {
                    Ok(())
                }
                (other, _) => Err(format!("{module}: {other:?}")),
            });
            // It is planned no more, and says why.
            let explained = context.explain(&problem, &options).expect("a problem");
            let denied = explained
                .refusals
                .iter()
                .filter(|refusal| refusal.reason == Reason::Denied);
            rig.note(match denied.count() {
                1 => Ok(()),
                count => Err(format!("{module}: {count} kernels are denied")),
            });
            let again = context.plan_with(&problem, &options);
            rig.note(match &again {
                Ok(plan) if plan.id() != first.id() => Ok(()),
                other => Err(format!("{module}: {other:?} after {}", first.id())),
            });
            // With no kernel of this kind left, another does the work, rightly.
            let free = PlanOptions::default().with_memory(Memory::Buffers);
            let none_left = context.plan_checked_blocking(&problem, &options);
            rig.note(match none_left {
                Err(Error::Unsupported { .. }) => Ok(()),
                other => Err(format!("{module}: {other:?}")),
            });
            let plan = match context.plan_checked_blocking(&problem, &free) {
                Ok(plan) => plan,
                Err(error) => {
                    rig.note(Err(format!("{module}: {error}")));
                    continue;
                }
            };
            // Who asks for it gets no other from `plan` either.
            let careful = context.clone().with_self_checks();
            rig.note(match careful.plan_with(&problem, &free) {
                Ok(careful) if careful.id() == plan.id() => Ok(()),
                other => Err(format!("{module}: {other:?} and {}", plan.id())),
            });
            let mut random = Random::new(7);
            let x = operand(&format("u4"), (20, 500), Fill::Random, &mut random);
            let w = operand(&format("i4"), (40, 500), Fill::Random, &mut random);
            let values = multiply(&context, &plan, &x, &w, &mut random)
                .unwrap_or_else(|error| panic!("{error}"));
            let expected = anybit_reference::exact::gemm_i64(&x, &w).expect("a product");
            let found = values.into_i32().expect("integers");
            rig.note_wrong(plan.id(), compare::exact(&found, &expected));
        }
    });
}

/// A context that checks what it plans, from its first plan on; and one without checks, which is as wrong as its driver.
#[test]
fn who_asks_for_checks_gets_right_kernels() {
    let module = "kernel/gemm_tiled_dot4";
    on_each_adapter("who_asks_for_checks_gets_right_kernels", |rig| {
        let context = context(
            rig.adapter(),
            module,
            "sum_integers[i] += span.integers;",
            "",
        );
        let problem = Problem::new((20, 40, 500), format("u4"), format("i4")).with_output(I32);
        let mut options = PlanOptions::default().with_memory(Memory::Buffers);
        options.skeleton = Some(Skeleton::Tiled);
        options.engine = Some(Dot4);
        let trusting = context.plan_with(&problem, &options).expect("a plan");
        let careful = context.clone().with_self_checks();
        rig.note(match careful.plan_with(&problem, &options) {
            Err(Error::Unsupported { .. }) => Ok(()),
            other => Err(format!("{other:?} is wrong, as is {}", trusting.id())),
        });
        let found = careful.prepare_together(|careful| {
            // Within, where pipelines are left for later, a check is none the less one.
            careful.plan(&problem)
        });
        rig.note(match found {
            Ok(plan) if careful.verdicts().get(plan.id()) == Some(&Verdict::Passed) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        // Kernels without a check are planned as ever.
        let problem = Problem::new((1, 40, 512), format("f32"), format("i2g32h"));
        rig.note(
            match careful.plan_with(&problem, &PlanOptions::engine(LMul)) {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        );
        // Nor does the tuner measure what is wrong.
        let problem = Problem::new((20, 40, 64), format("u4"), format("i4")).with_output(I32);
        let options = anybit::TuneOptions::new(vec![problem]).with_time(Duration::from_secs(1));
        let tuning = careful.tune_blocking(&options, |_| ()).expect("a tuning");
        let denied: Vec<&str> = careful
            .verdicts()
            .iter()
            .filter(|(_, verdict)| **verdict != Verdict::Passed)
            .flat_map(|(id, _)| {
                let kernels = tuning.problems[0].kernels.iter();
                kernels
                    .map(|kernel| kernel.id.as_str())
                    .filter(move |of| *of == id)
                    .collect::<Vec<_>>()
            })
            .collect();
        rig.note(match denied[..] {
            [] => Ok(()),
            _ => Err(format!("{denied:?} were measured")),
        });
    });
}

/// A residual that is left out, which zeros for a residual would not show.
#[test]
fn a_residual_that_is_left_out_is_found() {
    let module = "output/f32_residual";
    let dropped = ("second + out_residual[index + 1u]", "second");
    on_each_adapter("a_residual_that_is_left_out_is_found", |rig| {
        let context = context(rig.adapter(), module, dropped.0, dropped.1);
        for (engine, x, w) in [(Dot4, "i8rf", "i4g32h"), (Fma, "f32", "f32")] {
            let problem = Problem::new((1, 40, 512), format(x), format(w)).with_residual();
            let options = PlanOptions::engine(engine);
            let plan = context.plan_with(&problem, &options).expect("a plan");
            rig.note(match context.self_check_blocking([&plan]).as_deref() {
                Ok([Verdict::Wrong { count: 1.., .. }]) => Ok(()),
                other => Err(format!("{}: {other:?}", plan.id())),
            });
        }
    });
}
