//! What a caller may get wrong with the kernels of language models ends in a typed error. On wgpu's noop backend, which validates
//! and computes nothing.

use anybit::{
    Attention, Context, DeviceMatrix, Epilogue, Error, Gate, HeadNorm, KvFormat, KvShape, Operands,
    OutputFormat, OutputMatrix, Pairing, Problem, Rotary, RotaryTable, RowSource, Sampling, wgpu,
};
use anybit_formats::{DeviceLayout, MatrixFormat, QuantizeRowsOptions};
use anybit_tests::operand::format;

/// A context without a GPU.
fn context() -> Context {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    Context::from_device(device, queue)
}

const SHAPE: KvShape = KvShape {
    heads: 2,
    head_dim: 16,
    capacity: 100,
    step: 8,
};

fn f32s(context: &Context, rows: usize, columns: usize) -> DeviceMatrix {
    let values = vec![1.0; rows * columns];
    context
        .upload_f32(&values, rows, columns)
        .expect("an upload")
}

fn output(context: &Context, rows: usize, columns: usize) -> OutputMatrix {
    context
        .output(OutputFormat::F32, rows, columns)
        .expect("an output")
}

fn halves(context: &Context, rows: usize, columns: usize) -> OutputMatrix {
    context
        .output(OutputFormat::F16, rows, columns)
        .expect("an output")
}

/// An error of this kind, whose text names the number.
macro_rules! refused {
    ($result:expr, $kind:pat, $text:expr) => {{
        let error = $result.map(|_| ()).expect_err("it must be refused");
        assert!(matches!(error, $kind), "{error:?}");
        let text = error.to_string();
        assert!(text.contains($text), "{text:?} does not name {:?}", $text);
    }};
}

#[test]
fn sources_are_checked() {
    let context = context();
    let rows = f32s(&context, 3, 64);
    let (short, weight) = (f32s(&context, 1, 60), f32s(&context, 1, 64));
    let target = output(&context, 3, 64);
    let norm = |weight, epsilon| RowSource::RmsNorm { weight, epsilon };
    let gated = |columns, up| RowSource::Gated {
        gate: Gate::Silu,
        columns,
        up,
    };
    let write = |source: &RowSource<'_>, output: &OutputMatrix| {
        context.prepare_rows(&rows, source, None, output)
    };
    assert!(write(&norm(&weight, 0.0), &target).is_ok());
    refused!(
        write(&norm(&short, 0.1), &target),
        Error::ShapeMismatch { .. },
        "60"
    );
    for epsilon in [-1.0, f32::NAN, f32::INFINITY] {
        refused!(
            write(&norm(&weight, epsilon), &target),
            Error::Parameter { .. },
            "epsilon"
        );
    }
    let narrow = output(&context, 3, 28);
    assert!(write(&gated(28, 36), &narrow).is_ok());
    refused!(
        write(&gated(28, 40), &narrow),
        Error::ShapeMismatch { .. },
        "68"
    );
    refused!(
        write(&gated(28, 24), &narrow),
        Error::ShapeMismatch { .. },
        "56"
    );
    refused!(
        write(&gated(28, 34), &narrow),
        Error::Parameter { .. },
        "34"
    );
    refused!(
        write(&gated(28, usize::MAX), &narrow),
        Error::ShapeMismatch { .. },
        "x64"
    );
    refused!(
        write(&gated(usize::MAX, 28), &narrow),
        Error::ShapeMismatch { .. },
        "x64"
    );
    refused!(
        write(&gated(28, 28), &target),
        Error::ShapeMismatch { .. },
        "64"
    );
    let half = halves(&context, 3, 64);
    refused!(
        write(&RowSource::Rows, &half),
        Error::OutputMismatch { .. },
        "f16"
    );
    // Rows of another format, an output that is an input, weights that are the output.
    let packed = context
        .allocate(format("i8rf"), 3, 64, &DeviceLayout::ROW_MAJOR)
        .expect("a matrix");
    let prepared = context.prepare_rows(&packed, &RowSource::Rows, None, &target);
    refused!(prepared, Error::FormatMismatch { .. }, "i8rf");
    refused!(
        write(&norm(&packed, 0.1), &target),
        Error::FormatMismatch { .. },
        "i8rf"
    );
    let same = target.as_activation().expect("f32");
    let prepared = context.prepare_rows(&same, &RowSource::Rows, None, &target);
    refused!(prepared, Error::Aliased { .. }, "the rows");
    let one = output(&context, 1, 64);
    let weight_of_output = one.as_activation().expect("f32");
    let prepared = context.prepare_rows(
        &f32s(&context, 1, 64),
        &norm(&weight_of_output, 0.1),
        None,
        &one,
    );
    refused!(prepared, Error::Aliased { .. }, "weights");
    // Residuals.
    for (residual, text) in [
        (output(&context, 3, 60), "60"),
        (output(&context, 2, 64), "2x64"),
    ] {
        let prepared = context.prepare_rows(&rows, &RowSource::Rows, Some(&residual), &target);
        refused!(prepared, Error::ShapeMismatch { .. }, text);
    }
    let prepared = context.prepare_rows(&rows, &RowSource::Rows, Some(&half), &target);
    refused!(prepared, Error::OutputMismatch { .. }, "f16");
    let prepared = context.prepare_rows(&rows, &RowSource::Rows, Some(&target), &target);
    refused!(prepared, Error::Aliased { .. }, "the residual");
    // Nothing to do is done.
    let none = context.prepare_rows(
        &f32s(&context, 0, 64),
        &RowSource::Rows,
        None,
        &output(&context, 0, 64),
    );
    assert_eq!(none.expect("no rows").dispatches(), 0);
}

