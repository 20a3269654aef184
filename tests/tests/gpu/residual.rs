//! Products that are added to a residual, and products whose rows do not depend on each other.

use anybit::{Context, Engine, Epilogue, Operands, OutputFormat, Plan, PlanOptions, Problem};
use anybit_formats::PackedMatrix;
use anybit_reference::bound::{Bounded, ErrorModel};
use anybit_tests::compare;
use anybit_tests::model::{Outcome, bounded, filled, read, submit, values};
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{on_each_adapter, reference};

/// R + X · Wᵀ on the device.
fn multiply(
    context: &Context,
    plan: &Plan,
    x: &PackedMatrix,
    w: &PackedMatrix,
    residual: &[f32],
) -> Outcome<Vec<f32>> {
    let problem = plan.problem();
    let shape = (problem.m, problem.n);
    let activation = context.upload(x, &plan.activation_layout())?;
    let weight = context.upload(w, &plan.weight_layout())?;
    let output = filled(context, &vec![0.0; residual.len()], shape, 1)?;
    let added = filled(context, residual, shape, 1)?;
    let operands = Operands {
        activation: &activation,
        weight: &weight,
        output: &output,
    };
    let work = context.prepare_with(plan, operands, &Epilogue::residual(&added))?;
    submit(context, &[&work]);
    read(context, &output)
}

#[test]
fn residuals_are_added_by_every_kernel() {
    on_each_adapter("residuals_are_added_by_every_kernel", |rig| {
        let cases = [
            (Engine::Fma, "f32", "u4g32hm"),
            (Engine::Dot4, "i8rf", "u4g32hm"),
            (Engine::Bitplane, "i2rf", "i3rf"),
            (Engine::Swar, "i8rf", "u4g32hm"),
            (Engine::IntegerFma, "i4rf", "u4g32hm"),
            (Engine::LMul, "f32", "e4m3rf"),
            (Engine::Lut, "f32", "i2rf"),
            (Engine::Lut8, "f32", "i4g32h"),
        ];
        let mut skeletons = 0;
        for (engine, x, w) in cases {
            for (turn, shape) in [(1, 33, 96), (9, 35, 96), (3, 5, 0)]
                .into_iter()
                .enumerate()
            {
                let problem = Problem::new(shape, format(x), format(w)).with_residual();
                for class in rig.classes(&problem, engine) {
                    // The cheapest to compile, for every shape.
                    let kernel = class[0];
                    let context = rig.context(&kernel);
                    let Some(id) = kernel.id(&problem, context.caps()) else {
                        continue;
                    };
                    skeletons += 1;
                    let added = || -> Outcome<Option<String>> {
                        let mut random = Random::new(turn as u64);
                        let (m, n, k) = shape;
                        let x = operand(&problem.activation, (m, k), Fill::Random, &mut random);
                        let w = operand(&problem.weight, (n, k), Fill::Random, &mut random);
                        let residual = values(m * n, 100.0, &mut random);
                        let plan =
                            anybit::plan(&problem, context.caps(), &PlanOptions::kernel(&id))?;
                        let found = multiply(&context, &plan, &x, &w, &residual)?;
                        let (exact, bounds) = reference(&problem, engine, &x, &w)?;
                        let products = exact.into_iter().zip(bounds).zip(residual);
                        let expected: Vec<Bounded> = products
                            .map(|((value, bound), residual)| {
                                ErrorModel::WGSL.with_residual(Bounded { value, bound }, residual)
                            })
                            .collect();
                        Ok(bounded(&found, &expected).map(|wrong| wrong.to_string()))
                    };
                    rig.note(match added() {
                        Ok(None) => Ok(()),
                        Ok(Some(wrong)) => Err(format!("{id} {shape:?}: {wrong}")),
                        Err(error) => Err(format!("{id} {shape:?}: {error}")),
                    });
                }
            }
        }
        rig.note(match skeletons >= 2 * cases.len() {
            true => Ok(()),
            false => Err(format!("only {skeletons} kernels were run")),
        });
    });
}

/// One kernel for every number of rows: a row of many equals the row alone, bit for bit.
#[test]
fn deterministic_rows_do_not_depend_on_each_other() {
    on_each_adapter("deterministic_rows_do_not_depend_on_each_other", |rig| {
        let context = rig.best();
        for (turn, (x, w)) in [
            ("f32", "u4g32hm"),
            ("i8rf", "u4g32hm"),
            ("f32", "f16"),
            ("i8rf", "trf"),
        ]
        .into_iter()
        .enumerate()
        {
            let residual = turn % 2 == 0;
            let equal = || -> Outcome<Option<String>> {
                let mut random = Random::new(9);
                let (n, k, most) = (67, 160, 40);
                let w = operand(&format(w), (n, k), Fill::Random, &mut random);
                let x = operand(&format(x), (most, k), Fill::Random, &mut random);
                let added = values(most * n, 10.0, &mut random);
                let rows = |first: usize, count: usize| -> Outcome<(String, Vec<u32>)> {
                    let x = x.row_range(first..first + count)?;
                    let mut problem = Problem::new((count, n, k), *x.format(), *w.format());
                    if residual {
                        problem = problem.with_residual();
                    }
                    let options = PlanOptions::default().with_deterministic(true);
                    let plan = context.plan_with(&problem, &options)?;
                    let found = if residual {
                        multiply(&context, &plan, &x, &w, &added[first * n..][..count * n])?
                    } else {
                        let output = context.output(OutputFormat::F32, count, n)?;
                        let operands = Operands {
                            activation: &context.upload(&x, &plan.activation_layout())?,
                            weight: &context.upload(&w, &plan.weight_layout())?,
                            output: &output,
                        };
                        submit(&context, &[&context.prepare(&plan, operands)?]);
                        read(&context, &output)?
                    };
                    let bits = found.into_iter().map(f32::to_bits).collect();
                    Ok((plan.specialization().id.clone(), bits))
                };
                let (id, whole) = rows(0, most)?;
                for count in [1, 3, 8] {
                    let mut parts = Vec::new();
                    for first in (0..most / count * count).step_by(count) {
                        let (other, part) = rows(first, count)?;
                        if other != id {
                            return Ok(Some(format!("{other} for {count} rows, {id} for {most}")));
                        }
                        parts.extend(part);
                    }
                    if let Some(wrong) = compare::equal(&parts, &whole[..parts.len()]) {
                        return Ok(Some(format!("{id}, {count} rows at a time: {wrong}")));
                    }
                }
                Ok(None)
            };
            rig.note(match equal() {
                Ok(None) => Ok(()),
                Ok(Some(wrong)) => Err(format!("{x} {w}, residual {residual}: {wrong}")),
                Err(error) => Err(format!("{x} {w}, residual {residual}: {error}")),
            });
        }
    });
}
