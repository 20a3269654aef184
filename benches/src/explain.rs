//! `bench --explain`: how the planner comes to its kernel, beside what all kernels took.

use anybit::{Explanation, Refusal};
use serde::Serialize;

use crate::report::{Row, duration};

/// What `--explain` adds to a row: keys of the object `explain`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Explained {
    /// The cost model's estimate, in units of the least of the problem's kernels.
    pub(crate) estimate: f64,
    /// How many times the time of the problem's fastest kernel this one takes; on software adapters the CPU time, which
    /// repeats where wall time does not.
    pub(crate) ratio: Option<f64>,
    /// Why this kernel is chosen: `cost model`, `built-in default` or `tuned`; null if it is not.
    pub(crate) chosen_by: Option<String>,
    /// Of the chosen kernel: the others that there are, by the reason against them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) refused: Vec<Refused>,
}

/// Kernels with one reason against them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Refused {
    pub(crate) reason: String,
    pub(crate) kernels: Vec<String>,
}

/// What an explanation says of a kernel.
pub(crate) fn of_kernel(explanation: &Explanation, id: &str) -> Option<Explained> {
    let mut candidates = explanation.candidates.iter().enumerate();
    let (index, found) = candidates.find(|(_, other)| other.candidate.specialization.id == id)?;
    let chosen = index == 0;
    Some(Explained {
        estimate: found.estimate,
        ratio: None,
        chosen_by: chosen.then(|| explanation.by.to_string()),
        refused: if chosen {
            collapsed(&explanation.refusals)
        } else {
            Vec::new()
        },
    })
}

/// Refusals by reason, in the order of the reasons' first kernels.
fn collapsed(refusals: &[Refusal]) -> Vec<Refused> {
    let mut reasons: Vec<Refused> = Vec::new();
    for refusal in refusals {
        let reason = refusal.reason.to_string();
        let kernel = refusal.kernel();
        match reasons.iter_mut().find(|other| other.reason == reason) {
            Some(other) => other.kernels.push(kernel),
            None => reasons.push(Refused {
                reason,
                kernels: vec![kernel],
            }),
        }
    }
    reasons
}

/// What rows are compared by.
fn time(row: &Row) -> Option<f64> {
    row.cpu_seconds.or(row.seconds)
}

/// Fills in the ratios of explained rows.
pub(crate) fn compare(rows: &mut [Row]) {
    let times: Vec<(Row, f64)> = rows
        .iter()
        .filter(|row| row.explain.is_some())
        .filter_map(|row| Some((row.clone(), time(row)?)))
        .collect();
    for row in rows {
        let same = times.iter().filter(|(other, _)| other.same_problem(row));
        let fastest = same.map(|(_, seconds)| *seconds).min_by(f64::total_cmp);
        let time = time(row);
        if let Some(explained) = &mut row.explain {
            explained.ratio = time.zip(fastest).map(|(seconds, least)| seconds / least);
        }
    }
}

/// Every explained problem.
pub(crate) fn print(rows: &[Row]) {
    let mut seen: Vec<&Row> = Vec::new();
    for row in rows.iter().filter(|row| row.explain.is_some()) {
        if seen.iter().any(|other| other.same_problem(row)) {
            continue;
        }
        seen.push(row);
        println!("\n{}, {} ({})", row.contract, row.shape(), row.workload);
        let same = || rows.iter().filter(|other| other.same_problem(row));
        let width = same().map(|row| row.kernel.len()).max().unwrap_or(0);
        println!(
            "  {:<width$}  {:>9}  {:>9}  {:>9}  {:>9}",
            "kernel id", "estimate", "time", "CPU time", "x fastest"
        );
        for row in same() {
            let Some(explained) = &row.explain else {
                continue;
            };
            println!(
                "  {:<width$}  {:>9.2}  {:>9}  {:>9}  {:>9}{}",
                row.kernel,
                explained.estimate,
                row.seconds.map_or_else(|| "-".to_owned(), duration),
                row.cpu_seconds.map_or_else(|| "-".to_owned(), duration),
                explained
                    .ratio
                    .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
                explained
                    .chosen_by
                    .as_ref()
                    .map_or_else(String::new, |by| format!("  chosen: {by}")),
            );
        }
        for refused in same()
            .filter_map(|row| row.explain.as_ref())
            .flat_map(|explained| &explained.refused)
        {
            println!("  {} refused: {}", refused.kernels.len(), refused.reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anybit::{Caps, Choices, ChosenBy, PlanOptions, Problem, explain};

    #[test]
    fn the_chosen_kernel_tells_why_and_what_was_refused() {
        let format = |name: &str| name.parse().expect("a format");
        let problem = Problem::new((8, 64, 64), format("i8rf"), format("i4g32h"));
        let caps = Caps::floor();
        let options = PlanOptions::default();
        let found = explain(&problem, &caps, &options, &Choices::none()).expect("a problem");
        assert_eq!(found.by, ChosenBy::CostModel);
        let of = |index: usize| {
            let id = &found.candidates[index].candidate.specialization.id;
            of_kernel(&found, id).expect("a candidate")
        };
        assert_eq!(of(0).chosen_by.as_deref(), Some("cost model"));
        assert_eq!(of(0).estimate, 1.0);
        let refused: usize = of(0)
            .refused
            .iter()
            .map(|refused| refused.kernels.len())
            .sum();
        assert_eq!(refused, found.refusals.len());
        assert!(of(0).refused.len() < found.refusals.len());
        assert_eq!(of(1).chosen_by, None);
        assert!(of(1).estimate >= 1.0 && of(1).refused.is_empty());
        assert!(of_kernel(&found, "no such kernel").is_none());
    }
}
