//! What a caller may get wrong ends in a typed error, or in the right result; never in a panic or in wgpu's validation.
//! On wgpu's noop backend, which validates and computes nothing.

use anybit::{
    Batch, Context, ContextOptions, DeviceMatrix, Epilogue, Error, ExpertOffsets, Memories,
    Operands, OutputFormat, OutputMatrix, PlanOptions, Problem, Values, wgpu,
};
use anybit_formats::{
    DeviceLayout, FloatFormat, FormatError, MatrixFormat, Memory, PackedMatrix, PieceLayout,
    quantize,
};
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;

/// A context without a GPU.
fn context() -> Context {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    Context::from_device(device, queue)
}

fn matrix(name: &str, rows: usize, columns: usize) -> PackedMatrix {
    operand(
        &format(name),
        (rows, columns),
        Fill::Random,
        &mut Random::new(1),
    )
}

/// A problem with its operands in the layouts that its plan reads.
struct Set {
    context: Context,
    plan: anybit::Plan,
    activation: DeviceMatrix,
    weight: DeviceMatrix,
    output: OutputMatrix,
}

impl Set {
    fn new(shape: (usize, usize, usize), x: &str, w: &str, output: OutputFormat) -> Self {
        let context = context();
        let problem = Problem::new(shape, format(x), format(w)).with_output(output);
        let plan = context.plan(&problem).expect("a plan");
        let (m, n, k) = shape;
        let upload = |name, rows, layout| {
            context
                .upload(&matrix(name, rows, k), &layout)
                .expect("an upload")
        };
        Self {
            activation: upload(x, m, plan.activation_layout()),
            weight: upload(w, n, plan.weight_layout()),
            output: context.output(output, m, n).expect("an output"),
            plan,
            context,
        }
    }

    fn prepare(
        &self,
        activation: &DeviceMatrix,
        weight: &DeviceMatrix,
        output: &OutputMatrix,
    ) -> Result<(), Error> {
        let operands = Operands {
            activation,
            weight,
            output,
        };
        self.context.prepare(&self.plan, operands).map(|_| ())
    }
}

/// Nothing of what `body` does may reach wgpu's validation.
fn unseen_by_wgpu(context: &Context, body: impl FnOnce()) {
    let scope = context
        .device()
        .push_error_scope(wgpu::ErrorFilter::Validation);
    body();
    let error = pollster::block_on(scope.pop());
    assert!(error.is_none(), "wgpu saw it: {error:?}");
}

macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err($pattern) $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($pattern)),
        }
    };
}

#[test]
fn right_operands_are_accepted() {
    for (x, w, output) in [
        ("i8rf", "u4g32hm", OutputFormat::F32),
        ("i3", "u2", OutputFormat::I32),
        ("f32", "f16", OutputFormat::F32),
    ] {
        let set = Set::new((3, 20, 64), x, w, output);
        unseen_by_wgpu(&set.context, || {
            set.prepare(&set.activation, &set.weight, &set.output)
                .expect("right operands")
        });
    }
}

