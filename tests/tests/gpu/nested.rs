//! One matrix of `int8` on the device, read at fewer bits: products equal those of the nested matrix on the host.

use anybit::{
    Batch, Context, DeviceMatrix, Engine, Error, Operands, OutputFormat, Plan, PlanOptions,
    Problem, Values, candidates, plan,
};
use anybit_formats::{
    DeviceLayout, MatrixFormat, Memory, Nesting, PackedMatrix, PieceLayout, SumLayout,
};
use anybit_reference::exact;
use anybit_reference::kernel::{Tile, gemm_tiled_bitplane};
use anybit_tests::compare;
use anybit_tests::full;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{Rig, batches, device, on_each_adapter, reference};

const WIDTHS: [u8; 7] = [8, 7, 6, 5, 4, 3, 2];
const CARRIES: [u8; 6] = [2, 3, 4, 5, 6, 7];
/// Ragged against every tile and step.
const SHAPES: [(usize, usize, usize); 3] = [(5, 37, 75), (1, 9, 33), (9, 70, 160)];

/// The layout in which an engine reads weights from some memory.
fn layout(engine: Engine, memory: Memory) -> DeviceLayout {
    DeviceLayout {
        pieces: match engine {
            Engine::Bitplane => PieceLayout::Planes,
            _ => PieceLayout::Pieces,
        },
        interleave: 4,
        sums: SumLayout::None,
        memory,
    }
}

/// A stored matrix on the device in an engine's layout, with carry planes for every width where they are read.
fn upload(
    context: &Context,
    stored: &PackedMatrix,
    engine: Engine,
    memory: Memory,
) -> Result<DeviceMatrix, Error> {
    let widths: &[u8] = match engine {
        Engine::Bitplane => &CARRIES,
        _ => &[],
    };
    context.upload_with_carries(stored, &layout(engine, memory), widths)
}

/// The product of a plan with the weights on the device; it runs on them as they are.
fn multiply(
    context: &Context,
    plan: &Plan,
    x: &PackedMatrix,
    weight: &DeviceMatrix,
) -> Result<Values, Error> {
    let problem = plan.problem();
    let activation = context.upload(x, &plan.activation_layout())?;
    let output = context.output(problem.output, problem.output_rows(), problem.n)?;
    let operands = Operands {
        activation: &activation,
        weight,
        output: &output,
    };
    let prepared = context.prepare(plan, operands)?;
    context.run(&prepared, &output)
}

/// Compares a product with that of the nested matrix on the host.
fn check(
    problem: &Problem,
    engine: Engine,
    x: &PackedMatrix,
    nested: &PackedMatrix,
    values: Values,
) -> Result<(), String> {
    let wrong = match values {
        Values::I32(found) => {
            let expected = exact::gemm_i64_batched(x, nested, batches(problem));
            compare::exact(&found, &expected.map_err(|error| error.to_string())?)
        }
        found @ (Values::F32(_) | Values::F16(_)) => {
            let (expected, bounds) = reference(problem, engine, x, nested)?;
            compare::bounded(&found.into_f32().unwrap_or_default(), &expected, &bounds)
        }
    };
    wrong.map_or(Ok(()), |wrong| Err(wrong.to_string()))
}

