//! f16 outputs: every kernel that writes them, what saturates, the other half of an odd row's last word, and what is made
//! of them.

use anybit::half::f16;
use anybit::{Context, DeviceMatrix, Operands, OutputFormat, OutputMatrix, Problem, Values};
use anybit_formats::{FloatFormat, PackedMatrix};
use anybit_reference::bound::f16_output;
use anybit_tests::case::Case;
use anybit_tests::compare;
use anybit_tests::full;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{buffer_of, on_each_adapter, reference};

/// Every tile of every kernel, unless `full` every sixth; M and N ragged, N odd and even.
#[test]
fn every_tile_writes_f16() {
    on_each_adapter("every_tile_writes_f16", |rig| {
        let contracts = [("f32", "i4g32h"), ("u3rf", "u2rhz")];
        for (index, (x, w)) in contracts.into_iter().enumerate() {
            for (step, (m, n)) in [(1, 69), (7, 70), (35, 67)].into_iter().enumerate() {
                let problem =
                    Problem::new((m, n, 96), format(x), format(w)).with_output(OutputFormat::F16);
                for (turn, kernel) in rig.kernels(&problem).into_iter().enumerate() {
                    // The largest compile for long, and store as others.
                    let sums = kernel.tile.thread_m * kernel.tile.thread_n;
                    if full() || (turn + 2 * step + 3 * index) % 6 == 0 && sums <= 64 {
                        // Two seeds: a buffer of the context's, and one of the caller's.
                        for seed in 0..2 {
                            rig.check(&Case::new(problem.clone(), kernel, seed));
                        }
                    }
                }
            }
        }
    });
}

/// X · Wᵀ in f16, in a buffer of the caller that was all ones.
fn multiply(
    context: &Context,
    x: &PackedMatrix,
    w: &PackedMatrix,
) -> Result<(Vec<f16>, OutputMatrix), anybit::Error> {
    let shape = (x.rows(), w.rows(), x.columns());
    let problem = Problem::new(shape, *x.format(), *w.format()).with_output(OutputFormat::F16);
    let plan = context.plan(&problem)?;
    let stride = w.rows().next_multiple_of(8);
    let words = x.rows() * stride / 2;
    let buffer = buffer_of(context, (0..words).map(|_| u32::MAX));
    let shape = (x.rows(), w.rows());
    let output = OutputMatrix::from_buffer(&buffer, 0, OutputFormat::F16, shape, stride)?;
    let operands = Operands {
        activation: &context.upload(x, &plan.activation_layout())?,
        weight: &context.upload(w, &plan.weight_layout())?,
        output: &output,
    };
    let prepared = context.prepare(&plan, operands)?;
    let values = context
        .run(&prepared, &output)?
        .into_f16()
        .unwrap_or_default();
    Ok((values, output))
}

fn floats(rows: usize, columns: usize, values: &[f32]) -> PackedMatrix {
    PackedMatrix::from_f32(FloatFormat::F32, rows, columns, values).expect("finite values")
}

/// Values at and beyond the ends of f16, and between two of them: products with 1.
#[test]
fn f16_outputs_saturate() {
    on_each_adapter("f16_outputs_saturate", |rig| {
        let values = [
            0.0,
            1.0,
            2048.0,
            2049.0,
            65503.0,
            65504.0,
            65519.99,
            65520.0,
            65536.0,
            1.0e6,
            3.0e38,
            1.0e-3,
            6.1035156e-5,
            6.0e-5,
            6.0e-8,
            1.0e-8,
            1.0e-30,
        ];
        let signed: Vec<f32> = values.iter().flat_map(|&value| [value, -value]).collect();
        let mut w = vec![0.0; 4 * signed.len()];
        for (row, &value) in signed.iter().enumerate() {
            w[4 * row] = value;
        }
        let context = rig.best();
        let product = multiply(
            &context,
            &floats(1, 4, &[1.0, 0.0, 0.0, 0.0]),
            &floats(signed.len(), 4, &w),
        );
        rig.note(match product {
            Err(error) => Err(error.to_string()),
            Ok((found, _)) => {
                let wrong = found.iter().zip(&signed).find(|&(&found, &value)| {
                    // A product with 1 and sums with 0 are exact, but that subnormal f32 may become 0.
                    !f16_output(f64::from(value), 0.0).holds(found.to_f32())
                        || value.abs() >= 65_504.0 && found.to_f32() != 65_504.0_f32.copysign(value)
                });
                match wrong {
                    None if found.len() == signed.len() => Ok(()),
                    None => Err(format!("{} outputs", found.len())),
                    Some((found, value)) => Err(format!("{value:e} became {found:e}")),
                }
            }
        });
    });
}