#[test]
fn operands_of_another_shape_or_format_are_refused() {
    let set = Set::new((3, 20, 64), "i8rf", "i4g32h", OutputFormat::F32);
    let context = &set.context;
    unseen_by_wgpu(context, || {
        let x = |name, rows, columns| {
            context
                .upload(&matrix(name, rows, columns), &set.plan.activation_layout())
                .expect("an upload")
        };
        let w = |name, rows, columns| {
            context
                .upload(&matrix(name, rows, columns), &set.plan.weight_layout())
                .expect("an upload")
        };
        let with_x = |x: DeviceMatrix| set.prepare(&x, &set.weight, &set.output);
        let with_w = |w: DeviceMatrix| set.prepare(&set.activation, &w, &set.output);
        let with_y = |y: OutputMatrix| set.prepare(&set.activation, &set.weight, &y);
        // K, M and N.
        assert_error!(
            with_x(x("i8rf", 3, 96)),
            Error::ShapeMismatch {
                expected: (3, 64),
                actual: (3, 96),
                ..
            }
        );
        assert_error!(
            with_x(x("i8rf", 4, 64)),
            Error::ShapeMismatch {
                expected: (3, 64),
                actual: (4, 64),
                ..
            }
        );
        assert_error!(
            with_w(w("i4g32h", 20, 32)),
            Error::ShapeMismatch {
                expected: (20, 64),
                actual: (20, 32),
                ..
            }
        );
        assert_error!(
            with_y(context.output(OutputFormat::F32, 3, 21).expect("an output")),
            Error::ShapeMismatch {
                expected: (3, 20),
                actual: (3, 21),
                ..
            }
        );
        assert_error!(
            with_y(context.output(OutputFormat::I32, 3, 20).expect("an output")),
            Error::OutputMismatch {
                expected: OutputFormat::F32,
                actual: OutputFormat::I32
            }
        );
        // Formats and layouts.
        assert_error!(with_x(x("i7rf", 3, 64)), Error::FormatMismatch { .. });
        assert_error!(with_w(w("i4g64h", 20, 64)), Error::FormatMismatch { .. });
        let other = DeviceLayout {
            interleave: 32,
            ..set.plan.weight_layout()
        };
        let moved = context
            .upload(&matrix("i4g32h", 20, 64), &other)
            .expect("an upload");
        assert_error!(with_w(moved), Error::LayoutMismatch { .. });
        let other = DeviceLayout {
            memory: match set.plan.weight_layout().memory {
                Memory::Buffers => Memory::Textures,
                Memory::Textures | Memory::TextureCodes => Memory::Buffers,
            },
            ..set.plan.weight_layout()
        };
        let moved = context
            .upload(&matrix("i4g32h", 20, 64), &other)
            .expect("an upload");
        assert_error!(with_w(moved), Error::LayoutMismatch { .. });
    });
}

/// Products, decoding and gathering read textures; kernels write codes alone into them, where a block is whole texels.
#[test]
fn textures_are_read_and_written_by_the_few() {
    let set = Set::new((3, 20, 64), "i8rf", "i4rf", OutputFormat::F32);
    let context = &set.context;
    let textures = DeviceLayout {
        interleave: 4,
        memory: Memory::Textures,
        ..DeviceLayout::ROW_MAJOR
    };
    unseen_by_wgpu(context, || {
        let stored = matrix("i4rf", 20, 64);
        let there = context.upload(&stored, &textures).expect("an upload");
        // Whole rows of texels.
        assert_eq!(there.bytes() % 8192, 0);
        assert_eq!(there.layout(), textures);
        let values = context.upload_f32(&[0.5; 1280], 20, 64).expect("an upload");
        assert_error!(
            context.prepare_quantize(&values, &there),
            Error::InTextures { .. }
        );
        let output = context
            .output(OutputFormat::F32, 20, 64)
            .expect("an output");
        assert!(context.prepare_decode(&there, &output).is_ok());
        let problem = set.plan.problem().clone();
        for (asked, memory) in [
            (
                PlanOptions::default().with_memory(Memory::Buffers),
                Memory::Buffers,
            ),
            (
                PlanOptions::default().with_memory(Memory::Textures),
                Memory::Textures,
            ),
            (PlanOptions::default().with_weight(&there), Memory::Textures),
        ] {
            let plan = context.plan_with(&problem, &asked).expect("a plan");
            assert_eq!(plan.weight_layout().memory, memory, "{}", plan.id());
            assert_eq!(plan.id().ends_with("_textures"), memory == Memory::Textures);
        }
        // Floats lie in buffers, unless they are uploaded as the plan says or something else is asked for.
        let floats = Problem::new((3, 20, 64), MatrixFormat::F32, MatrixFormat::F32);
        let textures = PlanOptions::default().with_memory(Memory::Textures);
        for (options, memories) in [
            (PlanOptions::default(), Memories::BUFFERS),
            (
                textures.clone(),
                Memories {
                    weight: Memory::Textures,
                    ..Memories::BUFFERS
                },
            ),
            (
                textures.with_activation_memory(Memory::TextureCodes),
                Memories {
                    activation: Memory::TextureCodes,
                    weight: Memory::Textures,
                },
            ),
        ] {
            let plan = context.plan_with(&floats, &options).expect("a plan");
            let found = Memories {
                activation: plan.activation_layout().memory,
                weight: plan.weight_layout().memory,
            };
            assert_eq!(found, memories, "{}", plan.id());
        }
        assert_error!(
            context.plan_with(
                &floats,
                &PlanOptions::default().with_activation_memory(Memory::Textures)
            ),
            Error::Unsupported { .. }
        );
    });
}

