//! What a run of the matrix on one adapter found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An adapter, as its driver describes it, and as far as a leg lets it show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterFacts {
    /// Its name.
    pub name: String,
    /// The graphics API.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// The fewest and the most lanes of its subgroups, where they are used.
    pub subgroup: Option<(u32, u32)>,
    /// Whether it runs shaders on a CPU.
    pub software: bool,
    /// Bytes that a storage binding may have.
    pub max_binding: u64,
    /// Bytes of workgroup memory.
    pub max_workgroup_memory: u32,
    /// Whether it has timestamps.
    pub timestamps: bool,
}

/// How a result compares with the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Equal to the exact integers.
    Exact,
    /// Within the error model's bound.
    WithinBound,
    /// Wrong, or an error.
    Failed,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The contract's name.
    pub contract: String,
    /// The kernel, as docs/kernels.md calls it.
    pub kernel: String,
    /// The kernel's id.
    pub id: String,
    /// M, N and K.
    pub shape: (usize, usize, usize),
    /// What came of it.
    pub outcome: Outcome,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
    /// A digest of integer outputs, which are the same on every adapter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<String>,
}

/// A run of the matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What the run is called: an adapter, and how it is used.
    pub leg: String,
    /// The adapter.
    pub adapter: AdapterFacts,
    /// All cases.
    pub rows: Vec<Row>,
    /// Why kernels met no contract, by kernel.
    pub refused: BTreeMap<String, String>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// A contract in a table: the worst outcome, and how many cases there were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The worst outcome.
    pub outcome: Outcome,
    /// Cases.
    pub cases: usize,
}

/// What docs/adapters.json keeps of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// What the run is called.
    pub leg: String,
    /// The adapter.
    pub adapter: AdapterFacts,
    /// By contract.
    pub contracts: BTreeMap<String, Cell>,
    /// Cases by kernel.
    pub kernels: BTreeMap<String, usize>,
    /// Why kernels met no contract, by kernel.
    pub refused: BTreeMap<String, String>,
}

impl Report {
    /// The report in short.
    pub fn summary(&self) -> Summary {
        let mut contracts: BTreeMap<String, Cell> = BTreeMap::new();
        let mut kernels: BTreeMap<String, usize> = BTreeMap::new();
        for row in &self.rows {
            let cell = contracts.entry(row.contract.clone()).or_insert(Cell {
                outcome: row.outcome,
                cases: 0,
            });
            cell.outcome = cell.outcome.max(row.outcome);
            cell.cases += 1;
            *kernels.entry(row.kernel.clone()).or_default() += 1;
        }
        Summary {
            leg: self.leg.clone(),
            adapter: self.adapter.clone(),
            contracts,
            kernels,
            refused: self.refused.clone(),
        }
    }

    /// The digests of integer outputs, by contract and shape.
    ///
    /// # Errors
    ///
    /// If kernels of this report disagree on one.
    pub fn digests(&self) -> Result<BTreeMap<String, String>, String> {
        let mut digests: BTreeMap<String, (String, &str)> = BTreeMap::new();
        for row in &self.rows {
            let Some(digest) = &row.digest else { continue };
            let (m, n, k) = row.shape;
            let place = format!("{} {m}x{n}x{k}", row.contract);
            match digests.get(&place) {
                Some((other, id)) if other != digest => {
                    return Err(format!(
                        "{}: {place}: {id} and {} give different integers",
                        self.leg, row.id
                    ));
                }
                _ => digests.insert(place, (digest.clone(), &row.id)),
            };
        }
        Ok(digests
            .into_iter()
            .map(|(place, (digest, _))| (place, digest))
            .collect())
    }
}

/// Where two sets of digests disagree. A contract that only one of them has is no disagreement.
pub fn disagreements(
    (name, digests): (&str, &BTreeMap<String, String>),
    (other_name, others): (&str, &BTreeMap<String, String>),
) -> Vec<String> {
    digests
        .iter()
        .filter(|(place, digest)| others.get(*place).is_some_and(|other| other != *digest))
        .map(|(place, _)| format!("{place}: {name} and {other_name} give different integers"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(contract: &str, id: &str, outcome: Outcome, digest: &str) -> Row {
        Row {
            contract: contract.to_owned(),
            kernel: "gemv_dot4".to_owned(),
            id: id.to_owned(),
            shape: (1, 2, 3),
            outcome,
            problem: None,
            digest: (!digest.is_empty()).then(|| digest.to_owned()),
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        Report {
            leg: "one".to_owned(),
            adapter: AdapterFacts {
                name: "a".to_owned(),
                backend: "vulkan".to_owned(),
                driver: String::new(),
                subgroup: None,
                software: true,
                max_binding: 0,
                max_workgroup_memory: 0,
                timestamps: false,
            },
            rows,
            refused: BTreeMap::new(),
            seconds: 0.0,
        }
    }

    #[test]
    fn a_failure_is_the_worst_outcome() {
        let rows = vec![
            row("a", "1", Outcome::Exact, "x"),
            row("a", "2", Outcome::Failed, ""),
            row("b", "3", Outcome::WithinBound, ""),
        ];
        let summary = report(rows).summary();
        assert_eq!(summary.contracts["a"].outcome, Outcome::Failed);
        assert_eq!(summary.contracts["a"].cases, 2);
        assert_eq!(summary.contracts["b"].outcome, Outcome::WithinBound);
        assert_eq!(summary.kernels["gemv_dot4"], 3);
    }

    #[test]
    fn different_integers_are_seen() {
        let same = report(vec![
            row("a", "1", Outcome::Exact, "x"),
            row("a", "2", Outcome::Exact, "x"),
        ]);
        let digests = same.digests().expect("they agree");
        assert_eq!(digests.len(), 1);
        let other = report(vec![row("a", "1", Outcome::Exact, "y")]);
        let others = other.digests().expect("there is one");
        assert_eq!(disagreements(("one", &digests), ("two", &digests)), [""; 0]);
        let found = disagreements(("one", &digests), ("two", &others));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("one and two"), "{found:?}");
        let torn = report(vec![
            row("a", "1", Outcome::Exact, "x"),
            row("a", "2", Outcome::Exact, "y"),
        ]);
        assert!(torn.digests().is_err());
    }
}