#[test]
fn quantised_sources_are_checked() {
    let context = context();
    let rows = f32s(&context, 3, 64);
    let weight = f32s(&context, 1, 64);
    let norm = RowSource::RmsNorm {
        weight: &weight,
        epsilon: 0.1,
    };
    let options = QuantizeRowsOptions::default();
    let quantize = |source: &RowSource<'_>, format: MatrixFormat, columns| {
        let output = context.allocate(format, 3, columns, &DeviceLayout::ROW_MAJOR)?;
        context.prepare_quantize_source(&rows, source, &output, &options)
    };
    assert!(quantize(&norm, format("i8rf"), 64).is_ok());
    assert!(quantize(&norm, format("i8g32f"), 64).is_ok());
    refused!(
        quantize(&norm, format("i8g32h"), 64),
        Error::Unsupported { .. },
        "i8g32h"
    );
    refused!(
        quantize(&norm, format("i8rf"), 60),
        Error::ShapeMismatch { .. },
        "60"
    );
    let gated = RowSource::Gated {
        gate: Gate::GeluTanh,
        columns: 32,
        up: 32,
    };
    assert!(quantize(&gated, format("i8g32f"), 32).is_ok());
    refused!(
        quantize(&gated, format("i8rf"), 64),
        Error::ShapeMismatch { .. },
        "64"
    );
}

#[test]
fn sequences_and_gathering_are_checked() {
    let context = context();
    let sequence = context.sequence(10).expect("a sequence");
    refused!(
        context.write_tokens(&sequence, 8, &[1, 2, 3]),
        Error::TooLarge { .. },
        "11"
    );
    refused!(
        context.write_tokens(&sequence, usize::MAX, &[1]),
        Error::TooLarge { .. },
        "10"
    );
    refused!(
        context.write_done(&sequence, 11),
        Error::TooLarge { .. },
        "11"
    );
    assert!(context.write_tokens(&sequence, 10, &[]).is_ok());
    refused!(
        context.sequence(usize::MAX),
        Error::BindingTooLarge { .. },
        "a sequence"
    );
    let matrix = f32s(&context, 5, 64);
    let gather = |output: &OutputMatrix| context.prepare_gather(&matrix, 1.0, &sequence, output);
    assert!(gather(&output(&context, 10, 64)).is_ok());
    refused!(
        gather(&output(&context, 11, 64)),
        Error::TooLarge { .. },
        "11"
    );
    refused!(
        gather(&output(&context, 3, 60)),
        Error::ShapeMismatch { .. },
        "60"
    );
    refused!(
        gather(&halves(&context, 3, 64)),
        Error::OutputMismatch { .. },
        "f16"
    );
    let own = output(&context, 5, 64);
    let same = own.as_activation().expect("f32");
    refused!(
        context.prepare_gather(&same, 1.0, &sequence, &own),
        Error::Aliased { .. },
        "the matrix"
    );
    assert_eq!(
        gather(&output(&context, 0, 64))
            .expect("no rows")
            .dispatches(),
        0
    );
    refused!(
        context.prepare_advance(&sequence, 11),
        Error::TooLarge { .. },
        "11"
    );
}

