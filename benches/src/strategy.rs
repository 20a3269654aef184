//! Strategies: which kernels are tried on a problem.

use anybit::{Context, Engine, Error, Plan, PlanOptions, Problem, candidates};

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
            // Tables are looked up only where that is asked for.
            for engine in [Engine::Lut, Engine::Lut8] {
                let options = PlanOptions::engine(engine).with_uploaded(options.uploaded);
                others.extend(candidates(problem, context.caps(), &options)?.0);
            }
            let mut kinds = vec![(first.engine(), first.skeleton())];
            others.retain(|other| {
                let kind = (other.engine, other.skeleton);
                let new = !kinds.contains(&kind);
                kinds.push(kind);
                new
            });
        }
        let mut plans = vec![first];
        for other in others {
            let only = PlanOptions::kernel(other.specialization.id);
            // A kernel may fit a problem and not this size of it: the planner's choice does.
            plans.extend(context.plan_with(problem, &only));
        }
        Ok(plans)
    }
}