/// Only the outputs are written, and half a word after an odd row, which becomes 0.
#[test]
fn an_odd_row_ends_with_a_zero_half() {
    on_each_adapter("an_odd_row_ends_with_a_zero_half", |rig| {
        let mut random = Random::new(5);
        for (m, n, k) in [(3, 5, 8), (9, 33, 40), (1, 1, 4)] {
            let x = operand(&format("f32"), (m, k), Fill::Random, &mut random);
            let w = operand(&format("f32"), (n, k), Fill::Random, &mut random);
            let context = rig.best();
            let halves = multiply(&context, &x, &w).and_then(|(_, output)| {
                let buffer = output.buffer().expect("an output");
                let words = (buffer.size() / 4) as usize;
                let whole = OutputMatrix::from_buffer(
                    buffer,
                    0,
                    OutputFormat::F16,
                    (1, 2 * words),
                    2 * words,
                )?;
                let pending = context.submit_and_read(&[], &whole)?;
                Ok(pending.read_blocking()?.into_f16().unwrap_or_default())
            });
            rig.note(match halves {
                Err(error) => Err(error.to_string()),
                Ok(halves) => {
                    let stride = n.next_multiple_of(8);
                    let wrong =
                        halves
                            .iter()
                            .enumerate()
                            .find(|&(index, half)| match index % stride {
                                column if column < n => false,
                                column if column == n => half.to_bits() != 0,
                                _ => half.to_bits() != u16::MAX,
                            });
                    wrong.map_or(Ok(()), |(index, half)| {
                        Err(format!(
                            "{m} x {n}: row {}, column {}: {:#06x}",
                            index / stride,
                            index % stride,
                            half.to_bits()
                        ))
                    })
                }
            });
        }
    });
}

/// f16 outputs, as they lie in memory, are the activations of a further product.
#[test]
fn f16_outputs_are_activations() {
    on_each_adapter("f16_outputs_are_activations", |rig| {
        let mut random = Random::new(8);
        // An odd number of columns, so that a row does not end with a word.
        for (m, n, k) in [(5, 43, 32), (1, 64, 64)] {
            let x = operand(&format("i8rf"), (m, k), Fill::Random, &mut random);
            let w = operand(&format("i4rf"), (n, k), Fill::Random, &mut random);
            let second = operand(&format("i3rf"), (21, n), Fill::Random, &mut random);
            let context = rig.best();
            let chain = || -> Result<_, anybit::Error> {
                let (hidden, output) = multiply(&context, &x, &w)?;
                let activation: DeviceMatrix = output.as_activation().expect("f16 values");
                let problem = Problem::new((m, 21, n), *activation.format(), *second.format());
                let plan = context.plan(&problem)?;
                let last = context.output(OutputFormat::F32, m, 21)?;
                let operands = Operands {
                    activation: &activation,
                    weight: &context.upload(&second, &plan.weight_layout())?,
                    output: &last,
                };
                let prepared = context.prepare(&plan, operands)?;
                Ok((
                    hidden,
                    context.run(&prepared, &last)?,
                    problem,
                    plan.engine(),
                ))
            };
            match chain() {
                Err(error) => rig.note(Err(error.to_string())),
                Ok((hidden, values, problem, engine)) => {
                    let hidden: Vec<f32> = hidden.into_iter().map(f16::to_f32).collect();
                    let hidden = PackedMatrix::from_f32(FloatFormat::F16, m, n, &hidden)
                        .expect("finite values");
                    let (expected, bounds) =
                        reference(&problem, engine, &hidden, &second).expect("a product");
                    let Values::F32(found) = values else {
                        panic!("an f32 output");
                    };
                    rig.note_wrong(
                        "the second product",
                        compare::bounded(&found, &expected, &bounds),
                    );
                }
            }
        }
    });
}
