//! The tuner on a real adapter: what it writes is read again, planned by, and changes no result.

use std::time::Duration;

use anybit::{Choices, Context, Operands, PlanOptions, Problem, ShapeClass, TuneOptions, Values};
use anybit_formats::PackedMatrix;
use anybit_reference::exact;
use anybit_tests::compare;
use anybit_tests::model::Outcome;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::on_each_adapter;

fn multiply(
    context: &Context,
    problem: &Problem,
    x: &PackedMatrix,
    w: &PackedMatrix,
) -> Outcome<(String, Vec<i32>)> {
    let plan = context.plan_with(problem, &PlanOptions::default().with_uploaded(true))?;
    let output = context.output(problem.output, problem.m, problem.n)?;
    let operands = Operands {
        activation: &context.upload(x, &plan.activation_layout())?,
        weight: &context.upload(w, &plan.weight_layout())?,
        output: &output,
    };
    let prepared = context.prepare(&plan, operands)?;
    match context.run(&prepared, &output)? {
        Values::I32(values) => Ok((plan.id().to_owned(), values)),
        other => Err(format!("{other:?} instead of integers").into()),
    }
}

#[test]
fn a_tuning_is_kept_and_changes_no_result() {
    on_each_adapter("a_tuning_is_kept_and_changes_no_result", |rig| {
        let context = rig.best();
        let tuned = || -> Outcome<Option<String>> {
            let problem = Problem::new((3, 20, 96), format("i2"), format("i3"))
                .with_output(anybit::OutputFormat::I32);
            let impossible = Problem::new((3, 20, 40), format("i8rf"), format("i4g32h"));
            let options = TuneOptions::new(vec![problem.clone(), impossible])
                .with_time(Duration::from_secs(20));
            let mut heard = 0;
            let tuning = context.tune_blocking(&options, |_| heard += 1)?;
            let (right, wrong) = (&tuning.problems[0], &tuning.problems[1]);
            if heard != 2 || wrong.failure.is_none() || right.failure.is_some() {
                return Ok(Some(format!("{heard} problems: {right:?}, {wrong:?}")));
            }
            if right
                .untuned_ratio()
                .is_none_or(|ratio| !(1.0..).contains(&ratio))
            {
                return Ok(Some(format!("ratio {:?}", right.untuned_ratio())));
            }
            if let Some(failed) = right.kernels.iter().find(|kernel| kernel.failure.is_some()) {
                return Ok(Some(format!("{failed:?}")));
            }

            let text = tuning.choices.to_json();
            let read = Choices::parse(&text);
            if read != tuning.choices || read.len_on(context.caps()) != 1 {
                return Ok(Some(format!("{read:?} instead of {:?}", tuning.choices)));
            }
            let class = ShapeClass::of(&problem).map(|class| class.to_string());
            if !class.is_some_and(|class| text.contains(&class)) {
                return Ok(Some(format!("no class of {problem:?} in {text}")));
            }
            let fastest = right.fastest().map(|kernel| kernel.id.clone());
            let chosen = context.clone().with_choices(read);
            let explained =
                chosen.explain(&problem, &PlanOptions::default().with_uploaded(true))?;
            if explained.by != anybit::ChosenBy::Tuned {
                return Ok(Some(format!("chosen by {}", explained.by)));
            }

            let mut random = Random::new(5);
            let (m, n, k) = (problem.m, problem.n, problem.k);
            let x = operand(&problem.activation, (m, k), Fill::Random, &mut random);
            let w = operand(&problem.weight, (n, k), Fill::Random, &mut random);
            let expected = exact::gemm_i64(&x, &w)?;
            let (id, values) = multiply(&chosen, &problem, &x, &w)?;
            if Some(&id) != fastest.as_ref() {
                return Ok(Some(format!("{id} is planned, {fastest:?} was fastest")));
            }
            let wrong = compare::exact(&values, &expected);
            let (_, untuned) = multiply(&context.clone().without_choices(), &problem, &x, &w)?;
            Ok(wrong
                .or_else(|| compare::exact(&untuned, &expected))
                .map(|wrong| format!("{id}: {wrong}")))
        };
        rig.note(match tuned() {
            Ok(None) => Ok(()),
            Ok(Some(wrong)) => Err(wrong),
            Err(error) => Err(error.to_string()),
        });
    });
}

/// Without any time, nothing is chosen and all is said to be left.
#[test]
fn a_tuning_without_time_says_so() {
    on_each_adapter("a_tuning_without_time_says_so", |rig| {
        let context = rig.best();
        let problem = Problem::new((3, 20, 96), format("f32"), format("i3"));
        let options = TuneOptions::new(vec![problem]).with_time(Duration::ZERO);
        rig.note(match context.tune_blocking(&options, |_| {}) {
            Ok(tuning)
                if tuning.choices.is_empty()
                    && tuning.problems[0].is_untouched()
                    && tuning.problems[0].not_reached() > 0 =>
            {
                Ok(())
            }
            Ok(tuning) => Err(format!("{tuning:?}")),
            Err(error) => Err(error.to_string()),
        });
    });
}