#[test]
fn logits_are_checked() {
    let context = context();
    let sequence = context.sequence(10).expect("a sequence");
    let logits = output(&context, 1, 50);
    let draw = |logits: &OutputMatrix, cap, sampling: Sampling, rows| {
        context.prepare_draw(logits, cap, &sampling, &sequence, rows)
    };
    assert!(draw(&logits, None, Sampling::GREEDY, 9).is_ok());
    refused!(
        draw(&logits, None, Sampling::GREEDY, 10),
        Error::TooLarge { .. },
        "11"
    );
    refused!(
        draw(&logits, None, Sampling::GREEDY, usize::MAX),
        Error::TooLarge { .. },
        "10"
    );
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused!(
            draw(&logits, Some(cap), Sampling::GREEDY, 1),
            Error::Parameter { .. },
            "cap"
        );
    }
    for temperature in [-1.0, f32::NAN, f32::INFINITY] {
        let sampling = Sampling::temperature(temperature, 0);
        refused!(
            draw(&logits, None, sampling, 1),
            Error::Parameter { .. },
            "temperature"
        );
    }
    for top_p in [-0.1, 1.1, f32::NAN] {
        let sampling = Sampling::temperature(1.0, 0).with_top_p(top_p);
        refused!(
            draw(&logits, None, sampling, 1),
            Error::Parameter { .. },
            "top-p"
        );
    }
    let greedy = Sampling::GREEDY;
    refused!(
        draw(&output(&context, 2, 50), None, greedy, 1),
        Error::ShapeMismatch { .. },
        "2x50"
    );
    refused!(
        draw(&output(&context, 1, 0), None, greedy, 1),
        Error::ShapeMismatch { .. },
        "1x0"
    );
    refused!(
        draw(&output(&context, 0, 50), None, greedy, 1),
        Error::ShapeMismatch { .. },
        "0x50"
    );
    refused!(
        draw(&halves(&context, 1, 50), None, greedy, 1),
        Error::OutputMismatch { .. },
        "f16"
    );

    let losses = output(&context, 3, 1);
    let rows = output(&context, 3, 50);
    let entropy = |logits: &OutputMatrix, cap, first, output: &OutputMatrix| {
        context.prepare_cross_entropy(logits, cap, &sequence, first, output)
    };
    assert!(entropy(&rows, None, 7, &losses).is_ok());
    refused!(
        entropy(&rows, None, 8, &losses),
        Error::TooLarge { .. },
        "11"
    );
    refused!(
        entropy(&rows, None, usize::MAX, &losses),
        Error::TooLarge { .. },
        "10"
    );
    refused!(
        entropy(&rows, Some(0.0), 0, &losses),
        Error::Parameter { .. },
        "cap"
    );
    refused!(
        entropy(&rows, None, 0, &output(&context, 2, 1)),
        Error::ShapeMismatch { .. },
        "3x1"
    );
    refused!(
        entropy(&losses, None, 0, &losses),
        Error::Aliased { .. },
        "the logits"
    );
    refused!(
        entropy(&halves(&context, 3, 50), None, 0, &losses),
        Error::OutputMismatch { .. },
        "f16"
    );
    let none = entropy(&output(&context, 0, 50), None, 0, &output(&context, 0, 1));
    assert_eq!(none.expect("no rows").dispatches(), 0);
}