/// Kernels write codes into textures where a block of 32 is whole texels.
#[test]
fn blocks_of_whole_texels_are_written() {
    let set = Set::new((3, 20, 64), "i8rf", "i4rf", OutputFormat::F32);
    let context = &set.context;
    unseen_by_wgpu(context, || {
        let values = context.upload_f32(&[0.5; 192], 3, 64).expect("an upload");
        for (name, pieces, whole) in [
            ("i8rf", PieceLayout::Pieces, true),
            ("e4m3rf", PieceLayout::Pieces, true),
            ("u4g32f", PieceLayout::Pieces, true),
            ("i8rf", PieceLayout::Planes, false),
            ("i5rf", PieceLayout::Pieces, false),
            ("i2rf", PieceLayout::Pieces, false),
        ] {
            let layout = DeviceLayout {
                pieces,
                memory: Memory::TextureCodes,
                ..DeviceLayout::ROW_MAJOR
            };
            let format = name.parse().expect("a format");
            let there = context
                .allocate(format, 3, 64, &layout)
                .expect("a matrix in textures");
            let prepared = context.prepare_quantize(&values, &there);
            match whole {
                true => assert!(prepared.is_ok(), "{name}: {prepared:?}"),
                false => assert_error!(prepared, Error::InTextures { .. }),
            }
            let problem = Problem::new(
                (3, 20, 64),
                format,
                matrix("i4rf", 1, 1).format().to_owned(),
            );
            let options = PlanOptions::default().with_activation(&there);
            let plan = context.plan_with(&problem, &options).expect("a plan");
            assert_eq!(plan.activation_layout(), layout, "{}", plan.id());
        }
    });
}

#[test]
fn aliased_outputs_are_refused() {
    let set = Set::new((8, 8, 8), "f32", "f32", OutputFormat::F32);
    unseen_by_wgpu(&set.context, || {
        let hidden = set.output.as_activation().expect("an f32 output");
        assert_error!(
            set.prepare(&hidden, &set.weight, &set.output),
            Error::Aliased { .. }
        );
        assert_error!(
            set.prepare(&set.activation, &hidden, &set.output),
            Error::Aliased { .. }
        );
        // Operands may share a buffer: both are only read.
        set.prepare(&set.activation, &set.activation, &set.output)
            .expect("X · Xᵀ");
        assert_error!(
            set.context.prepare_decode(&hidden, &set.output),
            Error::Aliased { .. }
        );
        assert_error!(
            set.context.prepare_quantize(&hidden, &hidden),
            Error::Unsupported { .. }
        );
    });
}

#[test]
fn buffers_of_the_caller_are_checked() {
    let context = context();
    let buffer = |size, usage| {
        context.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    };
    let storage = buffer(4096, wgpu::BufferUsages::STORAGE);
    unseen_by_wgpu(&context, || {
        DeviceMatrix::from_buffer(&storage, 256, (4, 9), 12).expect("it fits");
        let refused = [
            // No usage, offset, stride, length, overflow.
            DeviceMatrix::from_buffer(&buffer(4096, wgpu::BufferUsages::COPY_DST), 0, (4, 9), 12),
            DeviceMatrix::from_buffer(&storage, 128, (4, 9), 12),
            DeviceMatrix::from_buffer(&storage, 0, (4, 9), 10),
            DeviceMatrix::from_buffer(&storage, 0, (4, 9), 8),
            DeviceMatrix::from_buffer(&storage, 256, (100, 9), 12),
            DeviceMatrix::from_buffer(&storage, 0, (usize::MAX, 4), 4),
            DeviceMatrix::from_buffer(&storage, 0, (2, usize::MAX - 7), usize::MAX - 3),
            DeviceMatrix::from_buffer(&storage, u64::MAX - 255, (4, 9), 12),
        ];
        for result in refused {
            assert_error!(result, Error::Buffer { .. });
        }
        let output =
            OutputMatrix::from_buffer(&storage, 0, OutputFormat::F32, (4, 9), 12).expect("it fits");
        let mut encoder = context.device().create_command_encoder(&Default::default());
        assert_error!(
            context.encode_read(&mut encoder, &output),
            Error::Buffer { .. }
        );
    });
}

