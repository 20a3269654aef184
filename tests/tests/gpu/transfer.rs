//! Upload and download, and matrices that do not fit one binding.

use anybit::half::{bf16, f16};
use anybit::{
    Batch, Context, DeviceMatrix, Error, Operands, OutputFormat, PlanOptions, Problem, Values, wgpu,
};
use anybit_formats::{
    DeviceLayout, FORMATS, FloatFormat, MatrixFormat, Memory, PieceLayout, SumLayout,
};
use anybit_reference::exact;
use anybit_tests::compare;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{device, on_each_adapter, reference};

#[test]
fn matrices_come_back_as_they_went() {
    on_each_adapter("matrices_come_back_as_they_went", |rig| {
        let context = rig.best();
        for (index, row) in FORMATS.iter().enumerate() {
            let usual = MatrixFormat::weight_default(row.element);
            // Where a group chooses a code's value there are no bare codes.
            let bare = MatrixFormat::new(row.element, None).unwrap_or(usual);
            let formats = [bare, usual, MatrixFormat::activation_default(row.element)];
            for (turn, format) in formats.into_iter().enumerate() {
                for (rows, columns) in [(1, 1), (5, 96), (33, 70), (37, 160)] {
                    if format.check_shape(rows, columns).is_err() {
                        continue;
                    }
                    let coded = row.element.has_codes();
                    let layout = DeviceLayout {
                        pieces: [PieceLayout::Pieces, PieceLayout::Planes][(index + turn) % 2],
                        interleave: if coded {
                            [1, 4, 32][(index + rows) % 3]
                        } else {
                            1
                        },
                        sums: if coded {
                            [SumLayout::None, SumLayout::Blocks, SumLayout::Groups][turn]
                        } else {
                            SumLayout::None
                        },
                        memory: if coded {
                            [Memory::Textures, Memory::TextureCodes, Memory::Buffers]
                                [(index + rows + turn) % 3]
                        } else {
                            Memory::Buffers
                        },
                    };
                    let mut random = Random::new(index as u64);
                    let matrix = operand(&format, (rows, columns), Fill::Random, &mut random);
                    let back = context
                        .upload(&matrix, &layout)
                        .and_then(|there| context.download(&there));
                    rig.note(match back {
                        Ok(back) if back == matrix => Ok(()),
                        other => Err(format!("{matrix:?} in {layout:?} came back as {other:?}")),
                    });
                }
            }
        }
    });
}

