//! What the host keeps, and compiles ahead. On wgpu's noop backend.

use std::sync::Barrier;
use std::thread;

use anybit::formats::Memory;
use anybit::{
    Context, DeviceMatrix, Error, Operands, OutputFormat, OutputMatrix, Plan, PlanOptions,
    Prepared, Problem, wgpu,
};
use anybit_tests::adapter;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;

fn context() -> Context {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    Context::from_device(device, queue)
}

fn plan(context: &Context, m: usize, weight: &str) -> Plan {
    let problem = Problem::new((m, 64, 96), format("i8rf"), format(weight));
    // The noop backend keeps no texels.
    let in_buffers = PlanOptions::default().with_memory(Memory::Buffers);
    context.plan_with(&problem, &in_buffers).expect("a plan")
}

struct Set {
    plan: Plan,
    activation: DeviceMatrix,
    weight: DeviceMatrix,
    output: OutputMatrix,
}

impl Set {
    fn new(context: &Context) -> Self {
        let plan = plan(context, 2, "i4g32h");
        let upload = |name: &str, rows, layout| {
            let matrix = operand(&format(name), (rows, 96), Fill::Random, &mut Random::new(1));
            context.upload(&matrix, &layout).expect("an upload")
        };
        Self {
            activation: upload("i8rf", 2, plan.activation_layout()),
            weight: upload("i4g32h", 64, plan.weight_layout()),
            output: context.output(OutputFormat::F32, 2, 64).expect("an output"),
            plan,
        }
    }

    fn operands(&self) -> Operands<'_> {
        Operands {
            activation: &self.activation,
            weight: &self.weight,
            output: &self.output,
        }
    }

    fn prepare(&self, context: &Context) -> Prepared {
        context
            .prepare(&self.plan, self.operands())
            .expect("a product")
    }
}

fn same(a: &Prepared, b: &Prepared) -> bool {
    a.bind_groups().len() == b.bind_groups().len() && a.bind_groups().eq(b.bind_groups())
}

#[test]
fn the_same_operands_share_a_bind_group() {
    let context = context();
    let set = Set::new(&context);
    let first = set.prepare(&context);
    assert!(same(&first, &set.prepare(&context)));
    drop(first);
    let again = set.prepare(&context);
    // Clones are the same matrices.
    let clones = Operands {
        activation: &set.activation.clone(),
        weight: &set.weight.clone(),
        output: &set.output.clone(),
    };
    assert!(same(
        &again,
        &context.prepare(&set.plan, clones).expect("a product")
    ));
    assert_eq!(context.kept_bind_groups(), 1);

    // Another output, and another context, have their own.
    let other = Operands {
        output: &context.output(OutputFormat::F32, 2, 64).expect("an output"),
        ..set.operands()
    };
    assert!(!same(
        &again,
        &context.prepare(&set.plan, other).expect("a product")
    ));
    let twin = Context::from_device(context.device().clone(), context.queue().clone());
    assert!(!same(&again, &set.prepare(&twin)));
    assert_eq!(twin.kept_bind_groups(), 0);
}

#[test]
fn bind_groups_go_with_the_first_matrix() {
    let context = context();
    for gone in 0..3 {
        let mut set = Set::new(&context);
        let prepared = set.prepare(&context);
        assert_eq!(context.kept_bind_groups(), 1);
        let spare = Set::new(&context);
        assert_eq!(context.kept_bind_groups(), 1);
        match gone {
            0 => set.activation = spare.activation,
            1 => set.weight = spare.weight,
            _ => set.output = spare.output,
        }
        assert_eq!(context.kept_bind_groups(), 0);
        // What was prepared goes on.
        let recorded = context.submit(|encoder| {
            prepared.encode_pass(encoder);
            Ok(())
        });
        assert!(recorded.is_ok(), "{recorded:?}");
    }
    // A matrix may outlive its context.
    let set = Set::new(&context);
    set.prepare(&context);
    drop(context);
}

#[test]
fn views_of_an_output_share_its_bind_groups() {
    let context = context();
    let set = Set::new(&context);
    let input = context.output(OutputFormat::F32, 2, 96).expect("an output");
    let problem = Problem::new((2, 64, 96), format("f32"), format("i4g32h"));
    let plan = context.plan(&problem).expect("a plan");
    let weight = operand(
        &format("i4g32h"),
        (64, 96),
        Fill::Random,
        &mut Random::new(1),
    );
    let weight = context
        .upload(&weight, &plan.weight_layout())
        .expect("an upload");
    let prepare = || {
        let operands = Operands {
            activation: &input.as_activation().expect("floats"),
            weight: &weight,
            output: &set.output,
        };
        context.prepare(&plan, operands).expect("a product")
    };
    assert!(same(&prepare(), &prepare()));
}

