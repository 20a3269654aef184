//! docs/adapters.md and docs/adapters.json.

use std::collections::BTreeMap;
use std::fmt::Write;

use anybit::{Engine, KERNELS, KernelRow, Skeleton};
use serde::{Deserialize, Serialize};

use super::contracts::CONTRACTS;
use super::report::{AdapterFacts, Outcome, Report, Summary, disagreements};

/// Between these lines stands what a run writes.
const BEGIN: &str = "<!-- The tables below are written by `cargo xtask matrix --update`. -->";
const END: &str = "<!-- End of the tables. -->";

/// What docs/adapters.json keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Digests of integer outputs, by contract and shape: the same on all adapters that ever ran.
    pub digests: BTreeMap<String, String>,
    /// The latest run of each leg.
    pub legs: Vec<Summary>,
}

impl Record {
    /// Reads docs/adapters.json.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("docs/adapters.json: {error}"))
    }

    /// docs/adapters.json.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Takes a report's place among the legs.
    ///
    /// # Errors
    ///
    /// What [`check`](Self::check) finds wrong.
    pub fn take(&mut self, report: &Report) -> Result<(), Vec<String>> {
        let wrong = self.check(report);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        self.digests.extend(report.digests().unwrap_or_default());
        let summary = report.summary();
        match self.legs.iter_mut().find(|leg| leg.leg == summary.leg) {
            Some(leg) => *leg = summary,
            None => self.legs.push(summary),
        }
        Ok(())
    }

    /// What is wrong with a report: failed cases, kernels of the floor that met nothing, contracts without a kernel, and
    /// integers that differ from those of other adapters.
    pub fn check(&self, report: &Report) -> Vec<String> {
        let leg = &report.leg;
        let mut wrong: Vec<String> = report
            .rows
            .iter()
            .filter(|row| row.outcome == Outcome::Failed)
            .map(|row| {
                let problem = row.problem.as_deref().unwrap_or_default();
                format!("{leg}: {}: {}: {problem}", row.contract, row.id)
            })
            .collect();
        let summary = report.summary();
        for row in KERNELS.iter().filter(|row| is_of_the_floor(row)) {
            if !summary.kernels.contains_key(row.stem) {
                wrong.push(format!(
                    "{leg}: {} runs everywhere and met no contract",
                    row.stem
                ));
            }
        }
        for contract in CONTRACTS {
            if !summary.contracts.contains_key(contract.name) {
                wrong.push(format!("{leg}: no kernel does {}", contract.name));
            }
        }
        match report.digests() {
            Ok(digests) => wrong.extend(disagreements(
                (leg, &digests),
                ("docs/adapters.json", &self.digests),
            )),
            Err(problem) => wrong.push(problem),
        }
        wrong
    }

    /// The legs of this record that a later one tells otherwise: of another driver, or with other kernels. One that is new in
    /// the later one is none of them.
    pub fn changed(&self, later: &Self) -> Vec<&str> {
        let changed = self.legs.iter().filter(|leg| !later.legs.contains(leg));
        changed.map(|leg| leg.leg.as_str()).collect()
    }

    /// docs/adapters.md with its tables written anew.
    ///
    /// # Errors
    ///
    /// If the text lacks the lines that the tables stand between.
    pub fn write_into(&self, text: &str) -> Result<String, String> {
        let missing = |line: &str| format!("docs/adapters.md lacks the line {line}");
        let (before, rest) = text.split_once(BEGIN).ok_or_else(|| missing(BEGIN))?;
        let (_, after) = rest.split_once(END).ok_or_else(|| missing(END))?;
        Ok(format!(
            "{before}{BEGIN}\n\n{}\n{END}{after}",
            self.tables()
        ))
    }

    fn tables(&self) -> String {
        let mut text = String::from("### What ran\n\n");
        text.push_str(
            "| run | adapter | driver | subgroups | storage binding | workgroup memory | timestamps |\n\
             |---|---|---|---|---:|---:|---|\n",
        );
        for leg in &self.legs {
            let _ = writeln!(text, "{}", adapter_row(&leg.leg, &leg.adapter));
        }
        if self.legs.iter().all(|leg| leg.adapter.software) {
            text.push_str("\nAll of these run shaders on a CPU: no GPU is in the tables yet.\n");
        }
        text.push_str("\n### Adapter × contract\n\n| contract |");
        self.header(&mut text);
        for contract in CONTRACTS {
            let _ = write!(text, "| {} |", contract.name);
            for leg in &self.legs {
                let cell = match leg.contracts.get(contract.name) {
                    Some(cell) => format!("{} ({})", outcome(cell.outcome), cell.cases),
                    None => "not supported".to_owned(),
                };
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text.push_str("\n### Adapter × kernel\n\n| kernel |");
        self.header(&mut text);
        let mut notes: Vec<&str> = Vec::new();
        for row in KERNELS {
            let _ = write!(text, "| `{}` |", row.stem);
            for leg in &self.legs {
                let cell = match (leg.kernels.get(row.stem), leg.refused.get(row.stem)) {
                    (Some(cases), _) => cases.to_string(),
                    (None, Some(reason)) => {
                        let place = notes.iter().position(|note| note == reason);
                        let place = place.unwrap_or_else(|| {
                            notes.push(reason);
                            notes.len() - 1
                        });
                        format!("– ({})", letter(place))
                    }
                    (None, None) => "–".to_owned(),
                };
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text.push('\n');
        for (place, note) in notes.iter().enumerate() {
            let _ = writeln!(text, "- ({}) {note}", letter(place));
        }
        text
    }

    fn header(&self, text: &mut String) {
        for leg in &self.legs {
            let _ = write!(text, " {} |", leg.leg);
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(self.legs.len()));
        text.push('\n');
    }
}

fn adapter_row(leg: &str, adapter: &AdapterFacts) -> String {
    let AdapterFacts {
        name,
        backend,
        driver,
        subgroup,
        max_binding,
        max_workgroup_memory,
        timestamps,
        ..
    } = adapter;
    let lanes = match subgroup {
        Some((least, most)) if least == most => format!("{least} lanes"),
        Some((least, most)) => format!("{least} to {most} lanes"),
        None => "none".to_owned(),
    };
    let timestamps = if *timestamps { "yes" } else { "no" };
    format!(
        "| {leg} | {name} ({backend}) | {driver} | {lanes} | {} MiB | {} KiB | {timestamps} |",
        max_binding >> 20,
        max_workgroup_memory >> 10,
    )
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Exact => "exact",
        Outcome::WithinBound => "within bound",
        Outcome::Failed => "FAILED",
    }
}

/// a, b, c, …
fn letter(place: usize) -> char {
    char::from(b'a' + (place % 26) as u8)
}

/// Whether a kernel needs no optional feature.
fn is_of_the_floor(row: &KernelRow) -> bool {
    row.skeleton != Skeleton::Subgroup && row.engine != Engine::Matrix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::report::Row;

    fn report() -> Report {
        let outcome = |contract: &str| match contract {
            "W8A8" => Outcome::Exact,
            _ => Outcome::WithinBound,
        };
        let row = |contract: &str, kernel: &str| Row {
            contract: contract.to_owned(),
            kernel: kernel.to_owned(),
            id: "gemv".to_owned(),
            shape: (1, 2, 3),
            outcome: outcome(contract),
            problem: None,
            digest: (contract == "W8A8").then(|| "00".to_owned()),
        };
        let mut rows: Vec<Row> = CONTRACTS
            .iter()
            .map(|contract| row(contract.name, "gemv_fma"))
            .collect();
        rows.extend(
            KERNELS
                .iter()
                .filter(|kernel| is_of_the_floor(kernel))
                .map(|kernel| row("f32 × f32", kernel.stem)),
        );
        Report {
            leg: "made up".to_owned(),
            adapter: AdapterFacts {
                name: "none".to_owned(),
                backend: "vulkan".to_owned(),
                driver: "1.0".to_owned(),
                subgroup: Some((4, 8)),
                software: true,
                max_binding: 1 << 27,
                max_workgroup_memory: 1 << 14,
                timestamps: false,
            },
            rows,
            refused: BTreeMap::from([("gemm_subgroup_fma".to_owned(), "no lanes".to_owned())]),
            seconds: 0.0,
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let record = Record::default();
        assert_eq!(record.check(&report()), [""; 0]);
        let mut lacking = report();
        lacking.rows.retain(|row| row.kernel != "gemm_tiled_dot4");
        assert!(record.check(&lacking)[0].contains("gemm_tiled_dot4"));
        let mut lacking = report();
        lacking.rows.retain(|row| row.contract != "f32 × NF4");
        assert!(record.check(&lacking)[0].contains("f32 × NF4"));
        let mut failed = report();
        failed.rows[0].outcome = Outcome::Failed;
        failed.rows[0].problem = Some("3 of 7 wrong".to_owned());
        assert!(record.check(&failed)[0].contains("3 of 7 wrong"));
    }

    #[test]
    fn integers_of_other_adapters_are_compared() {
        let mut record = Record::default();
        record.take(&report()).expect("nothing is wrong");
        let mut other = report();
        other.rows[0].digest = Some("ff".to_owned());
        let wrong = record.take(&other).expect_err("the integers differ");
        assert!(wrong[0].contains("different integers"), "{wrong:?}");
        assert_eq!(record.legs.len(), 1);
        let again = Record::parse(&record.to_json()).expect("it is its own text");
        assert_eq!(again, record);
    }

    #[test]
    fn a_leg_is_changed_only_if_it_was_known() {
        let mut record = Record::default();
        record.take(&report()).expect("nothing is wrong");
        let mut later = record.clone();
        let mut other = report();
        other.leg = "a GPU".to_owned();
        other.adapter.software = false;
        later.take(&other).expect("nothing is wrong");
        assert_eq!(record.changed(&later), [""; 0]);
        other.adapter.driver = "2.0".to_owned();
        let before = later.clone();
        later.take(&other).expect("nothing is wrong");
        assert_eq!(before.changed(&later), ["a GPU"]);
        let none_yet = "no GPU is in the tables yet";
        assert!(record.tables().contains(none_yet) && !later.tables().contains(none_yet));
    }

    #[test]
    fn tables_replace_tables() {
        let mut record = Record::default();
        record.take(&report()).expect("nothing is wrong");
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let written = record.write_into(&text).expect("both lines are there");
        assert!(written.starts_with("before\n") && written.ends_with("after\n"));
        assert!(!written.contains("old") && written.contains("| W8A8 | exact (1) |"));
        assert!(
            written.contains("| `gemm_subgroup_fma` | – (a) |"),
            "{written}"
        );
        assert!(written.contains("- (a) no lanes"));
        assert_eq!(record.write_into(&written), Ok(written));
        assert!(record.write_into("no lines").is_err());
    }
}