#[test]
fn bad_values_and_groups_are_refused_on_the_host() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![0.5; 64];
        values[37] = bad;
        assert_error!(
            quantize(&values, 2, 32, format("i4g32h"), None),
            FormatError::NonFinite {
                row: 1,
                column: 5,
                ..
            }
        );
        assert_error!(
            PackedMatrix::from_f32(FloatFormat::F32, 2, 32, &values),
            FormatError::NonFinite {
                row: 1,
                column: 5,
                ..
            }
        );
        assert_error!(
            context().upload_f32(&values, 2, 32),
            Error::Format(FormatError::NonFinite { .. })
        );
    }
    assert_error!(
        quantize(&[0.0; 80], 2, 40, format("i4g32h"), None),
        FormatError::GroupDoesNotDivide {
            columns: 40,
            group: 32
        }
    );
    let problem = Problem::new((2, 2, 40), format("i8rf"), format("i4g32h"));
    assert_error!(
        context().plan(&problem),
        Error::Format(FormatError::GroupDoesNotDivide {
            columns: 40,
            group: 32
        })
    );
    assert_error!(
        context().upload_f32(&[0.0; 7], 2, 4),
        Error::Format(FormatError::Length { .. })
    );
}

#[test]
fn what_no_kernel_does_is_refused_with_reasons() {
    let context = context();
    let cases = [
        // Integers out of scale groups, of floats, and of values that no integer stands for.
        Problem::new((2, 2, 32), format("i8rf"), format("i4g32h")).with_output(OutputFormat::I32),
        Problem::new((2, 2, 32), format("f32"), format("f32")).with_output(OutputFormat::I32),
        Problem::new((2, 2, 32), format("i8"), format("e4m3")).with_output(OutputFormat::I32),
    ];
    for problem in cases {
        match context.plan(&problem) {
            Err(Error::Unsupported { contract, refusals }) => {
                assert_eq!(contract, problem.contract());
                assert!(!refusals.is_empty());
            }
            other => panic!("{}: {other:?}", problem.contract()),
        }
    }
    let problem = Problem::new((2, 2, 32), format("f32"), format("f32"));
    assert_error!(
        context.plan_with(&problem, &PlanOptions::kernel("no such kernel")),
        Error::Unsupported { .. }
    );

    let input = context.upload_f32(&[0.0; 64], 2, 32).expect("an upload");
    for name in [
        "f16",
        "i8f",
        "i8rh",
        "u8rfz",
        "e2m1re",
        "dynamic8rf",
        "bitmod4rfc",
    ] {
        let output = context
            .allocate(format(name), 2, 32, &DeviceLayout::ROW_MAJOR)
            .expect("a matrix");
        assert_error!(
            context.prepare_quantize(&input, &output),
            Error::Unsupported { .. }
        );
    }
    let output = context
        .allocate(format("i8rf"), 3, 32, &DeviceLayout::ROW_MAJOR)
        .expect("a matrix");
    assert_error!(
        context.prepare_quantize(&input, &output),
        Error::ShapeMismatch { .. }
    );
    let codes = context
        .upload(&matrix("i8rf", 3, 32), &DeviceLayout::ROW_MAJOR)
        .expect("an upload");
    assert_error!(
        context.prepare_quantize(&codes, &output),
        Error::FormatMismatch { .. }
    );
    let decoded = context.output(OutputFormat::F32, 3, 33).expect("an output");
    assert_error!(
        context.prepare_decode(&codes, &decoded),
        Error::ShapeMismatch { .. }
    );
    let integers = context.output(OutputFormat::I32, 3, 32).expect("an output");
    assert_error!(
        context.prepare_decode(&codes, &integers),
        Error::OutputMismatch { .. }
    );
}