#[test]
fn caches_are_checked() {
    let context = context();
    let cache = |format, shape| context.kv_cache(format, shape);
    for head_dim in [0, 4, 12, 264, usize::MAX] {
        let shape = KvShape { head_dim, ..SHAPE };
        let text = head_dim.to_string();
        refused!(
            cache(KvFormat::F16, shape),
            Error::Parameter { .. },
            text.as_str()
        );
    }
    let odd = KvShape {
        head_dim: 24,
        ..SHAPE
    };
    assert!(cache(KvFormat::Int4, odd).is_ok());
    refused!(cache(KvFormat::Int2, odd), Error::Parameter { .. }, "24");
    for (shape, text) in [
        (KvShape { heads: 0, ..SHAPE }, "heads"),
        (
            KvShape {
                capacity: 0,
                ..SHAPE
            },
            "capacity",
        ),
        (KvShape { step: 0, ..SHAPE }, "step"),
    ] {
        refused!(cache(KvFormat::F16, shape), Error::Parameter { .. }, text);
    }
    for format in KvFormat::ALL {
        assert_eq!(format.name().parse::<KvFormat>().expect("a name"), format);
        for capacity in [1 << 28, usize::MAX] {
            let shape = KvShape { capacity, ..SHAPE };
            refused!(
                cache(format, shape),
                Error::BindingTooLarge { .. },
                "KV cache"
            );
        }
        let shape = KvShape {
            heads: usize::MAX,
            ..SHAPE
        };
        refused!(
            cache(format, shape),
            Error::BindingTooLarge { .. },
            "KV cache"
        );
        assert_eq!(
            KvCacheBytes::of(&context, format),
            anybit::KvCache::bytes_of(format, SHAPE)
        );
    }
    refused!("int3".parse::<KvFormat>(), Error::Parameter { .. }, "int3");
    let sequence = context.sequence(100).expect("a sequence");
    let quantised = cache(KvFormat::Int4, SHAPE).expect("a cache");
    refused!(
        context.prepare_quantize_cache(&quantised, &sequence, 9),
        Error::TooLarge { .. },
        "9"
    );
}

/// Bytes that a cache takes in fact.
struct KvCacheBytes;

impl KvCacheBytes {
    fn of(context: &Context, format: KvFormat) -> Option<u64> {
        Some(context.kv_cache(format, SHAPE).ok()?.bytes())
    }
}

