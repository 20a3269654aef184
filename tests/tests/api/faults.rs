//! What goes wrong outside ends in an error, leaves nothing behind, and harms no other work.

use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use anybit::formats::MatrixFormat;
use anybit::{
    Context, Engine, Error, Operands, OutputFormat, Plan, PlanOptions, Problem, Skeleton, Values,
    wgpu,
};
use anybit_reference::exact;
use anybit_tests::adapter::{self, describe, skip};
use anybit_tests::compare;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig;

/// A product of new matrices, compared with the reference.
fn product(context: &Context, (m, n, k): (usize, usize, usize), seed: u64) -> Result<(), String> {
    let problem =
        Problem::new((m, n, k), format("i8"), format("u4")).with_output(OutputFormat::I32);
    let mut random = Random::new(seed);
    let x = operand(&problem.activation, (m, k), Fill::Random, &mut random);
    let w = operand(&problem.weight, (n, k), Fill::Random, &mut random);
    let plan = context.plan(&problem).map_err(|error| error.to_string())?;
    let found =
        rig::multiply(context, &plan, &x, &w, &mut random).map_err(|error| error.to_string())?;
    let Values::I32(found) = found else {
        return Err("no integers".to_owned());
    };
    let expected = exact::gemm_i64(&x, &w).map_err(|error| error.to_string())?;
    compare::exact(&found, &expected).map_or(Ok(()), |wrong| Err(wrong.to_string()))
}

/// Bytes that wgpu's allocator holds for a device, in all its blocks; `None` where the backend does not tell.
fn held(context: &Context) -> Option<u64> {
    // What was dropped is given back when the device is polled.
    let _ = context.device().poll(wgpu::PollType::wait_indefinitely());
    let report = context.device().generate_allocator_report()?;
    Some(report.total_allocated_bytes)
}

#[test]
fn a_thousand_matrices_leave_nothing() {
    for adapter in adapter::selected("a_thousand_matrices_leave_nothing") {
        let context = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
        let each = |from: u64, to: u64| {
            for seed in from..to {
                // Of many sizes, so that what is kept by size would be seen to grow.
                let size = 8 + seed as usize % 61;
                product(&context, (size % 7 + 1, size, 3 * size), seed)
                    .unwrap_or_else(|wrong| panic!("{}: {wrong}", describe(&adapter)));
            }
        };
        // Two matrices and an output in each.
        each(0, 100);
        let (before, bind_groups) = (held(&context), context.kept_bind_groups());
        each(100, 500);
        let after = held(&context);
        match (before, after) {
            (Some(before), Some(after)) => assert!(
                after <= before + (64 << 10),
                "{}: {before} bytes after 200 matrices, {after} after 1000",
                describe(&adapter)
            ),
            _ => skip(
                "a_thousand_matrices_leave_nothing",
                "the backend tells nothing of its memory",
            ),
        }
        assert!(
            context.kept_bind_groups() <= bind_groups.max(1),
            "bind groups outlive their matrices: {} of {bind_groups}",
            context.kept_bind_groups()
        );
    }
}

