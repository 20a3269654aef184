//! Recording and submitting prepared work allocates nothing of ours: what is allocated is what the same calls of wgpu allocate
//! without anybit. On wgpu's noop backend.
//!
//! A test of its own: the allocator counts for the whole process.

use std::alloc::System;
use std::future::Future;
use std::sync::Mutex;
use std::task::{self, Poll, Waker};

use anybit::formats::Memory;
use anybit::{Context, Operands, OutputFormat, PlanOptions, Prepared, Problem, wgpu};
use anybit_tests::adapter;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Products in a pass.
const COUNT: usize = 64;

/// A kernel that has the bindings of a product and does nothing with them.
const SHADER: &str = "
@group(0) @binding(0) var<uniform> parameters: vec4<u32>;
@group(0) @binding(1) var<storage, read> a: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<u32>;
@group(0) @binding(3) var<storage, read> c: array<u32>;
@group(0) @binding(4) var<storage, read> d: array<u32>;
@group(0) @binding(5) var<storage, read_write> e: array<u32>;
@compute @workgroup_size(64) fn main() { e[0] = parameters.x + a[0] + b[0] + c[0] + d[0]; }
";

/// Bytes that a call allocates, the least of several: now and then something of wgpu grows.
fn allocated(mut call: impl FnMut()) -> usize {
    let mut once = || {
        let before = ALLOCATOR.total_allocated();
        call();
        ALLOCATOR.total_allocated() - before
    };
    for _ in 0..20 {
        once();
    }
    (0..50).map(|_| once()).min().unwrap_or(0)
}

/// The same work as wgpu's own calls, with the bind group of a product.
struct Bare<'a> {
    pipeline: wgpu::ComputePipeline,
    bind_group: &'a wgpu::BindGroup,
    label: &'a str,
}

impl<'a> Bare<'a> {
    fn new(context: &Context, prepared: &'a Prepared) -> Self {
        let device = context.device();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(SHADER.into()),
        });
        let entry = |binding| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match binding {
                    0 => wgpu::BufferBindingType::Uniform,
                    _ => wgpu::BufferBindingType::Storage {
                        read_only: binding != 5,
                    },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &[0, 1, 2, 3, 4, 5].map(entry),
        });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        Self {
            pipeline,
            bind_group: prepared.bind_groups().next().expect("a dispatch"),
            label: prepared.id(),
        }
    }

    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, self.bind_group, &[]);
        pass.dispatch_workgroups(1, 2, 1);
    }

    fn submit(&self, context: &Context) {
        let device = context.device();
        let scopes = [
            wgpu::ErrorFilter::Validation,
            wgpu::ErrorFilter::Internal,
            wgpu::ErrorFilter::OutOfMemory,
        ]
        .map(|filter| device.push_error_scope(filter));
        let mut encoder = device.create_command_encoder(&Default::default());
        for _ in 0..COUNT {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(self.label),
                timestamp_writes: None,
            });
            self.encode(&mut pass);
        }
        context.queue().submit([encoder.finish()]);
        for scope in scopes.into_iter().rev() {
            // Waiting for it would allocate.
            let mut future = std::pin::pin!(scope.pop());
            let mut waker = task::Context::from_waker(Waker::noop());
            assert!(matches!(
                future.as_mut().poll(&mut waker),
                Poll::Ready(None)
            ));
        }
    }
}

/// Bytes that recording so many products in one pass allocates, the pass itself not counted.
fn recording(context: &Context, mut encode: impl FnMut(&mut wgpu::ComputePass<'_>)) -> usize {
    let mut least = usize::MAX;
    for _ in 0..50 {
        let mut encoder = context.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let before = ALLOCATOR.total_allocated();
        for _ in 0..COUNT {
            encode(&mut pass);
        }
        least = least.min(ALLOCATOR.total_allocated() - before);
        drop(pass);
        context.queue().submit([encoder.finish()]);
    }
    least
}

fn product(context: &Context) -> Prepared {
    let problem = Problem::new((2, 64, 96), format("i8rf"), format("i4g32h"));
    let in_buffers = PlanOptions::default().with_memory(Memory::Buffers);
    let plan = context.plan_with(&problem, &in_buffers).expect("a plan");
    let upload = |name: &str, rows, layout| {
        let matrix = operand(&format(name), (rows, 96), Fill::Random, &mut Random::new(1));
        context.upload(&matrix, &layout).expect("an upload")
    };
    let operands = Operands {
        activation: &upload("i8rf", 2, plan.activation_layout()),
        weight: &upload("i4g32h", 64, plan.weight_layout()),
        output: &context.output(OutputFormat::F32, 2, 64).expect("an output"),
    };
    context.prepare(&plan, operands).expect("a product")
}

/// One test at a time, since the allocator counts for all.
static ALONE: Mutex<()> = Mutex::new(());

/// Resident memory of this process, in bytes; `None` where the system does not tell.
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    // Pages are of 4 KiB or more, so the figure is no more than the truth, and grows with it.
    pages
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .map(|pages: usize| 4096 * pages)
}

/// Contexts that come and go, each with a pipeline and a product, leave nothing: neither in our allocations nor in the process.
#[test]
fn fifty_contexts_leave_nothing() {
    let _alone = ALONE.lock();
    for adapter in adapter::selected("fifty_contexts_leave_nothing") {
        let once = || {
            let context = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
            let x = context.upload_f32(&[1.0; 64], 8, 8).expect("an upload");
            let y = context.output(OutputFormat::F32, 8, 8).expect("an output");
            let decoding = context.prepare_decode(&x, &y).expect("decoding");
            let values = context.run(&decoding, &y).expect("values").into_f32();
            assert_eq!(values, Some(vec![1.0; 64]));
        };
        for _ in 0..10 {
            once();
        }
        let before = (ALLOCATOR.allocated(), resident());
        for _ in 0..40 {
            once();
        }
        let after = (ALLOCATOR.allocated(), resident());
        println!("after 10 contexts {before:?}, after 50 {after:?}");
        assert!(
            after.0 <= before.0 + (256 << 10),
            "{} bytes after 10 contexts, {} after 50",
            before.0,
            after.0
        );
        if let (Some(before), Some(after)) = (before.1, after.1) {
            assert!(
                after <= before + (32 << 20),
                "{before} resident bytes after 10 contexts, {after} after 50"
            );
        }
    }
}

#[test]
fn a_call_allocates_what_wgpu_does() {
    let _alone = ALONE.lock();
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    let context = Context::from_device(device, queue);
    let prepared = product(&context);
    assert_eq!(prepared.dispatches(), 1);
    let bare = Bare::new(&context, &prepared);

    let ours = recording(&context, |pass| prepared.encode(pass));
    let theirs = recording(&context, |pass| bare.encode(pass));
    println!("recording {COUNT} products: {ours} bytes, {theirs} of wgpu");
    assert_eq!(ours, theirs);

    let ours = allocated(|| {
        let submitted = context.submit(|encoder| {
            for _ in 0..COUNT {
                prepared.encode_pass(encoder);
            }
            Ok(())
        });
        assert!(submitted.is_ok());
    });
    let theirs = allocated(|| bare.submit(&context));
    println!("submitting {COUNT} passes: {ours} bytes, {theirs} of wgpu");
    assert_eq!(ours, theirs);
}