/// One problem on one kernel of an engine, chosen by `turn`, at one width.
#[expect(clippy::too_many_arguments, reason = "each names a choice of the test")]
fn check_width(
    rig: &mut Rig,
    (shape, output): ((usize, usize, usize), OutputFormat),
    (activation, stored): (MatrixFormat, MatrixFormat),
    engine: Engine,
    bits: u8,
    nesting: Nesting,
    fill: Fill,
    turn: usize,
) {
    let read = stored.nested(bits).expect("int8");
    let problem = Problem::new(shape, activation, read).with_output(output);
    let mut context = if turn.is_multiple_of(2) {
        rig.best()
    } else {
        rig.floor()
    };
    let options = PlanOptions::engine(engine).with_nesting(nesting);
    let (accepted, _) = candidates(&problem, context.caps(), &options).expect("a problem");
    let kernels: Vec<_> = accepted
        .iter()
        .filter(|candidate| candidate.tile.thread_m * candidate.tile.thread_n <= 16)
        .collect();
    let id = &kernels[turn % kernels.len()].specialization.id;
    let options = PlanOptions::kernel(id).with_nesting(nesting);
    let plan = plan(&problem, context.caps(), &options).expect("a candidate");
    rig.note_pipeline(plan.specialization(), turn % 2 == 1);
    context = if turn.is_multiple_of(2) {
        rig.best()
    } else {
        rig.floor()
    };

    let mut random = Random::new(turn as u64);
    let x = operand(&activation, (shape.0, shape.2), Fill::Random, &mut random);
    let w = operand(&stored, (shape.1, shape.2), fill, &mut random);
    let result = (|| -> Result<(), String> {
        let error = |error: Error| error.to_string();
        let memory = plan.weight_layout().memory;
        let whole = upload(&context, &w, engine, memory).map_err(error)?;
        let view = whole.nested(bits, nesting).map_err(error)?;
        let values = multiply(&context, &plan, &x, &view).map_err(error)?;
        let nested = w.nested(bits, nesting).map_err(|error| error.to_string())?;
        check(&problem, engine, &x, &nested, values)
    })();
    let what = format!("{id}, {shape:?}, {bits} bits by {nesting:?}, {fill:?}");
    rig.note(result.map_err(|error| format!("{what}: {error}")));
}

/// Every width and way on both engines, the skeletons in turn.
#[test]
fn nested_integers_are_exact() {
    on_each_adapter("nested_integers_are_exact", |rig| {
        let mut turn = 0;
        for engine in [Engine::Bitplane, Engine::Dot4] {
            // Products of many planes compile for long.
            let activations = match engine {
                Engine::Bitplane => ["u2", "b1", "i3", "b2"],
                _ => ["i8", "u4", "b8", "i3"],
            };
            for bits in WIDTHS {
                for nesting in Nesting::ALL {
                    for step in 0..if full() { SHAPES.len() } else { 1 } {
                        turn += 1;
                        let index = (turn / 2 + step) % SHAPES.len();
                        check_width(
                            rig,
                            (SHAPES[index], OutputFormat::I32),
                            (format(activations[turn % 4]), format("i8")),
                            engine,
                            bits,
                            nesting,
                            [Fill::Random, Fill::Random, Fill::Largest][turn % 3],
                            turn,
                        );
                    }
                }
            }
        }
    });
}

/// Scales of every granularity and kind, minima among them.
#[test]
fn nested_products_are_within_their_bounds() {
    on_each_adapter("nested_products_are_within_their_bounds", |rig| {
        let formats = [
            ("i8rf", "i8rf"),
            ("u4rf", "i8g32h"),
            ("b2g16f", "i8g16f"),
            ("i3rfz", "i8g32hm"),
            ("i8f", "i8f"),
            ("i4rf", "i8g32sm"),
            ("i8g32f", "i8g32k"),
            ("i2", "i8"),
        ];
        for (index, (activation, stored)) in formats.into_iter().enumerate() {
            for (step, engine) in [Engine::Bitplane, Engine::Dot4].into_iter().enumerate() {
                for nesting in Nesting::ALL {
                    if !full() && (nesting == Nesting::Truncation) == (index % 2 == step) {
                        continue;
                    }
                    let bits = [6, 4, 3, 2, 8, 7, 5][(3 * index + step) % 7];
                    let output = match index % 3 {
                        1 => OutputFormat::F16,
                        _ => OutputFormat::F32,
                    };
                    check_width(
                        rig,
                        ((7, 70, 512), output),
                        (format(activation), format(stored)),
                        engine,
                        bits,
                        nesting,
                        Fill::Random,
                        2 * index + step,
                    );
                }
            }
        }
    });
}

