//! The host side: packing, quantising, laying out, uploading, planning and recording. `cargo bench -p anybit-benches`.

use std::hint::black_box;

use anybit::{Context, ContextOptions, Operands, OutputFormat, PlanOptions, Problem};
use anybit_formats::{
    DeviceLayout, ElementFormat, FormatError, MatrixFormat, Memory, PackedMatrix, PieceLayout,
    SumLayout, quantize,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const ROWS: usize = 512;
const COLUMNS: usize = 1024;

/// What planes kernels read.
const PLANES: DeviceLayout = DeviceLayout {
    pieces: PieceLayout::Planes,
    interleave: 4,
    sums: SumLayout::None,
    memory: Memory::Buffers,
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
    let context = match Context::request_blocking(&ContextOptions::default()) {
        Ok(context) => context,
        Err(error) => {
            println!("SKIPPED: upload, plan, prepare and encode: {error}");
            return;
        }
    };
    if let Err(error) = device_calls(criterion, &context) {
        println!("FAILED: {error}");
        std::process::exit(1);
    }
}

fn device_calls(criterion: &mut Criterion, context: &Context) -> Result<(), anybit::Error> {
    let format = MatrixFormat::activation_default(ElementFormat::INT8);
    let row = quantize(&values()[..COLUMNS], 1, COLUMNS, format, None)?;
    let weights = weights(ElementFormat::INT4)?;
    let problem = Problem::new((1, ROWS, COLUMNS), format, *weights.format());

    let mut group = criterion.benchmark_group("calls");
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
        bencher.iter(|| context.prepare(&plan, operands));
    });
    let prepared = context.prepare(&plan, operands)?;
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            prepared.encode_pass(&mut encoder);
            encoder.finish()
        });
    });

    group.throughput(Throughput::Bytes(weight.bytes()));
    group.bench_function("upload", |bencher| {
        bencher.iter(|| {
            let uploaded = context.upload(&weights, &plan.weight_layout());
            // Staging memory is handed back at a submit.
            context.queue().submit([]);
            let done = context
                .device()
                .poll(anybit::wgpu::PollType::wait_indefinitely());
            (uploaded, done)
        });
    });
    group.finish();
    Ok(())
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = packing, calls
}
criterion_main!(benches);