#[test]
fn kept_bind_groups_are_bounded() {
    let context = context();
    let set = Set::new(&context);
    let outputs: Vec<_> = (0..1100)
        .map(|_| context.output(OutputFormat::F32, 2, 64).expect("an output"))
        .collect();
    let prepare = |output| {
        let operands = Operands {
            output,
            ..set.operands()
        };
        context.prepare(&set.plan, operands).expect("a product")
    };
    let first = prepare(&outputs[0]);
    for output in &outputs[1..1024] {
        prepare(output);
    }
    assert_eq!(context.kept_bind_groups(), 1024);
    // Used again, it is not the oldest any more.
    assert!(same(&first, &prepare(&outputs[0])));
    for output in &outputs[1024..] {
        prepare(output);
        assert_eq!(context.kept_bind_groups(), 1024);
    }
    assert!(same(&first, &prepare(&outputs[0])));
    drop(outputs);
    assert_eq!(context.kept_bind_groups(), 0);
}

const WEIGHTS: [&str; 5] = ["i8rf", "i4g32h", "i3g32h", "i2g32h", "b1rh"];

#[test]
fn pipelines_are_compiled_ahead() {
    let context = context();
    let plans: Vec<Plan> = WEIGHTS
        .iter()
        .flat_map(|weight| [1, 4, 64].map(|m| plan(&context, m, weight)))
        .collect();
    context.warm_up(&plans).expect("pipelines");
    context
        .warm_up([&plans[0], &plans[0], &plans[1]])
        .expect("pipelines");
    context.warm_up([]).expect("nothing");

    // Several threads at once.
    let fresh = self::context();
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                fresh.warm_up(&plans).expect("pipelines");
            });
        }
    });
}

#[test]
fn what_is_prepared_together_is_ready() {
    let context = context();
    let set = Set::new(&context);
    let prepared = context
        .prepare_together(|context| {
            let prepared = context.prepare(&set.plan, set.operands())?;
            // Recorded already: it compiles what it needs.
            context.submit(|encoder| {
                prepared.encode_pass(encoder);
                Ok(())
            })?;
            let again = context.prepare(&set.plan, set.operands())?;
            Ok::<_, Error>([prepared, again])
        })
        .expect("two products");
    assert!(same(&prepared[0], &prepared[1]));

    let failed: Result<(), Error> = context.prepare_together(|context| {
        let wrong = Operands {
            activation: &set.weight,
            ..set.operands()
        };
        context.prepare(&set.plan, wrong).map(|_| ())
    });
    assert!(
        matches!(failed, Err(Error::FormatMismatch { .. })),
        "{failed:?}"
    );
}

#[test]
fn damaged_pipelines_do_no_harm() {
    for adapter in adapter::selected("damaged_pipelines_do_no_harm") {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_features: anybit::wanted_features(&adapter),
            required_limits: anybit::wanted_limits(&adapter),
            ..Default::default()
        }))
        .expect("a device");
        let fresh = |saved: Option<&[u8]>| {
            let context = Context::from_device_with(device.clone(), queue.clone(), saved);
            let plan = plan(&context, 2, "i4g32h");
            context.warm_up([&plan]).expect("a pipeline");
            context.pipeline_cache_data()
        };
        let saved = fresh(None);
        let has = device.features().contains(wgpu::Features::PIPELINE_CACHE);
        assert_eq!(saved.is_some(), has);
        let saved = saved.unwrap_or_default();
        let mut changed = saved.clone();
        if let Some(last) = changed.last_mut() {
            *last ^= 1;
        }
        let half = &saved[..saved.len() / 2];
        for bytes in [&saved[..], &changed, half, &[0; 100], &[]] {
            assert_eq!(fresh(Some(bytes)).is_some(), has);
        }
    }
    // A device without the feature.
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    let context = Context::from_device_with(device, queue, Some(b"no pipelines"));
    assert_eq!(context.pipeline_cache_data(), None);
}

/// On the noop backend, whose buffers hold what is copied to them.
#[test]
fn large_uploads_fill_their_buffers() {
    let context = context();
    let matrix = operand(
        &format("i4g32h"),
        (3001, 4096),
        Fill::Random,
        &mut Random::new(1),
    );
    let plan = plan(&context, 1, "i4g32h");
    for layout in [
        plan.weight_layout(),
        anybit::formats::DeviceLayout::ROW_MAJOR,
    ] {
        let there = context.upload(&matrix, &layout).expect("an upload");
        assert_eq!(context.download(&there).expect("the matrix"), matrix);
    }
}