#[test]
fn sizes_past_what_can_be_addressed_are_refused() {
    let context = context();
    let huge = usize::MAX / 2;
    for shape in [
        (huge, 1, 1),
        (1, huge, 1),
        (1, 1, huge),
        (1 << 31, 1 << 31, 1),
        (1 << 20, 1 << 20, 32),
    ] {
        let problem = Problem::new(shape, MatrixFormat::F32, MatrixFormat::F32);
        match context.plan(&problem) {
            Err(Error::TooLarge { .. } | Error::Format(FormatError::TooLarge { .. })) => {}
            other => panic!("{shape:?}: {other:?}"),
        }
    }
    let batch = Batch {
        count: huge,
        ..Batch::ONE
    };
    let problem = Problem::new((4, 4, 4), MatrixFormat::F32, MatrixFormat::F32).with_batch(batch);
    assert!(context.plan(&problem).is_err());
    let batch = Batch {
        count: 70_000,
        ..Batch::ONE
    };
    let problem = Problem::new((1, 4, 4), MatrixFormat::F32, MatrixFormat::F32).with_batch(batch);
    // More than a grid has layers are several dispatches.
    assert!(context.plan(&problem).is_ok());
    assert_error!(
        context.output(OutputFormat::F32, 1 << 20, 1 << 20),
        Error::BindingTooLarge { .. }
    );
    assert_error!(
        context.output(OutputFormat::F32, usize::MAX, usize::MAX),
        Error::BindingTooLarge { .. }
    );
}

#[test]
fn empty_matrices_never_reach_wgpu() {
    for (x, w, output) in [
        ("f32", "f32", OutputFormat::F32),
        ("i8rf", "i4g32h", OutputFormat::F32),
        ("u2", "i3", OutputFormat::I32),
    ] {
        for shape in [
            (0, 5, 64),
            (5, 0, 64),
            (5, 5, 0),
            (0, 0, 0),
            (1, 0, 64),
            (1, 5, 0),
        ] {
            let (m, n, _) = shape;
            let set = Set::new(shape, x, w, output);
            unseen_by_wgpu(&set.context, || {
                let operands = Operands {
                    activation: &set.activation,
                    weight: &set.weight,
                    output: &set.output,
                };
                let prepared = set
                    .context
                    .prepare(&set.plan, operands)
                    .expect("an empty product");
                let values = set
                    .context
                    .run(&prepared, &set.output)
                    .expect("an empty product");
                let zeros = match values {
                    Values::F32(values) => values == vec![0.0; m * n],
                    Values::F16(values) => values == vec![half::f16::ZERO; m * n],
                    Values::I32(values) => values == vec![0; m * n],
                };
                assert!(zeros, "{x} {w} {shape:?}");
            });
        }
        let context = context();
        unseen_by_wgpu(&context, || {
            for (rows, columns) in [(0, 32), (4, 0), (0, 0)] {
                let empty = matrix(w, rows, columns);
                let there = context
                    .upload(&empty, &DeviceLayout::ROW_MAJOR)
                    .expect("an upload");
                assert_eq!(there.bytes(), 0);
                assert_eq!(context.download(&there).expect("a download"), empty);
                let output = context
                    .output(OutputFormat::F32, rows, columns)
                    .expect("an output");
                let decoding = context.prepare_decode(&there, &output).expect("decoding");
                assert_eq!(
                    context.run(&decoding, &output).expect("decoding"),
                    Values::F32(Vec::new())
                );
            }
        });
    }
    let context = context();
    unseen_by_wgpu(&context, || {
        let input = context.upload_f32(&[], 0, 32).expect("an upload");
        let output = context
            .allocate(format("i8rf"), 0, 32, &DeviceLayout::ROW_MAJOR)
            .expect("a matrix");
        let prepared = context
            .prepare_quantize(&input, &output)
            .expect("quantising nothing");
        assert_eq!(prepared.work.dispatches(), 0);
        assert!(prepared.inverses.is_none());
        // No batches: no outputs.
        let batch = Batch {
            count: 0,
            ..Batch::ONE
        };
        let problem =
            Problem::new((4, 4, 4), MatrixFormat::F32, MatrixFormat::F32).with_batch(batch);
        let plan = context.plan(&problem).expect("a plan");
        let none = context.upload_f32(&[], 0, 4).expect("an upload");
        let output = context.output(OutputFormat::F32, 0, 4).expect("an output");
        let operands = Operands {
            activation: &none,
            weight: &none,
            output: &output,
        };
        assert_eq!(
            context
                .prepare(&plan, operands)
                .expect("nothing")
                .dispatches(),
            0
        );
    });
}

