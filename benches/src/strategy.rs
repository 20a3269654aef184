//! Strategies: which kernels are tried on a problem.

use anybit::{Candidate, Context, Engine, Error, Plan, PlanOptions, Problem, candidates};
use wildmatch::WildMatch;

/// How many kernels a problem is run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// The planner's choice.
    Planned,
    /// The planner's choice, then its best of every other pair of engine and skeleton.
    EveryKind,
    /// The planner's choice, then all others that it could take.
    Everything,
}

impl Strategy {
    /// The plans for a problem under options that rule no kernel out, the planner's choice first.
    ///
    /// # Errors
    ///
    /// Those of [`Context::plan`].
    pub(crate) fn plans(
        self,
        context: &Context,
        problem: &Problem,
        options: &PlanOptions,
    ) -> Result<Vec<Plan>, Error> {
        let first = context.plan_with(problem, options)?;
        if self == Self::Planned {
            return Ok(vec![first]);
        }
        let (mut others, _) = candidates(problem, context.caps(), options)?;
        others.retain(|other| other.specialization.id != first.id());
        if self == Self::EveryKind {
            others.extend(tables(context, problem, options)?);
            let mut kinds = vec![(first.engine(), first.skeleton())];
            others.retain(|other| {
                let kind = (other.engine, other.skeleton);
                let new = !kinds.contains(&kind);
                kinds.push(kind);
                new
            });
        }
        let mut plans = vec![first];
        plans.extend(plans_of(context, problem, others));
        Ok(plans)
    }
}

/// The plans of the kernels with such ids, the cheapest by the cost model first.
///
/// # Errors
///
/// Those of [`candidates`].
pub(crate) fn named(
    globs: &[WildMatch],
    context: &Context,
    problem: &Problem,
    options: &PlanOptions,
) -> Result<Vec<Plan>, Error> {
    let (mut all, _) = candidates(problem, context.caps(), options)?;
    all.extend(tables(context, problem, options)?);
    all.retain(|one| {
        globs
            .iter()
            .any(|glob| glob.matches(&one.specialization.id))
    });
    Ok(plans_of(context, problem, all).collect())
}

/// The kernels of tables, which are looked up only where that is asked for.
fn tables(
    context: &Context,
    problem: &Problem,
    options: &PlanOptions,
) -> Result<Vec<Candidate>, Error> {
    let mut all = Vec::new();
    for engine in [Engine::Lut, Engine::Lut8] {
        let options = PlanOptions::engine(engine).with_uploaded(options.uploaded);
        all.extend(candidates(problem, context.caps(), &options)?.0);
    }
    Ok(all)
}

/// A kernel may fit a problem and not this size of it: the planner's choice does.
fn plans_of<'a>(
    context: &'a Context,
    problem: &'a Problem,
    kernels: Vec<Candidate>,
) -> impl Iterator<Item = Plan> + 'a {
    kernels.into_iter().filter_map(|kernel| {
        let only = PlanOptions::kernel(kernel.specialization.id);
        context.plan_with(problem, &only).ok()
    })
}
