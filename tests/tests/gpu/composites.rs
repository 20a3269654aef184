//! Products that are several products in one: complex matrices of the units, dynamic fixed point, and blocks under a shared
//! exponent.

use anybit::{Context, Engine, Operands, OutputFormat, PlanOptions, Problem, Values};
use anybit_formats::complex::{UnitComplexMatrix, stack, stacked_format, unit};
use anybit_formats::dynamic_fixed_point::DynamicFixedPoint;
use anybit_formats::{
    DeviceLayout, ElementFormat, FloatFormat, MatrixFormat, PackedMatrix, Zeros, quantize,
};
use anybit_reference::exact;
use anybit_tests::compare;
use anybit_tests::full;
use anybit_tests::operand::{Fill, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{multiply, on_each_adapter, reference};

const ENGINES: [Engine; 2] = [Engine::Dot4, Engine::Bitplane];

/// X · Wᵀ by the cheapest kernel of an engine.
fn product(
    context: &Context,
    engine: Engine,
    x: &PackedMatrix,
    w: &PackedMatrix,
    output: OutputFormat,
    random: &mut Random,
) -> Result<(Problem, Values), String> {
    let shape = (x.rows(), w.rows(), x.columns());
    let problem = Problem::new(shape, *x.format(), *w.format()).with_output(output);
    let plan = context
        .plan_with(&problem, &PlanOptions::engine(engine))
        .map_err(|error| error.to_string())?;
    let values = multiply(context, &plan, x, w, random).map_err(|error| error.to_string())?;
    Ok((problem, values))
}

/// The four integer products of real and imaginary parts, in one dispatch, and what they add up to.
#[test]
fn complex_integer_products_are_exact() {
    on_each_adapter("complex_integer_products_are_exact", |rig| {
        let context = rig.best();
        let mut random = Random::new(18);
        let (m, n, k) = (3, 7, 75);
        let codes: Vec<u8> = (0..n * k).map(|_| random.below(4) as u8).collect();
        let w = UnitComplexMatrix::from_codes(n, k, &codes, 1.0, 1.0).expect("codes");
        let mut part =
            || -> Vec<i64> { (0..m * k).map(|_| random.below(256) as i64 - 128).collect() };
        let (re, im) = (part(), part());
        let floats = |values: &[i64]| -> Vec<f32> { values.iter().map(|&x| x as f32).collect() };
        let zeros = vec![0.0; m * k];
        // Rows of real parts alone, of imaginary parts alone, and of both.
        let rows: Vec<f32> = [
            (&floats(&re), &zeros),
            (&zeros, &floats(&im)),
            (&floats(&re), &floats(&im)),
        ]
        .into_iter()
        .flat_map(|(re, im)| stack(re, im, m, k).expect("parts"))
        .collect();
        let format = MatrixFormat::new(ElementFormat::INT8, None).expect("bare codes");
        let x = quantize(&rows, 3 * m, rows.len() / (3 * m), format, None).expect("integers");
        let ternary = w.to_bare_ternary().expect("a matrix");
        let dot = |x: &[i64], row: usize, column: usize, part: fn((i8, i8)) -> i8| -> i64 {
            (0..k)
                .map(|i| x[row * k + i] * i64::from(part(unit(codes[column * k + i]))))
                .sum()
        };
        let mut expected = Vec::new();
        for rows in 0..3 {
            for row in 0..m {
                let (real, imaginary) = (rows != 1, rows != 0);
                let part = |on: bool, value: i64| if on { value } else { 0 };
                expected.extend((0..n).map(|column| {
                    part(real, dot(&re, row, column, |unit| unit.0))
                        + part(imaginary, dot(&im, row, column, |unit| unit.1))
                }));
                expected.extend((0..n).map(|column| {
                    part(real, dot(&re, row, column, |unit| unit.1))
                        - part(imaginary, dot(&im, row, column, |unit| unit.0))
                }));
            }
        }
        for engine in ENGINES {
            match product(
                &context,
                engine,
                &x,
                &ternary,
                OutputFormat::I32,
                &mut random,
            ) {
                Ok((_, Values::I32(found))) => {
                    rig.note_wrong(&format!("{engine}"), compare::exact(&found, &expected));
                }
                other => rig.note(Err(format!("{engine}: {other:?}"))),
            }
        }
    });
}

/// Floats to floats: activations stacked on the GPU and quantised there, with scales of their own for real and imaginary
/// parts, against conj(x)·w of what the codes stand for.
#[test]
fn complex_products_stay_within_the_bounds() {
    on_each_adapter("complex_products_stay_within_the_bounds", |rig| {
        let context = rig.best();
        let mut random = Random::new(19);
        for (m, n, k) in [(1, 9, 64), (6, 17, 40)] {
            let mut part = |count: usize, size: f32| -> Vec<f32> {
                (0..count).map(|_| size * random.signed()).collect()
            };
            let w = UnitComplexMatrix::quantize(&part(n * k, 1.0), &part(n * k, 0.3), n, k)
                .expect("finite values");
            let rows = stack(&part(m * k, 1.0), &part(m * k, 20.0), m, k).expect("parts");
            let ternary = w.to_ternary().expect("a matrix");
            let format = stacked_format(ElementFormat::INT8, k).expect("a format");
            for engine in ENGINES {
                let run = || -> Result<_, anybit::Error> {
                    let columns = ternary.columns();
                    let problem = Problem::new((m, 2 * n, columns), format, *ternary.format());
                    let plan = context.plan_with(&problem, &PlanOptions::engine(engine))?;
                    let input = context.upload_f32(&rows, m, columns)?;
                    let x = context.allocate(format, m, columns, &plan.activation_layout())?;
                    let quantize = context.prepare_quantize(&input, &x)?;
                    let output = context.output(OutputFormat::F32, m, 2 * n)?;
                    let operands = Operands {
                        activation: &x,
                        weight: &context.upload(&ternary, &plan.weight_layout())?,
                        output: &output,
                    };
                    let multiply = context.prepare(&plan, operands)?;
                    let pending = context.submit_and_read(&[&quantize.work, &multiply], &output)?;
                    let values = pending.read_blocking()?.into_f32().unwrap_or_default();
                    Ok((problem, values, context.download(&x)?))
                };
                let what = format!("{engine} {m} x {n} x {k}");
                let (problem, found, x) = match run() {
                    Ok(done) => done,
                    Err(error) => {
                        rig.note(Err(format!("{what}: {error}")));
                        continue;
                    }
                };
                // Each half has its scale: the imaginary parts are twenty times as large.
                rig.note(match x.scale(0, 1) > 5.0 * x.scale(0, 0) {
                    true => Ok(()),
                    false => Err(format!(
                        "{what}: scales {} and {}",
                        x.scale(0, 0),
                        x.scale(0, 1)
                    )),
                });
                let (expected, bounds) =
                    reference(&problem, engine, &x, &ternary).expect("a product");
                // The product of real matrices is that of complex numbers.
                let (x, half) = (x.decode_f64(), ternary.columns() / 2);
                let (w_re, w_im) = w.decode();
                let complex: Vec<f64> = (0..m)
                    .flat_map(|row| (0..2 * n).map(move |column| (row, column)))
                    .map(|(row, column)| {
                        (0..k)
                            .map(|i| {
                                let (re, im) =
                                    (x[row * 2 * half + i], x[row * 2 * half + half + i]);
                                let at = column % n * k + i;
                                let (a, b) = (f64::from(w_re[at]), f64::from(w_im[at]));
                                if column < n {
                                    re * a + im * b
                                } else {
                                    re * b - im * a
                                }
                            })
                            .sum()
                    })
                    .collect();
                let slack: Vec<f64> = bounds.iter().map(|bound| bound.max(1e-300)).collect();
                rig.note(
                    match (complex.iter().zip(&expected).zip(&slack))
                        .all(|((a, b), bound)| (a - b).abs() <= *bound)
                    {
                        true => Ok(()),
                        false => Err(format!("{what}: the real product is not the complex one")),
                    },
                );
                rig.note_wrong(&what, compare::bounded(&found, &expected, &bounds));
            }
        }
    });
}

/// The exact product of 16-bit codes, and the largest there is, whose integers pass 2^41.
#[test]
fn dynamic_fixed_point_does_not_overflow() {
    on_each_adapter("dynamic_fixed_point_does_not_overflow", |rig| {
        let context = rig.best();
        let mut random = Random::new(20);
        let (m, n) = (2, 5);
        for (k, extreme) in [
            (4096, Some(i16::MIN)),
            (4096, Some(i16::MAX)),
            (200, None),
            (33, None),
        ] {
            let mut codes = |count: usize| -> Vec<i16> {
                (0..count)
                    .map(|_| extreme.unwrap_or_else(|| random.bits() as i16))
                    .collect()
            };
            let x =
                DynamicFixedPoint::from_codes(m, k, codes(m * k), vec![-13, -2]).expect("codes");
            let w = DynamicFixedPoint::from_codes(n, k, codes(n * k), vec![-9]).expect("codes");
            let activation = x.to_activation().expect("a matrix");
            let weight = w.to_weight().expect("a matrix");
            // In i64, then scaled by the powers of two, which f64 does exactly.
            let exact: Vec<f64> = (0..m)
                .flat_map(|row| (0..n).map(move |column| (row, column)))
                .map(|(row, column)| {
                    let (x_row, w_row) =
                        (&x.codes()[row * k..][..k], &w.codes()[column * k..][..k]);
                    let pairs = x_row.iter().zip(w_row);
                    let sum: i64 = pairs.map(|(&a, &b)| i64::from(a) * i64::from(b)).sum();
                    sum as f64 * 2_f64.powi(x.exponent(row) + w.exponent(column))
                })
                .collect();
            for engine in ENGINES {
                let what = format!("{engine} K = {k}, codes {extreme:?}");
                let result = product(
                    &context,
                    engine,
                    &activation,
                    &weight,
                    OutputFormat::F32,
                    &mut random,
                );
                match result {
                    Ok((problem, Values::F32(found))) => {
                        let (expected, bounds) =
                            reference(&problem, engine, &activation, &weight).expect("a product");
                        rig.note_wrong(&what, compare::bounded(&found, &exact, &bounds));
                        rig.note_wrong(&what, compare::bounded(&found, &expected, &bounds));
                        if extreme == Some(i16::MIN) {
                            // Upper halves alone, and powers of two: every sum is exact.
                            let found: Vec<f64> = found.into_iter().map(f64::from).collect();
                            rig.note_wrong(&what, compare::equal(&found, &exact));
                        }
                    }
                    other => rig.note(Err(format!("{what}: {other:?}"))),
                }
            }
        }
    });
}

/// Block floating point of any width and block: two's complement under a power of two a block. Every value is q·2^e.
#[test]
fn blocks_of_any_width_share_exponents() {
    on_each_adapter("blocks_of_any_width_share_exponents", |rig| {
        let mut random = Random::new(21);
        for bits in 2..=8 {
            for block in [16, 32, 64, 128] {
                let name = format!("i{bits}g{block}e");
                let format: MatrixFormat = name.parse().expect("a format");
                let (rows, columns) = (5, 384);
                let values: Vec<f32> = (0..rows * columns)
                    .map(|index| random.signed() * [0.01, 1.0, 300.0][index / 64 % 3])
                    .collect();
                let w = quantize(&values, rows, columns, format, None).expect("finite values");
                let integers = w.integer_values().expect("integers");
                let shared: Vec<f32> = (0..rows * columns)
                    .map(|index| {
                        let (row, column) = (index / columns, index % columns);
                        let scale = w.scale(row, column / block);
                        // A power of two: no mantissa.
                        assert_eq!(scale.to_bits() & 0x007f_ffff, 0, "{name}");
                        integers[index] as f32 * scale
                    })
                    .collect();
                assert_eq!(w.decode(), shared, "{name}");

                // Half of the pairs, with every width and every block.
                if !full() && (bits + block.ilog2()) % 2 != 0 {
                    continue;
                }
                let context = rig.best();
                let decoded = || -> Result<Vec<f32>, anybit::Error> {
                    let matrix = context.upload(&w, &DeviceLayout::ROW_MAJOR)?;
                    let output = context.output(OutputFormat::F32, rows, columns)?;
                    let work = context.prepare_decode(&matrix, &output)?;
                    Ok(context.run(&work, &output)?.into_f32().unwrap_or_default())
                };
                match decoded() {
                    Err(error) => rig.note(Err(format!("{name}: {error}"))),
                    Ok(found) => rig.note_wrong(&name, compare::equal(&found, &shared)),
                }
                // Each width meets one product.
                if !full() && (bits / 2 + block.ilog2() / 2) % 2 != 0 {
                    continue;
                }
                let x = operand(&format, (3, columns), Fill::Random, &mut random);
                match product(
                    &context,
                    Engine::Dot4,
                    &x,
                    &w,
                    OutputFormat::F32,
                    &mut random,
                ) {
                    Ok((problem, Values::F32(found))) => {
                        let (expected, bounds) =
                            reference(&problem, Engine::Dot4, &x, &w).expect("a product");
                        rig.note_wrong(&name, compare::bounded(&found, &expected, &bounds));
                    }
                    other => rig.note(Err(format!("{name}: {other:?}"))),
                }
            }
        }
    });
}

/// The vector of the definition, on the GPU: w = i and x = 3 + 5i make 5 + 3i.
#[test]
fn complex_activations_are_conjugated() {
    on_each_adapter("complex_activations_are_conjugated", |rig| {
        let context = rig.best();
        let w = UnitComplexMatrix::from_codes(1, 1, &[1], 1.0, 1.0).expect("codes");
        let ternary = w.to_ternary().expect("a matrix");
        let rows = stack(&[3.0], &[5.0], 1, 1).expect("parts");
        let format = stacked_format(ElementFormat::INT8, 1).expect("a format");
        let codes: Vec<u8> = rows.iter().map(|&x| (x as i32 + 128) as u8).collect();
        let x = PackedMatrix::from_codes(format, 1, rows.len(), &codes, &[1.0, 1.0], Zeros::None)
            .expect("codes");
        let mut random = Random::new(1);
        let result = product(
            &context,
            Engine::Dot4,
            &x,
            &ternary,
            OutputFormat::F32,
            &mut random,
        );
        rig.note(match result {
            Ok((_, Values::F32(found))) if found == [5.0, 3.0] => Ok(()),
            other => Err(format!("{other:?}")),
        });
        // And in f32, by the reference.
        let x = PackedMatrix::from_f32(FloatFormat::F32, 1, rows.len(), &rows).expect("values");
        assert_eq!(
            exact::gemm_f64(&x, &ternary).expect("a product"),
            [5.0, 3.0]
        );
    });
}
