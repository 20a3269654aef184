//! The GPU: a context, and a plan or the reasons why there is none.

use anybit::{Choices, Context, Engine, Plan, PlanOptions, Problem, candidates};

use crate::cli::AdapterChoice;
use crate::error::Error;

/// A context on the adapter chosen, with the choices of kernels that this machine was tuned to.
pub(crate) fn context(choice: &AdapterChoice) -> Result<Context, Error> {
    let context = Context::request_blocking(&choice.options())?;
    let choices = Choices::load_user();
    for warning in choices.warnings_on(context.caps()) {
        eprintln!("warning: {warning}");
    }
    let context = context.with_choices(choices);
    Ok(match choice.self_check {
        true => context.with_self_checks(),
        false => context,
    })
}

/// The plan for a problem, with one engine if it is given.
pub(crate) fn plan(
    context: &Context,
    problem: &Problem,
    engine: Option<Engine>,
) -> Result<Plan, Error> {
    let options = engine.map_or_else(PlanOptions::default, PlanOptions::engine);
    // Both operands are uploaded in the layouts that the plan names.
    let options = options.with_uploaded(true);
    let plan = match engine {
        // It is taken only after a self-check.
        Some(Engine::Matrix) => context.plan_checked_blocking(problem, &options),
        _ => context.plan_with(problem, &options),
    };
    plan.map_err(|error| match error {
        anybit::Error::Unsupported { contract, refusals } => Error::NoKernel {
            contract,
            adapter: context.caps().name.clone(),
            refusals,
            wanted: engine,
            able: if engine.is_some() {
                able_engines(context, problem)
            } else {
                Vec::new()
            },
        },
        other => other.into(),
    })
}

/// The engines that could do a problem.
fn able_engines(context: &Context, problem: &Problem) -> Vec<Engine> {
    Engine::ALL
        .into_iter()
        .filter(|&engine| {
            candidates(problem, context.caps(), &PlanOptions::engine(engine))
                .is_ok_and(|(accepted, _)| !accepted.is_empty())
        })
        .collect()
}
