//! Strategies: which kernels are tried on a problem.

use anybit::{Context, Engine, Error, Plan, PlanOptions, Problem, candidates};

/// How many kernels a problem is run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// The planner's choice.
    Planned,
    /// The planner's choice, then its best of every other pair of engine and skeleton.
    EveryKind,
}

impl Strategy {
    /// The plans for a problem, the planner's choice first.
    ///
    /// # Errors
    ///
    /// Those of [`Context::plan`].
    pub(crate) fn plans(self, context: &Context, problem: &Problem) -> Result<Vec<Plan>, Error> {
        let first = context.plan(problem)?;
        let mut kinds = vec![(first.engine(), first.skeleton())];
        let mut plans = vec![first];
        if self == Self::EveryKind {
            let (mut others, _) = candidates(problem, context.caps(), &PlanOptions::default())?;
            // Tables are looked up only where that is asked for.
            for engine in [Engine::Lut, Engine::Lut8] {
                let options = PlanOptions::engine(engine);
                others.extend(candidates(problem, context.caps(), &options)?.0);
            }
            for other in others {
                let kind = (other.engine, other.skeleton);
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                    let only = PlanOptions::kernel(other.specialization.id);
                    plans.push(context.plan_with(problem, &only)?);
                }
            }
        }
        Ok(plans)
    }
}