#[test]
fn an_adapter_that_is_not_there_is_an_error_that_lists_those_that_are() {
    let options = ContextOptions::default().with_adapter("no adapter has this name");
    match Context::request_blocking(&options) {
        Err(error @ Error::NoAdapter { .. }) => {
            assert!(
                error.to_string().contains("no adapter has this name"),
                "{error}"
            );
            let Error::NoAdapter { found, .. } = error else {
                unreachable!()
            };
            let all =
                pollster::block_on(anybit::adapters(&ContextOptions::default())).expect("backends");
            assert_eq!(found.len(), all.len());
        }
        other => panic!("{other:?}"),
    }
    let options = ContextOptions::default().with_backends(wgpu::Backends::empty());
    assert_error!(Context::request_blocking(&options), Error::NoAdapter { .. });
}

#[test]
fn the_noop_backend_is_never_chosen() {
    let all = pollster::block_on(anybit::adapters(&ContextOptions::default())).expect("backends");
    assert!(
        all.iter()
            .all(|adapter| adapter.get_info().backend != wgpu::Backend::Noop)
    );
}

/// A problem with experts, its table, and what does not fit it.
#[test]
fn experts_are_checked() {
    let context = context();
    let device = context.device();
    let buffer = |size: u64, usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    };
    unseen_by_wgpu(&context, || {
        let plain = Problem::new((6, 8, 32), format("i8rf"), format("i4rf"));
        let problem = plain.clone().with_experts(5);
        assert_eq!(problem.contract(), "gemm_experts_i8rf_i4rf_f32");
        assert_eq!(problem.weight_rows(), 40);
        let plan = context.plan(&problem).expect("a plan");
        let upload = |name, rows, layout| {
            context
                .upload(&matrix(name, rows, 32), &layout)
                .expect("an upload")
        };
        let activation = upload("i8rf", 6, plan.activation_layout());
        let output = context.output(OutputFormat::F32, 6, 8).expect("an output");
        let prepare = |plan: &anybit::Plan, rows, table: Option<&ExpertOffsets>| {
            let weight = upload("i4rf", rows, plan.weight_layout());
            let operands = Operands {
                activation: &activation,
                weight: &weight,
                output: &output,
            };
            match table {
                None => context.prepare(plan, operands),
                Some(table) => context.prepare_experts(plan, operands, table, &Epilogue::default()),
            }
            .map(|prepared| prepared.dispatches())
        };
        let table = context.expert_offsets(5).expect("a table");
        assert_eq!(prepare(&plan, 40, Some(&table)).expect("it fits"), 1);
        assert!(matches!(
            prepare(&plan, 8, Some(&table)),
            Err(Error::ShapeMismatch {
                what: "the weights",
                expected: (40, 32),
                ..
            })
        ));
        let six = context.expert_offsets(6).expect("a table");
        for (table, found) in [(None, None), (Some(&six), Some(6))] {
            let Err(error @ Error::Experts { expected, actual }) = prepare(&plan, 40, table) else {
                panic!("the table is not the plan's");
            };
            assert_eq!((expected, actual), (Some(5), found));
            assert!(error.to_string().contains("prepare_experts"), "{error}");
        }
        let other = context.plan(&plain).expect("a plan");
        assert!(matches!(
            prepare(&other, 8, Some(&table)),
            Err(Error::Experts {
                expected: None,
                actual: Some(5)
            })
        ));

        // The table in the output's own buffer.
        let whole = buffer(1024, wgpu::BufferUsages::STORAGE);
        let inside = OutputMatrix::from_buffer(&whole, 512, OutputFormat::F32, (6, 8), 8);
        let weight = upload("i4rf", 40, plan.weight_layout());
        let operands = Operands {
            activation: &activation,
            weight: &weight,
            output: &inside.expect("an output"),
        };
        let aliased = ExpertOffsets::from_buffer(&whole, 0, 5).expect("a table");
        assert!(matches!(
            context.prepare_experts(&plan, operands, &aliased, &Epilogue::default()),
            Err(Error::Aliased { .. })
        ));

        let small = buffer(280, wgpu::BufferUsages::STORAGE);
        assert!(ExpertOffsets::from_buffer(&small, 256, 5).is_ok());
        for (buffer, offset, experts, text) in [
            (&small, 256, 6, "6 + 1 numbers"),
            (&small, 0, usize::MAX, "run past"),
            (&small, 4, 5, "256"),
            (&buffer(64, wgpu::BufferUsages::COPY_DST), 0, 5, "STORAGE"),
        ] {
            let Err(error @ Error::Buffer { .. }) =
                ExpertOffsets::from_buffer(buffer, offset, experts)
            else {
                panic!("a table of {experts} at {offset} does not fit");
            };
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(
            context
                .write_expert_offsets(&table, &[0, 1, 1, 2, 6, 6])
                .is_ok()
        );
        for (wrong, text) in [
            (&[0, 1, 1, 2, 6][..], "one more than the 5"),
            (&[0, 1, 1, 0, 6, 6], "at least the 1"),
        ] {
            let Err(error @ Error::Parameter { .. }) = context.write_expert_offsets(&table, wrong)
            else {
                panic!("{wrong:?} is no table of five experts");
            };
            assert!(error.to_string().contains(text), "{error}");
        }
        let fixed = ExpertOffsets::from_buffer(&small, 0, 1).expect("a table");
        assert!(matches!(
            context.write_expert_offsets(&fixed, &[0, 6]),
            Err(Error::Buffer { .. })
        ));
        assert!(context.expert_offsets(0).is_err());
        assert!(ExpertOffsets::from_buffer(&small, 0, 0).is_err());
        assert!(context.expert_offsets(usize::MAX).is_err());

        // Problems that are none.
        let batch = Batch {
            count: 2,
            ..Batch::ONE
        };
        for (problem, text) in [
            (plain.clone().with_experts(0), "the number of experts"),
            (problem.clone().with_batch(batch), "the number of batches"),
        ] {
            let Err(error @ Error::Parameter { .. }) = context.plan(&problem) else {
                panic!("no plan for that");
            };
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(matches!(
            context.plan(&plain.clone().with_experts(usize::MAX)),
            Err(Error::Format(_) | Error::TooLarge { .. })
        ));
        // Experts of ten rows would begin within four that lie together.
        let uneven = Problem::new((6, 10, 32), format("i8rf"), format("i4rf"));
        assert!(context.plan(&uneven.clone().with_experts(1)).is_ok());
        let Err(error @ Error::Unsupported { .. }) = context.plan(&uneven.with_experts(2)) else {
            panic!("ten is no multiple of four");
        };
        assert!(
            error
                .to_string()
                .contains("experts of a multiple of 4 rows of W, not 10")
        );
        // Floats lie row by row.
        let floats = Problem::new((6, 10, 32), format("f32"), format("f16"));
        assert!(context.plan(&floats.with_experts(2)).is_ok());

        // Nothing to do, and nothing to add up.
        for (shape, dispatches) in [((0, 8, 32), 0), ((6, 0, 32), 0), ((6, 8, 0), 1)] {
            let (m, n, k) = shape;
            let problem = Problem::new(shape, format("f32"), format("f32")).with_experts(5);
            let plan = context.plan(&problem).expect("a plan");
            let upload = |rows, layout| {
                context
                    .upload(&matrix("f32", rows, k), &layout)
                    .expect("an upload")
            };
            let prepared = context.prepare_experts(
                &plan,
                Operands {
                    activation: &upload(m, plan.activation_layout()),
                    weight: &upload(5 * n, plan.weight_layout()),
                    output: &context.output(OutputFormat::F32, m, n).expect("an output"),
                },
                &table,
                &Epilogue::default(),
            );
            assert_eq!(prepared.expect("it fits").dispatches(), dispatches);
        }
    });
}