#[test]
fn threads_share_a_context() {
    for adapter in adapter::selected("threads_share_a_context") {
        let context = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
        let wrong: Vec<String> = thread::scope(|scope| {
            let workers: Vec<_> = (0..4_u64)
                .map(|worker| {
                    let context = context.clone();
                    scope.spawn(move || {
                        (0..25)
                            .filter_map(|turn| {
                                let seed = 100 * worker + turn;
                                let shape = (1 + seed as usize % 11, 37, 32 + seed as usize);
                                product(&context, shape, seed).err()
                            })
                            .collect::<Vec<String>>()
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap_or_else(|_| vec!["a panic".to_owned()]))
                .collect()
        });
        assert_eq!(wrong, [""; 0], "{}", describe(&adapter));
    }
}

/// Parts of K lie in memory that all products of a context share, so no submission of another thread may come between a product's
/// parts and their sum: not even where each dispatch would be a submission.
#[test]
fn threads_split_products_in_one_context() {
    for adapter in adapter::selected("threads_split_products_in_one_context") {
        let whole = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
        // Here the weights lie in several pieces, and so are the parts made.
        let limits = wgpu::Limits {
            max_storage_buffer_binding_size: 24 << 10,
            ..wgpu::Limits::default().or_worse_values_from(&adapter.limits())
        };
        let cut = rig::device(&adapter, wgpu::Features::empty(), limits);
        let contexts = [whole, cut]
            .map(|context| context.with_longest_dispatch(Some(Duration::from_nanos(1))));
        for (context, dispatches) in contexts.iter().zip([2, 3]) {
            let (m, n, k) = (3, 300, 256);
            let problem = Problem::new((m, n, k), format("i8rf"), format("i4g32h"));
            let plan = context
                .plan_with(&problem, &PlanOptions::engine(Engine::Dot4).with_parts(2))
                .expect("a plan");
            let wrong: Vec<String> = thread::scope(|scope| {
                let workers: Vec<_> = (0..2_u64)
                    .map(|worker| {
                        let plan = &plan;
                        scope.spawn(move || {
                            let mut random = Random::new(worker);
                            let problem = plan.problem();
                            let x = operand(&problem.activation, (m, k), Fill::Random, &mut random);
                            let w = operand(&problem.weight, (n, k), Fill::Random, &mut random);
                            let product = || -> Result<Vec<Option<Vec<f32>>>, Error> {
                                let output = context.output(OutputFormat::F32, m, n)?;
                                let operands = Operands {
                                    activation: &context.upload(&x, &plan.activation_layout())?,
                                    weight: &context.upload(&w, &plan.weight_layout())?,
                                    output: &output,
                                };
                                let work = context.prepare(plan, operands)?;
                                assert!(work.dispatches() >= dispatches);
                                let run = |_| Ok(context.run(&work, &output)?.into_f32());
                                (0..150).map(run).collect()
                            };
                            let found = product().map_err(|error| error.to_string())?;
                            let expected = rig::Expected::of(plan, &x, &w)?;
                            match found
                                .iter()
                                .flatten()
                                .find_map(|found| expected.wrong(Values::F32(found.clone())))
                            {
                                None => Ok(()),
                                Some(wrong) => Err(wrong.to_string()),
                            }
                        })
                    })
                    .collect();
                workers
                    .into_iter()
                    .filter_map(|worker| match worker.join() {
                        Ok(result) => result.err(),
                        Err(_) => Some("a panic".to_owned()),
                    })
                    .collect()
            });
            assert_eq!(wrong, [""; 0], "{}", describe(&adapter));
        }
    }
}

/// Work that the caller records and wgpu refuses, on a device that is well.
#[test]
fn what_wgpu_refuses_is_no_lost_device() {
    for adapter in adapter::selected("what_wgpu_refuses_is_no_lost_device") {
        let context = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
        let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 64,
            usage: wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let refused = context.submit(|encoder| {
            // It cannot be copied from.
            encoder.copy_buffer_to_buffer(&buffer, 0, &buffer, 32, 32);
            Ok(())
        });
        assert!(
            matches!(refused, Err(Error::Refused { .. })),
            "{}: {refused:?}",
            describe(&adapter)
        );
        product(&context, (5, 40, 70), 3)
            .unwrap_or_else(|wrong| panic!("{}: {wrong}", describe(&adapter)));
    }
}

/// Who polls is the caller's choice, also while a read is under way.
#[test]
fn the_caller_may_poll() {
    for adapter in adapter::selected("the_caller_may_poll") {
        let context = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
        let values: Vec<f32> = (0..64).map(|value| value as f32).collect();
        let x = context.upload_f32(&values, 8, 8).expect("an upload");
        let y = context.output(OutputFormat::F32, 8, 8).expect("an output");
        let decoding = context.prepare_decode(&x, &y).expect("decoding");
        let read = || context.submit_and_read(&[&decoding], &y).expect("a submit");
        let once = |future: &mut Pin<Box<dyn Future<Output = Result<Values, Error>>>>| {
            let mut waker = task::Context::from_waker(Waker::noop());
            match future.as_mut().poll(&mut waker) {
                Poll::Ready(values) => values.expect("the values").into_f32(),
                Poll::Pending => None,
            }
        };
        context.external_poll(true);
        let mut first: Pin<Box<dyn Future<Output = _>>> = Box::pin(read().read());
        // Nobody has polled; software may still be done.
        let _ = once(&mut first);
        context
            .device()
            .poll(wgpu::PollType::wait_indefinitely())
            .expect("a poll");
        let mut second: Pin<Box<dyn Future<Output = _>>> = Box::pin(read().read());
        let early = once(&mut second);
        // The helper takes over what was begun without it.
        context.external_poll(false);
        let (sender, receiver) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| sender.send(read().read_blocking()));
            let other = receiver.recv_timeout(Duration::from_secs(60));
            let other = other.expect("an answer").expect("the values").into_f32();
            assert_eq!(other.as_ref(), Some(&values));
        });
        let begun = Instant::now();
        let mut late = early;
        while late.is_none() && begun.elapsed() < Duration::from_secs(60) {
            late = once(&mut second);
        }
        assert_eq!(late.as_ref(), Some(&values), "{}", describe(&adapter));
    }
}

