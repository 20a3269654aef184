//! One stored matrix at several widths: what products read of it, and what is refused. On wgpu's noop backend.

use anybit::{
    Caps, Context, DeviceMatrix, Engine, Error, Operands, OutputFormat, PlanOptions, Problem,
    Reason, plan, wgpu,
};
use anybit_formats::{
    DeviceLayout, ElementFormat, FormatError, Memory, Nesting, PackedMatrix, PieceLayout, SumLayout,
};
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;

fn context() -> Context {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    Context::from_device(device, queue)
}

fn matrix(name: &str, rows: usize, columns: usize) -> PackedMatrix {
    let mut random = Random::new(1);
    operand(&format(name), (rows, columns), Fill::Random, &mut random)
}

fn layout(pieces: PieceLayout) -> DeviceLayout {
    DeviceLayout {
        pieces,
        interleave: 4,
        sums: SumLayout::None,
        memory: Memory::Buffers,
    }
}

const PLANES: PieceLayout = PieceLayout::Planes;
const PIECES: PieceLayout = PieceLayout::Pieces;

/// l/8 of the codes by truncation, (l + 1)/8 with a carry plane, all of them from bytes; the scales always.
#[test]
fn products_read_the_planes_of_their_width() {
    let context = context();
    let (rows, columns) = (70, 320);
    let stored = matrix("i8g32h", rows, columns);
    // Rows are padded to fours, columns to blocks of 32.
    let codes = 72 * 320;
    let upload = |pieces, widths: &[u8]| {
        context
            .upload_with_carries(&stored, &layout(pieces), widths)
            .expect("an upload")
    };
    let planes = upload(PLANES, &[2, 3, 4, 6]);
    let bytes = upload(PIECES, &[]);
    assert_eq!(planes.code_bytes_read(), codes);
    assert_eq!(planes.carry_widths(), [2, 3, 4, 6]);
    let side = planes.bytes_read() - codes;
    // An f16 for each 32 columns.
    assert!((2 * 72 * 10..2 * 72 * 10 + 512).contains(&side), "{side}");
    for bits in [2, 3, 4, 6_u8] {
        let wide = u64::from(bits);
        let read = |nesting| {
            let view = planes.nested(bits, nesting).expect("a view");
            assert_eq!(view.bytes(), planes.bytes());
            assert_eq!(view.bytes_read() - view.code_bytes_read(), side);
            assert_eq!(view.format(), &format("i8g32h").nested(bits).expect("int8"));
            assert_eq!(view.nesting(), Some(nesting));
            view.code_bytes_read()
        };
        assert_eq!(read(Nesting::Truncation), codes * wide / 8);
        assert_eq!(read(Nesting::DoubleRounding), codes * (wide + 1) / 8);
        for nesting in Nesting::ALL {
            let view = bytes.nested(bits, nesting).expect("a view");
            assert_eq!(view.code_bytes_read(), codes);
        }
    }
    // A carry plane costs an eighth of the codes.
    let growth = planes.bytes() - upload(PLANES, &[]).bytes();
    assert!(
        growth >= 4 * codes / 8 && growth < 4 * codes / 8 + 5 * 256,
        "{growth}"
    );
    // 8 bits are the matrix itself.
    let same = planes.nested(8, Nesting::DoubleRounding).expect("a view");
    assert_eq!((same.nesting(), same.code_bytes_read()), (None, codes));
    assert_eq!(same.format(), stored.format());
}

#[test]
fn wrong_views_are_refused() {
    let context = context();
    let planes = context
        .upload_with_carries(&matrix("i8rf", 8, 64), &layout(PLANES), &[4])
        .expect("an upload");
    for bits in [0, 1, 9] {
        for nesting in Nesting::ALL {
            assert!(matches!(
                planes.nested(bits, nesting),
                Err(Error::Format(FormatError::NestedBits { bits: found })) if found == bits
            ));
        }
    }
    // A width without a carry plane; truncation needs none.
    match planes.nested(3, Nesting::DoubleRounding) {
        Err(Error::CarryPlane { bits: 3, stored }) => assert_eq!(stored, [4]),
        other => panic!("{other:?}"),
    }
    planes.nested(3, Nesting::Truncation).expect("a view");
    let view = planes.nested(4, Nesting::DoubleRounding).expect("a view");
    assert!(matches!(
        view.nested(2, Nesting::DoubleRounding),
        Err(Error::Nested { .. })
    ));
    // Other encodings.
    for name in ["u8rf", "b8rf", "i7rf", "i8rfz", "e4m3rf", "f16"] {
        let stored = matrix(name, 8, 64);
        let layout = if name == "f16" {
            DeviceLayout::ROW_MAJOR
        } else {
            layout(PIECES)
        };
        let there = context.upload(&stored, &layout).expect("an upload");
        for nesting in Nesting::ALL {
            assert!(
                matches!(
                    there.nested(4, nesting),
                    Err(Error::Format(FormatError::NestedFormat { format })) if format == *stored.format()
                ),
                "{name}"
            );
        }
    }
    // Carry planes with bytes.
    assert!(matches!(
        context.upload_with_carries(&matrix("i8rf", 8, 64), &layout(PIECES), &[4]),
        Err(Error::Format(FormatError::CarryLayout { .. }))
    ));
}

