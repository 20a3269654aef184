//! The host side: packing, quantising, laying out, uploading, planning and recording. `cargo bench -p anybit-benches`.

use std::hint::black_box;

use anybit::{Context, ContextOptions, Operands, OutputFormat, PlanOptions, Problem, wgpu};
use anybit_formats::{
    DeviceLayout, ElementFormat, FormatError, MatrixFormat, PackedMatrix, PieceLayout, SumLayout,
    quantize,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const ROWS: usize = 512;
const COLUMNS: usize = 1024;

/// What most kernels read.
const INTERLEAVED: DeviceLayout = DeviceLayout {
    pieces: PieceLayout::Pieces,
    ..PLANES
};

/// What planes kernels read.
const PLANES: DeviceLayout = DeviceLayout {
    pieces: PieceLayout::Planes,
    interleave: 4,
    sums: SumLayout::None,
};

fn values() -> Vec<f32> {
    (0..ROWS * COLUMNS)
        .map(|i| ((i as f32 * 0.618).sin() + (i as f32 * 0.0071).cos()) * 0.1)
        .collect()
}

fn weights(element: ElementFormat) -> Result<PackedMatrix, FormatError> {
    let format = MatrixFormat::weight_default(element);
    quantize(&values(), ROWS, COLUMNS, format, None)
}

fn packing(criterion: &mut Criterion) {
    let values = values();
    let elements = Throughput::Elements((ROWS * COLUMNS) as u64);
    let formats = [
        ElementFormat::INT8,
        ElementFormat::INT4,
        ElementFormat::INT3,
        ElementFormat::BINARY,
    ];

    let mut group = criterion.benchmark_group("quantize");
    group.throughput(elements.clone());
    for element in formats {
        let format = MatrixFormat::weight_default(element);
        group.bench_function(BenchmarkId::from_parameter(format), |bencher| {
            bencher.iter(|| quantize(black_box(&values), ROWS, COLUMNS, format, None));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("to_device");
    group.throughput(elements);
    for element in formats {
        let Ok(matrix) = weights(element) else {
            continue;
        };
        for (name, layout) in [
            ("row_major", DeviceLayout::ROW_MAJOR),
            ("planes_r4", PLANES),
        ] {
            group.bench_function(BenchmarkId::new(name, matrix.format()), |bencher| {
                bencher.iter(|| black_box(&matrix).to_device(&layout));
            });
        }
    }
    group.finish();
}

/// Everything that a caller does for a product, but the product.
fn calls(criterion: &mut Criterion) {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    let mut contexts = vec![("noop", Context::from_device(device, queue))];
    match Context::request_blocking(&ContextOptions::default()) {
        Ok(context) => contexts.push(("adapter", context)),
        Err(error) => println!("SKIPPED on an adapter: upload, plan, prepare and encode: {error}"),
    }
    for (name, context) in &contexts {
        let done = device_calls(criterion, name, context).and_then(|()| {
            // Without memory to copy to, uploads have no speed.
            if *name == "noop" {
                return Ok(());
            }
            uploads(criterion, context)
        });
        if let Err(error) = done {
            println!("FAILED: {error}");
            std::process::exit(1);
        }
    }
}

/// Products recorded in one pass.
const RECORDED: u64 = 100;

fn device_calls(
    criterion: &mut Criterion,
    device: &str,
    context: &Context,
) -> Result<(), anybit::Error> {
    let format = MatrixFormat::activation_default(ElementFormat::INT8);
    let row = quantize(&values()[..COLUMNS], 1, COLUMNS, format, None)?;
    let weights = weights(ElementFormat::INT4)?;
    let problem = Problem::new((1, ROWS, COLUMNS), format, *weights.format());

    let mut group = criterion.benchmark_group(format!("calls/{device}"));
    group.bench_function("plan", |bencher| {
        bencher.iter(|| context.plan(black_box(&problem)));
    });
    let plan = context.plan_with(&problem, &PlanOptions::default())?;
    group.bench_function("link", |bencher| {
        bencher.iter(|| plan.specialization().link());
    });

    let activation = context.upload(&row, &plan.activation_layout())?;
    let weight = context.upload(&weights, &plan.weight_layout())?;
    let output = context.output(OutputFormat::F32, 1, ROWS)?;
    let operands = Operands {
        activation: &activation,
        weight: &weight,
        output: &output,
    };
    group.bench_function("prepare", |bencher| {
        bencher.iter(|| {
            // Operands that were not there before.
            let output = context.output(OutputFormat::F32, 1, ROWS)?;
            let operands = Operands {
                output: &output,
                ..operands
            };
            context.prepare(&plan, operands)
        });
    });
    let prepared = context.prepare(&plan, operands)?;
    group.bench_function("prepare_again", |bencher| {
        bencher.iter(|| context.prepare(&plan, operands));
    });
    group.bench_function("encode_alone", |bencher| {
        bencher.iter(|| {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            prepared.encode_pass(&mut encoder);
            encoder.finish()
        });
    });
    // Each product with the checks that wgpu does when the pass ends.
    group.throughput(Throughput::Elements(RECORDED));
    group.bench_function("encode_100", |bencher| {
        bencher.iter(|| {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for _ in 0..RECORDED {
                prepared.encode(&mut pass);
            }
            drop(pass);
            encoder.finish()
        });
    });
    group.finish();
    Ok(())
}

/// Uploads in the layouts that kernels read, beside `write_buffer` of the same bytes.
fn uploads(criterion: &mut Criterion, context: &Context) -> Result<(), anybit::Error> {
    const ROWS: usize = 2048;
    const COLUMNS: usize = 4096;
    let values: Vec<f32> = values().into_iter().cycle().take(ROWS * COLUMNS).collect();
    let formats = ["i8g32h", "i4g32h", "i3g32h", "b1rh", "f32"];
    // The device has copied, and handed staging memory back.
    let finish = || {
        context.queue().submit([]);
        let done = context.device().poll(wgpu::PollType::wait_indefinitely());
        black_box(done).is_ok()
    };
    let mut group = criterion.benchmark_group("upload");
    for name in formats {
        let format: MatrixFormat = name.parse()?;
        let matrix = quantize(&values, ROWS, COLUMNS, format, None)?;
        let layouts = [("pieces_r4", INTERLEAVED), ("planes_r4", PLANES)];
        let layouts = if format.element().has_codes() {
            &layouts[..]
        } else {
            &[("row_major", DeviceLayout::ROW_MAJOR)][..]
        };
        for (layout_name, layout) in layouts {
            let target = context.upload(&matrix, layout)?;
            group.throughput(Throughput::Bytes(target.bytes()));
            let size = target.bytes();
            group.bench_function(BenchmarkId::new(*layout_name, name), |bencher| {
                bencher.iter(|| (context.upload(&matrix, layout), finish()));
            });
            let bytes = vec![1; size as usize];
            group.bench_function(
                BenchmarkId::new("write_buffer", format!("{name}_{layout_name}")),
                |bencher| {
                    bencher.iter(|| {
                        // A new buffer, as an upload makes one.
                        let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
                            label: None,
                            size,
                            usage: wgpu::BufferUsages::STORAGE
                                | wgpu::BufferUsages::COPY_SRC
                                | wgpu::BufferUsages::COPY_DST,
                            mapped_at_creation: false,
                        });
                        context.queue().write_buffer(&buffer, 0, black_box(&bytes));
                        (buffer, finish())
                    });
                },
            );
        }
    }
    group.finish();
    Ok(())
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = packing, calls
}
criterion_main!(benches);