#[test]
fn rotary_embedding_is_checked() {
    let context = context();
    refused!(context.rotary_table(&[], 10), Error::Parameter { .. }, "0");
    refused!(
        context.rotary_table(&[1.0; 3], 10),
        Error::Parameter { .. },
        "3"
    );
    refused!(
        context.rotary_table(&[1.0, f64::NAN], 10),
        Error::Parameter { .. },
        "NaN"
    );
    refused!(
        context.rotary_table(&[1.0; 4], usize::MAX),
        Error::BindingTooLarge { .. },
        "table"
    );
    // The entries of these are more than 64 bits count.
    refused!(
        context.rotary_table(&[1.0; 256], usize::MAX),
        Error::BindingTooLarge { .. },
        "table"
    );
    let table = context.rotary_table(&[1.0; 8], 100).expect("a table");
    let wide = context.rotary_table(&[1.0; 10], 100).expect("a table");
    let short = context.rotary_table(&[1.0; 8], 99).expect("a table");
    let cache = context.kv_cache(KvFormat::F16, SHAPE).expect("a cache");
    let sequence = context.sequence(100).expect("a sequence");
    // Four heads of queries, two of keys and of values.
    let (source, queries) = (output(&context, 3, 128), output(&context, 3, 64));
    let (bias, norm) = (f32s(&context, 1, 128), f32s(&context, 1, 16));
    let rotary = |table| Rotary {
        table,
        pairing: Pairing::Halves,
        query_heads: 4,
        columns: [64, 96],
        bias: None,
        norm: None,
    };
    let head_norm = |query, key, epsilon| {
        Some(HeadNorm {
            query,
            key,
            epsilon,
        })
    };
    let full = Rotary {
        bias: Some(&bias),
        norm: head_norm(&norm, &norm, 0.1),
        ..rotary(&table)
    };
    let prepare = |rotary: &Rotary<'_>, source: &OutputMatrix, queries: &OutputMatrix| {
        context.prepare_rotate(rotary, source, &sequence, queries, &cache)
    };
    assert!(prepare(&rotary(&table), &source, &queries).is_ok());
    assert!(prepare(&full, &source, &queries).is_ok());
    refused!(
        prepare(&rotary(&wide), &source, &queries),
        Error::Parameter { .. },
        "20"
    );
    refused!(
        prepare(&rotary(&short), &source, &queries),
        Error::Parameter { .. },
        "99"
    );
    for (query_heads, text) in [(3, "48"), (0, "16"), (usize::MAX, "64")] {
        let other = Rotary {
            query_heads,
            ..rotary(&table)
        };
        refused!(
            prepare(&other, &source, &queries),
            Error::ShapeMismatch { .. },
            text
        );
    }
    for columns in [[97, 96], [64, 97], [usize::MAX, 0]] {
        let other = Rotary {
            columns,
            ..rotary(&table)
        };
        refused!(
            prepare(&other, &source, &queries),
            Error::ShapeMismatch { .. },
            "128"
        );
    }
    let few = output(&context, 2, 128);
    refused!(
        prepare(&rotary(&table), &few, &queries),
        Error::ShapeMismatch { .. },
        "2x128"
    );
    let many = (output(&context, 9, 128), output(&context, 9, 64));
    refused!(
        prepare(&rotary(&table), &many.0, &many.1),
        Error::TooLarge { .. },
        "9"
    );
    let half = halves(&context, 3, 64);
    refused!(
        prepare(&rotary(&table), &source, &half),
        Error::OutputMismatch { .. },
        "f16"
    );
    let wrong = Rotary {
        bias: Some(&norm),
        ..full
    };
    refused!(
        prepare(&wrong, &source, &queries),
        Error::ShapeMismatch { .. },
        "the bias"
    );
    let wrong = Rotary {
        norm: head_norm(&norm, &bias, 0.1),
        ..full
    };
    refused!(
        prepare(&wrong, &source, &queries),
        Error::ShapeMismatch { .. },
        "keys"
    );
    for epsilon in [-1.0, f32::NAN] {
        let wrong = Rotary {
            norm: head_norm(&norm, &norm, epsilon),
            ..full
        };
        refused!(
            prepare(&wrong, &source, &queries),
            Error::Parameter { .. },
            "epsilon"
        );
    }
    // A vector where queries are written to.
    let buffer = queries.buffer().expect("queries take room");
    let within = DeviceMatrix::from_buffer(buffer, 0, (1, 128), 128).expect("a matrix");
    let wrong = Rotary {
        bias: Some(&within),
        ..full
    };
    refused!(
        prepare(&wrong, &source, &queries),
        Error::Aliased { .. },
        "the bias"
    );
    // One head, so that queries and input can be the same matrix.
    let one = KvShape { heads: 1, ..SHAPE };
    let cache = context.kv_cache(KvFormat::F16, one).expect("a cache");
    let own = output(&context, 3, 48);
    let aliased = Rotary {
        query_heads: 3,
        columns: [16, 32],
        ..rotary(&table)
    };
    let prepared = context.prepare_rotate(&aliased, &own, &sequence, &own, &cache);
    refused!(prepared, Error::Aliased { .. }, "the input");
}