fn prepare(
    context: &Context,
    options: &PlanOptions,
    weight: &DeviceMatrix,
    activation: Option<&DeviceMatrix>,
) -> Result<usize, Error> {
    let problem = Problem::new((4, 8, 64), format("i4rf"), *weight.format());
    let plan = context.plan_with(&problem, options)?;
    let own = context.upload(&matrix("i4rf", 4, 64), &plan.activation_layout())?;
    let output = context.output(OutputFormat::F32, 4, 8)?;
    let operands = Operands {
        activation: activation.unwrap_or(&own),
        weight,
        output: &output,
    };
    Ok(context.prepare(&plan, operands)?.dispatches())
}

/// A plan and its weights agree on how these are read.
#[test]
fn plans_take_only_weights_read_their_way() {
    let context = context();
    let stored = matrix("i8rf", 8, 64);
    for (pieces, engine) in [(PLANES, Engine::Bitplane), (PIECES, Engine::Dot4)] {
        let widths: &[u8] = if pieces == PLANES { &[4] } else { &[] };
        let whole = context
            .upload_with_carries(&stored, &layout(pieces), widths)
            .expect("an upload");
        let ways = [
            None,
            Some(Nesting::Truncation),
            Some(Nesting::DoubleRounding),
        ];
        for read in ways {
            let view = match read {
                None => context
                    .upload(&matrix("i4rf", 8, 64), &layout(pieces))
                    .expect("an upload"),
                Some(nesting) => whole.nested(4, nesting).expect("a view"),
            };
            for planned in ways {
                let mut options = PlanOptions::engine(engine).with_memory(Memory::Buffers);
                options.nesting = planned;
                match prepare(&context, &options, &view, None) {
                    Ok(1) => assert_eq!(planned, read),
                    Err(Error::NestingMismatch { expected, actual }) => {
                        assert_ne!(planned, read);
                        assert_eq!((expected, actual), (planned, read));
                    }
                    other => panic!("{other:?}"),
                }
            }
            let options = PlanOptions::default().with_weight(&view);
            assert_eq!(prepare(&context, &options, &view, None).ok(), Some(1));
        }
        // Activations, and what is decoded or quantised into, are stored as they are read.
        let view = whole.nested(4, Nesting::Truncation).expect("a view");
        let output = context.output(OutputFormat::F32, 8, 64).expect("an output");
        assert!(matches!(
            context.prepare_decode(&view, &output),
            Err(Error::Nested { .. })
        ));
        let values = context.upload_f32(&[0.0; 512], 8, 64).expect("an upload");
        assert!(matches!(
            context.prepare_quantize(&values, &view),
            Err(Error::Nested { .. })
        ));
    }
    let rows = DeviceLayout {
        interleave: 1,
        ..layout(PIECES)
    };
    let view = context
        .upload(&matrix("i8rf", 4, 64), &rows)
        .and_then(|whole| whole.nested(4, Nesting::Truncation))
        .expect("a view");
    let weight = context
        .upload(&matrix("i4rf", 8, 64), &layout(PIECES))
        .expect("an upload");
    assert!(matches!(
        prepare(
            &context,
            &PlanOptions::engine(Engine::Dot4).with_memory(Memory::Buffers),
            &weight,
            Some(&view)
        ),
        Err(Error::Nested { .. })
    ));
}

#[test]
fn the_planner_knows_what_nests() {
    let caps = Caps::floor();
    let options = PlanOptions::default().with_nesting(Nesting::DoubleRounding);
    let problem = |k, x: &str, w: &str| Problem::new((4, 8, k), format(x), format(w));
    for w in ["u4rf", "b4rf", "i1rf", "i4rfz", "tg32f", "nf4g32f"] {
        let Err(Error::Unsupported { refusals, .. }) =
            plan(&problem(64, "i8rf", w), &caps, &options)
        else {
            panic!("{w} is read out of int8");
        };
        assert!(
            refusals
                .iter()
                .all(|refusal| matches!(refusal.reason, Reason::Nested(_)))
        );
    }
    let float = plan(&problem(64, "f32", "i4rf"), &caps, &options);
    assert!(matches!(float, Err(Error::Unsupported { .. })));
    // Weights of 8 bits are read as they are.
    let whole = plan(&problem(64, "i8rf", "i8rf"), &caps, &options).expect("a plan");
    assert_eq!(whole.nesting(), None);
    // Under a scale along all of K, integers are as large as the stored ones.
    let longest = 131_071;
    let at = |k| plan(&problem(k, "i8rf", "i2rf"), &caps, &options);
    assert!(at(longest).is_ok());
    assert!(matches!(
        at(longest + 1),
        Err(Error::AccumulatorOverflow {
            max_k: 131_071,
            weight: ElementFormat::INT8,
            ..
        })
    ));
    let bare = problem(longest + 1, "i8", "i2").with_output(OutputFormat::I32);
    assert!(plan(&bare, &caps, &options).is_ok());
    // Ids are of one shader each.
    let id = |engine, nesting: Option<Nesting>| {
        let mut options = PlanOptions::engine(engine);
        options.nesting = nesting;
        let plan = plan(&problem(64, "i8rf", "i3rf"), &caps, &options).expect("a plan");
        let wgsl = plan.specialization().link().expect("it links").wgsl;
        (plan.id().to_owned(), wgsl)
    };
    let ways = [
        None,
        Some(Nesting::Truncation),
        Some(Nesting::DoubleRounding),
    ];
    let dot4 = ways.map(|way| id(Engine::Dot4, way));
    assert!(dot4[0] != dot4[1] && dot4[1] != dot4[2] && dot4[0] != dot4[2]);
    // Top planes are planes, but in other units.
    let bitplane = ways.map(|way| id(Engine::Bitplane, way));
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        assert!(bitplane[a].0 != bitplane[b].0 && bitplane[a].1 != bitplane[b].1);
    }
}