#[test]
fn reads_that_are_dropped_do_no_harm() {
    for adapter in adapter::selected("reads_that_are_dropped_do_no_harm") {
        let context = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
        let values: Vec<f32> = (0..4096).map(|value| value as f32).collect();
        let x = context.upload_f32(&values, 64, 64).expect("an upload");
        let y = context
            .output(OutputFormat::F32, 64, 64)
            .expect("an output");
        let decoding = context.prepare_decode(&x, &y).expect("decoding");
        let read = || context.submit_and_read(&[&decoding], &y).expect("a submit");
        let first = read().read_blocking().expect("the values").into_f32();
        assert_eq!(first.as_ref(), Some(&values));
        let before = held(&context);
        for turn in 0..200 {
            let pending = read();
            if turn % 2 == 0 {
                // Some are well under way.
                let _ = context.device().poll(wgpu::PollType::Poll);
            }
            if turn % 3 == 0 {
                // Of these the device has been asked.
                let mut reading = Box::pin(pending.read());
                let mut waker = task::Context::from_waker(Waker::noop());
                let _ = reading.as_mut().poll(&mut waker);
            } else {
                drop(pending);
            }
        }
        let last = read().read_blocking().expect("the values").into_f32();
        assert_eq!(last.as_ref(), Some(&values));
        if let (Some(before), Some(after)) = (before, held(&context)) {
            assert!(
                after <= before + (1 << 20),
                "{}: {before} bytes before, {after} after 200 reads that were dropped",
                describe(&adapter)
            );
        }
    }
}

/// wgpu refuses allocations past a share of the device's memory, where the driver tells how much that is: with a share of
/// nothing, the first.
#[test]
fn memory_that_is_not_there_is_an_error() {
    let test = "memory_that_is_not_there_is_an_error";
    for adapter in adapter::selected(test) {
        let info = adapter.get_info();
        let found = pollster::block_on(async {
            let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
                backends: wgpu::Backends::from(info.backend),
                memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
                    for_resource_creation: Some(0),
                    for_device_loss: None,
                },
                ..wgpu::InstanceDescriptor::new_without_display_handle()
            });
            let adapters = instance
                .enumerate_adapters(wgpu::Backends::from(info.backend))
                .await;
            let adapter = adapters
                .into_iter()
                .find(|other| other.get_info().name == info.name)?;
            let opened = adapter.request_device(&wgpu::DeviceDescriptor::default());
            opened.await.ok()
        });
        let Some((device, queue)) = found else {
            skip(test, "the adapter makes no second device");
            continue;
        };
        let context = Context::from_device(device, queue);
        let results = [
            (
                "an upload",
                context
                    .upload_f32(&vec![1.0; 1 << 20], 1 << 10, 1 << 10)
                    .map(|_| ()),
            ),
            (
                "an output",
                context.output(OutputFormat::F32, 1024, 1024).map(|_| ()),
            ),
        ];
        if results.iter().all(|(_, result)| result.is_ok()) {
            skip(test, "the driver tells nothing of its memory");
            continue;
        }
        for (what, result) in results {
            assert!(
                matches!(result, Err(Error::OutOfMemory { .. })),
                "{}: {what}: {result:?}",
                describe(&adapter)
            );
        }
        // Nothing is lost: the context still refuses and plans as before.
        let problem = Problem::new((8, 8, 8), MatrixFormat::F32, MatrixFormat::F32);
        assert!(context.plan(&problem).is_ok());
    }
}