#[test]
fn attention_is_checked() {
    let context = context();
    let cache = context.kv_cache(KvFormat::Int8, SHAPE).expect("a cache");
    let sequence = context.sequence(100).expect("a sequence");
    let (queries, target) = (output(&context, 3, 64), output(&context, 3, 64));
    let plain = Attention::new(0.25);
    let attend = |attention: &Attention, queries: &OutputMatrix, target: &OutputMatrix| {
        context.prepare_attention(attention, queries, &cache, &sequence, target)
    };
    assert!(attend(&plain, &queries, &target).is_ok());
    for scale in [f32::NAN, f32::INFINITY] {
        refused!(
            attend(&Attention::new(scale), &queries, &target),
            Error::Parameter { .. },
            "scale"
        );
    }
    refused!(
        attend(&plain.with_window(Some(0)), &queries, &target),
        Error::Parameter { .. },
        "window"
    );
    assert!(attend(&plain.with_window(Some(usize::MAX)), &queries, &target).is_ok());
    for cap in [0.0, -2.0, f32::NAN] {
        refused!(
            attend(&plain.with_cap(Some(cap)), &queries, &target),
            Error::Parameter { .. },
            "cap"
        );
    }
    for columns in [0, 16, 48, 63] {
        let other = output(&context, 3, columns);
        refused!(
            attend(&plain, &other, &target),
            Error::ShapeMismatch { .. },
            "the queries"
        );
    }
    refused!(
        attend(&plain, &queries, &output(&context, 2, 64)),
        Error::ShapeMismatch { .. },
        "2x64"
    );
    refused!(
        attend(&plain, &queries, &halves(&context, 3, 64)),
        Error::OutputMismatch { .. },
        "f16"
    );
    refused!(
        attend(&plain, &queries, &queries),
        Error::Aliased { .. },
        "the queries"
    );
    let many = (output(&context, 9, 64), output(&context, 9, 64));
    refused!(
        attend(&plain, &many.0, &many.1),
        Error::TooLarge { .. },
        "9"
    );
    let none = attend(&plain, &output(&context, 0, 64), &output(&context, 0, 64));
    assert_eq!(none.expect("no rows").dispatches(), 0);
}

#[test]
fn residuals_are_checked() {
    let context = context();
    let plain = Problem::new((3, 64, 32), format("f32"), format("f32"));
    let adding = plain.clone().with_residual();
    let target = output(&context, 3, 64);
    let prepare = |problem: &Problem, residual: Option<&OutputMatrix>| {
        let plan = context.plan(problem)?;
        let operands = Operands {
            activation: &f32s(&context, 3, 32),
            weight: &context.allocate(format("f32"), 64, 32, &plan.weight_layout())?,
            output: &target,
        };
        let mut epilogue = Epilogue::default();
        epilogue.residual = residual;
        context.prepare_with(&plan, operands, &epilogue)
    };
    let residual = output(&context, 3, 64);
    assert!(prepare(&adding, Some(&residual)).is_ok());
    refused!(
        prepare(&adding, None),
        Error::Residual { expected: true },
        "with_residual"
    );
    refused!(
        prepare(&plain, Some(&residual)),
        Error::Residual { expected: false },
        "with_residual"
    );
    refused!(
        prepare(&adding, Some(&output(&context, 3, 60))),
        Error::ShapeMismatch { .. },
        "60"
    );
    refused!(
        prepare(&adding, Some(&halves(&context, 3, 64))),
        Error::OutputMismatch { .. },
        "f16"
    );
    refused!(
        prepare(&adding, Some(&target)),
        Error::Aliased { .. },
        "the residual"
    );
    let wide = context.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 3 * 128 * 4,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let strided = OutputMatrix::from_buffer(&wide, 0, OutputFormat::F32, (3, 64), 128);
    let strided = strided.expect("an output");
    refused!(
        prepare(&adding, Some(&strided)),
        Error::Buffer { .. },
        "128"
    );
    // Only f32 outputs take one.
    for format in [OutputFormat::F16, OutputFormat::I32] {
        let problem = adding.clone().with_output(format);
        refused!(
            context.plan(&problem),
            Error::Unsupported { .. },
            "residual"
        );
    }
}

/// Tables can be shared: they are as large as their positions ask for.
#[test]
fn tables_cover_their_positions() {
    let context = context();
    for positions in [1, 256, 257, 100_000] {
        let table: RotaryTable = context.rotary_table(&[0.5; 4], positions).expect("a table");
        assert_eq!((table.rotated(), table.positions()), (8, positions));
        let entries = 256 + positions.div_ceil(256);
        assert_eq!(table.bytes(), 8 * 4 * entries as u64);
    }
}