/// Every tile that reads a carry plane; with `full`, also every tile that rounds bytes.
#[test]
fn every_tile_reads_nested_weights() {
    on_each_adapter("every_tile_reads_nested_weights", |rig| {
        let shape = (8, 70, 100);
        let engines = [Engine::Bitplane, Engine::Dot4];
        for engine in engines.into_iter().take(if full() { 2 } else { 1 }) {
            let nesting = Nesting::DoubleRounding;
            let problem =
                Problem::new(shape, format("b1"), format("i2")).with_output(OutputFormat::I32);
            let options = PlanOptions::engine(engine).with_nesting(nesting);
            let mut random = Random::new(9);
            let x = operand(&problem.activation, (8, 100), Fill::Random, &mut random);
            let w = operand(&format("i8"), (70, 100), Fill::Random, &mut random);
            let nested = w.nested(2, nesting).expect("int8");
            let ids: Vec<String> = candidates(&problem, rig.best().caps(), &options)
                .expect("a problem")
                .0
                .into_iter()
                .map(|candidate| candidate.specialization.id)
                .collect();
            assert!(ids.len() > 6, "{ids:?}");
            for id in ids {
                let options = PlanOptions::kernel(&id).with_nesting(nesting);
                let plan = rig
                    .best()
                    .plan_with(&problem, &options)
                    .expect("a candidate");
                rig.note_pipeline(plan.specialization(), false);
                let context = rig.best();
                let memory = plan.weight_layout().memory;
                let result = upload(&context, &w, engine, memory)
                    .and_then(|whole| whole.nested(2, nesting))
                    .and_then(|view| multiply(&context, &plan, &x, &view))
                    .map_err(|error| error.to_string())
                    .and_then(|values| check(&problem, engine, &x, &nested, values));
                rig.note(result.map_err(|error| format!("{id}: {error}")));
            }
        }
    });
}

/// One upload serves every width, also in several buffers; only the parameters differ.
#[test]
fn one_upload_serves_every_width() {
    const LIMIT: u64 = 64 << 10;
    on_each_adapter("one_upload_serves_every_width", |rig| {
        let mut limits =
            anybit::wgpu::Limits::default().or_worse_values_from(&rig.adapter().limits());
        limits.max_storage_buffer_binding_size = LIMIT;
        let context = device(rig.adapter(), anybit::wgpu::Features::empty(), limits);
        let (m, n, k) = (3, 701, 320);
        for engine in [Engine::Bitplane, Engine::Dot4] {
            let mut random = Random::new(3);
            let x = operand(&format("u2rf"), (m, k), Fill::Random, &mut random);
            let w = operand(&format("i8g32h"), (n, k), Fill::Random, &mut random);
            let whole = match upload(&context, &w, engine, Memory::Buffers) {
                Ok(whole) => whole,
                Err(error) => return rig.note(Err(error.to_string())),
            };
            rig.note(match context.download(&whole) {
                Ok(back) if back == w => Ok(()),
                other => Err(format!("came back as {other:?}")),
            });
            for bits in [8, 4, 2] {
                for nesting in Nesting::ALL {
                    let result = (|| -> Result<(), String> {
                        let error = |error: Error| error.to_string();
                        let view = whole.nested(bits, nesting).map_err(error)?;
                        let problem = Problem::new((m, n, k), *x.format(), *view.format());
                        let options = PlanOptions::default().with_weight(&view);
                        let plan = context.plan_with(&problem, &options).map_err(error)?;
                        assert_eq!((plan.engine(), plan.nesting()), (engine, view.nesting()));
                        let nested = w.nested(bits, nesting).map_err(|error| error.to_string())?;
                        let back = context.download(&view).map_err(error)?;
                        if back != nested || view.bytes() != whole.bytes() {
                            return Err(format!("{back:?} of {} bytes", view.bytes()));
                        }
                        let activation = context
                            .upload(&x, &plan.activation_layout())
                            .map_err(error)?;
                        let output = context.output(OutputFormat::F32, m, n).map_err(error)?;
                        let operands = Operands {
                            activation: &activation,
                            weight: &view,
                            output: &output,
                        };
                        let prepared = context.prepare(&plan, operands).map_err(error)?;
                        if prepared.dispatches() < 2 {
                            return Err("one buffer holds it".into());
                        }
                        let values = context.run(&prepared, &output).map_err(error)?;
                        check(&problem, engine, &x, &nested, values)
                    })();
                    let what = format!("{engine} at {bits} bits by {nesting:?}");
                    rig.note(result.map_err(|error| format!("{what}: {error}")));
                }
            }
        }
    });
}