/// Set in the process that is started with little memory.
const LITTLE_MEMORY: &str = "ANYBIT_TEST_LITTLE_MEMORY";

/// Memory that the system refuses a driver, as a GPU's is when it is full: in a process of its own, whose addresses are limited.
#[test]
fn memory_that_runs_out_is_an_error_and_comes_back() {
    let test = "memory_that_runs_out_is_an_error_and_comes_back";
    let is_child = std::env::var_os(LITTLE_MEMORY).is_some();
    for adapter in adapter::selected(test) {
        let info = adapter.get_info();
        let software = info.device_type == wgpu::DeviceType::Cpu;
        if !cfg!(target_os = "linux") || !software || info.backend != wgpu::Backend::Vulkan {
            skip(
                test,
                "only software adapters of Vulkan on Linux get their memory so",
            );
            continue;
        }
        if is_child {
            run_out_of_memory(&adapter);
            continue;
        }
        let program = std::env::current_exe().expect("the tests run");
        let output = Command::new("sh")
            .args(["-c", "ulimit -v 8000000 && exec \"$@\"", "sh"])
            .arg(program)
            .args([
                "--exact",
                &format!("api::faults::{test}"),
                "--test-threads=1",
            ])
            .env(LITTLE_MEMORY, "1")
            .output()
            .expect("there is a shell");
        assert!(
            output.status.success(),
            "{}: {}\n{}",
            describe(&adapter),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Outputs until there is no more memory; then the context must work on, and have as much again.
fn run_out_of_memory(adapter: &wgpu::Adapter) {
    let context = pollster::block_on(Context::from_adapter(adapter)).expect("a device");
    product(&context, (5, 40, 70), 1).expect("there is memory yet");
    // Nothing is written to them, so they take addresses alone.
    let fill = || {
        let mut held = Vec::new();
        loop {
            match context.output(OutputFormat::F32, 4096, 8192) {
                Ok(output) if held.len() < 200 => held.push(output),
                Ok(_) => panic!("25 GiB were given where 8 are"),
                Err(error) => {
                    assert!(matches!(error, Error::OutOfMemory { .. }), "{error:?}");
                    return held.len();
                }
            }
        }
    };
    let first = fill();
    assert!(first > 4, "{first} outputs of 128 MiB");
    // With next to nothing left, what is written to the device has nowhere to wait.
    let tokens = vec![7_u32; 6 << 20];
    let sequence = context
        .sequence(tokens.len())
        .expect("there is memory again");
    let mut held = Vec::new();
    for rows in [4096, 512] {
        while let Ok(output) = context.output(OutputFormat::F32, rows, 8192) {
            held.push(output);
        }
    }
    // wgpu gives a device up that had no memory for what it writes with.
    match context.write_tokens(&sequence, 0, &tokens) {
        Err(Error::DeviceLost { reason }) => assert!(reason.contains("no memory"), "{reason}"),
        other => panic!("{other:?}"),
    }
    drop((held, sequence, context));
    let context = pollster::block_on(Context::from_adapter(adapter)).expect("another device");
    let fill = || {
        let mut held = Vec::new();
        while let Ok(output) = context.output(OutputFormat::F32, 4096, 8192) {
            held.push(output);
        }
        held.len()
    };
    for round in 0..3 {
        let _ = context.device().poll(wgpu::PollType::wait_indefinitely());
        product(&context, (5, 40, 70), round).expect("the context works on");
        let again = fill();
        assert!(again >= first - 1, "{again} outputs after {first}");
    }
}

/// After a device is gone, matrices on the host serve a new one.
#[test]
fn a_new_context_works_after_a_lost_one() {
    for adapter in adapter::selected("a_new_context_works_after_a_lost_one") {
        let (m, n, k) = (3, 17, 96);
        let problem =
            Problem::new((m, n, k), format("i4"), format("b2")).with_output(OutputFormat::I32);
        let mut random = Random::new(5);
        let x = operand(&problem.activation, (m, k), Fill::Random, &mut random);
        let w = operand(&problem.weight, (n, k), Fill::Random, &mut random);
        let multiplied = |context: &Context| -> Result<Values, Error> {
            let plan = context.plan(&problem)?;
            let activation = context.upload(&x, &plan.activation_layout())?;
            let weight = context.upload(&w, &plan.weight_layout())?;
            let output = context.output(OutputFormat::I32, m, n)?;
            let operands = Operands {
                activation: &activation,
                weight: &weight,
                output: &output,
            };
            let prepared = context.prepare(&plan, operands)?;
            context.run(&prepared, &output)
        };
        let lost = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
        let before = multiplied(&lost).expect("a product");
        lost.device().destroy();
        let after = multiplied(&lost);
        assert!(
            matches!(after, Err(Error::DeviceLost { .. })),
            "{}: {after:?}",
            describe(&adapter)
        );
        // An adapter makes one device in some APIs, so it is looked for again.
        let name = adapter.get_info().name;
        let options = anybit::ContextOptions::default()
            .with_backends(wgpu::Backends::from(adapter.get_info().backend))
            .with_adapter(name);
        let context = Context::request_blocking(&options).expect("the adapter is still there");
        assert_eq!(multiplied(&context).expect("a product"), before);
    }
}

/// A plan that was made for another device, and matrices that lie on one.
#[test]
fn plans_and_matrices_of_another_device_are_refused() {
    for adapter in adapter::selected("plans_and_matrices_of_another_device_are_refused") {
        let rich = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
        let limits = wgpu::Limits::default().or_worse_values_from(&adapter.limits());
        let poor = rig::device(&adapter, wgpu::Features::empty(), limits);
        let (m, n, k) = (16, 256, 128);
        let problem = Problem::new((m, n, k), format("i8"), format("i4"));
        let problem = problem.with_output(OutputFormat::I32);
        let mut random = Random::new(9);
        let x = operand(&problem.activation, (m, k), Fill::Random, &mut random);
        let w = operand(&problem.weight, (n, k), Fill::Random, &mut random);
        let prepare = |plan: &Plan, [of_x, of_w, of_y, here]: [&Context; 4]| -> Result<_, Error> {
            let activation = of_x.upload(&x, &plan.activation_layout())?;
            let weight = of_w.upload(&w, &plan.weight_layout())?;
            let output = of_y.output(OutputFormat::I32, m, n)?;
            let operands = Operands {
                activation: &activation,
                weight: &weight,
                output: &output,
            };
            here.prepare(plan, operands).map(drop)
        };
        let what = describe(&adapter);
        // A kernel of subgroups, where only one of the devices has them.
        let mut options = PlanOptions::default();
        options.skeleton = Some(Skeleton::Subgroup);
        match rich.plan_with(&problem, &options) {
            Ok(plan) => {
                let refused = prepare(&plan, [&poor; 4]);
                assert!(
                    matches!(refused, Err(Error::Pipeline { .. })),
                    "{what}: {refused:?}"
                );
            }
            Err(error) => skip(
                "plans_and_matrices_of_another_device_are_refused",
                &error.to_string(),
            ),
        }
        // Matrices of one device in the work of the other.
        let plan = poor.plan(&problem).expect("a plan");
        for place in 0..3 {
            let mut contexts = [&poor; 4];
            contexts[place] = &rich;
            let refused = prepare(&plan, contexts);
            assert!(refused.is_err(), "{what}: operand {place} was taken");
        }
        // Devices that were asked for by name, each by itself.
        let options = anybit::ContextOptions::default()
            .with_backends(wgpu::Backends::from(adapter.get_info().backend))
            .with_adapter(adapter.get_info().name);
        let [one, other] = [&options, &options]
            .map(|options| Context::request_blocking(options).expect("the adapter is still there"));
        let plan = one.plan(&problem).expect("a plan");
        for place in 0..3 {
            let mut contexts = [&one; 4];
            contexts[place] = &other;
            // So that the same numbers stand for other buffers.
            let _first = one.output(OutputFormat::I32, m, n).expect("an output");
            let refused = prepare(&plan, contexts);
            assert!(refused.is_err(), "{what}: operand {place} was taken");
        }
        // Neither has come to harm.
        for context in [&rich, &poor, &one, &other] {
            product(context, (5, 40, 70), 3).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        }
    }
}