/// Through all chunks of staging memory and back to the first, several times and from several threads; beside small ones.
#[test]
fn large_matrices_come_back_as_they_went() {
    on_each_adapter("large_matrices_come_back_as_they_went", |rig| {
        let context = &rig.best();
        let cases = [
            ("i8g32h", PieceLayout::Pieces, 4, (1003, 2080)),
            ("u3g32hm", PieceLayout::Planes, 4, (4001, 4128)),
            ("i4g32h", PieceLayout::Pieces, 1, (2048, 4096)),
            ("f32", PieceLayout::Pieces, 1, (2900, 3001)),
            ("i4rh", PieceLayout::Pieces, 32, (30, 100)),
        ];
        let results: Vec<_> = std::thread::scope(|scope| {
            let upload = |(index, (name, pieces, interleave, shape))| {
                scope.spawn(move || {
                    let layout = DeviceLayout {
                        pieces,
                        interleave,
                        sums: SumLayout::None,
                        memory: Memory::Buffers,
                    };
                    let mut random = Random::new(index);
                    let matrix = operand(&format(name), shape, Fill::Random, &mut random);
                    let back = context
                        .upload(&matrix, &layout)
                        .and_then(|there| context.download(&there));
                    match back {
                        Ok(back) if back == matrix => Ok(()),
                        other => Err(format!("{matrix:?} in {layout:?} came back as {other:?}")),
                    }
                })
            };
            let threads: Vec<_> = (0..).zip(cases).map(upload).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        for result in results {
            rig.note(result.expect("no panic"));
        }
    });
}

/// Memory to copy from is bounded, and is used again.
#[test]
fn staging_memory_is_used_again() {
    on_each_adapter("staging_memory_is_used_again", |rig| {
        let context = rig.best();
        let matrix = operand(
            &format("i8rf"),
            (512, 4096),
            Fill::Random,
            &mut Random::new(1),
        );
        let upload = || context.upload(&matrix, &DeviceLayout::ROW_MAJOR);
        for _ in 0..40 {
            rig.note(upload().map(|_| ()).map_err(|error| error.to_string()));
        }
        let back = upload().and_then(|there| context.download(&there));
        rig.note(match back {
            Ok(back) if back == matrix => Ok(()),
            other => Err(format!("{matrix:?} came back as {other:?}")),
        });
    });
}

/// A context whose bindings hold so many bytes.
fn limited(adapter: &wgpu::Adapter, bytes: u64) -> Context {
    let mut limits = wgpu::Limits::default().or_worse_values_from(&adapter.limits());
    limits.max_storage_buffer_binding_size = bytes;
    let features = adapter.features() & anybit::wanted_features(adapter);
    device(adapter, features, limits)
}

const LIMIT: u64 = 64 << 10;

#[test]
fn weights_over_the_binding_limit_are_split() {
    on_each_adapter("weights_over_the_binding_limit_are_split", |rig| {
        let context = limited(rig.adapter(), LIMIT);
        assert_eq!(context.caps().max_binding, LIMIT);
        // Each takes several times the limit, and a last chunk that is ragged.
        let cases = [
            ("i8", "i8", OutputFormat::I32, (3, 1001, 300)),
            ("f32", "f32", OutputFormat::F32, (5, 333, 260)),
            ("f32", "f32", OutputFormat::F16, (5, 333, 260)),
            ("i8rf", "u4g32hm", OutputFormat::F32, (9, 1501, 320)),
            ("u2rf", "b3rh", OutputFormat::F32, (1, 2777, 320)),
        ];
        for (index, (x, w, output, shape)) in cases.into_iter().enumerate() {
            let problem = Problem::new(shape, format(x), format(w)).with_output(output);
            let mut random = Random::new(index as u64);
            let x = operand(
                &problem.activation,
                (problem.m, problem.k),
                Fill::Random,
                &mut random,
            );
            let w = operand(
                &problem.weight,
                (problem.n, problem.k),
                Fill::Random,
                &mut random,
            );
            let product = || -> Result<_, Error> {
                let plan = context.plan(&problem)?;
                let activation = context.upload(&x, &plan.activation_layout())?;
                let weight = context.upload(&w, &plan.weight_layout())?;
                let output = context.output(problem.output, problem.m, problem.n)?;
                let operands = Operands {
                    activation: &activation,
                    weight: &weight,
                    output: &output,
                };
                let prepared = context.prepare(&plan, operands)?;
                let back = context.download(&weight)?;
                Ok((
                    context.run(&prepared, &output)?,
                    prepared.dispatches(),
                    back == w,
                    weight.bytes(),
                    plan.engine(),
                ))
            };
            let what = problem.contract();
            match product() {
                Err(error) => rig.note(Err(format!("{what}: {error}"))),
                Ok((values, dispatches, same, bytes, engine)) => {
                    rig.note(match dispatches >= 2 && bytes > LIMIT && same {
                        true => Ok(()),
                        false => Err(format!(
                            "{what}: {dispatches} dispatches, {bytes} bytes, came back: {same}"
                        )),
                    });
                    let wrong = match values {
                        Values::I32(found) => {
                            compare::exact(&found, &exact::gemm_i64(&x, &w).expect("a product"))
                        }
                        found => {
                            let (expected, bounds) =
                                reference(&problem, engine, &x, &w).expect("a product");
                            let found = found.into_f32().unwrap_or_default();
                            compare::bounded(&found, &expected, &bounds)
                        }
                    };
                    rig.note_wrong(&what, wrong);
                }
            }
        }
    });
}

/// What cannot be split is refused, before wgpu sees it.
#[test]
fn operands_over_the_binding_limit_are_refused() {
    on_each_adapter("operands_over_the_binding_limit_are_refused", |rig| {
        let context = limited(rig.adapter(), LIMIT);
        let scope = context
            .device()
            .push_error_scope(wgpu::ErrorFilter::Validation);
        let too_large = |what: &str, result: Result<(), Error>| match result {
            Err(Error::BindingTooLarge {
                limit: LIMIT,
                bytes,
                ..
            }) if bytes > LIMIT => Ok(()),
            other => Err(format!("{what}: {other:?}")),
        };
        let f32_format = format("f32");
        let matrix = |rows, columns| {
            operand(
                &f32_format,
                (rows, columns),
                Fill::Random,
                &mut Random::new(0),
            )
        };

        // Activations of batches that no binding may begin at.
        let product = |problem: &Problem| -> Result<(), Error> {
            let plan = context.plan(problem)?;
            let x = matrix(problem.activation_rows(), problem.k);
            let w = matrix(problem.weight_rows(), problem.k);
            let activation = context.upload(&x, &plan.activation_layout())?;
            let weight = context.upload(&w, &plan.weight_layout())?;
            let output = context.output(OutputFormat::F32, problem.output_rows(), problem.n)?;
            let operands = Operands {
                activation: &activation,
                weight: &weight,
                output: &output,
            };
            context.prepare(&plan, operands).map(|_| ())
        };
        let batch = Batch {
            count: 300,
            ..Batch::ONE
        };
        let uneven = Problem::new((5, 4, 64), f32_format, f32_format);
        rig.note(too_large(
            "activations in batches",
            product(&uneven.with_batch(batch)),
        ));
        let shared = Batch {
            count: 2,
            broadcast_activation: true,
            broadcast_weight: false,
        };
        let uneven = Problem::new((5, 203, 64), f32_format, f32_format);
        rig.note(too_large(
            "weights in batches",
            product(&uneven.with_batch(shared)),
        ));

        // The output.
        let limit = context.caps().max_buffer;
        let output = context.output(OutputFormat::F32, (limit / 256) as usize + 1, 64);
        rig.note(match output {
            Err(Error::BindingTooLarge {
                bytes, limit: most, ..
            }) if bytes > most && most == limit => Ok(()),
            other => Err(format!("the output: {other:?}")),
        });

        // Rows of which not even a few fit.
        let wide = context.upload(&matrix(1, 40_000), &DeviceLayout::ROW_MAJOR);
        rig.note(too_large("a wide matrix", wide.map(|_| ())));

        let error = pollster::block_on(scope.pop());
        rig.note(error.map_or(Ok(()), |error| Err(format!("wgpu saw it: {error}"))));
    });
}

/// A matrix takes no more on the device than its codes, scales, zeros and sums and 5 %.
#[test]
fn device_memory_is_what_the_data_needs() {
    on_each_adapter("device_memory_is_what_the_data_needs", |rig| {
        let context = rig.best();
        for (index, weight) in [
            "i4g32h", "u4g32hm", "i8rf", "u3g16fz", "b1rh", "tg64h", "f16", "u8g96fz",
        ]
        .into_iter()
        .enumerate()
        {
            for (activation, m) in [("i8rf", 1), ("i8rf", 64), ("f32", 8)] {
                for sums in [SumLayout::None, SumLayout::Blocks, SumLayout::Groups] {
                    let (rows, columns) = (576, 576);
                    let problem =
                        Problem::new((m, rows, columns), format(activation), format(weight));
                    // Textures end on whole rows of texels.
                    let in_buffers = PlanOptions::default().with_memory(Memory::Buffers);
                    let Ok(plan) = context.plan_with(&problem, &in_buffers) else {
                        continue;
                    };
                    let coded = problem.weight.element().has_codes();
                    let layout = DeviceLayout {
                        sums: if coded { sums } else { SumLayout::None },
                        ..plan.weight_layout()
                    };
                    let matrix = operand(
                        &problem.weight,
                        (rows, columns),
                        Fill::Random,
                        &mut Random::new(index as u64),
                    );
                    let sum_bits = 32
                        * rows as u64
                        * anybit_formats::layout::sum_groups(&problem.weight, columns, layout.sums)
                            as u64;
                    let least = (matrix.storage_bits() + sum_bits).div_ceil(8);
                    let bytes = context.upload(&matrix, &layout).map(|there| there.bytes());
                    rig.note(match bytes {
                        Ok(bytes) if bytes * 100 <= least * 105 => Ok(()),
                        other => Err(format!(
                            "{} {layout:?}: {other:?} for {least} bytes of data",
                            problem.weight
                        )),
                    });
                }
            }
        }
    });
}

/// What lies between the rows of a caller's buffer is no part of the matrix.
#[test]
fn matrices_in_buffers_of_the_caller_come_back() {
    on_each_adapter("matrices_in_buffers_of_the_caller_come_back", |rig| {
        let context = rig.best();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let (rows, columns, stride) = (5, 37, 64);
        let values: Vec<f32> = (0..rows * columns)
            .map(|index| index as f32 - 64.0)
            .collect();
        let expected: Vec<f64> = values.iter().copied().map(f64::from).collect();
        for float in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
            let mut bytes = vec![0xff; 256 + 4 * rows * stride];
            for (index, &value) in values.iter().enumerate() {
                let at = index / columns * stride + index % columns;
                let word = match float {
                    FloatFormat::F32 => value.to_le_bytes().to_vec(),
                    FloatFormat::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
                    _ => bf16::from_f32(value).to_le_bytes().to_vec(),
                };
                bytes[256 + word.len() * at..][..word.len()].copy_from_slice(&word);
            }
            let matrix = |usage| {
                let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: bytes.len() as u64,
                    usage,
                    mapped_at_creation: false,
                });
                context.queue().write_buffer(&buffer, 0, &bytes);
                DeviceMatrix::from_buffer_as(float, &buffer, 256, (rows, columns), stride)
            };
            let found = matrix(usage | wgpu::BufferUsages::COPY_SRC)
                .and_then(|matrix| context.download(&matrix));
            rig.note(match found.map(|found| found.decode_f64() == expected) {
                Ok(true) => Ok(()),
                other => Err(format!("{float:?}: {other:?}")),
            });
            let unreadable = matrix(usage).and_then(|matrix| context.download(&matrix));
            rig.note(match unreadable {
                Err(Error::Buffer { .. }) => Ok(()),
                other => Err(format!("{float:?} without COPY_SRC: {other:?}")),
            });
        }
        // An output as activations.
        let view = || -> Result<Vec<f64>, Error> {
            let x = context.upload_f32(&values, rows, columns)?;
            let y = context.output(OutputFormat::F32, rows, columns)?;
            let decoding = context.prepare_decode(&x, &y)?;
            context.run(&decoding, &y)?;
            let view = y
                .as_activation()
                .ok_or(Error::Residual { expected: true })?;
            Ok(context.download(&view)?.decode_f64())
        };
        rig.note(match view().map(|found| found == expected) {
            Ok(true) => Ok(()),
            other => Err(format!("an output: {other:?}")),
        });
    });
}