/// Batches of nested weights, and a K of 0.
#[test]
fn nested_weights_in_batches_and_without_columns() {
    on_each_adapter("nested_weights_in_batches_and_without_columns", |rig| {
        let context = rig.best();
        let batch = Batch {
            count: 3,
            broadcast_activation: true,
            broadcast_weight: false,
        };
        for (engine, k) in [
            (Engine::Bitplane, 70),
            (Engine::Dot4, 70),
            (Engine::Bitplane, 0),
            (Engine::Dot4, 0),
        ] {
            let nesting = Nesting::DoubleRounding;
            let problem = Problem::new((4, 20, k), format("i4"), format("i5"))
                .with_output(OutputFormat::I32)
                .with_batch(batch);
            let options = PlanOptions::engine(engine).with_nesting(nesting);
            let mut random = Random::new(4);
            let x = operand(&problem.activation, (4, k), Fill::Random, &mut random);
            let w = operand(&format("i8"), (60, k), Fill::Random, &mut random);
            let nested = w.nested(5, nesting).expect("int8");
            let result = context
                .plan_with(&problem, &options)
                .and_then(|plan| {
                    let memory = plan.weight_layout().memory;
                    let view = upload(&context, &w, engine, memory)?.nested(5, nesting)?;
                    multiply(&context, &plan, &x, &view)
                })
                .map_err(|error| error.to_string())
                .and_then(|values| check(&problem, engine, &x, &nested, values));
            rig.note(result.map_err(|error| format!("{engine}, K = {k}: {error}")));
        }
    });
}

/// The twin of the bitplane kernel on the nested matrix gives what the device gives from planes and carry plane.
#[test]
fn twins_of_the_nested_matrix_agree() {
    on_each_adapter("twins_of_the_nested_matrix_agree", |rig| {
        let context = rig.best();
        let mut random = Random::new(5);
        let x = operand(&format("i3"), (6, 90), Fill::Random, &mut random);
        let w = operand(&format("i8"), (24, 90), Fill::Random, &mut random);
        for nesting in Nesting::ALL {
            let nested = w.nested(4, nesting).expect("int8");
            let problem = Problem::new((6, 24, 90), *x.format(), *nested.format())
                .with_output(OutputFormat::I32);
            let options = PlanOptions::engine(Engine::Bitplane).with_nesting(nesting);
            let found = context
                .plan_with(&problem, &options)
                .and_then(|plan| {
                    let memory = plan.weight_layout().memory;
                    let view =
                        upload(&context, &w, Engine::Bitplane, memory)?.nested(4, nesting)?;
                    multiply(&context, &plan, &x, &view)
                })
                .map(|values| values.into_i32().unwrap_or_default());
            let tile = Tile::of(&x, &nested);
            let twin = gemm_tiled_bitplane::<i32>(&x, &nested, batches(&problem), tile);
            match (found, twin) {
                (Ok(found), Ok(twin)) => {
                    rig.note_wrong("gemm_tiled_bitplane", compare::equal(&found, &twin));
                }
                (found, twin) => rig.note(Err(format!("{found:?}, {twin:?}"))),
            }
        }
    });
}
